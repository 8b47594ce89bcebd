//! Renders the chart with real helm and reads what comes out, for the tests of the chart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};

use pilotlight_cluster::Target;
use pilotlight_demo::{NAMESPACE, workspace};
use serde_json::Value;

pub fn chart() -> PathBuf {
    workspace().join("deploy/chart")
}

/// The user's, else the one that the local cluster brings.
pub fn helm_program() -> PathBuf {
    Target::Given(PathBuf::new()).tool("helm").unwrap()
}

pub fn helm(arguments: &[&str]) -> Output {
    Command::new(helm_program())
        .args(arguments)
        .output()
        .unwrap()
}

pub fn template(arguments: &[&str]) -> Output {
    let chart = chart();
    let mut all = vec![
        "template",
        "pilotlight",
        chart.to_str().unwrap(),
        "--namespace",
        NAMESPACE,
    ];
    all.extend(arguments);
    helm(&all)
}

pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The objects of a rendering.
pub fn render(arguments: &[&str]) -> Vec<Value> {
    let output = template(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    format!("\n{}", String::from_utf8_lossy(&output.stdout))
        .split("\n---\n")
        .filter(|text| {
            text.lines()
                .any(|line| !line.is_empty() && !line.starts_with('#'))
        })
        .map(yaml)
        .collect()
}

pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// Every right of a role as `group/resource[/name]: verb verb`.
pub fn rights(role: &Value) -> BTreeSet<String> {
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let mut verbs = words(&rule["verbs"]);
        verbs.sort();
        let only = words(&rule["resourceNames"]);
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let suffix = if only.is_empty() {
                    String::new()
                } else {
                    format!("[{}]", only.join(","))
                };
                let right = format!("{group}/{resource}{suffix}: {}", verbs.join(" "));
                assert!(found.insert(right), "{group}/{resource} stands twice");
            }
        }
    }
    found
}
