//! Pools against the small cluster in memory: replacement by degrees, time to live, preloads and conditions.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]

mod world;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::{
    Condition, ConditionStatus, PoolResources, PreloadScript, SandboxPhase, WarmPodPhase,
};
use pilotlight_scheduler::action::Action;
use pilotlight_scheduler::view::{Claim, InitState, Key, PodView, Trouble};
use world::World;

/// Warm pods that a sandbox could be given.
fn assignable(world: &World) -> usize {
    world
        .warm_pods
        .values()
        .filter(|p| p.phase == Some(WarmPodPhase::Ready) && p.claim == Claim::Free)
        .count()
}

fn condition<'a>(world: &'a World, type_: &str) -> &'a Condition {
    let conditions = world.pool.status.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|c| c.type_ == type_).unwrap()
}

/// Status and reason of the pool's Ready condition.
fn ready(world: &World) -> (ConditionStatus, &str) {
    let ready = condition(world, "Ready");
    (ready.status, ready.reason.as_deref().unwrap())
}

fn keys(world: &World) -> Vec<Key> {
    world.warm_pods.keys().cloned().collect()
}

/// Time passes without any pod coming up.
fn pass(world: &mut World, seconds: i64) {
    for _ in 0..seconds {
        world.come_to_rest();
        world.advance(1000);
    }
    world.come_to_rest();
}

/// The pool comes to want pods of another shape.
fn change_shape(world: &mut World) {
    world.change_pool(|spec| {
        spec.resources = Some(PoolResources {
            cpu: Some("10m".into()),
            memory: Some("64Mi".into()),
        });
    });
}

/// Replaces the eight pods of a pool while they come up one a second; returns the fewest assignable and the most of
/// all that were seen.
fn replace_eight(world: &mut World) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    for step in 0..600 {
        world.deliver(1);
        if !world.under_way.is_empty() {
            world.carry_out(0, true);
        }
        if step % 10 == 0 {
            let starting = keys(world)
                .into_iter()
                .find(|key| world.warm_pods[key].phase.is_none());
            if let Some(key) = starting {
                world.pod_becomes_ready(&key);
            }
        }
        world.advance(100);
        fewest = fewest.min(assignable(world));
        most = most.max(world.warm_pods.len());
    }
    world.settle();
    (fewest, most)
}

#[test]
fn a_changed_shape_replaces_idle_pods_by_degrees_with_or_without_room_for_more() {
    // Without room a batch, a quarter of the minimum, goes first; with room none does.
    for (max, fewest_allowed, most_allowed) in [(0, 8, 10), (8, 6, 8), (9, 6, 9)] {
        let mut world = World::new(8, max);
        world.settle();
        let before = keys(&world);
        change_shape(&mut world);
        let (fewest, most) = replace_eight(&mut world);
        assert!(fewest >= fewest_allowed, "{max}: {fewest} assignable");
        assert!(most <= most_allowed, "{max}: {most} pods");
        let after = keys(&world);
        assert_eq!(after.len(), 8);
        assert!(before.iter().all(|key| !after.contains(key)), "{max}");
    }
}

#[test]
fn a_sandbox_that_asks_for_the_old_shape_gets_one_of_the_old_pods_meanwhile() {
    let mut world = World::new(4, 0);
    world.settle();
    change_shape(&mut world);
    pass(&mut world, 3);
    assert_eq!(world.pool.status.available_pods, Some(4), "the old ones");
    let uid = world.create_sandbox();
    world.come_to_rest();
    let served = world
        .warm_pods
        .values()
        .any(|p| p.claim == Claim::Sandbox(uid.clone()));
    assert!(served);
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    assert_eq!(assignable(&world), 4);
}

#[test]
fn pods_of_a_shape_that_never_came_up_are_replaced_at_once() {
    let mut world = World::new(4, 4);
    pass(&mut world, 2);
    let before = keys(&world);
    assert_eq!(before.len(), 4);
    change_shape(&mut world);
    pass(&mut world, 5);
    let after = keys(&world);
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|key| !after.contains(key)));
}

#[test]
fn a_change_of_the_preloads_alone_replaces_the_pods_and_the_shape_stays() {
    let mut world = World::new(2, 0);
    world.settle();
    let before = keys(&world);
    let shape = world.warm_pods[&before[0]].shape.clone();
    world.change_pool(|spec| spec.preload_packages = Some(vec!["numpy==2".into()]));
    world.settle();
    let after = keys(&world);
    assert!(before.iter().all(|key| !after.contains(key)));
    let hash = world.warm_pods[&after[0]].preload.clone();
    assert!(hash.is_some());
    assert_eq!(world.warm_pods[&after[0]].shape, shape);
    // The same content again changes nothing.
    world.change_pool(|spec| spec.preload_packages = Some(vec!["numpy==2".into()]));
    world.settle();
    assert_eq!(keys(&world), after);
    // A plain sandbox takes a pod with preloads.
    let uid = world.create_sandbox();
    world.settle();
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
}

