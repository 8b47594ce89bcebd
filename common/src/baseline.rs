//! The security that every pod of this project has, whichever API asked for it. Used by the scheduler for the pods of
//! `llmsafespace.dev` and by [`crate::agents::manifest`] for those of `agents.x-k8s.io`.

use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};

/// User and group of the processes, where nothing else is said.
pub const USER: i64 = 1000;

/// For a pod: not root, and files of its volumes belong to its group without a walk through all of them at each start.
pub fn pod(user: i64, group: i64, seccomp: SeccompProfile) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(group),
        fs_group: Some(group),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(seccomp),
        ..PodSecurityContext::default()
    }
}

/// For each of its containers: no capabilities and no way to new ones.
pub fn container(read_only_root: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(read_only_root),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        ..SecurityContext::default()
    }
}

/// The container runtime's own profile.
pub fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}
