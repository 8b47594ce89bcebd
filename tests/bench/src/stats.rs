//! Percentiles of latencies, and the times of Poisson arrivals. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};
use serde::Serialize;

/// One mode's numbers. Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Samples that succeeded.
    pub n: usize,
    /// Samples that did not.
    pub failed: usize,
    /// Median.
    pub p50_ms: f64,
    /// Nine of ten are below.
    pub p90_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Successes a second of wall time.
    pub per_s: f64,
    /// Median by the median of the floor.
    pub ratio_p50: f64,
    /// Median of the floor it is compared with, where that is not `floor` itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_p50_ms: Option<f64>,
}

/// Samples of one mode.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Latencies of those that succeeded.
    pub took: Vec<Duration>,
    /// How many failed.
    pub failed: usize,
    /// Wall time of all of them together.
    pub wall: Duration,
}

impl Samples {
    /// Takes in the samples of another block of the same mode.
    pub fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.failed += other.failed;
        self.wall += other.wall;
    }

    /// The summary, with the median compared to `floor_p50_ms`; without one the ratio is 1.
    pub fn summary(&self, floor_p50_ms: Option<f64>) -> Summary {
        let mut ms: Vec<f64> = self.took.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        let p50_ms = percentile(&ms, 50);
        let wall = self.wall.as_secs_f64();
        Summary {
            n: ms.len(),
            failed: self.failed,
            p50_ms: rounded(p50_ms),
            p90_ms: rounded(percentile(&ms, 90)),
            p99_ms: rounded(percentile(&ms, 99)),
            max_ms: rounded(ms.last().copied().unwrap_or(0.0)),
            per_s: if wall > 0.0 {
                rounded(count(ms.len()) / wall)
            } else {
                0.0
            },
            ratio_p50: match floor_p50_ms {
                Some(floor) if floor > 0.0 => rounded(p50_ms / floor),
                _ => 1.0,
            },
            floor_p50_ms: None,
        }
    }
}

/// The smallest sample that `percent` per cent of all are not above (nearest rank); 0 without samples.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Three decimals: a microsecond.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A count as a number to divide by.
pub fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

/// Offsets from the start at which samples arrive: exponential gaps, `per_second` on average.
pub fn arrivals(rng: &mut impl Rng, per_second: f64, length: Duration) -> Vec<Duration> {
    let mut at = 0.0;
    let mut offsets = Vec::new();
    if per_second <= 0.0 {
        return offsets;
    }
    loop {
        // In (0, 1], so that the logarithm is finite.
        let uniform = 1.0 - rng.random::<f64>();
        at -= uniform.ln() / per_second;
        if at >= length.as_secs_f64() {
            return offsets;
        }
        offsets.push(Duration::from_secs_f64(at));
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Whole milliseconds are exact.
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            [50, 90, 99, 100].map(|p| percentile(&sorted, p)),
            [50.0, 90.0, 99.0, 100.0]
        );
        assert_eq!([1, 50, 99].map(|p| percentile(&[7.0], p)), [7.0; 3]);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), 2.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }

    #[test]
    fn a_summary_counts_failures_and_compares_medians() {
        let mut samples = Samples {
            took: vec![Duration::from_millis(30), Duration::from_millis(10)],
            failed: 1,
            wall: Duration::from_millis(500),
        };
        samples.add(Samples {
            took: vec![Duration::from_millis(20)],
            failed: 0,
            wall: Duration::from_millis(500),
        });
        let summary = samples.summary(Some(10.0));
        assert_eq!((summary.n, summary.failed), (3, 1));
        assert_eq!((summary.p50_ms, summary.max_ms), (20.0, 30.0));
        assert_eq!((summary.per_s, summary.ratio_p50), (3.0, 2.0));
    }

    #[test]
    fn nothing_measured_is_zeroes_and_not_a_number_that_json_cannot_hold() {
        let summary = Samples::default().summary(Some(0.0));
        assert!(serde_json::to_string(&summary).is_ok());
        assert_eq!(
            (summary.p50_ms, summary.per_s, summary.ratio_p50),
            (0.0, 0.0, 1.0)
        );
    }

    #[test]
    fn arrivals_come_at_their_rate_in_order_and_the_same_for_the_same_seed() {
        let length = Duration::from_secs(200);
        let at = |seed| arrivals(&mut StdRng::seed_from_u64(seed), 5.0, length);
        let offsets = at(1);
        assert!((850..1150).contains(&offsets.len()), "{}", offsets.len());
        assert!(offsets.is_sorted() && offsets.iter().all(|o| *o < length));
        assert_eq!(offsets, at(1));
        assert_ne!(offsets, at(2));
        assert!(arrivals(&mut StdRng::seed_from_u64(1), 0.0, length).is_empty());
    }
}
