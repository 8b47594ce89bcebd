//! The command line, the only place where flags and environment variables are read. Called by `main`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Keeps one node's sandbox pods armed and publishes sandboxes on them.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// How log lines are written.
    #[arg(long, env = "LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log: String,
    /// Which of the two processes this is.
    #[command(subcommand)]
    pub process: Process,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Which of the two processes this is.
#[derive(Clone, Debug, Subcommand)]
pub enum Process {
    /// The unprivileged process: node stream, pod watch, status writes, metrics.
    Api(ApiArgs),
    /// The root process: reads kernel files, has no token and uses no network.
    Host(HostArgs),
}

/// Arguments of `api`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApiArgs {
    /// The node this agent is responsible for.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The socket that `host` serves.
    #[arg(long, env = "HOST_SOCKET", default_value = "/run/pilotlight/host.sock")]
    pub host_socket: PathBuf,
    /// Name that resolves to the address of every scheduler replica.
    #[arg(
        long,
        env = "SCHEDULER_HOST",
        default_value = "pilotlight-scheduler-nodes.pilotlight-system.svc.cluster.local"
    )]
    pub scheduler_host: String,
    /// Port of the scheduler's node stream.
    #[arg(long, env = "SCHEDULER_PORT", default_value_t = 8443)]
    pub scheduler_port: u16,
    /// Name that the scheduler's certificate must bear.
    #[arg(
        long,
        env = "SCHEDULER_SERVER_NAME",
        default_value = "pilotlight-scheduler"
    )]
    pub scheduler_server_name: String,
    /// Certificates that the scheduler's must be signed by, PEM; read for every connection, so it may come late.
    #[arg(long, env = "CA_FILE", default_value = "/etc/pilotlight/ca/ca.crt")]
    pub ca_file: PathBuf,
    /// Token for the scheduler; read for every request, so it may be rotated.
    #[arg(
        long,
        env = "STREAM_TOKEN_FILE",
        default_value = "/var/run/secrets/pilotlight/stream/token"
    )]
    pub stream_token_file: PathBuf,
    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, env = "METRICS_PORT", default_value_t = 9090)]
    pub metrics_port: u16,
    /// Kubeconfig file for tests; in a pod the service account is used.
    #[arg(long, env = "AGENT_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// Arguments of `host`.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// The socket to serve.
    #[arg(long, env = "HOST_SOCKET", default_value = "/run/pilotlight/host.sock")]
    pub socket: PathBuf,
    /// User that may connect; every other is turned away.
    #[arg(long, env = "API_UID", default_value_t = 65532)]
    pub api_uid: u32,
    /// Group that the socket is given to.
    #[arg(long, env = "API_GID", default_value_t = 65532)]
    pub api_gid: u32,
    /// Where the node's /sys/fs/cgroup is mounted.
    #[arg(long, env = "CGROUP_ROOT", default_value = "/host/sys/fs/cgroup")]
    pub cgroup_root: PathBuf,
    /// Where the node's /proc is mounted.
    #[arg(long, env = "PROC_ROOT", default_value = "/proc")]
    pub proc_root: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
