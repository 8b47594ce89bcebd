//! An API server that stores JSON, shows the controller what its watches would, and carries its writes out.

// The workspace allows this in tests; clippy does not count the functions tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use pilotlight_common::agents::v1beta1::Sandbox;
use pilotlight_scheduler::agents::index::{Index, Input};
use pilotlight_scheduler::agents::view::{ClaimView, PodView, SandboxView, ServiceView};
use pilotlight_scheduler::agents::write::{Found, Kind, Outcome, Write};
use pilotlight_scheduler::input::Change;
use pilotlight_scheduler::view::{Key, View};
use serde_json::{Value, json};

const HASH: &str = "agents.x-k8s.io/sandbox-name-hash";

pub struct Cluster {
    index: Index,
    now: Timestamp,
    revision: u64,
    objects: BTreeMap<(Kind, String), Value>,
    sandboxes: BTreeMap<String, Value>,
    refuse: String,
    lose: bool,
    /// Until when something that failed may be outstanding.
    troubled: Timestamp,
    leading: bool,
    /// Writes that were carried out.
    pub writes: usize,
    /// Writes that were asked for.
    pub tries: usize,
    /// Pods that were made.
    pub made: usize,
}

fn key(name: &str) -> Key {
    Key {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

impl Cluster {
    pub fn new() -> Self {
        let mut cluster = Self {
            index: Index::new("test".to_owned()),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            revision: 100,
            objects: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            refuse: String::new(),
            lose: false,
            troubled: Timestamp::UNIX_EPOCH,
            leading: true,
            writes: 0,
            tries: 0,
            made: 0,
        };
        cluster.restart();
        cluster
    }

    /// A new process, which lists everything.
    pub fn restart(&mut self) {
        self.index = Index::new("test".to_owned());
        let sandboxes: Vec<Value> = self.sandboxes.values().cloned().collect();
        let sandboxes = sandboxes.into_iter().map(|s| view_of(&s)).collect();
        self.hear(Input::Sandbox(Change::Replace(sandboxes)));
        let shown = |cluster: &Self, kind| -> Vec<Value> {
            let all = cluster.objects.iter();
            all.filter(|((of, _), object)| *of == kind && is_shown(object))
                .map(|(_, object)| object.clone())
                .collect()
        };
        let pods = shown(self, Kind::Pod);
        let pods = pods.iter().map(pod_view).collect();
        self.hear(Input::Pod(Change::Replace(pods)));
        let services = shown(self, Kind::Service);
        let services = services.iter().map(service_view).collect();
        self.hear(Input::Service(Change::Replace(services)));
        let claims = shown(self, Kind::Claim);
        let claims = claims.iter().map(claim_view).collect();
        self.hear(Input::Claim(Change::Replace(claims)));
        self.lead(self.leading);
    }

    pub fn lead(&mut self, leading: bool) {
        self.leading = leading;
        self.hear(Input::Leading(leading));
        self.work();
    }

    /// Nothing but what is said of Sandboxes goes through any more.
    pub fn refuse(&mut self, message: &str) {
        message.clone_into(&mut self.refuse);
        self.troubled = self.now + SignedDuration::from_secs(61);
    }

    pub fn lose_answers(&mut self, lose: bool) {
        self.lose = lose;
        self.troubled = self.now + SignedDuration::from_secs(61);
    }

    pub fn in_seconds(&self, seconds: i64) -> String {
        let at = self.now + SignedDuration::from_secs(seconds);
        at.to_string()
    }

    pub fn pass_seconds(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            self.work();
        }
        if seconds > 60 {
            self.collect_garbage();
        }
    }

    fn collect_garbage(&mut self) {
        let owners: Vec<String> = self.sandboxes.values().map(uid_of).collect();
        let orphans: Vec<(Kind, String)> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                let owner = &object["metadata"]["ownerReferences"][0];
                owner["kind"] == "Sandbox" && !owners.iter().any(|uid| owner["uid"] == uid.as_str())
            })
            .map(|(id, _)| id.clone())
            .collect();
        for (kind, name) in orphans {
            self.remove(kind, &name);
        }
    }

    pub fn apply(&mut self, name: &str, spec: Value) {
        self.revision += 1;
        let revision = self.revision;
        let now = self.now;
        let sandbox = self.sandboxes.entry(name.to_owned()).or_insert_with(|| {
            json!({
                "apiVersion": "agents.x-k8s.io/v1beta1",
                "kind": "Sandbox",
                "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{revision}"), "generation": 0, "creationTimestamp": now.to_string() },
            })
        });
        if sandbox["spec"] != spec {
            sandbox["spec"] = spec;
            let generation = sandbox["metadata"]["generation"].as_i64().unwrap();
            sandbox["metadata"]["generation"] = (generation + 1).into();
        }
        self.sandbox_changed(name);
        self.work();
    }

    pub fn annotate(&mut self, name: &str, key: &str, value: &str) {
        self.sandboxes.get_mut(name).unwrap()["metadata"]["annotations"][key] = value.into();
        self.sandbox_changed(name);
        self.work();
    }

    pub fn delete(&mut self, name: &str) {
        if let Some(sandbox) = self.sandboxes.remove(name) {
            self.hear(Input::Sandbox(Change::Remove(key(name), uid_of(&sandbox))));
            self.work();
        }
    }

    /// Deletes it, and its pod lets go of it before the controller has seen that.
    pub fn orphan(&mut self, name: &str) {
        self.revision += 1;
        let pod = self.objects.get_mut(&(Kind::Pod, name.to_owned())).unwrap();
        pod["metadata"]["ownerReferences"] = json!([]);
        pod["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.delete(name);
        self.changed(Kind::Pod, name);
        self.work();
    }

    pub fn exists(&self, name: &str) -> bool {
        self.sandboxes.contains_key(name)
    }

    pub fn status(&self, name: &str) -> Value {
        self.sandboxes[name]["status"].clone()
    }

    /// Status, reason and message; nothing where there is no such condition.
    pub fn condition(&self, name: &str, type_: &str) -> String {
        let status = self.status(name);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == type_);
        found.map_or(String::new(), |c| {
            let text = |key: &str| c[key].as_str().unwrap().to_owned();
            format!("{} {} {}", text("status"), text("reason"), text("message"))
        })
    }

    pub fn object(&self, kind: Kind, name: &str) -> Option<Value> {
        self.objects.get(&(kind, name.to_owned())).cloned()
    }

    pub fn uid(&self, kind: Kind, name: &str) -> Option<String> {
        self.object(kind, name).as_ref().map(uid_of)
    }

    pub fn is_deleting(&self, name: &str) -> bool {
        let pod = self.object(Kind::Pod, name);
        pod.is_none_or(|pod| pod["metadata"].get("deletionTimestamp").is_some())
    }

    /// An object that somebody else made.
    pub fn stranger(&mut self, kind: Kind, name: &str, labels: &Value, owner: Option<&str>) {
        let owners = owner.map(|uid| {
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true }])
        });
        let mut object = json!({
            "metadata": { "name": name, "namespace": "default", "labels": labels, "ownerReferences": owners.unwrap_or(json!([])) },
            "spec": { "clusterIP": "None" },
        });
        if kind == Kind::Pod {
            object["spec"] = json!({ "containers": [] });
        }
        if kind == Kind::Claim {
            object["spec"] = json!({});
        }
        self.store(kind, object);
        self.changed(kind, name);
        self.work();
    }

    pub fn remove(&mut self, kind: Kind, name: &str) {
        let Some(object) = self.objects.remove(&(kind, name.to_owned())) else {
            return;
        };
        if is_shown(&object) {
            let (key, uid) = (key(name), uid_of(&object));
            self.hear(match kind {
                Kind::Claim => Input::Claim(Change::Remove(key, uid)),
                Kind::Pod => Input::Pod(Change::Remove(key, uid)),
                Kind::Service => Input::Service(Change::Remove(key, uid)),
            });
        }
        self.work();
    }

    pub fn second_pod(&mut self, sandbox: &str, name: &str) {
        let mut pod = self.object(Kind::Pod, sandbox).unwrap();
        pod["metadata"]["name"] = name.into();
        pod["metadata"].as_object_mut().unwrap().remove("uid");
        self.store(Kind::Pod, pod);
        self.changed(Kind::Pod, name);
        self.work();
    }

    fn change_pod(&mut self, name: &str, patch: &Value) {
        if let Some(pod) = self.objects.get_mut(&(Kind::Pod, name.to_owned())) {
            merge(pod, patch);
            self.revise(Kind::Pod, name);
            self.changed(Kind::Pod, name);
        }
        self.work();
    }

    pub fn label_pod(&mut self, name: &str, key: &str, value: &str) {
        self.change_pod(name, &json!({ "metadata": { "labels": { key: value } } }));
    }

    pub fn change_selector(&mut self, name: &str) {
        let service = self.objects.get_mut(&(Kind::Service, name.to_owned()));
        service.unwrap()["spec"]["selector"] = json!({ "app": "other" });
        self.revise(Kind::Service, name);
        self.changed(Kind::Service, name);
        self.work();
    }

    pub fn schedule(&mut self, name: &str) {
        self.change_pod(
            name,
            &json!({ "spec": { "nodeName": "node" }, "status": { "conditions": [{ "type": "PodScheduled", "status": "True" }] } }),
        );
    }

    /// The pod's containers run and are ready, unless it is over or going.
    pub fn run(&mut self, name: &str) {
        let pod = self.object(Kind::Pod, name);
        let alive = pod.is_some_and(|pod| {
            pod["status"]["phase"] != "Failed" && pod["metadata"].get("deletionTimestamp").is_none()
        });
        if alive {
            self.change_pod(
                name,
                &json!({
                    "spec": { "nodeName": "node" },
                    "status": {
                        "phase": "Running",
                        "podIPs": [{ "ip": "10.0.0.1" }],
                        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" }],
                    },
                }),
            );
        }
    }

    pub fn fail(&mut self, name: &str) {
        self.change_pod(name, &json!({ "status": { "phase": "Failed", "conditions": [{ "type": "Ready", "status": "False" }] } }));
    }

    /// Somebody deletes the pod: its containers get time to end.
    pub fn delete_pod(&mut self, name: &str) {
        let now = self.now.to_string();
        self.change_pod(name, &json!({ "metadata": { "deletionTimestamp": now } }));
    }

    /// The containers of a pod that is being deleted have ended.
    pub fn end_pod(&mut self, name: &str) {
        if self.is_deleting(name) {
            self.remove(Kind::Pod, name);
        }
    }

    /// What is true at any moment.
    pub fn holds(&self) {
        if !self.refuse.is_empty() || self.lose || self.now < self.troubled {
            return;
        }
        for (name, sandbox) in &self.sandboxes {
            if !self.condition(name, "Ready").starts_with("True") {
                continue;
            }
            let pod = self.object(Kind::Pod, name).unwrap();
            assert_eq!(pod["status"]["phase"], "Running", "{name}");
            let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
            assert_eq!(*owner, uid_of(sandbox).as_str(), "{name}");
        }
    }

    /// What is true once everything had its time.
    pub fn settled(&self) {
        self.holds();
        for (name, sandbox) in &self.sandboxes {
            let pod = self.object(Kind::Pod, name);
            let failed = pod
                .as_ref()
                .is_some_and(|pod| pod["status"]["phase"] == "Failed");
            let ready = self.condition(name, "Ready");
            if sandbox["spec"]["operatingMode"] == "Suspended" {
                assert!(pod.is_none(), "{name} is suspended");
                assert!(ready.contains("SandboxSuspended"), "{name}: {ready}");
                let suspended = self.condition(name, "Suspended");
                assert!(suspended.starts_with("True"), "{name}: {suspended}");
            } else if failed {
                assert!(ready.contains("PodFailed"), "{name}: {ready}");
            } else {
                assert!(ready.starts_with("True"), "{name}: {ready}");
            }
            let service = self.object(Kind::Service, name).is_some();
            if let Some(wanted) = sandbox["spec"]["service"].as_bool() {
                assert_eq!(service, wanted, "{name}");
            }
        }
        for ((_, name), object) in &self.objects {
            let owner = &object["metadata"]["ownerReferences"][0]["uid"];
            assert_eq!(*owner, uid_of(&self.sandboxes[name]).as_str(), "{name}");
        }
    }

    fn store(&mut self, kind: Kind, mut object: Value) {
        self.revision += 1;
        let metadata = &mut object["metadata"];
        if metadata.get("uid").is_none() {
            metadata["uid"] = format!("uid-{}", self.revision).into();
        }
        metadata["resourceVersion"] = self.revision.to_string().into();
        metadata["creationTimestamp"] = self.now.to_string().into();
        let name = metadata["name"].as_str().unwrap().to_owned();
        if kind == Kind::Pod && object.get("status").is_none() {
            object["status"] = json!({ "phase": "Pending" });
        }
        self.objects.insert((kind, name), object);
    }

    fn revise(&mut self, kind: Kind, name: &str) {
        self.revision += 1;
        let object = self.objects.get_mut(&(kind, name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
    }

    fn sandbox_changed(&mut self, name: &str) {
        self.revision += 1;
        let sandbox = self.sandboxes.get_mut(name).unwrap();
        sandbox["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let view = view_of(sandbox);
        self.hear(Input::Sandbox(Change::Upsert(view)));
    }

    fn changed(&mut self, kind: Kind, name: &str) {
        let object = self.objects[&(kind, name.to_owned())].clone();
        if is_shown(&object) {
            self.hear(match kind {
                Kind::Claim => Input::Claim(Change::Upsert(claim_view(&object))),
                Kind::Pod => Input::Pod(Change::Upsert(pod_view(&object))),
                Kind::Service => Input::Service(Change::Upsert(service_view(&object))),
            });
        }
    }

    fn hear(&mut self, input: Input) {
        self.index.handle(input, self.now);
    }

    fn work(&mut self) {
        for _ in 0..100 {
            let work = self.index.work(self.now);
            if work.is_empty() {
                return;
            }
            for work in work {
                let mut results = Vec::new();
                let mut heard = Vec::new();
                for write in work.writes {
                    self.tries += 1;
                    let is_status = matches!(write, Write::Status { .. });
                    let outcome = if self.refuse.is_empty() || is_status {
                        self.carry_out(&write, &mut heard)
                    } else {
                        Outcome::Failed(self.refuse.clone())
                    };
                    let outcome = match outcome {
                        Outcome::Is(_) | Outcome::Done if self.lose => {
                            Outcome::Failed("no answer".to_owned())
                        }
                        outcome => outcome,
                    };
                    results.push((write, outcome));
                }
                self.hear(Input::Done(work.key, results));
                // The watches are later than the answers.
                for change in heard {
                    match change {
                        Heard::Child(kind, name) => self.changed(kind, &name),
                        Heard::Sandbox(name) => self.sandbox_changed(&name),
                        Heard::Gone(input) => self.hear(*input),
                    }
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn carry_out(&mut self, write: &Write, heard: &mut Vec<Heard>) -> Outcome {
        match write {
            Write::Create {
                kind, name, object, ..
            } => {
                if let Some(there) = self.object(*kind, name) {
                    return Outcome::Was(Box::new(found(*kind, &there)));
                }
                self.writes += 1;
                self.made += usize::from(*kind == Kind::Pod);
                self.store(*kind, object.clone());
                heard.push(Heard::Child(*kind, name.clone()));
                let made = self.object(*kind, name).unwrap();
                Outcome::Is(Box::new(found(*kind, &made)))
            }
            Write::Patch {
                kind,
                object,
                patch,
            } => {
                let mut patch = patch.clone();
                let Some(there) = self.objects.get_mut(&(*kind, object.name.clone())) else {
                    return Outcome::Stale;
                };
                let metadata = patch["metadata"].as_object_mut().unwrap();
                let revision = metadata.remove("resourceVersion");
                if revision.is_some_and(|r| r != there["metadata"]["resourceVersion"])
                    || metadata["uid"] != there["metadata"]["uid"]
                {
                    return Outcome::Stale;
                }
                self.writes += 1;
                merge(there, &patch);
                self.revise(*kind, &object.name);
                heard.push(Heard::Child(*kind, object.name.clone()));
                let patched = self.object(*kind, &object.name).unwrap();
                Outcome::Is(Box::new(found(*kind, &patched)))
            }
            Write::Delete {
                kind,
                object,
                revision,
            } => {
                let id = (*kind, object.name.clone());
                let Some(there) = self.objects.get_mut(&id) else {
                    return Outcome::Done;
                };
                let revision = revision.map(|r| r.to_string());
                if uid_of(there) != object.uid
                    || revision.is_some_and(|r| there["metadata"]["resourceVersion"] != r.as_str())
                {
                    return Outcome::Stale;
                }
                self.writes += 1;
                if *kind == Kind::Pod {
                    there["metadata"]["deletionTimestamp"] = self.now.to_string().into();
                    self.revise(*kind, &object.name);
                    heard.push(Heard::Child(*kind, object.name.clone()));
                } else {
                    self.objects.remove(&id);
                    let (key, uid) = (key(&object.name), object.uid.clone());
                    heard.push(Heard::Gone(Box::new(match kind {
                        Kind::Claim => Input::Claim(Change::Remove(key, uid)),
                        _ => Input::Service(Change::Remove(key, uid)),
                    })));
                }
                Outcome::Done
            }
            Write::Status { sandbox, patch } => {
                let Some(there) = self.sandboxes.get_mut(&sandbox.name) else {
                    return Outcome::Stale;
                };
                if uid_of(there) != sandbox.uid {
                    return Outcome::Stale;
                }
                self.writes += 1;
                merge(&mut there["status"], patch);
                heard.push(Heard::Sandbox(sandbox.name.clone()));
                Outcome::Done
            }
            Write::DeleteSandbox(sandbox) => {
                let there = self.sandboxes.get(&sandbox.name).map(uid_of);
                if there.as_ref() == Some(&sandbox.uid) {
                    self.writes += 1;
                    self.sandboxes.remove(&sandbox.name);
                    let gone = Change::Remove(key(&sandbox.name), sandbox.uid.clone());
                    heard.push(Heard::Gone(Box::new(Input::Sandbox(gone))));
                }
                Outcome::Done
            }
        }
    }
}

enum Heard {
    Child(Kind, String),
    Sandbox(String),
    Gone(Box<Input>),
}

fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Whether the watches, which select by our label, show it.
fn is_shown(object: &Value) -> bool {
    object["metadata"]["labels"].get(HASH).is_some()
}

fn view_of(sandbox: &Value) -> SandboxView {
    let sandbox: Sandbox = serde_json::from_value(sandbox.clone()).unwrap();
    sandbox.into()
}

fn pod_view(object: &Value) -> PodView {
    let pod: Pod = serde_json::from_value(object.clone()).unwrap();
    let view: PodView = pod.into();
    assert_ne!(view.revision(), 0);
    view
}

fn service_view(object: &Value) -> ServiceView {
    let service: Service = serde_json::from_value(object.clone()).unwrap();
    service.into()
}

fn claim_view(object: &Value) -> ClaimView {
    let claim: PersistentVolumeClaim = serde_json::from_value(object.clone()).unwrap();
    claim.into()
}

fn found(kind: Kind, object: &Value) -> Found {
    match kind {
        Kind::Claim => Found::Claim(claim_view(object)),
        Kind::Pod => Found::Pod(pod_view(object)),
        Kind::Service => Found::Service(service_view(object)),
    }
}
