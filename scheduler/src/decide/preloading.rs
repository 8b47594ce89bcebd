//! When the preloads of a pool take too long: the pod is given up, and the next one is made after a pause.

use jiff::{SignedDuration, Timestamp};

use crate::index::{Index, Timer};
use crate::view::{Key, Trouble};

/// Pause after the first pod that was given up; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause.
const MAX_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// Reason of a pool, and of the retirement of its pod, whose preloads take too long.
pub(super) const TIMED_OUT: &str = "PreloadTimedOut";

/// What the preloads of a pool have come to.
#[derive(Debug, Default)]
pub struct Preloading {
    failures: u32,
    until: Option<Timestamp>,
    trouble: Option<Trouble>,
}

impl Preloading {
    /// A pod got through.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A pod was given up. Pods are made many at a time, so those that are given up during the pause count as one.
    fn gave_up(&mut self, message: &str, now: Timestamp) {
        self.trouble = Some(Trouble::new(TIMED_OUT, message));
        if self.pause(now).is_some() {
            return;
        }
        let pause = MIN_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.until = now.saturating_add(pause).ok();
    }

    /// Until when no pod is made, where there is a pause.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until > now)
    }

    /// What went wrong last, until a pod got through.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }
}

/// Whether the preloads of this pod took too long, which is noted at its pool; else it is looked at again when they
/// would have.
pub(super) fn is_overdue(index: &mut Index, key: &Key, pool: &Key, now: Timestamp) -> bool {
    let Some(init) = index.pod_of(key).and_then(|pod| pod.init.clone()) else {
        return false;
    };
    let limit = index.settings.preload_timeout;
    let Some(due) = init.since.and_then(|at| at.saturating_add(limit).ok()) else {
        return false;
    };
    if due > now {
        index.timer(due, Timer::WarmPod(key.clone()));
        return false;
    }
    let failed = init
        .failed
        .map_or_else(String::new, |code| format!(" (last exit code {code})"));
    let message = format!(
        "container {} of pod {} was not through after {} s{failed}; make the pool's preloads faster, put them into the runtime's image, or raise the chart's preload.timeoutSeconds",
        init.container,
        key.name,
        limit.as_secs()
    );
    if let Some(pool) = index.pools.get_mut(pool) {
        pool.preloading.gave_up(&message, now);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_five_minutes_and_ends_with_a_success() {
        let mut preloading = Preloading::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            preloading.gave_up("x", now);
            preloading.gave_up("one of the same round", now);
            let until = preloading.pause(now).unwrap();
            pauses.push(until.duration_since(now).as_secs());
            now = until;
            assert_eq!(preloading.pause(now), None);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        assert!(preloading.trouble().is_some());
        preloading.succeeded();
        assert!(preloading.trouble().is_none());
    }
}
