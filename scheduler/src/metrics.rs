//! Every metric of the scheduler, registered in one place. No object name is ever a label.

use pilotlight_common::fates::end;
use pilotlight_common::reasons::Reason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use serde::Deserialize;
use serde::de::IntoDeserializer;

use crate::index::{Class, Index, Observation};

/// How a sandbox got its pod.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct PathLabel {
    path: &'static str,
}

/// One label, whose name says what it tells apart.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ClassLabel {
    class: &'static str,
}

/// Where a pool stands.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct StateLabel {
    state: &'static str,
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

/// A kind of error.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct CategoryLabel {
    category: &'static str,
}

/// A write and what came of it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WriteLabel {
    action: &'static str,
    outcome: &'static str,
}

/// Histograms by path.
type ByPath = Family<PathLabel, Histogram, fn() -> Histogram>;

/// All metrics.
pub struct Metrics {
    /// What `/metrics` prints.
    pub registry: Registry,
    /// Names of all metrics, as docs/operations.md lists them.
    names: Vec<&'static str>,
    published: ByPath,
    /// Time of one W1, from the decision to its answer.
    pub assign_write: Histogram,
    /// Time of one decision.
    pub decision: Histogram,
    hits: Counter,
    misses: Counter,
    refused: Family<ReasonLabel, Counter>,
    validations: Family<ResultLabel, Counter>,
    ended: Family<ReasonLabel, Counter>,
    errors: Family<CategoryLabel, Counter>,
    /// Writes by action and outcome.
    pub writes: Family<WriteLabel, Counter>,
    warm_pods: Family<ClassLabel, Gauge>,
    pools: Family<StateLabel, Gauge>,
    pool_minimum: Gauge,
    waiting: Gauge,
    unready: Gauge,
    streams: Gauge,
    distrusted: Gauge,
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
            names: Vec::new(),
            published: Family::new_with_constructor(from_a_millisecond),
            assign_write: from_a_millisecond(),
            decision: from_a_microsecond(),
            hits: Counter::default(),
            misses: Counter::default(),
            refused: Family::default(),
            validations: Family::default(),
            ended: Family::default(),
            errors: Family::default(),
            writes: Family::default(),
            warm_pods: Family::default(),
            pools: Family::default(),
            pool_minimum: Gauge::default(),
            unready: Gauge::default(),
            waiting: Gauge::default(),
            streams: Gauge::default(),
            distrusted: Gauge::default(),
            leading: Gauge::default(),
        };
        metrics.registered()
    }
}

impl AsRef<Registry> for Metrics {
    fn as_ref(&self) -> &Registry {
        &self.registry
    }
}

impl Metrics {
    fn register(&mut self, name: &'static str, help: &str, metric: impl Metric) {
        self.names.push(name);
        self.registry.register(name, help, metric);
    }

