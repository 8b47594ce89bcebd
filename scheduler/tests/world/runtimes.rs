//! The world's runtimes, profiles and RuntimeClasses, and the pods that show whether an image works.

use std::collections::BTreeSet;

use kube::core::ObjectMeta;
use pilotlight_common::kinds::{
    Condition, RuntimeEnvironment, RuntimeEnvironmentSpec, SandboxProfile, SandboxProfileSpec,
    SandboxSpec,
};
use pilotlight_common::resolve::{Defaults, image_hash};
use pilotlight_scheduler::action::{Action, Done, Outcome};
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{
    Key, PodOwner, PodView, ProfileView, RuntimeClassView, RuntimeView, Trouble,
};

use super::World;

/// RuntimeClass of level `high` in every world; it is there only where a test puts it.
pub const HIGH_CLASS: &str = "gvisor";

pub fn defaults() -> Defaults {
    Defaults {
        high_runtime_class: Some(HIGH_CLASS.into()),
        ..Defaults::default()
    }
}

impl World {
    /// Creates a sandbox that asks for something else than the others.
    pub fn create_sandbox_with(&mut self, change: impl FnOnce(&mut SandboxSpec)) -> String {
        let uid = self.create_sandbox();
        self.undelivered.pop_back();
        if let Some(view) = self.sandboxes.get_mut(&uid) {
            change(&mut view.spec);
            let view = view.clone();
            self.undelivered
                .push_back(Input::Sandbox(Change::Upsert(view)));
        }
        uid
    }

