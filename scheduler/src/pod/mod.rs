//! The pod of a template: the security baseline, and nothing that a template does not say. Pure; called by
//! [`crate::apply`].

mod preload;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EmptyDirVolumeSource, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod, PodReadinessGate, PodSpec,
    ResourceRequirements, SeccompProfile, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pilotlight_common::baseline;
use pilotlight_common::kinds::{GROUP, VERSION};
use pilotlight_common::names::{
    AGENT_READY, AGENT_READY_LABEL, CONTAINER, IMAGE_LABEL, MANAGED_BY, MANAGED_BY_LABEL,
    OwnerKind, POD_NAME_LABEL, POOL_LABEL, PREPARED_CONDITION, SANDBOX_POD_LABEL, SHAPE_LABEL,
    SUBDOMAIN, volume_claim,
};
use pilotlight_common::resolve::{DATA_PATH, PodTemplate, Preload, SECCOMP_FOLDER, image_hash};
use pilotlight_common::stream::ObjectId;

use crate::view::Key;

/// How far requests lie below limits.
#[derive(Clone, Copy, Debug)]
pub struct Overcommit {
    /// CPU limit over CPU request.
    pub cpu: f64,
    /// Memory limit over memory request.
    pub memory: f64,
}

/// Seconds a pod has to end by itself: it is single-use, and nothing in it is to be saved.
const GRACE_SECONDS: i64 = 2;
/// Seconds after which pods leave a node that cannot be reached; Kubernetes' own five minutes are a long time
/// for something that is replaced in seconds.
const UNREACHABLE_SECONDS: i64 = 30;
/// Name of the persistent volume inside the pod.
const DATA_VOLUME: &str = "data";

/// Longest value of a label: shorter than an object's name can be.
pub const MAX_LABEL: usize = 63;

/// Labels of a pod, and of its WarmPod where it is of a pool.
pub fn labels(pool: Option<&str>, shape: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (SHAPE_LABEL.to_owned(), shape.to_owned()),
    ]);
    if let Some(pool) = pool.filter(|pool| pool.len() <= MAX_LABEL) {
        labels.insert(POOL_LABEL.to_owned(), pool.to_owned());
    }
    labels
}

/// A pod to be made: its name, whose it is, and what it must be.
#[derive(Clone, Copy, Debug)]
pub struct PodPlan<'a> {
    /// Name and namespace.
    pub key: &'a Key,
    /// Kind of its owner.
    pub owner_kind: OwnerKind,
    /// Its owner; of a cluster-wide kind without a namespace.
    pub owner: &'a ObjectId,
    /// Name of its pool, where it is of one.
    pub pool: Option<&'a str>,
    /// What it must be.
    pub template: &'a PodTemplate,
    /// Hash of the template.
    pub shape: &'a str,
    /// What is put into it before it is ready.
    pub preload: Option<&'a Preload>,
    /// The nodes it may be placed on; none where that is for the cluster to say.
    pub nodes: &'a [String],
}

/// The pod of a plan.
pub fn pod(plan: &PodPlan<'_>, overcommit: Overcommit) -> Pod {
    let PodPlan {
        key,
        owner_kind,
        owner,
        pool,
        template,
        shape,
        preload,
        nodes: _,
    } = *plan;
    let mut labels = labels(pool, shape);
    labels.insert(SANDBOX_POD_LABEL.to_owned(), "true".to_owned());
    if key.name.len() <= MAX_LABEL {
        labels.insert(POD_NAME_LABEL.to_owned(), key.name.clone());
    }
    labels.insert(
        IMAGE_LABEL.to_owned(),
        image_hash(&template.image, &template.command),
    );
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: owner_kind.as_str().into(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec(plan, overcommit)),
        status: None,
    };
    if let Some(preload) = preload {
        preload::add(&mut pod, preload, template);
    }
    pod
}

