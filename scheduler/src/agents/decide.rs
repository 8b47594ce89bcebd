//! What to do for one Sandbox: a pure function of what is known of it and the time. Called by [`super::index`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::metadata;
use super::pod::{claim, claim_name, pod};
use super::service::{ports, selector, service};
use super::status::{self, Findings};
use super::view::{Child, ClaimView, Ownership, PodView, SandboxView, ServiceView};
use super::write::{Kind, Slot, Write};

use pilotlight_common::agents::names::{ADOPTABLE_LABEL, NAME_HASH_LABEL};

/// Time between two pods of a Sandbox whose pods fail: one that fails at once would keep the node busy.
const RECREATE_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// What is known of a Sandbox.
pub struct Known<'a> {
    /// The Sandbox, its status as it was said last.
    pub sandbox: &'a SandboxView,
    /// The pods that are its own, and the one that has its name.
    pub pods: Vec<&'a PodView>,
    /// The Service of its name.
    pub service: Option<&'a ServiceView>,
    /// Claims that have the names of its templates.
    pub claims: Vec<&'a ClaimView>,
    /// What could not be done, why (nothing, where the object only changed meanwhile), and when it is tried again.
    pub failures: Vec<(&'a Slot, &'a str, Timestamp)>,
    /// When its status was written last, or it was first seen.
    pub last: Timestamp,
    /// Domain of the cluster.
    pub domain: &'a str,
}

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Writes, all of which may go out at once.
    pub writes: Vec<Write>,
    /// When to look again, though nothing changes.
    pub at: Option<Timestamp>,
    /// What was to be done, whether it is now or only after a pause. What failed and is not among it needs not be done any more.
    pub wanted: Vec<Slot>,
}

impl Decision {
    fn look_again(&mut self, at: Timestamp) {
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
    }

    /// Does something, unless it failed and it is not time to try again.
    fn write(&mut self, known: &Known<'_>, now: Timestamp, write: Write) {
        let slot = write.slot();
        self.wanted.push(slot.clone());
        let failed = known.failures.iter().find(|(failed, ..)| **failed == slot);
        match failed {
            Some((_, _, again)) if *again > now => self.look_again(*again),
            _ => self.writes.push(write),
        }
    }
}

/// Decides.
pub fn decide(known: &Known<'_>, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let sandbox = known.sandbox;
    // What is its own goes with it.
    if sandbox.identity.deleting {
        return decision;
    }
    if sandbox.expired(now) {
        end(known, now, &mut decision);
        return decision;
    }
    if let Some(end) = sandbox.spec.shutdown_time {
        decision.look_again(end);
    }
    let mut findings = Findings {
        pod: None,
        pod_unknown: false,
        service: None,
        several: None,
        errors: Vec::new(),
        domain: known.domain,
    };
    let own = |pod: &&&PodView| pod.ownership(sandbox) == Ownership::Own;
    let pods = known.pods.iter().filter(own).count();
    claims(known, now, &mut decision, &mut findings);
    if pods > 1 {
        findings.several = Some(pods);
    } else {
        // Its own, whatever it is called, before another of its name.
        let pod = known.pods.iter().find(own).or(known.pods.first()).copied();
        findings.pod = pod;
        the_pod(known, now, pod, &mut decision, &mut findings);
        the_service(known, now, &mut decision, &mut findings);
    }
    // What is made or changed now says more a moment later.
    if decision.writes.is_empty() {
        for (slot, message, _) in &known.failures {
            if decision.wanted.contains(slot) && !message.is_empty() {
                findings.errors.push((*message).to_owned());
                findings.pod_unknown |= matches!(slot, Slot::Child(Kind::Pod, _));
            }
        }
        let wanted = status::status(sandbox, &findings, now);
        say(known, now, &wanted, &mut decision);
    }
    decision
}

fn say(
    known: &Known<'_>,
    now: Timestamp,
    wanted: &pilotlight_common::agents::v1beta1::SandboxStatus,
    decision: &mut Decision,
) {
    let sandbox = known.sandbox;
    match status::due(&sandbox.status, wanted, known.last, now) {
        Some(at) if at <= now => {
            let write = Write::Status {
                sandbox: sandbox.identity.object_id(),
                patch: status::patch(wanted),
            };
            decision.write(known, now, write);
        }
        Some(at) => decision.look_again(at),
        None => {}
    }
}

