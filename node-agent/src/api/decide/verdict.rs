//! Whether what `host` saw of a pod is what it must be. Called by [`super::pods`].

use std::collections::BTreeSet;

use crate::api::facts::PodFacts;
use crate::protocol::{ContainerInspection, PodInspection};

/// What an inspection says about a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A filter holds every process of every container.
    Confined,
    /// Nothing bad was seen, and not enough to be sure.
    NotYet(&'static str),
    /// A process that no filter holds: container and PID.
    Unconfined(String, u32),
}

/// Holds the inspection against the containers that the kubelet says run.
pub fn verdict(facts: &PodFacts, inspection: &PodInspection) -> Verdict {
    if !inspection.found {
        return Verdict::NotYet("the pod has no cgroup on this node");
    }
    if inspection.truncated {
        return Verdict::NotYet("the pod has too many containers to look at");
    }
    if facts.running.is_empty() {
        return Verdict::NotYet("no container runs");
    }
    // What the status does not name is the sandbox (pause) container; it is the runtime's and runs nothing of the user.
    let (named, others): (Vec<_>, Vec<&ContainerInspection>) = inspection
        .containers
        .iter()
        .partition(|container| facts.known.contains(&container.id));
    if others
        .iter()
        .filter(|container| !container.id.is_empty())
        .count()
        > 1
    {
        return Verdict::NotYet("the pod has a container that its status does not name");
    }
    for container in &named {
        if let Some(pid) = container.unconfined {
            return Verdict::Unconfined(container.id.clone(), pid);
        }
        if container.truncated {
            return Verdict::NotYet("not every process could be looked at");
        }
    }
    let with_processes: BTreeSet<&str> = named
        .iter()
        .filter(|container| container.processes > 0)
        .map(|container| container.id.as_str())
        .collect();
    if facts
        .running
        .iter()
        .all(|id| with_processes.contains(id.as_str()))
    {
        return Verdict::Confined;
    }
    if !facts.has_runtime_class {
        return Verdict::NotYet("a container has no process yet");
    }
    // A runtime with a kernel of its own (gVisor) keeps all processes in the sandbox container; then that one counts.
    if let Some((id, pid)) = others
        .iter()
        .find_map(|container| Some((container.id.clone(), container.unconfined?)))
    {
        return Verdict::Unconfined(id, pid);
    }
    if others.iter().any(|container| container.truncated) {
        return Verdict::NotYet("not every process could be looked at");
    }
    if others.iter().any(|container| container.processes > 0) {
        Verdict::Confined
    } else {
        Verdict::NotYet("the sandbox container has no process yet")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::facts;
    use super::*;

    fn container(id: &str, processes: u32, unconfined: Option<u32>) -> ContainerInspection {
        ContainerInspection {
            id: id.into(),
            processes,
            unconfined,
            truncated: false,
        }
    }

    fn seen(containers: Vec<ContainerInspection>) -> PodInspection {
        PodInspection {
            uid: facts(1).uid,
            found: true,
            containers,
            truncated: false,
            pin: None,
        }
    }

    #[test]
    fn the_pause_container_does_not_count_and_every_other_does() {
        let pause = container("pause", 1, Some(5));
        let ok = seen(vec![pause.clone(), container("c1", 3, None)]);
        assert_eq!(verdict(&facts(1), &ok), Verdict::Confined);
        let bad = seen(vec![pause, container("c1", 3, Some(9))]);
        assert_eq!(
            verdict(&facts(1), &bad),
            Verdict::Unconfined("c1".into(), 9)
        );
    }

    #[test]
    fn nothing_is_confined_by_absence() {
        let mut missing = seen(vec![container("c1", 1, None)]);
        missing.found = false;
        let mut cut = seen(vec![container("c1", 1, None)]);
        cut.truncated = true;
        let mut partly = seen(vec![container("c1", 1, None)]);
        partly.containers[0].truncated = true;
        for inspection in [
            missing,
            cut,
            partly,
            seen(vec![]),
            seen(vec![container("c1", 0, None)]),
            seen(vec![container("pause", 1, None)]),
            seen(vec![
                container("c1", 1, None),
                container("p", 1, None),
                container("q", 1, None),
            ]),
        ] {
            assert!(
                matches!(verdict(&facts(1), &inspection), Verdict::NotYet(_)),
                "{inspection:?}"
            );
        }
        let mut idle = facts(1);
        idle.running.clear();
        let inspection = seen(vec![container("c1", 1, None)]);
        assert!(matches!(verdict(&idle, &inspection), Verdict::NotYet(_)));
    }

    #[test]
    fn a_runtime_of_its_own_may_keep_all_processes_in_the_sandbox_container() {
        let mut facts = facts(1);
        facts.has_runtime_class = true;
        let inspect = |unconfined| {
            seen(vec![
                container("c1", 0, None),
                container("pause", 9, unconfined),
            ])
        };
        assert_eq!(verdict(&facts, &inspect(None)), Verdict::Confined);
        assert_eq!(
            verdict(&facts, &inspect(Some(3))),
            Verdict::Unconfined("pause".into(), 3)
        );
    }
}
