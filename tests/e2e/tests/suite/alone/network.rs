//! Network rules through restarts of those who keep them, and under those who would break them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pilotlight_bench::objects::text;
use pilotlight_bench::outside::{Meaning, Outside};
use pilotlight_bench::process::Found;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::inside::RESTARTABLE;
use pilotlight_e2e::reach::{Tries, egress, ended, refused};
use pilotlight_e2e::scene::{Scene, alone};
use serde_json::{Value, json};

use crate::network::edits::{download, goes_on};
use crate::network::{levels, name_of, sandbox};

/// The processes of one node's agent.
async fn agent(faults: &Faults, node: &str, scene: &Scene) -> Result<Vec<Found>> {
    let pod = pilotlight_e2e::token::agent_pod(scene.environment, node).await?;
    let name = pod.metadata.name.context("a pod has a name")?;
    let all = faults.agents()?.into_iter();
    Ok(all.filter(|found| found.host_name == name).collect())
}

/// Sandboxes that download from the one name they may reach, one of each runtime.
struct Downloads {
    scene: Arc<Scene>,
    name: String,
    other: String,
    /// The addresses of the two names.
    addresses: [Ipv4Addr; 2],
    pods: Vec<String>,
    nodes: BTreeSet<String>,
}

impl Downloads {
    async fn begin(scene: Arc<Scene>, outside: &Outside) -> Result<Self> {
        let [first, second, ..] = outside.addresses();
        let name = name_of(&scene, outside, "download", Meaning::addresses([first]));
        let other = name_of(&scene, outside, "other", Meaning::addresses([second]));
        let access = json!({ "egress": [egress(&name, &[443])] });
        let restartable = scene
            .runtime("restartable", json!({ "command": RESTARTABLE }))
            .await?;
        let (mut pods, mut nodes) = (Vec::new(), BTreeSet::new());
        for (runtime, mut fields) in levels() {
            fields["runtime"] = json!(restartable);
            let pod = sandbox(&scene, runtime, fields, access.clone()).await?;
            download(&scene, &pod, &name).await?;
            let there = scene.pod(&pod)?;
            let node = text(&there, "/spec/nodeName").context("it is on a node")?;
            nodes.insert(node.to_owned());
            pods.push(pod);
        }
        Ok(Self {
            scene,
            name,
            other,
            addresses: [first, second],
            pods,
            nodes,
        })
    }

    async fn go_on(&self) -> Result<()> {
        for pod in &self.pods {
            goes_on(&self.scene, pod).await.context(pod.clone())?;
        }
        Ok(())
    }

    /// Nothing else can be reached, whoever is away.
    async fn are_held(&self) -> Result<()> {
        let [first, second] = self.addresses;
        for pod in &self.pods {
            let ends = Tries::default()
                .tcp("another address", second, 443)
                .tcp("another port", first, 80)
                .from_inside(&self.scene, pod)
                .await?;
            refused(&ends, &["another address", "another port"]).context(pod.clone())?;
        }
        Ok(())
    }

    /// The name is answered again, and no other.
    async fn are_answered(&self) -> Result<()> {
        for pod in &self.pods {
            let ends = Tries::default()
                .greeted("the name", &self.name, 443)
                .name("another name", &self.other)
                .from_inside(&self.scene, pod)
                .await?;
            ended(&ends, &[("the name", "open"), ("another name", "refused")])
                .context(pod.clone())?;
        }
        self.are_held().await
    }

    /// Ends the container of each, and waits until the kubelet has started it again.
    async fn restart_containers(&self) -> Result<()> {
        for pod in &self.pods {
            // What tells it to end may end with it, and say so.
            let _ = self.scene.python(pod, "open('/tmp/stop', 'w')").await;
        }
        for pod in &self.pods {
            let restarted = self.scene.pods.expect(&self.scene.namespace, pod, |pod| {
                let status = |field: &str| {
                    let path = format!("/status/containerStatuses/0/{field}");
                    pod.and_then(|pod| pod.data.pointer(&path))
                };
                status("restartCount").and_then(Value::as_u64) == Some(1)
                    && status("ready").and_then(Value::as_bool) == Some(true)
            });
            restarted
                .within(PATIENCE)
                .await
                .context("the container did not start anew")?;
        }
        Ok(())
    }
}

#[test]
fn a_download_goes_on_through_restarts_and_nothing_opens_meanwhile() {
    alone("network-restart", |scene| async move {
        let (Some(faults), Some(outside)) = (
            Faults::of(scene.environment),
            scene.environment.outside().await?,
        ) else {
            return Ok(());
        };
        faults.healed().await?;
        let downloads = Downloads::begin(Arc::clone(&scene), outside).await?;

        // The agents: all three processes of each, at once.
        let mut pids = Vec::new();
        for node in &downloads.nodes {
            let processes = agent(&faults, node, &scene).await?;
            ensure!(processes.len() == 3, "{processes:?}");
            pids.extend(processes.iter().map(|process| process.pid));
        }
        let struck = Instant::now();
        faults.kill(pids)?;
        downloads.are_held().await?;
        downloads.go_on().await?;
        faults.healed().await?;
        let back = struck.elapsed().as_millis();
        eprintln!("the agents are back after {back} ms");
        downloads.are_answered().await?;
        downloads.go_on().await?;

        for node in &downloads.nodes {
            let containerd = format!("{node}/containerd");
            faults.stop(&containerd).await?;
            faults.start(&containerd).await?;
        }
        faults.healed().await?;
        downloads.go_on().await?;

        // A container that starts anew does so in the network that is there.
        downloads.restart_containers().await?;
        downloads.are_answered().await
    });
}

