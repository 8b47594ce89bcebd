//! The headless Service of a Sandbox. Called by [`super::decide`].

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pilotlight_common::agents::names::{NAME_HASH_LABEL, name_hash};
use serde_json::{Map, Value, json};

use super::view::SandboxView;

/// What it selects by.
pub fn selector(sandbox: &SandboxView) -> BTreeMap<String, String> {
    let hash = name_hash(&sandbox.identity.key.name);
    BTreeMap::from([(NAME_HASH_LABEL.to_owned(), hash)])
}

/// All of it.
pub fn service(sandbox: &SandboxView) -> Value {
    let selector = selector(sandbox);
    let mut spec = json!({ "clusterIP": "None", "selector": selector });
    let ports = ports(&sandbox.spec.pod_template.spec);
    if !ports.is_empty() {
        spec["ports"] = json!(ports);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": sandbox.identity.key.name,
            "namespace": sandbox.identity.key.namespace,
            "labels": selector,
            "ownerReferences": [sandbox.owner_reference()],
        },
        "spec": spec,
    })
}

/// The ports that containers name, those of sidecars too, each once: by number and protocol. The first name of a port is kept, and a port
/// without one gets one.
pub fn ports(pod: &Map<String, Value>) -> Vec<ServicePort> {
    let list = |key: &str| pod.get(key).and_then(Value::as_array).into_iter().flatten();
    let sidecars = list("initContainers").filter(|c| c["restartPolicy"] == "Always");
    let mut found: BTreeMap<(i32, String), Option<String>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for port in list("containers")
        .chain(sidecars)
        .filter_map(|container| container["ports"].as_array())
        .flatten()
    {
        let number = port["containerPort"].as_i64();
        let Some(number) = number
            .and_then(|n| i32::try_from(n).ok())
            .filter(|n| *n > 0)
        else {
            continue;
        };
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let name = found.entry((number, protocol)).or_default();
        let said = port["name"].as_str().filter(|said| !said.is_empty());
        if let Some(said) = said
            && name.is_none()
            && names.insert(said.to_owned())
        {
            *name = Some(said.to_owned());
        }
    }
    let mut ports = Vec::new();
    for ((number, protocol), name) in found {
        let name = name.unwrap_or_else(|| {
            let base = format!("p-{number}-{}", protocol.to_lowercase());
            let numbered = (2..).map(|n| format!("{base}-{n}"));
            let mut free = std::iter::once(base.clone()).chain(numbered);
            let free = free.find(|name| !names.contains(name)).unwrap_or(base);
            names.insert(free.clone());
            free
        });
        ports.push(ServicePort {
            name: Some(name),
            port: number,
            protocol: Some(protocol),
            target_port: Some(IntOrString::Int(number)),
            ..ServicePort::default()
        });
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_there_once_and_keeps_its_first_name() {
        let pod = json!({
            "containers": [
                { "ports": [{ "containerPort": 80, "name": "web" }, { "containerPort": 53, "protocol": "UDP" }] },
                { "ports": [{ "containerPort": 80, "name": "again" }, { "containerPort": 81, "name": "web" }, { "containerPort": 82 }] },
            ],
            "initContainers": [
                { "ports": [{ "containerPort": 90 }] },
                { "restartPolicy": "Always", "ports": [{ "containerPort": 91, "name": "p-82-tcp" }] },
            ],
        });
        let Value::Object(pod) = pod else {
            unreachable!()
        };
        let named: Vec<_> = ports(&pod)
            .into_iter()
            .map(|port| (port.port, port.name.unwrap(), port.protocol.unwrap()))
            .collect();
        let expected = [
            (53, "p-53-udp", "UDP"),
            (80, "web", "TCP"),
            (81, "p-81-tcp", "TCP"),
            (82, "p-82-tcp-2", "TCP"),
            (91, "p-82-tcp", "TCP"),
        ];
        let expected = expected.map(|(n, name, p)| (n, name.to_owned(), p.to_owned()));
        assert_eq!(named, expected);
    }

    #[test]
    fn what_is_no_port_is_passed_over() {
        let pod = json!({ "containers": [{ "ports": [{ "containerPort": "x" }, {}, { "containerPort": 70_000_000_000_i64 }] }, {}, 3] });
        let Value::Object(pod) = pod else {
            unreachable!()
        };
        assert_eq!(ports(&pod), []);
    }
}
