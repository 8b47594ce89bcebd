//! Writes the manifest of an `agents.x-k8s.io` Sandbox that stays up for commands: from flags, or from JSON on the standard input where
//! there are none.
//!
//! ```text
//! pilotlight-sandbox-manifest --namespace team --name run-1 --image agent:1 --env-secret run-1-env --service-account agent | kubectl apply -f -
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::ExitCode;

use clap::Parser;
use pilotlight_common::agents::manifest::{
    ManifestAmounts, ManifestInput, ManifestResources, manifest,
};

/// Most bytes of the standard input that are read.
const MAX_INPUT: u64 = 1 << 20;

/// Writes the manifest of a Sandbox of agents.x-k8s.io as JSON. Without flags it reads its input as JSON from the standard input: namespace,
/// sandboxName, image, envSecretName, serviceAccountName, labels, resources {requests, limits}, runtimeClassName, imagePullSecrets.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Namespace of the Sandbox.
    #[arg(long, requires_all = ["name", "image", "env_secret", "service_account"])]
    namespace: Option<String>,
    /// Name of the Sandbox and its pod.
    #[arg(long, requires = "namespace")]
    name: Option<String>,
    /// Image; it must have tini and a shell.
    #[arg(long, requires = "namespace")]
    image: Option<String>,
    /// Secret whose keys are the container's environment.
    #[arg(long, requires = "namespace")]
    env_secret: Option<String>,
    /// Service account of the pod; its token is not mounted.
    #[arg(long, requires = "namespace")]
    service_account: Option<String>,
    /// Label of the Sandbox and its pod, as key=value; once for each.
    #[arg(long = "label", value_parser = pair, requires = "namespace")]
    labels: Vec<(String, String)>,
    /// CPUs kept for it.
    #[arg(long, requires = "request_memory")]
    request_cpu: Option<String>,
    /// Memory kept for it.
    #[arg(long, requires = "request_cpu")]
    request_memory: Option<String>,
    /// The most CPUs it gets.
    #[arg(long, requires = "limit_memory")]
    limit_cpu: Option<String>,
    /// The most memory it gets.
    #[arg(long, requires = "limit_cpu")]
    limit_memory: Option<String>,
    /// RuntimeClass of the pod.
    #[arg(long, requires = "namespace")]
    runtime_class: Option<String>,
    /// Secret with registry credentials; once for each.
    #[arg(long = "image-pull-secret", requires = "namespace")]
    image_pull_secrets: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text}: it must be key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Flags {
    /// What they say; nothing where there are none.
    fn input(self) -> Option<ManifestInput> {
        let amounts = |cpu: Option<String>, memory: Option<String>| {
            (cpu.is_some() || memory.is_some()).then_some(ManifestAmounts { cpu, memory })
        };
        Some(ManifestInput {
            namespace: self.namespace?,
            sandbox_name: self.name?,
            adapter_type: String::new(),
            image: self.image?,
            env_secret_name: self.env_secret?,
            service_account_name: self.service_account?,
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            resources: ManifestResources {
                requests: amounts(self.request_cpu, self.request_memory),
                limits: amounts(self.limit_cpu, self.limit_memory),
            },
            runtime_class_name: self.runtime_class,
            image_pull_secrets: (!self.image_pull_secrets.is_empty())
                .then_some(self.image_pull_secrets),
        })
    }
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pilotlight-sandbox-manifest: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), String> {
    let input = match flags.input() {
        Some(input) => input,
        None => read()?,
    };
    let document = manifest(input).map_err(|error| error.to_string())?;
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    writeln!(std::io::stdout(), "{text}").map_err(|error| format!("cannot write: {error}"))
}

fn read() -> Result<ManifestInput, String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read the standard input: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("the input cannot be read: {error}"))
}
