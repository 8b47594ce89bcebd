//! Which cgroup has to hold which CPUs, and in what order that is written. Pure; called by [`crate::host::cpuset`].
//!
//! Everybody else is moved off before a sandbox is granted its CPUs. On cgroup v1 a child is never wider than its parent and
//! never empty, so sets grow from the top and shrink from the leaves; v2 takes the same order.

use std::collections::{BTreeMap, BTreeSet};

use super::CpuSet;

/// A cgroup of the kubelet's tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// Its parent among the groups; the kubelet's own root has none, and is never written.
    pub parent: Option<usize>,
    /// UID of the pod it is of; none above the pods.
    pub pod: Option<String>,
    /// The CPUs its processes run on now.
    pub cpus: CpuSet,
}

/// CPUs of a pod, and those that are kept for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// What it runs on.
    pub cpus: CpuSet,
    /// What nobody else runs on.
    pub held: CpuSet,
}

/// The pods with CPUs of their own, by UID.
pub type Grants = BTreeMap<String, Grant>;

/// One write: the group's number and its CPUs.
pub type Write = (usize, CpuSet);

/// What is to be written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// To move everybody else off, or to let them back.
    pub others: Vec<Write>,
    /// To give the sandboxes theirs, once [`intruder`] finds nobody there.
    pub grants: Vec<Write>,
}

/// The writes that lead from how the groups are to how they must be. Parents come before their children in `groups`.
pub fn plan(groups: &[Group], grants: &Grants) -> Plan {
    let mut groups = groups.to_vec();
    let above = above_granted(&groups, grants);
    // A sandbox on the CPUs of another goes to the shared ones first: two could have to change places.
    let astray: BTreeSet<String> = groups
        .iter()
        .filter(|group| intrudes(group, grants))
        .filter_map(|group| group.pod.clone())
        .collect();
    let mut settled = grants.clone();
    settled.retain(|pod, _| !astray.contains(pod));
    let interim = targets(&groups, grants, &settled);
    let is_of = |group: &Group, grants: &Grants| {
        group
            .pod
            .as_ref()
            .is_some_and(|pod| grants.contains_key(pod))
    };
    let others: Vec<usize> = below_roots(&groups)
        .filter(|at| !is_of(&groups[*at], &settled))
        .collect();
    let mut plan = Plan {
        others: grow(&mut groups, &others, &interim),
        grants: Vec::new(),
    };
    let mut leaving = others.clone();
    leaving.retain(|at| !above[*at]);
    plan.others.extend(shrink(&mut groups, &leaving, &interim));

    let targets = targets(&groups, grants, grants);
    let own: Vec<usize> = below_roots(&groups)
        .filter(|at| above[*at] || is_of(&groups[*at], grants))
        .collect();
    plan.grants = grow(&mut groups, &own, &targets);
    // From the leaves: what lies above a sandbox can only shrink after it.
    plan.grants.extend(shrink(&mut groups, &own, &targets));
    plan
}

fn below_roots(groups: &[Group]) -> impl DoubleEndedIterator<Item = usize> + '_ {
    (0..groups.len()).filter(|at| groups[*at].parent.is_some())
}

/// From the top, so that no child is wider than its parent.
fn grow(groups: &mut [Group], which: &[usize], targets: &[CpuSet]) -> Vec<Write> {
    let mut writes = Vec::new();
    for at in which {
        let group = &mut groups[*at];
        let both = group.cpus.union(&targets[*at]);
        if both != group.cpus {
            group.cpus.clone_from(&both);
            writes.push((*at, both));
        }
    }
    writes
}

/// From the leaves, so that no parent is narrower than its child.
fn shrink(groups: &mut [Group], which: &[usize], targets: &[CpuSet]) -> Vec<Write> {
    let mut writes = Vec::new();
    for at in which.iter().rev() {
        let group = &mut groups[*at];
        if !group.cpus.is_subset(&targets[*at]) {
            group.cpus.clone_from(&targets[*at]);
            writes.push((*at, targets[*at].clone()));
        }
    }
    writes
}

/// Whether a group runs on CPUs that are kept for another pod. What lies above pods does so by its nature.
fn intrudes(group: &Group, grants: &Grants) -> bool {
    grants
        .iter()
        .any(|(pod, grant)| group.pod.as_ref() != Some(pod) && !group.cpus.is_disjoint(&grant.held))
}

/// A group that still runs on CPUs that are kept for another pod.
pub fn intruder(groups: &[Group], grants: &Grants) -> Option<usize> {
    let above = above_granted(groups, grants);
    below_roots(groups).find(|at| !above[*at] && intrudes(&groups[*at], grants))
}

