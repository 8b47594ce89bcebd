//! CPUs given by the kubelet's static CPU manager, which are only looked at. Called by [`super::Cpus`].
//!
//! That kubelet gives whole CPUs when a pod is made, to pods with equal requests and limits and whole CPUs, and takes them
//! from everybody else. It tells nobody by the cgroups which container is whose, so this goes by what they show: a container
//! with as many CPUs as were asked for, on which no container of another pod runs. The sandbox (pause) containers are
//! left out: that kubelet lets them run anywhere, and they do nothing.

use std::time::Instant;

use super::files::{Cpusets, Machine};
use super::scan::Scan;
use super::{CpuBackend, CpuError, Rules};
use crate::cpu::CpuSet;
use crate::protocol::{CpuState, MAX_PINS, Pin, PodUid};

/// The pins that were seen.
#[derive(Debug)]
pub struct Observe<C> {
    cpusets: C,
    machine: Machine,
    rules: Rules,
    /// What pods were found to have, and whether they still have it.
    seen: Vec<Pin>,
}

impl<C: Cpusets> Observe<C> {
    /// Nothing is read before the first call.
    pub fn new(cpusets: C, machine: Machine, rules: Rules) -> Self {
        Self {
            cpusets,
            machine,
            rules,
            seen: Vec::new(),
        }
    }

    fn look(&mut self, now: Instant) -> Result<Scan, CpuError> {
        let scan = Scan::take(&mut self.cpusets, now)?;
        self.seen.retain(|pin| scan.has(&pin.pod));
        for pin in &mut self.seen {
            pin.intact = is_alone(&scan, &pin.pod, &pin.cpus);
        }
        Ok(scan)
    }
}

/// Whether a container of the pod runs on exactly these CPUs, and none of another pod on any of them.
fn is_alone(scan: &Scan, pod: &PodUid, cpus: &CpuSet) -> bool {
    let full = scan.full();
    let containers = || {
        scan.groups.iter().filter(|group| {
            let of_pod = |at: usize| scan.groups[at].pod.is_some();
            group.parent.is_some_and(of_pod) && group.cpus != full
        })
    };
    let own = |uid: &Option<String>| uid.as_deref() == Some(pod.as_str());
    !cpus.is_empty()
        && containers().any(|group| own(&group.pod) && group.cpus == *cpus)
        && containers().all(|group| own(&group.pod) || group.cpus.is_disjoint(cpus))
}

impl<C: Cpusets> CpuBackend for Observe<C> {
    fn name(&self) -> &'static str {
        "observe"
    }

    fn pin(&mut self, pod: &PodUid, wanted: u32, now: Instant) -> Result<CpuSet, CpuError> {
        let scan = self.look(now)?;
        if !scan.has(pod) {
            return Err(CpuError::NoPod(pod.clone()));
        }
        let wanted_count = usize::try_from(wanted).unwrap_or(usize::MAX);
        let found = scan
            .groups
            .iter()
            .filter(|group| group.pod.as_deref() == Some(pod.as_str()))
            .map(|group| &group.cpus)
            .find(|cpus| cpus.len() == wanted_count && is_alone(&scan, pod, cpus))
            .cloned()
            .ok_or(CpuError::NotGiven { wanted })?;
        self.seen.retain(|pin| pin.pod != *pod);
        self.seen.push(Pin {
            pod: pod.clone(),
            cpus: found.clone(),
            intact: true,
        });
        Ok(found)
    }

    fn tick(&mut self, now: Instant) -> Result<(), CpuError> {
        if self.seen.is_empty() {
            return Ok(());
        }
        self.look(now).map(|_| ())
    }

    fn state(&mut self, now: Instant) -> Result<CpuState, CpuError> {
        self.look(now)?;
        // A pod brings its own, so none has to be free beside them; whether it does is looked at when it is asked for.
        let online = self.machine.topology()?.online();
        let most = online
            .difference(&self.rules.reserved)
            .len()
            .saturating_sub(self.rules.floor.max(1));
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Ok(CpuState {
            message: String::new(),
            free: most,
            capacity: most,
            core: 1,
            pins: self.seen.iter().take(MAX_PINS).cloned().collect(),
        })
    }

    fn pin_of(&self, pod: &PodUid) -> Option<Pin> {
        self.seen.iter().find(|pin| pin.pod == *pod).cloned()
    }
}
