//! When a sandbox's usage is worth a write. Called by [`super::pods`].

use std::time::Duration;

use super::backoff::Time;
use crate::protocol::PodUsage;

/// Time between two samples.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two writes to one Sandbox.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// CPU use must change by this many millicores, or a tenth of the last value where that is more.
const CPU_BAND: u64 = 50;
/// Memory must change by this many bytes, or a tenth of the last value where that is more.
const MEMORY_BAND: u64 = 32 << 20;

/// What a pod uses now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// CPU use in millicores, averaged since the sample before.
    pub cpu_millis: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
}

impl Usage {
    /// Whether this differs enough from what was last written.
    pub fn is_news(self, written: Option<Self>) -> bool {
        let Some(last) = written else {
            return true;
        };
        let outside = |now: u64, last: u64, band: u64| now.abs_diff(last) >= band.max(last / 10);
        outside(self.cpu_millis, last.cpu_millis, CPU_BAND)
            || outside(self.memory_bytes, last.memory_bytes, MEMORY_BAND)
    }
}

/// The samples of one pod.
#[derive(Clone, Debug, Default)]
pub struct UsageTrack {
    sample: Option<PodUsage>,
    /// The last whole observation.
    pub current: Option<Usage>,
    /// What was last written to the Sandbox.
    pub written: Option<Usage>,
    /// Not written again before this.
    pub not_before: Time,
}

impl UsageTrack {
    /// Takes a sample in and returns the CPU time since the one before, in microseconds.
    ///
    /// A clock or counter that went back (another node's state, a counter that was reset) starts anew.
    pub fn observe(&mut self, sample: &PodUsage) -> u64 {
        let before = self.sample.replace(sample.clone());
        let deltas = before.and_then(|before| {
            let cpu = sample.cpu_micros.checked_sub(before.cpu_micros)?;
            let wall = sample.at_micros.checked_sub(before.at_micros)?;
            (wall > 0).then_some((cpu, wall))
        });
        let Some((cpu, wall)) = deltas else {
            self.current = None;
            return 0;
        };
        let millis = u128::from(cpu) * 1000 / u128::from(wall);
        self.current = Some(Usage {
            cpu_millis: u64::try_from(millis).unwrap_or(u64::MAX),
            memory_bytes: sample.working_set_bytes,
        });
        cpu
    }

    /// Working set of the last sample, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.sample.as_ref().map_or(0, |s| s.working_set_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PodUid;

    fn usage(cpu_millis: u64, mib: u64) -> Usage {
        Usage {
            cpu_millis,
            memory_bytes: mib << 20,
        }
    }

    fn sample(cpu_micros: u64, at_micros: u64) -> PodUsage {
        PodUsage {
            uid: PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap(),
            cpu_micros,
            working_set_bytes: 5,
            at_micros,
        }
    }

    #[test]
    fn only_what_leaves_the_dead_band_is_news() {
        assert!(usage(0, 0).is_news(None));
        for (now, last, news) in [
            (usage(49, 0), usage(0, 0), false),
            (usage(50, 0), usage(0, 0), true),
            (usage(1099, 0), usage(1000, 0), false),
            (usage(1100, 0), usage(1000, 0), true),
            (usage(900, 0), usage(1000, 0), true),
            (usage(0, 31), usage(0, 0), false),
            (usage(0, 32), usage(0, 0), true),
            (usage(0, 1099), usage(0, 1000), false),
            (usage(0, 1100), usage(0, 1000), true),
        ] {
            assert_eq!(now.is_news(Some(last)), news, "{now:?} {last:?}");
        }
    }

    #[test]
    fn a_counter_that_went_back_starts_anew() {
        let mut track = UsageTrack::default();
        assert_eq!(track.observe(&sample(1000, 1_000_000)), 0);
        assert_eq!(track.current, None);
        assert_eq!(track.observe(&sample(501_000, 2_000_000)), 500_000);
        assert_eq!(track.current.map(|u| u.cpu_millis), Some(500));
        assert_eq!(track.observe(&sample(3, 3_000_000)), 0);
        assert_eq!(track.current, None);
        assert_eq!(track.observe(&sample(4, 3_000_000)), 0);
    }
}