/// Its time is over: that is said first, then its pod and Service go, and with policy Delete the Sandbox.
fn end(known: &Known<'_>, now: Timestamp, decision: &mut Decision) {
    let sandbox = known.sandbox;
    if !status::is_marked_expired(&sandbox.status) {
        say(known, now, &status::expired(sandbox, now), decision);
        return;
    }
    for pod in &known.pods {
        if pod.ownership(sandbox) == Ownership::Own && !pod.identity.deleting {
            decision.write(known, now, delete(Kind::Pod, pod));
        }
    }
    if let Some(service) = known.service
        && service.ownership(sandbox) == Ownership::Own
        && !service.identity.deleting
    {
        decision.write(known, now, delete(Kind::Service, service));
    }
    if sandbox.is_deleted_at_its_end() {
        let write = Write::DeleteSandbox(sandbox.identity.object_id());
        decision.write(known, now, write);
    }
}

fn claims(known: &Known<'_>, now: Timestamp, decision: &mut Decision, findings: &mut Findings<'_>) {
    let sandbox = known.sandbox;
    for template in sandbox.spec.volume_claim_templates.iter().flatten() {
        let name = claim_name(sandbox, template);
        let found = known.claims.iter().find(|c| c.identity.key.name == name);
        let Some(found) = found else {
            let write = Write::Create {
                kind: Kind::Claim,
                namespace: sandbox.identity.key.namespace.clone(),
                name,
                object: claim(sandbox, template),
            };
            decision.write(known, now, write);
            continue;
        };
        match found.ownership(sandbox) {
            Ownership::Own => {}
            Ownership::Adoptable => {
                decision.write(known, now, adopt(Kind::Claim, sandbox, found, &json!({})));
            }
            Ownership::Unowned => findings.errors.push(not_adopted("PVC", &name)),
            Ownership::Foreign(owner) => findings
                .errors
                .push(not_its_own(sandbox, "PVC", &name, owner)),
        }
    }
}

fn the_pod(
    known: &Known<'_>,
    now: Timestamp,
    found: Option<&PodView>,
    decision: &mut Decision,
    findings: &mut Findings<'_>,
) {
    let sandbox = known.sandbox;
    let Some(found) = found else {
        if !sandbox.suspended() {
            let write = Write::Create {
                kind: Kind::Pod,
                namespace: sandbox.identity.key.namespace.clone(),
                name: sandbox.identity.key.name.clone(),
                object: pod(sandbox),
            };
            decision.write(known, now, write);
        }
        return;
    };
    let name = &found.identity.key.name;
    let ownership = found.ownership(sandbox);
    if sandbox.suspended() {
        // Somebody else's stays, and the condition says so.
        if ownership == Ownership::Own && !found.identity.deleting {
            decision.write(known, now, delete(Kind::Pod, found));
        }
        return;
    }
    match ownership {
        Ownership::Own => {
            if let Some(changes) = metadata::difference(sandbox, found) {
                let write = patch(Kind::Pod, found, &json!({ "metadata": changes }));
                decision.write(known, now, write);
            }
            if found.facts.phase == "Failed" && sandbox.recreate_failed && !found.identity.deleting
            {
                let after = found.identity.created.saturating_add(RECREATE_AFTER);
                let after = after.unwrap_or(now);
                if after <= now {
                    decision.write(known, now, delete(Kind::Pod, found));
                } else {
                    decision.look_again(after);
                }
            }
        }
        Ownership::Adoptable => {
            let changes = metadata::difference(sandbox, found).unwrap_or_else(|| json!({}));
            decision.write(known, now, adopt(Kind::Pod, sandbox, found, &changes));
        }
        // Nothing of it is told: it is not this Sandbox's.
        Ownership::Unowned => {
            findings.errors.push(not_adopted("pod", name));
            unknown(findings);
        }
        Ownership::Foreign(owner) => {
            findings
                .errors
                .push(not_its_own(sandbox, "pod", name, owner));
            unknown(findings);
        }
    }
}

fn unknown(findings: &mut Findings<'_>) {
    findings.pod = None;
    findings.pod_unknown = true;
}

