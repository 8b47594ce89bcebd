//! Sandboxes that ask for CPUs of their own.

use std::net::SocketAddr;

use jiff::Timestamp;
use pilotlight_common::stream::{Assignment, StreamMessage};

use super::super::fixtures::{assignment, at, confined, facts, uid};
use super::super::types::{Attempt, Event, Now, Outcome};
use super::super::{State, key};
use super::*;
use crate::protocol::PodInspection;

fn replica() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8443))
}

fn pinned_assignment() -> Assignment {
    Assignment {
        cpus: 2,
        ..assignment(1, 1)
    }
}

fn cpus() -> CpuSet {
    CpuSet::parse("2-3").unwrap()
}

fn inspection(pin: Option<bool>) -> PodInspection {
    PodInspection {
        pin: pin.map(|intact| Pin {
            pod: uid(1),
            cpus: cpus(),
            intact,
        }),
        ..confined(1)
    }
}

/// An agent with pod 1 prepared.
struct Agent(State, Time);

impl Agent {
    fn new() -> Self {
        let mut agent = Self(State::default(), at(20));
        agent.event(Event::PodsListed([].into()));
        agent.event(Event::Sampled(Ok(vec![])));
        agent.event(Event::Cpus(Ok(CpuState {
            free: 6,
            capacity: 6,
            core: 2,
            ..CpuState::default()
        })));
        agent.hear(StreamMessage::Snapshot {
            profiles: vec![],
            assignments: vec![],
        });
        agent.event(Event::Pod(Box::new(facts(1))));
        agent.event(Event::Inspected(Ok(vec![confined(1)])));
        agent
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let now = Now {
            time: self.1,
            wall: Timestamp::UNIX_EPOCH,
        };
        self.0.step(event, now)
    }

    fn hear(&mut self, message: StreamMessage) -> Vec<Action> {
        self.event(Event::Stream(replica(), message))
    }

    fn assign(&mut self) -> Vec<Action> {
        self.hear(StreamMessage::Assign {
            assignment: pinned_assignment(),
        })
    }

    fn pinned(&mut self, answer: Result<PinAnswer, String>) -> Vec<Action> {
        self.event(Event::Pinned(key(&pinned_assignment()), answer))
    }

    fn refuse(&mut self, reason: PinRefusal) -> Vec<Action> {
        self.pinned(Ok(PinAnswer::Refused {
            reason,
            message: "why".into(),
        }))
    }

    fn granted(&mut self) -> Vec<Action> {
        self.pinned(Ok(PinAnswer::Granted(cpus())))
    }

    fn published(&mut self) -> Vec<Action> {
        self.event(Event::Attempted(
            key(&pinned_assignment()),
            Attempt::Published,
        ))
    }

    fn refusals(&self) -> Vec<AgentRefusal> {
        let refused = self.0.report().refused;
        refused.into_iter().map(|refused| refused.reason).collect()
    }

    /// The condition that is written because of an event: its status and reason.
    fn condition(&mut self, event: Event) -> Option<(bool, &'static str)> {
        self.event(event)
            .into_iter()
            .find_map(|action| match action {
                Action::Write(Write::Condition { status, reason, .. }) => Some((status, reason)),
                _ => None,
            })
    }
}

fn question() -> Action {
    Action::Pin {
        key: key(&pinned_assignment()),
        pod: uid(1),
        cpus: 2,
    }
}

fn is_publication(action: &Action) -> bool {
    matches!(action, Action::Publish(..))
}

#[test]
fn the_cpus_come_first_and_the_publication_says_which() {
    let mut agent = Agent::new();
    let actions = agent.assign();
    assert_eq!(actions[0], question());
    assert!(!actions.iter().any(is_publication));
    let actions = agent.granted();
    assert_eq!(
        actions[0],
        Action::Publish(pinned_assignment(), Some(cpus()))
    );
    // The report knows at once, and asks again to be exact.
    let report = agent.0.report().cpus;
    assert_eq!((report.free, report.pinned), (4, vec![uid(1).to_string()]));
    assert!(actions.contains(&Action::Cpus));
    let actions = agent.published();
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Write(Write::Cpus { .. })))
    );
}

#[test]
fn a_sandbox_that_asks_for_none_is_not_delayed() {
    let mut agent = Agent::new();
    let actions = agent.hear(StreamMessage::Assign {
        assignment: assignment(1, 1),
    });
    assert_eq!(actions[0], Action::Publish(assignment(1, 1), None));
}

#[test]
fn without_cpus_the_assignment_is_given_back_at_once() {
    for reason in [PinRefusal::NoCpus, PinRefusal::Unavailable] {
        let mut agent = Agent::new();
        agent.assign();
        let actions = agent.refuse(reason);
        assert!(!actions.iter().any(is_publication));
        assert_eq!(agent.refusals(), [AgentRefusal::CpusUnavailable]);
        assert_eq!(agent.0.report().refused[0].message, "why");
    }
}

