//! Machines as their kernels describe them, for the tests of [`super`].

use super::set::CpuSet;
use super::topology::Topology;

/// How the threads of a core are numbered.
enum Threads {
    /// One thread a core.
    One,
    /// CPU `n` and CPU `n + distance`: x86 servers and desktops.
    Apart(u32),
    /// So many in a row: POWER, virtual machines.
    Row(u32),
    /// Two in a row below this CPU, single ones from there on: P and E cores.
    Hybrid(u32),
}

/// One machine.
pub struct Machine {
    pub name: &'static str,
    online: CpuSet,
    threads: Threads,
    caches: Vec<CpuSet>,
    nodes: Vec<(u32, CpuSet)>,
    packages: Vec<CpuSet>,
}

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

/// `count` CPUs from `first`, `step` apart.
fn every(first: u32, step: u32, count: u32) -> CpuSet {
    (0..count).map(|n| first + n * step).collect()
}

/// Groups of `size` cores each, whose second threads are `apart` away.
fn blocks(count: u32, size: u32, apart: u32) -> Vec<CpuSet> {
    let block = |n: u32| every(n * size, 1, size).union(&every(n * size + apart, 1, size));
    (0..count).map(block).collect()
}

fn numbered(sets: Vec<CpuSet>) -> Vec<(u32, CpuSet)> {
    (0..).zip(sets).collect()
}

impl Machine {
    pub fn online(&self) -> CpuSet {
        self.online.clone()
    }

    pub fn topology(&self) -> Topology {
        Topology::read(|path| self.file(path)).unwrap()
    }

    fn siblings(&self, cpu: u32) -> CpuSet {
        let row = |size: u32| every(cpu / size * size, 1, size);
        match self.threads {
            Threads::Apart(distance) => every(cpu % distance, distance, 2),
            Threads::Row(size) => row(size),
            Threads::Hybrid(end) if cpu < end => row(2),
            Threads::One | Threads::Hybrid(_) => every(cpu, 1, 1),
        }
    }

    /// A file below `/sys/devices/system`. As in the kernel, lists of threads and caches name online CPUs only.
    pub fn file(&self, path: &str) -> Option<String> {
        let line = |set: &CpuSet| Some(format!("{set}\n"));
        let parts: Vec<&str> = path.split('/').collect();
        let cpu = |name: &str| name.strip_prefix("cpu")?.parse().ok();
        match parts[..] {
            ["cpu", "online"] => line(&self.online),
            ["cpu", name, "topology", "core_cpus_list"] => {
                line(&self.siblings(cpu(name)?).intersection(&self.online))
            }
            ["cpu", name, "topology", "physical_package_id"] => {
                let cpu = cpu(name)?;
                let at = self.packages.iter().position(|set| set.contains(cpu))?;
                Some(format!("{at}\n"))
            }
            ["cpu", name, "cache", index, file] => {
                let cpu = cpu(name)?;
                let shared = self.caches.iter().find(|set| set.contains(cpu));
                match (index, file) {
                    ("index0", "level") => Some("1\n".into()),
                    ("index0", "type") => Some("Data\n".into()),
                    ("index1", "level") => shared.map(|_| "3\n".into()),
                    ("index1", "type") => shared.map(|_| "Unified\n".into()),
                    ("index1", "shared_cpu_list") => line(&shared?.intersection(&self.online)),
                    _ => None,
                }
            }
            ["node", "online"] => line(&self.nodes.iter().map(|(node, _)| *node).collect()),
            ["node", name, "cpulist"] => {
                let node: u32 = name.strip_prefix("node")?.parse().ok()?;
                let (_, cpus) = self.nodes.iter().find(|(number, _)| *number == node)?;
                line(&cpus.intersection(&self.online))
            }
            _ => None,
        }
    }
}

