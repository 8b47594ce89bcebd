//! The steps: which are possible in a state. What each does is in `effects`.

use stateright::{Model, Property};

use crate::config::{Mutant, NODES, Protocol, Retry};
use crate::properties;
use crate::state::{
    Errand, PodId, Sandbox, SandboxId, Scheduler, State, WarmPod, Work, bit, node_of,
};

/// Index of a scheduler.
pub type SchedulerId = u8;
/// Index of a node and its agent.
pub type NodeId = u8;

/// One step of one participant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // The fields are what their types say.
pub enum Step {
    /// User: creates the sandbox.
    Create(SandboxId),
    /// User: deletes the sandbox.
    Delete(SandboxId),
    /// Fault: the pod's container ends.
    Die(PodId),
    /// Fault: the agent cannot arm the pod just now.
    Whim(PodId),
    /// Fault: the scheduler loses its memory.
    CrashScheduler(SchedulerId),
    /// Fault: the agent loses its memory.
    CrashAgent(NodeId),
    /// Fault: the scheduler's deadline for the pod's agent fires.
    Deadline(SchedulerId, PodId),
    /// Scheduler: decides to take an idle pod out of service; sends the claim.
    Retire(SchedulerId, PodId),
    /// Scheduler: its watch brings the WarmPod up to date.
    SeePod(SchedulerId, PodId),
    /// Scheduler: its watch brings the Sandbox up to date.
    SeeSandbox(SchedulerId, SandboxId),
    /// Scheduler: decides and sends W1.
    Claim(SchedulerId, SandboxId, PodId),
    /// Scheduler: sends the same W1 again.
    Reclaim(SchedulerId, SandboxId),
    /// Scheduler: sends the patch of `podName`.
    Name(SchedulerId, SandboxId, PodId),
    /// Scheduler: hears the refusal in the agent's report.
    HearRefusal(SchedulerId, PodId),
    /// Scheduler: deletes a WarmPod and its pod.
    Remove(SchedulerId, PodId),
    /// API server: executes W1.
    ExecuteClaim {
        from: SchedulerId,
        sandbox: SandboxId,
        pod: PodId,
        lost: bool,
    },
    /// API server: executes the patch of `podName`.
    ExecuteName {
        from: SchedulerId,
        sandbox: SandboxId,
        pod: PodId,
    },
    /// API server: executes a retirement.
    ExecuteRetire { from: SchedulerId, pod: PodId },
    /// API server: executes W2.
    ExecutePublish {
        from: NodeId,
        sandbox: SandboxId,
        pod: PodId,
        lost: bool,
    },
    /// Stream: an assignment reaches the agent.
    Hear {
        from: SchedulerId,
        to: NodeId,
        sandbox: SandboxId,
        pod: PodId,
    },
    /// Agent: arms the pod, or refuses where it cannot.
    Arm(NodeId, PodId),
    /// Agent: sends W2, for the first time or again.
    Publish(NodeId, PodId),
}

/// `0..count` as indices.
pub(crate) fn ids(count: usize) -> impl Iterator<Item = u8> + Clone {
    (0u8..).take(count)
}

