//! Which nodes may get sandbox pods: those whose agent listens and says it can arm them.

use jiff::Timestamp;

use crate::action::Action;
use crate::index::{Index, NODE_GRACE, Timer};

pub(super) fn label(index: &mut Index, name: &str, now: Timestamp) -> Option<Action> {
    let node = index.nodes.get_mut(name)?;
    node.view.as_ref()?;
    if node.busy || node.not_before > now {
        return None;
    }
    let wanted = if node.is_up() {
        true
    } else {
        // After a start or a failover the agents' streams are still on their way.
        let since = *node.silent_since.get_or_insert(now);
        let due = since.saturating_add(NODE_GRACE).unwrap_or(now);
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
