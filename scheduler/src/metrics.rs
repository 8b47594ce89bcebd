//! Every metric of the scheduler, registered in one place. No object name is ever a label.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::index::{Class, Index, Observation};

/// One label, whose name says what it tells apart.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ClassLabel {
    class: &'static str,
}

/// A stable reason word.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// What came of something.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ResultLabel {
    result: &'static str,
}

/// A write and what came of it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WriteLabel {
    action: &'static str,
    outcome: &'static str,
}

/// All metrics.
pub struct Metrics {
    /// What `/metrics` prints.
    pub registry: Registry,
    published: Histogram,
    /// Time of one W1, from the decision to its answer.
    pub assign_write: Histogram,
    /// Time of one decision.
    pub decision: Histogram,
    hits: Counter,
    misses: Counter,
    refused: Family<ReasonLabel, Counter>,
    validations: Family<ResultLabel, Counter>,
    /// Writes by action and outcome.
    pub writes: Family<WriteLabel, Counter>,
    warm_pods: Family<ClassLabel, Gauge>,
    waiting: Gauge,
    streams: Gauge,
    leading: Gauge,
}

/// From 1 ms: the warm path is about three writes of 3 ms each. Up to two minutes, for those that wait.
fn from_a_millisecond() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.030, 0.050, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    ])
}

/// From a microsecond, for decisions.
fn from_a_microsecond() -> Histogram {
    Histogram::new([1e-6, 4e-6, 16e-6, 64e-6, 250e-6, 1e-3, 4e-3, 16e-3, 0.1])
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("pilotlight_scheduler"),
            published: from_a_millisecond(),
            assign_write: from_a_millisecond(),
            decision: from_a_microsecond(),
            hits: Counter::default(),
            misses: Counter::default(),
            refused: Family::default(),
            validations: Family::default(),
            writes: Family::default(),
            warm_pods: Family::default(),
            waiting: Gauge::default(),
            streams: Gauge::default(),
            leading: Gauge::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register(
            "published_seconds",
            "From a sandbox seen to Running seen",
            self.published.clone(),
        );
        r.register(
            "assign_write_seconds",
            "One W1, from the decision to its answer",
            self.assign_write.clone(),
        );
        r.register(
            "decision_seconds",
            "One decision over all that is dirty",
            self.decision.clone(),
        );
        r.register(
            "hits",
            "Sandboxes that found a ready pod at once",
            self.hits.clone(),
        );
        r.register(
            "misses",
            "Sandboxes that had to wait for a pod",
            self.misses.clone(),
        );
        r.register(
            "assignments_refused",
            "Assignments that an agent did not carry out",
            self.refused.clone(),
        );
        r.register(
            "runtime_validations",
            "Verdicts on runtimes by result",
            self.validations.clone(),
        );
        r.register(
            "writes",
            "Writes by action and outcome",
            self.writes.clone(),
        );
        r.register("warm_pods", "Warm pods by class", self.warm_pods.clone());
        r.register(
            "waiting_sandboxes",
            "Sandboxes without a pod",
            self.waiting.clone(),
        );
        r.register(
            "streaming_nodes",
            "Nodes whose agent holds a stream to this replica",
            self.streams.clone(),
        );
        r.register(
            "leading",
            "Whether this replica leads",
            self.leading.clone(),
        );
        self
    }

    /// Counts a write.
    pub fn count_write(&self, action: &'static str, outcome: &'static str) {
        self.writes
            .get_or_create(&WriteLabel { action, outcome })
            .inc();
    }

    /// Counts what a decision brought up.
    pub fn observe(&self, observation: Observation) {
        match observation {
            Observation::Published(seconds) => self.published.observe(seconds),
            Observation::Hit => {
                self.hits.inc();
            }
            Observation::Miss => {
                self.misses.inc();
            }
            Observation::AgentRefused(reason) => {
                self.refused.get_or_create(&ReasonLabel { reason }).inc();
            }
            Observation::Validated(result) => {
                self.validations
                    .get_or_create(&ResultLabel { result })
                    .inc();
            }
            Observation::AgentSilent => {
                self.refused
                    .get_or_create(&ReasonLabel {
                        reason: "AgentSilent",
                    })
                    .inc();
            }
        }
    }

    /// Sets the gauges from the index.
    pub fn set_gauges(&self, index: &Index) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (totals, waiting) = index.totals();
        for class in Class::ALL {
            self.warm_pods
                .get_or_create(&ClassLabel {
                    class: class.as_str(),
                })
                .set(gauge(totals[class as usize]));
        }
        self.waiting.set(gauge(waiting));
        self.streams.set(gauge(index.streaming_nodes()));
        self.leading.set(i64::from(index.is_leading()));
    }
}
