//! Pods, inspections and assignments for the tests of [`super`].

use std::time::Duration;

use pilotlight_common::names::OwnerKind;
use pilotlight_common::stream::{Assignment, ObjectId};

use super::backoff::Time;
use crate::api::facts::{PodFacts, PodOwner, PodPhase};
use crate::protocol::{ContainerInspection, PodInspection, PodUid};

pub fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

pub fn uid(n: u8) -> PodUid {
    PodUid::try_from(format!("00000000-0000-0000-0000-0000000000{n:02x}")).unwrap()
}

fn object(name: String, uid: String) -> ObjectId {
    ObjectId {
        namespace: "team".into(),
        name,
        uid,
    }
}

/// A pod that runs and was not looked at.
pub fn facts(n: u8) -> PodFacts {
    PodFacts {
        uid: uid(n),
        pod: object(format!("wp-{n}"), uid(n).to_string()),
        owner: PodOwner {
            kind: OwnerKind::WarmPod,
            id: object(format!("wp-{n}"), format!("warm-{n}")),
        },
        terminating: false,
        phase: PodPhase::Running,
        initialized: true,
        containers_ready: true,
        asks_unconfined: None,
        has_runtime_class: false,
        running: ["c1".to_owned()].into(),
        known: ["c1".to_owned()].into(),
        condition: None,
        profiles: std::collections::BTreeSet::default(),
    }
}

pub fn inspection(n: u8, processes: u32, unconfined: Option<u32>) -> PodInspection {
    PodInspection {
        uid: uid(n),
        found: true,
        containers: vec![ContainerInspection {
            id: "c1".into(),
            processes,
            unconfined,
            truncated: false,
        }],
        truncated: false,
        pin: None,
    }
}

pub fn confined(n: u8) -> PodInspection {
    inspection(n, 1, None)
}

/// Warm pod `n` given to sandbox `sandbox`.
pub fn assignment(n: u8, sandbox: u8) -> Assignment {
    Assignment {
        owner: object(format!("wp-{n}"), format!("warm-{n}")),
        pod_name: format!("wp-{n}"),
        sandbox: object(format!("sb-{sandbox}"), format!("sandbox-{sandbox}")),
        endpoint: format!("wp-{n}.sandboxes.team.svc.cluster.local"),
        assigned_at: jiff::Timestamp::UNIX_EPOCH,
        cpus: 0,
        network: pilotlight_common::network::NetworkRules::default(),
    }
}
