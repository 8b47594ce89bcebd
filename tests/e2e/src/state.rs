//! What a failed test prints: everything that could say why.

use std::fmt::Write;

use kube::api::DynamicObject;
use pilotlight_bench::objects::text;
use serde_json::Value;

use crate::scene::Scene;

/// Lines of each program's log.
const LOG_LINES: &str = "--tail=60";

/// Sandboxes, WarmPods and pods of a scene, and the ends of the programs' logs.
pub async fn describe(scene: &Scene) -> String {
    let mut all = format!("--- namespace {}\n", scene.namespace);
    for ((_, name), o) in &scene.sandboxes.objects() {
        let _ = writeln!(
            all,
            "sandbox {name}: {} pod {} ({})",
            text(o, "/status/phase").unwrap_or("-"),
            text(o, "/status/podName").unwrap_or("-"),
            not_ready_reason(o).unwrap_or("-"),
        );
    }
    for ((_, name), o) in &scene.warm_pods.objects() {
        let _ = writeln!(
            all,
            "warmpod {name}: {} on {} for {}{}",
            text(o, "/status/phase").unwrap_or("-"),
            text(o, "/status/nodeName").unwrap_or("-"),
            text(o, "/status/assignedTo").unwrap_or("-"),
            ending(o),
        );
    }
    for ((_, name), o) in &scene.pods.objects() {
        let _ = writeln!(
            all,
            "pod {name}: {} on {}{} {}",
            text(o, "/status/phase").unwrap_or("-"),
            text(o, "/spec/nodeName").unwrap_or("-"),
            ending(o),
            condition(o, "PodScheduled")
                .and_then(|c| c["message"].as_str())
                .unwrap_or(""),
        );
    }
    for line in scene.ledger().violations() {
        let _ = writeln!(all, "violation: {line}");
    }
    let logs = ["scheduler", "node-agent"].map(|component| {
        let mut command = scene.environment.installation.kubectl();
        let selector = format!("app.kubernetes.io/component={component}");
        let namespace = scene.environment.installation.namespace.clone();
        command.args(["-n", &namespace, "logs", "-l", &selector, LOG_LINES]);
        command.args(["--all-containers", "--prefix", "--timestamps"]);
        command
    });
    for mut command in logs {
        let read = tokio::task::spawn_blocking(move || crate::environment::output(&mut command));
        match read.await {
            Ok(Ok(log)) => all.push_str(&log),
            Ok(Err(error)) => {
                let _ = writeln!(all, "no logs: {error:#}");
            }
            Err(error) => {
                let _ = writeln!(all, "no logs: {error}");
            }
        }
    }
    all
}

fn ending(object: &DynamicObject) -> &'static str {
    match object.metadata.deletion_timestamp {
        Some(_) => ", being deleted",
        None => "",
    }
}

/// One condition.
pub fn condition<'a>(object: &'a DynamicObject, type_: &str) -> Option<&'a Value> {
    let all = object.data.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|c| c["type"] == type_)
}

/// Why the Ready condition is False.
pub fn not_ready_reason(object: &DynamicObject) -> Option<&str> {
    condition(object, "Ready")
        .filter(|c| c["status"] == "False")?
        .get("reason")?
        .as_str()
}
