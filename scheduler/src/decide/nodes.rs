//! Which nodes may get sandbox pods: those whose agent listens, says it can arm them, and has every seccomp profile that a pod
//! may name.

use jiff::Timestamp;

use crate::action::Action;
use crate::index::{Index, NODE_GRACE, STREAM_GRACE, Timer};

pub(super) fn label(index: &mut Index, name: &str, now: Timestamp) -> Option<Action> {
    let node = index.nodes.get_mut(name)?;
    node.view.as_ref()?;
    // A node that is distrusted stays so until somebody takes the label away.
    if node.busy || node.not_before > now || node.is_distrusted() {
        return None;
    }
    let mut profiles = index.settings.defaults.seccomp.installed.values();
    let wanted = if node.is_up() {
        node.silent_since = None;
        profiles.all(|file| node.has_profile(file))
    } else {
        // After a start or a failover the agents' streams are still on their way.
        let since = *node.silent_since.get_or_insert(now);
        let grace = if node.was_heard {
            STREAM_GRACE
        } else {
            NODE_GRACE
        };
        let due = since.saturating_add(grace).unwrap_or(now);
        if due > now {
            index.timer(due, Timer::Node(name.to_owned()));
            return None;
        }
        false
    };
    if node.labelled() == wanted {
        return None;
    }
    node.busy = true;
    Some(Action::LabelNode {
        node: name.to_owned(),
        ready: wanted,
    })
}
