//! What the index keeps of a pod: whose it is, where it runs, and what keeps it from running.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodStatus};
use kube::ResourceExt;
use pilotlight_common::fates::end;
use pilotlight_common::kinds::GROUP;
use pilotlight_common::names::{
    IMAGE_LABEL, MANAGED_BY, MANAGED_BY_LABEL, OwnerKind, PREPARED_CONDITION,
};

use super::Identity;
use super::trouble::{Trouble, disruption, ended, hold_up, holds, unready};

/// The object of this project that a pod belongs to, by UID.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum PodOwner {
    /// None of this project.
    #[default]
    Nobody,
    /// A WarmPod of the same name and namespace.
    WarmPod(String),
    /// A Sandbox: the pod was made for it alone (a cold start).
    Sandbox(String),
    /// A RuntimeEnvironment: the pod shows whether it works.
    Runtime(String),
}

/// Where a pod stands whose init containers are not through yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InitState {
    /// The container whose turn it is.
    pub container: String,
    /// When the first of them began, where one did: the earliest start that was seen.
    pub since: Option<Timestamp>,
    /// Exit code of the container's last run, where that failed.
    pub failed: Option<i32>,
}

/// A pod this project created.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodView {
    /// Metadata.
    pub identity: Identity,
    /// Whose it is.
    pub owner: PodOwner,
    /// Name of the owner.
    pub owner_name: String,
    /// Whether it carries this project's label.
    pub managed: bool,
    /// Node it was placed on.
    pub node: Option<String>,
    /// Hash of image and command, see [`pilotlight_common::resolve::image_hash`].
    pub image_hash: Option<String>,
    /// Whether it is Ready: its containers run and its node's agent has prepared it.
    pub ready: bool,
    /// Where its init containers stand, until all of them are through.
    pub init: Option<InitState>,
    /// Whether its node's agent vouches for it.
    pub prepared: bool,
    /// What keeps it from running, where the cluster says so.
    pub hold_up: Option<Trouble>,
    /// Why it is not Ready, where it is not and has a node.
    pub unready: Option<Trouble>,
    /// Why the cluster takes it away, where it does.
    pub disruption: Option<Trouble>,
    /// Why it can no longer run, or serve anybody: see [`super::trouble::ended`].
    pub ended: Option<Trouble>,
}

impl PodView {
    /// Whether it can serve a sandbox, now or after a while.
    pub fn lives(&self) -> bool {
        self.ended.is_none() && !self.identity.deleting
    }

    /// How it ended, where it no longer lives.
    pub fn end(&self) -> Option<Trouble> {
        if self.lives() {
            return None;
        }
        let deleted = || Trouble::new(end::POD_DELETED, "is being deleted");
        let end = self.ended.as_ref().or(self.disruption.as_ref()).cloned();
        Some(end.unwrap_or_else(deleted))
    }

    /// Takes over what an earlier state of the same pod still knew: the status keeps only the last run of a container
    /// that runs again and again.
    pub(crate) fn remember(&mut self, earlier: &Self) {
        if let (Some(now), Some(before)) = (&mut self.init, &earlier.init) {
            now.since = now.since.into_iter().chain(before.since).min();
        }
    }
}

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let identity = Identity::of(&pod);
        let (owner, owner_name) = owner(&pod);
        let label = |name: &str| pod.labels().get(name).cloned();
        let managed = label(MANAGED_BY_LABEL).is_some_and(|v| v == MANAGED_BY);
        let image_hash = label(IMAGE_LABEL);
        let node = pod.spec.and_then(|spec| spec.node_name);
        let status = pod.status.unwrap_or_default();
        Self {
            identity,
            owner,
            owner_name,
            managed,
            image_hash,
            ready: holds(&status, "Ready"),
            prepared: holds(&status, PREPARED_CONDITION),
            init: init(&status),
            hold_up: hold_up(&status),
            unready: node.as_ref().and_then(|_| unready(&status)),
            disruption: disruption(&status),
            ended: ended(&status),
            node,
        }
    }
}

