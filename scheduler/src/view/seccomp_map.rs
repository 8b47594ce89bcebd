//! What the index keeps of a ConfigMap with users' seccomp profiles.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::Identity;

/// A labelled ConfigMap of the system namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SeccompMapView {
    /// Metadata.
    pub identity: Identity,
    /// What it says, by key; of what is no text, nothing but the key.
    pub data: BTreeMap<String, String>,
}

impl From<ConfigMap> for SeccompMapView {
    fn from(map: ConfigMap) -> Self {
        let identity = Identity::of(&map);
        let binary = map.binary_data.unwrap_or_default();
        let mut data = map.data.unwrap_or_default();
        data.extend(binary.into_keys().map(|key| (key, String::new())));
        Self { identity, data }
    }
}
