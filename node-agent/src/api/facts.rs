//! What matters about a pod, taken out of the object as soon as it arrives. Called by [`super::watch`].
//!
//! The pod itself is dropped at once: of some ten kilobytes a few hundred bytes are kept. Its contents were written by many
//! hands, so nothing here fails on them; what is missing counts as not fit.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, SeccompProfile, SecurityContext};
use pilotlight_common::kinds::GROUP;
use pilotlight_common::names::{MANAGED_BY, MANAGED_BY_LABEL, OwnerKind, PREPARED_CONDITION};
use pilotlight_common::resolve::SECCOMP_FOLDER;
use pilotlight_common::stream::ObjectId;

use crate::protocol::{PodUid, ProfileFile};

/// What is known of one managed pod.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and any of them may come with any other"
)]
pub struct PodFacts {
    /// UID of the pod, fit for a path.
    pub uid: PodUid,
    /// The pod.
    pub pod: ObjectId,
    /// What owns it.
    pub owner: PodOwner,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Its phase.
    pub phase: PodPhase,
    /// Whether its init containers are over, or it has none.
    pub initialized: bool,
    /// Whether the kubelet says that all containers are ready.
    pub containers_ready: bool,
    /// What in its specification asks for less than confinement, if anything.
    pub asks_unconfined: Option<&'static str>,
    /// Files of installed seccomp profiles that it names.
    pub profiles: BTreeSet<ProfileFile>,
    /// Whether a runtime class is set: such a runtime may keep all processes in the sandbox container.
    pub has_runtime_class: bool,
    /// Ids of the containers that run; each must have confined processes.
    pub running: BTreeSet<String>,
    /// Ids of all containers the status tells of.
    pub known: BTreeSet<String>,
    /// Our condition as it stands: status and reason.
    pub condition: Option<(bool, String)>,
}

/// The object of this project that owns a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodOwner {
    /// Its kind.
    pub kind: OwnerKind,
    /// The object. Of a cluster-wide kind the namespace is the pod's and means nothing.
    pub id: ObjectId,
}

/// Phase of a pod, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodPhase {
    /// Not running yet.
    Pending,
    /// Running.
    Running,
    /// Over, for good.
    Over,
}

impl PodFacts {
    /// The facts of a pod of ours: labelled, gated, owned by an object of ours. `None` for every other.
    pub fn of(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let labelled = metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(MANAGED_BY_LABEL))
            .is_some_and(|value| value == MANAGED_BY);
        let spec = pod.spec.as_ref()?;
        let gated = spec
            .readiness_gates
            .iter()
            .flatten()
            .any(|gate| gate.condition_type == PREPARED_CONDITION);
        if !labelled || !gated {
            return None;
        }
        let uid = metadata.uid.clone()?;
        let namespace = metadata.namespace.clone()?;
        let group = format!("{GROUP}/");
        let (kind, owner) = metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|owner| owner.api_version.starts_with(&group))
            .find_map(|owner| Some((OwnerKind::of(&owner.kind)?, owner)))?;
        let status = pod.status.as_ref();
        let mut running = BTreeSet::new();
        let mut known = BTreeSet::new();
        let statuses = status.into_iter().flat_map(|status| {
            [
                &status.container_statuses,
                &status.init_container_statuses,
                &status.ephemeral_container_statuses,
            ]
            .into_iter()
            .flatten()
            .flatten()
        });
        for container in statuses {
            let Some(id) = container_id(container) else {
                continue;
            };
            if container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
            {
                running.insert(id.to_owned());
            }
            known.insert(id.to_owned());
        }
        let condition = |name: &str| {
            status
                .and_then(|status| status.conditions.as_ref())
                .and_then(|conditions| conditions.iter().find(|c| c.type_ == name))
        };
        Some(Self {
            uid: PodUid::try_from(uid.clone()).ok()?,
            pod: ObjectId {
                namespace: namespace.clone(),
                name: metadata.name.clone()?,
                uid,
            },
            owner: PodOwner {
                kind,
                id: ObjectId {
                    namespace,
                    name: owner.name.clone(),
                    uid: owner.uid.clone(),
                },
            },
            terminating: metadata.deletion_timestamp.is_some(),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Running") => PodPhase::Running,
                Some("Succeeded" | "Failed") => PodPhase::Over,
                _ => PodPhase::Pending,
            },
            initialized: spec.init_containers.iter().flatten().next().is_none()
                || condition("Initialized").is_some_and(|c| c.status == "True"),
            containers_ready: condition("ContainersReady").is_some_and(|c| c.status == "True"),
            asks_unconfined: asks_unconfined(pod),
            profiles: profiles(pod),
            has_runtime_class: spec.runtime_class_name.is_some(),
            running,
            known,
            condition: condition(PREPARED_CONDITION)
                .map(|c| (c.status == "True", c.reason.clone().unwrap_or_default())),
        })
    }
}

/// The id without the runtime's scheme (`containerd://`).
fn container_id(status: &ContainerStatus) -> Option<&str> {
    let id = status.container_id.as_deref()?;
    let (_, id) = id.split_once("://")?;
    (!id.is_empty()).then_some(id)
}

