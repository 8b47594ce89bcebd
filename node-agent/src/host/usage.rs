//! What a pod uses, from cgroup v1 and v2. Called by [`super::kernel`].
//!
//! Files are held open between samples: reading a held one takes 1 to 2 microseconds, opening it again 7 to 9.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cgroup::{Resource, Tree, Version};
use crate::protocol::{PodUid, PodUsage};

/// Pods whose files are held; three files each stay well below the usual limit of 1024. Of more pods, the rest is opened each time.
const MAX_HELD: usize = 256;
/// Files of a pod that nobody asked about for so long are closed.
const HELD_FOR: Duration = Duration::from_mins(2);
/// Most bytes read of one file; `memory.stat` has about 2 KiB.
const MAX_FILE_BYTES: usize = 8 << 10;

/// The open files.
#[derive(Debug)]
pub struct Sampler {
    held: HashMap<PodUid, Files>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Files {
    cpu: File,
    memory: File,
    stat: File,
    used: Instant,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            buffer: vec![0; MAX_FILE_BYTES],
        }
    }
}

impl Sampler {
    /// What the pod uses; `None` where it has no cgroup. `clock` reads the monotonic clock in microseconds.
    pub fn sample(
        &mut self,
        tree: &mut Tree,
        uid: &PodUid,
        now: Instant,
        clock: impl Fn() -> u64,
    ) -> Option<PodUsage> {
        // A removed cgroup answers ENODEV on a held file. The UID is never used again, so nothing is lost by trying twice.
        if let Some(mut files) = self.held.remove(uid)
            && let Some(usage) = self.read(tree.version(), uid, &files, &clock)
        {
            files.used = now;
            self.held.insert(uid.clone(), files);
            return Some(usage);
        }
        let files = open(tree, uid, now)?;
        let usage = self.read(tree.version(), uid, &files, &clock)?;
        if self.held.len() < MAX_HELD {
            self.held.insert(uid.clone(), files);
        }
        Some(usage)
    }

    /// Closes what was not used for a while.
    pub fn sweep(&mut self, now: Instant) {
        self.held
            .retain(|_, files| now.saturating_duration_since(files.used) < HELD_FOR);
    }

    fn read(
        &mut self,
        version: Version,
        uid: &PodUid,
        files: &Files,
        clock: impl Fn() -> u64,
    ) -> Option<PodUsage> {
        let cpu = self.text(&files.cpu)?;
        let cpu_micros = match version {
            Version::V1 => cpu.trim().parse::<u64>().ok()? / 1000,
            Version::V2 => field(cpu, "usage_usec")?,
        };
        let at_micros = clock();
        let used: u64 = self.text(&files.memory)?.trim().parse().ok()?;
        let stat = self.text(&files.stat)?;
        let inactive = match version {
            Version::V1 => field(stat, "total_inactive_file")?,
            Version::V2 => field(stat, "inactive_file")?,
        };
        Some(PodUsage {
            uid: uid.clone(),
            cpu_micros,
            // Two files are never read at one instant.
            working_set_bytes: used.saturating_sub(inactive),
            at_micros,
        })
    }

    fn text(&mut self, file: &File) -> Option<&str> {
        let mut length = 0;
        loop {
            let read = file
                .read_at(&mut self.buffer[length..], length as u64)
                .ok()?;
            length += read;
            if read == 0 || length == self.buffer.len() {
                break;
            }
        }
        std::str::from_utf8(&self.buffer[..length]).ok()
    }
}

fn open(tree: &mut Tree, uid: &PodUid, now: Instant) -> Option<Files> {
    let (cpu, memory) = match tree.version() {
        Version::V1 => ("cpuacct.usage", "memory.usage_in_bytes"),
        Version::V2 => ("cpu.stat", "memory.current"),
    };
    let open = |directory: &Path, name: &str| File::open(directory.join(name)).ok();
    let cpu_directory = tree.pod(uid, Resource::Cpu, now)?;
    let memory_directory = tree.pod(uid, Resource::Memory, now)?;
    Some(Files {
        cpu: open(&cpu_directory, cpu)?,
        memory: open(&memory_directory, memory)?,
        stat: open(&memory_directory, "memory.stat")?,
        used: now,
    })
}

/// The number after `name` and a blank, at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const UID: &str = "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11";

    fn uid() -> PodUid {
        PodUid::try_from(UID.to_owned()).unwrap()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn v2_counts_the_pod_without_its_inactive_files() {
        let root = tempfile::tempdir().unwrap();
        let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        write(root.path(), "cgroup.controllers", "cpu memory\n");
        write(
            root.path(),
            &format!("{pod}/cpu.stat"),
            "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n",
        );
        write(root.path(), &format!("{pod}/memory.current"), "1000\n");
        write(
            root.path(),
            &format!("{pod}/memory.stat"),
            "anon 5\ninactive_file 400\nactive_file 3\n",
        );
        let mut tree = Tree::new(root.path(), "0::/");
        let mut sampler = Sampler::default();
        let now = Instant::now();
        let usage = sampler.sample(&mut tree, &uid(), now, || 7).unwrap();
        assert_eq!(
            (usage.cpu_micros, usage.working_set_bytes, usage.at_micros),
            (2_500_000, 600, 7)
        );
        // The held file shows what the kernel says now.
        write(root.path(), &format!("{pod}/memory.current"), "300\n");
        let usage = sampler.sample(&mut tree, &uid(), now, || 8).unwrap();
        assert_eq!((usage.working_set_bytes, usage.at_micros), (0, 8));
        sampler.sweep(now + HELD_FOR);
        assert!(sampler.held.is_empty());
    }

    #[test]
    fn v1_and_hybrid_count_in_nanoseconds_and_with_totals() {
        for extra in [None, Some("unified/cgroup.controllers")] {
            let root = tempfile::tempdir().unwrap();
            if let Some(path) = extra {
                write(root.path(), path, "");
            }
            let pod = format!("knode-1/kubepods/burstable/pod{UID}");
            write(
                root.path(),
                &format!("cpuacct/{pod}/cpuacct.usage"),
                "2500000000\n",
            );
            write(
                root.path(),
                &format!("memory/{pod}/memory.usage_in_bytes"),
                "1000\n",
            );
            write(
                root.path(),
                &format!("memory/{pod}/memory.stat"),
                "inactive_file 1\ntotal_inactive_file 400\n",
            );
            let mut tree = Tree::new(root.path(), "9:memory:/knode-1/kubepods/x");
            let usage = Sampler::default()
                .sample(&mut tree, &uid(), Instant::now(), || 7)
                .unwrap();
            assert_eq!(
                (usage.cpu_micros, usage.working_set_bytes),
                (2_500_000, 600)
            );
        }
    }

    #[test]
    fn a_pod_without_a_cgroup_has_no_usage() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(root.path(), "");
        assert_eq!(
            Sampler::default().sample(&mut tree, &uid(), Instant::now(), || 0),
            None
        );
    }
}
