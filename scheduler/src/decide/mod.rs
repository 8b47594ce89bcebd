//! Decisions: pure functions of the index and the time, called by [`crate::index::Index::decide`].
//!
//! Each looks only at what is dirty, marks in the index what it asks for (so that nothing is asked for twice)
//! and returns the [`Action`]s. Assignments come first, here and in the lanes of [`crate::apply`].

mod assign;
mod autoscale;
mod cold;
mod lifecycle;
mod network_policies;
mod nodes;
mod pool_status;
mod preloading;
mod runtime_status;
mod size;
mod sweep;
mod trespass;
mod validate;
mod volumes;

use jiff::Timestamp;

use crate::action::{Action, EventNote};
use crate::index::Index;
pub use autoscale::Needs;
pub(crate) use lifecycle::over;
pub use preloading::Preloading;
pub use trespass::{Verdict, judge};

/// Everything that is due now.
pub(crate) fn decide(index: &mut Index, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    assign::assign(index, now, &mut actions);
    for uid in std::mem::take(&mut index.dirty.sandboxes) {
        // Before all else: what its pod does is no concern of a sandbox that it does not serve.
        if trespass::is_open(index, &uid) {
            actions.extend(trespass::look(index, &uid, now));
        }
        if !trespass::is_open(index, &uid) {
            actions.extend(lifecycle::lifecycle(index, &uid, now));
        }
        actions.extend(volumes::grow(index, &uid, now));
        actions.extend(network_policies::write(index, &uid, now));
    }
    for key in std::mem::take(&mut index.dirty.warm_pods) {
        actions.extend(sweep::warm_pod(index, &key, now));
    }
    for key in std::mem::take(&mut index.dirty.pods) {
        actions.extend(sweep::pod(index, &key, now));
        actions.extend(validate::leftover(index, &key));
    }
    let pools = std::mem::take(&mut index.dirty.pools);
    for key in size::in_turn(index, pools) {
        size::size(index, &key, now, &mut actions);
        actions.extend(pool_status::pool_status(index, &key, now));
    }
    for node in std::mem::take(&mut index.dirty.nodes) {
        actions.extend(nodes::label(index, &node, now));
    }
    runtime_status::count_uses(index, now);
    for key in std::mem::take(&mut index.dirty.runtimes) {
        validate::runtime(index, &key, now, &mut actions);
        actions.extend(runtime_status::runtime_status(index, &key, now));
    }
    for (_, (about, refusal)) in std::mem::take(&mut index.invalid_profiles) {
        let event = EventNote {
            kind: "SandboxProfile",
            warning: true,
            reason: refusal.reason.as_str().to_owned(),
            message: refusal.message,
        };
        actions.push(Action::Record { about, event });
    }
    for (about, event) in std::mem::take(&mut index.records) {
        actions.push(Action::Record { about, event });
    }
    actions
}
