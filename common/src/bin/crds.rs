//! Prints the CRDs of the five kinds as one YAML stream; `make generate` puts it into the chart.

use std::io::Write;

use kube::CustomResourceExt;
use pilotlight_common::kinds;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "# Generated from common/src/kinds by `make generate`; edit there."
    )?;
    for crd in [
        kinds::Sandbox::crd(),
        kinds::SandboxProfile::crd(),
        kinds::WarmPool::crd(),
        kinds::WarmPod::crd(),
        kinds::RuntimeEnvironment::crd(),
    ] {
        let yaml = serde_saphyr::to_string(&crd).map_err(std::io::Error::other)?;
        writeln!(out, "---\n{}", yaml.trim_end())?;
    }
    Ok(())
}