fn spec(plan: &PodPlan<'_>, overcommit: Overcommit) -> PodSpec {
    let template = plan.template;
    let (volumes, mounts) = volumes(plan);
    PodSpec {
        hostname: Some(plan.key.name.clone()),
        subdomain: Some(SUBDOMAIN.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // The sandbox is the pod: a container that ended is started again in it.
        restart_policy: Some("Always".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        runtime_class_name: template.runtime_class.clone(),
        node_selector: Some(BTreeMap::from([(
            AGENT_READY_LABEL.to_owned(),
            AGENT_READY.to_owned(),
        )])),
        affinity: affinity(plan.nodes),
        readiness_gates: Some(vec![PodReadinessGate {
            condition_type: PREPARED_CONDITION.into(),
        }]),
        tolerations: Some(
            [
                "node.kubernetes.io/unreachable",
                "node.kubernetes.io/not-ready",
            ]
            .map(tolerate_briefly)
            .to_vec(),
        ),
        security_context: Some(baseline::pod(
            template.run_as_user,
            template.run_as_group,
            seccomp(template),
        )),
        containers: vec![Container {
            name: CONTAINER.into(),
            image: Some(template.image.clone()),
            command: (!template.command.is_empty()).then(|| template.command.clone()),
            resources: Some(resources(template, overcommit)),
            volume_mounts: (!mounts.is_empty()).then_some(mounts),
            security_context: Some(baseline::container(template.read_only_root)),
            ..Container::default()
        }],
        volumes: (!volumes.is_empty()).then_some(volumes),
        ..PodSpec::default()
    }
}

fn seccomp(template: &PodTemplate) -> SeccompProfile {
    match &template.seccomp {
        None => baseline::runtime_default(),
        Some(file) => SeccompProfile {
            type_: "Localhost".into(),
            localhost_profile: Some(format!("{SECCOMP_FOLDER}/{file}")),
        },
    }
}

/// Keeps a pod to some nodes, by their names: labels of the same names can be anybody's.
fn affinity(nodes: &[String]) -> Option<Affinity> {
    let term = |node: &String| NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.clone()]),
        }]),
        match_expressions: None,
    };
    (!nodes.is_empty()).then(|| Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                // Any of the terms will do.
                node_selector_terms: nodes.iter().map(term).collect(),
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

fn tolerate_briefly(taint: &str) -> Toleration {
    Toleration {
        key: Some(taint.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(UNREACHABLE_SECONDS),
        value: None,
    }
}

fn resources(template: &PodTemplate, overcommit: Overcommit) -> ResourceRequirements {
    // CPUs of its own are promised to nobody else, and a kubelet that gives them itself wants equal requests and limits.
    let overcommit = if template.requests_limits {
        Overcommit {
            cpu: 1.0,
            memory: 1.0,
        }
    } else {
        overcommit
    };
    let quantity = |text: String| Quantity(text);
    let limits = BTreeMap::from([
        ("cpu".to_owned(), quantity(template.cpu.to_string())),
        ("memory".to_owned(), quantity(template.memory.to_string())),
        (
            "ephemeral-storage".to_owned(),
            quantity(template.ephemeral_storage.to_string()),
        ),
    ]);
    let mut requests = limits.clone();
    requests.insert(
        "cpu".to_owned(),
        quantity(format!("{}m", shared(template.cpu.0, overcommit.cpu))),
    );
    requests.insert(
        "memory".to_owned(),
        quantity(shared(template.memory.0, overcommit.memory).to_string()),
    );
    // Ephemeral storage is a bound, not a reservation: most sandboxes write next to nothing.
    requests.remove("ephemeral-storage");
    requests.insert("ephemeral-storage".to_owned(), quantity("0".to_owned()));
    ResourceRequirements {
        limits: Some(limits),
        requests: Some(requests),
        claims: None,
    }
}

/// `limit` over `factor`, at least 1.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits are bounded well below 2^53, and the quotient lies between 1 and the limit"
)]
fn shared(limit: u64, factor: f64) -> u64 {
    if factor <= 1.0 {
        return limit;
    }
    ((limit as f64 / factor).ceil() as u64).clamp(1, limit.max(1))
}

