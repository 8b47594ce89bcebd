//! What the kernel says of the machine's CPUs, and what is chosen from it: any files are a topology or are refused, and no
//! choice gives a CPU that is not there, is reserved, is taken or is short of the floor.
//!
//! Input: two bytes, how many CPUs are wanted and how many stay shared; then lines `file=text`, the files below
//! `/sys/devices/system`, with `reserved` and `taken` among them.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use pilotlight_node_agent::cpu::{CpuSet, Pool, Topology};

fuzz_target!(|data: &[u8]| {
    let [wanted, floor, text @ ..] = data else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    for word in text.split(['=', '\n']) {
        read_back(word);
    }
    let files: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let file = |path: &str| files.get(path).map(|text| (*text).to_owned());
    let Ok(topology) = Topology::read(file) else {
        return;
    };
    let online = topology.online();
    let cores = topology.cores();
    assert_eq!(cores.values().map(CpuSet::len).sum::<usize>(), online.len());
    assert!(online.iter().all(|cpu| topology.place(cpu).is_some()));

    let set = |name: &str| {
        let text = files.get(name).copied().unwrap_or_default();
        CpuSet::parse(text).unwrap_or_default()
    };
    let pool = Pool {
        topology: &topology,
        usable: online.clone(),
        reserved: set("reserved"),
        floor: usize::from(*floor),
        taken: set("taken"),
    };
    let wanted = usize::from(*wanted);
    if let Ok(given) = pool.allocate(wanted) {
        assert_eq!(given.cpus.len(), wanted);
        assert!(given.cpus.is_subset(&given.held) && given.held.is_subset(&online));
        assert_eq!(topology.whole_cores(&given.held), given.held);
        for others in [&pool.reserved, &pool.taken] {
            assert!(given.held.is_disjoint(others));
        }
        let shared = online.difference(&given.held).difference(&pool.taken);
        assert!(shared.len() >= pool.floor.max(1));
    }
});

/// A list that is read is written as the same list.
fn read_back(text: &str) {
    if let Ok(set) = CpuSet::parse(text) {
        assert_eq!(CpuSet::parse(&set.to_string()).as_ref(), Ok(&set));
    }
}
