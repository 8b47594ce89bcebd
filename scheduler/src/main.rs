//! `pilotlight-scheduler`: see the library of this crate.

use clap::Parser;
use pilotlight_scheduler::args::{LogFormat, Program};
use pilotlight_scheduler::{agents, run};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    // Two providers can be in the dependency tree; the choice is made once, before anything uses TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before"))?;
    let program = Program::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match program.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match program {
        Program::Schedule(args) => runtime.block_on(run::run(*args)),
        Program::Agents(args) => runtime.block_on(agents::run(*args)),
    }
}
