//! Seccomp profiles on the node: each language runs under its own, and what none allows is refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use pilotlight_bench::objects::text;
use pilotlight_cluster::image::RuntimeImage;
use pilotlight_common::names::SECCOMP_LABEL;
use pilotlight_e2e::environment::{PATIENCE, output};
use pilotlight_e2e::inside::able;
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::{Value, json};

/// `EPERM`: what a profile says to a call that it does not allow.
const REFUSED: i64 = 1;
/// `ENOSYS`: what it says to one that a program can do without.
const UNKNOWN: i64 = 38;
/// What python programs do beyond arithmetic, each with an answer that is checked.
const PYTHON: &str = r"
import asyncio, concurrent.futures, socket, subprocess, sys, threading, time
def square(n):
    return n * n
def main():
    seen = []
    threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert sorted(seen) == list(range(8))
    assert subprocess.run([sys.executable, '-c', 'print(7)'], capture_output=True, check=True).stdout == b'7\n'
    async def talk():
        async def echo(reader, writer):
            writer.write(await reader.readline()); await writer.drain(); writer.close()
        server = await asyncio.start_server(echo, '127.0.0.1', 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b'hello\n')
        line = await reader.readline()
        writer.close(); server.close()
        process = await asyncio.create_subprocess_exec(sys.executable, '-c', 'pass')
        return line, await process.wait()
    assert asyncio.run(talk()) == (b'hello\n', 0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
    print('python runs')
main()
";

/// The same for node.
const NODE: &str = r"
const { Worker } = require('worker_threads'), { execFileSync } = require('child_process'), net = require('net'), fs = require('fs');
const assert = require('assert');
(async () => {
  const worker = new Worker('require(\'worker_threads\').parentPort.postMessage(6 * 7)', { eval: true });
  assert.equal(await new Promise(done => worker.on('message', done)), 42);
  assert.equal(execFileSync(process.execPath, ['-e', 'console.log(7)']).toString(), '7\n');
  const server = net.createServer(peer => peer.pipe(peer));
  await new Promise(done => server.listen(0, '127.0.0.1', done));
  const client = net.connect(server.address().port, '127.0.0.1');
  client.write('hello');
  assert.equal((await new Promise(done => client.on('data', done))).toString(), 'hello');
  client.destroy(); server.close();
  await fs.promises.writeFile('/workspace/file', 'text');
  assert.equal(await fs.promises.readFile('/workspace/file', 'utf8'), 'text');
  console.log('node runs');
})().catch(error => { console.error(error); process.exit(1); });
";

/// Builds a Go program of this crate as one static file; the cluster's own tools are built the same way.
fn build(folder: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder.replace('/', "-"));
    let mut go = Command::new("go");
    go.arg("build").arg("-o").arg(&binary).arg(".");
    output(go.current_dir(source).env("CGO_ENABLED", "0"))?;
    Ok(binary)
}