#[test]
fn what_may_pass_is_tried_again_and_not_for_ever() {
    let mut agent = Agent::new();
    assert!(agent.assign().contains(&question()));
    for try_ in 1..=TRIES {
        assert!(agent.refusals().is_empty(), "{try_}");
        assert!(agent.1 < at(25), "{try_}");
        let answer = if try_ % 2 == 0 {
            agent.pinned(Err("down".into()))
        } else {
            agent.refuse(PinRefusal::Failed)
        };
        assert!(!answer.contains(&question()), "not at once");
        agent.1 = agent.0.wake();
        let again = agent.event(Event::Wake);
        assert_eq!(again.contains(&question()), try_ < TRIES, "{try_}");
    }
    assert_eq!(agent.refusals(), [AgentRefusal::CpusUnavailable]);
}

#[test]
fn what_was_released_meanwhile_is_not_published() {
    let mut agent = Agent::new();
    agent.assign();
    agent.hear(StreamMessage::Snapshot {
        profiles: vec![],
        assignments: vec![],
    });
    assert!(!agent.granted().iter().any(is_publication));
}

#[test]
fn a_pod_that_ended_while_its_cpus_were_given_is_not_published() {
    let mut agent = Agent::new();
    agent.assign();
    let mut ending = facts(1);
    ending.terminating = true;
    agent.event(Event::Pod(Box::new(ending)));
    assert!(!agent.granted().iter().any(is_publication));
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
}

#[test]
fn a_restarted_agent_learns_the_cpus_of_what_is_published_and_sets_the_status_right() {
    let mut agent = Agent::new();
    agent.hear(StreamMessage::Snapshot {
        profiles: vec![],
        assignments: vec![pinned_assignment()],
    });
    let actions = agent.published();
    assert!(actions.contains(&question()));
    let actions = agent.granted();
    assert!(!actions.iter().any(is_publication));
    let write = Write::Cpus {
        sandbox: pinned_assignment().sandbox,
        pod: facts(1).pod,
        cpus: cpus(),
    };
    assert!(actions.contains(&Action::Write(write.clone())));
    agent.event(Event::Wrote(write.clone(), Outcome::Failed));
    agent.1 += at(1);
    assert!(
        agent
            .event(Event::Wake)
            .contains(&Action::Write(write.clone()))
    );
    agent.event(Event::Wrote(write.clone(), Outcome::Done));
    agent.1 += at(60);
    assert!(!agent.event(Event::Wake).contains(&Action::Write(write)));
}

#[test]
fn a_sandbox_whose_cpus_are_lost_is_not_prepared_until_they_are_back() {
    let mut agent = Agent::new();
    agent.assign();
    agent.granted();
    agent.published();
    agent.event(Event::Inspected(Ok(vec![inspection(Some(true))])));
    let lost = Some((false, "CpusLost"));
    assert_eq!(
        agent.condition(Event::Inspected(Ok(vec![inspection(Some(false))]))),
        None,
        "the first condition is still being written"
    );
    let written = Write::Condition {
        pod: facts(1).pod,
        status: true,
        reason: "Prepared",
        message: String::new(),
    };
    assert_eq!(agent.condition(Event::Wrote(written, Outcome::Done)), lost);
    // It is looked at again soon.
    agent.1 += at(5);
    let looked = agent.event(Event::Wake);
    assert!(looked.contains(&Action::Inspect(vec![uid(1)])));
}

#[test]
fn a_pod_that_never_asked_is_not_held_to_it() {
    let mut agent = Agent::new();
    agent.event(Event::Inspected(Ok(vec![inspection(None)])));
    let actions = agent.hear(StreamMessage::Assign {
        assignment: assignment(1, 1),
    });
    assert!(actions.iter().any(is_publication));
}

#[test]
fn while_somebody_has_cpus_it_is_asked_more_often_what_is_free() {
    let mut agent = Agent::new();
    let pins = vec![Pin {
        pod: uid(1),
        cpus: cpus(),
        intact: true,
    }];
    let asked = |agent: &mut Agent, wait| {
        agent.1 += wait;
        agent.event(Event::Wake).contains(&Action::Cpus)
    };
    assert!(asked(&mut agent, IDLE_INTERVAL));
    agent.event(Event::Cpus(Ok(CpuState::default())));
    assert!(!asked(&mut agent, BUSY_INTERVAL));
    assert!(asked(&mut agent, IDLE_INTERVAL));
    agent.event(Event::Cpus(Ok(CpuState {
        pins,
        ..CpuState::default()
    })));
    assert!(asked(&mut agent, BUSY_INTERVAL));
}
