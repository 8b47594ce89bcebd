//! Sandboxes that want CPUs of their own, against agents that have the last word on them.

mod world;

use pilotlight_common::kinds::SandboxPhase;
use pilotlight_scheduler::action::Action;
use proptest::prelude::*;
use world::{NODES, World};

/// A world with so many warm pods of one whole CPU, and nodes that can give so many.
fn world(warm: i64, cpus: [u32; 2]) -> World {
    let mut world = World::new(warm, 0);
    world.change_pool(|pool| {
        if let Some(resources) = &mut pool.resources {
            resources.cpu = Some("1.0".into());
        }
    });
    for (node, cpus) in NODES.into_iter().zip(cpus) {
        world.give_cpus(node, cpus);
    }
    world.settle();
    world
}

fn runs(world: &World, uid: &str) -> bool {
    world.sandboxes[uid].phase == Some(SandboxPhase::Running)
}

fn reason(world: &World, uid: &str) -> String {
    let ready = world.conditions(uid).iter().find(|c| c.type_ == "Ready");
    ready.and_then(|c| c.reason.clone()).unwrap_or_default()
}

#[test]
fn a_pinned_sandbox_goes_to_a_node_that_has_cpus_whatever_the_others_have_ready() {
    let mut world = world(4, [0, 2]);
    let all = [world.create_pinned(1), world.create_pinned(1)];
    world.settle();
    for uid in &all {
        assert_eq!(world.node_of(uid).as_deref(), Some(NODES[1]));
    }
    assert_eq!(world.cpus.refusals, 0, "nothing was promised twice");
}

#[test]
fn what_is_under_way_counts_as_given() {
    let mut world = world(4, [1, 1]);
    for _ in 0..3 {
        world.create_pinned(1);
    }
    world.deliver(usize::MAX);
    // On a warm pod or on one of its own, as the warm ones lie.
    let served = world
        .under_way
        .iter()
        .filter(|a| matches!(a, Action::Assign(_) | Action::CreateColdPod(_)));
    assert_eq!(served.count(), 2);
    world.settle();
    assert_eq!(world.cpus.refusals, 0);
}

#[test]
fn the_one_too_many_waits_with_its_reason_holds_up_nobody_and_is_served_in_its_turn() {
    let mut world = world(4, [1, 1]);
    let first = world.create_pinned(1);
    world.create_pinned(1);
    world.advance(10);
    let third = world.create_pinned(1);
    world.advance(10);
    let fourth = world.create_pinned(1);
    world.settle();
    assert_eq!(reason(&world, &third), "WaitingForCpus");
    let plain = world.create_sandbox();
    world.undelivered.pop_back();
    world.edit(&plain, |spec| {
        if let Some(resources) = &mut spec.resources {
            resources.cpu = Some("1.0".into());
        }
    });
    world.settle();
    assert!(runs(&world, &plain));
    assert!(!runs(&world, &third));
    world.delete_sandbox(&first);
    world.settle();
    assert!(runs(&world, &third) && !runs(&world, &fourth));
    assert_eq!(world.cpus.refusals, 0);
}

#[test]
fn more_than_any_node_has_is_refused_and_served_once_a_node_has_it() {
    let mut world = world(0, [1, 2]);
    let uid = world.create_pinned(4);
    world.settle();
    assert_eq!(reason(&world, &uid), "CpuPinningUnavailable");
    let (accepted, _) = world.condition(&uid, "Accepted");
    assert!(!accepted);
    let message = world.conditions(&uid).iter().find(|c| c.type_ == "Ready");
    let message = message.and_then(|c| c.message.clone()).unwrap();
    assert!(message.contains("is 2"), "{message}");
    world.give_cpus(NODES[0], 8);
    world.settle();
    assert_eq!(world.node_of(&uid).as_deref(), Some(NODES[0]));
}

#[test]
fn a_pod_of_its_own_is_made_where_there_are_cpus_and_nowhere_else() {
    let mut world = world(0, [0, 2]);
    let uid = world.create_pinned(2);
    world.deliver(usize::MAX);
    let made = world.under_way.iter().find_map(|action| match action {
        Action::CreateColdPod(create) => Some((create.nodes.clone(), create.template.cpu.0)),
        _ => None,
    });
    assert_eq!(made, Some((vec![NODES[1].to_owned()], 2000)));
    // Another that wants the same does not get a pod that could go nowhere.
    let second = world.create_pinned(2);
    world.settle();
    assert!(runs(&world, &uid));
    assert_eq!(reason(&world, &second), "WaitingForCpus");
    assert_eq!(world.cold_pods().len(), 1);
    assert_eq!(world.cpus.refusals, 0);
}

