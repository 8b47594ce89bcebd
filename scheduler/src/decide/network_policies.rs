//! NetworkPolicies, where they and not the agents keep sandboxes to their rules: which one is to be written. Called by [`super::decide`].
//!
//! A namespace's own policy denies everything to every sandbox pod from its first one on (`apply/network_policies.rs`), so a policy that
//! is written late allows late, and never too much.

use jiff::Timestamp;

use crate::action::{Action, WriteNetworkPolicy};
use crate::index::{Index, Timer};
use crate::view::Key;

/// The policy of a sandbox's pod that is to be written now, if any.
pub(super) fn write(index: &mut Index, uid: &str, now: Timestamp) -> Option<Action> {
    if !index.settings.defaults.networks_by_policy {
        return None;
    }
    let leading_since = index.leading_since?;
    let entry = index.sandboxes.get_mut(uid)?;
    if entry.view.is_final() || entry.view.identity.deleting {
        return None;
    }
    let key = Key {
        namespace: entry.view.identity.key.namespace.clone(),
        name: entry.view.pod_name.clone()?,
    };
    let pod = index.pods.get(&key)?.identity.object_id();
    let digest = entry.network.digest();
    let policy = &mut entry.network_policy;
    if policy.busy || policy.written == Some(digest) {
        return None;
    }
    // Another leader may have written rules that an edit took away meanwhile; of a sandbox that is younger than this one's time, nobody
    // has written any.
    let untouched = policy.written.is_none() && entry.first_seen > leading_since;
    if untouched && entry.network.is_empty() {
        return None;
    }
    if policy.not_before > now {
        let at = policy.not_before;
        index.timer(at, Timer::Sandbox(uid.to_owned()));
        return None;
    }
    policy.busy = true;
    Some(Action::WriteNetworkPolicy(WriteNetworkPolicy {
        sandbox: entry.view.identity.object_id(),
        pod,
        rules: entry.network.clone(),
    }))
}