/// Whether every group of a pod runs on these CPUs and no others.
pub fn is_granted(groups: &[Group], pod: &str, cpus: &CpuSet) -> bool {
    let mut own = groups
        .iter()
        .filter(|group| group.pod.as_deref() == Some(pod));
    own.clone().next().is_some() && own.all(|group| group.cpus == *cpus)
}

/// The CPUs that each group has to hold, where the CPUs of all `grants` are kept free and those of `settled` are given.
fn targets(groups: &[Group], grants: &Grants, settled: &Grants) -> Vec<CpuSet> {
    let mut held = CpuSet::default();
    for grant in grants.values() {
        held.add(&grant.held);
    }
    let mut targets: Vec<CpuSet> = Vec::with_capacity(groups.len());
    let mut full: Vec<CpuSet> = Vec::with_capacity(groups.len());
    for group in groups {
        // Below each root, what that root has.
        let most = group
            .parent
            .map_or_else(|| group.cpus.clone(), |parent| full[parent].clone());
        let grant = group.pod.as_ref().and_then(|pod| settled.get(pod));
        let target = match (group.parent, grant) {
            (None, _) => group.cpus.clone(),
            (Some(_), Some(grant)) => grant.cpus.intersection(&most),
            (Some(_), None) => most.difference(&held),
        };
        // Nothing is ever emptied: a sandbox whose CPUs are all offline stays where the kernel put it.
        targets.push(if target.is_empty() {
            group.cpus.clone()
        } else {
            target
        });
        full.push(most);
    }
    // What lies above a sandbox holds its CPUs too.
    for at in (0..groups.len()).rev() {
        if let Some(parent) = groups[at]
            .parent
            .filter(|parent| groups[*parent].pod.is_none())
        {
            let below = targets[at].clone();
            if groups[parent].parent.is_some() {
                targets[parent].add(&below);
            }
        }
    }
    targets
}

