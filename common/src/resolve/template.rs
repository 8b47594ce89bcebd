//! Everything about a pod that is fixed once it exists, and the hash by which sandboxes and warm pods find each other.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::kinds::SecurityLevel;
use crate::quantity::{Bytes, MilliCpu};

/// Everything about a pod that is fixed once it exists.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct PodTemplate {
    /// Namespace of the pod: the Sandbox's own.
    pub namespace: String,
    /// Container image.
    pub image: String,
    /// Command, where the runtime gives one.
    pub command: Vec<String>,
    /// CPU limit.
    pub cpu: MilliCpu,
    /// Memory limit.
    pub memory: Bytes,
    /// Ephemeral storage limit.
    pub ephemeral_storage: Bytes,
    /// Security level after the profile was taken in.
    pub security_level: SecurityLevel,
    /// RuntimeClass of the pod.
    pub runtime_class: Option<String>,
    /// File name of the installed seccomp profile; none is the container runtime's own.
    pub seccomp: Option<String>,
    /// User of the processes.
    pub run_as_user: i64,
    /// Group of the processes.
    pub run_as_group: i64,
    /// Whether the image's files are read-only.
    pub read_only_root: bool,
    /// Paths that can be written, sorted, without repetition.
    pub writable_paths: Vec<String>,
    /// Paths that cannot be written, sorted, without repetition.
    pub read_only_paths: Vec<String>,
    /// Whether a persistent volume is mounted at [`super::DATA_PATH`]; never so in a pool.
    pub has_volume: bool,
    /// Whether it requests all of its limits where other pods request less: its CPUs are to be its own. Never so in a pool,
    /// nor where all pods request their limits anyway.
    pub requests_limits: bool,
}

impl PodTemplate {
    /// Canonical hash of the template: 16 hexadecimal digits, fit for a label value.
    ///
    /// Equal exactly where every field is equal; a collision within the 64 bits kept would need some
    /// four thousand million shapes in one cluster.
    pub fn shape(&self) -> String {
        let mut hash = Sha256::new();
        // Field by field with lengths, so that no two templates can share one text.
        let mut put = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        let Self {
            namespace,
            image,
            command,
            cpu,
            memory,
            ephemeral_storage,
            security_level,
            runtime_class,
            seccomp,
            run_as_user,
            run_as_group,
            read_only_root,
            writable_paths,
            read_only_paths,
            has_volume,
            requests_limits,
        } = self;
        put(namespace);
        put(image);
        for list in [command, writable_paths, read_only_paths] {
            put(&list.len().to_string());
            for item in list {
                put(item);
            }
        }
        for number in [cpu.0, memory.0, ephemeral_storage.0] {
            put(&number.to_string());
        }
        put(&format!("{security_level:?}"));
        for choice in [runtime_class, seccomp] {
            put(if choice.is_some() { "some" } else { "none" });
            put(choice.as_deref().unwrap_or(""));
        }
        put(&run_as_user.to_string());
        put(&run_as_group.to_string());
        put(&read_only_root.to_string());
        put(&has_volume.to_string());
        put(&requests_limits.to_string());
        hex::encode(&hash.finalize()[..8])
    }
}

/// Hash of what a RuntimeEnvironment runs, its image and command: 16 hexadecimal digits, fit for a label value. A pod
/// that carries it and became ready is evidence that the runtime works.
pub fn image_hash(image: &str, command: &[String]) -> String {
    let mut hash = Sha256::new();
    for word in std::iter::once(image).chain(command.iter().map(String::as_str)) {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}
