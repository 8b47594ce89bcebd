//! Telling users what their sandboxes were refused. Called by [`Apply::write`].

use jiff::Timestamp;
use kube::api::Patch;
use pilotlight_common::kinds::{
    Condition, ConditionStatus, Sandbox, SandboxPhase, merge_conditions,
};
use pilotlight_common::names::conditions::NETWORK_BLOCKED;
use pilotlight_common::stream::ObjectId;
use serde::Deserialize;
use serde_json::json;

use super::{Apply, ApplyError, CONFLICTS, Metadata};
use crate::api::dns::RefusedName;

/// What is needed of a Sandbox.
#[derive(Debug, Deserialize)]
struct View {
    metadata: Metadata,
    #[serde(default)]
    status: StatusView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusView {
    phase: Option<SandboxPhase>,
    conditions: Vec<Condition>,
}

impl Apply {
    /// Sets the condition beside the others, which are the scheduler's and the publication's: with the resource version, since a list
    /// is written whole.
    pub(super) async fn blocked(
        &self,
        sandbox: &ObjectId,
        names: &[RefusedName],
        packets: u64,
    ) -> Result<(), ApplyError> {
        let mut conflict = String::new();
        for _ in 0..CONFLICTS {
            let current: View = self.get::<Sandbox, _>(sandbox).await?;
            if current.metadata.uid != sandbox.uid
                || current.status.phase != Some(SandboxPhase::Running)
            {
                return Err(ApplyError::NotFound);
            }
            let now = Timestamp::now();
            // Whole seconds, as every other condition.
            let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
            let condition = condition(names, packets, now);
            let Some(merged) = merge_conditions(&current.status.conditions, vec![condition]) else {
                return Ok(());
            };
            let patch = json!({
                "metadata": {"uid": sandbox.uid, "resourceVersion": current.metadata.resource_version},
                "status": {"conditions": merged},
            });
            match self
                .patch::<Sandbox>(sandbox, Some("status"), &Patch::Merge(patch))
                .await
            {
                Err(ApplyError::Conflict(message)) => conflict = message,
                other => return other,
            }
        }
        // Not `Conflict`, which would be taken for another UID.
        Err(ApplyError::Server(conflict))
    }
}

fn condition(names: &[RefusedName], packets: u64, now: Timestamp) -> Condition {
    // A resolver that is refused asks again with its search domains behind the name.
    let is_the_same = |longer: &str, name: &str| {
        longer
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let told: Vec<String> = names
        .iter()
        .filter(|longer| {
            !names
                .iter()
                .any(|name| is_the_same(&longer.name, &name.name))
        })
        .map(|RefusedName { name, times }| match times {
            1 => name.clone(),
            times => format!("{name} ({times} times)"),
        })
        .collect();
    let mut message = String::new();
    if !told.is_empty() {
        message = format!(
            "Names that are not allowed: {}. Allow what the sandbox needs in spec.networkAccess.egress.",
            told.join(", ")
        );
    }
    if packets > 0 {
        let space = if message.is_empty() { "" } else { " " };
        let were = if packets == 1 {
            "packet was"
        } else {
            "packets were"
        };
        message = format!(
            "{message}{space}{packets} {were} refused: no allowed name had answered with that address and port."
        );
    }
    let (status, reason) = (ConditionStatus::True, "NotAllowed");
    Condition::new(NETWORK_BLOCKED, status, reason, &message, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_to_allow() {
        let name = |name: &str, times| RefusedName {
            name: name.to_owned(),
            times,
        };
        let said = |names: &[RefusedName], packets| {
            condition(names, packets, Timestamp::UNIX_EPOCH)
                .message
                .unwrap_or_default()
        };
        assert_eq!(
            said(&[name("pypi.org", 3), name("x.org", 1)], 0),
            "Names that are not allowed: pypi.org (3 times), x.org. Allow what the sandbox needs in spec.networkAccess.egress."
        );
        assert_eq!(
            said(&[], 1),
            "1 packet was refused: no allowed name had answered with that address and port."
        );
        assert!(said(&[name("x.org", 1)], 2).ends_with("egress. 2 packets were refused: no allowed name had answered with that address and port."));
        let searched = [name("x.org.ns.svc.cluster.local", 2), name("x.org", 1)];
        assert!(said(&searched, 0).starts_with("Names that are not allowed: x.org. Allow"));
        let most: Vec<RefusedName> = (0..16).map(|_| name(&"x".repeat(253), u64::MAX)).collect();
        // Conditions hold 32,768 characters.
        assert!(said(&most, u64::MAX).len() < 32_768);
    }
}
