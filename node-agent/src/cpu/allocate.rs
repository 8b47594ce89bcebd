//! Which CPUs a sandbox gets. Pure; called by [`crate::host::cpuset`].
//!
//! A sandbox is given CPUs of cores that are wholly its own: what is left of its last core stays idle, so that no thread
//! of anybody shares a core with it. Of all choices the nearest wins (one L3 cache, one NUMA node, one package), then the
//! one that leaves the least idle, then the one that fits tightest, then the lowest numbers.

use std::collections::BTreeMap;

use super::set::CpuSet;
use super::topology::{Place, Topology};

/// CPUs that were given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allocation {
    /// Those that the sandbox runs on.
    pub cpus: CpuSet,
    /// Those, and the rest of their cores: nobody else runs there.
    pub held: CpuSet,
}

/// Why no CPUs were given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Shortage {
    /// None was asked for.
    #[error("no CPU was asked for; ask for one at least")]
    Nothing,
    /// More than the node could ever give.
    #[error(
        "{wanted} whole CPUs were asked for, and this node can give {capacity} to one sandbox at most"
    )]
    TooMany {
        /// CPUs that were asked for.
        wanted: usize,
        /// The most that could be given if nobody had any.
        capacity: usize,
    },
    /// More than are free now.
    #[error("{wanted} whole CPUs were asked for, and {free} are free on this node now")]
    Taken {
        /// CPUs that were asked for.
        wanted: usize,
        /// The most that can be given now.
        free: usize,
    },
}

/// What CPUs are given out of.
#[derive(Clone, Debug)]
pub struct Pool<'a> {
    /// The machine.
    pub topology: &'a Topology,
    /// CPUs that pods may run on at all.
    pub usable: CpuSet,
    /// CPUs whose cores are never given to a sandbox.
    pub reserved: CpuSet,
    /// CPUs that stay shared at least; always one core.
    pub floor: usize,
    /// CPUs that other sandboxes hold.
    pub taken: CpuSet,
}

/// The name of the group that a place belongs to, at some nearness.
type Level = fn(&Place) -> (u32, u32);

/// Nearness, the closest first. The first is the part of an L3 cache in one node: on some machines a cache spans two.
const LEVELS: [Level; 5] = [
    |place| (place.node, place.cache),
    |place| (place.cache, 0),
    |place| (place.node, 0),
    |place| (place.package, 0),
    |_| (0, 0),
];

/// A core that can be given.
#[derive(Clone, Debug)]
struct Core {
    cpus: CpuSet,
    place: Place,
}

impl Pool<'_> {
    /// Chooses `wanted` CPUs.
    pub fn allocate(&self, wanted: usize) -> Result<Allocation, Shortage> {
        if wanted == 0 {
            return Err(Shortage::Nothing);
        }
        let cores = self.cores();
        let budget = self.budget();
        let choice = LEVELS.iter().find_map(|level| {
            let mut groups: BTreeMap<(u32, u32), Vec<&Core>> = BTreeMap::new();
            for core in &cores {
                groups.entry(level(&core.place)).or_default().push(core);
            }
            groups
                .into_values()
                .filter_map(|group| {
                    let free: usize = group.iter().map(|core| core.cpus.len()).sum();
                    let counts = cover(&sizes(&group), wanted)?;
                    let held: usize = counts.iter().map(|(size, count)| size * count).sum();
                    let lowest = group.first()?.cpus.first();
                    (held <= budget).then_some((held, free, lowest, counts, group))
                })
                .min_by_key(|(held, free, lowest, ..)| (*held, *free, *lowest))
        });
        let Some((_, _, _, mut counts, group)) = choice else {
            let free = self.largest();
            let capacity = self.capacity();
            return Err(if wanted > capacity {
                Shortage::TooMany { wanted, capacity }
            } else {
                Shortage::Taken { wanted, free }
            });
        };
        let mut chosen = Vec::new();
        pick(group, &mut counts, &LEVELS, &mut chosen);
        let mut held = CpuSet::default();
        let mut cpus = Vec::new();
        // Whole cores first: what stays idle is the end of the smallest core.
        chosen.sort_by_key(|core| (std::cmp::Reverse(core.cpus.len()), core.cpus.first()));
        for core in chosen {
            held.add(&core.cpus);
            cpus.extend(core.cpus.iter());
        }
        cpus.truncate(wanted);
        Ok(Allocation {
            cpus: cpus.into_iter().collect(),
            held,
        })
    }

    /// The most CPUs that one sandbox could get now.
    pub fn largest(&self) -> usize {
        let cores = self.cores();
        let sizes = sizes(&cores.iter().collect::<Vec<_>>());
        let budget = self.budget();
        let total: usize = sizes.iter().map(|(size, count)| size * count).sum();
        // The largest that can be held wholly: with cores of one size that is a division.
        let most = total.min(budget);
        let reachable = reachable(&sizes, most);
        (0..=most)
            .rev()
            .find(|sum| reachable.get(*sum).is_some_and(Option::is_some))
            .unwrap_or(0)
    }

    /// The most CPUs that one sandbox could get if no other had any.
    pub fn capacity(&self) -> usize {
        Self {
            taken: CpuSet::default(),
            ..self.clone()
        }
        .largest()
    }

    /// The CPUs that everybody without CPUs of its own runs on.
    pub fn shared(&self) -> CpuSet {
        self.usable.difference(&self.taken)
    }

    /// CPUs that may be held in addition.
    fn budget(&self) -> usize {
        self.shared().len().saturating_sub(self.floor.max(1))
    }

    /// The cores that can be given: wholly usable, not reserved, nobody's. In order of their numbers.
    fn cores(&self) -> Vec<Core> {
        let free = |cpus: &CpuSet| {
            cpus.is_subset(&self.usable)
                && cpus.is_disjoint(&self.reserved)
                && cpus.is_disjoint(&self.taken)
        };
        self.topology
            .cores()
            .into_values()
            .filter(free)
            .filter_map(|cpus| {
                let place = self.topology.place(cpus.first()?)?;
                Some(Core { cpus, place })
            })
            .collect()
    }
}

