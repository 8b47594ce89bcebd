//! Runtimes, profiles and RuntimeClasses: what is found out about them, and what a change of them does.

use pilotlight_common::kinds::{ProfileRef, SandboxProfileSpec, SecurityLevel};
use pilotlight_scheduler::action::Action;
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::Claim;
use proptest::prelude::*;

use super::world::World;
use super::world::runtimes::HIGH_CLASS;
use super::{idle, running};

const DAY: i64 = 24 * 3600 * 1000;

fn validates(world: &World) -> bool {
    world
        .under_way
        .iter()
        .any(|a| matches!(a, Action::Validate(_)))
}

fn said(available: bool, reason: &str) -> (Option<bool>, String) {
    (Some(available), reason.to_owned())
}

#[test]
fn a_pods_readiness_shows_that_its_runtime_works_without_a_pod_made_for_it() {
    let mut world = World::new(1, 0);
    for _ in 0..8 {
        world.deliver(usize::MAX);
        while !world.under_way.is_empty() {
            assert!(!validates(&world));
            world.carry_out(0, true);
        }
        for key in world.warm_pods.keys().cloned().collect::<Vec<_>>() {
            world.pod_becomes_ready(&key);
        }
        world.advance(500);
    }
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));
}

#[test]
fn a_runtime_that_nobody_uses_is_shown_to_work_by_a_pod_that_goes_again() {
    let mut world = World::new(0, 0);
    world.advance(4900);
    assert!(!validates(&world), "others may show it sooner");
    world.advance(200);
    assert!(validates(&world));
    world.settle();
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));
    assert!(world.trials().is_empty(), "the pod has shown what it can");
    let validated = |world: &World| world.runtimes["python"].object.status.clone();
    let first = validated(&world).unwrap().last_validated;
    world.advance(DAY / 2);
    assert!(!validates(&world));
    world.settle();
    assert_eq!(validated(&world).unwrap().last_validated, first);
    world.advance(DAY);
    assert!(validates(&world), "evidence is good for a day");
    world.settle();
    assert_ne!(validated(&world).unwrap().last_validated, first);
}

#[test]
fn an_image_that_cannot_be_had_is_said_to_be_so_and_tried_again_later_and_at_once_when_it_changes()
{
    let mut world = World::new(0, 0);
    world.break_image("image", "ImagePullFailed");
    world.settle();
    assert_eq!(world.available("python"), said(false, "ImagePullFailed"));
    assert!(
        world
            .recorded
            .contains(&("python".into(), "ImagePullFailed".into()))
    );
    world.mend_image("image");
    world.advance(3_600_000);
    world.settle();
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));

    world.break_image("other", "ContainerCrashing");
    world.change_runtime("python", |r| r.spec.image = "other".into());
    world.deliver(usize::MAX);
    while !world.under_way.is_empty() {
        world.carry_out(0, true);
    }
    assert_eq!(
        world.available("python"),
        (None, "Validating".to_owned()),
        "nothing is known of the new image"
    );
    world.settle();
    assert_eq!(world.available("python"), said(false, "ContainerCrashing"));
    world.change_runtime("python", |r| r.spec.image = "third".into());
    world.settle();
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));
    assert!(world.trials().is_empty());
}

#[test]
fn a_spec_that_nothing_can_run_is_said_to_be_invalid_and_mended_by_its_correction() {
    let mut world = World::new(0, 0);
    let set = |world: &mut World, min: &str| {
        let requirements = pilotlight_common::kinds::ResourceRequirements {
            min_cpu: Some(min.into()),
            ..Default::default()
        };
        world.change_runtime("python", |r| {
            r.spec.resource_requirements = Some(requirements);
        });
        world.settle();
    };
    set(&mut world, "much");
    assert_eq!(world.available("python"), said(false, "RuntimeInvalid"));
    set(&mut world, "1");
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));
}