#[test]
fn a_pod_that_finds_no_room_where_the_cpus_were_is_made_anew_for_where_they_are_now() {
    let mut world = world(0, [0, 1]);
    world.has_room = false;
    let uid = world.create_pinned(1);
    world.pass(5);
    let first = world.cold_pods();
    world.give_cpus(NODES[1], 0);
    world.give_cpus(NODES[0], 1);
    world.pass(20);
    assert_eq!(world.cold_pods(), first, "it gets its time");
    assert_eq!(reason(&world, &uid), "PodUnschedulable");
    world.has_room = true;
    world.lose_room(&first[0]);
    world.settle();
    assert_ne!(world.cold_pods(), first);
    assert_eq!(world.node_of(&uid).as_deref(), Some(NODES[0]));
}

#[test]
fn a_sandbox_that_asks_for_none_may_go_anywhere() {
    let mut world = world(0, [0, 0]);
    world.create_sandbox();
    world.deliver(usize::MAX);
    let made = world.under_way.iter().find_map(|action| match action {
        Action::CreateColdPod(create) => Some(create.nodes.clone()),
        _ => None,
    });
    assert_eq!(made, Some(vec![]));
}

#[test]
fn an_agent_whose_cpus_went_elsewhere_refuses_and_another_node_is_taken() {
    for warm in [4, 0] {
        let mut world = world(warm, [1, 1]);
        // CPUs went offline, and the report of it is late.
        world.cpus.capacity.insert(NODES[1].to_owned(), 0);
        let one = world.create_pinned(1);
        world.settle();
        assert_eq!(world.node_of(&one).as_deref(), Some(NODES[0]), "{warm}");
        let two = world.create_pinned(1);
        world.settle();
        assert!(!runs(&world, &two));
        assert_eq!(reason(&world, &two), "WaitingForCpus");
        world.give_cpus(NODES[1], 1);
        world.settle();
        assert_eq!(world.node_of(&two).as_deref(), Some(NODES[1]), "{warm}");
    }
}

#[test]
fn a_scheduler_that_starts_anew_promises_nothing_that_is_given() {
    let mut world = world(4, [1, 1]);
    let one = world.create_pinned(1);
    world.settle();
    assert!(runs(&world, &one));
    world.restart_scheduler();
    world.create_pinned(1);
    world.create_pinned(1);
    world.settle();
    assert_eq!(world.cpus.refusals, 0);
    assert_eq!(world.cpus.pins.len(), 2);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Create(u32),
    Plain,
    Delete(usize),
    Deliver(usize),
    CarryOut(usize),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u32..4).prop_map(Step::Create),
        1 => Just(Step::Plain),
        2 => any::<usize>().prop_map(Step::Delete),
        2 => (1usize..6).prop_map(Step::Deliver),
        2 => any::<usize>().prop_map(Step::CarryOut),
        2 => (10i64..1500).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn in_any_history_nodes_give_no_more_than_they_have_and_nobody_waits_for_what_is_free(
        warm in 0i64..4, a in 0u32..5, b in 0u32..5, steps in steps(),
    ) {
        let mut world = world(warm, [a, b]);
        for step in steps {
            match step {
                Step::Create(cpus) => { world.create_pinned(cpus); }
                Step::Plain => { world.create_sandbox(); }
                Step::Delete(n) => {
                    let all: Vec<String> = world.sandboxes.keys().cloned().collect();
                    if !all.is_empty() { world.delete_sandbox(&all[n % all.len()]); }
                }
                Step::Deliver(count) => world.deliver(count),
                Step::CarryOut(n) => { let n = n % world.under_way.len().max(1); world.carry_out(n, true); }
                Step::Pass(milliseconds) => world.step(milliseconds),
            }
        }
        world.settle();
        let mut given = [0u32; 2];
        let mut waiting = Vec::new();
        for (uid, sandbox) in &world.sandboxes {
            let resources = sandbox.spec.resources.clone().unwrap_or_default();
            let wanted: u32 = if resources.cpu_pinning == Some(true) {
                resources.cpu.unwrap_or_default().split('.').next().unwrap().parse().unwrap()
            } else { 0 };
            if runs(&world, uid) {
                let node = world.node_of(uid).unwrap();
                given[NODES.iter().position(|n| *n == node).unwrap()] += wanted;
            } else {
                prop_assert!(wanted > 0, "{} waits for nothing", uid);
                waiting.push((uid.clone(), wanted));
            }
        }
        for (given, has) in given.iter().zip([a, b]) { prop_assert!(*given <= has); }
        for (uid, wanted) in waiting {
            prop_assert!(a - given[0] < wanted && b - given[1] < wanted, "{} waits for {} of {:?}", uid, wanted, (a, b, given));
            let said = reason(&world, &uid);
            prop_assert_eq!(said.as_str(), if wanted > a.max(b) { "CpuPinningUnavailable" } else { "WaitingForCpus" });
        }
    }
}
