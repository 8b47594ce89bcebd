//! The engine: one task that owns the index. Inputs go in one at a time; messages for agents and actions come out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::stream::StreamMessage;
use tokio::sync::{mpsc, watch};

use crate::apply::Applier;
use crate::index::Index;
use crate::input::Input;
use crate::metrics::Metrics;

/// Inputs taken in before the next decision at most. A burst is decided on as a whole, but the first of it does
/// not wait for the last.
const BATCH: usize = 64;
/// Pause between two looks at the timers where none is due sooner.
const IDLE: Duration = Duration::from_secs(10);

/// A wall clock that never goes back: it runs on from the start by the monotonic clock.
struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        let passed =
            SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// Owns the index.
pub struct Engine {
    index: Index,
    applier: Arc<Applier>,
    metrics: Arc<Metrics>,
    inputs: mpsc::Receiver<Input>,
    streams: HashMap<String, HashMap<u64, mpsc::Sender<StreamMessage>>>,
    clock: Clock,
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
            streams: HashMap::new(),
            clock: Clock {
                wall: Timestamp::now(),
                monotonic: Instant::now(),
            },
            synced,
        }
    }

    /// Runs until every sender of inputs is gone.
    pub async fn run(mut self) {
        let mut gauges = tokio::time::interval(Duration::from_secs(1));
        loop {
            let wait = self
                .index
                .next_timer()
                .map_or(IDLE, |at| {
                    Duration::try_from(at.duration_since(self.clock.now()))
                        .unwrap_or(Duration::ZERO)
                })
                .min(IDLE);
            tokio::select! {
                biased;
                input = self.inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    for _ in 1..BATCH {
                        match self.inputs.try_recv() {
                            Ok(input) => self.take(input),
                            Err(_) => break,
                        }
                    }
                }
                () = tokio::time::sleep(wait) => {}
                _ = gauges.tick() => self.metrics.set_gauges(&self.index),
            }
            self.act();
        }
    }

    fn take(&mut self, input: Input) {
        match &input {
            Input::StreamOpened { node, id, sender } => {
                self.streams
                    .entry(node.clone())
                    .or_default()
                    .insert(*id, sender.clone());
            }
            Input::StreamClosed { node, id } => {
                if let Some(streams) = self.streams.get_mut(node) {
                    streams.remove(id);
                    if streams.is_empty() {
                        self.streams.remove(node);
                    }
                }
            }
            _ => {}
        }
        self.index.handle(input, self.clock.now());
    }

    fn act(&mut self) {
        self.send_notices();
        let started = Instant::now();
        let actions = self.index.decide(self.clock.now());
        self.metrics
            .decision
            .observe(started.elapsed().as_secs_f64());
        for action in actions {
            self.applier.start(action);
        }
        // Timers can have changed what agents are told.
        self.send_notices();
        for observation in self.index.take_observations() {
            self.metrics.observe(observation);
        }
        if self.index.is_synced() {
            self.synced
                .send_if_modified(|synced| !std::mem::replace(synced, true));
        }
    }

    fn send_notices(&mut self) {
        for notice in self.index.take_notices() {
            let Some(streams) = self.streams.get_mut(&notice.node) else {
                continue;
            };
            let only = notice.stream;
            // A stream that does not take its messages is closed; its snapshot will say it all.
            streams.retain(|id, stream| {
                only.is_some_and(|only| only != *id)
                    || stream.try_send(notice.message.clone()).is_ok()
            });
        }
    }
}
