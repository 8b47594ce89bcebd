//! Events, after the fact: recorded one at a time, and only after a second without an assignment.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use pilotlight_common::stream::ObjectId;
use tokio::sync::mpsc;

use super::WRITE_TIMEOUT;
use crate::action::EventNote;

/// Events that may wait; beyond that they are dropped and counted in the log. They explain, nothing rests on them.
const QUEUE: usize = 1024;
/// Time without an assignment before an event is recorded: each costs as much as half an assignment.
const QUIET: Duration = Duration::from_secs(1);
/// Under constant assignments events are recorded all the same, one in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// When the last assignment was begun or ended.
#[derive(Debug)]
struct Bustle {
    last: Mutex<Instant>,
}

impl Default for Bustle {
    fn default() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
        }
    }
}

impl Bustle {
    /// An assignment was begun or ended.
    fn note(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
    }

    /// Waits until there was none for a while.
    async fn settled(&self) {
        let started = Instant::now();
        loop {
            let since = self.last.lock().map_or(QUIET, |last| last.elapsed());
            if since >= QUIET || started.elapsed() >= PATIENCE {
                return;
            }
            tokio::time::sleep(QUIET.saturating_sub(since)).await;
        }
    }
}

/// Takes events to be recorded.
#[derive(Clone)]
pub struct EventRecorder {
    bustle: Arc<Bustle>,
    queue: mpsc::Sender<(ObjectId, EventNote)>,
}

/// Of the kinds that events are about, one is not of this project.
fn api_version(kind: &str) -> &'static str {
    if kind == "Node" {
        "v1"
    } else {
        "llmsafespace.dev/v1"
    }
}

impl EventRecorder {
    /// A recorder, and the task that does its work.
    pub fn new(client: Client, instance: String) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut waiting) = mpsc::channel::<(ObjectId, EventNote)>(QUEUE);
        let reporter = Reporter {
            controller: "llmsafespace.dev/pilotlight-scheduler".into(),
            instance: Some(instance),
        };
        let recorder = Recorder::new(client, reporter);
        let bustle = Arc::new(Bustle::default());
        let settling = Arc::clone(&bustle);
        let task = async move {
            while let Some((about, note)) = waiting.recv().await {
                settling.settled().await;
                let event = Event {
                    type_: if note.warning {
                        EventType::Warning
                    } else {
                        EventType::Normal
                    },
                    reason: note.reason,
                    note: Some(note.message),
                    action: "Schedule".into(),
                    secondary: None,
                };
                let reference = ObjectReference {
                    api_version: Some(api_version(note.kind).into()),
                    kind: Some(note.kind.into()),
                    name: Some(about.name),
                    // Events of cluster-wide objects lie in "default".
                    namespace: Some(about.namespace).filter(|n| !n.is_empty()),
                    uid: Some(about.uid),
                    ..ObjectReference::default()
                };
                match tokio::time::timeout(WRITE_TIMEOUT, recorder.publish(&event, &reference))
                    .await
                {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "event was not recorded"),
                    Err(_) => tracing::warn!("event was not recorded in time"),
                }
            }
        };
        (Self { bustle, queue }, task)
    }

    /// An assignment was begun or ended: events wait.
    pub fn note_assignment(&self) {
        self.bustle.note();
    }

    /// Queues an event.
    pub fn record(&self, about: ObjectId, event: EventNote) {
        if self.queue.try_send((about, event)).is_err() {
            tracing::warn!("too many events; one was dropped");
        }
    }
}
