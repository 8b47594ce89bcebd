//! The decisions, against a small cluster in memory: chosen cases, and random histories with every fault.

#[path = "decisions/runtimes.rs"]
mod runtimes;
#[path = "decisions/seccomp.rs"]
mod seccomp;
mod world;

use pilotlight_common::kinds::{ConditionStatus, SandboxPhase};
use pilotlight_scheduler::action::Action;
use pilotlight_scheduler::input::Input;
use pilotlight_scheduler::view::{Claim, Key, Trouble};
use proptest::prelude::*;
use world::{NODES, World};

fn running(world: &World) -> usize {
    world
        .sandboxes
        .values()
        .filter(|s| s.phase == Some(SandboxPhase::Running))
        .count()
}

fn idle(world: &World) -> usize {
    world
        .warm_pods
        .values()
        .filter(|p| p.claim == Claim::Free)
        .count()
}

#[test]
fn a_pool_fills_and_a_sandbox_gets_a_pod_at_once() {
    let mut world = World::new(3, 0);
    world.settle();
    assert_eq!(idle(&world), 3);
    let uid = world.create_sandbox();
    world.deliver(1);
    let assigned = world
        .under_way
        .iter()
        .any(|a| matches!(a, Action::Assign(a) if a.sandbox.uid == uid));
    assert!(assigned, "the decision follows the event itself");
    world.settle();
    assert_eq!(running(&world), 1);
    assert_eq!(idle(&world), 3, "the pool is filled up again");
}

#[test]
fn the_maximum_counts_assigned_pods() {
    let mut world = World::new(3, 4);
    world.settle();
    for _ in 0..6 {
        world.create_sandbox();
    }
    world.settle();
    // Who finds the pool at its maximum gets a pod of its own, which is not the pool's.
    assert_eq!(running(&world), 6);
    assert_eq!(world.warm_pods.len(), 4);
    assert_eq!(world.cold_pods().len(), 3);
    // A deletion makes room.
    let on_warm = |world: &World, uid: &str| {
        let pod = world.sandboxes[uid].pod_name.clone().unwrap();
        world.warm_pods.keys().any(|key| key.name == pod)
    };
    let gone = world.sandboxes.keys().find(|uid| on_warm(&world, uid));
    let gone = gone.unwrap().clone();
    world.delete_sandbox(&gone);
    world.settle();
    assert_eq!((running(&world), idle(&world)), (5, 2));
}

#[test]
fn the_oldest_sandbox_goes_first() {
    let mut world = World::new(1, 1);
    // The pool's pod is being made.
    world.deliver(usize::MAX);
    world.carry_out(0, true);
    let first = world.create_sandbox();
    world.advance(10);
    let second = world.create_sandbox();
    world.settle();
    let pod = |uid: &str| world.sandboxes[uid].pod_name.clone().unwrap();
    let warm: Vec<&str> = world.warm_pods.keys().map(|k| k.name.as_str()).collect();
    assert_eq!(warm, [pod(&first)]);
    assert_eq!(world.cold_pods()[0].name, pod(&second));
}

