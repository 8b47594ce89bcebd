//! What can be chosen on the command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures assignments on the cluster against the floor of the same run: a create and two dependent status
/// patches, each seen by watch. During the floor the scheduler is scaled to nothing, so that nobody else writes.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Assignments of the serial mode.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..10_000))]
    pub serial: u32,
    /// Assignments at once in the burst mode.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..1000))]
    pub burst: u32,
    /// Repetitions of the burst and of its floor; the samples are taken together.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..100))]
    pub bursts: u32,
    /// Arrivals a second in the rate mode. Two cores start about three pods a second; above that it measures the refill.
    #[arg(long, default_value_t = 3.0)]
    pub rate: f64,
    /// Seconds of the rate mode.
    #[arg(long, default_value_t = 20)]
    pub rate_seconds: u32,
    /// Sandboxes of agents.x-k8s.io made at once; 0 leaves them out.
    #[arg(long, default_value_t = 50)]
    pub agents: u32,
    /// Queries through the DNS proxy, and as many past it; 0 leaves the proxy out.
    #[arg(long, default_value_t = 3000)]
    pub dns_queries: u32,
    /// Seconds in which the sandboxes of one node ask as much as they may.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..600))]
    pub dns_seconds: u32,
    /// Pods on one node when its agent's memory and idle CPU time are measured, as far as the node has room; 0 leaves it out.
    #[arg(long, default_value_t = 110)]
    pub footprint_pods: u32,
    /// Seconds of that measurement.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..3600))]
    pub footprint_seconds: u32,
    /// Seed of the arrivals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the numbers go; `bench.json` in the target folder where it is left out.
    #[arg(long)]
    pub output: Option<PathBuf>,
}
