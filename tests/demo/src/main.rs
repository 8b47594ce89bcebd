//! The programs behind `make up`, `make demo`, `make down` and `make test`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pilotlight_demo::{InstallOptions, demo, down, install, pack, suite};

/// Puts Pilotlight onto a cluster and shows that it works.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up cluster, images and chart
    Up(Install),
    /// The same, and a sandbox that answers
    Demo(Install),
    /// Remove what `up` made
    Down,
    /// Build and pack the images, and print their names and archives
    Images,
    /// Run every check and test there is
    Test {
        /// Only the steps whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
}

#[derive(Debug, clap::Args)]
struct Install {
    /// Nodes of a cluster that is made here
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// More values of the chart, as key=value
    #[arg(long = "set")]
    values: Vec<String>,
}

impl From<Install> for InstallOptions {
    fn from(Install { nodes, values }: Install) -> Self {
        Self { nodes, values }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // The causes in one line each; a backtrace of this program helps nobody here.
        Err(error) => {
            eprintln!("\nerror: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Up(options) => {
            let installation = install(&options.into())?;
            println!("export KUBECONFIG={}", installation.kubeconfig.display());
        }
        Command::Demo(options) => {
            let installation = install(&options.into())?;
            runtime()?.block_on(demo::run(&installation))?;
        }
        Command::Down => down()?,
        Command::Images => {
            for (name, archive) in pack()? {
                println!("{name} {}", archive.display());
            }
        }
        Command::Test { only } => {
            if !runtime()?.block_on(suite::run(&only))? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
