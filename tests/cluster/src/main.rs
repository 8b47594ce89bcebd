//! `pilotlight-cluster`: the local cluster from the command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of reasons, without a backtrace: these messages are for whoever runs the cluster.
            eprintln!("pilotlight-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
