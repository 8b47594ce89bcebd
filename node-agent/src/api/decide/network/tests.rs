use pilotlight_common::network::{NamePattern, NameRule, NetworkRules, RulesDigest};
use pilotlight_common::stream::{Assignment, StreamMessage};

use super::super::fixtures::{assignment, at, confined, facts, uid};
use super::super::{Event, Now, State, Write, key};
use super::*;
use crate::api::decide::{Attempt, Outcome};
use crate::api::dns::RefusedName;
use crate::network_protocol::Backend;

fn rules(name: &str) -> NetworkRules {
    NetworkRules {
        names: [NameRule {
            name: NamePattern::parse(name).unwrap(),
            ports: BTreeSet::new(),
        }]
        .into(),
        ..NetworkRules::default()
    }
}

fn with_rules(name: &str) -> Assignment {
    Assignment {
        network: rules(name),
        ..assignment(1, 1)
    }
}

/// An agent with pod 1, whose processes are confined.
struct Agent(State, Time);

impl Agent {
    fn new() -> (Self, Vec<Action>) {
        let mut agent = Self(State::new(true), at(20));
        agent.event(Event::PodsListed([].into()));
        agent.event(Event::Sampled(Ok(vec![])));
        agent.stream(StreamMessage::Snapshot {
            profiles: vec![],
            assignments: vec![],
        });
        let mut actions = agent.event(Event::Pod(Box::new(facts(1))));
        actions.extend(agent.event(Event::Inspected(Ok(vec![confined(1)]))));
        (agent, actions)
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let now = Now {
            time: self.1,
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        self.0.step(event, now)
    }

    fn stream(&mut self, message: StreamMessage) -> Vec<Action> {
        let replica = ([10, 0, 0, 1], 8443).into();
        self.event(Event::Stream(replica, message))
    }

    fn armed(&mut self, connection: u64, digest: RulesDigest) -> Vec<Action> {
        self.event(Event::Network(NetworkAnswer::Armed {
            pod: uid(1),
            connection,
            result: Ok(Armed {
                backend: Backend::Pod,
                digest,
            }),
        }))
    }

    fn arming_failed(&mut self, reason: NetworkProblem) -> Vec<Action> {
        self.event(Event::Network(NetworkAnswer::Armed {
            pod: uid(1),
            connection: 0,
            result: Err(NetworkFailure {
                reason,
                message: "why".to_owned(),
            }),
        }))
    }

    fn configured(&mut self, digest: RulesDigest) -> Vec<Action> {
        self.event(Event::Network(NetworkAnswer::Configured {
            pod: uid(1),
            connection: 0,
            result: Ok(digest),
        }))
    }

    fn assign(&mut self, assignment: Assignment) -> Vec<Action> {
        self.stream(StreamMessage::Assign { assignment })
    }

    /// Pod 1 is published with rules.
    fn published(&mut self, name: &str) {
        // After the first comparison was asked.
        self.1 = at(21);
        self.armed(0, RulesDigest::FRESH);
        self.assign(with_rules(name));
        self.event(Event::Attempted(key(&assignment(1, 1)), Attempt::Published));
        self.configured(rules(name).digest());
    }
}

fn arms(actions: &[Action]) -> bool {
    actions.contains(&Action::Network(NetworkAsk::Arm(uid(1))))
}

fn configures(actions: &[Action], name: &str) -> bool {
    actions.iter().any(
        |action| matches!(action, Action::Network(NetworkAsk::Configure(_, new)) if **new == rules(name)),
    )
}

fn publishes(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Publish(..)))
}

fn condition(actions: &[Action]) -> Option<(bool, &'static str)> {
    actions.iter().find_map(|action| match action {
        Action::Write(Write::Condition { status, reason, .. }) => Some((*status, *reason)),
        _ => None,
    })
}

