//! What each step does to the state.

use crate::config::{MAX_PODS, MAX_SANDBOXES, Mutant, Protocol};
use crate::state::{Errand, PodId, Sandbox, SandboxId, State, WarmPod, Work, bit, node_of};
use crate::steps::{NodeId, SchedulerId, Step, ids};

impl Protocol {
    /// What `step` does.
    pub(crate) fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Create(s) => state.sandboxes[usize::from(s)] = Sandbox::Pending,
            Step::Delete(s) => {
                state.budget.deletions -= 1;
                state.sandboxes[usize::from(s)] = Sandbox::Gone;
            }
            Step::Die(p) => {
                state.budget.deaths -= 1;
                state.pods[usize::from(p)].alive = false;
            }
            Step::Whim(p) => {
                state.budget.whims -= 1;
                state.refuse(node_of(p), p);
            }
            Step::CrashScheduler(k) => self.crash_scheduler(state, k),
            Step::CrashAgent(n) => self.crash_agent(state, n),
            Step::Deadline(k, p) => {
                state.budget.deadlines -= 1;
                state.schedulers[usize::from(k)].given_up[usize::from(p)] = true;
            }
            Step::HearRefusal(k, p) => {
                state.schedulers[usize::from(k)].given_up[usize::from(p)] = true;
            }
            Step::Retire(k, p) => {
                state.budget.retirements -= 1;
                if self.is(Mutant::DeletesIdleUnclaimed) {
                    state.remove(p);
                } else {
                    state.network.retirements[usize::from(k)] |= bit(p);
                }
            }
            Step::SeePod(k, p) => {
                let now = state.warm_pods[usize::from(p)];
                state.schedulers[usize::from(k)].learn(p, now);
            }
            Step::SeeSandbox(k, s) => {
                let now = state.sandboxes[usize::from(s)];
                state.schedulers[usize::from(k)].sandboxes[usize::from(s)] = now;
            }
            Step::Claim(k, s, p) => state.send_claim(k, s, p),
            Step::Reclaim(k, s) => {
                if let Errand::ReplyLost(p) =
                    state.schedulers[usize::from(k)].errands[usize::from(s)]
                {
                    state.send_claim(k, s, p);
                }
            }
            Step::Name(k, s, p) => {
                state.schedulers[usize::from(k)].errands[usize::from(s)] = Errand::Naming(p);
                state.network.names[usize::from(k)][usize::from(s)] |= bit(p);
            }
            Step::Remove(_, p) => state.remove(p),
            Step::ExecuteClaim {
                from,
                sandbox,
                pod,
                lost,
            } => {
                self.execute_claim(state, from, sandbox, pod, lost);
            }
            Step::ExecuteName { from, sandbox, pod } => state.execute_name(from, sandbox, pod),
            Step::ExecuteRetire { from, pod } => self.execute_retire(state, from, pod),
            Step::ExecutePublish {
                from,
                sandbox,
                pod,
                lost,
            } => {
                self.execute_publish(state, from, sandbox, pod, lost);
            }
            Step::Hear {
                from: _,
                to,
                sandbox,
                pod,
            } => {
                state.agents[usize::from(to)][usize::from(pod)] = Work::Heard(sandbox);
            }
            Step::Arm(n, p) => self.arm(state, usize::from(n), p),
            Step::Publish(n, p) => {
                let work = &mut state.agents[usize::from(n)][usize::from(p)];
                if let Work::Armed(s) | Work::ReplyLost(s) = *work {
                    *work = Work::Publishing(s);
                    state.network.publications[usize::from(n)][usize::from(p)] |= bit(s);
                }
            }
        }
    }

    fn crash_scheduler(&self, state: &mut State, k: SchedulerId) {
        state.budget.scheduler_crashes -= 1;
        let scheduler = &mut state.schedulers[usize::from(k)];
        scheduler.pods = [WarmPod::Unknown; MAX_PODS];
        scheduler.pods[self.pods..].fill(WarmPod::Gone);
        scheduler.sandboxes = [Sandbox::Unknown; MAX_SANDBOXES];
        scheduler.sandboxes[self.sandboxes..].fill(Sandbox::NotYet);
        scheduler.errands = [Errand::None; MAX_SANDBOXES];
        scheduler.given_up = [false; MAX_PODS];
        scheduler.stream = [0; MAX_PODS];
    }

    fn crash_agent(&self, state: &mut State, n: NodeId) {
        state.budget.agent_crashes -= 1;
        state.agents[usize::from(n)] = [Work::None; MAX_PODS];
        if self.is(Mutant::NoSnapshot) {
            for scheduler in &mut state.schedulers {
                for p in ids(self.pods).filter(|p| node_of(*p) == usize::from(n)) {
                    scheduler.stream[usize::from(p)] = 0;
                }
            }
        }
    }

    fn arm(&self, state: &mut State, n: usize, p: PodId) {
        let Work::Heard(s) = state.agents[n][usize::from(p)] else {
            return;
        };
        let pod = &mut state.pods[usize::from(p)];
        if self.is(Mutant::PublishesBeforeArming) || n != node_of(p) {
            state.agents[n][usize::from(p)] = Work::Armed(s);
        } else if pod.alive {
            pod.armed |= bit(s);
            state.agents[n][usize::from(p)] = Work::Armed(s);
        } else {
            state.refuse(n, p);
        }
    }

    fn execute_claim(&self, state: &mut State, k: SchedulerId, s: SandboxId, p: PodId, lost: bool) {
        state.network.claims[usize::from(k)][usize::from(s)] &= !bit(p);
        let warm_pod = &mut state.warm_pods[usize::from(p)];
        let overwrites = self.is(Mutant::AssignedToNotSetOnce) && *warm_pod != WarmPod::Gone;
        if *warm_pod == WarmPod::Free || overwrites {
            *warm_pod = WarmPod::Assigned(s);
            state.pods[usize::from(p)].ever |= bit(s);
        }
        let now = *warm_pod;
        let scheduler = &mut state.schedulers[usize::from(k)];
        let errand = &mut scheduler.errands[usize::from(s)];
        if *errand != Errand::Claiming(p) {
            return; // Its sender crashed or gave up.
        }
        if lost {
            state.budget.lost_replies -= 1;
            *errand = if self.is(Mutant::LostReplyTakesAnotherPod) {
                Errand::None
            } else {
                Errand::ReplyLost(p)
            };
            return;
        }
        *errand = Errand::None;
        // 200 tells all, 404 that it is gone, 422 only that it is somebody else's.
        scheduler.learn(
            p,
            match now {
                WarmPod::Assigned(winner) if winner == s => now,
                WarmPod::Gone => now,
                _ if matches!(scheduler.pods[usize::from(p)], WarmPod::Free) => WarmPod::Taken,
                _ => scheduler.pods[usize::from(p)],
            },
        );
    }

    fn execute_retire(&self, state: &mut State, k: SchedulerId, p: PodId) {
        state.network.retirements[usize::from(k)] &= !bit(p);
        let warm_pod = &mut state.warm_pods[usize::from(p)];
        if *warm_pod == WarmPod::Free
            || (self.is(Mutant::AssignedToNotSetOnce) && *warm_pod != WarmPod::Gone)
        {
            // The reply is not modelled: the watch says the same, and nothing is owed until then.
            *warm_pod = WarmPod::Retired;
        }
    }

    fn execute_publish(&self, state: &mut State, n: NodeId, s: SandboxId, p: PodId, lost: bool) {
        state.network.publications[usize::from(n)][usize::from(p)] &= !bit(s);
        let sandbox = &mut state.sandboxes[usize::from(s)];
        let accepted = match *sandbox {
            Sandbox::Pending => true,
            Sandbox::Named(on) | Sandbox::Running(on) => {
                on == p || self.is(Mutant::PodNameNotSetOnce)
            }
            Sandbox::Unknown | Sandbox::NotYet | Sandbox::Gone => false,
        };
        if accepted {
            *sandbox = Sandbox::Running(p);
            let published = &mut state.published[usize::from(s)];
            published.pods |= bit(p);
            published.improper |=
                usize::from(n) != node_of(p) || state.pods[usize::from(p)].armed & bit(s) == 0;
        }
        let work = &mut state.agents[usize::from(n)][usize::from(p)];
        if *work != Work::Publishing(s) {
            return; // Its sender crashed.
        }
        if lost {
            state.budget.lost_replies -= 1;
            *work = Work::ReplyLost(s);
        } else if accepted {
            *work = Work::Published(s);
        } else {
            *work = Work::Refused(s);
        }
    }
}