fn members(set: u8) -> impl Iterator<Item = u8> {
    (0u8..8).filter(move |i| set & bit(*i) != 0)
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        self.outside_actions(state, actions);
        self.protocol_actions(state, actions);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        self.apply(&mut state, step);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Protocol {
    /// Steps of users and faults, which may happen and need not.
    fn outside_actions(&self, state: &State, actions: &mut Vec<Step>) {
        let budget = &state.budget;
        for s in ids(self.sandboxes) {
            match state.sandboxes[usize::from(s)] {
                Sandbox::NotYet => actions.push(Step::Create(s)),
                Sandbox::Pending | Sandbox::Named(_) | Sandbox::Running(_)
                    if budget.deletions > 0 =>
                {
                    actions.push(Step::Delete(s));
                }
                _ => {}
            }
        }
        for p in ids(self.pods) {
            if budget.deaths > 0 && state.pods[usize::from(p)].alive {
                actions.push(Step::Die(p));
            }
            if budget.whims > 0
                && matches!(state.agents[node_of(p)][usize::from(p)], Work::Heard(_))
            {
                actions.push(Step::Whim(p));
            }
        }
        for k in ids(self.schedulers) {
            let scheduler = &state.schedulers[usize::from(k)];
            if budget.scheduler_crashes > 0 {
                actions.push(Step::CrashScheduler(k));
            }
            for p in ids(self.pods) {
                if budget.deadlines > 0 && scheduler.awaits(p).is_some() {
                    actions.push(Step::Deadline(k, p));
                }
                if budget.retirements > 0 && scheduler.pods[usize::from(p)] == WarmPod::Free {
                    actions.push(Step::Retire(k, p));
                }
            }
        }
        if budget.agent_crashes > 0 {
            for n in ids(NODES.min(self.pods)) {
                actions.push(Step::CrashAgent(n));
            }
        }
    }

    /// Steps of the programs, the watches and the network, which will happen if they stay possible.
    pub fn protocol_actions(&self, state: &State, actions: &mut Vec<Step>) {
        for k in ids(self.schedulers) {
            self.scheduler_actions(state, k, actions);
        }
        for n in ids(NODES) {
            for p in ids(self.pods) {
                match state.agents[usize::from(n)][usize::from(p)] {
                    Work::Heard(_) => actions.push(Step::Arm(n, p)),
                    Work::Armed(_) | Work::ReplyLost(_) => actions.push(Step::Publish(n, p)),
                    Work::None | Work::Publishing(_) | Work::Published(_) | Work::Refused(_) => {}
                }
                for s in members(state.network.publications[usize::from(n)][usize::from(p)]) {
                    let execute = |lost| Step::ExecutePublish {
                        from: n,
                        sandbox: s,
                        pod: p,
                        lost,
                    };
                    actions.push(execute(false));
                    if state.budget.lost_replies > 0 {
                        actions.push(execute(true));
                    }
                }
            }
        }
    }

    fn scheduler_actions(&self, state: &State, k: SchedulerId, actions: &mut Vec<Step>) {
        let scheduler = &state.schedulers[usize::from(k)];
        for p in ids(self.pods) {
            let i = usize::from(p);
            if scheduler.pods[i] != state.warm_pods[i] {
                actions.push(Step::SeePod(k, p));
            }
            let refused = |work: &Work| matches!(work, Work::Refused(_));
            if scheduler.awaits(p).is_some()
                && refused(&state.agents[node_of(p)][i])
                && !self.is(Mutant::IgnoresRefusal)
            {
                actions.push(Step::HearRefusal(k, p));
            }
            if self.may_remove(state, scheduler, p) {
                actions.push(Step::Remove(k, p));
            }
            for s in members(scheduler.stream[i]) {
                for n in ids(NODES) {
                    let own = usize::from(n) == node_of(p) || self.is(Mutant::StreamServesAnyNode);
                    if own && state.agents[usize::from(n)][i] == Work::None {
                        actions.push(Step::Hear {
                            from: k,
                            to: n,
                            sandbox: s,
                            pod: p,
                        });
                    }
                }
            }
            if state.network.retirements[usize::from(k)] & bit(p) != 0 {
                actions.push(Step::ExecuteRetire { from: k, pod: p });
            }
        }
        for s in ids(self.sandboxes) {
            let i = usize::from(s);
            if scheduler.sandboxes[i] != state.sandboxes[i] {
                actions.push(Step::SeeSandbox(k, s));
            }
            self.decide(scheduler, k, s, actions);
            for p in members(state.network.claims[usize::from(k)][i]) {
                let execute = |lost| Step::ExecuteClaim {
                    from: k,
                    sandbox: s,
                    pod: p,
                    lost,
                };
                actions.push(execute(false));
                if state.budget.lost_replies > 0 && scheduler.errands[i] == Errand::Claiming(p) {
                    actions.push(execute(true));
                }
            }
            for p in members(state.network.names[usize::from(k)][i]) {
                actions.push(Step::ExecuteName {
                    from: k,
                    sandbox: s,
                    pod: p,
                });
            }
        }
    }

    /// What the scheduler may do for one sandbox.
    fn decide(&self, scheduler: &Scheduler, k: SchedulerId, s: SandboxId, actions: &mut Vec<Step>) {
        match scheduler.errands[usize::from(s)] {
            Errand::None => {}
            Errand::ReplyLost(_) => return actions.push(Step::Reclaim(k, s)),
            Errand::Claiming(_) | Errand::Naming(_) => return,
        }
        if !scheduler.listed(self) {
            return;
        }
        let mine = |p: PodId| scheduler.pods[usize::from(p)] == WarmPod::Assigned(s);
        let free = |p: PodId| {
            scheduler.pods[usize::from(p)] == WarmPod::Free
                && !scheduler.errands.contains(&Errand::Claiming(p))
                && !scheduler.errands.contains(&Errand::ReplyLost(p))
                && !scheduler.errands.contains(&Errand::Naming(p))
        };
        match scheduler.sandboxes[usize::from(s)] {
            Sandbox::Pending => {
                let pods = ids(self.pods);
                if pods
                    .clone()
                    .any(|p| mine(p) && !scheduler.given_up[usize::from(p)])
                {
                    return;
                }
                let again = pods.clone().any(mine);
                for p in pods.filter(|p| free(*p)) {
                    actions.push(if again && self.retry == Retry::NameFirst {
                        Step::Name(k, s, p)
                    } else {
                        Step::Claim(k, s, p)
                    });
                }
            }
            // Only with NameFirst: after a crash between the two writes, the second is still owed.
            Sandbox::Named(p) if free(p) => actions.push(Step::Claim(k, s, p)),
            _ => {}
        }
    }

    /// Whether the scheduler may delete the pod. Everything that allows it stays true, so that the request may
    /// be executed at any time after.
    fn may_remove(&self, state: &State, scheduler: &Scheduler, p: PodId) -> bool {
        let i = usize::from(p);
        if state.warm_pods[i] == WarmPod::Gone {
            return false;
        }
        match scheduler.pods[i] {
            WarmPod::Retired => true,
            WarmPod::Assigned(s) => match scheduler.sandboxes[usize::from(s)] {
                Sandbox::Running(on) | Sandbox::Named(on) => on != p,
                // The copy cannot tell a deleted Sandbox from one it has not heard of: a read of the API server can.
                Sandbox::NotYet | Sandbox::Gone => {
                    state.sandboxes[usize::from(s)] == Sandbox::Gone
                        || self.is(Mutant::SweepTrustsTheCopy)
                }
                Sandbox::Pending => self.is(Mutant::DeletesRefusedAtOnce) && scheduler.given_up[i],
                Sandbox::Unknown => false,
            },
            WarmPod::Unknown | WarmPod::Free | WarmPod::Taken | WarmPod::Gone => false,
        }
    }
}

impl Scheduler {
    /// The sandbox that waits for this pod's agent.
    fn awaits(&self, p: PodId) -> Option<SandboxId> {
        match self.pods[usize::from(p)] {
            WarmPod::Assigned(s)
                if !self.given_up[usize::from(p)]
                    && self.sandboxes[usize::from(s)] == Sandbox::Pending =>
            {
                Some(s)
            }
            _ => None,
        }
    }

    /// Whether everything was listed since the start: before that, a pod that is already the sandbox's could be missed.
    fn listed(&self, protocol: &Protocol) -> bool {
        !self.pods[..protocol.pods].contains(&WarmPod::Unknown)
            && !self.sandboxes[..protocol.sandboxes].contains(&Sandbox::Unknown)
    }

    /// Takes in what a reply or a watch says; an assignment goes into the stream.
    pub(crate) fn learn(&mut self, p: PodId, now: WarmPod) {
        self.pods[usize::from(p)] = now;
        if let WarmPod::Assigned(s) = now {
            self.stream[usize::from(p)] |= bit(s);
        }
    }
}
