//! What is written, and what a Sandbox's state means.

use super::*;

fn object(name: &str, uid: &str) -> ObjectId {
    ObjectId {
        namespace: "team".into(),
        name: name.into(),
        uid: uid.into(),
    }
}

fn assignment() -> Assignment {
    Assignment {
        owner: object("wp", "w"),
        pod_name: "wp".into(),
        sandbox: object("sb", "s"),
        endpoint: "wp.sandboxes.team.svc.cluster.local".into(),
        assigned_at: Timestamp::UNIX_EPOCH,
        cpus: 0,
        network: pilotlight_common::network::NetworkRules::default(),
    }
}

fn view(uid: &str, status: &Value) -> SandboxView {
    serde_json::from_value(
        json!({"metadata": {"uid": uid, "resourceVersion": "1"}, "status": status}),
    )
    .unwrap()
}

#[test]
fn what_the_sandbox_says_decides_a_lost_race() {
    use AgentRefusal::{PublishedElsewhere, SandboxGone};
    let reason = |attempt| match attempt {
        Attempt::Refused(reason, _) => Some(reason),
        _ => None,
    };
    for (status, want) in [
        (json!({}), Attempt::Unpublished),
        (json!({"phase": "Pending"}), Attempt::Unpublished),
        // The scheduler took the name for this pod before it assigned it.
        (
            json!({"phase": "Creating", "podName": "wp"}),
            Attempt::Unpublished,
        ),
        (
            json!({"phase": "Running", "podName": "wp"}),
            Attempt::Published,
        ),
        (
            json!({"phase": "Terminating", "podName": "wp"}),
            Attempt::Published,
        ),
    ] {
        assert_eq!(
            standing(&assignment(), &view("s", &status)),
            want,
            "{status}"
        );
    }
    for (uid, status, want) in [
        ("other", json!({}), SandboxGone),
        (
            "s",
            json!({"phase": "Failed", "podName": "wp"}),
            SandboxGone,
        ),
        ("s", json!({"phase": "Terminated"}), SandboxGone),
        ("s", json!({"phase": "Terminating"}), SandboxGone),
        (
            "s",
            json!({"phase": "Running", "podName": "x"}),
            PublishedElsewhere,
        ),
        (
            "s",
            json!({"phase": "Creating", "podName": "x"}),
            PublishedElsewhere,
        ),
    ] {
        let attempt = standing(&assignment(), &view(uid, &status));
        assert_eq!(reason(attempt), Some(want), "{status}");
    }
}

#[test]
fn a_warm_pod_that_somebody_has_is_never_written() {
    let status = |phase, assigned_to: Option<&str>| WarmPodStatusView {
        phase,
        assigned_to: assigned_to.map(str::to_owned),
    };
    assert!(wants_phase(&status(None, None), true));
    assert!(wants_phase(
        &status(Some(WarmPodPhase::Pending), None),
        true
    ));
    assert!(wants_phase(&status(Some(WarmPodPhase::Ready), None), false));
    assert!(!wants_phase(&status(Some(WarmPodPhase::Ready), None), true));
    for phase in [
        None,
        Some(WarmPodPhase::Pending),
        Some(WarmPodPhase::Ready),
        Some(WarmPodPhase::Assigned),
        Some(WarmPodPhase::Terminating),
    ] {
        for ready in [true, false] {
            assert!(!wants_phase(&status(phase, Some("s")), ready));
        }
    }
    for phase in [WarmPodPhase::Assigned, WarmPodPhase::Terminating] {
        for ready in [true, false] {
            assert!(!wants_phase(&status(Some(phase), None), ready));
        }
    }
}

#[test]
fn a_publication_is_a_status_the_kind_accepts() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let patch = publication(&assignment(), None, "node-1", now);
    assert_eq!(patch["status"]["startTime"], "2026-01-02T03:04:05.000000Z");
    assert_eq!(patch["metadata"], json!({"uid": "s"}));
    let status: pilotlight_common::kinds::SandboxStatus =
        serde_json::from_value(patch["status"].clone()).unwrap();
    assert_eq!(status.phase, Some(SandboxPhase::Running));
    assert_eq!(status.node_name.as_deref(), Some("node-1"));
    let types: Vec<_> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| c.type_)
        .collect();
    assert_eq!(types, ["Accepted", "Assigned", "Prepared", "Ready"]);
}

#[test]
fn a_phase_is_written_against_the_version_that_was_read() {
    let current = Metadata {
        uid: "w".into(),
        resource_version: "42".into(),
    };
    let now = Timestamp::UNIX_EPOCH;
    let patch = phase(&current, &object("wp", "p"), "node-1", true, now);
    assert_eq!(
        patch["metadata"],
        json!({"uid": "w", "resourceVersion": "42"})
    );
    assert_eq!(patch["status"]["phase"], "Ready");
    let patch = phase(&current, &object("wp", "p"), "node-1", false, now);
    assert_eq!(
        patch["status"],
        json!({"phase": "Pending", "readyAt": null})
    );
}

#[test]
fn usage_is_written_in_the_units_of_the_kind() {
    let usage = Usage {
        cpu_millis: 250,
        memory_bytes: (119 << 20) + 1,
    };
    assert_eq!(
        usage_patch(&object("sb", "s"), usage)["status"],
        json!({"resources": {"cpuUsage": "250m", "memoryUsage": "120Mi"}})
    );
}