/// Puts a program into a sandbox's pod and runs it there; what it prints.
async fn run(scene: &Scene, pod: &str, program: &Path) -> Result<String> {
    let program = std::fs::read(program)?;
    let mut command = scene.environment.installation.kubectl();
    let script = "cat > /workspace/program && chmod +x /workspace/program && /workspace/program";
    command
        .args(["-n", &scene.namespace, "exec", "-i", pod, "--"])
        .args(["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        input.context("no input")?.write_all(&program)?;
        anyhow::Ok(child.wait_with_output()?)
    })
    .await??;
    ensure!(
        said.status.success(),
        "the program in {pod} failed: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(String::from_utf8(said.stdout)?)
}

/// Every call that no profile lets through is refused in this pod, by the profile and not by the kernel.
async fn refuses_everything(scene: &Scene, pod: &str, probe: &Path) -> Result<()> {
    let said = run(scene, pod, probe).await?;
    let seen: BTreeMap<String, i64> = serde_json::from_str(&said).context(said)?;
    ensure!(seen.len() > 25, "too few calls were tried: {seen:?}");
    for (call, error) in &seen {
        let wanted = match call.as_str() {
            "clone3" | "io_uring_setup" | "io_uring_enter" => UNKNOWN,
            _ => REFUSED,
        };
        ensure!(
            *error == wanted,
            "{call} gives {error} in {pod}, not {wanted}: {seen:?}"
        );
    }
    Ok(())
}

/// The installed profile that a pod names.
fn profile_of(pod: &DynamicObject) -> Option<&str> {
    let path = text(pod, "/spec/securityContext/seccompProfile/localhostProfile")?;
    let file = path.strip_prefix("pilotlight/")?;
    Some(file.rsplit_once('-')?.0)
}

#[test]
fn each_language_runs_under_its_profile_and_every_denied_family_is_refused() {
    scene("seccomp", |scene| async move {
        scene.restricted().await?;
        let probe = build("probe")?;
        let program = build("probe/language")?;
        let go = scene.runtime("go", json!({ "language": "go" })).await?;
        let mut sandboxes = vec![
            ("python", json!({ "resources": able() })),
            ("go", json!({ "resources": able(), "runtime": go })),
        ];
        if let Some(cluster) = scene.environment.installation.local() {
            let image = RuntimeImage::of("nodejs")?;
            let archive = tokio::task::spawn_blocking(move || image.archive()).await??;
            tokio::task::spawn_blocking(move || cluster.load_image(&archive)).await??;
            let fields = json!({ "language": "nodejs", "image": image.name });
            let nodejs = scene.runtime("nodejs", fields).await?;
            let limits = json!({ "cpu": "500m", "memory": "128Mi" });
            sandboxes.push(("nodejs", json!({ "resources": limits, "runtime": nodejs })));
        }
        let names: Vec<&str> = sandboxes.iter().map(|(name, _)| *name).collect();
        try_join_all(
            sandboxes
                .into_iter()
                .map(|(name, fields)| scene.ask(name, fields)),
        )
        .await?;
        for name in names {
            let pod = scene.running(name).await?;
            ensure!(profile_of(&scene.pod(&pod)?) == Some(name), "{name}");
            refuses_everything(&scene, &pod, &probe).await?;
            let said = match name {
                "python" => scene.python(&pod, PYTHON).await?,
                "nodejs" => {
                    scene
                        .kubectl(&["exec", &pod, "--", "node", "-e", NODE])
                        .await?
                        .out
                }
                _ => run(&scene, &pod, &program).await?,
            };
            ensure!(said.contains("runs"), "{name} says {said:?}");
        }
        Ok(())
    });
}

#[test]
fn a_sandbox_may_have_the_runtimes_own_profile_and_level_high_has_the_strictest() {
    scene("seccomp-level", |scene| async move {
        let own = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
        scene
            .ask(
                "plain",
                json!({ "resources": able(), "securityContext": own }),
            )
            .await?;
        let strict =
            json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "strict" } });
        scene
            .ask(
                "strict",
                json!({ "resources": able(), "securityContext": strict }),
            )
            .await?;
        scene
            .ask(
                "high",
                json!({ "resources": able(), "securityLevel": "high" }),
            )
            .await?;
        let probe = build("probe")?;
        let plain = scene.running("plain").await?;
        ensure!(profile_of(&scene.pod(&plain)?).is_none());
        let seen: Value = serde_json::from_str(&run(&scene, &plain, &probe).await?)?;
        ensure!(
            seen["ptrace"] == 3,
            "the runtime's own profile allows ptrace: {seen}"
        );
        for name in ["strict", "high"] {
            let pod = scene.running(name).await?;
            ensure!(profile_of(&scene.pod(&pod)?) == Some("strict"), "{name}");
            ensure!(scene.python(&pod, PYTHON).await?.contains("runs"), "{name}");
            // At level high gVisor answers the calls, and holds itself to a filter of its own.
            if name == "strict" {
                refuses_everything(&scene, &pod, &probe).await?;
            }
        }
        let named =
            json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "python" } });
        scene
            .all_refused(vec![(
                "softer",
                json!({ "securityLevel": "high", "securityContext": named }),
                "InvalidSecurityContext",
            )])
            .await
    });
}

/// A ConfigMap of the system namespace with one profile; it goes with the scene's end.
async fn bring(scene: &Scene, name: &str, json: &str) -> Result<Api<ConfigMap>> {
    let namespace = &scene.environment.installation.namespace;
    let maps: Api<ConfigMap> = Api::namespaced(scene.client().clone(), namespace);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { SECCOMP_LABEL: "true" } },
        "data": { format!("{name}.json"): json },
    });
    let params = PatchParams::apply("e2e").force();
    maps.patch(name, &params, &Patch::Apply(&map)).await?;
    Ok(maps)
}

#[test]
fn a_users_profile_is_installed_on_every_node_before_it_can_be_named() {
    scene("seccomp-user", |scene| async move {
        let name = scene.namespace.clone();
        let named = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": name } });
        let fields = json!({ "resources": able(), "securityContext": named });
        scene.ask("waits", fields).await?;
        scene.refused("waits", "SeccompProfileUnknown").await?;
        let maps = bring(&scene, &name, "{}").await?;
        let result = user_profile(&scene, &name).await;
        maps.delete(&name, &DeleteParams::default()).await?;
        result
    });
}

async fn user_profile(scene: &Scene, name: &str) -> Result<()> {
    let says = |wanted: &'static str| {
        scene.sandboxes.expect(&scene.namespace, "waits", move |o| {
            o.is_some_and(|o| {
                let conditions = o
                    .data
                    .pointer("/status/conditions")
                    .and_then(Value::as_array);
                conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c["message"].as_str().is_some_and(|m| m.contains(wanted)))
            })
        })
    };
    says("is refused")
        .within(PATIENCE)
        .await
        .context("the refusal is not told to whoever names it")?;
    // The project's own for python, without one call that shows which of them holds the pod.
    let python = pilotlight_seccomp::built_in()
        .iter()
        .find(|p| p.name() == "python");
    let arch = pilotlight_seccomp::Arch::native().context("an unknown architecture")?;
    let json = String::from_utf8(python.context("no such profile")?.render(arch))?;
    bring(scene, name, &json.replace("\"getrandom\",", "")).await?;
    let pod = scene.running("waits").await?;
    ensure!(profile_of(&scene.pod(&pod)?) == Some(name));
    let asked = "import os\ntry:\n os.getrandom(1)\nexcept OSError as e:\n print(e.errno)";
    let said = scene.python(&pod, asked).await?;
    ensure!(said.trim() == "1", "getrandom says {said:?}");
    Ok(())
}
