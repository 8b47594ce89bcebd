//! What must hold. Safety in every state, liveness in every state in which no protocol step is left.

use stateright::{Model, Property};

use crate::config::Protocol;
use crate::state::{Sandbox, State, WarmPod};

/// I1.
pub const ONE_SANDBOX_A_POD: &str = "I1: a WarmPod serves at most one Sandbox, ever";
/// I2.
pub const ONE_POD_A_SANDBOX: &str = "I2: a Sandbox is published on at most one pod";
/// I3.
pub const PUBLISHED_PROPERLY: &str =
    "I3: only the agent of the pod's node publishes it, after arming it";
/// The pod of a running Sandbox is never deleted by the protocol.
pub const NOT_PULLED_AWAY: &str = "I4: the pod of a running Sandbox is not deleted";
/// Liveness.
pub const NONE_STUCK: &str = "every live Sandbox is published, or no usable pod is left";
/// No garbage.
pub const NONE_LEFT_BEHIND: &str = "no WarmPod is left that serves nobody";
/// Economy; holds only where nothing but replies is lost.
pub const THRIFT: &str = "a lost reply costs no second pod";
/// No cycles; see [`State::rank`].
pub const PROGRESS: &str = "every step makes progress";

/// The properties of every configuration.
pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_SANDBOX_A_POD, |_, state: &State| {
            state.pods.iter().all(|p| p.ever.count_ones() <= 1)
        }),
        Property::always(ONE_POD_A_SANDBOX, |_, state: &State| {
            state.published.iter().all(|p| p.pods.count_ones() <= 1)
        }),
        Property::always(PUBLISHED_PROPERLY, |_, state: &State| {
            state.published.iter().all(|p| !p.improper)
        }),
        Property::always(NOT_PULLED_AWAY, |_, state: &State| {
            state.sandboxes.iter().all(|s| match s {
                Sandbox::Running(pod) => state.warm_pods[usize::from(*pod)] != WarmPod::Gone,
                _ => true,
            })
        }),
        Property::always(NONE_STUCK, |protocol: &Protocol, state: &State| {
            none_stuck(protocol, state) || !settled(protocol, state)
        }),
        Property::always(NONE_LEFT_BEHIND, |protocol: &Protocol, state: &State| {
            none_left_behind(state) || !settled(protocol, state)
        }),
        Property::always(THRIFT, |protocol: &Protocol, state: &State| {
            // With any other fault a second pod is the price of not being stuck.
            protocol.budget.left() > u32::from(protocol.budget.lost_replies)
                || protocol.schedulers > 1
                || (0..protocol.sandboxes)
                    .all(|s| state.pods.iter().filter(|p| p.ever >> s & 1 == 1).count() <= 1)
        }),
        // Something happens at all: a model in which nothing can would pass everything above.
        Property::sometimes("all are published", |protocol: &Protocol, state: &State| {
            let running = |s: &Sandbox| matches!(s, Sandbox::Running(_));
            state.sandboxes[..protocol.sandboxes].iter().all(running)
        }),
    ]
}

/// That no step leads back; apart from the others because it computes every step of every state again.
pub fn progress(protocol: &Protocol, state: &State) -> bool {
    protocol
        .next_states(state)
        .iter()
        .all(|next| next.rank() > state.rank())
}

/// Whether nothing is left to do: faults and users may act again, the programs will not.
fn settled(protocol: &Protocol, state: &State) -> bool {
    let mut actions = Vec::new();
    protocol.protocol_actions(state, &mut actions);
    actions.is_empty()
}

fn none_stuck(protocol: &Protocol, state: &State) -> bool {
    state.sandboxes.iter().all(|sandbox| match sandbox {
        Sandbox::Pending | Sandbox::Named(_) => (0..protocol.pods).all(|p| !state.usable(p)),
        Sandbox::Unknown | Sandbox::NotYet | Sandbox::Running(_) | Sandbox::Gone => true,
    })
}

fn none_left_behind(state: &State) -> bool {
    (0u8..)
        .zip(&state.warm_pods)
        .all(|(pod, warm_pod)| match warm_pod {
            WarmPod::Assigned(sandbox) => match state.sandboxes[usize::from(*sandbox)] {
                Sandbox::Running(on) | Sandbox::Named(on) => on == pod,
                Sandbox::Pending => true,
                Sandbox::Unknown | Sandbox::NotYet | Sandbox::Gone => false,
            },
            WarmPod::Retired => false,
            WarmPod::Unknown | WarmPod::Free | WarmPod::Taken | WarmPod::Gone => true,
        })
}
