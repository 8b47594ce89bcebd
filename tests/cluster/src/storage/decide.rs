//! What is to be done about the claims and volumes there are. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::watch::Kind;
use crate::objects::STORAGE_CLASS;

/// The name under which the StorageClass and the volumes know this component.
pub(crate) const PROVISIONER: &str = "pilotlight.local/storage";
/// Where the scheduler writes the node of a claim's pod.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Where a volume says who made it.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// One thing to do; doing it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the folder on the node and the volume for it.
    Provision {
        claim: Claim,
        volume: String,
        node: String,
    },
    /// Give volume and claim the size the claim asks for.
    Grow { claim: Claim, volume: String },
    /// Remove the folder with all that is in it, and the volume.
    Remove { volume: String, node: String },
}

/// What matters of a PersistentVolumeClaim of the class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) access_modes: Value,
    /// As the API server writes it; two equal sizes are equal texts, since all of them come from the claim's.
    pub(super) request: String,
    /// Empty until it is bound.
    capacity: String,
    bound_to: String,
    selected_node: String,
}

/// What matters of a PersistentVolume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    capacity: String,
    node: String,
    released: bool,
}

/// All claims of the class by uid and all volumes of ours by name.
#[derive(Debug, Default)]
pub(super) struct View {
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, Volume>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Claim {
    /// `None` for what is not ours to serve: another class, raw block volumes, and claims on their way out.
    fn of(object: &Value) -> Option<Self> {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let ours = spec["storageClassName"] == STORAGE_CLASS
            && spec["volumeMode"] != "Block"
            && meta["deletionTimestamp"].is_null();
        ours.then(|| Self {
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
            uid: text(&meta["uid"]),
            access_modes: spec["accessModes"].clone(),
            request: text(&spec["resources"]["requests"]["storage"]),
            capacity: text(&object["status"]["capacity"]["storage"]),
            bound_to: text(&spec["volumeName"]),
            selected_node: text(&meta["annotations"][SELECTED_NODE]),
        })
    }

    fn decide(&self, volumes: &BTreeMap<String, Volume>) -> Option<Action> {
        let volume = format!("pvc-{}", self.uid);
        match volumes.get(&volume) {
            None if self.bound_to.is_empty() && !self.selected_node.is_empty() => {
                Some(Action::Provision {
                    claim: self.clone(),
                    volume,
                    node: self.selected_node.clone(),
                })
            }
            // Until both know each other, the volume controller is still writing.
            Some(known) if self.bound_to == volume && !self.capacity.is_empty() => {
                let grown = known.capacity == self.request && self.capacity == self.request;
                (!grown).then(|| Action::Grow {
                    claim: self.clone(),
                    volume,
                })
            }
            _ => None,
        }
    }
}

impl Volume {
    /// `None` for what somebody else made, and for what is being deleted already.
    fn of(object: &Value) -> Option<Self> {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let ours = meta["annotations"][PROVISIONED_BY] == PROVISIONER
            && meta["deletionTimestamp"].is_null();
        let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
        ours.then(|| Self {
            capacity: text(&spec["capacity"]["storage"]),
            node: text(&terms[0]["matchExpressions"][0]["values"][0]),
            released: object["status"]["phase"] == "Released"
                && spec["persistentVolumeReclaimPolicy"] == "Delete",
        })
    }
}

impl View {
    /// Forgets all of a kind: its watch begins anew and tells again what there is.
    pub(super) fn clear(&mut self, kind: Kind) {
        match kind {
            Kind::Claim => self.claims.clear(),
            Kind::Volume => self.volumes.clear(),
        }
    }

    /// Takes in an object as it is now.
    pub(super) fn put(&mut self, object: &Value) {
        self.remove(object);
        match Kind::of(object) {
            Some(Kind::Claim) => {
                if let Some(claim) = Claim::of(object) {
                    self.claims.insert(claim.uid.clone(), claim);
                }
            }
            Some(Kind::Volume) => {
                if let Some(volume) = Volume::of(object) {
                    self.volumes
                        .insert(text(&object["metadata"]["name"]), volume);
                }
            }
            None => {}
        }
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, object: &Value) {
        let meta = &object["metadata"];
        match Kind::of(object) {
            Some(Kind::Claim) => drop(self.claims.remove(meta["uid"].as_str().unwrap_or_default())),
            Some(Kind::Volume) => drop(
                self.volumes
                    .remove(meta["name"].as_str().unwrap_or_default()),
            ),
            None => {}
        }
    }

