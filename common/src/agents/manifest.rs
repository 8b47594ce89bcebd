//! The Sandbox that a client writes who keeps a pod up and runs commands in it: `agents.x-k8s.io/v1alpha1`, with the security
//! [`baseline`] of this project. Called by `pilotlight-sandbox-manifest`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvFromSource, LocalObjectReference, PodSpec,
    ResourceRequirements, SecretEnvSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::v1alpha1::{Sandbox, SandboxSpec};
use super::{PodMetadata, PodTemplate};
use crate::baseline;

/// Label of the pod, and its value, that tells it from the client's other pods.
const ROLE: (&str, &str) = ("paperclip.io/role", "agent");
/// What keeps the pod up: an init that ends what commands leave behind, and nothing else.
const COMMAND: [&str; 5] = ["/usr/bin/tini", "--", "/bin/sh", "-c", "sleep infinity"];
/// Name, path and size of what can be written. An outer path comes before what is mounted in it.
const VOLUMES: [(&str, &str, &str); 4] = [
    ("workspace", "/workspace", "8Gi"),
    ("home", "/home/paperclip", "1Gi"),
    ("cache", "/home/paperclip/.cache", "1Gi"),
    ("tmp", "/tmp", "2Gi"),
];

/// What the manifest is made from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestInput {
    /// Namespace of the Sandbox.
    pub namespace: String,
    /// Name of the Sandbox and its pod.
    pub sandbox_name: String,
    /// Which kind of agent runs in it. It does not show in the manifest.
    #[serde(default)]
    pub adapter_type: String,
    /// Image; it must have `tini` and a shell.
    pub image: String,
    /// Secret whose keys are the container's environment.
    pub env_secret_name: String,
    /// Service account of the pod. Its token is not mounted.
    pub service_account_name: String,
    /// Labels of the Sandbox and its pod.
    pub labels: BTreeMap<String, String>,
    /// What the container may use.
    pub resources: ManifestResources,
    /// RuntimeClass of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Secrets with registry credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Vec<String>>,
}

/// What the container may use; each list not given is replaced as a whole.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestResources {
    /// What is kept for it: 250m and 512Mi, if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ManifestAmounts>,
    /// The most it gets: 2 CPUs and 4Gi, if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ManifestAmounts>,
}

/// CPU and memory, as Kubernetes quantities.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestAmounts {
    /// CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl ManifestAmounts {
    fn new(cpu: &str, memory: &str) -> Self {
        Self {
            cpu: Some(cpu.to_owned()),
            memory: Some(memory.to_owned()),
        }
    }

    fn quantities(self) -> BTreeMap<String, Quantity> {
        let named = [("cpu", self.cpu), ("memory", self.memory)];
        let said = named
            .into_iter()
            .filter_map(|(name, amount)| Some((name.to_owned(), Quantity(amount?))));
        said.collect()
    }
}

/// The manifest. It fails only where the types of Kubernetes cannot be written as JSON, which they can.
pub fn manifest(input: ManifestInput) -> Result<Value, serde_json::Error> {
    let mut pod_labels = input.labels.clone();
    pod_labels.insert(ROLE.0.to_owned(), ROLE.1.to_owned());
    let spec: Map<String, Value> = match serde_json::to_value(pod_spec(&input))? {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    let mut sandbox = Sandbox::new(
        &input.sandbox_name,
        SandboxSpec {
            pod_template: PodTemplate {
                metadata: Some(PodMetadata {
                    labels: Some(pod_labels),
                    annotations: None,
                }),
                spec,
            },
            ..SandboxSpec::default()
        },
    );
    // Nobody owns it: who made it is not in the cluster, and deletes it.
    sandbox.metadata.namespace = Some(input.namespace);
    let mut document = serde_json::to_value(sandbox)?;
    // Said even where there are none, which the client's types leave out.
    document["metadata"]["labels"] = serde_json::to_value(input.labels)?;
    if let Some(document) = document.as_object_mut() {
        document.remove("status");
    }
    Ok(document)
}

fn pod_spec(input: &ManifestInput) -> PodSpec {
    let pull_secrets = input.image_pull_secrets.clone().unwrap_or_default();
    let resources = input.resources.clone();
    let requests = resources
        .requests
        .unwrap_or_else(|| ManifestAmounts::new("250m", "512Mi"));
    let limits = resources
        .limits
        .unwrap_or_else(|| ManifestAmounts::new("2", "4Gi"));
    PodSpec {
        service_account_name: Some(input.service_account_name.clone()),
        automount_service_account_token: Some(false),
        // The pod stays while commands come and go.
        restart_policy: Some("Always".to_owned()),
        runtime_class_name: input.runtime_class_name.clone().filter(|c| !c.is_empty()),
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| {
            let references = pull_secrets.into_iter();
            references
                .map(|name| LocalObjectReference { name })
                .collect()
        }),
        security_context: Some(baseline::pod(
            baseline::USER,
            baseline::USER,
            baseline::runtime_default(),
        )),
        containers: vec![Container {
            name: "agent".to_owned(),
            image: Some(input.image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(COMMAND.map(str::to_owned).to_vec()),
            env_from: Some(vec![EnvFromSource {
                secret_ref: Some(SecretEnvSource {
                    name: input.env_secret_name.clone(),
                    optional: None,
                }),
                ..EnvFromSource::default()
            }]),
            security_context: Some(SecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(baseline::USER),
                run_as_group: Some(baseline::USER),
                ..baseline::container(true)
            }),
            resources: Some(ResourceRequirements {
                requests: Some(requests.quantities()),
                limits: Some(limits.quantities()),
                claims: None,
            }),
            volume_mounts: Some(
                VOLUMES
                    .map(|(name, path, _)| VolumeMount {
                        name: name.to_owned(),
                        mount_path: path.to_owned(),
                        ..VolumeMount::default()
                    })
                    .to_vec(),
            ),
            ..Container::default()
        }],
        volumes: Some(
            VOLUMES
                .map(|(name, _, size)| Volume {
                    name: name.to_owned(),
                    empty_dir: Some(EmptyDirVolumeSource {
                        medium: None,
                        size_limit: Some(Quantity(size.to_owned())),
                    }),
                    ..Volume::default()
                })
                .to_vec(),
        ),
        ..PodSpec::default()
    }
}
