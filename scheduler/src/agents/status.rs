//! What is said of a Sandbox: upstream's condition types, reasons and messages, word for word, as clients match on them. Called by
//! [`super::decide`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pilotlight_common::agents::names::{NAME_HASH_LABEL, condition, name_hash, reason};
use pilotlight_common::agents::v1beta1::SandboxStatus;
use serde_json::{Value, json};

use super::view::{Ownership, PodView, SandboxView, ServiceView};

/// How long the first word of a Sandbox waits for a better one. What changes until its pod is ready is of no use to anybody, and a pod on its
/// way has three such changes within two seconds, each of them a write.
const FIRST_WORD: SignedDuration = SignedDuration::from_secs(1);
/// How long the next ones wait.
const NEXT_WORD: SignedDuration = SignedDuration::from_secs(3);

/// What was found of a Sandbox.
pub struct Findings<'a> {
    /// Its pod, or another of its name.
    pub pod: Option<&'a PodView>,
    /// Whether that could not be found out.
    pub pod_unknown: bool,
    /// Its Service.
    pub service: Option<&'a ServiceView>,
    /// How many pods it has, where those are several.
    pub several: Option<usize>,
    /// What could not be done.
    pub errors: Vec<String>,
    /// Domain of the cluster.
    pub domain: &'a str,
}

/// The status as it should be, its times taken from what was said before.
pub fn status(sandbox: &SandboxView, findings: &Findings<'_>, now: Timestamp) -> SandboxStatus {
    let own = findings
        .pod
        .filter(|pod| pod.ownership(sandbox) == Ownership::Own);
    let mut conditions = vec![
        suspended(sandbox, findings, own.is_some()),
        ready(sandbox, findings),
    ];
    conditions.extend(scheduled(findings, own));
    conditions.extend(own.and_then(finished));
    let name = &sandbox.identity.key.name;
    SandboxStatus {
        service_fqdn: findings.service.map(|service| {
            let namespace = &service.identity.key.namespace;
            format!("{name}.{namespace}.svc.{}", findings.domain)
        }),
        service: findings.service.map(|_| name.clone()),
        conditions: Some(dated(sandbox, conditions, now)),
        selector: Some(format!("{NAME_HASH_LABEL}={}", name_hash(name))),
        pod_ips: own
            .map(|pod| pod.facts.ips.clone())
            .filter(|ips| !ips.is_empty()),
        node_name: own.and_then(|pod| pod.facts.node.clone()),
        replicas: Some(i32::from(own.is_some())),
    }
}

/// The status of one whose time is over: what it says of what is alive is gone, how its pod ended stays.
pub fn expired(sandbox: &SandboxView, now: Timestamp) -> SandboxStatus {
    let before = sandbox.status.conditions.iter().flatten();
    let mut conditions: Vec<Said> = before
        .filter(|c| c.type_ != condition::READY && c.type_ != condition::POD_SCHEDULED)
        .map(|c| Said {
            type_: known(&c.type_),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
        })
        .filter(|said| !said.type_.is_empty())
        .collect();
    conditions.push(Said::new(
        condition::READY,
        "False",
        reason::SANDBOX_EXPIRED,
        "Sandbox has expired",
    ));
    SandboxStatus {
        conditions: Some(dated(sandbox, conditions, now)),
        ..SandboxStatus::default()
    }
}

/// Whether it is said already that its time is over.
pub fn is_marked_expired(status: &SandboxStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == condition::READY && c.reason == reason::SANDBOX_EXPIRED)
}

/// When the change from `before` to `after` is to be written; never where they say the same.
pub fn due(
    before: &SandboxStatus,
    after: &SandboxStatus,
    last: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    if says_the_same(before, after) {
        return None;
    }
    let of = |status: &SandboxStatus, type_: &str| {
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|c| c.type_ == type_);
        found.map(|c| (c.status.clone(), c.reason.clone()))
    };
    // The first word of one that is being made is of as little use as those until its pod is ready.
    let waits = (
        "False".to_owned(),
        reason::DEPENDENCIES_NOT_READY.to_owned(),
    );
    let ready = (
        of(before, condition::READY).unwrap_or_else(|| waits.clone()),
        of(after, condition::READY).unwrap_or(waits),
    );
    let settled = ("False".to_owned(), reason::NOT_SUSPENDED.to_owned());
    let suspended = (
        of(before, condition::SUSPENDED).unwrap_or_else(|| settled.clone()),
        of(after, condition::SUSPENDED).unwrap_or(settled),
    );
    let finished = (
        of(before, condition::FINISHED),
        of(after, condition::FINISHED),
    );
    let matters = ready.0 != ready.1 || suspended.0 != suspended.1 || finished.0 != finished.1;
    if matters {
        Some(now)
    } else {
        let wait = match before.conditions {
            None => FIRST_WORD,
            Some(_) => NEXT_WORD,
        };
        Some(last.saturating_add(wait).unwrap_or(now))
    }
}

/// The merge patch that makes one of the other.
pub fn patch(after: &SandboxStatus) -> Value {
    let SandboxStatus {
        service_fqdn,
        service,
        conditions,
        selector,
        pod_ips,
        node_name,
        replicas,
    } = after;
    // What is null is taken away.
    json!({
        "serviceFQDN": service_fqdn,
        "service": service,
        "conditions": conditions,
        "selector": selector,
        "podIPs": pod_ips,
        "nodeName": node_name,
        "replicas": replicas,
    })
}

fn says_the_same(before: &SandboxStatus, after: &SandboxStatus) -> bool {
    let undated = |status: &SandboxStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
        }
        let mut conditions = status.conditions.unwrap_or_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status.conditions = Some(conditions);
        status
    };
    undated(before) == undated(after)
}