    /// All there is to do.
    pub(super) fn decide(&self) -> Vec<Action> {
        let released = self.volumes.iter().filter(|(_, volume)| volume.released);
        let removals = released.map(|(name, volume)| Action::Remove {
            volume: name.clone(),
            node: volume.node.clone(),
        });
        let claims = self.claims.values();
        claims
            .filter_map(|claim| claim.decide(&self.volumes))
            .chain(removals)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::apply::volume_object;
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn claim(request: &str, capacity: Option<&str>) -> Value {
        json!({
            "kind": "PersistentVolumeClaim",
            "metadata": { "namespace": "a", "name": "home", "uid": "u-1", "annotations": { SELECTED_NODE: "node-2" } },
            "spec": {
                "storageClassName": STORAGE_CLASS, "volumeMode": "Filesystem", "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": request } },
                "volumeName": capacity.map_or("", |_| "pvc-u-1"),
            },
            "status": { "capacity": { "storage": capacity } },
        })
    }

    fn volume(capacity: &str, phase: &str) -> Value {
        let claim = Claim::of(&claim(capacity, None)).unwrap();
        let mut object = volume_object(&claim, "pvc-u-1", "node-2", Path::new("/v/pvc-u-1"));
        object["status"] = json!({ "phase": phase });
        object
    }

    fn decided(objects: &[Value]) -> Vec<Action> {
        let mut view = View::default();
        for object in objects {
            view.put(object);
        }
        view.decide()
    }

    #[test]
    fn a_claim_gets_a_volume_once_its_pod_has_a_node() {
        let actions = decided(&[claim("1Gi", None)]);
        assert!(
            matches!(&actions[..], [Action::Provision { volume, node, .. }] if volume == "pvc-u-1" && node == "node-2")
        );
        let mut waiting = claim("1Gi", None);
        waiting["metadata"]["annotations"] = Value::Null;
        assert_eq!(decided(&[waiting]), []);
        // It is there, and the volume controller has not bound it yet.
        assert_eq!(
            decided(&[claim("1Gi", None), volume("1Gi", "Available")]),
            []
        );
    }

    #[test]
    fn only_file_systems_of_the_class_are_made() {
        for (pointer, value) in [
            ("/spec/storageClassName", json!("other")),
            ("/spec/volumeMode", json!("Block")),
        ] {
            let mut other = claim("1Gi", None);
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(decided(&[other]), []);
        }
        let mut leaving = claim("1Gi", None);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(decided(&[leaving]), []);
    }

    #[test]
    fn growth_goes_on_until_volume_and_claim_both_show_it() {
        let grows = |request, shown, volume_size| {
            let actions = decided(&[claim(request, Some(shown)), volume(volume_size, "Bound")]);
            matches!(&actions[..], [Action::Grow { claim, .. }] if claim.request == request)
        };
        assert!(grows("2Gi", "1Gi", "1Gi"));
        assert!(grows("2Gi", "1Gi", "2Gi"));
        assert!(!grows("2Gi", "2Gi", "2Gi"));
    }

    #[test]
    fn a_released_volume_is_removed_once_and_nobody_elses_ever() {
        let removal = [Action::Remove {
            volume: "pvc-u-1".into(),
            node: "node-2".into(),
        }];
        assert_eq!(decided(&[volume("1Gi", "Released")]), removal);
        for (pointer, value) in [
            (
                "/metadata/annotations",
                json!({ PROVISIONED_BY: "another" }),
            ),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/spec/persistentVolumeReclaimPolicy", json!("Retain")),
        ] {
            let mut other = volume("1Gi", "Released");
            other["metadata"]["deletionTimestamp"] = Value::Null;
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(decided(&[other]), []);
        }
    }

    #[test]
    fn a_watch_that_begins_anew_forgets_what_went_meanwhile() {
        let mut view = View::default();
        view.put(&volume("1Gi", "Released"));
        view.clear(Kind::Volume);
        assert_eq!(view.decide(), []);
        view.put(&claim("1Gi", None));
        view.remove(&claim("1Gi", None));
        assert_eq!(view.decide(), []);
    }
}
