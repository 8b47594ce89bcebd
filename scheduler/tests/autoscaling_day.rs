//! A made-up day of load against the real decisions, on a simulated clock: does a pool that follows its use have a pod
//! ready for those who come, and how many does it keep for nobody?
//!
//! The load is that of a team with agents: nearly nothing at night, a morning that begins within minutes, a dip at
//! noon, slow swings on top, and fan-outs of up to 25 sandboxes within seconds. Pods take seconds to
//! start, and are made at the chart's default rate.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds of a day and numbers of pods are positive and far below 2^52"
)]

mod world;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use jiff::Timestamp;
use pilotlight_common::kinds::AutoScaling;
use pilotlight_scheduler::action::Action;
use pilotlight_scheduler::index::Observation;
use pilotlight_scheduler::view::{Claim, Key};
use world::World;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;
/// Milliseconds by which a timer may be late.
const TICK: i64 = 100;
/// The pool's `minSize`.
const MIN_SIZE: i64 = 5;
/// The chart's `scheduler.refillPerSecond`.
const REFILL: u32 = 10;

/// `SplitMix64`: the same day on every machine and for every version of any crate.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Exponentially distributed.
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// Sandboxes a second that the hour of the day brings by itself.
fn rate(hour: f64) -> f64 {
    let working = if (8.0..19.0).contains(&hour) {
        0.08 + 0.12 * (std::f64::consts::PI * (hour - 8.0) / 11.0).sin()
    } else {
        0.0
    };
    let noon = if (12.0..13.0).contains(&hour) {
        0.6
    } else {
        1.0
    };
    0.01 + working * noon
}

/// When sandboxes are created, in milliseconds of the day.
fn arrivals(dice: &mut Dice) -> Vec<i64> {
    let mut times = Vec::new();
    // What comes by itself: a Poisson process, thinned out from its highest rate, with slow swings.
    let swings: Vec<f64> = (0..145).map(|_| dice.between(0.6, 1.4)).collect();
    let highest = 0.3;
    let mut second = 0.0;
    loop {
        second += dice.exponential(1.0 / highest);
        if second >= 86_400.0 {
            break;
        }
        let ten_minutes = second / 600.0;
        let (whole, part) = (ten_minutes as usize, ten_minutes.fract());
        let swing = swings[whole] * (1.0 - part) + swings[whole + 1] * part;
        if dice.unit() * highest < rate(second / 3600.0) * swing {
            times.push((second * 1000.0) as i64);
        }
    }
    // Fan-outs: fifty a day, one in five at any hour.
    for _ in 0..50 {
        let hour = if dice.unit() < 0.8 {
            dice.between(8.0, 19.0)
        } else {
            dice.between(0.0, 24.0)
        };
        let start = hour * 3_600_000.0;
        let size = dice.between(5.0, 25.0) as usize;
        let spread = dice.between(1000.0, 10_000.0);
        for _ in 0..size {
            let at = (start + dice.between(0.0, spread)) as i64;
            times.push(at.min(DAY - 1));
        }
    }
    times.sort_unstable();
    times
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Create,
    End(String),
    PodStarted(Key),
    ColdPodStarted(Key),
}

/// What came of a day.
struct Outcome {
    sandboxes: i32,
    /// Share of the sandboxes that found a ready pod at once, in percent.
    hit_rate: f64,
    /// Idle pods above `minSize`, those being made included, over assigned pods, both as averages over the time, in
    /// percent.
    idle_share: f64,
    most_assigned: usize,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "hit rate {:.1} %, idle pods above the minimum {:.1} % of the assigned ones ({} sandboxes, at most {} assigned at once)",
            self.hit_rate, self.idle_share, self.sandboxes, self.most_assigned
        )
    }
}