    fn registered(mut self) -> Self {
        self.register(
            "published_seconds",
            "From a sandbox seen to Running seen, by path: warm or cold",
            self.published.clone(),
        );
        self.register(
            "assign_write_seconds",
            "One W1, from the decision to its answer",
            self.assign_write.clone(),
        );
        self.register(
            "decision_seconds",
            "One decision over all that is dirty",
            self.decision.clone(),
        );
        self.register(
            "hits",
            "Sandboxes that found a ready pod at once",
            self.hits.clone(),
        );
        self.register(
            "misses",
            "Sandboxes that had to wait for a pod",
            self.misses.clone(),
        );
        self.register(
            "assignments_refused",
            "Assignments that an agent did not carry out",
            self.refused.clone(),
        );
        self.register(
            "runtime_validations",
            "Verdicts on runtimes by result",
            self.validations.clone(),
        );
        self.register(
            "sandboxes_ended",
            "Sandboxes that reached their final phase, by reason",
            self.ended.clone(),
        );
        self.register(
            "reconcile_errors",
            "Writes that failed and requests that were refused, by category",
            self.errors.clone(),
        );
        self.register(
            "writes",
            "Writes by action and outcome",
            self.writes.clone(),
        );
        self.register("warm_pods", "Warm pods by class", self.warm_pods.clone());
        self.register("pools", "Pools by state", self.pools.clone());
        self.register(
            "pool_minimum",
            "Pods that all pools together are to keep ready",
            self.pool_minimum.clone(),
        );
        self.register(
            "waiting_sandboxes",
            "Sandboxes without a pod",
            self.waiting.clone(),
        );
        self.register(
            "unready_sandboxes",
            "Running sandboxes whose pod is not Ready",
            self.unready.clone(),
        );
        self.register(
            "streaming_nodes",
            "Nodes whose agent holds a stream to this replica",
            self.streams.clone(),
        );
        self.register(
            "distrusted_nodes",
            "Nodes that published what they were not given, until somebody clears them",
            self.distrusted.clone(),
        );
        self.register(
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

    /// Counts an error of a stable category.
    pub fn count_error(&self, category: &'static str) {
        self.errors.get_or_create(&CategoryLabel { category }).inc();
    }

    /// Counts a request that was refused, where `reason` is the word of a refusal.
    pub fn count_refusal(&self, reason: &str) {
        let word: Result<Reason, serde::de::value::Error> =
            Reason::deserialize(reason.into_deserializer());
        if let Ok(reason) = word {
            self.count_error(reason.as_str());
        }
    }

    /// Counts a sandbox that reached its final phase.
    pub fn count_end(&self, reason: &str) {
        let reason = end::bounded(reason);
        self.ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts what a decision brought up.
    pub fn observe(&self, observation: Observation) {
        match observation {
            Observation::Published { seconds, cold } => {
                let path = if cold { "cold" } else { "warm" };
                self.published
                    .get_or_create(&PathLabel { path })
                    .observe(seconds);
            }
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
        for (state, count) in index.pool_states() {
            self.pools
                .get_or_create(&StateLabel { state })
                .set(gauge(count));
        }
        self.pool_minimum.set(index.pool_minimum());
        self.waiting.set(gauge(waiting));
        self.unready.set(gauge(index.unready_sandboxes()));
        self.streams.set(gauge(index.streaming_nodes()));
        self.distrusted.set(gauge(index.distrusted_nodes()));
        self.leading.set(i64::from(index.is_leading()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// The names in the first column of the table of docs/operations.md that begins with `title`.
    fn documented(title: &str) -> BTreeSet<String> {
        let text = include_str!("../../docs/operations.md");
        let table = text
            .lines()
            .skip_while(|line| !line.starts_with(title))
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        table
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(|name| name.trim_end_matches("_total").to_owned())
            .collect()
    }

    #[test]
    fn every_metric_stands_in_the_documentation_and_nothing_else_does() {
        let registered: BTreeSet<String> = Metrics::default()
            .names
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(documented("| scheduler ("), registered);
    }

    #[test]
    fn every_word_of_trouble_and_end_stands_in_the_documentation() {
        use pilotlight_common::fates::trouble;
        let known: BTreeSet<&str> = trouble::ALL.into_iter().chain(end::ALL).collect();
        let documented = documented("| reason |");
        assert_eq!(
            documented
                .iter()
                .map(String::as_str)
                .collect::<BTreeSet<_>>(),
            known
        );
    }

    #[test]
    fn labels_are_words_of_a_bounded_set() {
        let metrics = Metrics::default();
        metrics.count_end("OOMKilled");
        metrics.count_end("whatever a kubelet says");
        metrics.count_refusal("RuntimeNotFound");
        metrics.count_refusal("Running");
        metrics.observe(Observation::Published {
            seconds: 0.003,
            cold: true,
        });
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        for line in [
            "pilotlight_scheduler_sandboxes_ended_total{reason=\"OOMKilled\"} 1",
            "pilotlight_scheduler_sandboxes_ended_total{reason=\"Other\"} 1",
            "pilotlight_scheduler_reconcile_errors_total{category=\"RuntimeNotFound\"} 1",
            "pilotlight_scheduler_published_seconds_bucket{le=\"0.004\",path=\"cold\"} 1",
            "pilotlight_scheduler_published_seconds_bucket{le=\"0.001\",path=\"cold\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("\"Running\""), "{text}");
    }
}
