//! What is given out on every known machine, and what never is.

use std::collections::BTreeSet;

use super::super::machines::{self, Machine};
use super::*;
use proptest::prelude::*;

fn machine(word: &str) -> Machine {
    let found = machines::all().into_iter().find(|m| m.name.contains(word));
    found.unwrap()
}

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

fn pool<'a>(topology: &'a Topology, taken: &str) -> Pool<'a> {
    Pool {
        topology,
        usable: topology.online(),
        reserved: CpuSet::default(),
        floor: 1,
        taken: set(taken),
    }
}

/// What `wanted` CPUs come to, given and held.
fn given(word: &str, taken: &str, wanted: usize) -> (String, String) {
    let topology = machine(word).topology();
    let allocation = pool(&topology, taken).allocate(wanted).unwrap();
    (allocation.cpus.to_string(), allocation.held.to_string())
}

fn both(cpus: &str, held: &str) -> (String, String) {
    (cpus.to_owned(), held.to_owned())
}

#[test]
fn a_sandbox_gets_whole_cores_and_an_odd_rest_stays_idle() {
    assert_eq!(given("5950X: 16", "", 2), both("0,16", "0,16"));
    assert_eq!(given("5950X: 16", "", 3), both("0-1,16", "0-1,16-17"));
    assert_eq!(given("5950X: 16", "0-1,16-17", 1), both("2", "2,18"));
    assert_eq!(given("POWER8: 20", "", 3), both("0-2", "0-7"));
}

#[test]
fn an_odd_request_takes_a_core_without_a_second_thread_where_there_is_one() {
    assert_eq!(given("12900K", "", 1), both("16", "16"));
    assert_eq!(given("12900K", "", 2), both("0-1", "0-1"));
    assert_eq!(given("12900K", "", 3), both("0-1,16", "0-1,16"));
}

#[test]
fn one_cache_is_better_than_two_and_the_tightest_is_best() {
    // The second cache has two cores left, the first has all eight: two cores come out of the second.
    let taken = "8-13,24-29";
    assert_eq!(
        given("5950X: 16", taken, 4),
        both("14-15,30-31", "14-15,30-31")
    );
    assert_eq!(given("5950X: 16", taken, 6).0, "0-2,16-18");
    // On 32 caches of four cores, five cores are of two caches of one node.
    assert_eq!(given("EPYC 7742", "", 10).0, "0-4,128-132");
    // A cache of which one core is gone is not broken into where another fits tighter.
    assert_eq!(given("EPYC 7742", "0,128,4-6,132-134", 2).0, "7,135");
}

#[test]
fn one_node_is_better_than_two_even_where_a_cache_spans_both() {
    let (cpus, _) = given("SNC2", "0-11,64-75", 8);
    // Node 0 has four cores left: they fit tightest, and they are of one node.
    assert_eq!(cpus, "12-15,76-79");
    let (cpus, _) = given("SNC2", "0-11,64-75", 10);
    assert_eq!(cpus, "16-20,80-84");
}

#[test]
fn what_fits_nowhere_whole_takes_whole_parts_first() {
    // Nine cores of an eight-core cache machine: one whole cache and one core, not two halves.
    let topology = machine("EPYC 7763").topology();
    let allocation = pool(&topology, "").allocate(18).unwrap();
    let caches: BTreeSet<u32> = allocation
        .held
        .iter()
        .map(|cpu| topology.place(cpu).unwrap().cache)
        .collect();
    assert_eq!(caches.len(), 2);
    assert_eq!(allocation.cpus.len(), 18);
}

#[test]
fn the_floor_is_one_core_whatever_was_asked_for_less() {
    for (word, most) in [
        ("two CPUs that are cores", 1),
        ("two CPUs that are one core", 0),
        ("one CPU", 0),
        ("5950X: 16", 30),
        ("12900K", 23),
        ("POWER8: 20", 152),
        ("Graviton3", 63),
    ] {
        let topology = machine(word).topology();
        let mut pool = pool(&topology, "");
        pool.floor = 0;
        assert_eq!(pool.largest(), most, "{word}");
        assert!(pool.allocate(most + 1).is_err(), "{word}");
    }
}

#[test]
fn a_shortage_tells_what_could_ever_be_given_and_what_can_now() {
    let topology = machine("two CPUs that are cores").topology();
    let pool = pool(&topology, "1");
    assert_eq!(
        pool.allocate(2),
        Err(Shortage::TooMany {
            wanted: 2,
            capacity: 1
        })
    );
    assert_eq!(
        pool.allocate(1),
        Err(Shortage::Taken { wanted: 1, free: 0 })
    );
    assert_eq!(pool.allocate(0), Err(Shortage::Nothing));
}

