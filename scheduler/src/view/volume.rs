//! What the index keeps of the claim of a persistent volume.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pilotlight_common::names::SANDBOX_ANNOTATION;
use pilotlight_common::quantity::Bytes;

use super::Identity;

/// A PersistentVolumeClaim that this project created.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VolumeView {
    /// Metadata.
    pub identity: Identity,
    /// Name of the Sandbox that it was made for.
    pub sandbox: Option<String>,
    /// Size that it asks for; nothing where that cannot be read.
    pub requested: Bytes,
}

impl From<PersistentVolumeClaim> for VolumeView {
    fn from(claim: PersistentVolumeClaim) -> Self {
        let requested = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"))
            .and_then(|size| Bytes::parse(&size.0).ok());
        Self {
            identity: Identity::of(&claim),
            sandbox: claim.annotations().get(SANDBOX_ANNOTATION).cloned(),
            requested: requested.unwrap_or_default(),
        }
    }
}
