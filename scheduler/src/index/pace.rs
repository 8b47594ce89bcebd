//! How long pods take to start, as far as was seen: what decides whether waiting for one in the making is sooner than
//! making another. Kept by the index for each pool and for pods made for one sandbox.

use jiff::SignedDuration;

/// What a start takes until one was seen: a container on a node that has its image.
const FIRST_GUESS: SignedDuration = SignedDuration::from_secs(3);
/// Weight of the last start against all before: the average follows a change within a few starts, and one odd start
/// does not turn it over.
const WEIGHT: i32 = 4;

/// A moving average of starts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    usual: SignedDuration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { usual: FIRST_GUESS }
    }
}

impl Pace {
    /// How long a start usually takes.
    pub fn usual(self) -> SignedDuration {
        self.usual
    }

    /// One more start took this long.
    pub fn observe(&mut self, took: SignedDuration) {
        if took.is_positive() {
            self.usual = self.usual / WEIGHT * (WEIGHT - 1) + took / WEIGHT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_a_lasting_change_and_not_a_single_start() {
        let mut pace = Pace::default();
        pace.observe(SignedDuration::from_secs(60));
        assert!(pace.usual() < SignedDuration::from_secs(20));
        for _ in 0..20 {
            pace.observe(SignedDuration::from_secs(60));
        }
        assert!(pace.usual() > SignedDuration::from_secs(55));
    }

    #[test]
    fn clocks_that_disagree_change_nothing() {
        let mut pace = Pace::default();
        pace.observe(SignedDuration::from_secs(-5));
        assert_eq!(pace.usual(), FIRST_GUESS);
    }
}
