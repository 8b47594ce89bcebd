//! CPUs given by writing the kubelet's cgroups. Called by [`super::Cpus`].
//!
//! Every change is a transaction: the checkpoint is written first, then everybody else is moved off, then it is looked
//! whether they are, and then the pod is granted its CPUs. A crash anywhere in between is completed by the next start.

use std::time::Instant;

use super::files::{Cpusets, Machine, Store};
use super::scan::{Scan, write};
use super::{CpuBackend, CpuError, KubeletState, Rules, held_by};
use crate::cpu::adopt::{Live, adopt};
use crate::cpu::checkpoint::{Checkpoint, CheckpointError, Pins};
use crate::cpu::plan::{Grant, Grants, intruder, is_granted, plan};
use crate::cpu::{CpuSet, Pool, Topology};
use crate::protocol::{CpuState, MAX_PINS, Pin, PodUid};

/// Looks at the whole tree before it is given up that somebody leaves: containers come while others are moved off.
const ROUNDS: usize = 6;

/// The pins of a node.
#[derive(Debug)]
pub struct Pinning<C> {
    cpusets: C,
    machine: Machine,
    store: Store,
    rules: Rules,
    kubelet: Option<KubeletState>,
    pins: Pins,
    /// Pods whose CPUs are all there and theirs alone, as last looked at.
    intact: Vec<PodUid>,
    /// Whether the pins of the life before this one were taken over.
    loaded: bool,
    /// Whether anything was ever pinned in this boot: until then nothing is written.
    managed: bool,
}

/// How things stand.
struct Standing {
    topology: Topology,
    usable: CpuSet,
}

impl<C: Cpusets> Pinning<C> {
    /// Nothing is read or written before the first call.
    pub fn new(
        cpusets: C,
        machine: Machine,
        store: Store,
        rules: Rules,
        kubelet: Option<KubeletState>,
    ) -> Self {
        Self {
            cpusets,
            machine,
            store,
            rules,
            kubelet,
            pins: Pins::new(),
            intact: Vec::new(),
            loaded: false,
            managed: false,
        }
    }

    /// Looks at everything, takes over what was before, and gives back what pods had that are gone.
    fn refresh(&mut self, now: Instant) -> Result<Standing, CpuError> {
        if self
            .kubelet
            .as_ref()
            .is_some_and(KubeletState::was_replaced)
        {
            return Err(CpuError::Unavailable(
                "the kubelet wrote a new cpu_manager_state since the agent of this node started; delete the agent's pod, so that it reads the policy anew"
                    .to_owned(),
            ));
        }
        let topology = self.machine.topology()?;
        let scan = Scan::take(&mut self.cpusets, now)?;
        let usable = scan.full().intersection(&topology.online());
        if !self.loaded {
            self.load(&scan, &topology)?;
        }
        let before = self.pins.len();
        self.pins.retain(|pod, _| scan.has(pod));
        if self.pins.len() != before {
            self.save(&topology)?;
        }
        Ok(Standing { topology, usable })
    }

    fn load(&mut self, scan: &Scan, topology: &Topology) -> Result<(), CpuError> {
        let boot_id = self.machine.boot_id();
        let remembered = match self.store.load() {
            Ok(None) => None,
            Ok(Some(bytes)) => match Checkpoint::read(&bytes, &boot_id) {
                Ok(pins) => Some(pins),
                Err(CheckpointError::OtherBoot) => None,
                Err(error) => {
                    tracing::warn!(%error, "the checkpoint of CPUs is not believed; what runs keeps what it has");
                    None
                }
            },
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of CPUs cannot be read; what runs keeps what it has");
                None
            }
        };
        let full = scan.full();
        let shared = scan.shared();
        let live = Live {
            pods: &scan.pods(),
            shared: shared.clone(),
            full: full.clone(),
        };
        let adopted = adopt(remembered.as_ref(), &live, topology);
        for note in &adopted.notes {
            tracing::warn!(note, "the checkpoint of CPUs is not followed");
        }
        let pinned = remembered.as_ref().is_some_and(|pins| !pins.is_empty());
        self.managed = pinned || shared.is_some_and(|shared| shared != full);
        self.pins = adopted.pins;
        if remembered.is_none_or(|remembered| remembered != self.pins) && self.managed {
            self.save(topology)?;
        }
        self.loaded = true;
        Ok(())
    }

    fn save(&self, topology: &Topology) -> Result<(), CpuError> {
        let checkpoint = Checkpoint::new(
            &self.machine.boot_id(),
            &topology.fingerprint(),
            self.pins.clone(),
        );
        self.store
            .save(&checkpoint.write()?)
            .map_err(CpuError::Store)
    }

    fn grants(&self, topology: &Topology) -> Grants {
        let grant = |(pod, cpus): (&PodUid, &CpuSet)| {
            let grant = Grant {
                cpus: cpus.clone(),
                held: topology.whole_cores(cpus),
            };
            (pod.to_string(), grant)
        };
        self.pins.iter().map(grant).collect()
    }

    /// Makes the cgroups what they must be, and looks that they are.
    fn settle(&mut self, standing: &Standing, now: Instant) -> Result<(), CpuError> {
        if !self.managed {
            return Ok(());
        }
        let grants = self.grants(&standing.topology);
        let mut last = Ok(());
        for _ in 0..ROUNDS {
            let mut scan = Scan::take(&mut self.cpusets, now)?;
            let mut todo = plan(&scan.groups, &grants);
            if !todo.others.is_empty() {
                last = write(&mut self.cpusets, &scan, &todo.others);
                scan = Scan::take(&mut self.cpusets, now)?;
                todo = plan(&scan.groups, &grants);
            }
            if let Some(at) = intruder(&scan.groups, &grants) {
                // Somebody came in between. Nothing is granted before it has left.
                last = last.and(Err(CpuError::Unsettled(scan.paths[at].clone())));
                continue;
            }
            if todo.others.is_empty() && todo.grants.is_empty() {
                self.note_intact(&scan, standing);
                // Nobody has CPUs of its own, and all others have theirs back: there is nothing to look after.
                self.managed = !self.pins.is_empty();
                return Ok(());
            }
            last = last.and(write(&mut self.cpusets, &scan, &todo.grants));
        }
        let scan = Scan::take(&mut self.cpusets, now)?;
        self.note_intact(&scan, standing);
        let todo = plan(&scan.groups, &grants);
        if todo.others.is_empty() && todo.grants.is_empty() {
            return Ok(());
        }
        let left = todo.others.first().or(todo.grants.first());
        last.and(Err(CpuError::Unsettled(
            left.map(|(at, _)| scan.paths[*at].clone())
                .unwrap_or_default(),
        )))
    }

    fn note_intact(&mut self, scan: &Scan, standing: &Standing) {
        let alone = intruder(&scan.groups, &self.grants(&standing.topology)).is_none();
        self.intact = self
            .pins
            .iter()
            .filter(|(pod, cpus)| {
                alone
                    && cpus.is_subset(&standing.usable)
                    && is_granted(&scan.groups, pod.as_str(), cpus)
            })
            .map(|(pod, _)| pod.clone())
            .collect();
    }

    fn pool<'a>(&self, standing: &'a Standing) -> Pool<'a> {
        Pool {
            topology: &standing.topology,
            usable: standing.usable.clone(),
            reserved: self.rules.reserved.clone(),
            floor: self.rules.floor,
            taken: held_by(&self.pins, &standing.topology),
        }
    }

    /// What a pod has already, where that is enough.
    fn kept(
        &self,
        pod: &PodUid,
        wanted: usize,
        standing: &Standing,
    ) -> Option<Result<CpuSet, CpuError>> {
        let cpus = self.pins.get(pod)?;
        let missing = cpus.difference(&standing.usable);
        if !missing.is_empty() {
            let cpus = cpus.clone();
            return Some(Err(CpuError::Offline { cpus, missing }));
        }
        // A pod serves one sandbox, so it never asks for another number; what was adopted may be another.
        (cpus.len() >= wanted).then(|| Ok(cpus.clone()))
    }
}