#[test]
fn a_spec_that_is_what_it_was_again_finds_its_validation_pod_again() {
    let mut world = World::new(0, 0);
    world.advance(5100);
    while world.trials().is_empty() {
        assert!(validates(&world));
        world.carry_out(0, true);
    }
    world.deliver(usize::MAX);
    // Changed and changed back while nobody leads, so that nobody removes the pod in between.
    world.handle(Input::Leading(false));
    world.change_runtime("python", |r| r.spec.image = "another".into());
    world.deliver(usize::MAX);
    let trials = world.trials();
    assert_eq!(trials.len(), 1);
    world.pod_runs(&trials[0]);
    world.deliver(usize::MAX);
    world.change_runtime("python", |r| r.spec.image = "image".into());
    world.deliver(usize::MAX);
    world.handle(Input::Leading(true));
    world.settle();
    assert_eq!(world.available("python"), said(true, "PodBecameReady"));
    assert!(world.trials().is_empty(), "the pod has shown what it can");
}

#[test]
fn an_image_that_does_not_work_is_no_reason_to_refuse_a_sandbox() {
    let mut world = World::new(0, 1);
    world.break_image("image", "ImagePullFailed");
    world.settle();
    assert_eq!(world.available("python"), said(false, "ImagePullFailed"));
    world.mend_image("image");
    world.create_sandbox();
    world.settle();
    assert_eq!(running(&world), 1);
}

#[test]
fn a_validation_waits_for_the_end_of_a_burst() {
    let mut world = World::new(3, 0);
    world.settle();
    world.add_runtime("other", "other");
    world.deliver(usize::MAX);
    world.advance(4800);
    world.create_sandbox();
    world.deliver(usize::MAX);
    world.advance(300);
    assert!(!validates(&world), "an assignment is under way");
    world.settle();
    assert_eq!(world.available("other"), said(true, "PodBecameReady"));
}

#[test]
fn many_new_runtimes_are_validated_two_at_a_time() {
    let mut world = World::new(0, 0);
    for n in 0..7 {
        world.add_runtime(&format!("r{n}"), &format!("image-{n}"));
    }
    world.break_image("image-3", "ContainerNotCreated");
    // The world asserts at every step that there are no more than two.
    world.settle();
    world.settle();
    for n in 0..7 {
        let expected = if n == 3 {
            said(false, "ContainerNotCreated")
        } else {
            said(true, "PodBecameReady")
        };
        assert_eq!(world.available(&format!("r{n}")), expected, "{n}");
    }
}

#[test]
fn the_validation_pod_of_a_deleted_runtime_goes_and_its_users_are_told() {
    let mut world = World::new(2, 0);
    world.settle();
    let uid = world.create_sandbox();
    world.settle();
    world.add_runtime("other", "other");
    world.deliver(usize::MAX);
    world.advance(6000);
    while !world.under_way.is_empty() {
        world.carry_out(0, true);
    }
    assert_eq!(world.trials().len(), 1);
    world.delete_runtime("other");
    world.delete_runtime("python");
    world.settle();
    assert!(world.trials().is_empty());
    let sandbox = world.sandboxes[&uid].identity.key.name.clone();
    for user in ["pool".to_owned(), sandbox] {
        let told = (user, "RuntimeDeleted".to_owned());
        assert_eq!(world.recorded.iter().filter(|r| **r == told).count(), 1);
    }
    assert_eq!(
        (running(&world), idle(&world)),
        (1, 2),
        "what is there stays"
    );
}

#[test]
fn a_runtime_says_who_uses_it() {
    let mut world = World::new(1, 0);
    let in_use = |world: &World| {
        let condition = world.runtime_condition("python", "InUse").unwrap();
        let truth = format!("{:?}", condition.status);
        (truth, condition.message.unwrap_or_default())
    };
    world.settle();
    assert_eq!(
        in_use(&world),
        ("True".into(), "1 WarmPool, 0 Sandboxes".into())
    );
    let first = world.create_sandbox();
    world.create_sandbox();
    world.settle();
    assert_eq!(in_use(&world).1, "1 WarmPool, 2 Sandboxes");
    let pool = world.pool.identity.clone();
    world
        .undelivered
        .push_back(Input::Pool(Change::Remove(pool.key, pool.uid)));
    world.delete_sandbox(&first);
    world.settle();
    assert_eq!(in_use(&world).1, "0 WarmPools, 1 Sandbox");
    for uid in world.sandboxes.keys().cloned().collect::<Vec<_>>() {
        world.delete_sandbox(&uid);
    }
    world.settle();
    assert_eq!(in_use(&world).0, "False");
}

