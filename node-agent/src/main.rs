//! The node agent's binary: picks the process, prepares it, runs it.

use std::path::Path;

use anyhow::Context;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pilotlight_node_agent::args::{Args, LogFormat, Process};
use pilotlight_node_agent::confinement::{self, Confinement};
use pilotlight_node_agent::{api, host, network};
use pilotlight_seccomp::Process as Profile;
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
            as_many_files_as_allowed();
            // Before any thread is started: capabilities are per thread, and threads inherit what holds the first one.
            host::privileges::drop_all()?;
            let proc_root = Path::new("/proc");
            report(confinement::apply(Profile::Api, proc_root)?);
            host::privileges::verify(proc_root)?;
            host::privileges::verify_not_root(proc_root)?;
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
            report(confinement::apply(Profile::Host, &args.proc_root)?);
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(host::run(args))
        }
        Process::Network(args) => {
            host::privileges::keep_network()?;
            report(confinement::apply(Profile::Network, &args.proc_root)?);
            network::run(&args)
        }
    }
}

/// Each pod has four sockets for its DNS, and each query on its way has one: a full node needs more than the usual soft limit of 1024.
/// The hard limit is what the container runtime allows.
fn as_many_files_as_allowed() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn report(confinement: Confinement) {
    match confinement {
        Confinement::Held { threads } => {
            tracing::info!(threads, "held to the seccomp profile of this process");
        }
        Confinement::NotSupported => {
            tracing::warn!("the kernel has no seccomp; this process is held by its user alone");
        }
    }
}
