//! What is true of the pins after a start: what the cgroups say, completed by what the checkpoint remembers. Pure; called by
//! [`crate::host::cpuset`].
//!
//! A pod that runs on CPUs of its own keeps them, whatever the checkpoint says: nothing is moved because the agent started
//! anew. And no checkpoint makes two sandboxes share.

use super::checkpoint::Pins;
use super::{CpuSet, Topology};
use crate::protocol::PodUid;

/// A pod that is there, and the CPUs its containers run on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LivePod {
    /// The pod; none where its UID is no UUID, as of a static pod. Such a pod is never pinned.
    pub uid: Option<PodUid>,
    /// CPUs of all its containers together.
    pub cpus: CpuSet,
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Live<'a> {
    /// All pods of the node.
    pub pods: &'a [LivePod],
    /// What pods without CPUs of their own run on, where some cgroup of many pods says so.
    pub shared: Option<CpuSet>,
    /// CPUs that pods may run on at all.
    pub full: CpuSet,
}

/// What is true, and what was wrong, for the log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Adopted {
    /// The pins.
    pub pins: Pins,
    /// What of the checkpoint was not followed.
    pub notes: Vec<String>,
}

/// The pins that are true. `remembered` are those of a checkpoint that can be believed.
pub fn adopt(remembered: Option<&Pins>, live: &Live<'_>, topology: &Topology) -> Adopted {
    let mut adopted = Adopted::default();
    for (at, pod) in live.pods.iter().enumerate() {
        if let Some(uid) = &pod.uid
            && is_exclusive(at, pod, live)
        {
            adopted.pins.insert(uid.clone(), pod.cpus.clone());
        }
    }
    for (uid, cpus) in remembered.into_iter().flatten() {
        let Some(pod) = live.pods.iter().find(|pod| pod.uid.as_ref() == Some(uid)) else {
            // It ended while nobody looked: its CPUs are free.
            continue;
        };
        if let Some(seen) = adopted.pins.get(uid) {
            if seen != cpus {
                adopted.notes.push(format!(
                    "pod {uid} was said to have CPUs {cpus} and has {seen}; it keeps what it has"
                ));
            }
            continue;
        }
        // It does not have them yet, or not alone: it is given what was promised to it, unless somebody has that.
        let held = topology.whole_cores(cpus);
        let others = held_by(&adopted.pins, topology);
        let left = live.full.difference(&others).difference(&held);
        if cpus.is_empty() || !held.is_disjoint(&others) || left.is_empty() {
            adopted.notes.push(format!(
                "pod {uid} was said to have CPUs {cpus}, which are not to be had; it runs on {}",
                pod.cpus
            ));
            continue;
        }
        adopted.pins.insert(uid.clone(), cpus.clone());
    }
    adopted
}

/// The CPUs that nobody but their sandboxes runs on.
pub fn held_by(pins: &Pins, topology: &Topology) -> CpuSet {
    let mut held = CpuSet::default();
    for cpus in pins.values() {
        held.add(&topology.whole_cores(cpus));
    }
    held
}

/// Whether a pod runs on CPUs that no other pod runs on. Pods that may run anywhere do not count: they are new, and were
/// not moved off yet.
fn is_exclusive(at: usize, pod: &LivePod, live: &Live<'_>) -> bool {
    let Some(shared) = live.shared.as_ref().filter(|shared| **shared != live.full) else {
        return false;
    };
    let others = live
        .pods
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at);
    !pod.cpus.is_empty()
        && pod.cpus != live.full
        && pod.cpus.is_subset(&live.full)
        && pod.cpus.is_disjoint(shared)
        && others
            .map(|(_, other)| &other.cpus)
            .filter(|cpus| **cpus != live.full)
            .all(|cpus| cpus.is_disjoint(&pod.cpus))
}

#[cfg(test)]
mod tests {
    use super::super::machines;
    use super::*;
    use proptest::prelude::*;