/// What in the specification asks for less than confinement. Whether it would take effect is not asked.
fn asks_unconfined(pod: &Pod) -> Option<&'static str> {
    let unconfined = |profile: &SeccompProfile| profile.type_ == "Unconfined";
    if of_pod(pod).is_some_and(unconfined) {
        return Some("the pod asks for seccomp Unconfined");
    }
    if contexts(pod).any(|context| context.privileged == Some(true)) {
        return Some("a container is privileged");
    }
    contexts(pod)
        .filter_map(|context| context.seccomp_profile.as_ref())
        .any(unconfined)
        .then_some("a container asks for seccomp Unconfined")
}

/// The files of installed profiles that the pod or a container of it names.
fn profiles(pod: &Pod) -> BTreeSet<ProfileFile> {
    let of_containers = contexts(pod).filter_map(|context| context.seccomp_profile.as_ref());
    of_pod(pod)
        .into_iter()
        .chain(of_containers)
        .filter_map(|profile| {
            let path = profile.localhost_profile.as_deref()?;
            let (folder, file) = path.split_once('/')?;
            (folder == SECCOMP_FOLDER)
                .then(|| ProfileFile::try_from(file.to_owned()).ok())
                .flatten()
        })
        .collect()
}

fn of_pod(pod: &Pod) -> Option<&SeccompProfile> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.seccomp_profile.as_ref()
}

/// The security contexts of all containers, of whatever kind.
fn contexts(pod: &Pod) -> impl Iterator<Item = &SecurityContext> {
    pod.spec.iter().flat_map(|spec| {
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .filter_map(|container| container.security_context.as_ref())
            .chain(ephemeral.filter_map(|container| container.security_context.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "wp-1", "namespace": "team", "uid": "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11",
                "labels": {"app.kubernetes.io/managed-by": "pilotlight"},
                "ownerReferences": [{"apiVersion": "llmsafespace.dev/v1", "kind": "WarmPod", "name": "wp-1", "uid": "w"}]
            },
            "spec": {
                "containers": [{"name": "sandbox", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}],
                "readinessGates": [{"conditionType": "llmsafespace.dev/prepared"}]
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "ContainersReady", "status": "True"}],
                "containerStatuses": [{
                    "name": "sandbox", "containerID": "containerd://abc", "image": "i", "imageID": "i", "ready": true,
                    "restartCount": 0, "state": {"running": {}}
                }]
            }
        })
    }

    fn facts(pod: Value) -> Option<PodFacts> {
        PodFacts::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_warm_pod_is_read_whole() {
        let facts = facts(pod()).unwrap();
        assert_eq!(facts.owner.id.uid, "w");
        assert_eq!(facts.owner.kind, OwnerKind::WarmPod);
        assert_eq!(facts.phase, PodPhase::Running);
        assert!(facts.containers_ready && !facts.terminating);
        assert_eq!(facts.running, BTreeSet::from(["abc".to_owned()]));
        assert_eq!(facts.condition, None);
        assert_eq!(facts.asks_unconfined, None);
    }

    #[test]
    fn a_pod_that_is_not_ours_is_not_looked_at() {
        for (pointer, value) in [
            ("/metadata/labels", json!({})),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/apiVersion", json!("apps/v1")),
            ("/metadata/ownerReferences/0/kind", json!("WarmPool")),
            ("/spec/readinessGates", json!([])),
            ("/metadata/uid", json!("../../etc")),
        ] {
            let mut pod = pod();
            *pod.pointer_mut(pointer).unwrap() = value;
            assert_eq!(facts(pod), None, "{pointer}");
        }
    }

    #[test]
    fn every_way_of_asking_for_less_is_seen() {
        for (pointer, value) in [
            (
                "/spec/containers/0/securityContext",
                json!({"privileged": true}),
            ),
            (
                "/spec/containers/0/securityContext/seccompProfile/type",
                json!("Unconfined"),
            ),
        ] {
            let mut pod = pod();
            *pod.pointer_mut(pointer).unwrap() = value;
            assert!(facts(pod).unwrap().asks_unconfined.is_some(), "{pointer}");
        }
        let mut whole = pod();
        whole["spec"]["securityContext"] = json!({"seccompProfile": {"type": "Unconfined"}});
        assert!(facts(whole).unwrap().asks_unconfined.is_some());
    }

    #[test]
    fn the_installed_profiles_it_names_are_known_and_others_are_not_ours() {
        let file = "pilotlight/python-0123456789ab.json";
        let mut pod = pod();
        pod["spec"]["securityContext"] =
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}});
        pod["spec"]["containers"][0]["securityContext"]["seccompProfile"] =
            json!({"type": "Localhost", "localhostProfile": "profiles/mine.json"});
        let facts = facts(pod).unwrap();
        let names: Vec<&str> = facts.profiles.iter().map(ProfileFile::as_str).collect();
        assert_eq!(names, ["python-0123456789ab.json"]);
    }
}