/// Sends what no resolver would, as fast as it can, for ten seconds: broken messages, giant names, and connections that say half.
const ATTACK: &str = r"
import os, random, socket, struct, time
server = ('10.96.0.10', 53)
rng = random.Random(7)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setblocking(False)
half = []
end = time.time() + 10
sent = refused = opened = 0
while time.time() < end:
    for shape in range(4):
        if shape == 0:
            data = rng.randbytes(rng.randrange(0, 1200))
        elif shape == 1:
            data = struct.pack('>6H', 1, 0x100, 1, 0, 0, 0) + b'\x3f' + b'a' * 63 + b'\xc0\x0c' + b'\0\x01\0\x01'
        elif shape == 2:
            data = struct.pack('>6H', 2, 0x100, 65535, 65535, 65535, 65535) + (b'\x3f' + b'b' * 63) * 15
        else:
            label = b'%016x' % rng.getrandbits(64)
            data = struct.pack('>6H', 3, 0x100, 1, 0, 0, 0) + b'\x10' + label + b'\x04test\0\0\x01\0\x01'
        try:
            udp.sendto(data, server)
            sent += 1
        except OSError:
            refused += 1
    if len(half) < 800:
        s = socket.socket()
        s.setblocking(False)
        try:
            s.connect(server)
        except OSError:
            pass
        half.append(s)
        opened += 1
    else:
        rng.shuffle(half)
        for s in half[:200]:
            try:
                s.send(rng.choice([b'\xff', b'\xff\xff' + b'x' * 100, b'\0']))
            except OSError:
                pass
            s.close()
        del half[:200]
print('\x22%d datagrams, %d of them not taken, %d connections that say half\x22' % (sent, refused, opened))
";

/// Resident memory of a process, in KiB.
fn resident(process: &Found) -> Result<u64> {
    let path: PathBuf = ["/proc", &process.pid.to_string(), "status"]
        .iter()
        .collect();
    let status = std::fs::read_to_string(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a process has memory")?.parse()?)
}

/// What an agent may need more under attack than before it, in KiB: its bounds on queries that wait and on connections, with room for
/// what its allocator keeps.
const GROWTH: u64 = 16 << 10;

#[test]
fn pods_that_attack_the_resolver_leave_the_agent_as_it_was_and_others_served() {
    alone("network-hostile", |scene| async move {
        let (Some(faults), Some(outside)) = (
            Faults::of(scene.environment),
            scene.environment.outside().await?,
        ) else {
            return Ok(());
        };
        faults.healed().await?;
        let [first, ..] = outside.addresses();
        let name = name_of(
            &scene,
            outside,
            "plain",
            Meaning {
                ttl: 0,
                ..Meaning::addresses([first])
            },
        );
        let access = json!({ "egress": [egress(&name, &[443]), egress("*.test.example", &[443])] });
        let able = json!({ "resources": { "cpu": "400m", "memory": "96Mi" } });
        let mut hostile = Vec::new();
        for place in 0..2 {
            hostile.push(
                sandbox(
                    &scene,
                    &format!("hostile-{place}"),
                    able.clone(),
                    access.clone(),
                )
                .await?,
            );
        }
        let good = sandbox(&scene, "good", json!({}), access.clone()).await?;
        let processes = faults.agents()?;
        let before = processes.iter().map(resident).collect::<Result<Vec<_>>>()?;
        let programs = scene.programs().await?;
        let attacks = hostile.iter().map(|pod| scene.python_json(pod, ATTACK));
        let served = async {
            let mut ends = Vec::new();
            for _ in 0..4 {
                let tries = Tries::default().greeted("plain", &name, 443);
                ends.push(tries.from_inside(&scene, &good).await?);
            }
            anyhow::Ok(ends)
        };
        let (said, served) = tokio::join!(futures::future::try_join_all(attacks), served);
        eprintln!("{:?}", said?);
        for ends in served? {
            ended(&ends, &[("plain", "open")])?;
        }
        for (process, before) in processes.iter().zip(before) {
            let after = resident(process)?;
            eprintln!(
                "{:?}: {before} KiB before, {after} KiB after",
                process.arguments.first()
            );
            ensure!(
                after < before + GROWTH,
                "{process:?} grew from {before} to {after} KiB"
            );
        }
        ensure!(scene.programs().await? == programs, "a program ended");
        let ends = Tries::default()
            .greeted("plain", &name, 443)
            .from_inside(&scene, &hostile[0])
            .await?;
        ended(&ends, &[("plain", "open")])
    });
}