#[test]
fn the_time_to_live_counts_from_ready_and_zero_is_never() {
    let mut world = World::new(4, 0);
    world.change_pool(|spec| spec.ttl = Some(60));
    pass(&mut world, 2);
    // Made now, ready 100 s later: a time to live from the creation would be over.
    pass(&mut world, 100);
    let first = keys(&world);
    for key in &first {
        world.pod_becomes_ready(key);
    }
    pass(&mut world, 55);
    assert_eq!(keys(&world), first);
    pass(&mut world, 10);
    assert_eq!(
        assignable(&world),
        4,
        "the old ones, until others are there"
    );
    world.settle();
    let second = keys(&world);
    assert_eq!(second.len(), 4);
    assert!(first.iter().all(|key| !second.contains(key)));
    world.change_pool(|spec| spec.ttl = Some(0));
    world.settle();
    let kept = keys(&world);
    pass(&mut world, 5000);
    assert_eq!(keys(&world), kept);
}

#[test]
fn conditions_say_which_way_a_pool_moves_and_are_reset_with_true_times() {
    let mut world = World::new(3, 0);
    pass(&mut world, 3);
    assert_eq!(ready(&world), (ConditionStatus::False, "Filling"));
    assert_eq!(condition(&world, "ScalingUp").status, ConditionStatus::True);
    let grown = world.pool.status.last_scale_time.clone();
    assert!(grown.is_some());
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::True, "PoolReady"));
    for movement in ["ScalingUp", "ScalingDown"] {
        let condition = condition(&world, movement);
        assert_eq!(condition.status, ConditionStatus::False, "{movement}");
        assert_eq!(condition.reason.as_deref(), Some("Steady"));
    }
    let since = condition(&world, "Ready").last_transition_time;
    assert_eq!(world.pool.status.last_scale_time, grown);

    let asked = world.now;
    world.resize(1, 0);
    world.deliver(usize::MAX);
    world.advance(1500);
    let shrinking = world.under_way.iter().any(|action| {
        matches!(action, Action::PoolStatus { status, .. } if status.conditions.iter().flatten()
            .any(|c| c.type_ == "ScalingDown" && c.status == ConditionStatus::True))
    });
    assert!(shrinking);
    world.settle();
    assert_eq!(
        condition(&world, "ScalingDown").status,
        ConditionStatus::False
    );
    assert_eq!(condition(&world, "Ready").last_transition_time, since);
    let shrunk = world.pool.status.last_scale_time.clone().unwrap().0;
    assert_eq!(shrunk.as_second(), asked.as_second());
    assert_eq!(
        world.pool.status.selector.as_deref(),
        Some("llmsafespace.dev/pool=pool")
    );
}

#[test]
fn a_pool_at_rest_writes_nothing() {
    let mut world = World::new(3, 5);
    world.create_sandbox();
    world.settle();
    for _ in 0..600 {
        world.advance(1000);
        // The numbers of a runtime's users follow within a minute; that is no write of the pool's.
        let of_pool = |a: &&Action| !matches!(a, Action::RuntimeStatus { .. });
        assert_eq!(world.under_way.iter().find(of_pool), None);
    }
}

#[test]
fn a_sandbox_that_ends_is_no_scaling_down() {
    let mut world = World::new(1, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.settle();
    world.delete_sandbox(&uid);
    world.deliver(usize::MAX);
    world.advance(1500);
    for action in &world.under_way {
        if let Action::PoolStatus { status, .. } = action {
            let down = status.conditions.iter().flatten();
            let down = down.filter(|c| c.type_ == "ScalingDown");
            assert!(down.clone().count() == 1);
            assert!(down.clone().all(|c| c.status == ConditionStatus::False));
        }
    }
    world.settle();
    assert_eq!(assignable(&world), 1);
}

#[test]
fn a_pool_says_what_keeps_its_pods_and_that_it_is_over() {
    let mut world = World::new(2, 0);
    pass(&mut world, 2);
    let key = keys(&world)[0].clone();
    for (reason, advice) in [
        ("PodUnschedulable", "add nodes"),
        ("ImagePullFailed", "image"),
        ("ContainerCrashing", "kubectl logs"),
        ("ContainerNotCreated", "kubectl describe pod"),
    ] {
        world.change_pod(&key, |pod| pod.hold_up = Some(Trouble::new(reason, "said")));
        pass(&mut world, 5);
        assert_eq!(ready(&world), (ConditionStatus::False, reason));
        let message = condition(&world, "Ready").message.clone().unwrap();
        assert!(message.contains(&key.name), "{message}");
        assert!(
            message.contains("said") && message.contains(advice),
            "{message}"
        );
    }
    world.change_pod(&key, |pod| pod.hold_up = None);
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::True, "PoolReady"));
}

#[test]
fn a_pool_without_room_for_its_minimum_says_so() {
    let mut world = World::new(2, 3);
    world.settle();
    for _ in 0..2 {
        world.create_sandbox();
        world.settle();
    }
    assert_eq!(ready(&world), (ConditionStatus::False, "AtMaxSize"));
    world.resize(2, 4);
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::True, "PoolReady"));
}