/// An empty volume for each writable path, and the sandbox's persistent one where it has one. Read-only paths need none:
/// they lie in the read-only root, apart from every writable path.
fn volumes(plan: &PodPlan<'_>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let template = plan.template;
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for (number, path) in template.writable_paths.iter().enumerate() {
        let name = format!("writable-{number}");
        volumes.push(Volume {
            name: name.clone(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: None,
                size_limit: Some(Quantity(template.ephemeral_storage.to_string())),
            }),
            ..Volume::default()
        });
        mounts.push(VolumeMount {
            name,
            mount_path: path.clone(),
            ..VolumeMount::default()
        });
    }
    if template.has_volume {
        volumes.push(Volume {
            name: DATA_VOLUME.into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: volume_claim(&plan.owner.name),
                read_only: None,
            }),
            ..Volume::default()
        });
        mounts.push(VolumeMount {
            name: DATA_VOLUME.into(),
            mount_path: DATA_PATH.into(),
            ..VolumeMount::default()
        });
    }
    (volumes, mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_common::kinds::SecurityLevel;
    use pilotlight_common::quantity::{Bytes, MilliCpu};

    pub(super) fn owner() -> ObjectId {
        ObjectId {
            namespace: "ns".into(),
            name: "pool-1".into(),
            uid: "u".into(),
        }
    }

    pub(super) fn template() -> PodTemplate {
        PodTemplate {
            namespace: "ns".into(),
            image: "image".into(),
            command: vec!["sleep".into()],
            cpu: MilliCpu(500),
            memory: Bytes(512 << 20),
            ephemeral_storage: Bytes(1 << 30),
            security_level: SecurityLevel::Standard,
            runtime_class: None,
            seccomp: Some("python-0123456789ab.json".into()),
            run_as_user: 1000,
            run_as_group: 1000,
            read_only_root: true,
            writable_paths: vec!["/tmp".into(), "/workspace".into()],
            read_only_paths: vec![],
            has_volume: false,
            requests_limits: false,
        }
    }

    #[test]
    fn the_baseline_stands_whatever_the_template_says() {
        let pod = pod(
            &PodPlan {
                key: &Key::from(&owner()),
                owner_kind: OwnerKind::WarmPod,
                owner: &owner(),
                pool: Some("pool"),
                template: &template(),
                shape: "shape",
                preload: None,
                nodes: &[],
            },
            Overcommit {
                cpu: 2.0,
                memory: 1.0,
            },
        );
        let spec = pod.spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.enable_service_links, Some(false));
        let context = spec.security_context.unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        let seccomp = context.seccomp_profile.unwrap();
        assert_eq!(seccomp.type_, "Localhost");
        assert_eq!(
            seccomp.localhost_profile.as_deref(),
            Some("pilotlight/python-0123456789ab.json")
        );
        let container = &spec.containers[0];
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(
            security.capabilities.as_ref().unwrap().drop,
            Some(vec!["ALL".to_owned()])
        );
        let resources = container.resources.as_ref().unwrap();
        assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "250m");
        assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "500m");
        assert_eq!(spec.volumes.unwrap().len(), 2);
        assert_eq!(spec.affinity, None);
        assert_eq!(pod.metadata.owner_references.unwrap()[0].uid, "u");
    }

    #[test]
    fn a_pod_with_cpus_of_its_own_requests_its_limits_on_the_nodes_that_have_some() {
        let mut template = template();
        template.requests_limits = true;
        let nodes = ["a".to_owned(), "b".to_owned()];
        let plan = PodPlan {
            key: &Key::from(&owner()),
            owner_kind: OwnerKind::Sandbox,
            owner: &owner(),
            pool: None,
            template: &template,
            shape: "shape",
            preload: None,
            nodes: &nodes,
        };
        let twice = Overcommit {
            cpu: 2.0,
            memory: 2.0,
        };
        let spec = pod(&plan, twice).spec.unwrap();
        let resources = spec.containers[0].resources.as_ref().unwrap();
        let of = |all: &Option<BTreeMap<String, Quantity>>, name: &str| {
            all.as_ref().unwrap()[name].0.clone()
        };
        let (limits, requests) = (&resources.limits, &resources.requests);
        assert_eq!(of(requests, "cpu"), of(limits, "cpu"));
        // Bytes are written in two ways.
        let bytes = |all| Bytes::parse(&of(all, "memory")).unwrap();
        assert_eq!(bytes(requests), bytes(limits));
        let terms = spec.affinity.unwrap().node_affinity.unwrap();
        let terms = terms
            .required_during_scheduling_ignored_during_execution
            .unwrap()
            .node_selector_terms;
        let names: Vec<String> = terms
            .into_iter()
            .flat_map(|term| term.match_fields.unwrap())
            .flat_map(|field| field.values.unwrap())
            .collect();
        assert_eq!(names, nodes);
    }
}
