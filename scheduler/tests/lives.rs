//! The lives of sandboxes from their publication to their end, against a small cluster in memory.

mod world;

use jiff::SignedDuration;
use pilotlight_common::kinds::{EgressRule, NetworkAccess, SandboxPhase};
use pilotlight_scheduler::index::Observation;
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{Claim, Key, Trouble};
use world::World;

/// A world with one running sandbox: its UID and its pod.
fn with_one_running(world: &mut World) -> (String, Key) {
    world.settle();
    let uid = world.create_sandbox();
    world.pass(4);
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    let pod = Key {
        namespace: "ns".into(),
        name: world.sandboxes[&uid].pod_name.clone().unwrap_or_default(),
    };
    (uid, pod)
}

fn warnings(world: &World, reason: &str) -> usize {
    let found = world.events.iter().filter(|e| e.warning);
    found.filter(|e| e.reason == reason).count()
}

/// What `kubectl get` and `describe` show of a sandbox that ended.
fn assert_over(world: &World, uid: &str, phase: SandboxPhase, reason: &str) {
    assert_eq!(world.sandboxes[uid].phase, Some(phase));
    for type_ in ["Ready", "Prepared"] {
        assert_eq!(world.condition(uid, type_), (false, reason), "{type_}");
    }
    for type_ in ["Accepted", "Assigned"] {
        assert!(world.condition(uid, type_).0, "{type_} was true and stays");
    }
    assert_eq!(
        world.events.iter().filter(|e| e.reason == reason).count(),
        1,
        "one Event for one end"
    );
}

#[test]
fn a_sandbox_that_lives_as_it_should_costs_the_scheduler_no_status_write() {
    let mut world = World::new(2, 0);
    let (uid, _) = with_one_running(&mut world);
    world.pass(60);
    assert_eq!(world.status_writes, 0);
    assert!(world.condition(&uid, "Ready").0);
}

#[test]
fn a_sandbox_that_exceeds_its_memory_fails_and_its_pod_goes() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    // The kubelet starts the container again at once: the pod is Ready as before.
    world.change_pod(&pod, |p| {
        p.ended = Some(Trouble::new("OOMKilled", "exceeded its memory limit"));
    });
    world.pass(3);
    assert_over(&world, &uid, SandboxPhase::Failed, "OOMKilled");
    world.settle();
    assert!(!world.pods.contains_key(&pod), "its pod is removed");
    assert_eq!(world.warm_pods.len(), 1, "and the pool has another");
}

#[test]
fn a_sandbox_on_a_pod_of_its_own_lives_and_ends_like_any_other() {
    let mut world = World::new(0, 0);
    let (uid, pod) = with_one_running(&mut world);
    let published = world.index.take_observations().into_iter().find_map(|o| {
        let Observation::Published { cold, .. } = o else {
            return None;
        };
        Some(cold)
    });
    assert_eq!(published, Some(true), "counted as a cold start");
    let writes = world.status_writes;
    world.pass(30);
    assert_eq!(world.status_writes, writes);
    let node = world.pods[&pod].node.clone().unwrap();
    world.stream_down(&node);
    world.change_pod(&pod, |p| p.ready = false);
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (false, "NodeUnreachable"));
    world.stream_up(&node);
    world.change_pod(&pod, |p| p.ready = true);
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (true, "Running"));
    world.change_pod(&pod, |p| {
        p.ended = Some(Trouble::new("OOMKilled", "exceeded its memory limit"));
    });
    world.pass(10);
    assert_over(&world, &uid, SandboxPhase::Failed, "OOMKilled");
    assert!(world.pods.is_empty());
}

#[test]
fn a_timeout_is_over_when_the_pod_of_its_own_is_gone() {
    let mut world = World::new(0, 0);
    let (uid, _) = with_one_running(&mut world);
    world.edit(&uid, |spec| spec.timeout = Some(1));
    world.pass(10);
    assert_over(&world, &uid, SandboxPhase::Terminated, "TimedOut");
    assert!(world.pods.is_empty());
}

