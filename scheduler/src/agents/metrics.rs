//! Metrics of the controller. Counted by [`super::apply`], [`super::engine`] and [`super::webhook`].

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::write::{Kind, Outcome, Write};

/// A write, and what came of it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    action: &'static str,
    outcome: &'static str,
}

/// What is written.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ActionLabels {
    action: &'static str,
}

/// Whether Sandboxes can be used.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReadyLabels {
    ready: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    writes: Family<WriteLabels, Counter>,
    sandboxes: Family<ReadyLabels, Gauge<i64, AtomicI64>>,
    reaction: Family<ActionLabels, Histogram, fn() -> Histogram>,
    /// Objects converted.
    pub converted: Counter,
    /// Reviews that were refused.
    pub not_converted: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pilotlight_agents");
        let writes = Family::default();
        let sandboxes = Family::default();
        // 0.1 ms to 1.6 s.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        let reaction = Family::new_with_constructor(buckets);
        let converted = Counter::default();
        let not_converted = Counter::default();
        registry.register(
            "writes",
            "Writes for Sandboxes by kind and outcome",
            Family::clone(&writes),
        );
        registry.register(
            "sandboxes",
            "Sandboxes by whether they are ready",
            Family::clone(&sandboxes),
        );
        registry.register(
            "reaction_seconds",
            "From the news of a change to the request for the write that it asks for, by action",
            Family::clone(&reaction),
        );
        registry.register(
            "converted_objects",
            "Sandboxes converted from one version to the other",
            converted.clone(),
        );
        registry.register(
            "refused_conversions",
            "Requests of the API server that could not be answered",
            not_converted.clone(),
        );
        Self {
            registry,
            writes,
            sandboxes,
            reaction,
            converted,
            not_converted,
        }
    }
}

impl AsRef<Registry> for Metrics {
    fn as_ref(&self) -> &Registry {
        &self.registry
    }
}

impl Metrics {
    /// Counts a write.
    pub fn count(&self, write: &Write, outcome: &Outcome) {
        let action = action(write);
        let outcome = match outcome {
            Outcome::Is(_) | Outcome::Done => "done",
            Outcome::Was(_) | Outcome::Stale => "stale",
            Outcome::Failed(_) => "failed",
        };
        self.writes
            .get_or_create_owned(&WriteLabels { action, outcome })
            .inc();
    }

    /// A write goes out, so long after the news that asked for it.
    pub fn reacted(&self, write: &Write, after: Duration) {
        let action = action(write);
        self.reaction
            .get_or_create_owned(&ActionLabels { action })
            .observe(after.as_secs_f64());
    }

    /// How many Sandboxes there are.
    pub fn set_sandboxes(&self, ready: i64, not_ready: i64) {
        for (label, count) in [("true", ready), ("false", not_ready)] {
            self.sandboxes
                .get_or_create_owned(&ReadyLabels { ready: label })
                .set(count);
        }
    }
}

fn action(write: &Write) -> &'static str {
    match write {
        Write::Create { kind, .. } => match kind {
            Kind::Claim => "create_claim",
            Kind::Pod => "create_pod",
            Kind::Service => "create_service",
        },
        Write::Patch { .. } => "patch",
        Write::Delete { .. } => "delete",
        Write::Status { .. } => "status",
        Write::DeleteSandbox(_) => "delete_sandbox",
    }
}