#[test]
fn a_pod_is_armed_before_it_is_prepared() {
    let (mut agent, actions) = Agent::new();
    assert!(arms(&actions));
    assert_eq!(condition(&actions), None);
    assert!(!publishes(&agent.assign(with_rules("example.com"))));
    let actions = agent.armed(0, RulesDigest::FRESH);
    assert_eq!(condition(&actions), Some((true, "Prepared")));
    assert!(publishes(&actions) && configures(&actions, "example.com"));
}

#[test]
fn a_pod_is_not_armed_while_its_init_containers_install_what_it_needs() {
    let mut agent = Agent(State::new(true), at(20));
    agent.event(Event::PodsListed([].into()));
    let mut starting = facts(1);
    starting.initialized = false;
    assert!(!arms(&agent.event(Event::Pod(Box::new(starting)))));
    assert!(arms(&agent.event(Event::Pod(Box::new(facts(1))))));
}

#[test]
fn a_sandbox_without_rules_costs_no_question() {
    let (mut agent, _) = Agent::new();
    agent.armed(0, RulesDigest::FRESH);
    let actions = agent.assign(assignment(1, 1));
    assert!(publishes(&actions));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Network(_)))
    );
}

#[test]
fn an_edit_is_put_in_force_at_once_and_once() {
    let (mut agent, _) = Agent::new();
    agent.published("example.com");
    let edit = || StreamMessage::Network {
        owner: assignment(1, 1).owner,
        sandbox_uid: assignment(1, 1).sandbox.uid,
        rules: rules("example.org"),
    };
    assert!(configures(&agent.stream(edit()), "example.org"));
    assert!(!configures(&agent.stream(edit()), "example.org"));
    let actions = agent.configured(rules("example.org").digest());
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Network(NetworkAsk::Configure(..))))
    );
}

#[test]
fn after_a_restart_of_network_every_pod_is_armed_again_and_told_its_rules() {
    let (mut agent, _) = Agent::new();
    agent.published("example.com");
    let actions = agent.event(Event::NetworkLost(0));
    assert!(arms(&actions));
    // It may be back in a moment: nothing is taken back before.
    assert_eq!(condition(&actions), None);
    // An answer of the connection that ended says nothing.
    let actions = agent.armed(0, RulesDigest::FRESH);
    assert!(arms(&actions) && !configures(&actions, "example.com"));
    assert!(configures(
        &agent.armed(1, rules("example.com").digest()),
        "example.com"
    ));
}

#[test]
fn a_pod_that_stays_unarmed_says_so_and_says_why() {
    let (mut agent, _) = Agent::new();
    assert_eq!(
        condition(&agent.arming_failed(NetworkProblem::Failed)),
        None
    );
    assert!(agent.0.wake() <= at(30));
    agent.1 = at(31);
    let actions = agent.event(Event::Wake);
    assert_eq!(condition(&actions), Some((false, "NetworkNotArmed")));
}

#[test]
fn a_pod_that_can_never_be_armed_says_so_at_once() {
    let (mut agent, _) = Agent::new();
    let actions = agent.arming_failed(NetworkProblem::HostNetwork);
    assert_eq!(condition(&actions), Some((false, "NetworkNotArmed")));
    agent.assign(assignment(1, 1));
    assert_eq!(agent.0.report().refused[0].message, "why");
}

#[test]
fn a_table_that_remembers_another_sandbox_is_not_given_to_a_second() {
    let (mut agent, _) = Agent::new();
    agent.armed(0, rules("example.org").digest());
    assert!(!publishes(&agent.assign(with_rules("example.com"))));
    assert!(
        agent.0.report().refused[0]
            .message
            .contains("another sandbox")
    );
}

#[test]
fn a_network_that_was_made_anew_is_found_and_armed() {
    let (mut agent, _) = Agent::new();
    agent.published("example.com");
    let nothing = || {
        Event::Network(NetworkAnswer::Checked {
            connection: 0,
            result: Ok(vec![]),
            refused: vec![],
        })
    };
    agent.event(nothing());
    agent.1 = at(25);
    let mut restarted = facts(1);
    restarted.running = ["c2".to_owned()].into();
    let actions = agent.event(Event::Pod(Box::new(restarted)));
    // Long before the next one is due.
    let check = NetworkAsk::Check([uid(1)].into());
    assert!(actions.contains(&Action::Network(check)));
    assert!(arms(&agent.event(nothing())));
}