/// A crash loop's message counts up; it is one trouble all the same.
#[test]
fn a_pod_that_does_not_come_up_is_one_event_however_often_its_message_changes() {
    let mut world = World::new(0, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.deliver(usize::MAX);
    while !world.under_way.is_empty() {
        world.carry_out(0, true);
    }
    let pod = world.cold_pods().remove(0);
    for wait in [10, 20, 40] {
        world.change_pod(&pod, |p| {
            let message = format!("back-off {wait}s");
            p.hold_up = Some(Trouble::new("ImagePullFailed", &message));
        });
        for _ in 0..20 {
            world.come_to_rest();
            world.advance(250);
        }
        let ready = world.conditions(&uid).iter().find(|c| c.type_ == "Ready");
        let message = ready.unwrap().message.clone().unwrap();
        assert!(message.contains(&format!("{wait}s")), "{message}");
    }
    assert_eq!(warnings(&world, "ImagePullFailed"), 1);
    let phase = world.sandboxes[&uid].phase;
    assert_eq!(phase, Some(SandboxPhase::Creating));
}

#[test]
fn an_evicted_sandbox_fails_with_that_reason() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    world.change_pod(&pod, |p| {
        p.ready = false;
        p.ended = Some(Trouble::new("Evicted", "was evicted by its node"));
    });
    world.pass(3);
    assert_over(&world, &uid, SandboxPhase::Failed, "Evicted");
}

#[test]
fn the_reason_of_an_end_is_known_even_if_the_pod_is_gone_before_it_is_looked_at() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    world.change_pod(&pod, |p| {
        p.identity.deleting = true;
        p.disruption = Some(Trouble::new("NodeLost", "was lost with its node"));
    });
    world.lose_pod(&pod);
    world.deliver_together();
    world.pass(3);
    assert_over(&world, &uid, SandboxPhase::Failed, "NodeLost");
}

#[test]
fn a_pod_that_somebody_deleted_is_called_that() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    world.lose_pod(&pod);
    world.pass(3);
    assert_over(&world, &uid, SandboxPhase::Failed, "PodDeleted");
}

#[test]
fn a_crashing_sandbox_says_so_after_two_seconds_and_is_ready_again_when_its_pod_is() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    world.change_pod(&pod, |p| {
        p.ready = false;
        p.prepared = false;
        p.unready = Some(Trouble::new("ContainerCrashing", "it ended"));
    });
    let crashed = world.now;
    world.step(1_900);
    world.step(0);
    assert!(world.condition(&uid, "Ready").0, "not within two seconds");
    world.pass(4);
    for type_ in ["Ready", "Prepared"] {
        let found = world.condition(&uid, type_);
        assert_eq!(found, (false, "ContainerCrashing"), "{type_}");
    }
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_eq!(warnings(&world, "ContainerCrashing"), 1);
    let ready = world.conditions(&uid).iter().find(|c| c.type_ == "Ready");
    let since = ready.unwrap().last_transition_time.unwrap();
    assert!(
        since > crashed,
        "the transition is the crash, not the publication"
    );

    world.change_pod(&pod, |p| {
        p.ready = true;
        p.prepared = true;
        p.unready = None;
    });
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (true, "Running"));
    assert_eq!(world.condition(&uid, "Prepared"), (true, "Prepared"));
}

#[test]
fn a_sandbox_on_a_node_that_is_not_heard_of_says_that_and_goes_on_when_it_is() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    let node = world.pods[&pod].node.clone().unwrap();
    // The agent alone being away is nothing to a sandbox.
    world.stream_down(&node);
    world.pass(10);
    assert_eq!(world.status_writes, 0);
    world.change_pod(&pod, |p| {
        p.ready = false;
        p.unready = Some(Trouble::new("PodNotReady", "the node says nothing"));
    });
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (false, "NodeUnreachable"));
    assert!(world.condition(&uid, "Prepared").0, "as far as is known");
    world.stream_up(&node);
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (false, "PodNotReady"));
    world.change_pod(&pod, |p| p.ready = true);
    world.pass(4);
    assert_eq!(world.condition(&uid, "Ready"), (true, "Running"));
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
}

#[test]
fn a_pod_that_the_kubelet_calls_ready_late_is_given_ten_seconds() {
    let mut world = World::new(1, 0);
    world.settle();
    let idle = world.warm_pods.keys().next().cloned().unwrap();
    // As the watch shows a pod whose kubelet lags behind the agent, to a scheduler that has just started.
    world.change_pod(&idle, |p| p.ready = false);
    world.restart_scheduler();
    let uid = world.create_sandbox();
    world.pass(9);
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_eq!(world.status_writes, 0);
    world.pass(5);
    assert_eq!(world.condition(&uid, "Ready"), (false, "PodNotReady"));
}

