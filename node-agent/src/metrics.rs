//! Every metric of the agent, in one struct. Fed by [`crate::api`]; shown by [`crate::api::http`].
//!
//! No label names an object: a node has thousands of pods over time, and who runs what is nobody's business here.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pilotlight_common::stream::AgentRefusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::decide::Summary;
use crate::api::dns::Counters;

/// Upper bounds in seconds. An assignment is published within a few milliseconds or something is wrong.
const LATENCIES: [f64; 13] = [
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// A write and how it ended.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WriteLabels {
    /// What was written: `sandbox`, `condition`, `warm_pod`, `heartbeat`, `usage`, `cpus`, `blocked`; or read: `look`.
    pub kind: &'static str,
    /// `ok`, or the category of the error.
    pub result: &'static str,
}

/// A stable word.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ReasonLabels {
    /// The word.
    pub reason: &'static str,
}

/// How a query ended.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ResultLabels {
    /// A word for it.
    pub result: &'static str,
}

/// Where packets were going to.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct DirectionLabels {
    /// `out` of a sandbox, or `in`.
    pub direction: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    publish: Histogram,
    writes: Family<WriteLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    stream_ends: Family<ReasonLabels, Counter>,
    reports: Family<ReasonLabels, Counter>,
    watch_errors: Counter,
    host_errors: Counter,
    cpu_seconds: Counter<f64, AtomicU64>,
    memory: Gauge<i64, AtomicI64>,
    agents_cpu_seconds: Counter<f64, AtomicU64>,
    agents_memory: Gauge<i64, AtomicI64>,
    pods: Gauge<i64, AtomicI64>,
    prepared: Gauge<i64, AtomicI64>,
    assignments: Gauge<i64, AtomicI64>,
    replicas: Gauge<i64, AtomicI64>,
    dns_queries: Family<ResultLabels, Counter>,
    blocked_packets: Family<DirectionLabels, Counter>,
    armed: Gauge<i64, AtomicI64>,
    profiles: Gauge<i64, AtomicI64>,
    profiles_refused: Gauge<i64, AtomicI64>,
    ready: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pilotlight_agent"),
            publish: Histogram::new(LATENCIES),
            writes: Family::default(),
            refusals: Family::default(),
            stream_ends: Family::default(),
            reports: Family::default(),
            watch_errors: Counter::default(),
            host_errors: Counter::default(),
            cpu_seconds: Counter::default(),
            memory: Gauge::default(),
            agents_cpu_seconds: Counter::default(),
            agents_memory: Gauge::default(),
            pods: Gauge::default(),
            prepared: Gauge::default(),
            assignments: Gauge::default(),
            replicas: Gauge::default(),
            dns_queries: Family::default(),
            blocked_packets: Family::default(),
            armed: Gauge::default(),
            profiles: Gauge::default(),
            profiles_refused: Gauge::default(),
            ready: Gauge::default(),
        };
        metrics.register();
        metrics.register_usage();
        metrics
    }
}

impl Metrics {
    fn register_usage(&mut self) {
        let r = &mut self.registry;
        r.register_with_unit(
            "sandbox_cpu",
            "CPU time of all managed pods of the node since the agent started",
            Unit::Seconds,
            self.cpu_seconds.clone(),
        );
        r.register_with_unit(
            "sandbox_memory_working_set",
            "Working set of all managed pods of the node",
            Unit::Bytes,
            self.memory.clone(),
        );
        r.register_with_unit(
            "agents_cpu",
            "CPU time of the node's pods of agents.x-k8s.io since the agent started",
            Unit::Seconds,
            self.agents_cpu_seconds.clone(),
        );
        r.register_with_unit(
            "agents_memory_working_set",
            "Working set of the node's pods of agents.x-k8s.io",
            Unit::Bytes,
            self.agents_memory.clone(),
        );
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register_with_unit(
            "publish",
            "Time from hearing of an assignment until its Sandbox was written as Running",
            Unit::Seconds,
            self.publish.clone(),
        );
        r.register(
            "writes",
            "API requests by kind and result",
            self.writes.clone(),
        );
        r.register(
            "refusals",
            "Assignments given back, by reason",
            self.refusals.clone(),
        );
        r.register(
            "stream_ends",
            "Node streams that ended and are made again, by reason",
            self.stream_ends.clone(),
        );
        r.register(
            "reports",
            "Reports sent to scheduler replicas, by result",
            self.reports.clone(),
        );
        r.register(
            "watch_errors",
            "Errors of the pod watch",
            self.watch_errors.clone(),
        );
        r.register(
            "host_errors",
            "Questions that the host process did not answer",
            self.host_errors.clone(),
        );
        r.register("pods", "Managed pods of the node", self.pods.clone());
        r.register(
            "prepared_pods",
            "Managed pods that a sandbox can be published on",
            self.prepared.clone(),
        );
        r.register("assignments", "Live assignments", self.assignments.clone());
        r.register(
            "connected_replicas",
            "Scheduler replicas whose stream is up",
            self.replicas.clone(),
        );
        r.register(
            "armed_pods",
            "Managed pods whose network is closed but for what is allowed",
            self.armed.clone(),
        );
        r.register(
            "dns_queries",
            "DNS queries of sandboxes, by how they ended",
            self.dns_queries.clone(),
        );
        r.register(
            "blocked_packets",
            "Packets of sandboxes that their network rules stopped, by direction",
            self.blocked_packets.clone(),
        );
        r.register(
            "seccomp_profiles",
            "Seccomp profiles that are installed",
            self.profiles.clone(),
        );
        r.register(
            "seccomp_profiles_refused",
            "Users' seccomp profiles that this agent refuses",
            self.profiles_refused.clone(),
        );
        r.register(
            "ready",
            "Whether the agent reports itself ready",
            self.ready.clone(),
        );
    }

