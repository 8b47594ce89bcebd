//! The numbers, for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::agents::Agents;
use crate::footprint::Footprint;
use crate::process::Used;
use crate::queries::Queries;
use crate::stats::Summary;

/// `target/bench.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Create and two dependent status patches, each seen by watch, one sequence after the other.
    pub floor: Summary,
    /// Assignments one after the other.
    pub serial: Summary,
    /// Assignments all at once, compared with the same burst of floor sequences.
    pub burst: Summary,
    /// The same with network rules, in turns, compared with the burst without.
    pub burst_with_rules: Summary,
    /// Assignments that arrive by chance while the pool refills.
    pub rate: Summary,
    /// The DNS proxy; nothing where its node is not on this machine.
    pub queries: Option<Queries>,
    /// Sandboxes of agents.x-k8s.io.
    pub agents: Option<Agents>,
    /// Writes of an assignment, counted by the API server, with a pool that does not refill. Events apart.
    pub writes_per_assignment: f64,
    /// Events of an assignment, recorded after the fact.
    pub events_per_assignment: f64,
    /// The same by kind of write, for the whole measurement.
    pub writes: BTreeMap<String, u64>,
    /// Assignments in that measurement.
    pub writes_n: usize,
    /// The scheduler; nothing where its processes are not on this machine.
    pub scheduler: Option<Used>,
    /// The node agents; nothing where their processes are not on this machine.
    pub agent: Option<Used>,
    /// The agent of a full, idle node; nothing where it was left out or is not on this machine.
    pub footprint: Option<Footprint>,
}

impl Report {
    /// The table for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<8}{:>6}{:>8}{:>10}{:>10}{:>10}{:>10}{:>9}{:>10}",
            "", "n", "failed", "p50 ms", "p90 ms", "p99 ms", "max ms", "per s", "x floor"
        )];
        for (name, s) in [
            ("floor", &self.floor),
            ("serial", &self.serial),
            ("burst", &self.burst),
            ("+ rules", &self.burst_with_rules),
            ("rate", &self.rate),
        ] {
            lines.push(format!(
                "{name:<8}{:>6}{:>8}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>9.1}{:>10.2}",
                s.n, s.failed, s.p50_ms, s.p90_ms, s.p99_ms, s.max_ms, s.per_s, s.ratio_p50
            ));
        }
        if let Some(floor) = self.burst.floor_p50_ms {
            lines.push(format!(
                "floor of the burst: p50 {floor:.1} ms; the burst with network rules is compared with that without (aim: within 1.1)"
            ));
        }
        lines.push(format!(
            "writes per assignment: {:.2}, and {:.2} events after it (over {} assignments: {})",
            self.writes_per_assignment,
            self.events_per_assignment,
            self.writes_n,
            self.writes
                .iter()
                .map(|(what, n)| format!("{n} {what}"))
                .collect::<Vec<_>>()
                .join(", ")
        ));
        for (name, used) in [("scheduler", &self.scheduler), ("agent", &self.agent)] {
            lines.push(match used {
                Some(used) => format!(
                    "{name}: {:.1} MiB resident, {:.2} s of CPU",
                    used.rss_mib, used.cpu_s
                ),
                None => format!("{name}: its processes are not on this machine"),
            });
        }
        lines.extend(self.queries.iter().flat_map(Queries::lines));
        lines.extend(self.agents.iter().map(Agents::line));
        lines.extend(self.footprint.as_ref().map(Footprint::line));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_promised_keys() {
        let report = Report {
            floor: Summary::default(),
            serial: Summary::default(),
            burst: Summary {
                floor_p50_ms: Some(1.0),
                ..Summary::default()
            },
            burst_with_rules: Summary::default(),
            rate: Summary::default(),
            queries: Some(Queries::default()),
            agents: Some(Agents::default()),
            writes_per_assignment: 2.0,
            events_per_assignment: 1.0,
            writes: BTreeMap::new(),
            writes_n: 1,
            scheduler: Some(Used::default()),
            agent: Some(Used::default()),
            footprint: Some(Footprint::default()),
        };
        let json = serde_json::to_value(&report).unwrap();
        for mode in ["floor", "serial", "burst", "burst_with_rules", "rate"] {
            for key in [
                "n",
                "failed",
                "p50_ms",
                "p90_ms",
                "p99_ms",
                "max_ms",
                "per_s",
                "ratio_p50",
            ] {
                assert!(json[mode][key].is_number(), "{mode}.{key}");
            }
        }
        assert!(json["burst"]["floor_p50_ms"].is_number());
        assert!(json["writes_per_assignment"].is_number());
        for program in ["scheduler", "agent"] {
            assert!(json[program]["rss_mib"].is_number() && json[program]["cpu_s"].is_number());
        }
        for key in ["pods", "rss_mib", "idle_cpu_percent"] {
            assert!(json["footprint"][key].is_number(), "footprint.{key}");
        }
        assert_eq!(report.lines().len(), 14);
    }
}