#[test]
fn a_lowered_maximum_takes_idle_pods_and_no_assigned_one() {
    let mut world = World::new(3, 0);
    world.settle();
    for _ in 0..3 {
        world.create_sandbox();
    }
    world.settle();
    assert_eq!(world.warm_pods.len(), 6);
    world.resize(3, 4);
    world.settle();
    assert_eq!((world.warm_pods.len(), assignable(&world)), (4, 1));
}

fn with_script(world: &mut World, content: &str) {
    world.change_pool(|spec| {
        spec.preload_scripts = Some(vec![PreloadScript {
            name: Some("a".into()),
            content: Some(content.into()),
        }]);
    });
}

fn initialising(since: Timestamp, failed: Option<i32>) -> impl FnOnce(&mut PodView) {
    move |pod| {
        pod.init = Some(InitState {
            container: "preload-0".into(),
            since: Some(since),
            failed,
        });
    }
}

#[test]
fn a_failing_preload_is_named_with_its_container_and_exit_code() {
    let mut world = World::new(1, 0);
    with_script(&mut world, "exit 3");
    pass(&mut world, 2);
    let key = keys(&world)[0].clone();
    let now = world.now;
    world.change_pod(&key, initialising(now, Some(3)));
    pass(&mut world, 5);
    assert_eq!(ready(&world), (ConditionStatus::False, "PreloadFailed"));
    let message = condition(&world, "Ready").message.clone().unwrap();
    assert!(message.contains("exit code 3"), "{message}");
    let command = format!("kubectl logs {} -n ns -c preload-0", key.name);
    assert!(message.contains(&command), "{message}");
    with_script(&mut world, "exit 0");
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::True, "PoolReady"));
}

#[test]
fn a_preload_that_takes_too_long_is_given_up_and_tried_again_after_longer_and_longer_pauses() {
    let mut world = World::new(0, 0);
    with_script(&mut world, "sleep infinity");
    world.resize(1, 0);
    let mut made = Vec::new();
    let mut known: Vec<Key> = Vec::new();
    for _ in 0..2000 {
        world.come_to_rest();
        for key in keys(&world) {
            if !known.contains(&key) {
                known.push(key.clone());
                made.push(world.now);
                let now = world.now;
                world.change_pod(&key, initialising(now, None));
            }
        }
        world.advance(1000);
    }
    // The limit is 300 s; the pauses between are 10, 20, 40 s and so on.
    let gaps: Vec<i64> = made
        .windows(2)
        .map(|two| two[1].duration_since(two[0]).as_secs() - 300)
        .collect();
    assert_eq!(gaps.len(), 5);
    for (gap, pause) in gaps.iter().zip([10, 20, 40, 80, 160]) {
        assert!((pause..pause + 5).contains(gap), "{gaps:?}");
    }
    assert_eq!(ready(&world), (ConditionStatus::False, "PreloadTimedOut"));
    let message = condition(&world, "Ready").message.clone().unwrap();
    assert!(message.contains("preload-0"), "{message}");
    // A correction does not wait for the pause.
    let corrected = world.now;
    with_script(&mut world, "true");
    pass(&mut world, 5);
    let made = keys(&world);
    assert_eq!(made.len(), 1);
    let created = world.warm_pods[&made[0]].identity.created;
    assert!(created.duration_since(corrected) < SignedDuration::from_secs(4));
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::True, "PoolReady"));
}

#[test]
fn bad_preloads_are_refused_on_the_pool() {
    let mut world = World::new(1, 0);
    world.change_pool(|spec| spec.preload_packages = Some(vec!["--index-url=x".into()]));
    world.settle();
    assert_eq!(ready(&world), (ConditionStatus::False, "PreloadInvalid"));
    assert!(world.warm_pods.is_empty() || assignable(&world) == 1);
}

#[test]
fn a_pool_that_asks_for_thousands_takes_its_turn_like_all_others() {
    let mut world = World::with_refill(3, 0, 10);
    world.settle();
    // Its name comes first in every order of names.
    world.add_pool("a-greedy", 100_000, "64Mi");
    pass(&mut world, 5);
    let of =
        |world: &World, pool: &str| world.warm_pods.values().filter(|p| p.pool == pool).count();
    assert!(of(&world, "a-greedy") > 20);
    for key in keys(&world) {
        if world.warm_pods[&key].pool == "pool" {
            let pod = world.pods[&key].identity.key.clone();
            world.change_pod(&pod, |pod| {
                pod.ended = Some(Trouble::new("Evicted", "gone"));
            });
        }
    }
    pass(&mut world, 3);
    let live = |p: &&_| {
        let view: &pilotlight_scheduler::view::WarmPodView = p;
        view.pool == "pool" && view.claim == Claim::Free
    };
    assert_eq!(world.warm_pods.values().filter(live).count(), 3);
}
