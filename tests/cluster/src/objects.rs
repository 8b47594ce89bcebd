//! The objects every cluster has from the start: the DNS Service, the class of gVisor pods, the class of volumes, and the rights of
//! the control plane's own clients. Pure text; `up` applies it.

use serde_json::{Value, json};

use crate::node_config::GVISOR_HANDLER;
use crate::plan::{DNS_SERVICE, Plan};
use crate::storage::PROVISIONER;

/// The RuntimeClass whose pods run in gVisor, on every local cluster.
pub const GVISOR_RUNTIME_CLASS: &str = "gvisor";
/// The StorageClass of every local cluster: folders of the node that the pod runs on. It can grow a volume and counts no bytes.
pub const STORAGE_CLASS: &str = "pilotlight-local";

/// All of them, as one list for `kubectl apply`.
pub(crate) fn all(plan: &Plan) -> String {
    let items = [dns(plan), classes(), storage_rights()].concat();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    format!("{list:#}\n")
}

/// The DNS Service without a selector, its hand-made endpoint on the host, and the rights of the DNS server.
fn dns(plan: &Plan) -> Vec<Value> {
    let ports = |target: &str| {
        json!([
            { "name": "dns", "port": 53, "protocol": "UDP", (target): 53 },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP", (target): 53 },
        ])
    };
    let endpoint_ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
    ]);
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
            "spec": { "clusterIP": DNS_SERVICE.to_string(), "ports": ports("targetPort") },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-host", "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns" },
            },
            "addressType": "IPv4",
            "ports": endpoint_ports,
            "endpoints": [{ "addresses": [plan.host().to_string()], "conditions": { "ready": true } }],
        }),
    ];
    objects.extend(rights(
        "system:coredns",
        &json!([
            { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        ]),
    ));
    objects
}

/// What pods and claims name. The volume class waits for the pod: its node is where the folder must be.
fn classes() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": { "name": GVISOR_RUNTIME_CLASS },
            "handler": GVISOR_HANDLER,
        }),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": STORAGE_CLASS },
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": true,
            "reclaimPolicy": "Delete",
        }),
    ]
}

fn storage_rights() -> Vec<Value> {
    rights(
        "system:pilotlight-storage",
        &json!([
            { "apiGroups": [""], "resources": ["persistentvolumes"],
              "verbs": ["get", "list", "watch", "create", "patch", "delete"] },
            { "apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["persistentvolumeclaims/status"], "verbs": ["get", "patch"] },
        ]),
    )
}

/// A ClusterRole and its binding to the user of the same name.
fn rights(user: &str, rules: &Value) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": user },
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": user },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
            "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> Vec<Value> {
        let plan = Plan {
            instance: 4,
            dir: "/state".into(),
        };
        let list: Value = serde_json::from_str(&all(&plan)).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    fn find(kind: &str, name: &str) -> Value {
        let found = objects()
            .into_iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap()
    }

    #[test]
    fn the_dns_service_leads_to_the_host() {
        let service = find("Service", "kube-dns");
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 53);
        let slice = find("EndpointSlice", "kube-dns-host");
        assert_eq!(slice["endpoints"][0]["addresses"][0], "172.30.4.1");
    }

    #[test]
    fn the_classes_name_what_the_nodes_and_the_storage_component_serve() {
        assert_eq!(find("RuntimeClass", "gvisor")["handler"], GVISOR_HANDLER);
        let class = find("StorageClass", "pilotlight-local");
        assert_eq!(class["provisioner"], PROVISIONER);
        assert_eq!(class["volumeBindingMode"], "WaitForFirstConsumer");
        assert_eq!(class["allowVolumeExpansion"], true);
    }
}
