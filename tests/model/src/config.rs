//! What is checked: how many of each, which faults, and which variant of the protocol.

/// Most pods of a configuration; state is kept in arrays of this size.
pub const MAX_PODS: usize = 4;
/// Most sandboxes of a configuration.
pub const MAX_SANDBOXES: usize = 2;
/// Most schedulers of a configuration.
pub const MAX_SCHEDULERS: usize = 2;
/// Nodes, each with one agent. Pod `w` is on node `w % NODES`.
pub const NODES: usize = 2;

/// One configuration of the model.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// Warm pods, at most [`MAX_PODS`].
    pub pods: usize,
    /// Sandboxes, at most [`MAX_SANDBOXES`].
    pub sandboxes: usize,
    /// Schedulers, at most [`MAX_SCHEDULERS`]. Each believes that it leads.
    pub schedulers: usize,
    /// The last sandbox is created during the run; otherwise all are there at the start.
    pub created_late: bool,
    /// Faults that may happen.
    pub budget: Budget,
    /// What the scheduler does when an agent refuses or stays silent.
    pub retry: Retry,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

impl Protocol {
    /// A configuration without faults.
    pub fn new(schedulers: usize, pods: usize, sandboxes: usize) -> Self {
        Self {
            pods,
            sandboxes,
            schedulers,
            created_late: false,
            budget: Budget::default(),
            retry: Retry::AnotherPod,
            mutant: None,
        }
    }

    /// The same with these faults.
    #[must_use]
    pub fn with(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The same, broken.
    #[must_use]
    pub fn broken(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Whether `mutant` is what is broken.
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// How often each fault may happen in one run.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Budget {
    /// Crashes of a scheduler.
    pub scheduler_crashes: u8,
    /// Crashes of an agent.
    pub agent_crashes: u8,
    /// Replies lost after the request was executed.
    pub lost_replies: u8,
    /// Pods that die, so that their agent must refuse.
    pub deaths: u8,
    /// Refusals of a pod that is alive and would be armed by another try, such as one without free CPUs now.
    pub whims: u8,
    /// Deadlines that fire, whether the agent is silent or only slow.
    pub deadlines: u8,
    /// Idle pods that a scheduler takes out of service.
    pub retirements: u8,
    /// Sandboxes deleted by their user.
    pub deletions: u8,
}

impl Budget {
    /// All faults together; what a state has left of it only shrinks.
    pub fn left(&self) -> u32 {
        let Self {
            scheduler_crashes,
            agent_crashes,
            lost_replies,
            deaths,
            whims,
            deadlines,
            retirements,
            deletions,
        } = *self;
        [
            scheduler_crashes,
            agent_crashes,
            lost_replies,
            deaths,
            whims,
            deadlines,
            retirements,
            deletions,
        ]
        .map(u32::from)
        .iter()
        .sum()
    }
}

/// What the scheduler does for a Sandbox whose agent refuses or stays silent past the deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retry {
    /// It claims another pod. `podName`, set once by the agent that publishes, decides between the two.
    AnotherPod,
    /// It first sets `podName` to another pod, then claims that pod.
    NameFirst,
}

/// A protocol that is broken in one place, to show that the properties notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutant {
    /// `assignedTo` can be overwritten.
    AssignedToNotSetOnce,
    /// `podName` can be overwritten.
    PodNameNotSetOnce,
    /// A lost reply to W1 makes the scheduler take another pod.
    LostReplyTakesAnotherPod,
    /// The agent publishes before it arms.
    PublishesBeforeArming,
    /// The stream serves a node's assignments to the other node's agent too.
    StreamServesAnyNode,
    /// A Sandbox missing in the scheduler's own copy counts as deleted; nothing asks the API server.
    SweepTrustsTheCopy,
    /// An idle pod is deleted without being claimed first.
    DeletesIdleUnclaimed,
    /// A refused pod is deleted before the Sandbox is published elsewhere.
    DeletesRefusedAtOnce,
    /// A refusal changes nothing.
    IgnoresRefusal,
    /// An agent that reconnects gets no snapshot.
    NoSnapshot,
}