fn init(status: &PodStatus) -> Option<InitState> {
    let containers = status.init_container_statuses.as_deref()?;
    let exit_code = |state: Option<&ContainerState>| Some(state?.terminated.as_ref()?.exit_code);
    let current = containers
        .iter()
        .find(|c| exit_code(c.state.as_ref()) != Some(0))?;
    let started = |state: &ContainerState| {
        let running = state.running.as_ref().and_then(|s| s.started_at.as_ref());
        let ended = state.terminated.as_ref();
        running
            .or(ended.and_then(|s| s.started_at.as_ref()))
            .map(|time| time.0)
    };
    Some(InitState {
        container: current.name.clone(),
        since: containers
            .iter()
            .flat_map(|c| c.state.iter().chain(&c.last_state))
            .filter_map(started)
            .min(),
        failed: exit_code(current.state.as_ref())
            .or_else(|| exit_code(current.last_state.as_ref()))
            .filter(|code| *code != 0),
    })
}

fn owner(pod: &Pod) -> (PodOwner, String) {
    let group = format!("{GROUP}/");
    let mut ours = pod
        .owner_references()
        .iter()
        .filter(|o| o.api_version.starts_with(&group));
    ours.find_map(|o| {
        let uid = o.uid.clone();
        let owner = match OwnerKind::of(&o.kind)? {
            OwnerKind::WarmPod => PodOwner::WarmPod(uid),
            OwnerKind::Sandbox => PodOwner::Sandbox(uid),
            OwnerKind::RuntimeEnvironment => PodOwner::Runtime(uid),
        };
        Some((owner, o.name.clone()))
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(init: &serde_json::Value) -> PodView {
        let status = serde_json::json!({ "initContainerStatuses": init });
        let pod = serde_json::json!({ "metadata": { "name": "p" }, "status": status });
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }

    fn container(
        name: &str,
        state: &serde_json::Value,
        last: &serde_json::Value,
    ) -> serde_json::Value {
        serde_json::json!({
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        })
    }

    #[test]
    fn the_init_container_whose_turn_it_is_and_its_failure_are_seen_until_all_are_through() {
        use serde_json::json;
        let done = json!({ "terminated": { "exitCode": 0, "startedAt": "2026-01-01T00:00:10Z" } });
        let failed =
            json!({ "terminated": { "exitCode": 3, "startedAt": "2026-01-01T00:00:20Z" } });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let running = json!({ "running": { "startedAt": "2026-01-01T00:00:30Z" } });
        let nothing = json!({});
        let first = pod(&json!([
            container("a", &waiting, &nothing),
            container("b", &waiting, &nothing)
        ]))
        .init
        .unwrap();
        assert_eq!(
            (first.container.as_str(), first.since, first.failed),
            ("a", None, None)
        );
        for state in [&failed, &waiting, &running] {
            let last = if *state == failed { &nothing } else { &failed };
            let init = pod(&json!([
                container("a", &done, &nothing),
                container("b", state, last)
            ]))
            .init
            .unwrap();
            assert_eq!((init.container.as_str(), init.failed), ("b", Some(3)));
            assert_eq!(init.since, Some("2026-01-01T00:00:10Z".parse().unwrap()));
        }
        let through = pod(&json!([
            container("a", &done, &nothing),
            container("b", &done, &nothing)
        ]));
        assert_eq!(through.init, None);
    }

    #[test]
    fn the_earliest_start_is_remembered_when_the_status_has_forgotten_it() {
        let state = |since: i64| PodView {
            init: Some(InitState {
                container: "a".into(),
                since: Some(Timestamp::from_second(since).unwrap()),
                failed: None,
            }),
            ..PodView::default()
        };
        let mut later = state(50);
        later.remember(&state(10));
        assert_eq!(later, state(10));
    }
}