#[test]
fn a_change_of_profile_replaces_the_idle_pods_of_its_pools_and_no_assigned_one() {
    let profile = |memory: &str| SandboxProfileSpec {
        language: "python".into(),
        filesystem_config: Some(pilotlight_common::kinds::FilesystemConfig {
            writable_paths: Some(vec![memory.into()]),
            read_only_paths: None,
        }),
        ..Default::default()
    };
    let mut world = World::new(2, 0);
    world.set_profile("p", profile("/first"));
    let reference = ProfileRef {
        name: Some("p".into()),
        namespace: None,
    };
    world.pool.spec.profile_ref = Some(reference.clone());
    world.resize(2, 0);
    world.settle();
    world.create_sandbox_with(|spec| spec.profile_ref = Some(reference));
    world.settle();
    let shapes = |world: &World, free: bool| -> Vec<String> {
        let pods = world.warm_pods.values();
        pods.filter(|p| (p.claim == Claim::Free) == free)
            .map(|p| p.shape.clone())
            .collect()
    };
    let (idle_before, assigned_before) = (shapes(&world, true), shapes(&world, false));
    assert_eq!((running(&world), idle_before.len()), (1, 2));
    world.set_profile("p", profile("/second"));
    world.settle();
    assert_eq!(running(&world), 1);
    assert_eq!(
        shapes(&world, false),
        assigned_before,
        "the assigned pod stays as it is"
    );
    assert_eq!(idle(&world), 2);
    assert!(
        shapes(&world, true)
            .iter()
            .all(|s| !idle_before.contains(s))
    );
}

#[test]
fn a_profile_that_makes_no_sense_is_told_of_once_for_each_of_its_specs() {
    let mut world = World::new(0, 0);
    let told = |world: &mut World| {
        world.settle();
        let event = ("p".to_owned(), "ProfileInvalid".to_owned());
        world.recorded.iter().filter(|r| **r == event).count()
    };
    world.set_profile("p", SandboxProfileSpec::default());
    assert_eq!(told(&mut world), 1);
    world.set_profile("p", SandboxProfileSpec::default());
    assert_eq!(told(&mut world), 1, "nothing new");
    let mut spec = SandboxProfileSpec {
        language: "python".into(),
        ..Default::default()
    };
    world.set_profile("p", spec.clone());
    assert_eq!(told(&mut world), 1, "it is fine now");
    spec.resource_defaults = Some(pilotlight_common::kinds::ResourceDefaults {
        cpu: Some("much".into()),
        ..Default::default()
    });
    world.set_profile("p", spec);
    assert_eq!(told(&mut world), 2);
}

