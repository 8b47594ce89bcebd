//! How many queries a pod may ask. Used by [`super::pod`].

use std::time::{Duration, Instant};

/// Queries a second that one pod may go on asking: a tenth of what a node's proxy answers.
const PER_SECOND: u32 = 500;
/// Queries that it may ask at once after it was silent.
const BURST: u32 = 1000;

/// A bucket of tokens, one for each query.
#[derive(Debug)]
pub struct Rate {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self {
            tokens: f64::from(BURST),
            at: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = now
            .saturating_duration_since(self.at)
            .min(Duration::from_mins(1));
        self.at = now;
        let more = since.as_secs_f64() * f64::from(PER_SECOND);
        self.tokens = (self.tokens + more).min(f64::from(BURST));
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_and_then_as_many_as_go_on() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let taken = (0..5000).filter(|_| rate.take(start)).count();
        assert_eq!(taken, 1000);
        let later = start + Duration::from_secs(1);
        let taken = (0..5000).filter(|_| rate.take(later)).count();
        assert_eq!(taken, 500);
        assert!(!rate.take(start), "a clock that goes back gives nothing");
    }
}
