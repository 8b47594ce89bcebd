//! One watch that many wait on: who waits for an object is told in the moment the event is decoded.
//!
//! Objects are kept as JSON, so that one that a typed client could not read does not end the watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt};
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Namespace and name.
pub type Key = (String, String);
/// All objects of the watch.
pub type Objects = BTreeMap<Key, DynamicObject>;

/// Tells whether an object, or its absence, is what is waited for.
type Wanted = Box<dyn Fn(Option<&DynamicObject>) -> bool + Send>;
/// The same of all objects together.
type WantedOfAll = Box<dyn Fn(&Objects) -> bool + Send>;
/// Sees every event; no object means it was deleted.
type Observer = Box<dyn FnMut(&Key, Option<&DynamicObject>) + Send>;

#[derive(Default)]
struct Shared {
    objects: Objects,
    /// Objects of the list that is being read, which tells the deleted ones at its end.
    listing: Option<Vec<Key>>,
    listed: bool,
    one: HashMap<Key, Vec<(Wanted, oneshot::Sender<Instant>)>>,
    all: Vec<(WantedOfAll, oneshot::Sender<Instant>)>,
    observers: Vec<Observer>,
    problem: Option<String>,
}

/// The watch. Ends when it is dropped.
pub struct Hub {
    shared: Arc<Mutex<Shared>>,
    task: AbortHandle,
    what: String,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A wait that was begun; what happens between its beginning and [`Wait::within`] is not missed.
pub struct Wait {
    told: oneshot::Receiver<Instant>,
    shared: Arc<Mutex<Shared>>,
    what: String,
}

impl Wait {
    /// When it was seen, at most `limit` from now.
    pub async fn within(self, limit: Duration) -> Result<Instant> {
        match tokio::time::timeout(limit, self.told).await {
            Ok(Ok(at)) => Ok(at),
            Ok(Err(_)) => bail!("the watch of {} ended", self.what),
            Err(_) => {
                let shared = lock(&self.shared);
                let problem = shared.problem.clone().unwrap_or_default();
                bail!("not seen within {limit:?}: {} {problem}", self.what)
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Watches all that `api` shows, and returns once it was listed.
    pub async fn open(api: Api<DynamicObject>) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let what = api.resource_url().to_owned();
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let task = tokio::spawn(follow(events, Arc::clone(&shared))).abort_handle();
        let hub = Self { shared, task, what };
        hub.expect_all(|_| true)
            .within(Duration::from_secs(30))
            .await
            .with_context(|| format!("cannot list {}", hub.what))?;
        Ok(hub)
    }

    /// Begins to wait for an object; one that is so already counts.
    pub fn expect(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(Option<&DynamicObject>) -> bool + Send + 'static,
    ) -> Wait {
        let (tell, told) = oneshot::channel();
        let key = (namespace.to_owned(), name.to_owned());
        let mut shared = lock(&self.shared);
        if wanted(shared.objects.get(&key)) {
            let _ = tell.send(Instant::now());
        } else {
            let waiting = shared.one.entry(key).or_default();
            waiting.push((Box::new(wanted), tell));
        }
        Wait {
            told,
            shared: Arc::clone(&self.shared),
            what: format!("{} {namespace}/{name}", self.what),
        }
    }

    /// Begins to wait for all objects together.
    pub fn expect_all(&self, wanted: impl Fn(&Objects) -> bool + Send + 'static) -> Wait {
        let (tell, told) = oneshot::channel();
        let mut shared = lock(&self.shared);
        if shared.listed && wanted(&shared.objects) {
            let _ = tell.send(Instant::now());
        } else {
            shared.all.push((Box::new(wanted), tell));
        }
        Wait {
            told,
            shared: Arc::clone(&self.shared),
            what: self.what.clone(),
        }
    }

    /// Calls `observer` with every object there is, and with every event from now on.
    pub fn observe(&self, mut observer: impl FnMut(&Key, Option<&DynamicObject>) + Send + 'static) {
        let mut shared = lock(&self.shared);
        for (key, object) in &shared.objects {
            observer(key, Some(object));
        }
        shared.observers.push(Box::new(observer));
    }

    /// A copy of all objects.
    pub fn objects(&self) -> Objects {
        lock(&self.shared).objects.clone()
    }
}

async fn follow(
    events: impl Stream<Item = watcher::Result<Event<DynamicObject>>>,
    shared: Arc<Mutex<Shared>>,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        lock(&shared).take_in(event);
    }
}

impl Shared {
    fn take_in(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        match event {
            Ok(Event::Init) => self.listing = Some(Vec::new()),
            Ok(Event::InitApply(object)) => {
                let key = key(&object);
                if let Some(listing) = &mut self.listing {
                    listing.push(key.clone());
                }
                self.change(key, Some(object));
            }
            Ok(Event::InitDone) => {
                let listed = self.listing.take().unwrap_or_default();
                let keys: Vec<Key> = self.objects.keys().cloned().collect();
                for gone in keys.into_iter().filter(|key| !listed.contains(key)) {
                    self.change(gone, None);
                }
                self.listed = true;
                self.problem = None;
            }
            Ok(Event::Apply(object)) => self.change(key(&object), Some(object)),
            Ok(Event::Delete(object)) => self.change(key(&object), None),
            Err(error) => self.problem = Some(format!("(the watch says: {error})")),
        }
        if self.listed && !self.all.is_empty() {
            let now = Instant::now();
            for (wanted, tell) in std::mem::take(&mut self.all) {
                if wanted(&self.objects) {
                    let _ = tell.send(now);
                } else if !tell.is_closed() {
                    self.all.push((wanted, tell));
                }
            }
        }
    }

    fn change(&mut self, key: Key, object: Option<DynamicObject>) {
        let now = Instant::now();
        for observer in &mut self.observers {
            observer(&key, object.as_ref());
        }
        if let Some(waiting) = self.one.remove(&key) {
            let mut left = Vec::new();
            for (wanted, tell) in waiting {
                if wanted(object.as_ref()) {
                    let _ = tell.send(now);
                } else if !tell.is_closed() {
                    left.push((wanted, tell));
                }
            }
            if !left.is_empty() {
                self.one.insert(key.clone(), left);
            }
        }
        match object {
            Some(object) => self.objects.insert(key, object),
            None => self.objects.remove(&key),
        };
    }
}

fn key(object: &DynamicObject) -> Key {
    (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    )
}