#[test]
fn level_high_waits_for_its_runtime_class_and_nothing_ends_when_that_goes() {
    let mut world = World::new(1, 0);
    world.pool.spec.security_level = Some(SecurityLevel::High);
    world.resize(1, 0);
    let uid = world.create_sandbox_with(|spec| spec.security_level = Some(SecurityLevel::High));
    world.settle();
    let ready = |world: &World| {
        let mut conditions = world.conditions(&uid).iter();
        let ready = conditions.find(|c| c.type_ == "Ready").unwrap();
        ready.reason.clone().unwrap_or_default()
    };
    assert_eq!(ready(&world), "RuntimeClassNotFound");
    world.add_runtime_class("another");
    world.settle();
    assert_eq!(running(&world), 0);
    world.add_runtime_class(HIGH_CLASS);
    world.settle();
    assert_eq!((running(&world), idle(&world)), (1, 1));
    world.delete_runtime_class(HIGH_CLASS);
    world.settle();
    assert_eq!((running(&world), idle(&world)), (1, 1));
    world.restart_scheduler();
    world.settle();
    assert_eq!((running(&world), idle(&world)), (1, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Delete(usize),
    Change(usize, usize),
    Break(usize),
    Mend(usize),
    PodRuns(usize),
    TrialDies(usize),
    Deliver(usize),
    CarryOut(usize, bool),
    Advance(i64),
    Lead(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..5).prop_map(Step::Add),
        1 => (0usize..5).prop_map(Step::Delete),
        2 => (0usize..5, 0usize..4).prop_map(|(r, i)| Step::Change(r, i)),
        1 => (0usize..4).prop_map(Step::Break),
        1 => (0usize..4).prop_map(Step::Mend),
        4 => (0usize..5).prop_map(Step::PodRuns),
        1 => (0usize..5).prop_map(Step::TrialDies),
        8 => (1usize..5).prop_map(Step::Deliver),
        8 => (0usize..10, prop::bool::weighted(0.8)).prop_map(|(n, answered)| Step::CarryOut(n, answered)),
        4 => prop::sample::select(vec![500i64, 3000, 11_000, 61_000, 301_000]).prop_map(Step::Advance),
        1 => any::<bool>().prop_map(Step::Lead),
        1 => Just(Step::Restart),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let runtime = |n: usize| format!("r{n}");
    let image = |n: usize| format!("image-{n}");
    match *step {
        Step::Add(n) => {
            if !world.runtimes.contains_key(&runtime(n)) {
                world.add_runtime(&runtime(n), &image(n % 4));
            }
        }
        Step::Delete(n) => world.delete_runtime(&runtime(n)),
        Step::Change(n, i) => world.change_runtime(&runtime(n), |r| r.spec.image = image(i)),
        Step::Break(i) => world.break_image(&image(i), "ImagePullFailed"),
        Step::Mend(i) => world.mend_image(&image(i)),
        Step::PodRuns(n) => {
            if let Some(key) = world.trials().get(n) {
                world.pod_runs(key);
            }
        }
        Step::TrialDies(n) => {
            if let Some(pod) = world.trials().get(n).and_then(|key| world.pods.remove(key)) {
                world.undelivered.push_back(Input::Pod(Change::Remove(
                    pod.identity.key,
                    pod.identity.uid,
                )));
            }
        }
        Step::Deliver(n) => world.deliver(n),
        Step::CarryOut(n, answered) => {
            let n = n % world.under_way.len().max(1);
            world.carry_out(n, answered);
        }
        Step::Advance(ms) => {
            // However late the watches are, they are not as late as that.
            if ms > 3000 {
                world.deliver(usize::MAX);
            }
            world.advance(ms);
        }
        Step::Lead(leading) => world.handle(Input::Leading(leading)),
        Step::Restart => world.restart_scheduler(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// The world asserts at every step that there are at most two validation pods, and none for an image that the
    /// scheduler was shown to work. Once the faults end, every runtime is said to be what it is, and no pod is left.
    #[test]
    fn after_any_history_every_runtime_is_said_to_be_what_it_is(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(0, 0);
        for step in &steps {
            apply(&mut world, step);
        }
        world.handle(Input::Leading(true));
        // What was put off is tried again within an hour.
        for _ in 0..3 {
            world.settle();
            world.advance(3_700_000);
        }
        world.settle();
        for name in world.runtimes.keys() {
            let image = &world.runtimes[name].object.spec.image;
            let broken = world.broken.contains_key(&pilotlight_common::resolve::image_hash(image, &[]));
            let (available, reason) = world.available(name);
            // One that was seen to work is believed for a day.
            if broken && available == Some(true) {
                continue;
            }
            prop_assert_eq!(available, Some(!broken), "{} {}", name, reason);
        }
        prop_assert!(world.trials().is_empty());
    }
}