#[test]
fn without_a_pool_a_sandbox_gets_a_pod_of_its_own_and_takes_it_along() {
    let mut world = World::new(0, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.deliver(1);
    let made: Vec<&str> = world
        .under_way
        .iter()
        .filter_map(|action| match action {
            Action::CreateColdPod(create) => Some(create.sandbox.uid.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        made,
        [uid.as_str()],
        "the decision follows the event itself"
    );
    world.settle();
    assert_eq!(running(&world), 1);
    world.delete_sandbox(&uid);
    world.settle();
    assert!(world.pods.is_empty());
}

#[test]
fn a_cold_pod_that_ends_before_it_serves_is_replaced_and_the_reason_is_told() {
    let mut world = World::new(0, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.deliver(1);
    world.carry_out(0, true);
    let first = world.cold_pods()[0].clone();
    world.advance(1100);
    while !world.under_way.is_empty() {
        world.carry_out(0, true);
    }
    assert_eq!(ready_reason(&world, &uid), Some("PodStarting".into()));
    world.change_pod(&first, |pod| {
        pod.ended = Some(Trouble::new("UnexpectedAdmissionError", "no"));
    });
    world.settle();
    assert_eq!(running(&world), 1);
    assert_ne!(world.cold_pods(), [first]);
}

#[test]
fn a_sandbox_whose_own_pod_finds_no_room_takes_a_warm_pod_that_becomes_ready() {
    let mut world = World::new(0, 0);
    world.settle();
    world.has_room = false;
    let uid = world.create_sandbox();
    world.deliver(1);
    world.carry_out(0, true);
    world.deliver(usize::MAX);
    world.advance(1100);
    while !world.under_way.is_empty() {
        world.carry_out(0, true);
    }
    assert_eq!(ready_reason(&world, &uid), Some("PodUnschedulable".into()));
    world.resize(1, 0);
    world.settle();
    let pod = world.sandboxes[&uid].pod_name.clone().unwrap();
    assert!(world.warm_pods.keys().any(|key| key.name == pod));
    assert!(world.cold_pods().is_empty());
}

fn ready_reason(world: &World, uid: &str) -> Option<String> {
    let ready = world.conditions(uid).iter().find(|c| c.type_ == "Ready")?;
    assert_eq!(ready.status, ConditionStatus::False);
    ready.reason.clone()
}

#[test]
fn a_refusal_leads_to_another_pod_at_once() {
    let mut world = World::new(2, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.deliver(1);
    let at = world
        .under_way
        .iter()
        .position(|a| matches!(a, Action::Assign(_)))
        .unwrap();
    let Action::Assign(first) = world.under_way[at].clone() else {
        unreachable!()
    };
    world.carry_out(at, true);
    let before = world.now;
    world.refuse(&Key::from(&first.warm_pod));
    let second = world.under_way.iter().find_map(|a| match a {
        Action::Assign(a) if a.sandbox.uid == uid => Some(a.clone()),
        _ => None,
    });
    assert_eq!(world.now, before, "no time has passed");
    assert_ne!(second.unwrap().warm_pod.uid, first.warm_pod.uid);
    world.settle();
    assert_eq!(running(&world), 1);
    assert!(
        !world.warm_pods.contains_key(&Key::from(&first.warm_pod)),
        "the refused pod is removed"
    );
}

#[test]
fn a_silent_agent_is_given_up_after_its_deadline_and_the_first_to_publish_wins() {
    let mut world = World::new(2, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.deliver(1);
    let at = world
        .under_way
        .iter()
        .position(|a| matches!(a, Action::Assign(_)))
        .unwrap();
    let Action::Assign(first) = world.under_way[at].clone() else {
        unreachable!()
    };
    world.carry_out(at, true);
    world.deliver(usize::MAX);
    world.advance(29_000);
    assert!(
        !world
            .under_way
            .iter()
            .any(|a| matches!(a, Action::Assign(_)))
    );
    world.advance(2_000);
    assert!(
        world
            .under_way
            .iter()
            .any(|a| matches!(a, Action::Assign(a) if a.sandbox.uid == uid))
    );
    // The silent agent wakes up and is faster after all.
    world.publish(&Key::from(&first.warm_pod));
    world.settle();
    assert_eq!(
        world.sandboxes[&uid].pod_name.as_deref(),
        Some(first.warm_pod.name.as_str())
    );
    let owned = world
        .warm_pods
        .values()
        .filter(|p| p.claim == Claim::Sandbox(uid.clone()))
        .count();
    assert_eq!(owned, 1, "the second pod is removed");
}

#[test]
fn pods_of_a_node_without_a_stream_are_not_assigned() {
    let mut world = World::new(4, 4);
    world.settle();
    for node in NODES {
        world.stream_down(node);
    }
    world.create_sandbox();
    world.deliver(usize::MAX);
    world.advance(5000);
    assert!(
        !world
            .under_way
            .iter()
            .any(|a| matches!(a, Action::Assign(_)))
    );
    world.settle();
    assert_eq!(running(&world), 1);
}

#[test]
fn a_deleted_pool_takes_its_idle_pods_along_and_no_assigned_one() {
    let mut world = World::new(3, 0);
    world.settle();
    world.create_sandbox();
    world.settle();
    let pool = world.pool.identity.clone();
    world
        .undelivered
        .push_back(pilotlight_scheduler::input::Input::Pool(
            pilotlight_scheduler::input::Change::Remove(pool.key, pool.uid),
        ));
    world.settle();
    assert_eq!(idle(&world), 0);
    assert_eq!(running(&world), 1);
    assert_eq!(world.warm_pods.len(), 1);
}

#[test]
fn a_scale_down_removes_what_is_too_many_and_no_more_however_long_it_takes() {
    let mut world = World::new(5, 0);
    world.settle();
    world.deliver(usize::MAX);
    world.resize(3, 0);
    world.deliver(usize::MAX);
    // The pool is looked at again and again while its removals are on their way.
    for _ in 0..5 {
        world.create_sandbox();
        world.deliver(usize::MAX);
        world.advance(1000);
    }
    let retired = world
        .under_way
        .iter()
        .filter(|a| matches!(a, Action::Retire { .. }))
        .count();
    assert_eq!(retired, 2);
    world.settle();
    assert_eq!((running(&world), idle(&world)), (5, 3));
}

#[test]
fn pods_whose_assignment_was_given_up_unanswered_are_candidates_for_the_next_term() {
    let mut world = World::new(2, 2);
    world.settle();
    world.create_sandbox();
    world.deliver(usize::MAX);
    world.abandon_assignments();
    world.handle(Input::Leading(false));
    world.handle(Input::Leading(true));
    world.settle();
    assert_eq!(running(&world), 1);
    assert_eq!(idle(&world), 1);
}

#[test]
fn a_sandbox_ends_at_its_timeout_even_if_its_pod_goes_last() {
    let mut world = World::new(1, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.settle();
    let pod = world.sandboxes[&uid].pod_name.clone().unwrap();
    world.deliver(usize::MAX);
    world.advance(3_600_000);
    while let Some(at) = world
        .under_way
        .iter()
        .position(|a| matches!(a, Action::SandboxStatus(_) | Action::Remove { .. }))
    {
        world.carry_out(at, true);
        // The pod's own end comes by the slowest watch.
        let late = world.take_pod_events();
        world.deliver(usize::MAX);
        world.advance(3000);
        assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Terminating));
        world.undelivered.extend(late);
    }
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Terminated));
    assert!(!world.pods.keys().any(|key| key.name == pod));
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Delete(usize),
    Resize(i64, i64),
    Deliver(usize),
    CarryOut(usize, bool),
    Ready(usize),
    Publish(usize),
    Refuse(usize),
    StreamDown(usize),
    StreamUp(usize),
    PodDies(usize),
    PublishCold(usize),
    ColdEnds(usize),
    Room(bool),
    Advance(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Create),
        2 => (0usize..20).prop_map(Step::Delete),
        1 => (0i64..5, 0i64..3).prop_map(|(min, more)| Step::Resize(min, if more == 0 { 0 } else { min + more })),
        8 => (1usize..5).prop_map(Step::Deliver),
        8 => (0usize..10, prop::bool::weighted(0.8)).prop_map(|(n, answered)| Step::CarryOut(n, answered)),
        5 => (0usize..20).prop_map(Step::Ready),
        4 => (0usize..20).prop_map(Step::Publish),
        1 => (0usize..20).prop_map(Step::Refuse),
        1 => (0usize..2).prop_map(Step::StreamDown),
        2 => (0usize..2).prop_map(Step::StreamUp),
        1 => (0usize..20).prop_map(Step::PodDies),
        4 => (0usize..20).prop_map(Step::PublishCold),
        1 => (0usize..20).prop_map(Step::ColdEnds),
        1 => any::<bool>().prop_map(Step::Room),
        3 => prop::sample::select(vec![10i64, 600, 1100, 5000, 31_000]).prop_map(Step::Advance),
        1 => Just(Step::Restart),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let nth = |world: &World, n: usize| world.warm_pods.keys().nth(n).cloned();
    match *step {
        Step::Create => {
            if world.sandboxes.len() < 12 {
                world.create_sandbox();
            }
        }
        Step::Delete(n) => {
            if let Some(uid) = world.sandboxes.keys().nth(n).cloned() {
                world.delete_sandbox(&uid);
            }
        }
        Step::Resize(min, max) => world.resize(min, max),
        Step::Deliver(n) => world.deliver(n),
        Step::CarryOut(n, answered) => {
            let n = n % world.under_way.len().max(1);
            world.carry_out(n, answered);
        }
        Step::Ready(n) => nth(world, n)
            .iter()
            .for_each(|key| world.pod_becomes_ready(key)),
        Step::Publish(n) => nth(world, n).iter().for_each(|key| world.publish(key)),
        Step::Refuse(n) => nth(world, n).iter().for_each(|key| world.refuse(key)),
        Step::StreamDown(n) => world.stream_down(NODES[n]),
        Step::StreamUp(n) => world.stream_up(NODES[n]),
        Step::PodDies(n) => {
            let idle = nth(world, n).filter(|key| world.warm_pods[key].claim == Claim::Free);
            if let Some(pod) = idle.and_then(|key| world.pods.remove(&key)) {
                world
                    .undelivered
                    .push_back(pilotlight_scheduler::input::Input::Pod(
                        pilotlight_scheduler::input::Change::Remove(
                            pod.identity.key,
                            pod.identity.uid,
                        ),
                    ));
            }
        }
        Step::PublishCold(n) => {
            if let Some(key) = world.cold_pods().get(n) {
                world.publish_cold(key);
            }
        }
        Step::ColdEnds(n) => {
            // Of a published one the sandbox would rightly fail.
            let published = |key: &Key| world.published_ever.values().any(|p| *p == key.name);
            let key = world
                .cold_pods()
                .into_iter()
                .filter(|k| !published(k))
                .nth(n);
            if let Some(key) = key {
                world.change_pod(&key, |pod| {
                    pod.ended = Some(Trouble::new("Evicted", "the node was full"));
                });
            }
        }
        Step::Room(room) => world.has_room = room,
        Step::Advance(ms) => world.advance(ms),
        Step::Restart => world.restart_scheduler(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// I1 and I2 are asserted inside the world at every write. Once the faults end, everything that lives is
    /// published, the pool holds what it should, and nothing is left over.
    #[test]
    fn after_any_history_nothing_is_assigned_twice_lost_or_left_behind(min in 0i64..4, steps in prop::collection::vec(step(), 0..150)) {
        let mut world = World::new(min, 0);
        for step in &steps {
            apply(&mut world, step);
        }
        let min = usize::try_from(world.pool.spec.min_size).unwrap();
        world.resize(i64::try_from(min).unwrap(), 0);
        world.has_room = true;
        world.settle();
        for (uid, sandbox) in &world.sandboxes {
            // Failed is right where a running sandbox's pod was lost; here only idle pods are.
            prop_assert_eq!(sandbox.phase, Some(SandboxPhase::Running), "{} {:?}", uid, sandbox.conditions);
        }
        let live = world.sandboxes.len();
        let assigned = world.warm_pods.values().filter(|p| matches!(p.claim, Claim::Sandbox(_))).count();
        prop_assert_eq!(assigned + world.cold_pods().len(), live, "a pod for each sandbox and no more");
        prop_assert_eq!(idle(&world), min);
        prop_assert_eq!(world.pods.len(), live + min);
    }
}
