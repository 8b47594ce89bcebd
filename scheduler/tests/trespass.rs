//! Nodes that publish what they were not given, against a small cluster in memory. That no honest history accuses
//! anybody, the world itself checks in every test that uses it.

mod world;

use std::collections::BTreeSet;

use pilotlight_common::kinds::SandboxPhase;
use pilotlight_scheduler::action::{Action, Publication};
use pilotlight_scheduler::decide::{Verdict, judge};
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{Claim, Key, PodOwner, PodView, WarmPodView};
use proptest::prelude::*;
use world::{NODES, World};

fn key(name: &str) -> Key {
    Key {
        namespace: "ns".into(),
        name: name.into(),
    }
}

/// Idle pods of a node, as their WarmPods say.
fn idle_on(world: &World, node: &str) -> Vec<Key> {
    let free = world.warm_pods.iter().filter(|(_, view)| {
        view.claim == Claim::Free && view.node.as_deref() == Some(node) && view.ready_at.is_some()
    });
    free.map(|(key, _)| key.clone()).collect()
}

/// A world with so many idle pods that each node has some, and a sandbox that nobody was given yet.
fn with_one_waiting() -> (World, String) {
    let mut world = World::new(8, 0);
    world.settle();
    for node in NODES {
        assert!(!idle_on(&world, node).is_empty(), "{node} has no idle pod");
    }
    let uid = world.create_sandbox();
    (world, uid)
}

fn assert_expelled(world: &mut World, uid: &str, node: &str) {
    world.come_to_rest();
    assert_eq!(world.sandboxes[uid].phase, Some(SandboxPhase::Failed));
    assert_eq!(world.condition(uid, "Ready"), (false, "NotAssigned"));
    for name in NODES {
        assert_eq!(world.nodes[name].distrusted, name == node, "{name}");
    }
    assert_eq!(world.index.distrusted_nodes(), 1);
}

#[test]
fn a_node_that_helps_itself_to_a_waiting_sandbox_is_found_out_before_any_time_has_passed() {
    let (mut world, uid) = with_one_waiting();
    let pod = idle_on(&world, "node-a").remove(0);
    world.publish_unasked("node-a", &uid, &pod.name);
    assert_expelled(&mut world, &uid, "node-a");
}

#[test]
fn a_sandbox_published_on_the_pod_of_another_is_ended_and_the_other_runs_on() {
    let (mut world, first) = with_one_waiting();
    world.pass(2);
    let pod = world.sandboxes[&first].pod_name.clone().unwrap();
    let node = world.sandboxes[&first].node.clone().unwrap();
    let second = world.create_sandbox();
    world.publish_unasked(&node, &second, &pod);
    assert_expelled(&mut world, &second, &node);
    // What becomes of its pod is still the first one's concern.
    world.lose_pod(&key(&pod));
    world.pass(4);
    assert_eq!(world.condition(&first, "Ready"), (false, "PodDeleted"));
    assert_eq!(world.condition(&second, "Ready"), (false, "NotAssigned"));
}

#[test]
fn a_sandbox_published_on_a_pod_that_never_was_is_ended() {
    let (mut world, uid) = with_one_waiting();
    world.deliver(usize::MAX);
    world.under_way.clear();
    world.publish_unasked("node-b", &uid, "made-up");
    assert_expelled(&mut world, &uid, "node-b");
}

#[test]
fn a_sandbox_published_by_another_node_than_its_pods_is_ended() {
    let (mut world, uid) = with_one_waiting();
    world.deliver(usize::MAX);
    let at = world.under_way.iter();
    let at = at.clone().position(|a| matches!(a, Action::Assign(_)));
    world.carry_out(at.unwrap(), true);
    let given = world.warm_pods.values();
    let given = given
        .clone()
        .find(|w| w.claim == Claim::Sandbox(uid.clone()));
    let given = given.unwrap().clone();
    let other = NODES.iter().find(|n| Some(**n) != given.node.as_deref());
    let other = *other.unwrap();
    world.publish_unasked(other, &uid, &given.identity.key.name);
    assert_expelled(&mut world, &uid, other);
}

