//! Seccomp profiles: who may name one and when, and which nodes take pods.

use pilotlight_common::kinds::{SeccompProfile, SeccompType, SecurityContext};
use pilotlight_seccomp::Profile;

use super::world::seccomp::PROFILE;
use super::world::{NODES, World};

fn file(name: &str) -> String {
    Profile::from_user(name, PROFILE.as_bytes())
        .map(|profile| profile.file_name())
        .unwrap_or_default()
}

fn asks_for(world: &mut World, profile: &str) -> String {
    world.create_sandbox_with(|spec| {
        spec.security_context = Some(SecurityContext {
            seccomp_profile: Some(SeccompProfile {
                type_: Some(SeccompType::Localhost),
                localhost_profile: Some(profile.to_owned()),
            }),
            ..SecurityContext::default()
        });
    })
}

/// Why a sandbox waits, in its own words.
fn why(world: &World, uid: &str) -> String {
    let conditions = &world.sandboxes[uid].conditions;
    let accepted = conditions.iter().find(|c| c.type_ == "Accepted");
    let reason = accepted.and_then(|c| c.reason.as_deref());
    assert_eq!(reason, Some("SeccompProfileUnknown"));
    accepted.and_then(|c| c.message.clone()).unwrap_or_default()
}

#[test]
fn a_users_profile_can_be_named_once_every_node_has_it() {
    let mut world = World::new(0, 0);
    world.settle();
    let uid = asks_for(&mut world, "team-a");
    world.settle();
    assert!(why(&world, &uid).contains("there is no seccomp profile"));

    world.put_seccomp_map("team-a", &[("team-a.json", &PROFILE)]);
    assert_eq!(world.profiles_told().unwrap()[0].name, "team-a");
    world.settle();
    assert!(why(&world, &uid).contains("0 of 2 nodes"));
    world.install(NODES[0], &file("team-a"));
    world.settle();
    assert!(world.sandboxes[&uid].pod_name.is_none());
    world.install(NODES[1], &file("team-a"));
    world.settle();
    let pod = world.sandboxes[&uid].pod_name.clone();
    assert!(pod.is_some(), "{:?}", world.sandboxes[&uid].conditions);
}

#[test]
fn a_node_without_an_agent_holds_nobody_up() {
    let mut world = World::new(0, 0);
    world.settle();
    world.stream_down(NODES[1]);
    world.advance(600);
    assert_eq!(world.take_labels(), [(NODES[1].to_owned(), false)]);
    world.show_label(NODES[1], false);
    let uid = asks_for(&mut world, "team-a");
    world.put_seccomp_map("team-a", &[("team-a.json", &PROFILE)]);
    world.install(NODES[0], &file("team-a"));
    world.settle();
    assert!(world.sandboxes[&uid].pod_name.is_some());
}

#[test]
fn a_node_has_its_label_only_while_it_has_every_profile() {
    let mut world = World::new(0, 0);
    world.put_seccomp_map("team-a", &[("team-a.json", &PROFILE)]);
    world.install(NODES[0], &file("team-a"));
    world.install(NODES[1], &file("team-a"));
    world.settle();
    assert_eq!(world.take_labels(), []);
    // A file was deleted by hand, and cannot be repaired.
    world.installed.clear();
    world.report(NODES[0]);
    assert_eq!(world.take_labels(), [(NODES[0].to_owned(), false)]);
}

#[test]
fn a_node_loses_its_label_soon_after_its_agent_and_not_for_a_new_connection() {
    let mut world = World::new(0, 0);
    world.settle();
    world.stream_down(NODES[0]);
    world.advance(300);
    world.stream_up(NODES[0]);
    world.advance(1000);
    assert_eq!(world.take_labels(), []);
    world.stream_down(NODES[0]);
    world.advance(501);
    assert_eq!(world.take_labels(), [(NODES[0].to_owned(), false)]);
}

#[test]
fn after_a_restart_of_the_scheduler_what_was_usable_is_usable_at_once() {
    let mut world = World::new(2, 0);
    world.put_seccomp_map("team-a", &[("team-a.json", &PROFILE)]);
    for node in NODES {
        world.install(node, &file("team-a"));
    }
    let uid = asks_for(&mut world, "team-a");
    world.restart_scheduler();
    world.settle();
    assert!(world.sandboxes[&uid].pod_name.is_some());
    assert_eq!(world.take_labels(), []);
}

#[test]
fn what_is_no_profile_is_told_once_on_its_config_map_and_to_those_who_name_it() {
    let mut world = World::new(0, 0);
    let uid = asks_for(&mut world, "team-a");
    for _ in 0..3 {
        world.put_seccomp_map(
            "mine",
            &[
                ("team-a.json", "{}"),
                ("notes", &PROFILE),
                ("go.json", &PROFILE),
            ],
        );
        world.settle();
    }
    assert!(world.profiles_told().unwrap_or_default().is_empty());
    let told = |world: &World| {
        let invalid = |(_, reason): &&(String, String)| reason == "SeccompProfileInvalid";
        world.recorded.iter().filter(invalid).count()
    };
    assert_eq!(told(&world), 3, "{:?}", world.recorded);
    assert!(why(&world, &uid).contains("ConfigMap system/mine is refused"));
    world.put_seccomp_map("mine", &[("team-a.json", "null")]);
    world.settle();
    assert_eq!(told(&world), 4, "another fault");
    world.delete_seccomp_map("mine");
    world.settle();
    assert!(why(&world, &uid).contains("there is no seccomp profile"));
}

#[test]
fn of_two_profiles_of_one_name_the_elder_stands() {
    let other = PROFILE.replace("\"getrandom\",", "");
    let mut world = World::new(0, 0);
    world.put_seccomp_map("elder", &[("team-a.json", &PROFILE)]);
    world.advance(1000);
    world.put_seccomp_map("an-heir", &[("team-a.json", &other)]);
    let told = world.profiles_told().unwrap();
    assert_eq!((told.len(), told[0].json.as_str()), (1, PROFILE.as_str()));
    world.delete_seccomp_map("elder");
    assert_eq!(world.profiles_told().unwrap()[0].json, other);
}