    pub fn add_runtime(&mut self, name: &str, image: &str) {
        let mut object = RuntimeEnvironment::new(
            name,
            RuntimeEnvironmentSpec {
                image: image.into(),
                language: "python".into(),
                ..RuntimeEnvironmentSpec::default()
            },
        );
        object.metadata = ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        };
        let mut identity = self.identity(name);
        identity.key.namespace = String::new();
        let view = RuntimeView { identity, object };
        self.runtimes.insert(name.into(), view.clone());
        self.undelivered
            .push_back(Input::Runtime(Change::Upsert(view)));
    }

    pub fn change_runtime(&mut self, name: &str, change: impl FnOnce(&mut RuntimeEnvironment)) {
        self.revision += 1;
        if let Some(view) = self.runtimes.get_mut(name) {
            change(&mut view.object);
            view.identity.revision = self.revision;
            let view = view.clone();
            self.undelivered
                .push_back(Input::Runtime(Change::Upsert(view)));
        }
    }

    pub fn delete_runtime(&mut self, name: &str) {
        if let Some(view) = self.runtimes.remove(name) {
            self.undelivered.push_back(Input::Runtime(Change::Remove(
                view.identity.key,
                view.identity.uid,
            )));
        }
    }

    /// Creates a profile of the world's namespace, or replaces its spec.
    pub fn set_profile(&mut self, name: &str, spec: SandboxProfileSpec) {
        let identity = self.identity(name);
        let view = self
            .profiles
            .entry(identity.key.clone())
            .or_insert_with(|| ProfileView {
                identity,
                object: SandboxProfile::new(name, SandboxProfileSpec::default()),
            });
        view.object.spec = spec;
        let view = view.clone();
        self.undelivered
            .push_back(Input::Profile(Change::Upsert(view)));
    }

    pub fn add_runtime_class(&mut self, name: &str) {
        let mut identity = self.identity(name);
        identity.key.namespace = String::new();
        let view = RuntimeClassView { identity };
        self.runtime_classes.insert(name.into(), view.clone());
        self.undelivered
            .push_back(Input::RuntimeClass(Change::Upsert(view)));
    }

    pub fn delete_runtime_class(&mut self, name: &str) {
        if let Some(view) = self.runtime_classes.remove(name) {
            self.undelivered
                .push_back(Input::RuntimeClass(Change::Remove(
                    view.identity.key,
                    view.identity.uid,
                )));
        }
    }

    /// From now on no pod of this image runs, for this reason.
    pub fn break_image(&mut self, image: &str, reason: &str) {
        self.broken
            .insert(image_hash(image, &[]), Trouble::new(reason, "as tested"));
    }

    pub fn mend_image(&mut self, image: &str) {
        self.broken.remove(&image_hash(image, &[]));
    }

    pub(super) fn is_broken(&self, key: &Key) -> bool {
        let image = self.pods.get(key).and_then(|p| p.image_hash.as_ref());
        image.is_some_and(|image| self.broken.contains_key(image))
    }

    /// A pod's containers run and its agent prepares it; or they never will.
    pub fn pod_runs(&mut self, key: &Key) {
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        let trouble = pod
            .image_hash
            .as_ref()
            .and_then(|image| self.broken.get(image).cloned());
        let before = pod.clone();
        pod.ready = trouble.is_none();
        pod.prepared = pod.ready;
        pod.hold_up = trouble;
        if *pod == before {
            return;
        }
        self.revision += 1;
        pod.identity.revision = self.revision;
        let view = pod.clone();
        self.undelivered.push_back(Input::Pod(Change::Upsert(view)));
    }

    pub fn trials(&self) -> Vec<Key> {
        let trials = self.pods.iter();
        trials
            .filter(|(_, p)| matches!(p.owner, PodOwner::Runtime(_)))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub fn trials_run(&mut self) {
        for key in self.trials() {
            self.pod_runs(&key);
        }
    }

    /// Keeps what the scheduler was shown of the pods.
    pub(super) fn show_pods(&mut self, input: &Input) {
        match input {
            Input::Pod(Change::Upsert(pod)) => {
                self.shown_pods
                    .insert(pod.identity.key.clone(), pod.clone());
            }
            Input::Pod(Change::Remove(key, _)) => {
                self.shown_pods.remove(key);
            }
            Input::Pod(Change::Replace(pods)) => {
                let pods = pods.iter();
                self.shown_pods = pods.map(|p| (p.identity.key.clone(), p.clone())).collect();
            }
            _ => {}
        }
    }

    /// Takes actions up, with what must hold of every validation pod that is asked for.
    pub(super) fn take_up(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::Validate(trial) = &action {
                let image = image_hash(&trial.template.image, &trial.template.command);
                let shown = self
                    .shown_pods
                    .values()
                    .any(|p| p.ready && p.image_hash.as_ref() == Some(&image));
                assert!(!shown, "a validation pod in spite of evidence");
            }
            self.under_way.push(action);
            let asked = self.under_way.iter().filter_map(|a| match a {
                Action::Validate(trial) => Some(trial.pod.clone()),
                _ => None,
            });
            let all: BTreeSet<Key> = asked.chain(self.trials()).collect();
            assert!(all.len() <= 2, "more than two validation pods: {all:?}");
        }
    }

    pub(super) fn execute_of_runtime(&mut self, action: Action) -> Option<Done> {
        Some(match action {
            Action::Validate(trial) => {
                if !self.pods.contains_key(&trial.pod) {
                    let mut identity = self.identity(&trial.pod.name);
                    identity.key = trial.pod.clone();
                    let view = PodView {
                        identity,
                        owner: PodOwner::Runtime(trial.runtime.uid.clone()),
                        managed: true,
                        image_hash: Some(image_hash(
                            &trial.template.image,
                            &trial.template.command,
                        )),
                        ..PodView::default()
                    };
                    self.pods.insert(trial.pod.clone(), view.clone());
                    self.undelivered.push_back(Input::Pod(Change::Upsert(view)));
                }
                Done::Trial {
                    runtime: Key::from(&trial.runtime),
                    pod: trial.pod,
                    outcome: Outcome::Done,
                }
            }
            Action::RemoveTrial { pod } => {
                let key = Key::from(&pod);
                if self
                    .pods
                    .get(&key)
                    .is_some_and(|p| p.identity.uid == pod.uid)
                {
                    self.pods.remove(&key);
                    self.undelivered
                        .push_back(Input::Pod(Change::Remove(key.clone(), pod.uid)));
                }
                Done::Pod {
                    key,
                    outcome: Outcome::Done,
                }
            }
            Action::RuntimeStatus {
                runtime,
                status,
                event,
            } => {
                let known = self.runtimes.get(&runtime.name);
                if known.is_some_and(|view| view.identity.uid == runtime.uid) {
                    self.change_runtime(&runtime.name, |object| object.status = Some(*status));
                    let event = event.map(|e| (runtime.name.clone(), e.reason));
                    self.recorded.extend(event);
                }
                Done::Runtime {
                    key: Key::from(&runtime),
                    outcome: Outcome::Done,
                }
            }
            _ => return None,
        })
    }

    /// Whether a runtime is said to be available, and the reason.
    pub fn available(&self, name: &str) -> (Option<bool>, String) {
        let status = self.runtimes[name].object.status.clone();
        let available = status.and_then(|s| s.available);
        let condition = self.runtime_condition(name, "Available");
        (
            available,
            condition.and_then(|c| c.reason).unwrap_or_default(),
        )
    }

    pub fn runtime_condition(&self, name: &str, type_: &str) -> Option<Condition> {
        let status = self.runtimes[name].object.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|c| c.type_ == type_).cloned()
    }
}
