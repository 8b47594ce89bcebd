//! All that exists at one moment: the API server's objects, what is in flight, and what each program knows.

use crate::config::{Budget, MAX_PODS, MAX_SANDBOXES, MAX_SCHEDULERS, NODES, Protocol};

/// Index of a warm pod.
pub type PodId = u8;
/// Index of a sandbox.
pub type SandboxId = u8;

/// A WarmPod and its pod, as the API server has them or as a scheduler believes them to be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WarmPod {
    /// Not listed since the scheduler started. Never so on the API server.
    Unknown,
    /// `assignedTo` is not set.
    Free,
    /// `assignedTo` is set and to whom is not known: a patch came back with 422. Never so on the API server.
    Taken,
    /// `assignedTo` is the UID of a sandbox.
    Assigned(SandboxId),
    /// `assignedTo` is `retired:...`.
    Retired,
    /// Deleted, the pod with it.
    Gone,
}

/// A Sandbox, as the API server has it or as a scheduler believes it to be.
///
/// `NotYet` and `Gone` look the same to a scheduler, and no step of a scheduler tells them apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sandbox {
    /// Not listed since the scheduler started. Never so on the API server.
    Unknown,
    /// Its user has not created it yet.
    NotYet,
    /// No `podName`.
    Pending,
    /// `podName` was set by a scheduler ([`crate::config::Retry::NameFirst`]); it does not run.
    Named(PodId),
    /// Published: phase Running on this pod.
    Running(PodId),
    /// Deleted.
    Gone,
}

/// What an agent has done for one pod.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Work {
    /// No assignment was heard of.
    None,
    /// The assignment was heard of.
    Heard(SandboxId),
    /// The pod is armed.
    Armed(SandboxId),
    /// W2 is sent and the reply was lost.
    ReplyLost(SandboxId),
    /// W2 is sent.
    Publishing(SandboxId),
    /// W2 succeeded.
    Published(SandboxId),
    /// The agent's report says that it refuses.
    Refused(SandboxId),
}

/// What a scheduler is doing for one sandbox.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Errand {
    /// Nothing is sent.
    None,
    /// W1 for this pod is sent and the reply was lost.
    ReplyLost(PodId),
    /// W1 for this pod is sent.
    Claiming(PodId),
    /// The patch of `podName` is sent ([`crate::config::Retry::NameFirst`]).
    Naming(PodId),
}

/// One scheduler's memory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Scheduler {
    /// Its copy of the warm pods.
    pub pods: [WarmPod; MAX_PODS],
    /// Its copy of the sandboxes.
    pub sandboxes: [Sandbox; MAX_SANDBOXES],
    /// Its requests.
    pub errands: [Errand; MAX_SANDBOXES],
    /// Pods whose agent refused or was silent for too long.
    pub given_up: [bool; MAX_PODS],
    /// Its stream: per pod the set of sandboxes whose assignment was ever sent. Nothing is taken out.
    pub stream: [u8; MAX_PODS],
}

/// What checks need to remember of one pod, beside the objects.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Pod {
    /// The container is up.
    pub alive: bool,
    /// Set of sandboxes the pod was armed for. On the node, so it survives the agent.
    pub armed: u8,
    /// Set of sandboxes that `assignedTo` ever named.
    pub ever: u8,
}

/// What checks need to remember of one sandbox's publications.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Publications {
    /// Set of pods it was ever published on.
    pub pods: u8,
    /// It was published by another agent than the pod's, or before the pod was armed.
    pub improper: bool,
}

/// Requests in flight, each a bit; a request sent twice is one bit, as the patch is the same.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Network {
    /// W1, by scheduler and sandbox: set of pods.
    pub claims: [[u8; MAX_SANDBOXES]; MAX_SCHEDULERS],
    /// `podName` by a scheduler, by scheduler and sandbox: set of pods.
    pub names: [[u8; MAX_SANDBOXES]; MAX_SCHEDULERS],
    /// Retirement, by scheduler: set of pods.
    pub retirements: [u8; MAX_SCHEDULERS],
    /// W2, by agent and pod: set of sandboxes.
    pub publications: [[u8; MAX_PODS]; NODES],
}

/// All that exists at one moment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// WarmPods of the API server.
    pub warm_pods: [WarmPod; MAX_PODS],
    /// Sandboxes of the API server.
    pub sandboxes: [Sandbox; MAX_SANDBOXES],
    /// The pods.
    pub pods: [Pod; MAX_PODS],
    /// What was published.
    pub published: [Publications; MAX_SANDBOXES],
    /// Schedulers' memories.
    pub schedulers: [Scheduler; MAX_SCHEDULERS],
    /// Agents' memories.
    pub agents: [[Work; MAX_PODS]; NODES],
    /// Requests in flight.
    pub network: Network,
    /// Faults that may still happen.
    pub budget: Budget,
}

