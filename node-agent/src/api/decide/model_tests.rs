//! Random lives of a node: whatever comes in whatever order, some things never happen and some always do in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use pilotlight_common::network::{NetworkRules, RulesDigest};
use pilotlight_common::stream::StreamMessage;
use proptest::prelude::*;

use super::fixtures::{at, confined, facts, inspection, uid};
use super::*;
use crate::api::facts::PodPhase;
use crate::network_protocol::{Armed, Backend, NetworkProblem, PodNetwork};
use crate::protocol::{CheckedProfiles, CpuState, Pin, PinAnswer, PinRefusal};

/// One thing that happens. Pods and sandboxes are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Pod(u8, Life),
    PodGone(u8),
    Assign(u8, u8, u8),
    Release(u8, u8, u8),
    Edit(u8, u8, u8, bool),
    NetworkLost,
    Snapshot(u8, Vec<(u8, u8)>),
    Disconnect(u8),
    Forget(u8),
    Answer(usize, Luck),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Running,
    NotReady,
    Restarted,
    Terminating,
    Privileged,
    Over,
}

/// How the world answers an action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Luck {
    Good,
    Unconfined,
    /// It arrived, and the answer was lost.
    Lost,
    Bad,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = 1u8..4;
    let sandbox = 1u8..4;
    let replica = 0u8..2;
    let life = prop_oneof![
        5 => Just(Life::Running),
        1 => Just(Life::NotReady),
        1 => Just(Life::Restarted),
        1 => Just(Life::Terminating),
        1 => Just(Life::Privileged),
        1 => Just(Life::Over),
    ];
    let luck = prop_oneof![
        5 => Just(Luck::Good),
        1 => Just(Luck::Unconfined),
        1 => Just(Luck::Lost),
        1 => Just(Luck::Bad),
    ];
    let step = prop_oneof![
        4 => (pod.clone(), life).prop_map(|(p, l)| Step::Pod(p, l)),
        1 => pod.clone().prop_map(Step::PodGone),
        4 => (replica.clone(), pod.clone(), sandbox.clone()).prop_map(|(r, p, s)| Step::Assign(r, p, s)),
        1 => (replica.clone(), pod.clone(), sandbox.clone()).prop_map(|(r, p, s)| Step::Release(r, p, s)),
        1 => (replica.clone(), pod.clone(), sandbox.clone(), any::<bool>()).prop_map(|(r, p, s, w)| Step::Edit(r, p, s, w)),
        1 => Just(Step::NetworkLost),
        1 => (replica.clone(), proptest::collection::vec((pod, sandbox), 0..4)).prop_map(|(r, l)| Step::Snapshot(r, l)),
        1 => replica.clone().prop_map(Step::Disconnect),
        1 => replica.prop_map(Step::Forget),
        8 => (any::<usize>(), luck).prop_map(|(n, l)| Step::Answer(n, l)),
        3 => (1u64..4000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The API server and `host`, as the agent sees them.
struct World {
    state: State,
    time: Time,
    /// What was asked for and is not answered yet.
    pending: Vec<Action>,
    /// Pod that each sandbox was published on, by the API server's rule that this is set once.
    published: BTreeMap<String, String>,
    /// Sandbox that each pod (by UID of its warm pod) was published for.
    serves: BTreeMap<String, BTreeSet<String>>,
    /// Pods as they are now, and whether `host` last called them confined since they last changed.
    pods: BTreeMap<u8, (PodFacts, bool)>,
    /// Pods that were deleted: no UID comes back.
    deleted: BTreeSet<u8>,
    /// What the kernel's tables say, of pods that have one.
    tables: BTreeMap<u8, RulesDigest>,
    /// Connections to `network` so far.
    connection: u64,
}

fn rules(wide: bool) -> NetworkRules {
    let mut rules = NetworkRules::default();
    if wide {
        rules.names.insert(pilotlight_common::network::NameRule {
            name: pilotlight_common::network::NamePattern::parse("example.com").unwrap(),
            ports: BTreeSet::new(),
        });
    }
    rules
}

/// Sandbox 3 asks for CPUs of its own, sandbox 2 for a name.
fn assignment(pod: u8, sandbox: u8) -> Assignment {
    let mut assignment = super::fixtures::assignment(pod, sandbox);
    assignment.cpus = u32::from(sandbox == 3);
    assignment.network = rules(sandbox == 2);
    assignment
}

fn replica(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8443))
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(true),
            time: at(0),
            pending: Vec::new(),
            published: BTreeMap::new(),
            serves: BTreeMap::new(),
            pods: BTreeMap::new(),
            deleted: BTreeSet::new(),
            tables: BTreeMap::new(),
            connection: 0,
        };
        world.event(Event::PodsListed([].into()));
        world
    }

    fn event(&mut self, event: Event) {
        let now = Now {
            time: self.time,
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        for action in self.state.step(event, now) {
            self.check(&action);
            self.pending.push(action);
        }
    }

    /// What never happens.
    fn check(&mut self, action: &Action) {
        let Action::Publish(assignment, cpus) = action else {
            return;
        };
        assert_eq!(
            cpus.is_some(),
            assignment.cpus > 0,
            "published without the CPUs it asked for"
        );
        let number = assignment
            .pod_name
            .trim_start_matches("wp-")
            .parse()
            .unwrap();
        let (facts, confined) = &self.pods[&number];
        assert!(
            confined,
            "a pod that host did not call confined was published"
        );
        let table = self.tables.get(&number);
        assert!(table.is_some(), "a pod that was not armed was published");
        assert!(!facts.terminating && facts.containers_ready);
        assert_eq!(facts.phase, PodPhase::Running);
        assert_eq!(facts.asks_unconfined, None);
        let served = self.serves.entry(assignment.owner.uid.clone()).or_default();
        served.insert(assignment.sandbox.uid.clone());
        assert_eq!(served.len(), 1, "a pod was published for two sandboxes");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pod(n, _) if self.deleted.contains(&n) => {}
            Step::Pod(n, life) => {
                let mut facts = facts(n);
                match life {
                    Life::Running => {}
                    Life::NotReady => facts.containers_ready = false,
                    Life::Restarted => {
                        facts.running = ["c2".to_owned()].into();
                        facts.known = ["c1".to_owned(), "c2".to_owned()].into();
                    }
                    Life::Terminating => facts.terminating = true,
                    Life::Privileged => facts.asks_unconfined = Some("privileged"),
                    Life::Over => facts.phase = PodPhase::Over,
                }
                let before = self.pods.get(&n);
                let same = before.is_some_and(|(old, _)| {
                    old.running == facts.running && old.phase == facts.phase
                });
                let confined = same && before.is_some_and(|(_, confined)| *confined);
                self.pods.insert(n, (facts.clone(), confined));
                self.event(Event::Pod(Box::new(facts)));
            }
            Step::PodGone(n) => {
                self.pods.remove(&n);
                self.deleted.insert(n);
                self.tables.remove(&n);
                self.event(Event::PodGone(uid(n)));
            }
            Step::Assign(r, p, s) => self.hear(
                r,
                StreamMessage::Assign {
                    assignment: assignment(p, s),
                },
            ),
            Step::Release(r, p, s) => {
                let assignment = assignment(p, s);
                self.hear(
                    r,
                    StreamMessage::Release {
                        owner: assignment.owner,
                        sandbox_uid: assignment.sandbox.uid,
                    },
                );
            }
            Step::Edit(r, p, s, wide) => {
                let assignment = assignment(p, s);
                self.hear(
                    r,
                    StreamMessage::Network {
                        owner: assignment.owner,
                        sandbox_uid: assignment.sandbox.uid,
                        rules: rules(wide),
                    },
                );
            }
            Step::NetworkLost => self.lose_network(),
            Step::Snapshot(r, list) => {
                let assignments = list.into_iter().map(|(p, s)| assignment(p, s)).collect();
                let profiles = Vec::new();
                self.hear(
                    r,
                    StreamMessage::Snapshot {
                        assignments,
                        profiles,
                    },
                );
            }
            Step::Disconnect(r) => self.event(Event::Disconnected(replica(r))),
            Step::Forget(r) => self.event(Event::Forgotten(replica(r))),
            Step::Answer(n, luck) => {
                if !self.pending.is_empty() {
                    let action = self.pending.remove(n % self.pending.len());
                    self.answer(action, luck);
                }
            }
            Step::Wait(millis) => {
                self.time += Duration::from_millis(millis);
                self.event(Event::Wake);
            }
        }
    }

    fn lose_network(&mut self) {
        let lost = self.connection;
        self.connection += 1;
        self.event(Event::NetworkLost(lost));
    }

    /// The kernel's part of a question, and the answer.
    fn enforce(&mut self, ask: NetworkAsk, luck: Luck) -> NetworkAnswer {
        let connection = self.connection;
        let failure = NetworkFailure {
            reason: NetworkProblem::Failed,
            message: "down".into(),
        };
        let fails = matches!(luck, Luck::Bad | Luck::Lost);
        let number = |pod: &PodUid| (1..4).find(|n| uid(*n) == *pod).unwrap();
        match ask {
            NetworkAsk::Arm(pod) => {
                let there = self.pods.contains_key(&number(&pod)) && luck != Luck::Bad;
                let table = there.then(|| {
                    *self
                        .tables
                        .entry(number(&pod))
                        .or_insert(RulesDigest::FRESH)
                });
                let result = table.filter(|_| !fails).ok_or(failure).map(|digest| Armed {
                    backend: Backend::Pod,
                    digest,
                });
                NetworkAnswer::Armed {
                    pod,
                    connection,
                    result,
                }
            }
            NetworkAsk::Configure(pod, rules) => {
                let digest = rules.digest();
                if luck != Luck::Bad
                    && let Some(table) = self.tables.get_mut(&number(&pod))
                {
                    *table = digest;
                }
                let result = if fails { Err(failure) } else { Ok(digest) };
                NetworkAnswer::Configured {
                    pod,
                    connection,
                    result,
                }
            }
            NetworkAsk::Check(pods) => {
                let told = |(n, digest): (&u8, &RulesDigest)| PodNetwork {
                    pod: uid(*n),
                    digest: *digest,
                    intact: true,
                    refused_out: 0,
                    dropped_in: 0,
                    message: String::new(),
                };
                let all = self.tables.iter().filter(|(n, _)| pods.contains(&uid(**n)));
                let result = if fails {
                    Err(failure)
                } else {
                    Ok(all.map(told).collect())
                };
                NetworkAnswer::Checked {
                    connection,
                    result,
                    refused: vec![],
                }
            }
        }
    }

    fn hear(&mut self, r: u8, message: StreamMessage) {
        self.event(Event::Stream(replica(r), message));
    }

    fn answer(&mut self, action: Action, luck: Luck) {
        let event = match action {
            Action::Inspect(_) | Action::Sample(_) if luck == Luck::Bad => match action {
                Action::Inspect(_) => Event::Inspected(Err("down".into())),
                _ => Event::Sampled(Err("down".into())),
            },
            Action::Sample(_) => Event::Sampled(Ok(vec![])),
            Action::Inspect(uids) => {
                let mut seen = Vec::new();
                for (n, (facts, confined_now)) in &mut self.pods {
                    if !uids.contains(&facts.uid) {
                        continue;
                    }
                    let mut inspection = match luck {
                        Luck::Unconfined => inspection(*n, 2, Some(7)),
                        _ => confined(*n),
                    };
                    inspection.pin = Some(Pin {
                        pod: facts.uid.clone(),
                        cpus: [0].into_iter().collect(),
                        intact: luck == Luck::Good,
                    });
                    inspection.containers[0].id = facts.running.iter().next().unwrap().clone();
                    *confined_now |= luck != Luck::Unconfined;
                    seen.push(inspection);
                }
                Event::Inspected(Ok(seen))
            }
            Action::Pin { key, cpus, .. } => {
                let answer = match luck {
                    Luck::Good => Ok(PinAnswer::Granted((0..cpus).collect())),
                    Luck::Lost => Err("down".into()),
                    Luck::Unconfined | Luck::Bad => Ok(PinAnswer::Refused {
                        reason: if luck == Luck::Bad {
                            PinRefusal::NoCpus
                        } else {
                            PinRefusal::Failed
                        },
                        message: String::new(),
                    }),
                };
                Event::Pinned(key, answer)
            }
            Action::Cpus if luck == Luck::Bad => Event::Cpus(Err("down".into())),
            Action::Cpus => Event::Cpus(Ok(CpuState::default())),
            Action::Publish(assignment, _) => {
                let sandbox = assignment.sandbox.uid.clone();
                if luck != Luck::Bad {
                    self.published
                        .entry(sandbox.clone())
                        .or_insert(assignment.pod_name.clone());
                }
                let attempt = if matches!(luck, Luck::Bad | Luck::Lost) {
                    Attempt::Failed
                } else {
                    self.stands(&assignment)
                };
                Event::Attempted(key(&assignment), attempt)
            }
            Action::Look(assignment) => {
                let attempt = if luck == Luck::Bad {
                    Attempt::Failed
                } else {
                    self.stands(&assignment)
                };
                Event::Attempted(key(&assignment), attempt)
            }
            Action::Write(write) => {
                let outcome = match luck {
                    Luck::Good => Outcome::Done,
                    _ => Outcome::Failed,
                };
                Event::Wrote(write, outcome)
            }
            Action::Profiles(Ask::Check { .. }) => Event::ProfilesChecked(if luck == Luck::Bad {
                Err("down".into())
            } else {
                Ok(CheckedProfiles::default())
            }),
            Action::Network(ask) => {
                let answer = self.enforce(ask, luck);
                if luck == Luck::Lost {
                    self.lose_network();
                }
                Event::Network(answer)
            }
            // No replica of this world brings any.
            Action::Profiles(Ask::Install(_))
            | Action::ForgetNetwork(_)
            | Action::TellRefusedProfile(..)
            | Action::CountPublished(_)
            | Action::CountRefused(_)
            | Action::CountCpu { .. } => return,
        };
        self.event(event);
    }

    fn stands(&self, assignment: &Assignment) -> Attempt {
        match self.published.get(&assignment.sandbox.uid) {
            None => Attempt::Unpublished,
            Some(pod) if *pod == assignment.pod_name => Attempt::Published,
            Some(_) => Attempt::Refused(
                pilotlight_common::stream::AgentRefusal::PublishedElsewhere,
                String::new(),
            ),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_unprepared_is_published_and_every_assignment_ends(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // From here on the world is kind: what is asked is answered, and time passes.
        for _ in 0..200 {
            for action in std::mem::take(&mut world.pending) {
                world.answer(action, Luck::Good);
            }
            if world.pending.iter().all(|a| matches!(a, Action::CountCpu { .. })) {
                world.time = world.time.max(world.state.wake());
                world.event(Event::Wake);
            }
        }
        prop_assert!(!world.state.summary().busy, "{:?}", world.state.assignments);
        // What the agent takes for published is published, on its own pod.
        for (key, entry) in &world.state.assignments.entries {
            if entry.stage == Stage::Published {
                prop_assert_eq!(world.published.get(&key.1), Some(&entry.assignment.pod_name));
                let number = entry.assignment.pod_name.trim_start_matches("wp-").parse().unwrap();
                let wanted = entry.assignment.network.digest();
                let nothing = entry.assignment.network.is_empty().then_some(RulesDigest::FRESH);
                if let Some((facts, _)) = world.pods.get(&number)
                    && !facts.terminating
                    && facts.phase == PodPhase::Running
                {
                    let table = world.tables.get(&number).copied();
                    prop_assert!(table == Some(wanted) || table == nothing, "{table:?} is not {wanted}");
                }
            }
        }
    }
}
