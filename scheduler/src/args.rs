//! Command line and environment of the scheduler and of the controller beside it.

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Parser, ValueEnum};
use pilotlight_common::quantity::{Bytes, MilliCpu};
use pilotlight_common::resolve::Maximum;

/// Pilotlight's central programs.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub enum Program {
    /// Gives every Sandbox of llmsafespace.dev a pod that already runs.
    Schedule(Box<Args>),
    /// Gives every Sandbox of agents.x-k8s.io a pod of its name, and converts between the versions of that API.
    Agents(Box<AgentsArgs>),
}

impl Program {
    /// How its log lines are written.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Schedule(args) => args.log_format,
            Self::Agents(args) => args.log_format,
        }
    }
}

/// Arguments of the controller of agents.x-k8s.io.
#[derive(Clone, Debug, ClapArgs)]
pub struct AgentsArgs {
    /// Namespace of its own objects.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this replica in the Lease.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Address of the conversion webhook.
    #[arg(
        long,
        env = "PILOTLIGHT_WEBHOOK_ADDRESS",
        default_value = "0.0.0.0:9443"
    )]
    pub webhook_address: SocketAddr,
    /// Address of metrics and health.
    #[arg(long, env = "PILOTLIGHT_HTTP_ADDRESS", default_value = "0.0.0.0:9090")]
    pub http_address: SocketAddr,
    /// Name of the Service that the API server asks for conversions.
    #[arg(
        long,
        env = "PILOTLIGHT_WEBHOOK_SERVICE",
        default_value = "pilotlight-agents"
    )]
    pub webhook_service: String,
    /// Secret that keeps the key of the webhook's certificate authority.
    #[arg(
        long,
        env = "PILOTLIGHT_CA_SECRET",
        default_value = "pilotlight-agents-ca"
    )]
    pub ca_secret: String,
    /// Lease that decides which replica acts.
    #[arg(
        long,
        env = "PILOTLIGHT_LEASE_NAME",
        default_value = "pilotlight-agents"
    )]
    pub lease_name: String,
    /// Seconds after which a silent leader is replaced.
    #[arg(long, env = "PILOTLIGHT_LEASE_DURATION_SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=60))]
    pub lease_duration_seconds: u32,
    /// DNS domain of the cluster.
    #[arg(
        long,
        env = "PILOTLIGHT_CLUSTER_DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// How log lines are written.
    #[arg(long, env = "PILOTLIGHT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Arguments of the scheduler.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Namespace of the scheduler's own objects.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this replica in the Lease.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Address of the node stream.
    #[arg(
        long,
        env = "PILOTLIGHT_STREAM_ADDRESS",
        default_value = "0.0.0.0:8443"
    )]
    pub stream_address: SocketAddr,
    /// Address of metrics and health.
    #[arg(long, env = "PILOTLIGHT_HTTP_ADDRESS", default_value = "0.0.0.0:9090")]
    pub http_address: SocketAddr,
    /// Name that the stream's certificate carries and agents expect.
    #[arg(
        long,
        env = "PILOTLIGHT_STREAM_SERVER_NAME",
        default_value = "pilotlight-scheduler"
    )]
    pub stream_server_name: String,
    /// Secret that keeps the certificate authority's key.
    #[arg(long, env = "PILOTLIGHT_CA_SECRET", default_value = "pilotlight-ca")]
    pub ca_secret: String,
    /// ConfigMap that shows the certificate authority to agents.
    #[arg(
        long,
        env = "PILOTLIGHT_CA_CONFIG_MAP",
        default_value = "pilotlight-ca"
    )]
    pub ca_config_map: String,
    /// Lease that decides which replica acts.
    #[arg(
        long,
        env = "PILOTLIGHT_LEASE_NAME",
        default_value = "pilotlight-scheduler"
    )]
    pub lease_name: String,
    /// Seconds after which a silent leader is replaced.
    #[arg(long, env = "PILOTLIGHT_LEASE_DURATION_SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=60))]
    pub lease_duration_seconds: u32,
    /// DNS domain of the cluster.
    #[arg(
        long,
        env = "PILOTLIGHT_CLUSTER_DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// Pods created a second, all pools together.
    #[arg(long, env = "PILOTLIGHT_REFILL_PER_SECOND", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub refill_per_second: u32,
    /// Seconds that the preloads of a pool may take in one pod.
    #[arg(long, env = "PILOTLIGHT_PRELOAD_TIMEOUT_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub preload_timeout_seconds: u32,
    /// RuntimeClass of `securityLevel: high`; none means that level is refused.
    #[arg(long, env = "PILOTLIGHT_HIGH_RUNTIME_CLASS")]
    pub high_runtime_class: Option<String>,
    /// StorageClass of persistent volumes; none means the cluster's default.
    #[arg(long, env = "PILOTLIGHT_STORAGE_CLASS")]
    pub storage_class: Option<String>,
    /// What becomes of a persistent volume when its sandbox is deleted.
    #[arg(long, env = "PILOTLIGHT_STORAGE_RECLAIM", value_enum, default_value_t = ReclaimPolicy::Delete)]
    pub storage_reclaim: ReclaimPolicy,
    /// Who keeps sandboxes to their network rules.
    #[arg(long, env = "PILOTLIGHT_NETWORK_MODE", value_enum, default_value_t = NetworkMode::Node)]
    pub network_mode: NetworkMode,
    /// Most CPU that a sandbox may ask for; none means no bound.
    #[arg(long, env = "PILOTLIGHT_MAX_CPU", value_parser = MilliCpu::parse)]
    pub max_cpu: Option<MilliCpu>,
    /// Most memory that a sandbox may ask for.
    #[arg(long, env = "PILOTLIGHT_MAX_MEMORY", value_parser = Bytes::parse)]
    pub max_memory: Option<Bytes>,
    /// Most ephemeral storage that a sandbox may ask for.
    #[arg(long, env = "PILOTLIGHT_MAX_EPHEMERAL_STORAGE", value_parser = Bytes::parse)]
    pub max_ephemeral_storage: Option<Bytes>,
    /// Largest persistent volume that a sandbox may ask for.
    #[arg(long, env = "PILOTLIGHT_MAX_VOLUME", value_parser = Bytes::parse)]
    pub max_volume: Option<Bytes>,
    /// Seconds an agent may take to publish an assignment before another pod is tried.
    #[arg(long, env = "PILOTLIGHT_AGENT_DEADLINE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub agent_deadline_seconds: u32,
    /// Seconds that the pod which shows whether a runtime works may take to become ready.
    #[arg(long, env = "PILOTLIGHT_VALIDATION_TIMEOUT_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=3600))]
    pub validation_timeout_seconds: u32,
    /// Seconds after its end at which a Sandbox is deleted; none means never.
    #[arg(long, env = "PILOTLIGHT_FINISHED_TTL_SECONDS", value_parser = clap::value_parser!(u32))]
    pub finished_ttl_seconds: Option<u32>,
    /// CPU limit over CPU request of sandbox pods.
    #[arg(long, env = "PILOTLIGHT_CPU_OVERCOMMIT", default_value_t = 1.0, value_parser = overcommit)]
    pub cpu_overcommit: f64,
    /// Memory limit over memory request of sandbox pods.
    #[arg(long, env = "PILOTLIGHT_MEMORY_OVERCOMMIT", default_value_t = 1.0, value_parser = overcommit)]
    pub memory_overcommit: f64,
    /// Service account of the node agents, in the scheduler's namespace: no other may open a stream.
    #[arg(
        long,
        env = "PILOTLIGHT_AGENT_SERVICE_ACCOUNT",
        default_value = "pilotlight-node-agent"
    )]
    pub agent_service_account: String,
    /// How log lines are written.
    #[arg(long, env = "PILOTLIGHT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Who keeps sandboxes to their network rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum NetworkMode {
    /// The node agents, domains among them.
    Node,
    /// The cluster's network plugin, by NetworkPolicies that this program writes. They know no domains.
    Policy,
}

/// What becomes of a persistent volume when its sandbox is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ReclaimPolicy {
    /// It is deleted too.
    Delete,
    /// It stays, for a sandbox of the same name.
    Retain,
}

impl Args {
    /// The most that one sandbox may ask for.
    pub fn maximum(&self) -> Maximum {
        Maximum {
            cpu: self.max_cpu,
            memory: self.max_memory,
            ephemeral_storage: self.max_ephemeral_storage,
            volume: self.max_volume,
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn overcommit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (1.0..=100.0).contains(&factor) => Ok(factor),
        _ => Err("must be a number from 1 to 100".to_owned()),
    }
}
