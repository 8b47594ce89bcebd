//! Status documents as kubelets and controllers write them, and what they come to.

use k8s_openapi::api::core::v1::Pod;
use pilotlight_common::names::PREPARED_CONDITION;
use serde_json::{Value, json};

use super::super::PodView;

/// A pod on a node with this status.
fn pod(status: &Value) -> PodView {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
        "spec": {"nodeName": "node-a", "containers": []},
        "status": status,
    }))
    .unwrap();
    PodView::from(pod)
}

/// The same pod while it is being deleted.
fn deleted(status: &Value) -> PodView {
    let mut view = pod(status);
    view.identity.deleting = true;
    view
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message})
}

fn container(state: &Value, last: &Value) -> Value {
    json!({
        "name": "sandbox", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
        "state": state, "lastState": last,
    })
}

fn terminated(reason: &str, exit_code: i32) -> Value {
    json!({"terminated": {"reason": reason, "exitCode": exit_code}})
}

fn running(last: &Value) -> Value {
    json!({"phase": "Running", "containerStatuses": [container(&json!({"running": {}}), last)]})
}

fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({"phase": "Pending", "containerStatuses": [container(&state, &json!({}))]})
}

fn word(trouble: Option<&super::Trouble>) -> Option<&str> {
    trouble.map(|t| t.reason.as_str())
}

#[test]
fn a_pod_that_no_node_has_room_for_says_so_in_the_schedulers_words() {
    let said = "0/2 nodes are available: 2 Insufficient memory.";
    let view = pod(&json!({
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", "Unschedulable", said)],
    }));
    let hold_up = view.hold_up.unwrap();
    assert_eq!(
        (hold_up.reason.as_str(), hold_up.message.as_str()),
        ("PodUnschedulable", said)
    );
    let long = "x".repeat(10_000);
    let view =
        pod(&json!({"conditions": [condition("PodScheduled", "False", "Unschedulable", &long)]}));
    assert_eq!(view.hold_up.unwrap().message.len(), 500);
}

#[test]
fn what_a_container_waits_for_comes_to_three_words_and_an_ordinary_start_to_none() {
    for (reason, expected) in [
        ("ErrImagePull", Some("ImagePullFailed")),
        ("ImagePullBackOff", Some("ImagePullFailed")),
        ("InvalidImageName", Some("ImagePullFailed")),
        ("ErrImageNeverPull", Some("ImagePullFailed")),
        ("CreateContainerConfigError", Some("ContainerNotCreated")),
        ("RunContainerError", Some("ContainerNotCreated")),
        ("CrashLoopBackOff", Some("ContainerCrashing")),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ] {
        let view = pod(&waiting(reason, "said"));
        assert_eq!(word(view.hold_up.as_ref()), expected, "{reason}");
        assert!(view.lives(), "{reason} is no end");
    }
}

#[test]
fn a_crash_loop_names_the_exit_code_of_the_last_run() {
    let state =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}});
    let view = pod(&json!({
        "phase": "Running",
        "containerStatuses": [container(&state, &terminated("Error", 3))],
    }));
    let message = view.unready.unwrap().message;
    assert_eq!(
        message,
        "container sandbox: it ended with exit code 3 (Error); back-off 10s restarting"
    );
}

#[test]
fn a_sandbox_killed_for_its_memory_has_ended_whether_it_was_started_again_or_not() {
    let oom = terminated("OOMKilled", 137);
    let down = json!({"phase": "Running", "containerStatuses": [container(&oom, &json!({}))]});
    let backing_off = json!({"phase": "Running", "containerStatuses": [
        container(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), &oom)
    ]});
    for status in [down, running(&oom), backing_off] {
        let view = pod(&status);
        assert_eq!(word(view.end().as_ref()), Some("OOMKilled"), "{status}");
        assert!(view.end().unwrap().message.contains("resources.memory"));
    }
    // Another container's death is not the sandbox's.
    let mut other = running(&oom);
    other["containerStatuses"][0]["name"] = json!("helper");
    assert!(pod(&other).lives());
}

