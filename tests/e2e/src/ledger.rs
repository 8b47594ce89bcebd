//! Every assignment and publication that the watches show, and what must never happen among them.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use pilotlight_bench::objects::text;

/// What was seen. Objects are told apart by UID, so that a successor of the same name is another.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// WarmPod to what `assignedTo` said.
    assigned: BTreeMap<String, String>,
    /// Sandbox to the pod it was published on.
    published: BTreeMap<String, String>,
    /// What must never happen, and did.
    violations: Vec<String>,
}

impl Ledger {
    /// Takes in one event of a WarmPod.
    pub fn warm_pod(&mut self, object: &DynamicObject) {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let now = text(object, "/status/assignedTo");
        match (self.assigned.get(&uid), now) {
            (None, Some(now)) => {
                self.assigned.insert(uid, now.to_owned());
            }
            (Some(before), now) if Some(before.as_str()) != now => {
                let violation = format!("WarmPod {name}: assignedTo went from {before} to {now:?}");
                self.violations.push(violation);
            }
            _ => {}
        }
    }

    /// Takes in one event of a Sandbox.
    pub fn sandbox(&mut self, object: &DynamicObject) {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let now = text(object, "/status/podName");
        match (self.published.get(&uid), now) {
            (None, Some(now)) => {
                let other = self.published.iter().find(|(_, pod)| *pod == now);
                if let Some((other, _)) = other {
                    let violation =
                        format!("pod {now}: published for {other} and for {uid} ({name})");
                    self.violations.push(violation);
                }
                self.published.insert(uid, now.to_owned());
            }
            (Some(before), now) if Some(before.as_str()) != now => {
                let violation = format!("Sandbox {name}: podName went from {before} to {now:?}");
                self.violations.push(violation);
            }
            _ => {}
        }
    }

    /// What must never happen, and did.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many sandboxes were published.
    pub fn published(&self) -> usize {
        self.published.len()
    }

    /// How many WarmPods were given to a sandbox.
    pub fn given(&self) -> usize {
        let given = self.assigned.values().filter(|to| !to.contains(':'));
        given.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_bench::objects;
    use serde_json::json;

    fn warm_pod(uid: &str, to: Option<&str>) -> DynamicObject {
        let mut object = objects::object(
            &objects::warm_pods(),
            uid,
            json!({ "status": { "assignedTo": to } }),
        );
        object.metadata.uid = Some(uid.to_owned());
        object
    }

    fn sandbox(uid: &str, pod: Option<&str>) -> DynamicObject {
        let mut object = objects::object(
            &objects::sandboxes(),
            uid,
            json!({ "status": { "podName": pod } }),
        );
        object.metadata.uid = Some(uid.to_owned());
        object
    }

    #[test]
    fn what_is_set_once_may_be_seen_often() {
        let mut ledger = Ledger::default();
        for to in [None, Some("a"), Some("a")] {
            ledger.warm_pod(&warm_pod("w", to));
            ledger.sandbox(&sandbox("s", to));
        }
        ledger.warm_pod(&warm_pod("idle", Some("retired:Expired")));
        assert_eq!(ledger.violations(), <[String; 0]>::default());
        assert_eq!((ledger.given(), ledger.published()), (1, 1));
    }

    #[test]
    fn a_change_and_a_pod_of_two_are_noticed() {
        for second in [Some("b"), None] {
            let mut ledger = Ledger::default();
            ledger.warm_pod(&warm_pod("w", Some("a")));
            ledger.warm_pod(&warm_pod("w", second));
            ledger.sandbox(&sandbox("s", Some("p")));
            ledger.sandbox(&sandbox("s", second));
            assert_eq!(ledger.violations().len(), 2);
        }
        let mut ledger = Ledger::default();
        ledger.sandbox(&sandbox("s", Some("p")));
        ledger.sandbox(&sandbox("t", Some("p")));
        assert_eq!(ledger.violations().len(), 1);
    }
}
