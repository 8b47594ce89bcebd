//! The node agent's binary: picks the process, prepares it, runs it.

use anyhow::Context;
use clap::Parser;
use pilotlight_node_agent::args::{Args, LogFormat, Process};
use pilotlight_node_agent::{api, host};
use tracing_subscriber::EnvFilter;

/// Enough for one event loop and the encryption beside it; more would cost memory on large nodes.
const API_THREADS: usize = 2;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log).context("--log cannot be read")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Text => logs.with_ansi(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    match args.process {
        Process::Api(args) => {
            // Before anything can speak TLS: two providers in one binary would make the first use panic.
            if rustls::crypto::ring::default_provider()
                .install_default()
                .is_err()
            {
                anyhow::bail!("a TLS provider is installed already");
            }
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(API_THREADS)
                .enable_all()
                .build()?
                .block_on(api::run(args))
        }
        Process::Host(args) => {
            // Before any thread is started: capabilities are per thread.
            host::privileges::drop_all()?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(host::run(args))
        }
    }
}
