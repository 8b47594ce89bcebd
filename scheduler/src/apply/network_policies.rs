//! NetworkPolicies, where they and not the agents keep sandboxes to their rules. Called by [`super::Applier`].

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_common::kinds::Protocol;
use pilotlight_common::names::{
    MANAGED_BY, MANAGED_BY_LABEL, POD_NAME_LABEL, SANDBOX_POD_LABEL, SCHEDULER_MANAGER,
};
use pilotlight_common::network::{NetworkRules, PortRule, RangeRule};
use pilotlight_common::stream::ObjectId;

use super::{Applier, WriteError};
use crate::action::{Outcome, WriteNetworkPolicy};

/// Name of a namespace's policy that denies everything but DNS to every sandbox pod.
const DENY: &str = "pilotlight-sandboxes";

impl Applier {
    /// Denies everything to the sandbox pods of a namespace, before there is one.
    pub(super) async fn ensure_denied(&self, namespace: &str) -> Result<(), WriteError> {
        self.write_policy(&deny(namespace)).await
    }

    /// Allows a sandbox's pod what its rules say.
    pub(super) async fn write_network_policy(
        &self,
        write: &WriteNetworkPolicy,
    ) -> Result<Outcome, WriteError> {
        self.write_policy(&allow(&write.pod, &write.rules))
            .await
            .map(|()| Outcome::Done)
    }

    async fn write_policy(&self, policy: &NetworkPolicy) -> Result<(), WriteError> {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let api: Api<NetworkPolicy> = Api::namespaced(self.cold.clone(), namespace);
        let params = PatchParams::apply(SCHEDULER_MANAGER).force();
        self.write(api.patch(name, &params, &Patch::Apply(policy)))
            .await
            .map(drop)
    }
}

fn metadata(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn selector(label: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
        match_expressions: None,
    }
}

fn both() -> Vec<String> {
    vec!["Ingress".to_owned(), "Egress".to_owned()]
}

/// Nothing in, and nothing out but DNS: names that no rule knows are of no use without the addresses being allowed.
fn deny(namespace: &str) -> NetworkPolicy {
    let dns = [Protocol::Udp, Protocol::Tcp].map(|protocol| port(PortRule { protocol, port: 53 }));
    NetworkPolicy {
        metadata: metadata(DENY, namespace),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(SANDBOX_POD_LABEL, "true")),
            policy_types: Some(both()),
            egress: Some(vec![NetworkPolicyEgressRule {
                ports: Some(dns.to_vec()),
                to: Some(vec![NetworkPolicyPeer {
                    namespace_selector: Some(selector(
                        "kubernetes.io/metadata.name",
                        "kube-system",
                    )),
                    pod_selector: Some(selector("k8s-app", "kube-dns")),
                    ip_block: None,
                }]),
            }]),
            ingress: None,
        }),
    }
}

/// What one pod may reach and who may reach it. It goes with its pod.
fn allow(pod: &ObjectId, rules: &NetworkRules) -> NetworkPolicy {
    let egress = rules.egress.iter().map(|rule| NetworkPolicyEgressRule {
        ports: ports(rule),
        to: Some(vec![range(rule.range)]),
    });
    let ingress = rules.ingress.iter().map(|rule| NetworkPolicyIngressRule {
        ports: ports(rule),
        // Everybody is more than every range: plugins need not count pods among these.
        from: (rule.range.prefix_len() > 0).then(|| vec![range(rule.range)]),
    });
    NetworkPolicy {
        metadata: ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                ..OwnerReference::default()
            }]),
            ..metadata(&pod.name, &pod.namespace)
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(POD_NAME_LABEL, &pod.name)),
            policy_types: Some(both()),
            egress: Some(egress.collect()),
            ingress: Some(ingress.collect()),
        }),
    }
}

fn range(range: IpNet) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: range.to_string(),
            except: None,
        }),
        ..NetworkPolicyPeer::default()
    }
}

/// None are all.
fn ports(rule: &RangeRule) -> Option<Vec<NetworkPolicyPort>> {
    (!rule.ports.is_empty()).then(|| rule.ports.iter().copied().map(port).collect())
}

fn port(rule: PortRule) -> NetworkPolicyPort {
    let protocol = match rule.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    NetworkPolicyPort {
        port: Some(IntOrString::Int(rule.port.into())),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> ObjectId {
        ObjectId {
            namespace: "team".into(),
            name: "py-1".into(),
            uid: "u1".into(),
        }
    }

    fn rule(range: &str, ports: &[u16]) -> RangeRule {
        RangeRule {
            range: range.parse().unwrap(),
            ports: ports
                .iter()
                .map(|port| PortRule {
                    protocol: Protocol::Tcp,
                    port: *port,
                })
                .collect(),
        }
    }

    #[test]
    fn a_pod_is_allowed_its_ranges_at_their_ports_and_goes_with_its_policy() {
        let rules = NetworkRules {
            egress: [rule("10.1.0.0/16", &[443, 80])].into(),
            ingress: [rule("0.0.0.0/0", &[]), rule("10.2.0.0/16", &[8080])].into(),
            ..NetworkRules::default()
        };
        let policy = serde_json::to_value(allow(&pod(), &rules)).unwrap();
        assert_eq!(policy["metadata"]["ownerReferences"][0]["uid"], "u1");
        let spec = &policy["spec"];
        assert_eq!(spec["podSelector"]["matchLabels"][POD_NAME_LABEL], "py-1");
        assert_eq!(
            spec["policyTypes"],
            serde_json::json!(["Ingress", "Egress"])
        );
        assert_eq!(
            spec["egress"],
            serde_json::json!([{
                "ports": [{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}],
                "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
            }])
        );
        assert_eq!(
            spec["ingress"],
            serde_json::json!([
                {},
                {"ports": [{"port": 8080, "protocol": "TCP"}], "from": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]},
            ])
        );
    }

    #[test]
    fn no_rules_are_nothing_and_the_namespace_allows_the_clusters_dns_alone() {
        let nothing = serde_json::to_value(allow(&pod(), &NetworkRules::default())).unwrap();
        assert_eq!(nothing["spec"]["egress"], serde_json::json!([]));
        assert_eq!(nothing["spec"]["ingress"], serde_json::json!([]));
        let denied = serde_json::to_value(deny("team")).unwrap();
        assert_eq!(denied["spec"]["ingress"], serde_json::Value::Null);
        assert_eq!(denied["spec"]["egress"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            denied["spec"]["podSelector"]["matchLabels"][SANDBOX_POD_LABEL],
            "true"
        );
    }
}
