//! How many idle pods a pool needs that follows its use.
//!
//! Up at once, down only once the lower need has held for a while: what is held is the highest need of that while.
//! The held number is of idle pods and not of all: pods are used once, so to hold all of them would mean to make one
//! for each sandbox that ends.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::resolve::{ResolvedPool, Scaling};

/// Idle pods a pool of this many assigned ones needs: as many as bring its utilization down to the target, and never
/// fewer than its minimum.
pub(super) fn need(pool: &ResolvedPool, assigned: usize) -> usize {
    let Some(Scaling {
        target_utilization,
        scale_down_delay: _,
    }) = pool.scaling
    else {
        return pool.min_size;
    };
    let total = assigned
        .saturating_mul(100)
        .div_ceil(target_utilization.max(1));
    (total - assigned.min(total)).max(pool.min_size)
}

/// The needs of the last while, highest first; of two, the later one is lower, or the earlier would not matter.
#[derive(Debug, Default)]
pub struct Needs {
    /// Each with the time it ended; the last is the one of now.
    held: VecDeque<(usize, Option<Timestamp>)>,
}

impl Needs {
    /// Needs that begin with `idle` pods, as if they had been needed until now: a new leader does not know the past,
    /// and removes nothing before it has seen that it is not needed.
    pub fn beginning_with(idle: usize, now: Timestamp) -> Self {
        Self {
            held: VecDeque::from([(idle, Some(now))]),
        }
    }

    /// The highest need of the last `delay`, given that it is `need` from now on.
    pub fn highest(&mut self, need: usize, delay: SignedDuration, now: Timestamp) -> usize {
        if let Some((last, end @ None)) = self.held.back_mut()
            && *last != need
        {
            *end = Some(now);
        }
        while self.held.back().is_some_and(|(last, _)| *last <= need) {
            self.held.pop_back();
        }
        if self.held.back().is_none_or(|(_, end)| end.is_some()) {
            self.held.push_back((need, None));
        }
        while self.next_change(delay).is_some_and(|at| at <= now) {
            self.held.pop_front();
        }
        self.held.front().map_or(need, |(highest, _)| *highest)
    }

    /// When the highest need changes by the mere passing of time.
    pub fn next_change(&self, delay: SignedDuration) -> Option<Timestamp> {
        let (_, end) = self.held.front()?;
        Some((*end)?.saturating_add(delay).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lower_need_counts_once_it_has_held_without_interruption() {
        let delay = SignedDuration::from_secs(300);
        let mut needs = Needs::default();
        let mut seen = |need, second| needs.highest(need, delay, at(second));
        assert_eq!(seen(5, 0), 5);
        assert_eq!(seen(9, 10), 9, "up at once");
        assert_eq!(seen(4, 100), 9);
        assert_eq!(seen(9, 200), 9, "interrupted");
        assert_eq!(seen(4, 210), 9);
        assert_eq!(seen(4, 509), 9);
        assert_eq!(seen(4, 510), 4);
    }

    #[test]
    fn a_delay_of_zero_is_none_and_a_new_leader_waits_the_whole_of_it() {
        let mut needs = Needs::default();
        let zero = SignedDuration::ZERO;
        assert_eq!(needs.highest(9, zero, at(1)), 9);
        assert_eq!(needs.highest(2, zero, at(1)), 2);
        let delay = SignedDuration::from_secs(60);
        let mut needs = Needs::beginning_with(7, at(0));
        assert_eq!(needs.highest(3, delay, at(0)), 7);
        assert_eq!(needs.next_change(delay), Some(at(60)));
        assert_eq!(needs.highest(3, delay, at(60)), 3);
        assert_eq!(needs.next_change(delay), None);
    }

    proptest! {
        #[test]
        fn it_is_the_maximum_over_the_window(delay in 0i64..12, steps in prop::collection::vec((0i64..5, 0usize..6), 1..40)) {
            let mut needs = Needs::default();
            let mut history: Vec<(i64, usize)> = Vec::new();
            let mut now = 0;
            for (pause, need) in steps {
                now += pause;
                history.push((now, need));
                // A need holds until the next one, and counts for the delay after that.
                let naive = history.iter().enumerate()
                    .filter(|(n, _)| history.get(n + 1).is_none_or(|(end, _)| end + delay > now))
                    .map(|(_, (_, need))| *need).max().unwrap();
                prop_assert_eq!(needs.highest(need, SignedDuration::from_secs(delay), at(now)), naive);
            }
        }
    }
}
