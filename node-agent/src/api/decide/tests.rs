//! What the agent does in the situations that have a name.

use std::net::SocketAddr;

use pilotlight_common::names::OwnerKind;
use pilotlight_common::stream::{AgentRefusal, StreamMessage};

use super::fixtures::{assignment, at, confined, facts, uid};
use super::*;
use crate::protocol::{CheckedProfiles, PodUsage, UserProfile};

/// A state driven by hand.
struct Agent {
    state: State,
    time: Time,
}

fn replica() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8443))
}

impl Agent {
    /// Past its youth, with pods listed and `host` answering.
    fn new() -> Self {
        let mut agent = Self::starting();
        agent.time = at(20);
        agent.event(Event::PodsListed([].into()));
        agent.event(Event::Sampled(Ok(vec![])));
        agent.event(Event::ProfilesChecked(Ok(CheckedProfiles::default())));
        agent.event(Event::Stream(
            replica(),
            StreamMessage::Snapshot {
                assignments: vec![],
                profiles: vec![],
            },
        ));
        agent
    }

    fn starting() -> Self {
        Self {
            state: State::default(),
            time: at(0),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        // The wall clock of a test stands where assignments are made, so that none is old.
        let now = Now {
            time: self.time,
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        self.state.step(event, now)
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.time += time;
        self.event(Event::Wake)
    }

    fn assign(&mut self, pod: u8, sandbox: u8) -> Vec<Action> {
        self.event(Event::Stream(
            replica(),
            StreamMessage::Assign {
                assignment: assignment(pod, sandbox),
            },
        ))
    }

    fn snapshot(&mut self, assignments: Vec<Assignment>) -> Vec<Action> {
        self.event(Event::Stream(
            replica(),
            StreamMessage::Snapshot {
                assignments,
                profiles: vec![],
            },
        ))
    }

    fn prepare(&mut self, pod: u8) -> Vec<Action> {
        self.event(Event::Pod(Box::new(facts(pod))));
        self.event(Event::Inspected(Ok(vec![confined(pod)])))
    }

    fn attempted(&mut self, pod: u8, sandbox: u8, attempt: Attempt) -> Vec<Action> {
        let key = key(&assignment(pod, sandbox));
        self.event(Event::Attempted(key, attempt))
    }

    fn refusals(&self) -> Vec<AgentRefusal> {
        let refused = self.state.report().refused;
        refused.into_iter().map(|r| r.reason).collect()
    }
}

fn publishes(actions: &[Action]) -> usize {
    let count = |action: &&Action| matches!(action, Action::Publish(..));
    actions.iter().filter(count).count()
}

fn looks(actions: &[Action]) -> usize {
    let count = |action: &&Action| matches!(action, Action::Look(_));
    actions.iter().filter(count).count()
}

#[test]
fn an_assignment_to_a_prepared_pod_is_published_in_the_same_step() {
    let mut agent = Agent::new();
    agent.prepare(1);
    let actions = agent.assign(1, 1);
    assert_eq!(actions[0], Action::Publish(assignment(1, 1), None));
    let actions = agent.attempted(1, 1, Attempt::Published);
    assert!(matches!(actions[0], Action::CountPublished(_)));
    // Said again by anybody, it is not written again.
    assert_eq!(publishes(&agent.assign(1, 1)), 0);
    assert_eq!(looks(&agent.snapshot(vec![assignment(1, 1)])), 0);
}

#[test]
fn a_pod_that_comes_up_is_looked_at_at_once_and_written_ready() {
    let mut agent = Agent::new();
    let actions = agent.event(Event::Pod(Box::new(facts(1))));
    assert!(actions.contains(&Action::Inspect(vec![uid(1)])));
    let actions = agent.event(Event::Inspected(Ok(vec![confined(1)])));
    let written: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Write(write) => Some(write),
            _ => None,
        })
        .collect();
    assert!(matches!(written[0], Write::Condition { status: true, .. }));
    assert!(matches!(written[1], Write::WarmPod { ready: true, .. }));
}

