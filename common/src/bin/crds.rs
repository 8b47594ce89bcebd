//! Prints the CRDs of the five kinds as one YAML stream, or with `agents` that of `agents.x-k8s.io`; `make generate` puts both into the
//! chart.

use std::io::Write;

use kube::CustomResourceExt;
use pilotlight_common::{agents, kinds};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "# Generated from common/src by `make generate`; edit there."
    )?;
    let crds = match std::env::args().nth(1).as_deref() {
        None => vec![
            kinds::Sandbox::crd(),
            kinds::SandboxProfile::crd(),
            kinds::WarmPool::crd(),
            kinds::WarmPod::crd(),
            kinds::RuntimeEnvironment::crd(),
        ],
        Some("agents") => {
            // The chart puts its own in for both.
            let crd = agents::crd("RELEASE-NAMESPACE", "WEBHOOK-SERVICE");
            vec![crd.map_err(std::io::Error::other)?]
        }
        Some(other) => {
            return Err(std::io::Error::other(format!(
                "{other}: say nothing, or `agents`"
            )));
        }
    };
    for crd in crds {
        let yaml = serde_saphyr::to_string(&crd).map_err(std::io::Error::other)?;
        writeln!(out, "---\n{}", yaml.trim_end())?;
    }
    Ok(())
}