impl State {
    fn refuse(&mut self, n: usize, p: PodId) {
        let work = &mut self.agents[n][usize::from(p)];
        if let Work::Heard(s) = *work {
            *work = Work::Refused(s);
        }
    }

    fn remove(&mut self, p: PodId) {
        self.warm_pods[usize::from(p)] = WarmPod::Gone;
        self.pods[usize::from(p)].alive = false;
    }

    fn send_claim(&mut self, k: SchedulerId, s: SandboxId, p: PodId) {
        self.schedulers[usize::from(k)].errands[usize::from(s)] = Errand::Claiming(p);
        self.network.claims[usize::from(k)][usize::from(s)] |= bit(p);
    }

    fn execute_name(&mut self, k: SchedulerId, s: SandboxId, p: PodId) {
        self.network.names[usize::from(k)][usize::from(s)] &= !bit(p);
        let sandbox = &mut self.sandboxes[usize::from(s)];
        if *sandbox == Sandbox::Pending {
            *sandbox = Sandbox::Named(p);
        }
        let now = *sandbox;
        let scheduler = &mut self.schedulers[usize::from(k)];
        if scheduler.errands[usize::from(s)] == Errand::Naming(p) {
            scheduler.errands[usize::from(s)] = Errand::None;
            scheduler.sandboxes[usize::from(s)] = now;
        }
    }
}