    /// An assignment was published so long after it was heard of.
    pub fn published(&self, latency: std::time::Duration) {
        self.publish.observe(latency.as_secs_f64());
    }

    /// An assignment was given back.
    pub fn refused(&self, reason: AgentRefusal) {
        let reason = reason.as_str();
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A request to the API server ended.
    pub fn wrote(&self, kind: &'static str, result: &'static str) {
        self.writes
            .get_or_create(&WriteLabels { kind, result })
            .inc();
    }

    /// A node stream ended.
    pub fn stream_ended(&self, reason: &'static str) {
        self.stream_ends
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// A report was sent, or not.
    pub fn reported(&self, result: &'static str) {
        self.reports
            .get_or_create(&ReasonLabels { reason: result })
            .inc();
    }

    /// The pod watch failed and goes on.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// `host` did not answer.
    pub fn host_failed(&self) {
        self.host_errors.inc();
    }

    /// Sandboxes of both APIs used so much CPU time more, in microseconds.
    pub fn used_cpu(&self, sandboxes: u64, agents: u64) {
        let seconds = |micros| std::time::Duration::from_micros(micros).as_secs_f64();
        self.cpu_seconds.inc_by(seconds(sandboxes));
        self.agents_cpu_seconds.inc_by(seconds(agents));
    }

    /// How things stand.
    pub fn summarize(&self, summary: &Summary, ready: bool) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.pods.set(number(summary.pods));
        self.prepared.set(number(summary.prepared));
        self.assignments.set(number(summary.assignments));
        self.replicas.set(number(summary.replicas));
        self.memory
            .set(i64::try_from(summary.memory_bytes).unwrap_or(i64::MAX));
        self.agents_memory
            .set(i64::try_from(summary.agents_memory_bytes).unwrap_or(i64::MAX));
        self.armed.set(number(summary.armed));
        for (direction, packets) in [
            ("out", summary.network_refused_out),
            ("in", summary.network_dropped_in),
        ] {
            let counter = self
                .blocked_packets
                .get_or_create_owned(&DirectionLabels { direction });
            counter.inner().store(packets, Ordering::Relaxed);
        }
        self.profiles.set(number(summary.profiles));
        self.profiles_refused.set(number(summary.profiles_refused));
        self.ready.set(i64::from(ready));
    }

    /// What became of queries, since the process started.
    pub fn asked(&self, counters: Counters) {
        let Counters {
            allowed,
            kept,
            refused,
            passed_over,
            malformed,
            over_rate,
            upstream_failed,
            withheld,
            not_opened,
        } = counters;
        for (result, count) in [
            ("allowed", allowed),
            ("kept", kept),
            ("refused", refused),
            ("passed_over", passed_over),
            ("malformed", malformed),
            ("over_rate", over_rate),
            ("upstream_failed", upstream_failed),
            ("withheld", withheld),
            ("not_opened", not_opened),
        ] {
            let counter = self
                .dns_queries
                .get_or_create_owned(&ResultLabels { result });
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing into a string does not fail.
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_stands_in_the_documentation_and_nothing_else_does() {
        let metrics = Metrics::default();
        // A family shows itself with its first member only.
        metrics.refused(AgentRefusal::PodGone);
        metrics.wrote("sandbox", "ok");
        metrics.stream_ended("closed");
        metrics.reported("ok");
        metrics.asked(Counters::default());
        metrics.summarize(&Summary::default(), true);
        let text = metrics.text();
        let registered: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE pilotlight_agent_"))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let documentation = include_str!("../../docs/operations.md");
        let documented: BTreeSet<&str> = documentation
            .lines()
            .skip_while(|line| !line.starts_with("| agent ("))
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(|name| name.trim_end_matches("_total"))
            .collect();
        assert_eq!(documented, registered);
    }

    #[test]
    fn the_text_has_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        metrics.published(std::time::Duration::from_millis(4));
        metrics.refused(AgentRefusal::PodGone);
        metrics.wrote("sandbox", "ok");
        metrics.used_cpu(1_500_000, 500_000);
        let text = metrics.text();
        for line in [
            "pilotlight_agent_publish_seconds_bucket{le=\"0.005\"} 1",
            "pilotlight_agent_refusals_total{reason=\"PodGone\"} 1",
            "pilotlight_agent_writes_total{kind=\"sandbox\",result=\"ok\"} 1",
            "pilotlight_agent_sandbox_cpu_seconds_total 1.5",
            "pilotlight_agent_agents_cpu_seconds_total 0.5",
            "pilotlight_agent_sandbox_memory_working_set_bytes 0",
            "pilotlight_agent_prepared_pods 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
