//! The files behind it all: the kubelet's cgroups with their CPUs, what the machine is, and the checkpoint. Nothing here
//! decides anything. Used by [`super::pinning`] and [`super::observe`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cpu::checkpoint;
use crate::cpu::set::MAX_LIST_BYTES;
use crate::cpu::topology::TopologyError;
use crate::cpu::{CpuSet, Topology};
use crate::host::cgroup::{Resource, Tree, Version, directories};

/// The cgroups that hold the node's pods, as far as CPUs go.
pub trait Cpusets: Send {
    /// The directories below which the kubelet keeps all pods.
    fn roots(&mut self, now: Instant) -> Vec<PathBuf>;
    /// The cgroups directly below one: name and path.
    fn children(&self, directory: &Path) -> Vec<(String, PathBuf)>;
    /// The CPUs that processes of a cgroup run on; `None` where it is gone or holds no CPUs of its own.
    fn read(&self, directory: &Path) -> io::Result<Option<CpuSet>>;
    /// Sets them.
    fn write(&mut self, directory: &Path, cpus: &CpuSet) -> io::Result<()>;
}

/// The node's own.
#[derive(Debug)]
pub struct NodeCpusets {
    tree: Tree,
}

impl NodeCpusets {
    /// Those of a tree.
    pub fn new(tree: Tree) -> Self {
        Self { tree }
    }
}

impl Cpusets for NodeCpusets {
    fn roots(&mut self, now: Instant) -> Vec<PathBuf> {
        self.tree.roots(Resource::Cpuset, now)
    }

    fn children(&self, directory: &Path) -> Vec<(String, PathBuf)> {
        directories(directory)
    }

    fn read(&self, directory: &Path) -> io::Result<Option<CpuSet>> {
        // On v2 what is written can be empty, which stands for all that the parent has.
        let name = match self.tree.version() {
            Version::V1 => "cpuset.cpus",
            Version::V2 => "cpuset.cpus.effective",
        };
        match read(&directory.join(name), MAX_LIST_BYTES) {
            Ok(text) => {
                let cpus = CpuSet::parse(&text);
                cpus.map(Some).map_err(io::Error::other)
            }
            // ENODEV: the cgroup was removed between opening and reading.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ENODEV) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, directory: &Path, cpus: &CpuSet) -> io::Result<()> {
        // One write call, since each is taken for a whole list; and nothing is ever created here.
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(directory.join("cpuset.cpus"))?;
        file.write_all(format!("{cpus}\n").as_bytes())
    }
}

/// What the machine is.
#[derive(Debug)]
pub struct Machine {
    system: PathBuf,
    boot_id: PathBuf,
    known: Option<(String, Topology)>,
}

impl Machine {
    /// The machine that `/sys/devices/system` and `/proc` at these places tell of.
    pub fn new(system: &Path, proc_root: &Path) -> Self {
        Self {
            system: system.to_owned(),
            boot_id: proc_root.join("sys/kernel/random/boot_id"),
            known: None,
        }
    }

    /// The topology. It is read again when CPUs came or went, and only then: it takes thousands of files on large machines.
    pub fn topology(&mut self) -> Result<Topology, TopologyError> {
        let file = |path: &str| read(&self.system.join(path), MAX_LIST_BYTES).ok();
        let online = file("cpu/online").unwrap_or_default();
        if let Some((then, topology)) = &self.known
            && *then == online
        {
            return Ok(topology.clone());
        }
        let topology = Topology::read(file)?;
        self.known = Some((online, topology.clone()));
        Ok(topology)
    }

    /// What this boot is called; empty where the kernel does not say, which equals no other.
    pub fn boot_id(&self) -> String {
        read(&self.boot_id, 64)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

/// The checkpoint's file.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The file `cpus.json` in a directory that is there.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Its content; `None` where it was never written.
    pub fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.directory.join("cpus.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        // One more than is taken, so that what is too large is seen to be.
        file.take(checkpoint::MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes it whole or not at all.
    pub fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.directory.join("cpus.json.new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.directory.join("cpus.json"))?;
        File::open(&self.directory)?.sync_all()
    }
}

fn read(path: &Path, most: usize) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(most as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}
