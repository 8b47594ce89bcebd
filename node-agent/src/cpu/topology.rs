//! What belongs together on a machine: threads of a core, cores of an L3 cache, of a NUMA node, of a package.
//!
//! The kernel tells it as files of lists; [`Topology::read`] takes a function that reads one, so that machines can be
//! written down as data. Called by [`crate::host::cpuset`].

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::set::{CpuListError, CpuSet};

/// Most threads of one core; POWER has eight, and no machine more.
const MAX_THREADS: usize = 64;
/// Cache indices that are looked at; machines have four or five.
const MAX_CACHES: usize = 16;
/// The level of cache that decides how near CPUs are to each other.
const NEAR_LEVEL: &str = "3";

/// Why the topology could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopologyError {
    /// A file that every kernel has is not there.
    #[error("{0} cannot be read; is the node's /sys mounted?")]
    Missing(String),
    /// A file with a list that is none.
    #[error("{path}: {source}")]
    List {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: CpuListError,
    },
    /// A file with a number that is none.
    #[error("{path} says \"{text}\", which is no number")]
    Number {
        /// The file.
        path: String,
        /// What it says.
        text: String,
    },
    /// No CPU is online.
    #[error("no CPU is online, says /sys/devices/system/cpu/online")]
    Empty,
    /// More threads in a core than any machine has.
    #[error("{0} names {1} threads of one core, and {MAX_THREADS} are the most")]
    Threads(String, usize),
    /// A CPU of two NUMA nodes.
    #[error("CPU {0} is of two NUMA nodes")]
    TwoNodes(u32),
    /// Two CPUs that contradict each other about being of one core.
    #[error("CPU {0} and CPU {1} do not agree about which core they are of")]
    Contradiction(u32, u32),
}

/// Where one online CPU lies. Groups are named by their lowest CPU, so that they need no numbers of their own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Its core.
    pub core: u32,
    /// The CPUs that share its L3 cache; where there is none, its core.
    pub cache: u32,
    /// Its NUMA node.
    pub node: u32,
    /// Its package (socket).
    pub package: u32,
}

/// The online CPUs of a machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Topology {
    places: BTreeMap<u32, Place>,
}

impl Topology {
    /// Reads the topology through `file`, which gives the text of a file below `/sys/devices/system`.
    pub fn read(file: impl Fn(&str) -> Option<String>) -> Result<Self, TopologyError> {
        let online = list(&file, "cpu/online")?;
        if online.is_empty() {
            return Err(TopologyError::Empty);
        }
        let nodes = nodes(&file)?;
        let mut places = BTreeMap::new();
        let mut cores: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for cpu in online.iter() {
            // Of CPUs that are offline nothing is known.
            let siblings = siblings(&file, cpu)?.intersection(&online);
            let core = siblings.first().unwrap_or(cpu);
            // Each thread of a core must name the same ones.
            if let Some(other) = cores
                .get(&core)
                .filter(|known| **known != siblings)
                .and_then(CpuSet::first)
            {
                return Err(TopologyError::Contradiction(cpu, other));
            }
            cores.entry(core).or_insert(siblings);
            let cache = near(&file, cpu)?
                .map(|near| near.intersection(&online))
                .and_then(|near| near.first())
                .unwrap_or(core);
            let package = package(&file, cpu)?;
            let node = nodes.get(&cpu).copied().unwrap_or(0);
            let place = Place {
                core,
                cache,
                node,
                package,
            };
            places.insert(cpu, place);
        }
        // And no thread may be named by a core that it does not name itself.
        for (core, siblings) in &cores {
            for cpu in siblings.iter() {
                if places.get(&cpu).is_none_or(|place| place.core != *core) {
                    return Err(TopologyError::Contradiction(cpu, *core));
                }
            }
        }
        Ok(Self { places })
    }

    /// All CPUs that are online.
    pub fn online(&self) -> CpuSet {
        self.places.keys().copied().collect()
    }

    /// Where a CPU lies; `None` where it is not online.
    pub fn place(&self, cpu: u32) -> Option<Place> {
        self.places.get(&cpu).copied()
    }