/// How many cores of each size there are, largest size first.
fn sizes(cores: &[&Core]) -> Vec<(usize, usize)> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for core in cores {
        *counts.entry(core.cpus.len()).or_default() += 1;
    }
    counts.into_iter().rev().collect()
}

/// For every sum up to `most`: the fewest cores that have exactly so many CPUs together, and how many of the last size are
/// among them; `None` where no choice has.
///
/// Machines have cores of one or two sizes, rarely a few more where CPUs are offline, so this is a few passes.
fn reachable(sizes: &[(usize, usize)], most: usize) -> Vec<Option<Vec<usize>>> {
    let mut best: Vec<Option<Vec<usize>>> = vec![None; most + 1];
    best[0] = Some(Vec::new());
    for (at, (size, count)) in sizes.iter().enumerate() {
        // From the top, so that each pass reads what the one before left.
        for sum in (0..=most).rev() {
            let options = (0..=(*count).min(sum / size)).filter_map(|number| {
                let mut counts = best[sum - number * size].clone()?;
                if counts.len() != at {
                    return None;
                }
                counts.push(number);
                Some(counts)
            });
            best[sum] = options.min_by_key(|counts| counts.iter().sum::<usize>());
        }
    }
    best
}

/// Sizes of cores, and how many of each, that have `wanted` CPUs together with the fewest to spare, and of these choices the
/// one with the fewest cores.
fn cover(sizes: &[(usize, usize)], wanted: usize) -> Option<BTreeMap<usize, usize>> {
    let total: usize = sizes.iter().map(|(size, count)| size * count).sum();
    if total < wanted {
        return None;
    }
    let largest = sizes.first()?.0;
    let most = total.min(wanted + largest - 1);
    let reachable = reachable(sizes, most);
    let counts = reachable.into_iter().skip(wanted).flatten().next()?;
    let sizes = sizes.iter().map(|(size, _)| *size);
    Some(sizes.zip(counts).filter(|(_, count)| *count > 0).collect())
}

/// Takes so many cores of each size out of `group`, from as few and as tight parts of it as there are.
fn pick<'a>(
    group: Vec<&'a Core>,
    counts: &mut BTreeMap<usize, usize>,
    levels: &[Level],
    chosen: &mut Vec<&'a Core>,
) {
    let Some((level, inner)) = levels.split_last() else {
        for core in group {
            if let Some(count) = counts.get_mut(&core.cpus.len()).filter(|count| **count > 0) {
                *count -= 1;
                chosen.push(core);
            }
        }
        return;
    };
    let mut parts: BTreeMap<(u32, u32), Vec<&Core>> = BTreeMap::new();
    for core in group {
        parts.entry(level(&core.place)).or_default().push(core);
    }
    while counts.values().any(|count| *count > 0) {
        let supply = |part: &Vec<&Core>| -> usize {
            let sizes = sizes(part);
            let of = |size: &usize| sizes.iter().find(|s| s.0 == *size).map_or(0, |s| s.1);
            let useful = counts
                .iter()
                .map(|(size, count)| size * of(size).min(*count));
            useful.sum()
        };
        let needed: usize = counts.iter().map(|(size, count)| size * count).sum();
        // One part that has it all, and of these the smallest; else the one that has most of it.
        let best = parts.iter().max_by_key(|(name, part)| {
            let supply = supply(part);
            let size = std::cmp::Reverse(part.len());
            (supply.min(needed), size, std::cmp::Reverse(**name))
        });
        let Some((name, part)) = best.filter(|(_, part)| supply(part) > 0) else {
            return;
        };
        let (name, part) = (*name, part.clone());
        parts.remove(&name);
        pick(part, counts, inner, chosen);
    }
}

#[cfg(test)]
mod tests;