#[test]
fn what_comes_in_the_first_snapshot_is_read_before_it_is_written() {
    let mut agent = Agent::starting();
    let actions = agent.snapshot(vec![assignment(1, 1), assignment(2, 2)]);
    assert_eq!((looks(&actions), publishes(&actions)), (2, 0));
    agent.attempted(1, 1, Attempt::Published);
    agent.attempted(2, 2, Attempt::Unpublished);
    agent.event(Event::Sampled(Ok(vec![])));
    agent.event(Event::Pod(Box::new(facts(1))));
    agent.event(Event::Pod(Box::new(facts(2))));
    agent.event(Event::PodsListed([uid(1), uid(2)].into()));
    let actions = agent.event(Event::Inspected(Ok(vec![confined(1), confined(2)])));
    let published: Vec<_> = actions
        .iter()
        .filter(|action| matches!(action, Action::Publish(..)))
        .collect();
    assert_eq!(published, [&Action::Publish(assignment(2, 2), None)]);
}

#[test]
fn an_old_assignment_is_read_before_it_is_written() {
    let mut agent = Agent::new();
    agent.prepare(1);
    let mut old = assignment(1, 1);
    old.assigned_at = jiff::Timestamp::from_second(-60).unwrap();
    let actions = agent.event(Event::Stream(
        replica(),
        StreamMessage::Assign { assignment: old },
    ));
    assert_eq!((looks(&actions), publishes(&actions)), (1, 0));
}

#[test]
fn a_failed_publication_is_read_before_it_is_repeated() {
    let mut agent = Agent::new();
    agent.prepare(1);
    agent.assign(1, 1);
    assert_eq!(looks(&agent.attempted(1, 1, Attempt::Failed)), 0);
    assert_eq!(looks(&agent.wait(Duration::from_millis(50))), 1);
    assert_eq!(publishes(&agent.attempted(1, 1, Attempt::Unpublished)), 1);
    agent.attempted(1, 1, Attempt::Failed);
    agent.event(Event::Stream(
        replica(),
        StreamMessage::Release {
            owner: assignment(1, 1).owner,
            sandbox_uid: "sandbox-1".into(),
        },
    ));
    let actions = agent.wait(at(10));
    assert_eq!((looks(&actions), publishes(&actions)), (0, 0));
}

#[test]
fn a_pod_that_the_watch_shows_late_is_waited_for() {
    let mut agent = Agent::new();
    assert_eq!(publishes(&agent.assign(1, 1)), 0);
    agent.time += Duration::from_millis(1500);
    let actions = agent.prepare(1);
    assert_eq!(publishes(&actions), 1);
}

#[test]
fn a_pod_that_never_comes_is_refused_after_two_seconds() {
    let mut agent = Agent::new();
    agent.assign(1, 1);
    assert!(agent.state.wake() <= at(22));
    agent.wait(Duration::from_millis(1999));
    assert!(agent.refusals().is_empty());
    agent.wait(Duration::from_millis(1));
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
}

#[test]
fn a_refusal_stays_in_the_report_until_the_release() {
    let mut agent = Agent::new();
    let mut dying = facts(1);
    dying.terminating = true;
    agent.event(Event::Pod(Box::new(dying)));
    agent.assign(1, 1);
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
    agent.wait(at(60));
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
    agent.snapshot(vec![]);
    assert!(agent.refusals().is_empty());
}

#[test]
fn a_pod_of_another_warm_pod_is_refused_at_once() {
    let mut agent = Agent::new();
    let mut other = facts(1);
    other.owner.id.uid = "another".into();
    agent.event(Event::Pod(Box::new(other)));
    agent.assign(1, 1);
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
}

/// A pod made for the sandbox alone, as the scheduler and the watch tell of it.
fn cold(n: u8) -> (Assignment, PodFacts) {
    let mut assignment = assignment(n, n);
    assignment.owner = assignment.sandbox.clone();
    let mut facts = facts(n);
    facts.owner.kind = OwnerKind::Sandbox;
    facts.owner.id = assignment.sandbox.clone();
    (assignment, facts)
}

#[test]
fn a_cold_pod_may_take_its_time_and_is_published_the_moment_it_is_prepared() {
    let mut agent = Agent::new();
    let (assignment, facts) = cold(1);
    let assign = StreamMessage::Assign {
        assignment: assignment.clone(),
    };
    agent.event(Event::Stream(replica(), assign));
    agent.wait(at(600));
    let mut starting = facts.clone();
    starting.containers_ready = false;
    agent.event(Event::Pod(Box::new(starting)));
    agent.wait(at(600));
    assert!(agent.refusals().is_empty());
    agent.event(Event::Pod(Box::new(facts)));
    let actions = agent.event(Event::Inspected(Ok(vec![confined(1)])));
    assert_eq!(publishes(&actions), 1);
    // It has no WarmPod, so nothing is written to one.
    assert!(!actions.iter().any(|a| matches!(
        a,
        Action::Write(Write::WarmPod { .. } | Write::Heartbeat { .. })
    )));
}

