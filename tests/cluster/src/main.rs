//! `pilotlight-cluster`: the local cluster from the command line.

mod cli;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    cli::run(cli::Args::parse())
}