/// A condition without its time.
struct Said {
    type_: &'static str,
    status: String,
    reason: String,
    message: String,
}

impl Said {
    fn new(type_: &'static str, status: &str, reason: &str, message: &str) -> Self {
        Self {
            type_,
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// One of our own types; empty for any other.
fn known(type_: &str) -> &'static str {
    let all = [
        condition::READY,
        condition::SUSPENDED,
        condition::POD_SCHEDULED,
        condition::FINISHED,
    ];
    all.into_iter().find(|t| *t == type_).unwrap_or_default()
}

fn dated(sandbox: &SandboxView, said: Vec<Said>, now: Timestamp) -> Vec<Condition> {
    let before = |type_: &str| {
        let mut conditions = sandbox.status.conditions.iter().flatten();
        conditions.find(|c| c.type_ == type_)
    };
    let mut said = said;
    said.sort_by_key(|s| s.type_);
    said.into_iter()
        .map(|said| {
            let since = before(said.type_)
                .filter(|before| before.status == said.status)
                .map_or(Time(now), |before| before.last_transition_time.clone());
            Condition {
                type_: said.type_.to_owned(),
                status: said.status,
                reason: said.reason,
                message: said.message,
                last_transition_time: since,
                observed_generation: sandbox.generation,
            }
        })
        .collect()
}

fn suspended(sandbox: &SandboxView, findings: &Findings<'_>, own: bool) -> Said {
    let said = |status, reason, message| Said::new(condition::SUSPENDED, status, reason, message);
    if !sandbox.suspended() {
        return said("False", reason::NOT_SUSPENDED, "Sandbox is not suspended");
    }
    match findings.pod {
        None if findings.pod_unknown => said(
            "Unknown",
            reason::POD_STATE_UNKNOWN,
            "Pod state is unknown. Sandbox suspension cannot be confirmed",
        ),
        None => said(
            "True",
            reason::POD_TERMINATED,
            "Pod has been terminated. Sandbox is suspended",
        ),
        Some(_) if !own => said(
            "False",
            reason::POD_NOT_OWNED,
            "Refused to delete pod because it is not owned by this sandbox",
        ),
        Some(_) => said(
            "False",
            reason::POD_TERMINATING,
            "Pod is terminating. Sandbox is suspending",
        ),
    }
}

fn ready(sandbox: &SandboxView, findings: &Findings<'_>) -> Said {
    let not = |reason, message: &str| Said::new(condition::READY, "False", reason, message);
    if let Some(count) = findings.several {
        let message = format!(
            "multiple Pods ({count}) are controlled by this Sandbox; refusing to choose or create a Pod"
        );
        return not(reason::MULTIPLE_PODS, &message);
    }
    if !findings.errors.is_empty() {
        let message = format!("Error seen: {}", findings.errors.join("\n"));
        return not(reason::RECONCILER_ERROR, &message);
    }
    if sandbox.suspended() {
        let message = match findings.pod {
            Some(_) => "Sandbox is suspending",
            None => "Sandbox is suspended",
        };
        return not(reason::SANDBOX_SUSPENDED, message);
    }
    let (pod_ready, mut message) = match findings.pod {
        None => (false, "Pod does not exist".to_owned()),
        Some(pod) => match (pod.facts.phase.as_str(), pod.facts.ready) {
            ("Succeeded", _) => return not(reason::POD_SUCCEEDED, "Pod completed successfully"),
            ("Failed", _) => return not(reason::POD_FAILED, "Pod failed"),
            ("Running", true) if pod.facts.ips.is_empty() => {
                (false, "Pod is Ready but has no podIPs yet".to_owned())
            }
            ("Running", true) => (true, "Pod is Ready".to_owned()),
            ("Running", false) => (false, "Pod is Running but not Ready".to_owned()),
            (phase, _) => (false, format!("Pod exists with phase: {phase}")),
        },
    };
    let required = sandbox.spec.service.unwrap_or(findings.service.is_some());
    if required {
        message += match findings.service {
            Some(_) => "; Service Exists",
            None => "; Service does not exist",
        };
    }
    if pod_ready && (!required || findings.service.is_some()) {
        Said::new(
            condition::READY,
            "True",
            reason::DEPENDENCIES_READY,
            &message,
        )
    } else {
        not(reason::DEPENDENCIES_NOT_READY, &message)
    }
}

/// The pod's own condition, so that one sees why a Sandbox has no node without looking at pods. Nothing where there is no pod, and of a
/// pod of somebody else nothing is told.
fn scheduled(findings: &Findings<'_>, own: Option<&PodView>) -> Option<Said> {
    let unknown = |message| {
        Said::new(
            condition::POD_SCHEDULED,
            "Unknown",
            reason::POD_SCHEDULING_UNKNOWN,
            message,
        )
    };
    if findings.pod.is_none() && findings.pod_unknown {
        return Some(unknown(
            "Pod state is unknown. Pod scheduling cannot be determined",
        ));
    }
    let pod = own?;
    let Some((status, why, message)) = &pod.facts.scheduled else {
        return Some(unknown("Pod has not reported a PodScheduled condition yet"));
    };
    let why = match (why.as_str(), status.as_str()) {
        ("", "True") => reason::POD_SCHEDULED,
        ("", _) => reason::POD_SCHEDULING_UNKNOWN,
        (why, _) => why,
    };
    Some(Said::new(condition::POD_SCHEDULED, status, why, message))
}

fn finished(pod: &PodView) -> Option<Said> {
    let (why, message) = match pod.facts.phase.as_str() {
        "Succeeded" => (reason::POD_SUCCEEDED, "Pod completed successfully"),
        "Failed" => (reason::POD_FAILED, "Pod failed"),
        _ => return None,
    };
    Some(Said::new(condition::FINISHED, "True", why, message))
}