    /// The online CPUs of the cores that `cpus` lie on, and `cpus` themselves.
    #[must_use]
    pub fn whole_cores(&self, cpus: &CpuSet) -> CpuSet {
        let cores: BTreeSet<u32> = cpus
            .iter()
            .filter_map(|cpu| Some(self.place(cpu)?.core))
            .collect();
        let mut whole: CpuSet = self
            .places
            .iter()
            .filter(|(_, place)| cores.contains(&place.core))
            .map(|(cpu, _)| *cpu)
            .collect();
        whole.add(cpus);
        whole
    }

    /// The online CPUs of each core, by its lowest CPU.
    pub fn cores(&self) -> BTreeMap<u32, CpuSet> {
        let mut cores: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (cpu, place) in &self.places {
            cores.entry(place.core).or_default().push(*cpu);
        }
        let set = |(core, cpus): (u32, Vec<u32>)| (core, cpus.into_iter().collect());
        cores.into_iter().map(set).collect()
    }

    /// Hash of it all: another machine, or CPUs that came or went, have another.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (cpu, place) in &self.places {
            let Place {
                core,
                cache,
                node,
                package,
            } = place;
            for number in [cpu, core, cache, node, package] {
                hash.update(number.to_le_bytes());
            }
        }
        hex::encode(&hash.finalize()[..16])
    }
}

fn list(file: &impl Fn(&str) -> Option<String>, path: &str) -> Result<CpuSet, TopologyError> {
    let text = file(path).ok_or_else(|| TopologyError::Missing(path.to_owned()))?;
    read_list(path, &text)
}

fn read_list(path: &str, text: &str) -> Result<CpuSet, TopologyError> {
    CpuSet::parse(text).map_err(|source| TopologyError::List {
        path: path.to_owned(),
        source,
    })
}

/// The threads of a CPU's core. Older kernels have the second name only; a machine without either has no threads.
fn siblings(file: &impl Fn(&str) -> Option<String>, cpu: u32) -> Result<CpuSet, TopologyError> {
    for name in ["core_cpus_list", "thread_siblings_list"] {
        let path = format!("cpu/cpu{cpu}/topology/{name}");
        if let Some(text) = file(&path) {
            let mut set = read_list(&path, &text)?;
            set.add(&[cpu].into_iter().collect());
            if set.len() > MAX_THREADS {
                return Err(TopologyError::Threads(path, set.len()));
            }
            return Ok(set);
        }
    }
    Ok([cpu].into_iter().collect())
}

/// The CPUs that share the L3 cache with this one, where it has one.
fn near(file: &impl Fn(&str) -> Option<String>, cpu: u32) -> Result<Option<CpuSet>, TopologyError> {
    for index in 0..MAX_CACHES {
        let directory = format!("cpu/cpu{cpu}/cache/index{index}");
        let Some(level) = file(&format!("{directory}/level")) else {
            break;
        };
        let data =
            file(&format!("{directory}/type")).is_none_or(|kind| kind.trim() != "Instruction");
        if level.trim() == NEAR_LEVEL && data {
            let path = format!("{directory}/shared_cpu_list");
            let mut set = list(file, &path)?;
            set.add(&[cpu].into_iter().collect());
            return Ok(Some(set));
        }
    }
    Ok(None)
}

/// The number of the package. Kernels that do not know it say -1; then all are of one.
fn package(file: &impl Fn(&str) -> Option<String>, cpu: u32) -> Result<u32, TopologyError> {
    let path = format!("cpu/cpu{cpu}/topology/physical_package_id");
    let Some(text) = file(&path) else {
        return Ok(0);
    };
    match text.trim() {
        "-1" => Ok(0),
        text => text.parse().map_err(|_| TopologyError::Number {
            path,
            text: text.chars().take(40).collect(),
        }),
    }
}