/// All of them.
#[allow(
    clippy::too_many_lines,
    reason = "one entry a machine, and nothing else"
)]
pub fn all() -> Vec<Machine> {
    let one = |cpus: &str| vec![set(cpus)];
    vec![
        Machine {
            name: "desktop, Ryzen 9 5950X: 16 cores with SMT, two L3",
            online: set("0-31"),
            threads: Threads::Apart(16),
            caches: vec![set("0-7,16-23"), set("8-15,24-31")],
            nodes: numbered(one("0-31")),
            packages: one("0-31"),
        },
        Machine {
            name: "desktop, Core i9-12900K: 8 P cores with SMT, 8 E cores without",
            online: set("0-23"),
            threads: Threads::Hybrid(16),
            caches: one("0-23"),
            nodes: numbered(one("0-23")),
            packages: one("0-23"),
        },
        Machine {
            name: "server, EPYC 7763: 64 cores with SMT, eight L3, one node",
            online: set("0-127"),
            threads: Threads::Apart(64),
            caches: blocks(8, 8, 64),
            nodes: numbered(one("0-127")),
            packages: one("0-127"),
        },
        Machine {
            name: "server, two EPYC 7742: 128 cores with SMT, 32 L3, two nodes",
            online: set("0-255"),
            threads: Threads::Apart(128),
            caches: blocks(32, 4, 128),
            nodes: numbered(blocks(2, 64, 128)),
            packages: blocks(2, 64, 128),
        },
        Machine {
            name: "server, two EPYC 7543 as NPS4: 64 cores with SMT, 16 L3, eight nodes",
            online: set("0-127"),
            threads: Threads::Apart(64),
            caches: blocks(16, 4, 64),
            nodes: numbered(blocks(8, 8, 64)),
            packages: blocks(2, 32, 64),
        },
        Machine {
            name: "server, two Xeon 8280: 56 cores with SMT, CPUs dealt out in turn",
            online: set("0-111"),
            threads: Threads::Apart(56),
            caches: vec![every(0, 2, 56), every(1, 2, 56)],
            nodes: numbered(vec![every(0, 2, 56), every(1, 2, 56)]),
            packages: vec![every(0, 2, 56), every(1, 2, 56)],
        },
        Machine {
            name: "server, two Xeon 6430 as SNC2: 64 cores with SMT, an L3 over two nodes",
            online: set("0-127"),
            threads: Threads::Apart(64),
            caches: blocks(2, 32, 64),
            nodes: numbered(blocks(4, 16, 64)),
            packages: blocks(2, 32, 64),
        },
        Machine {
            name: "cloud, Graviton3: 64 cores without SMT",
            online: set("0-63"),
            threads: Threads::One,
            caches: one("0-63"),
            nodes: numbered(one("0-63")),
            packages: one("0-63"),
        },
        Machine {
            name: "server, two Ampere Altra: 160 cores without SMT, no L3 told",
            online: set("0-159"),
            threads: Threads::One,
            caches: vec![],
            nodes: numbered(vec![set("0-79"), set("80-159")]),
            packages: vec![set("0-79"), set("80-159")],
        },
        Machine {
            name: "virtual, two CPUs that are cores",
            online: set("0-1"),
            threads: Threads::One,
            caches: one("0-1"),
            nodes: numbered(one("0-1")),
            packages: one("0-1"),
        },
        Machine {
            name: "virtual, two CPUs that are one core",
            online: set("0-1"),
            threads: Threads::Row(2),
            caches: one("0-1"),
            nodes: numbered(one("0-1")),
            packages: one("0-1"),
        },
        Machine {
            name: "virtual, one CPU",
            online: set("0"),
            threads: Threads::One,
            caches: vec![],
            nodes: vec![],
            packages: vec![],
        },
        Machine {
            name: "server, POWER8: 20 cores of eight threads, nodes 0 and 8",
            online: set("0-159"),
            threads: Threads::Row(8),
            caches: (0..20).map(|core| every(core * 8, 1, 8)).collect(),
            nodes: vec![(0, set("0-79")), (8, set("80-159"))],
            packages: vec![set("0-79"), set("80-159")],
        },
        Machine {
            name: "server, POWER8 with SMT off: every eighth CPU",
            online: every(0, 8, 20),
            threads: Threads::Row(8),
            caches: (0..20).map(|core| every(core * 8, 1, 8)).collect(),
            nodes: vec![(0, set("0-79")), (8, set("80-159"))],
            packages: vec![set("0-79"), set("80-159")],
        },
        Machine {
            name: "server, two Xeon 8280 with SMT off",
            online: set("0-55"),
            threads: Threads::Apart(56),
            caches: vec![every(0, 2, 56), every(1, 2, 56)],
            nodes: numbered(vec![every(0, 2, 56), every(1, 2, 56)]),
            packages: vec![every(0, 2, 56), every(1, 2, 56)],
        },
        Machine {
            name: "desktop, Ryzen 9 5950X with some CPUs offline",
            online: set("0-2,4-16,18-30"),
            threads: Threads::Apart(16),
            caches: vec![set("0-7,16-23"), set("8-15,24-31")],
            nodes: numbered(one("0-31")),
            packages: one("0-31"),
        },
    ]
}
