//! The command line: what the arguments are and which library call each becomes.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use pilotlight_cluster::image::RuntimeImage;
use pilotlight_cluster::{Cluster, Plan, UpOptions, down, serve_storage};

/// A real Kubernetes cluster on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// Where the cluster's files lie [default: /var/lib/pilotlight-cluster, with -N for instance N]
    #[arg(long, global = true, env = "PILOTLIGHT_CLUSTER_DIR")]
    state_dir: Option<PathBuf>,
    /// Which of several clusters of this machine: decides the bridge and all addresses
    #[arg(
        long,
        global = true,
        env = "PILOTLIGHT_CLUSTER_INSTANCE",
        default_value_t = 0
    )]
    instance: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster, or find it running
    Up {
        /// How many nodes; 0 for a control plane alone
        #[arg(long, default_value_t = 2)]
        nodes: usize,
    },
    /// Remove the cluster with everything it made
    Down,
    /// Load an image archive into all nodes
    LoadImage {
        /// A docker-archive tar file
        archive: PathBuf,
    },
    /// Build a runtime image (cached) and load it into all nodes
    RuntimeImage {
        /// `python`, `nodejs`
        language: String,
    },
    /// Print the exports a shell needs: eval "$(pilotlight-cluster env)"
    Env,
    /// Ask a component to end
    Stop {
        /// Such as `apiserver`, `etcd`, `node-1`, `node-1/kubelet`
        component: String,
    },
    /// Halt a component
    Pause {
        /// See `stop`
        component: String,
    },
    /// Let a paused component go on
    Resume {
        /// See `stop`
        component: String,
    },
    /// End a component at once
    Kill {
        /// See `stop`
        component: String,
    },
    /// Start a component that does not run
    Start {
        /// See `stop`
        component: String,
    },
    /// Stop and start a component
    Restart {
        /// See `stop`
        component: String,
    },
    /// Show what runs
    Status,
    /// Make and remove volumes; a component of the cluster, started by `up`
    #[command(hide = true)]
    ServeStorage,
}

/// Does what the arguments say.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dir = args
        .state_dir
        .clone()
        .unwrap_or_else(|| Plan::default_dir(args.instance));
    let attach = || Cluster::attach(&dir);
    match args.command {
        Command::Up { nodes } => {
            let options = UpOptions {
                nodes,
                dir: Some(dir),
                instance: args.instance,
            };
            let cluster = Cluster::up(&options).context("the cluster did not come up")?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Command::Down => down(&dir, args.instance)?,
        Command::LoadImage { archive } => attach()?.load_image(&archive)?,
        Command::RuntimeImage { language } => {
            let image = RuntimeImage::of(&language)?;
            attach()?.load_image(&image.archive()?)?;
            println!("{}", image.name);
        }
        Command::Env => {
            let cluster = attach()?;
            let folders = std::env::join_paths(cluster.tool_folders()?)?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            println!("export PATH={}:$PATH", folders.to_string_lossy());
        }
        Command::Stop { component } => attach()?.component(&component)?.stop()?,
        Command::Pause { component } => attach()?.component(&component)?.pause()?,
        Command::Resume { component } => attach()?.component(&component)?.resume()?,
        Command::Kill { component } => attach()?.component(&component)?.kill()?,
        Command::Start { component } => attach()?.component(&component)?.start()?,
        Command::Restart { component } => attach()?.component(&component)?.restart()?,
        Command::ServeStorage => serve_storage(&dir)?,
        Command::Status => status(&attach()?)?,
    }
    Ok(())
}

fn status(cluster: &Cluster) -> anyhow::Result<()> {
    for (component, state) in cluster.status()? {
        println!("{component:24} {state}");
    }
    match cluster.ready_nodes() {
        Ok(ready) => println!("ready nodes: {}", ready.join(", ")),
        Err(error) => println!("the API server does not answer: {error}"),
    }
    Ok(())
}