/// The NUMA node of each CPU; empty on a kernel without NUMA.
fn nodes(file: &impl Fn(&str) -> Option<String>) -> Result<BTreeMap<u32, u32>, TopologyError> {
    let mut nodes = BTreeMap::new();
    let Some(text) = file("node/online") else {
        return Ok(nodes);
    };
    // Nodes are written like CPUs, and there are never more of them.
    for node in read_list("node/online", &text)?.iter() {
        let path = format!("node/node{node}/cpulist");
        let Some(text) = file(&path) else {
            continue;
        };
        for cpu in read_list(&path, &text)?.iter() {
            if nodes.insert(cpu, node).is_some() {
                return Err(TopologyError::TwoNodes(cpu));
            }
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::machines;
    use super::*;
    use proptest::prelude::*;

    fn read(files: &[(&str, &str)]) -> Result<Topology, TopologyError> {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        Topology::read(|path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn every_known_machine_is_read_and_has_a_fingerprint_of_its_own() {
        let mut prints = HashMap::new();
        for machine in machines::all() {
            let topology = machine.topology();
            assert_eq!(topology.online(), machine.online(), "{}", machine.name);
            let total: usize = topology.cores().values().map(CpuSet::len).sum();
            assert_eq!(total, topology.online().len(), "{}", machine.name);
            let other = prints.insert(topology.fingerprint(), machine.name);
            assert_eq!(other, None, "{}", machine.name);
        }
        assert!(prints.len() >= 10);
    }

    #[test]
    fn a_kernel_that_tells_next_to_nothing_is_a_machine_of_single_cpus() {
        let topology = read(&[("cpu/online", "0-1\n")]).unwrap();
        assert_eq!(topology.cores().len(), 2);
        assert_eq!(topology.place(1).map(|p| (p.node, p.package)), Some((0, 0)));
    }

    #[test]
    fn what_contradicts_itself_or_is_absurd_is_refused() {
        let refused = [
            (vec![], "missing"),
            (vec![("cpu/online", "")], "empty"),
            (vec![("cpu/online", "0-99999999999")], "list"),
            (
                vec![
                    ("cpu/online", "0-1"),
                    ("cpu/cpu0/topology/core_cpus_list", "0-"),
                ],
                "list",
            ),
            (
                vec![
                    ("cpu/online", "0-2"),
                    ("cpu/cpu0/topology/core_cpus_list", "0"),
                    ("cpu/cpu1/topology/core_cpus_list", "0-1"),
                ],
                "sibling",
            ),
            (
                vec![
                    ("cpu/online", "0-1"),
                    ("cpu/cpu0/topology/core_cpus_list", "0-1"),
                ],
                "one-sided",
            ),
            (
                vec![
                    ("cpu/online", "0"),
                    ("cpu/cpu0/topology/physical_package_id", "x"),
                ],
                "number",
            ),
            (
                vec![
                    ("cpu/online", "0"),
                    ("cpu/cpu0/cache/index0/level", "3"),
                    ("cpu/cpu0/cache/index0/shared_cpu_list", "9999"),
                ],
                "cache",
            ),
            (
                vec![
                    ("cpu/online", "0"),
                    ("node/online", "0"),
                    ("node/node0/cpulist", "?"),
                ],
                "node",
            ),
            (
                vec![
                    ("cpu/online", "0"),
                    ("node/online", "0-1"),
                    ("node/node0/cpulist", "0"),
                    ("node/node1/cpulist", "0"),
                ],
                "two nodes",
            ),
            (
                vec![
                    ("cpu/online", "0-99"),
                    ("cpu/cpu0/topology/core_cpus_list", "0-99"),
                ],
                "threads",
            ),
        ];
        for (files, what) in refused {
            assert!(read(&files).is_err(), "{what}");
        }
    }

    #[test]
    fn the_older_name_and_a_package_that_is_not_known_are_understood() {
        let topology = read(&[
            ("cpu/online", "0-1"),
            ("cpu/cpu0/topology/thread_siblings_list", "0-1"),
            ("cpu/cpu1/topology/thread_siblings_list", "0-1"),
            ("cpu/cpu0/topology/physical_package_id", "-1"),
        ])
        .unwrap();
        assert_eq!(topology.cores().len(), 1);
    }

    proptest! {
        #[test]
        fn any_files_are_read_or_refused_without_a_panic(texts in proptest::collection::vec("[0-9,\\-]{0,12}", 8)) {
            let _ = Topology::read(|path| {
                let at = path.bytes().map(usize::from).sum::<usize>() % (texts.len() + 1);
                texts.get(at).cloned()
            });
        }
    }
}