fn the_service<'a>(
    known: &Known<'a>,
    now: Timestamp,
    decision: &mut Decision,
    findings: &mut Findings<'a>,
) {
    let sandbox = known.sandbox;
    let wanted = sandbox.spec.service;
    let Some(found) = known.service else {
        if wanted == Some(true) {
            let write = Write::Create {
                kind: Kind::Service,
                namespace: sandbox.identity.key.namespace.clone(),
                name: sandbox.identity.key.name.clone(),
                object: service(sandbox),
            };
            decision.write(known, now, write);
        }
        return;
    };
    let name = &found.identity.key.name;
    let ownership = found.ownership(sandbox);
    if wanted == Some(false) {
        if ownership == Ownership::Own && !found.identity.deleting {
            decision.write(known, now, delete(Kind::Service, found));
        }
        return;
    }
    match ownership {
        Ownership::Own => {
            let changes = drift(sandbox, found, wanted == Some(true));
            if let Some(changes) = changes {
                decision.write(known, now, patch(Kind::Service, found, &changes));
            }
            findings.service = Some(found);
        }
        Ownership::Foreign(owner) => findings.errors.push(not_its_own(sandbox, "service", name, owner)),
        // Not asked for, and not its own: none of its business.
        _ if wanted.is_none() => {}
        Ownership::Unowned => findings.errors.push(not_adopted("service", name)),
        Ownership::Adoptable => match found.facts.cluster_ip.as_deref() {
            None | Some("" | "None") => {
                let changes = drift(sandbox, found, true).unwrap_or_else(|| json!({}));
                let mut write = adopt(Kind::Service, sandbox, found, &changes["metadata"]);
                if let Write::Patch { patch, .. } = &mut write
                    && changes["spec"].is_object()
                {
                    patch["spec"] = changes["spec"].clone();
                }
                decision.write(known, now, write);
            }
            Some(address) => findings.errors.push(format!(
                "cannot adopt service {name:?}: ClusterIP is {address:?} (expected \"None\", field is immutable)"
            )),
        },
    }
}

/// What somebody changed of a Service that would take its traffic elsewhere.
fn drift(sandbox: &SandboxView, found: &ServiceView, with_ports: bool) -> Option<Value> {
    let selector = selector(sandbox);
    let mut changes = json!({});
    let labelled = selector
        .iter()
        .all(|(key, value)| found.labels.get(key) == Some(value));
    if !labelled {
        changes["metadata"] = json!({ "labels": selector });
    }
    if found.facts.selector != selector {
        let mut wanted = json!(selector);
        for key in found.facts.selector.keys() {
            if !selector.contains_key(key) {
                wanted[key.as_str()] = Value::Null;
            }
        }
        changes["spec"]["selector"] = wanted;
    }
    let ports = ports(&sandbox.spec.pod_template.spec);
    if with_ports && found.facts.ports != ports {
        changes["spec"]["ports"] = json!(ports);
    }
    (changes != json!({})).then_some(changes)
}

fn not_its_own(sandbox: &SandboxView, kind: &str, name: &str, owner: &OwnerReference) -> String {
    format!(
        "{kind} {name:?} is owned by {}/{} (UID: {}), not by sandbox {:?}",
        owner.kind, owner.name, owner.uid, sandbox.identity.key.name
    )
}

fn not_adopted(kind: &str, name: &str) -> String {
    format!(
        "cannot adopt unowned {kind} {name:?}: missing required pool authorization label ({ADOPTABLE_LABEL:?}) or sandbox tracking label ({NAME_HASH_LABEL:?})"
    )
}

fn delete<T>(kind: Kind, child: &Child<T>) -> Write {
    Write::Delete {
        kind,
        object: child.identity.object_id(),
        revision: None,
    }
}

fn patch<T>(kind: Kind, child: &Child<T>, changes: &Value) -> Write {
    let mut patch = changes.clone();
    patch["metadata"]["uid"] = child.identity.uid.clone().into();
    Write::Patch {
        kind,
        object: child.identity.object_id(),
        patch,
    }
}

/// Takes it: at this revision only, since somebody else may be taking it, too.
fn adopt<T>(kind: Kind, sandbox: &SandboxView, child: &Child<T>, metadata: &Value) -> Write {
    let mut owners = child.owners.clone();
    owners.push(sandbox.owner_reference());
    let mut changes = json!({ "metadata": metadata });
    if !changes["metadata"].is_object() {
        changes["metadata"] = json!({});
    }
    changes["metadata"]["ownerReferences"] = json!(owners);
    changes["metadata"]["resourceVersion"] = child.identity.revision.to_string().into();
    patch(kind, child, &changes)
}