#[test]
fn a_table_that_somebody_changed_gets_its_rules_again() {
    let (mut agent, _) = Agent::new();
    agent.published("example.com");
    agent.1 = at(40);
    // The question was older than the arming; the next one is not.
    agent.event(Event::Network(NetworkAnswer::Checked {
        connection: 0,
        result: Ok(vec![]),
        refused: vec![],
    }));
    let actions = agent.event(Event::Network(NetworkAnswer::Checked {
        connection: 0,
        result: Ok(vec![PodNetwork {
            pod: uid(1),
            digest: RulesDigest::FRESH,
            intact: false,
            refused_out: 3,
            dropped_in: 4,
            message: String::new(),
        }]),
        refused: vec![],
    }));
    assert!(configures(&actions, "example.com"));
    let summary = agent.0.summary();
    assert_eq!(
        (
            summary.armed,
            summary.network_refused_out,
            summary.network_dropped_in
        ),
        (1, 3, 4)
    );
}

#[test]
fn a_user_is_told_what_was_refused_and_not_more_often_than_twice_a_minute() {
    let (mut agent, _) = Agent::new();
    let checked = |name: &str, packets| {
        let refused = RefusedName {
            name: name.to_owned(),
            times: 1,
        };
        Event::Network(NetworkAnswer::Checked {
            connection: 0,
            result: Ok(vec![PodNetwork {
                pod: uid(1),
                digest: rules("example.com").digest(),
                intact: true,
                refused_out: packets,
                dropped_in: 0,
                message: String::new(),
            }]),
            refused: vec![(uid(1), vec![refused])],
        })
    };
    let told = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Write(write @ Write::Blocked { names, packets, .. }) => {
                let names: Vec<_> = names.iter().map(|name| name.name.clone()).collect();
                Some((write.clone(), names.join(" "), *packets))
            }
            _ => None,
        })
    };
    // What was asked before the pod served anybody is told to nobody.
    agent.event(checked("early.org", 2));
    agent.published("example.com");
    assert_eq!(told(&agent.event(Event::Wake)), None);
    let (write, names, packets) = told(&agent.event(checked("a.org", 5))).unwrap();
    assert_eq!((names.as_str(), packets), ("a.org", 3));
    agent.event(Event::Wrote(write, Outcome::Done));
    agent.1 = at(45);
    assert_eq!(told(&agent.event(checked("b.org", 5))), None);
    agent.1 = at(60);
    let (write, names, packets) = told(&agent.event(Event::Wake)).unwrap();
    assert_eq!((names.as_str(), packets), ("b.org a.org", 3));
    agent.event(Event::Wrote(write, Outcome::Failed));
    agent.1 = at(62);
    assert!(told(&agent.event(Event::Wake)).is_some());
}

#[test]
fn a_pod_whose_containers_changed_while_it_was_armed_is_looked_at_again() {
    let (mut agent, _) = Agent::new();
    agent.1 = at(21);
    let mut started = facts(1);
    started.running = ["c2".to_owned()].into();
    agent.event(Event::Pod(Box::new(started)));
    agent.event(Event::Network(NetworkAnswer::Checked {
        connection: 0,
        result: Ok(vec![]),
        refused: vec![],
    }));
    // Found before its runtime took its addresses, perhaps.
    let actions = agent.armed(0, RulesDigest::FRESH);
    let check = NetworkAsk::Check([uid(1)].into());
    assert!(actions.contains(&Action::Network(check)));
    assert_eq!(agent.0.summary().armed, 0);
    let actions = agent.event(Event::Network(NetworkAnswer::Checked {
        connection: 0,
        result: Ok(vec![]),
        refused: vec![],
    }));
    assert!(arms(&actions));
}
