//! CPU time and memory of both programs, from `/proc`: the local cluster's nodes are namespaces of this machine.
//! On a cluster elsewhere there is nothing to read, and the numbers are left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

/// A process of one of the programs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Process id as seen from here.
    pub pid: i32,
    /// Host name, which in a pod is the pod's name.
    pub host_name: String,
    /// Identity of the process's pid namespace: the same for all processes of one node's agent.
    pub pid_namespace: u64,
    /// Arguments after the program.
    pub arguments: Vec<String>,
}

impl Found {
    /// A file as the process sees it, by its absolute path there.
    pub fn file(&self, path: &str) -> PathBuf {
        let process = Path::new("/proc").join(self.pid.to_string());
        process.join("root").join(path.trim_start_matches('/'))
    }
}

/// CPU seconds so far and memory now, by process.
pub type Reading = BTreeMap<i32, (u64, f64, f64)>;

/// What one program used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// Resident memory, in MiB: the largest of the scheduler's replicas, or of the nodes' agents.
    pub rss_mib: f64,
    /// CPU seconds of all its processes while assignments were measured.
    pub cpu_s: f64,
}

/// The processes whose program file is called `program`.
pub fn find(program: &str) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for process in procfs::process::all_processes()? {
        // Processes end while they are looked at.
        let Ok(process) = process else { continue };
        let Ok(command) = process.cmdline() else {
            continue;
        };
        let Some(first) = command.first() else {
            continue;
        };
        if first.rsplit('/').next() != Some(program) {
            continue;
        }
        let environment = process.environ().unwrap_or_default();
        let host_name = environment
            .get(std::ffi::OsStr::new("HOSTNAME"))
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let pid_namespace = process
            .namespaces()
            .ok()
            .and_then(|all| {
                all.0
                    .get(std::ffi::OsStr::new("pid"))
                    .map(|namespace| namespace.identifier)
            })
            .unwrap_or(0);
        found.push(Found {
            pid: process.pid(),
            host_name,
            pid_namespace,
            arguments: command.into_iter().skip(1).collect(),
        });
    }
    Ok(found)
}

/// CPU seconds and MiB of the processes of `program` in pods of the workload of the same name, with what belongs together under one number.
pub fn read(program: &str) -> Result<Reading> {
    let ticks = procfs::ticks_per_second();
    let mut reading = Reading::new();
    let found = find(program)?.into_iter();
    for found in found.filter(|found| found.host_name.starts_with(program)) {
        let Ok(stat) = procfs::process::Process::new(found.pid).and_then(|p| p.stat()) else {
            continue;
        };
        #[allow(clippy::cast_precision_loss)] // Ticks and bytes are far below 2^52.
        let (cpu, rss) = (
            (stat.utime + stat.stime) as f64 / ticks as f64,
            (stat.rss * procfs::page_size()) as f64 / f64::from(1 << 20),
        );
        reading.insert(found.pid, (found.pid_namespace, cpu, rss));
    }
    Ok(reading)
}

/// What was used between two readings; nothing where there was no process to read.
pub fn used(before: &Reading, after: &Reading) -> Option<Used> {
    let mut cpu_s = 0.0;
    let mut by_namespace: BTreeMap<u64, f64> = BTreeMap::new();
    for (pid, (namespace, cpu, rss)) in after {
        cpu_s += cpu - before.get(pid).map_or(0.0, |(_, cpu, _)| *cpu);
        *by_namespace.entry(*namespace).or_default() += rss;
    }
    let rss_mib = by_namespace.into_values().max_by(f64::total_cmp)?;
    Some(Used {
        rss_mib: crate::stats::rounded(rss_mib),
        cpu_s: crate::stats::rounded(cpu_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_node_are_added_and_the_largest_node_counts() {
        let before = Reading::from([(1, (7, 1.0, 5.0))]);
        let after = Reading::from([(1, (7, 3.0, 6.0)), (2, (7, 0.5, 4.0)), (3, (8, 0.25, 9.0))]);
        let want = Used {
            rss_mib: 10.0,
            cpu_s: 2.75,
        };
        assert_eq!(used(&before, &after), Some(want));
        assert_eq!(used(&before, &Reading::new()), None);
    }

    #[test]
    fn this_test_finds_itself() {
        let own = std::env::args().next().unwrap();
        let name = own.rsplit('/').next().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(find(name).unwrap().iter().any(|f| f.pid == pid));
    }
}
