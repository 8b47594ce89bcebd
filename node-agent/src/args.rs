//! The command line, the only place where flags and environment variables are read. Called by `main`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
    /// Which of the three processes this is.
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

/// Which of the three processes this is.
#[derive(Clone, Debug, Subcommand)]
pub enum Process {
    /// The unprivileged process: node stream, pod watch, status writes, metrics.
    Api(ApiArgs),
    /// The root process: reads kernel files, has no token and uses no network.
    Host(HostArgs),
    /// The process with capabilities: keeps pods to their network rules, reads no packet.
    Network(NetworkArgs),
}

/// Who keeps pods to their network rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum NetworkMode {
    /// This agent.
    Node,
    /// The cluster's own network plugin, by NetworkPolicies; this agent does nothing.
    Policy,
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
    /// Who keeps pods to their network rules.
    #[arg(long, env = "NETWORK_MODE", default_value = "node")]
    pub network_mode: NetworkMode,
    /// The socket that `network` serves.
    #[arg(
        long,
        env = "NETWORK_SOCKET",
        default_value = "/run/pilotlight/network.sock"
    )]
    pub network_socket: PathBuf,
    /// Ranges that answers to sandboxes' DNS queries may name although they are private; separated by commas.
    #[arg(long, env = "ALLOWED_RANGES", value_delimiter = ',')]
    pub allowed_ranges: Vec<IpNet>,
    /// The resolv.conf whose servers answer the sandboxes' queries: that of this pod, with the cluster's DNS.
    #[arg(long, env = "RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
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
    /// Where the node's folder `seccomp/pilotlight`, below its kubelet's own, is mounted.
    #[arg(long, env = "SECCOMP_ROOT", default_value = "/host/seccomp")]
    pub seccomp_root: PathBuf,
    /// Where the node's /proc is mounted.
    #[arg(long, env = "PROC_ROOT", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// Where the node's /sys/devices/system is.
    #[arg(long, env = "SYSTEM_ROOT", default_value = "/sys/devices/system")]
    pub system_root: PathBuf,
    /// The kubelet's `cpu_manager_state`, which tells whether the kubelet gives out CPUs itself. Without it no CPUs are pinned.
    #[arg(long, env = "KUBELET_CPU_STATE")]
    pub kubelet_cpu_state: Option<PathBuf>,
    /// Directory for what must outlive this process until the next boot.
    #[arg(long, env = "STATE_DIR", default_value = "/run/pilotlight-state")]
    pub state_dir: PathBuf,
    /// CPUs that no sandbox gets for its own, such as 0-1,8.
    #[arg(long, env = "RESERVED_CPUS", default_value = "")]
    pub reserved_cpus: String,
    /// CPUs that are left at least for everything without CPUs of its own; one whole core always is.
    #[arg(long, env = "SHARED_CPU_FLOOR", default_value_t = 1)]
    pub shared_cpu_floor: usize,
}

/// Arguments of `network`.
#[derive(Clone, Debug, clap::Args)]
pub struct NetworkArgs {
    /// The socket to serve.
    #[arg(
        long,
        env = "NETWORK_SOCKET",
        default_value = "/run/pilotlight/network.sock"
    )]
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
    /// Ranges that may connect to every sandbox, such as those of a gateway; given several times or separated by commas.
    #[arg(long, env = "INGRESS_RANGES", value_delimiter = ',')]
    pub ingress_ranges: Vec<IpNet>,
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