#[test]
fn a_cold_pod_that_starts_keeps_nobody_waiting() {
    let mut agent = Agent::new();
    let (assignment, _) = cold(1);
    agent.event(Event::Stream(
        replica(),
        StreamMessage::Assign { assignment },
    ));
    assert!(!agent.state.summary().busy);
}

#[test]
fn a_pod_serves_one_sandbox_even_if_told_otherwise() {
    let mut agent = Agent::new();
    agent.prepare(1);
    assert_eq!(publishes(&agent.assign(1, 1)), 1);
    assert_eq!(publishes(&agent.assign(1, 2)), 0);
    assert_eq!(agent.refusals(), [AgentRefusal::PodGone]);
    agent.snapshot(vec![]);
    assert_eq!(publishes(&agent.assign(1, 2)), 0);
}

#[test]
fn an_assignment_waits_for_a_host_that_restarts_and_then_is_refused() {
    let mut agent = Agent::new();
    agent.event(Event::Pod(Box::new(facts(1))));
    agent.event(Event::Inspected(Err("no socket".into())));
    agent.assign(1, 1);
    agent.wait(at(5));
    assert!(agent.refusals().is_empty());
    assert!(!agent.state.report().ready);
    agent.wait(at(6));
    assert_eq!(agent.refusals(), [AgentRefusal::PodNotPrepared]);
}

#[test]
fn the_report_is_ready_only_with_pods_and_host() {
    let mut agent = Agent::starting();
    assert!(!agent.state.report().ready);
    let actions = agent.event(Event::Wake);
    assert_eq!(actions[0], Action::Sample(vec![]));
    assert!(matches!(
        actions[1..],
        [Action::Profiles(Ask::Check { .. })]
    ));
    agent.event(Event::Sampled(Ok(vec![])));
    assert!(!agent.state.report().ready);
    agent.event(Event::PodsListed([].into()));
    assert!(!agent.state.report().ready);
    agent.event(Event::ProfilesChecked(Ok(CheckedProfiles::default())));
    assert!(agent.state.report().ready);
    agent.event(Event::Sampled(Err("gone".into())));
    assert!(agent.state.report().message.contains("gone"));
    agent.event(Event::Sampled(Ok(vec![])));
    agent.event(Event::Stop);
    assert!(!agent.state.report().ready);
}

#[test]
fn heartbeats_are_paced_and_yield_to_assignments() {
    let mut agent = Agent::new();
    for pod in 1..=3 {
        agent.event(Event::Pod(Box::new(facts(pod))));
    }
    let mut beats = 0;
    let mut actions = agent.event(Event::Inspected(Ok((1..=3).map(confined).collect())));
    let end = agent.time + at(90);
    let pace = agent.time + at(63);
    while agent.time < end {
        for action in actions {
            if let Action::Write(write) = action {
                if matches!(write, Write::Heartbeat { .. }) && agent.time < pace {
                    beats += 1;
                }
                agent.event(Event::Wrote(write, Outcome::Done));
            }
        }
        actions = agent.wait(Duration::from_millis(500));
    }
    assert_eq!(beats, 3, "one each in the first minute");
    agent.assign(9, 9);
    let actions = agent.wait(Duration::from_millis(1900));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Write(Write::Heartbeat { .. })))
    );
}

#[test]
fn usage_is_written_for_published_sandboxes_only_and_not_too_often() {
    let mut agent = Agent::new();
    agent.prepare(1);
    let usage = |cpu_micros, at_micros| {
        Event::Sampled(Ok(vec![PodUsage {
            uid: uid(1),
            cpu_micros,
            working_set_bytes: 100 << 20,
            at_micros,
        }]))
    };
    let written = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Write(write @ Write::Usage { .. }) => Some(write.clone()),
            _ => None,
        })
    };
    agent.event(usage(0, 0));
    assert_eq!(written(&agent.event(usage(5_000_000, 10_000_000))), None);
    agent.assign(1, 1);
    let during_the_burst = agent.attempted(1, 1, Attempt::Published);
    assert_eq!(written(&during_the_burst), None);
    let write = written(&agent.wait(at(30))).unwrap();
    assert!(matches!(&write, Write::Usage { usage, .. } if usage.cpu_millis == 500));
    agent.event(Event::Wrote(write, Outcome::Done));
    assert_eq!(written(&agent.event(usage(15_000_000, 20_000_000))), None);
    agent.time += at(40);
    assert!(written(&agent.event(usage(25_000_000, 30_000_000))).is_some());
}