#[test]
fn a_core_with_a_reserved_thread_is_nobodys() {
    let topology = machine("5950X: 16").topology();
    let mut pool = pool(&topology, "");
    pool.reserved = set("0,17");
    assert_eq!(pool.allocate(2).unwrap().cpus, set("2,18"));
    assert_eq!(pool.largest(), 28);
}

#[test]
fn where_a_second_thread_is_offline_the_first_is_a_whole_core() {
    let topology = machine("some CPUs offline").topology();
    let allocation = pool(&topology, "").allocate(1).unwrap();
    // CPU 17 is offline: CPU 1 is a core of one thread.
    assert_eq!(allocation.held, set("1"));
}

/// One thing that happens to a machine: a sandbox comes, or the n-th goes.
#[derive(Clone, Debug)]
enum Event {
    Come(usize),
    Go(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1usize..40).prop_map(Event::Come),
        1 => (1usize..4).prop_map(Event::Come),
        2 => any::<usize>().prop_map(Event::Go),
    ];
    proptest::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn on_every_machine_nobody_shares_a_core_and_the_floor_stands(
        which in 0..machines::all().len(),
        reserved in 0u32..6,
        floor in 0usize..12,
        events in events(),
    ) {
        let machine = &machines::all()[which];
        let topology = machine.topology();
        let reserved: CpuSet = topology.online().iter().take(reserved as usize).collect();
        let mut live: Vec<Allocation> = Vec::new();
        for event in events {
            let mut taken = CpuSet::default();
            for allocation in &live { taken.add(&allocation.held); }
            let pool = Pool { topology: &topology, usable: topology.online(), reserved: reserved.clone(), floor, taken };
            match event {
                Event::Go(n) => { if !live.is_empty() { live.swap_remove(n % live.len()); } }
                Event::Come(wanted) => {
                    let result = pool.allocate(wanted);
                    // What is said to be free is free, and nothing more is.
                    prop_assert_eq!(result.is_ok(), wanted <= pool.largest());
                    prop_assert!(pool.largest() <= pool.capacity());
                    prop_assert_eq!(&pool.allocate(wanted), &result, "the same question has the same answer");
                    let Ok(new) = result else { continue };
                    prop_assert_eq!(new.cpus.len(), wanted);
                    prop_assert!(new.cpus.is_subset(&new.held));
                    prop_assert!(new.held.is_subset(&pool.usable));
                    prop_assert!(new.held.is_disjoint(&reserved));
                    prop_assert!(new.held.is_disjoint(&pool.taken));
                    prop_assert_eq!(&topology.whole_cores(&new.held), &new.held, "no core is split");
                    // No core is held of which no CPU was given.
                    prop_assert_eq!(&topology.whole_cores(&new.cpus), &new.held);
                    prop_assert!(pool.shared().difference(&new.held).len() >= floor.max(1));
                    live.push(new);
                }
            }
        }
    }

    #[test]
    fn what_fits_into_one_cache_or_node_is_not_spread_over_two(
        which in 0..machines::all().len(),
        taken in proptest::collection::vec(0usize..256, 0..40),
        wanted in 1usize..40,
    ) {
        let topology = machines::all()[which].topology();
        let online: Vec<u32> = topology.online().iter().collect();
        let taken: CpuSet = taken.into_iter().map(|n| online[n % online.len()]).collect();
        let pool = Pool {
            topology: &topology,
            usable: topology.online(),
            reserved: CpuSet::default(),
            floor: 1,
            taken: topology.whole_cores(&taken),
        };
        if let Ok(new) = pool.allocate(wanted) {
            let free = pool.shared();
            for group in [|p: &Place| p.cache, |p: &Place| p.node, |p: &Place| p.package] {
                let of = |cpu: u32| group(&topology.place(cpu).unwrap());
                let spread: BTreeSet<u32> = new.held.iter().map(of).collect();
                // The floor may keep a choice from being made that would fit; what is held here shows what may be.
                let fits = topology.online().iter().map(of).collect::<BTreeSet<_>>().into_iter().any(|name| {
                    free.iter().filter(|cpu| of(*cpu) == name).count() >= wanted.max(new.held.len())
                });
                // A cache that spans nodes makes way for the node.
                let caches_within = topology.online().iter().all(|a| {
                    let p = topology.place(a).unwrap();
                    topology.place(p.cache).is_none_or(|first| first.node == p.node)
                });
                if fits && caches_within {
                    prop_assert_eq!(spread.len(), 1, "{}", new.cpus);
                }
            }
        }
    }
}
