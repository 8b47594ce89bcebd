//! Network access by name: what a sandbox may reach, it reaches; everything else is refused, whatever it tries.

pub(crate) mod edits;
mod names;
mod refusals;

use std::sync::Arc;

use anyhow::{Context, Result};
use kube::api::DynamicObject;
use pilotlight_bench::objects::text;
use pilotlight_bench::outside::{Meaning, Outside};
use pilotlight_e2e::inside::able;
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::{Value, json};

/// Types of records in a query.
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const ANY: u16 = 255;

/// A scene with an internet; left out, aloud, where the cluster is not the local one.
pub(crate) fn with_internet<F, R>(name: &str, test: F)
where
    F: FnOnce(Arc<Scene>, &'static Outside) -> R,
    R: Future<Output = Result<()>>,
{
    scene(name, |scene| async move {
        let Some(outside) = scene.environment.outside().await? else {
            eprintln!("left out: this cluster has no internet of its own");
            return Ok(());
        };
        test(scene, outside).await
    });
}

/// A name of this scene alone, with these addresses.
pub(crate) fn name_of(scene: &Scene, outside: &Outside, label: &str, meaning: Meaning) -> String {
    outside.name(&format!("{label}.{}", scene.namespace), meaning)
}

/// Creates a sandbox in which python answers, with these rules, and waits until it runs; its pod.
pub(crate) async fn sandbox(
    scene: &Scene,
    name: &str,
    mut fields: Value,
    access: Value,
) -> Result<String> {
    if fields.get("resources").is_none() {
        fields["resources"] = able();
    }
    if !access.is_null() {
        fields["networkAccess"] = access;
    }
    scene.ask(name, fields).await?;
    scene.running(name).await
}

/// The address of a sandbox's pod.
fn address(pod: &DynamicObject) -> Result<std::net::IpAddr> {
    let address = text(pod, "/status/podIP").context("a running pod has an address")?;
    Ok(address.parse()?)
}

/// Starts a program in a sandbox that goes on after this returns.
pub(crate) async fn in_background(scene: &Scene, pod: &str, program: &str) -> Result<()> {
    let start = format!(
        "import os, sys
if os.fork() == 0:
    os.setsid()
    null = os.open('/dev/null', os.O_RDWR)
    [os.dup2(null, n) for n in range(3)]
    exec({program:?})
"
    );
    scene.python(pod, &start).await?;
    Ok(())
}

/// Greets whoever connects to port 8080.
const SERVER: &str = "import socket
s = socket.create_server(('', 8080))
while True:
    c, _ = s.accept()
    c.sendall(b'outside')
    c.close()";

/// Level `high` runs under gVisor in the local cluster, which has a network stack of its own.
pub(crate) fn levels() -> [(&'static str, Value); 2] {
    [
        ("runc", json!({})),
        (
            "gvisor",
            json!({ "securityLevel": "high", "resources": { "cpu": "300m", "memory": "96Mi" } }),
        ),
    ]
}