#[test]
fn the_pods_of_a_distrusted_node_are_replaced_and_none_of_them_is_given_away() {
    let (mut world, uid) = with_one_waiting();
    let pod = idle_on(&world, "node-a").remove(0);
    world.publish_unasked("node-a", &uid, &pod.name);
    assert_expelled(&mut world, &uid, "node-a");
    let mut given = BTreeSet::new();
    for _ in 0..4 {
        let next = world.create_sandbox();
        world.come_to_rest();
        let claims = world.warm_pods.values();
        let of_next = claims
            .clone()
            .find(|w| w.claim == Claim::Sandbox(next.clone()));
        given.extend(of_next.and_then(|w| w.node.clone()));
    }
    assert!(!given.contains("node-a"), "{given:?}");
    world.settle();
    assert_eq!(idle_on(&world, "node-a"), []);
    let retired = world
        .warm_pods
        .values()
        .filter(|w| w.node.as_deref() == Some("node-a"));
    assert_eq!(retired.count(), 0, "all idle ones are gone");
}

#[test]
fn a_node_stays_distrusted_over_a_restart_and_new_streams_until_somebody_takes_the_label_away() {
    let (mut world, uid) = with_one_waiting();
    let pod = idle_on(&world, "node-a").remove(0);
    world.publish_unasked("node-a", &uid, &pod.name);
    assert_expelled(&mut world, &uid, "node-a");
    world.stream_down("node-a");
    world.stream_up("node-a");
    world.restart_scheduler();
    world.pass(60);
    assert!(world.nodes["node-a"].distrusted);
    assert_eq!(world.index.distrusted_nodes(), 1);
    world.clear_node("node-a");
    world.come_to_rest();
    assert_eq!(world.index.distrusted_nodes(), 0);
}

#[test]
fn a_distrust_is_seen_by_the_successor_of_a_scheduler_that_died_on_the_way() {
    let (mut world, uid) = with_one_waiting();
    let pod = idle_on(&world, "node-a").remove(0);
    world.publish_unasked("node-a", &uid, &pod.name);
    world.deliver(usize::MAX);
    assert!(
        world
            .under_way
            .iter()
            .any(|a| matches!(a, Action::Expel(_)))
    );
    world.restart_scheduler();
    assert_expelled(&mut world, &uid, "node-a");
}

#[test]
fn an_assignment_by_another_replica_that_is_not_seen_yet_accuses_nobody() {
    let (mut world, uid) = with_one_waiting();
    // Carried out and published; of all that, the sandbox's watch alone shows anything.
    let pod = idle_on(&world, "node-a").remove(0);
    world.warm_pods.get_mut(&pod).unwrap().claim = Claim::Sandbox(uid.clone());
    world.publish(&pod);
    world.come_to_rest();
    assert_eq!(world.looks, 1, "it was looked up");
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_eq!(world.sandboxes[&uid].pod_name, Some(pod.name));
    assert_eq!(world.looks, 1, "and that settled it");
    assert_eq!(world.index.distrusted_nodes(), 0);
}

#[test]
fn a_warm_pod_that_is_deleted_right_after_its_assignment_accuses_nobody() {
    for restart in [false, true] {
        let (mut world, uid) = with_one_waiting();
        world.deliver(usize::MAX);
        let at = world.under_way.iter();
        let at = at.clone().position(|a| matches!(a, Action::Assign(_)));
        world.carry_out(at.unwrap(), true);
        let claims = world.warm_pods.iter();
        let given = claims
            .clone()
            .find(|(_, w)| w.claim == Claim::Sandbox(uid.clone()));
        let given = given.unwrap().0.clone();
        world.publish(&given);
        let warm_pod = world.warm_pods.remove(&given).unwrap();
        world.undelivered.push_front(Input::WarmPod(Change::Remove(
            given.clone(),
            warm_pod.identity.uid,
        )));
        world.lose_pod(&given);
        if restart {
            world.restart_scheduler();
        }
        world.pass(5);
        assert_eq!(world.condition(&uid, "Ready"), (false, "PodDeleted"));
        assert_eq!(world.index.distrusted_nodes(), 0);
    }
}

#[test]
fn a_pod_that_another_node_calls_its_own_is_never_given_away_and_replaced() {
    let mut world = World::new(1, 0);
    world.settle();
    let pod = world.warm_pods.keys().next().cloned().unwrap();
    let there = world.warm_pods[&pod].node.clone();
    let other = NODES.iter().find(|n| Some(**n) != there.as_deref());
    let view = world.warm_pods.get_mut(&pod).unwrap();
    view.node = other.map(ToString::to_string);
    view.identity.revision += 1_000_000;
    let view = view.clone();
    world
        .undelivered
        .push_back(Input::WarmPod(Change::Upsert(view)));
    world.deliver(usize::MAX);
    let uid = world.create_sandbox();
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_ne!(world.sandboxes[&uid].pod_name, Some(pod.name.clone()));
    assert!(!world.warm_pods.contains_key(&pod), "it is replaced");
}