#[test]
fn a_container_that_exits_is_trouble_and_no_end() {
    let view = pod(&json!({
        "phase": "Running",
        "conditions": [condition("Ready", "False", "ContainersNotReady", "")],
        "containerStatuses": [container(&terminated("Error", 1), &json!({}))],
    }));
    assert_eq!(word(view.unready.as_ref()), Some("ContainerCrashing"));
    assert!(view.lives());
    let back = pod(&running(&terminated("Error", 1)));
    assert!(back.lives());
}

#[test]
fn a_pod_that_is_not_ready_says_who_holds_it_up() {
    let prepared = |status: &str| condition(PREPARED_CONDITION, status, "Unconfined", "no filter");
    let ready = |status: &str| condition("Ready", status, "ReadinessGatesNotReady", "a gate");
    let of = |conditions: Value| pod(&json!({"phase": "Running", "conditions": conditions}));
    let view = of(json!([prepared("False"), ready("False")]));
    let unready = view.unready.unwrap();
    assert_eq!(
        (unready.reason.as_str(), unready.message.as_str()),
        ("PodNotPrepared", "Unconfined: no filter")
    );
    let view = of(json!([prepared("True"), ready("False")]));
    assert_eq!(word(view.unready.as_ref()), Some("PodNotReady"));
    assert!(view.prepared && !view.ready);
    let view = of(json!([prepared("True"), ready("True")]));
    assert!(view.ready && view.unready.is_none());
}

#[test]
fn every_way_of_losing_a_pod_has_its_own_word() {
    for (reason, expected) in [
        ("PreemptionByScheduler", "Preempted"),
        ("DeletionByTaintManager", "NodeLost"),
        ("DeletionByPodGC", "NodeLost"),
        ("EvictionByEvictionAPI", "Evicted"),
        ("TerminationByKubelet", "Evicted"),
        ("DeletionByRobot", "DeletionByRobot"),
        ("not a word", "PodDeleted"),
    ] {
        let status = json!({
            "phase": "Running",
            "conditions": [condition("DisruptionTarget", "True", reason, "why")],
        });
        assert!(pod(&status).lives(), "{reason}: announced is not ended");
        let end = deleted(&status).end().unwrap();
        assert_eq!(end.reason, expected, "{reason}");
        assert!(end.message.ends_with("why"), "{}", end.message);
        let mut failed = status.clone();
        failed["phase"] = json!("Failed");
        assert_eq!(pod(&failed).end().unwrap().reason, expected, "{reason}");
    }
}

#[test]
fn an_announcement_that_was_taken_back_says_nothing() {
    let status = json!({"phase": "Running", "conditions": [condition("DisruptionTarget", "False", "PreemptionByScheduler", "")]});
    assert_eq!(deleted(&status).end().unwrap().reason, "PodDeleted");
}

#[test]
fn what_the_kubelet_says_of_an_ended_pod_is_taken_over_where_it_is_a_word() {
    for (reason, expected) in [
        (Some("Evicted"), "Evicted"),
        (Some("NodeLost"), "NodeLost"),
        (Some("Preempting"), "Preempted"),
        (Some("OutOfcpu"), "OutOfcpu"),
        (Some("DeadlineExceeded"), "DeadlineExceeded"),
        (Some("no such word"), "ContainersEnded"),
        (None, "ContainersEnded"),
    ] {
        let view = pod(
            &json!({"phase": "Failed", "reason": reason, "message": "The node was low on resource: memory."}),
        );
        let end = view.end().unwrap();
        assert_eq!(end.reason, expected, "{reason:?}");
        assert!(end.message.contains("low on resource"), "{}", end.message);
    }
    assert_eq!(
        pod(&json!({"phase": "Succeeded"})).end().unwrap().reason,
        "ContainersEnded"
    );
}

/// What a kubelet evicts keeps the kubelet's word even though its container was killed on the way.
#[test]
fn the_cause_comes_before_its_consequence() {
    let status = json!({
        "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
        "conditions": [condition("DisruptionTarget", "True", "TerminationByKubelet", "")],
        "containerStatuses": [container(&terminated("OOMKilled", 137), &json!({}))],
    });
    assert_eq!(pod(&status).end().unwrap().reason, "Evicted");
}

#[test]
fn a_pod_without_a_status_is_neither_ready_nor_in_trouble() {
    let view = PodView::from(Pod::default());
    assert!(view.lives() && !view.ready);
    assert_eq!(
        (view.hold_up, view.unready, view.disruption),
        (None, None, None)
    );
}