fn day(seed: u64, scaling: Option<AutoScaling>) -> Outcome {
    let mut dice = Dice(seed);
    let mut world = World::with_refill(MIN_SIZE, 0, REFILL);
    world.change_pool(|spec| {
        spec.ttl = None;
        spec.auto_scaling = scaling;
    });
    world.settle();
    world.index.take_observations();
    let begin = world.now;
    let millis = |at: Timestamp| at.as_millisecond() - begin.as_millisecond();
    let mut events: BinaryHeap<Reverse<(i64, Event)>> = arrivals(&mut dice)
        .into_iter()
        .map(|at| Reverse((at, Event::Create)))
        .collect();
    let mut starting: HashSet<Key> = HashSet::new();
    let (mut sandboxes, mut hits, mut misses) = (0, 0, 0);
    let (mut idle_time, mut assigned_time, mut most_assigned) = (0_i64, 0_i64, 0);
    loop {
        let timer = world.index.next_timer().map(millis);
        let event = events.peek().map(|Reverse((at, _))| *at);
        let before = millis(world.now);
        // Timers are fired a little late and together, as on a busy machine; that makes the day three times shorter.
        let at = timer
            .map(|at| at.max(before) + TICK)
            .into_iter()
            .chain(event)
            .min()
            .unwrap_or(DAY)
            .clamp(before, DAY);
        let assigned = world
            .warm_pods
            .values()
            .filter(|p| matches!(p.claim, Claim::Sandbox(_)))
            .count();
        let idle = i64::try_from(world.warm_pods.len() - assigned).unwrap();
        idle_time += (idle - MIN_SIZE).max(0) * (at - before);
        assigned_time += i64::try_from(assigned).unwrap() * (at - before);
        most_assigned = most_assigned.max(assigned);
        if at >= DAY {
            break;
        }
        world.advance(at - before);
        while let Some(Reverse((_, event))) = events
            .peek()
            .is_some_and(|Reverse((due, _))| *due <= at)
            .then(|| events.pop())
            .flatten()
        {
            match event {
                Event::Create => {
                    sandboxes += 1;
                    let uid = world.create_sandbox();
                    // Most are short, some stay for long.
                    let seconds = dice.exponential(240.0).clamp(15.0, 1800.0);
                    events.push(Reverse((at + (seconds * 1000.0) as i64, Event::End(uid))));
                }
                Event::End(uid) => world.delete_sandbox(&uid),
                Event::PodStarted(key) => {
                    world.pod_becomes_ready(&key);
                }
                Event::ColdPodStarted(key) => world.publish_cold(&key),
            }
        }
        let mut given: Vec<Key> = Vec::new();
        while !world.undelivered.is_empty() || !world.under_way.is_empty() {
            world.deliver(usize::MAX);
            given.extend(world.under_way.iter().filter_map(|action| match action {
                Action::Assign(assign) => Some(Key::from(&assign.warm_pod)),
                _ => None,
            }));
            while !world.under_way.is_empty() {
                world.carry_out(0, true);
            }
        }
        for (after, started) in new_starts(&world, &mut starting, &mut dice) {
            events.push(Reverse((at + after, started)));
        }
        for key in given.drain(..) {
            world.publish(&key);
        }
        for observation in world.index.take_observations() {
            match observation {
                Observation::Hit => hits += 1,
                Observation::Miss => misses += 1,
                _ => {}
            }
        }
    }
    assert_eq!(hits + misses, sandboxes, "every sandbox is one of them");
    Outcome {
        sandboxes,
        hit_rate: 100.0 * f64::from(hits) / f64::from(hits + misses),
        idle_share: 100.0 * idle_time as f64 / assigned_time as f64,
        most_assigned,
    }
}

/// The pods that were just made: in how many milliseconds which of them is up.
fn new_starts(world: &World, starting: &mut HashSet<Key>, dice: &mut Dice) -> Vec<(i64, Event)> {
    let unready = world.warm_pods.iter().filter(|(_, p)| p.phase.is_none());
    let warm = unready.map(|(key, _)| (key.clone(), Event::PodStarted as fn(Key) -> Event));
    let cold = world.cold_pods().into_iter();
    let cold = cold.map(|key| (key, Event::ColdPodStarted as fn(Key) -> Event));
    warm.chain(cold)
        .filter_map(|(key, event)| {
            starting
                .insert(key.clone())
                .then(|| (start_time(dice), event(key)))
        })
        .collect()
}

/// Milliseconds that a pod takes to start where its image is there; now and then a node is slow.
fn start_time(dice: &mut Dice) -> i64 {
    let seconds = if dice.unit() < 0.05 {
        dice.between(6.0, 15.0)
    } else {
        dice.between(2.0, 5.0)
    };
    (seconds * 1000.0) as i64
}

#[test]
fn a_pool_that_follows_a_day_of_load_serves_it_and_keeps_little_for_nobody() {
    let fixed = day(1, None);
    println!("minSize alone: {fixed}");
    assert!(
        fixed.hit_rate < 95.0,
        "a load that the minimum alone can serve shows nothing"
    );
    for seed in 1..=2 {
        let defaults = AutoScaling {
            enabled: Some(true),
            ..AutoScaling::default()
        };
        let outcome = day(seed, Some(defaults));
        println!("day {seed}, autoScaling with its defaults: {outcome}");
        assert!(outcome.hit_rate >= 95.0, "{outcome}");
        assert!(outcome.idle_share <= 30.0, "{outcome}");
    }
}
