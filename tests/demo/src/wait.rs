//! Waits for parts of the installation; each wait is a watch of kubectl's, with what is being waited for shown.

use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::say;
use crate::{Installation, NAMESPACE, diagnose, run};

/// How long a part may take to come up, images present: twenty times what it takes on two cores.
const LIMIT: &str = "--timeout=180s";

/// Waits until scheduler and agents run and every node takes sandboxes.
pub(crate) fn until_ready(installation: &Installation) -> Result<()> {
    let wait = |what: &str, arguments: &[&str]| {
        say(format_args!("waiting for {what}"));
        run::show(installation.kubectl().args(arguments)).with_context(|| {
            format!(
                "{what}: not there in time\n{}",
                diagnose::installation(installation)
            )
        })
    };
    let rollout = |object: &'static str| ["-n", NAMESPACE, "rollout", "status", object, LIMIT];
    wait("the scheduler", &rollout("deployment/pilotlight-scheduler"))?;
    wait(
        "the controller of agents.x-k8s.io",
        &rollout("deployment/pilotlight-agents"),
    )?;
    wait(
        "the node agents",
        &rollout("daemonset/pilotlight-node-agent"),
    )?;
    wait(
        "the nodes to take sandboxes",
        &[
            "wait",
            "nodes",
            "--all",
            r"--for=jsonpath={.metadata.labels.llmsafespace\.dev/agent}=ready",
            LIMIT,
        ],
    )
}

/// Whether the cluster answers at all; asked first, for a better message than a later one would be.
pub(crate) fn reachable(kubectl: &mut Command) -> Result<()> {
    run::read(kubectl.args(["get", "--raw", "/readyz", "--request-timeout=10s"]))
        .map(drop)
        .context("the cluster does not answer")
}
