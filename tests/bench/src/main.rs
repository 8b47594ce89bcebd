//! `make bench`.

use anyhow::Result;
use clap::Parser;
use pilotlight_bench::args::Args;
use pilotlight_bench::run;
use pilotlight_demo::{InstallOptions, install};

fn main() -> Result<()> {
    let args = Args::parse();
    // Before the runtime: it blocks for as long as builds and images take.
    let installation = install(&InstallOptions::default())?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run::run(&installation, &args))
}