/// Which groups lie above a pod with CPUs of its own.
fn above_granted(groups: &[Group], grants: &Grants) -> Vec<bool> {
    let mut above = vec![false; groups.len()];
    for (at, group) in groups.iter().enumerate().rev() {
        let granted = group
            .pod
            .as_ref()
            .is_some_and(|pod| grants.contains_key(pod));
        if let Some(parent) = group.parent
            && (above[at] || granted)
            && groups[parent].pod.is_none()
        {
            above[parent] = true;
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap()
    }

    fn group(parent: Option<usize>, pod: Option<&str>, cpus: &str) -> Group {
        Group {
            parent,
            pod: pod.map(str::to_owned),
            cpus: set(cpus),
        }
    }

    /// A root, a class of pods with pod `a` and its container, and pods `b` and `c` with theirs.
    fn tree(cpus: &str) -> Vec<Group> {
        vec![
            group(None, None, "0-3"),
            group(Some(0), None, cpus),
            group(Some(1), Some("a"), cpus),
            group(Some(2), Some("a"), cpus),
            group(Some(0), Some("b"), cpus),
            group(Some(4), Some("b"), cpus),
            group(Some(0), Some("c"), cpus),
            group(Some(6), Some("c"), cpus),
        ]
    }

    fn grant(pod: &str, cpus: &str) -> Grants {
        let grant = Grant {
            cpus: set(cpus),
            held: set(cpus),
        };
        [(pod.to_owned(), grant)].into()
    }

    /// A kernel with the rules of cgroup v1.
    fn apply(groups: &mut [Group], writes: &[Write]) {
        for (at, cpus) in writes {
            assert!(!cpus.is_empty(), "an empty set is refused");
            let parent = groups[*at].parent.unwrap();
            assert!(
                cpus.is_subset(&groups[parent].cpus),
                "wider than its parent"
            );
            for child in groups.iter().filter(|child| child.parent == Some(*at)) {
                assert!(child.cpus.is_subset(cpus), "narrower than its child");
            }
            groups[*at].cpus = cpus.clone();
        }
    }

    #[test]
    fn the_others_leave_before_a_sandbox_comes() {
        let mut groups = tree("0-3");
        let grants = grant("b", "3");
        let plan = plan(&groups, &grants);
        apply(&mut groups, &plan.others);
        assert_eq!(intruder(&groups, &grants), None);
        assert!(!is_granted(&groups, "b", &set("3")));
        apply(&mut groups, &plan.grants);
        assert!(is_granted(&groups, "b", &set("3")));
        for at in [1, 2, 3, 6, 7] {
            assert_eq!(groups[at].cpus, set("0-2"));
        }
    }

    #[test]
    fn a_sandbox_below_a_class_of_pods_widens_its_class_alone() {
        let mut groups = tree("0-3");
        let grants = grant("a", "3");
        let plan = plan(&groups, &grants);
        apply(&mut groups, &plan.others);
        assert_eq!(intruder(&groups, &grants), None);
        apply(&mut groups, &plan.grants);
        assert!(is_granted(&groups, "a", &set("3")));
        assert_eq!(groups[1].cpus, set("0-3"));
        assert_eq!(groups[4].cpus, set("0-2"));
    }

    #[test]
    fn when_a_sandbox_is_gone_the_whole_set_is_written_and_never_an_empty_one() {
        let mut groups = tree("0-2");
        let plan = plan(&groups, &Grants::new());
        assert!(plan.grants.is_empty());
        apply(&mut groups, &plan.others);
        assert_eq!(groups, tree("0-3"));
    }

    #[test]
    fn a_new_group_without_any_cpus_is_filled_at_once() {
        let mut groups = tree("0-2");
        groups[4].cpus = set("3");
        groups[5].cpus = set("3");
        groups.push(group(Some(6), Some("c"), ""));
        groups.push(group(Some(4), Some("b"), ""));
        let plan = plan(&groups, &grant("b", "3"));
        assert_eq!(plan.others, [(8, set("0-2"))]);
        assert_eq!(plan.grants, [(9, set("3"))]);
    }

    #[test]
    fn where_all_is_as_it_must_be_nothing_is_written() {
        let mut groups = tree("0-2");
        groups[4].cpus = set("3");
        groups[5].cpus = set("3");
        assert_eq!(plan(&groups, &grant("b", "3")), Plan::default());
    }

    #[test]
    fn two_sandboxes_change_places_by_way_of_the_shared_cpus() {
        let mut groups = tree("0-1");
        for at in [4, 5] {
            groups[at].cpus = set("3");
        }
        for at in [6, 7] {
            groups[at].cpus = set("2");
        }
        let mut grants = grant("b", "2");
        grants.extend(grant("c", "3"));
        let plan = plan(&groups, &grants);
        apply(&mut groups, &plan.others);
        assert_eq!(groups[5].cpus, set("0-1"));
        assert_eq!(groups[7].cpus, set("0-1"));
        apply(&mut groups, &plan.grants);
        assert!(is_granted(&groups, "b", &set("2")));
        assert!(is_granted(&groups, "c", &set("3")));
    }

    #[test]
    fn a_sandbox_whose_cpus_are_offline_is_left_where_it_is() {
        let groups = tree("0-3");
        let plan = plan(&groups, &grant("b", "9"));
        assert_eq!(plan, Plan::default());
    }

    prop_compose! {
        /// Trees as the kernel allows them: a child is within its parent.
        fn trees()(
            seeds in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, 0u32..256), 1..24),
        ) -> Vec<Group> {
            let mut groups = vec![group(None, None, "0-7")];
            for (parent, pod, bits) in seeds {
                let parent = parent.index(groups.len());
                let bits: CpuSet = (0..8).filter(|cpu| bits & (1 << cpu) != 0).collect();
                let within = bits.intersection(&groups[parent].cpus);
                let above = groups[parent].pod.clone();
                let pod = above.or_else(|| (pod > 0).then(|| format!("{pod}-{}", groups.len())));
                groups.push(Group { parent: Some(parent), pod, cpus: within });
            }
            groups
        }
    }

    proptest! {
        #[test]
        fn from_any_state_every_write_is_one_that_the_kernel_takes_and_the_end_is_right(
            groups in trees(),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let mut groups = groups;
            let pods: Vec<String> = groups.iter().filter_map(|g| g.pod.clone()).collect();
            let mut grants = Grants::new();
            if !pods.is_empty() {
                for (n, pick) in (1..).zip(picks) {
                    let cpus: CpuSet = [n * 2].into_iter().collect();
                    let held: CpuSet = [n * 2, n * 2 + 1].into_iter().collect();
                    grants.insert(pods[pick.index(pods.len())].clone(), Grant { cpus, held });
                }
            }
            // Two sandboxes may have to change places; none shares with another on the way.
            let first = plan(&groups, &grants);
            apply(&mut groups, &first.others);
            prop_assert_eq!(intruder(&groups, &grants), None);
            apply(&mut groups, &first.grants);
            prop_assert_eq!(intruder(&groups, &grants), None);
            for (pod, grant) in &grants { prop_assert!(is_granted(&groups, pod, &grant.cpus)); }
            prop_assert_eq!(plan(&groups, &grants), Plan::default());
        }
    }
}