    fn uid(n: usize) -> PodUid {
        PodUid::try_from(format!("00000000-0000-0000-0000-0000000000{n:02x}")).unwrap()
    }

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap()
    }

    fn desktop() -> Topology {
        machines::all()[0].topology()
    }

    fn pods(sets: &[&str]) -> Vec<LivePod> {
        let pod = |(n, text): (usize, &&str)| LivePod {
            uid: Some(uid(n)),
            cpus: set(text),
        };
        sets.iter().enumerate().map(pod).collect()
    }

    fn adopted(remembered: Option<&[(usize, &str)]>, sets: &[&str], shared: &str) -> Adopted {
        let topology = desktop();
        let remembered: Option<Pins> =
            remembered.map(|all| all.iter().map(|(n, text)| (uid(*n), set(text))).collect());
        let live = Live {
            pods: &pods(sets),
            shared: Some(set(shared)),
            full: topology.online(),
        };
        adopt(remembered.as_ref(), &live, &topology)
    }

    fn pins(all: &[(usize, &str)]) -> Pins {
        all.iter().map(|(n, text)| (uid(*n), set(text))).collect()
    }

    #[test]
    fn without_a_checkpoint_the_pods_keep_what_they_run_on() {
        let found = adopted(None, &["0-14,16-30", "15,31", "0-31"], "0-14,16-30");
        assert_eq!(found.pins, pins(&[(1, "15,31")]));
        assert!(found.notes.is_empty());
    }

    #[test]
    fn where_nothing_was_ever_pinned_a_narrow_pod_is_not_ours() {
        assert!(adopted(None, &["0-31", "3"], "0-31").pins.is_empty());
    }

    #[test]
    fn what_was_promised_and_not_granted_yet_is_still_promised() {
        let found = adopted(Some(&[(1, "15,31")]), &["0-31", "0-31"], "0-31");
        assert_eq!(found.pins, pins(&[(1, "15,31")]));
    }

    #[test]
    fn a_pod_that_ended_meanwhile_gives_its_cpus_back() {
        assert!(
            adopted(Some(&[(7, "15,31")]), &["0-31"], "0-31")
                .pins
                .is_empty()
        );
    }

    #[test]
    fn a_running_sandbox_is_not_moved_by_a_lie() {
        let found = adopted(
            Some(&[(1, "14,30"), (2, "15,31")]),
            &["0-13,16-29", "15,31", "14,30"],
            "0-13,16-29",
        );
        assert_eq!(found.pins, pins(&[(1, "15,31"), (2, "14,30")]));
        assert_eq!(found.notes.len(), 2);
    }

    #[test]
    fn two_entries_of_one_core_leave_it_to_the_one_that_has_it() {
        // CPU 31 is the other thread of CPU 15.
        let found = adopted(
            Some(&[(1, "31"), (2, "15")]),
            &["0-14,16-30", "0-14,16-30", "15"],
            "0-14,16-30",
        );
        assert_eq!(found.pins, pins(&[(2, "15")]));
        assert_eq!(found.notes.len(), 1);
    }

    #[test]
    fn a_checkpoint_that_leaves_nobody_else_a_cpu_is_not_followed() {
        let found = adopted(Some(&[(1, "0-31"), (0, "")]), &["0-31", "0-31"], "0-31");
        assert!(found.pins.is_empty());
        assert_eq!(found.notes.len(), 2);
    }

    proptest! {
        #[test]
        fn whatever_a_checkpoint_says_nobody_shares_and_nobody_alone_is_moved(
            which in 0..machines::all().len(),
            entries in proptest::collection::btree_map(0usize..6, proptest::collection::vec(0usize..64, 0..6), 0..6),
            running in proptest::collection::vec(proptest::collection::vec(0usize..64, 0..6), 0..6),
            shared in proptest::collection::vec(0usize..64, 0..6),
        ) {
            let topology = machines::all()[which].topology();
            let online: Vec<u32> = topology.online().iter().collect();
            let cpus = |numbers: &Vec<usize>| -> CpuSet { numbers.iter().map(|n| online[n % online.len()]).collect() };
            let remembered: Pins = entries.iter().map(|(n, numbers)| (uid(*n), cpus(numbers))).collect();
            let pods: Vec<LivePod> = running.iter().enumerate().map(|(n, numbers)| LivePod { uid: Some(uid(n)), cpus: cpus(numbers) }).collect();
            let live = Live { pods: &pods, shared: Some(cpus(&shared)), full: topology.online() };
            let found = adopt(Some(&remembered), &live, &topology);
            let all: Vec<(&PodUid, &CpuSet)> = found.pins.iter().collect();
            for (at, (one, cpus)) in all.iter().enumerate() {
                prop_assert!(!cpus.is_empty());
                for (_, other) in &all[..at] { prop_assert!(cpus.is_disjoint(other)); }
                let pod = pods.iter().find(|pod| pod.uid.as_ref() == Some(*one)).unwrap();
                // Whoever has CPUs of its own has these; whoever is given others had none of its own.
                let alone = is_exclusive(pods.iter().position(|p| p == pod).unwrap(), pod, &live);
                if alone { prop_assert_eq!(&pod.cpus, *cpus); } else { prop_assert_eq!(remembered.get(*one), Some(*cpus)); }
            }
        }
    }
}
