//! Sandboxes that NetworkPolicies keep to their rules, against a small cluster in memory.

mod world;

use pilotlight_common::kinds::{EgressRule, NetworkAccess, SandboxPhase};
use world::World;

fn one_running(world: &mut World, access: Option<NetworkAccess>) -> (String, String) {
    world.settle();
    let uid = world.create_sandbox_with(|spec| spec.network_access = access);
    world.pass(4);
    assert_eq!(world.sandboxes[&uid].phase, Some(SandboxPhase::Running));
    let pod = world.sandboxes[&uid].pod_name.clone().unwrap_or_default();
    (uid, pod)
}

fn ingress(open: bool) -> NetworkAccess {
    NetworkAccess {
        egress: None,
        ingress: Some(open),
    }
}

#[test]
fn a_policy_is_written_for_a_sandbox_with_rules_and_follows_its_edits() {
    let mut world = World::with_network_policies(2, 0);
    let (uid, pod) = one_running(&mut world, Some(ingress(true)));
    assert_eq!(world.policies[&pod].ingress.len(), 2);
    world.edit(&uid, |spec| spec.network_access = Some(ingress(false)));
    world.pass(4);
    assert!(world.policies[&pod].is_empty());
}

#[test]
fn a_sandbox_without_rules_costs_no_write_and_the_namespace_denies_it_everything() {
    let mut world = World::with_network_policies(2, 0);
    one_running(&mut world, None);
    assert!(world.policies.is_empty());
}

#[test]
fn a_new_leader_writes_what_an_edit_took_away_in_between() {
    let mut world = World::with_network_policies(2, 0);
    let (uid, pod) = one_running(&mut world, Some(ingress(true)));
    world.edit(&uid, |spec| spec.network_access = None);
    world.undelivered.clear();
    world.restart_scheduler();
    world.pass(4);
    assert!(world.policies[&pod].is_empty());
}

#[test]
fn where_agents_keep_the_rules_no_policy_is_written() {
    let mut world = World::new(2, 0);
    one_running(&mut world, Some(ingress(true)));
    assert!(world.policies.is_empty());
}

#[test]
fn a_domain_is_refused_with_the_way_out() {
    let mut world = World::with_network_policies(2, 0);
    world.settle();
    let uid = world.create_sandbox_with(|spec| {
        spec.network_access = Some(NetworkAccess {
            egress: Some(vec![EgressRule {
                domain: "example.org".to_owned(),
                ports: None,
            }]),
            ingress: None,
        });
    });
    world.pass(4);
    assert_eq!(
        world.condition(&uid, "Accepted"),
        (false, "NetworkNamesUnavailable")
    );
}