#[test]
fn a_timeout_can_be_moved_while_the_sandbox_runs() {
    let mut world = World::new(1, 0);
    let (uid, _) = with_one_running(&mut world);
    world.edit(&uid, |spec| spec.timeout = Some(10));
    world.pass(2);
    world.edit(&uid, |spec| spec.timeout = Some(60));
    world.pass(30);
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    // Shorter than it has run already: it ends at once.
    world.edit(&uid, |spec| spec.timeout = Some(20));
    world.pass(10);
    assert_over(&world, &uid, SandboxPhase::Terminated, "TimedOut");
}

#[test]
fn an_edit_that_cannot_be_fulfilled_is_refused_and_the_sandbox_runs_on() {
    let mut world = World::new(1, 0);
    let (uid, _) = with_one_running(&mut world);
    world.edit(&uid, |spec| {
        spec.network_access = Some(NetworkAccess {
            egress: Some(vec![EgressRule {
                domain: "not..a.name".to_owned(),
                ports: None,
            }]),
            ingress: None,
        });
    });
    world.pass(30);
    let refused = (false, "InvalidNetworkAccess");
    assert_eq!(world.condition(&uid, "Accepted"), refused);
    assert!(world.condition(&uid, "Ready").0);
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_eq!(warnings(&world, "InvalidNetworkAccess"), 1);
    world.edit(&uid, |spec| spec.network_access = None);
    world.pass(4);
    assert_eq!(world.condition(&uid, "Accepted"), (true, "Resolved"));
}

#[test]
fn a_runtime_that_is_deleted_is_nothing_to_a_sandbox_that_runs() {
    let mut world = World::new(1, 0);
    let (uid, _) = with_one_running(&mut world);
    world
        .undelivered
        .push_back(Input::Runtime(Change::Replace(vec![])));
    world.pass(10);
    world.edit(&uid, |spec| spec.timeout = Some(900));
    world.pass(10);
    assert_eq!(world.status_writes, 0);
    assert!(world.condition(&uid, "Accepted").0);
}

#[test]
fn a_warm_pod_that_exceeded_its_memory_while_idle_is_replaced_and_not_given_away() {
    let mut world = World::new(1, 0);
    world.settle();
    let idle = world.warm_pods.keys().next().cloned().unwrap();
    world.change_pod(&idle, |p| {
        p.ended = Some(Trouble::new("OOMKilled", "exceeded its memory limit"));
    });
    world.deliver(usize::MAX);
    let uid = world.create_sandbox();
    world.settle();
    assert_ne!(world.sandboxes[&uid].pod_name, Some(idle.name.clone()));
    assert!(!world.pods.contains_key(&idle));
    let free = world.warm_pods.values().filter(|p| p.claim == Claim::Free);
    assert_eq!(free.count(), 1);
}

#[test]
fn what_is_over_is_kept_for_the_time_that_the_installation_says() {
    let ttl = Some(SignedDuration::from_secs(60));
    let mut world = World::with_finished_ttl(2, 0, ttl);
    let (failed, pod) = with_one_running(&mut world);
    let running = world.create_sandbox();
    world.lose_pod(&pod);
    world.pass(50);
    assert_eq!(world.sandboxes[&failed].phase, Some(SandboxPhase::Failed));
    world.pass(20);
    assert!(!world.sandboxes.contains_key(&failed));
    world.edit(&running, |spec| spec.timeout = Some(1));
    world.pass(30);
    let phase = world.sandboxes[&running].phase;
    assert_eq!(phase, Some(SandboxPhase::Terminated));
    // A new scheduler counts from the time that was written, not from its own start.
    world.restart_scheduler();
    world.pass(40);
    assert!(world.sandboxes.is_empty());
}

#[test]
fn what_is_over_stays_where_the_installation_says_nothing() {
    let mut world = World::new(1, 0);
    let (uid, pod) = with_one_running(&mut world);
    world.lose_pod(&pod);
    world.pass(4);
    world.advance(365 * 24 * 3_600_000);
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Failed));
}
