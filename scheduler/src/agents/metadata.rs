//! Labels and annotations that a Sandbox's pod has from its template: put on it when it is made, and kept up with edits. Used by
//! [`super::pod`] and [`super::decide`].

use std::collections::BTreeMap;

use pilotlight_common::agents::names::{
    CREATED_BY, CREATED_BY_LABEL, NAME_HASH_LABEL, PROPAGATED_ANNOTATIONS, PROPAGATED_LABELS,
    is_reserved, name_hash,
};
use serde_json::{Map, Value, json};

use super::view::{PodView, SandboxView};

/// Labels or annotations.
type Pairs = BTreeMap<String, String>;

/// What the pod is to have, with what tells later which of it is the template's.
pub fn wanted(sandbox: &SandboxView) -> (Pairs, Pairs) {
    let metadata = sandbox.spec.pod_template.metadata.as_ref();
    let of_template = |pairs: Option<&Pairs>| -> Pairs {
        let pairs = pairs.into_iter().flatten();
        pairs
            .filter(|(key, _)| !is_reserved(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let mut labels = of_template(metadata.and_then(|m| m.labels.as_ref()));
    let mut annotations = of_template(metadata.and_then(|m| m.annotations.as_ref()));
    // Both are in order already.
    let keys = |pairs: &Pairs| pairs.keys().cloned().collect::<Vec<_>>().join(",");
    let propagated = [
        (PROPAGATED_LABELS, keys(&labels)),
        (PROPAGATED_ANNOTATIONS, keys(&annotations)),
    ];
    for (key, value) in propagated.into_iter().filter(|(_, keys)| !keys.is_empty()) {
        annotations.insert(key.to_owned(), value);
    }
    let name = &sandbox.identity.key.name;
    labels.insert(NAME_HASH_LABEL.to_owned(), name_hash(name));
    if let Some(client) = sandbox.created_by.as_deref().filter(|c| !c.is_empty()) {
        let known = CREATED_BY.iter().find(|known| **known == client);
        let client = known.copied().unwrap_or("unknown");
        labels.insert(CREATED_BY_LABEL.to_owned(), client.to_owned());
    }
    (labels, annotations)
}

/// What must change on a pod; nothing where all is as it should be. What others put on it stays.
pub fn difference(sandbox: &SandboxView, pod: &PodView) -> Option<Value> {
    let (labels, annotations) = wanted(sandbox);
    let listed = |key: &str| {
        let list = pod.annotations.get(key).map_or("", String::as_str);
        list.split(',').filter(|key| !key.is_empty())
    };
    let mut changes = Map::new();
    let mut stale: Vec<&str> = listed(PROPAGATED_LABELS).collect();
    stale.push(CREATED_BY_LABEL);
    let labels = changed(&pod.labels, &labels, stale.into_iter());
    let mut stale: Vec<&str> = listed(PROPAGATED_ANNOTATIONS).collect();
    stale.extend([PROPAGATED_LABELS, PROPAGATED_ANNOTATIONS]);
    let annotations = changed(&pod.annotations, &annotations, stale.into_iter());
    for (key, changed) in [("labels", labels), ("annotations", annotations)] {
        if !changed.is_empty() {
            changes.insert(key.to_owned(), Value::Object(changed));
        }
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// What is wanted and not there, and null for what was the template's and is not any more.
fn changed<'a>(
    has: &Pairs,
    wanted: &Pairs,
    of_template: impl Iterator<Item = &'a str>,
) -> Map<String, Value> {
    let missing = wanted
        .iter()
        .filter(|(key, value)| has.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), json!(value)));
    let stale = of_template
        .filter(|key| has.contains_key(*key) && !wanted.contains_key(*key))
        .map(|key| (key.to_owned(), Value::Null));
    missing.chain(stale).collect()
}
