//! The engine: one task that owns the index. Inputs go in one at a time, work comes out. Started by [`super::run()`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pilotlight_common::agents::names::condition;
use tokio::sync::{mpsc, watch};

use super::apply::Applier;
use super::index::{Index, Input};
use super::metrics::Metrics;

/// Inputs taken in before the next decision at most.
const BATCH: usize = 64;
/// Pause between two looks at the timers where none is due sooner: the clock of the machine may be set.
const IDLE: Duration = Duration::from_secs(10);

/// Owns the index.
pub struct Engine {
    index: Index,
    applier: Arc<Applier>,
    metrics: Arc<Metrics>,
    inputs: mpsc::Receiver<Input>,
    synced: watch::Sender<bool>,
}

impl Engine {
    /// An engine for an empty index; `synced` turns true once every kind was listed.
    pub fn new(
        index: Index,
        applier: Arc<Applier>,
        metrics: Arc<Metrics>,
        inputs: mpsc::Receiver<Input>,
        synced: watch::Sender<bool>,
    ) -> Self {
        Self {
            index,
            applier,
            metrics,
            inputs,
            synced,
        }
    }

    /// Runs until every sender of inputs is gone.
    pub async fn run(mut self) {
        let mut gauges = tokio::time::interval(Duration::from_secs(5));
        loop {
            let wait = self.index.next_timer().map_or(IDLE, |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
            });
            let mut heard = None;
            tokio::select! {
                biased;
                input = self.inputs.recv() => {
                    let Some(input) = input else { return };
                    heard = Some(Instant::now());
                    self.index.handle(input, Timestamp::now());
                    for _ in 1..BATCH {
                        match self.inputs.try_recv() {
                            Ok(input) => self.index.handle(input, Timestamp::now()),
                            Err(_) => break,
                        }
                    }
                }
                () = tokio::time::sleep(wait.min(IDLE)) => {}
                _ = gauges.tick() => self.set_gauges(),
            }
            for work in self.index.work(Timestamp::now()) {
                self.applier.start(work, heard);
            }
            if self.index.is_synced() {
                self.synced
                    .send_if_modified(|synced| !std::mem::replace(synced, true));
            }
        }
    }

    fn set_gauges(&self) {
        let (mut ready, mut not_ready) = (0, 0);
        for (_, status) in self.index.sandboxes() {
            let mut conditions = status.conditions.iter().flatten();
            if conditions.any(|c| c.type_ == condition::READY && c.status == "True") {
                ready += 1;
            } else {
                not_ready += 1;
            }
        }
        self.metrics.set_sandboxes(ready, not_ready);
    }
}