/// The bit of `index` in a set.
pub fn bit(index: u8) -> u8 {
    1 << index
}

/// The node of a pod.
pub fn node_of(pod: PodId) -> usize {
    usize::from(pod) % NODES
}

impl State {
    /// Free pods, pending sandboxes, schedulers that know all of it.
    pub fn initial(protocol: &Protocol) -> Self {
        let mut warm_pods = [WarmPod::Gone; MAX_PODS];
        warm_pods[..protocol.pods].fill(WarmPod::Free);
        let mut sandboxes = [Sandbox::NotYet; MAX_SANDBOXES];
        let there = protocol.sandboxes - usize::from(protocol.created_late);
        sandboxes[..there].fill(Sandbox::Pending);
        let scheduler = Scheduler {
            pods: warm_pods,
            sandboxes,
            errands: [Errand::None; MAX_SANDBOXES],
            given_up: [false; MAX_PODS],
            stream: [0; MAX_PODS],
        };
        Self {
            warm_pods,
            sandboxes,
            pods: warm_pods.map(|w| Pod {
                alive: w == WarmPod::Free,
                ..Pod::default()
            }),
            published: [Publications::default(); MAX_SANDBOXES],
            schedulers: [scheduler; MAX_SCHEDULERS],
            agents: [[Work::None; MAX_PODS]; NODES],
            network: Network::default(),
            budget: protocol.budget,
        }
    }

    /// Whether a pod could serve a sandbox now.
    pub fn usable(&self, pod: usize) -> bool {
        self.warm_pods[pod] == WarmPod::Free && self.pods[pod].alive
    }

    /// A measure that every step increases, faults before all else: so no run comes back to where it was.
    ///
    /// A request in flight counts against it, what its sender waits for counts more: sending, executing and
    /// receiving each add.
    pub fn rank(&self) -> (u32, i32) {
        let mut progress: i32 = 0;
        let faults_left = self.budget.left();
        for (warm_pod, pod) in self.warm_pods.iter().zip(&self.pods) {
            progress += 100 * warm_pod.age();
            progress += ones(pod.armed) + ones(pod.ever);
        }
        for (sandbox, published) in self.sandboxes.iter().zip(&self.published) {
            progress += 100 * sandbox.age() + ones(published.pods);
        }
        for scheduler in &self.schedulers {
            progress += 10 * scheduler.pods.iter().map(|p| p.age()).sum::<i32>();
            progress += 10 * scheduler.sandboxes.iter().map(|s| s.age()).sum::<i32>();
            progress += scheduler.stream.iter().map(|s| ones(*s)).sum::<i32>();
            progress += scheduler
                .given_up
                .iter()
                .map(|g| i32::from(*g))
                .sum::<i32>();
            for (errand, sandbox) in scheduler.errands.iter().zip(&scheduler.sandboxes) {
                // One that the watch overtook counts less than none, so that ending it adds too.
                let overtaken = match errand {
                    Errand::ReplyLost(p) | Errand::Claiming(p) => {
                        scheduler.pods[usize::from(*p)] != WarmPod::Free
                    }
                    Errand::Naming(_) => *sandbox != Sandbox::Pending,
                    Errand::None => false,
                };
                progress += match errand {
                    Errand::None => 0,
                    Errand::ReplyLost(_) => 2,
                    Errand::Claiming(_) | Errand::Naming(_) => 4,
                } - 6 * i32::from(overtaken);
            }
        }
        for work in self.agents.iter().flatten() {
            progress += match work {
                Work::None => 0,
                Work::Heard(_) => 10,
                Work::Armed(_) => 20,
                Work::ReplyLost(_) => 22,
                Work::Publishing(_) => 24,
                Work::Published(_) | Work::Refused(_) => 30,
            };
        }
        let flights = self.network.claims.iter().flatten();
        let flights = flights.chain(self.network.names.iter().flatten());
        let flights = flights.chain(&self.network.retirements);
        let flights = flights.chain(self.network.publications.iter().flatten());
        progress -= flights.map(|f| ones(*f)).sum::<i32>();
        (u32::MAX - faults_left, progress)
    }
}

fn ones(set: u8) -> i32 {
    i32::try_from(set.count_ones()).unwrap_or(0)
}

impl WarmPod {
    /// Where in its life; never goes back.
    fn age(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Free => 1,
            Self::Taken => 2,
            Self::Assigned(_) | Self::Retired => 3,
            Self::Gone => 4,
        }
    }
}

impl Sandbox {
    /// Where in its life; never goes back.
    fn age(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::NotYet => 1,
            Self::Pending => 2,
            Self::Named(_) => 3,
            Self::Running(_) => 4,
            Self::Gone => 5,
        }
    }
}