fn claims() -> impl Strategy<Value = Claim> {
    prop_oneof![
        Just(Claim::Free),
        Just(Claim::Retired),
        Just(Claim::Sandbox("own".into())),
        Just(Claim::Sandbox("other".into())),
    ]
}

fn nodes() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof![Just("a".to_owned()), Just("b".to_owned())])
}

fn warm_pods() -> impl Strategy<Value = Option<WarmPodView>> {
    let view = (claims(), nodes()).prop_map(|(claim, node)| WarmPodView {
        claim,
        node,
        ..WarmPodView::default()
    });
    prop::option::of(view)
}

fn pods() -> impl Strategy<Value = Option<PodView>> {
    let owner = prop_oneof![
        Just(PodOwner::Nobody),
        Just(PodOwner::WarmPod("w".into())),
        Just(PodOwner::Sandbox("own".into())),
        Just(PodOwner::Sandbox("other".into())),
        Just(PodOwner::Runtime("r".into())),
    ];
    let view = (owner, nodes(), any::<bool>()).prop_map(|(owner, node, managed)| PodView {
        owner,
        node,
        managed,
        ..PodView::default()
    });
    prop::option::of(view)
}

proptest! {
    /// Whatever there is: only what was given bears out, nothing that was given is contradicted but by its node, and
    /// where this replica did not watch, what is not there says nothing.
    #[test]
    fn only_what_was_given_bears_a_publication_out(
        warm_pod in warm_pods(), pod in pods(), node in nodes(), watched in any::<bool>(),
    ) {
        let publication = Publication { sandbox: "own".into(), pod: key("pod"), node: node.clone(), watched };
        let verdict = judge(&publication, warm_pod.as_ref(), pod.as_ref());
        let own = PodOwner::Sandbox("own".into());
        let cold = pod.as_ref().is_some_and(|p| p.owner == own);
        let warm = warm_pod.as_ref().is_some_and(|w| w.claim == Claim::Sandbox("own".into()));
        let runs_on = pod.as_ref().and_then(|p| p.node.clone())
            .or_else(|| warm_pod.as_ref().filter(|_| !cold).and_then(|w| w.node.clone()));
        let elsewhere = node.is_some() && runs_on.is_some() && node != runs_on;
        if cold || warm {
            let contradicted = matches!(verdict, Verdict::Contradicted(_));
            prop_assert_eq!(contradicted, elsewhere);
            prop_assert_eq!(verdict == Verdict::BorneOut, !elsewhere);
        } else {
            prop_assert_ne!(verdict, Verdict::BorneOut);
        }
        if warm_pod.is_none() && pod.is_none() {
            prop_assert_eq!(verdict == Verdict::Unknown, !watched);
        }
    }

    /// A node publishes a sandbox at any moment of its way to a pod, on a pod of any kind: either it was given that
    /// pod, or it is found out; and never is another node blamed.
    #[test]
    fn a_node_that_publishes_at_any_moment_is_found_out_unless_it_was_right(
        steps in 0usize..12, node in 0usize..2, which in 0usize..10, restart in any::<bool>(),
    ) {
        let (mut world, uid) = with_one_waiting();
        for _ in 0..steps {
            world.deliver(1);
            if !world.under_way.is_empty() { world.carry_out(0, true); }
        }
        let names: Vec<String> = world.warm_pods.keys().map(|k| k.name.clone()).chain(["made-up".into()]).collect();
        let pod = names[which % names.len()].clone();
        let node = NODES[node];
        let before = world.sandboxes[&uid].clone();
        world.publish_unasked(node, &uid, &pod);
        prop_assume!(before.pod_name.is_none() && world.sandboxes[&uid].pod_name.is_some());
        if restart && pod != "made-up" { world.restart_scheduler(); }
        world.come_to_rest();
        // It may have guessed the pod whose assignment was on its way.
        let rightful = world.warm_pods.get(&key(&pod)).is_some_and(|w| {
            w.claim == Claim::Sandbox(uid.clone()) && w.node.as_deref() == Some(node)
        });
        let ended = world.sandboxes[&uid].phase == Some(SandboxPhase::Failed);
        prop_assert_eq!(ended, !rightful);
        for name in NODES {
            prop_assert_eq!(world.nodes[name].distrusted, !rightful && name == node);
        }
    }
}