impl<C: Cpusets> CpuBackend for Pinning<C> {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn pin(&mut self, pod: &PodUid, wanted: u32, now: Instant) -> Result<CpuSet, CpuError> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let standing = self.refresh(now)?;
        if !Scan::take(&mut self.cpusets, now)?.has(pod) {
            return Err(CpuError::NoPod(pod.clone()));
        }
        if let Some(kept) = self.kept(pod, wanted, &standing) {
            let cpus = kept?;
            self.settle(&standing, now)?;
            return Ok(cpus);
        }
        let allocation = self.pool(&standing).allocate(wanted)?;
        let before = self.pins.insert(pod.clone(), allocation.cpus.clone());
        let managed = std::mem::replace(&mut self.managed, true);
        let granted = self
            .save(&standing.topology)
            .and_then(|()| self.settle(&standing, now));
        if let Err(error) = granted {
            // As before, as far as the kernel lets it; the next turn does the rest.
            match before {
                Some(cpus) => self.pins.insert(pod.clone(), cpus),
                None => self.pins.remove(pod),
            };
            let undone = self
                .save(&standing.topology)
                .and_then(|()| self.settle(&standing, now));
            if let Err(error) = undone {
                tracing::warn!(%pod, %error, "CPUs that could not be granted are not given back yet");
            } else if !managed && self.pins.is_empty() {
                self.managed = managed;
            }
            return Err(error);
        }
        Ok(allocation.cpus)
    }

    fn tick(&mut self, now: Instant) -> Result<(), CpuError> {
        if self.loaded && !self.managed {
            return Ok(());
        }
        let standing = self.refresh(now)?;
        self.settle(&standing, now)?;
        match self.offline(&standing) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn state(&mut self, now: Instant) -> Result<CpuState, CpuError> {
        let standing = self.refresh(now)?;
        let trouble = self.settle(&standing, now).err();
        let pool = self.pool(&standing);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let core = standing.topology.cores().values().map(CpuSet::len).max();
        // What cannot be kept is not promised to anybody else.
        let free = if trouble.is_some() { 0 } else { pool.largest() };
        let message = trouble
            .or_else(|| self.offline(&standing))
            .map(|error| super::short(&error))
            .unwrap_or_default();
        Ok(CpuState {
            message,
            free: number(free),
            capacity: number(pool.capacity()),
            core: number(core.unwrap_or(1)),
            pins: self
                .pins
                .keys()
                .filter_map(|pod| self.pin_of(pod))
                .take(MAX_PINS)
                .collect(),
        })
    }

    fn pin_of(&self, pod: &PodUid) -> Option<Pin> {
        Some(Pin {
            pod: pod.clone(),
            cpus: self.pins.get(pod)?.clone(),
            intact: self.intact.contains(pod),
        })
    }
}

impl<C> Pinning<C> {
    /// What is missing of CPUs that were given. They stay with their pod: they may come back.
    fn offline(&self, standing: &Standing) -> Option<CpuError> {
        self.pins.values().find_map(|cpus| {
            let missing = cpus.difference(&standing.usable);
            (!missing.is_empty()).then(|| CpuError::Offline {
                cpus: cpus.clone(),
                missing,
            })
        })
    }
}
