//! When something that failed is tried again. Used by every part of [`super`].
//!
//! The jitter is a hash of the object and the attempt: as good as a random number for spreading, and the decision stays a
//! function of its input.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Time since the process started.
pub type Time = Duration;

/// `base`, doubled for each attempt after the first up to `cap`, less up to a half.
pub fn backoff(base: Duration, cap: Duration, attempt: u32, seed: &impl Hash) -> Duration {
    let full = base
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(cap);
    full.saturating_sub(spread(full / 2, seed, u64::from(attempt)))
}

/// Something from zero to `range`, the same for the same `seed` and `turn`.
pub fn spread(range: Duration, seed: &impl Hash, turn: u64) -> Duration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    turn.hash(&mut hasher);
    // Sixteen bits of the hash: fine enough, and no conversion can lose anything.
    let [low, high, ..] = hasher.finish().to_le_bytes();
    range * u32::from(u16::from_le_bytes([low, high])) / u32::from(u16::MAX)
}

/// A moment about `interval` from now, up to `share` of it sooner, so that what began together does not stay together.
pub fn about(now: Time, interval: Duration, share: u32, seed: &impl Hash) -> Time {
    let sooner = spread(interval / share, seed, now.as_secs());
    (now + interval).saturating_sub(sooner)
}

/// One kind of write to one object: at most one in flight, backing off after failures.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// A write is on its way.
    pub in_flight: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// Not before this.
    pub not_before: Time,
}

/// First pause after a failed write.
const WRITE_BACKOFF: Duration = Duration::from_millis(100);
/// Longest pause after failed writes.
const WRITE_BACKOFF_CAP: Duration = Duration::from_secs(30);

impl Lane {
    /// The write succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The write failed and is tried again later.
    pub fn failed(&mut self, now: Time, seed: &impl Hash) {
        self.in_flight = false;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + backoff(WRITE_BACKOFF, WRITE_BACKOFF_CAP, self.failures, seed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_grows_to_its_cap_and_never_beyond(attempt in 0u32..100, seed in any::<u64>()) {
            let base = Duration::from_millis(50);
            let cap = Duration::from_secs(5);
            let pause = backoff(base, cap, attempt, &seed);
            prop_assert!(pause <= cap && pause >= base / 2);
            if attempt > 8 { prop_assert!(pause >= cap / 2); }
        }
    }
}
