//! The root process: answers questions about the node's pods from kernel files. Started by `main`.
//!
//! It holds no token, opens no network socket and starts no other process. Single threaded: its work is a few
//! milliseconds every ten seconds, or every second where pods have CPUs of their own. All it writes are the CPUs of the
//! kubelet's cgroups, and the checkpoint of which were given.

pub mod cgroup;
pub mod cpuset;
pub(crate) mod inspect;
pub mod kernel;
pub mod privileges;
pub mod profiles;
pub mod serve;
pub mod usage;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::HostArgs;
use kernel::NodeKernel;

/// Serves until SIGTERM. Capabilities must be dropped already.
pub async fn run(args: HostArgs) -> anyhow::Result<()> {
    let threads = privileges::verify(&args.proc_root)?;
    let kernel = NodeKernel::new(&args)?;
    let version = kernel.cgroup_version();
    let cpus = kernel.cpu_backend();
    let listener = serve::bind(&args.socket, args.api_gid)?;
    tracing::info!(threads, cgroup = ?version, cpus, socket = %args.socket.display(), "serving without capabilities");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = serve::serve(listener, args.api_uid, kernel) => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}
