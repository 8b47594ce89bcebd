//! Which replica acts: one Lease, every write of it with its resourceVersion.
//!
//! The lease is for efficiency only: two leaders at once cost a lost race, never a double assignment. So it is
//! short. [`Leadership`] is checked again at every write of [`crate::apply`], against the monotonic clock: a
//! process that was paused past its lease finds it expired the moment it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;

/// Until when this replica leads.
#[derive(Debug)]
pub struct Leadership {
    start: Instant,
    /// Milliseconds after `start`; 0 means not at all.
    until: AtomicU64,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl Leadership {
    /// Whether this replica leads at this moment.
    pub fn is_valid(&self) -> bool {
        self.elapsed_ms(Instant::now()) < self.until.load(Ordering::Acquire)
    }

    fn elapsed_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn set_until(&self, at: Option<Instant>) {
        self.until
            .store(at.map_or(0, |at| self.elapsed_ms(at)), Ordering::Release);
    }
}

/// Why a lease write failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refused or did not answer.
    #[error("lease {name}: {source}")]
    Api {
        /// Name of the Lease.
        name: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("lease {0}: the API server did not answer in time")]
    Timeout(String),
}

/// Keeps trying to hold the lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    leadership: Arc<Leadership>,
    /// The other holder's last renewal, and when it was first seen here: clocks of machines are not compared.
    observed: Option<(String, Option<MicroTime>, Instant)>,
}

/// What one round found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Round {
    Held,
    Other,
}

impl Elector {
    /// An elector for the Lease `name`.
    pub fn new(
        api: Api<Lease>,
        name: String,
        identity: String,
        duration: Duration,
        leadership: Arc<Leadership>,
    ) -> Self {
        Self {
            api,
            name,
            identity,
            duration,
            leadership,
            observed: None,
        }
    }

    /// Runs until `stop` says so, then gives the lease up. `leading` carries every change.
    pub async fn run(
        mut self,
        leading: watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), LeaseError> {
        // Three tries fit into one lease, so that a single lost answer does not end leadership.
        let interval = self.duration / 4;
        while !*stop.borrow() {
            let started = Instant::now();
            let round = tokio::time::timeout(interval, self.round())
                .await
                .unwrap_or_else(|_| Err(LeaseError::Timeout(self.name.clone())));
            match round {
                Ok(Round::Held) => self
                    .leadership
                    .set_until(Some(started + self.duration * 3 / 4)),
                Ok(Round::Other) => self.leadership.set_until(None),
                Err(error) => tracing::warn!(%error, "lease round failed"),
            }
            let now_leading = self.leadership.is_valid();
            leading.send_if_modified(|was| std::mem::replace(was, now_leading) != now_leading);
            let pause = if now_leading { interval } else { interval / 2 };
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(started.elapsed())) => {}
                _ = stop.changed() => {}
            }
        }
        let led = self.leadership.is_valid();
        self.leadership.set_until(None);
        leading.send_replace(false);
        if led { self.release().await } else { Ok(()) }
    }

    async fn round(&mut self) -> Result<Round, LeaseError> {
        let Some(mut lease) = self
            .api
            .get_opt(&self.name)
            .await
            .map_err(|e| self.error(e))?
        else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return self.write(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.has_expired(&holder, &spec) {
            return Ok(Round::Other);
        }
        lease.spec = Some(self.spec(Some(&spec)));
        self.write(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await,
        )
    }

    /// Whether the other holder let its lease run out, by this process's own clock.
    fn has_expired(&mut self, holder: &str, spec: &LeaseSpec) -> bool {
        let seen_before = self
            .observed
            .as_ref()
            .is_some_and(|(h, renewed, _)| h == holder && *renewed == spec.renew_time);
        if !seen_before {
            self.observed = Some((holder.to_owned(), spec.renew_time.clone(), Instant::now()));
        }
        let duration = Duration::from_secs(
            u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0),
        );
        self.observed
            .as_ref()
            .is_some_and(|(_, _, since)| since.elapsed() >= duration)
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.and_then(|o| o.holder_identity.as_deref()) == Some(&self.identity);
        let transitions = old.and_then(|o| o.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if ours {
                old.and_then(|o| o.acquire_time.clone())
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    fn write(&self, result: kube::Result<Lease>) -> Result<Round, LeaseError> {
        match result {
            Ok(_) => Ok(Round::Held),
            // Somebody else wrote first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Round::Other),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Gives the lease up, so that the next leader need not wait for it to run out.
    async fn release(&self) -> Result<(), LeaseError> {
        let Some(mut lease) = self
            .api
            .get_opt(&self.name)
            .await
            .map_err(|e| self.error(e))?
        else {
            return Ok(());
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.identity))
        else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        self.write(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await,
        )
        .map(|_| ())
    }

    fn error(&self, source: kube::Error) -> LeaseError {
        LeaseError::Api {
            name: self.name.clone(),
            source: Box::new(source),
        }
    }
}