#[test]
fn a_warm_pod_that_is_gone_gets_no_more_heartbeats() {
    let mut agent = Agent::new();
    agent.prepare(1);
    let beat = agent
        .wait(at(60))
        .into_iter()
        .find_map(|action| match action {
            Action::Write(write @ Write::Heartbeat { .. }) => Some(write),
            _ => None,
        })
        .unwrap();
    agent.event(Event::Wrote(beat, Outcome::Gone));
    let actions = agent.wait(at(120));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Write(Write::Heartbeat { .. })))
    );
}

#[test]
fn a_node_is_ready_once_it_has_the_profiles_that_users_brought() {
    let mut agent = Agent::new();
    assert!(agent.state.report().ready);
    let profile = UserProfile {
        name: "team-a".into(),
        json: "{}".into(),
    };
    let profiles = vec![profile.clone()];
    let told = StreamMessage::Profiles { profiles };
    let actions = agent.event(Event::Stream(replica(), told));
    assert!(actions.contains(&Action::Profiles(Ask::Install(profile.clone()))));
    assert!(!agent.state.report().ready);
    let file =
        crate::protocol::ProfileFile::try_from("team-a-0123456789ab.json".to_owned()).unwrap();
    let installed = Event::ProfileInstalled(profile, Ok(Ok(file.clone())));
    let actions = agent.event(installed);
    assert!(matches!(
        actions[..],
        [Action::Profiles(Ask::Check { .. }), ..]
    ));
    agent.event(Event::ProfilesChecked(Ok(CheckedProfiles {
        installed: vec![file],
        ..CheckedProfiles::default()
    })));
    let report = agent.state.report();
    assert!(report.ready);
    assert_eq!(report.profiles, ["team-a-0123456789ab.json"]);
}

#[test]
fn what_keeps_a_profile_from_being_installed_keeps_pods_away_and_is_told() {
    let mut agent = Agent::new();
    agent.event(Event::ProfilesChecked(Ok(CheckedProfiles {
        problem: Some("no space left".into()),
        ..CheckedProfiles::default()
    })));
    let report = agent.state.report();
    assert!(!report.ready && report.message.contains("no space left"));
}

#[test]
fn what_pods_of_the_other_api_use_is_told_apart_and_nothing_is_done_for_them() {
    let mut agent = Agent::new();
    agent.event(Event::AgentsPod(uid(7)));
    agent.event(Event::AgentsPod(uid(8)));
    let used = |n: u8, cpu_micros, at_micros| PodUsage {
        uid: uid(n),
        cpu_micros,
        working_set_bytes: 5,
        at_micros,
    };
    agent.time += at(20);
    let actions = agent.event(Event::Wake);
    assert!(
        actions.contains(&Action::Sample(vec![uid(7), uid(8)])),
        "{actions:?}"
    );
    agent.event(Event::Sampled(Ok(vec![used(7, 100, 0), used(8, 0, 0)])));
    let samples = vec![used(7, 300, 1000), used(8, 50, 1000), used(9, 9, 1000)];
    let actions = agent.event(Event::Sampled(Ok(samples)));
    let counted = Action::CountCpu {
        sandboxes: 0,
        agents: 250,
    };
    assert_eq!(actions, [counted]);
    let summary = agent.state.summary();
    assert_eq!(
        (
            summary.agents_memory_bytes,
            summary.memory_bytes,
            summary.pods
        ),
        (10, 0, 0)
    );
    agent.event(Event::AgentsPodsListed([uid(8)].into()));
    assert_eq!(agent.state.summary().agents_memory_bytes, 5);
    agent.event(Event::AgentsPodGone(uid(8)));
    assert_eq!(agent.state.summary().agents_memory_bytes, 0);
}
