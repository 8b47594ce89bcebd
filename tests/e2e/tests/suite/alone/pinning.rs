//! CPUs of their own: who runs where, as the kernel says it of every thread on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pilotlight_bench::objects::{self, text};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, alone};
use serde_json::{Value, json};

/// How long every thread of a node is looked at.
const SAMPLED: Duration = Duration::from_secs(10);
/// Pods that come and go meanwhile, and how many at a time.
const CHURN: u32 = 50;
const AT_A_TIME: u32 = 10;
/// A new container has left the CPUs of others by then: the agent looks every second, and twice where one came in between.
const LEFT_WITHIN: Duration = Duration::from_secs(3);

/// Prints the CPUs that python may run on.
const AFFINITY: &str = "import json, os; print(json.dumps(sorted(os.sched_getaffinity(0))))";
/// Leaves a process behind that never stops; with nothing open that `kubectl exec` would wait for.
const SPIN: &str = "import subprocess as s, sys; s.Popen([sys.executable, '-c', 'while True: pass'], stdin=s.DEVNULL, stdout=s.DEVNULL, stderr=s.DEVNULL, start_new_session=True)";

/// Limits of one whole CPU.
fn whole() -> Value {
    json!({ "cpu": "1.0", "memory": "48Mi" })
}

/// The same, to be the sandbox's own.
fn own() -> Value {
    json!({ "resources": { "cpu": "1.0", "memory": "48Mi", "cpuPinning": true } })
}

/// Reads a list of CPUs such as `0-3,8`.
fn cpus(text: &str) -> Result<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        set.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(set)
}

/// The CPUs that a Sandbox's status says are its own.
fn status_cpus(sandbox: &DynamicObject) -> Result<BTreeSet<u32>> {
    cpus(text(sandbox, "/status/cpus").context("the status says no CPUs")?)
}

/// The CPUs that python in a pod may run on.
async fn affinity(scene: &Scene, pod: &str) -> Result<BTreeSet<u32>> {
    Ok(serde_json::from_value(
        scene.python_json(pod, AFFINITY).await?,
    )?)
}

/// A thread: its process, itself, and when it started, since numbers come back.
type Thread = (i32, i32, String);

/// CPUs of every thread of every pod on this machine, by UID of the pod.
fn threads() -> BTreeMap<String, BTreeMap<Thread, BTreeSet<u32>>> {
    let mut found: BTreeMap<String, BTreeMap<Thread, BTreeSet<u32>>> = BTreeMap::new();
    let numbers = |folder: &str| -> Vec<i32> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    for pid in numbers("/proc") {
        // Processes end while they are looked at.
        let Some(pod) = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .ok()
            .and_then(|text| pod_of(&text))
        else {
            continue;
        };
        for thread in numbers(&format!("/proc/{pid}/task")) {
            let read =
                |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}")).ok();
            let (Some(status), Some(stat)) = (read("status"), read("stat")) else {
                continue;
            };
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            // After the name, which can hold anything, the twentieth field is when it started.
            let started = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(19));
            if let (Some(Ok(allowed)), Some(started)) = (allowed.map(cpus), started) {
                found
                    .entry(pod.clone())
                    .or_default()
                    .insert((pid, thread, started.to_owned()), allowed);
            }
        }
    }
    found
}

/// UID of the pod that a process is of, out of its `/proc/<pid>/cgroup`, under either driver.
fn pod_of(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find(|line| line.contains(":cpuset:") || line.starts_with("0::"))?;
    line.split('/')
        .find_map(|part| match part.strip_suffix(".slice") {
            None => part.strip_prefix("pod").map(str::to_owned),
            Some(part) => Some(part.rsplit_once("-pod")?.1.replace('_', "-")),
        })
}

/// UIDs of all pods of a node, whoever made them.
async fn pods_of_node(scene: &Scene, node: &str) -> Result<BTreeSet<String>> {
    let pods: Api<DynamicObject> = Api::all_with(scene.client().clone(), &objects::pods());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let all = pods.list(&on_node).await?.items;
    Ok(all.into_iter().filter_map(|pod| pod.metadata.uid).collect())
}

/// What was seen of a node's threads.
#[derive(Default)]
struct Seen {
    samples: u32,
    threads: usize,
    own_threads: usize,
    /// The longest that a thread of another pod was seen on the CPUs.
    longest: Duration,
}

/// Looks at every thread of the node of a pod until it is told to stop. Errors where the pod's own are anywhere else, or where
/// another pod has fewer CPUs than the floor.
async fn sample(
    scene: &Scene,
    pod: &DynamicObject,
    cpus: &BTreeSet<u32>,
    stop: &AtomicBool,
) -> Result<Seen> {
    let own = pod.metadata.uid.clone().context("a pod has a UID")?;
    let node = text(pod, "/spec/nodeName").context("a running pod has a node")?;
    let mut seen = Seen::default();
    let mut foreign: BTreeMap<Thread, Instant> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let here = pods_of_node(scene, node).await?;
        let all = tokio::task::spawn_blocking(threads).await?;
        seen.samples += 1;
        let mut still = BTreeSet::new();
        for (pod, threads) in all.iter().filter(|(pod, _)| here.contains(*pod)) {
            for (thread, allowed) in threads {
                seen.threads += 1;
                if *pod == own {
                    seen.own_threads += 1;
                    ensure!(
                        allowed == cpus,
                        "{thread:?} of the sandbox may run on {allowed:?}, not {cpus:?}"
                    );
                } else if !allowed.is_disjoint(cpus) {
                    let since = *foreign.entry(thread.clone()).or_insert_with(Instant::now);
                    seen.longest = seen.longest.max(since.elapsed());
                    ensure!(
                        since.elapsed() < LEFT_WITHIN,
                        "{thread:?} of pod {pod} stays on {allowed:?}"
                    );
                    still.insert(thread.clone());
                } else {
                    ensure!(!allowed.is_empty(), "{thread:?} of pod {pod} has no CPU");
                }
            }
        }
        foreign.retain(|thread, _| still.contains(thread));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(seen)
}

#[test]
fn a_pinned_sandbox_is_alone_on_its_cpus_and_the_others_keep_the_floor() {
    alone("pinned", |scene| async move {
        if Faults::of(scene.environment).is_none() {
            return Ok(());
        }
        scene
            .keep("whole", json!({ "minSize": 1, "resources": whole() }))
            .await?;
        scene.ready(1).await?;
        scene.ask("pinned", own()).await?;
        let pod = scene.running("pinned").await?;
        scene.edit_pool("whole", json!({ "minSize": 0 })).await?;
        let sandbox = scene.seen("pinned")?;
        let cpus = status_cpus(&sandbox)?;
        ensure!(
            cpus.len() == 1,
            "asked for one CPU, and the status says {cpus:?}"
        );
        let shown: Value = serde_json::from_str(
            &scene
                .kubectl(&["get", "sb", "pinned", "-o", "json"])
                .await?
                .out,
        )?;
        ensure!(
            shown["status"]["cpus"] == sandbox.data["status"]["cpus"],
            "kubectl shows {}",
            shown["status"]
        );
        ensure!(
            affinity(&scene, &pod).await? == cpus,
            "python runs elsewhere"
        );
        scene.python(&pod, SPIN).await?;

        let stop = Arc::new(AtomicBool::new(false));
        let sampler = {
            let (scene, stop, pod, cpus) = (
                Arc::clone(&scene),
                Arc::clone(&stop),
                scene.pod(&pod)?,
                cpus.clone(),
            );
            tokio::spawn(async move { sample(&scene, &pod, &cpus, &stop).await })
        };
        let start = Instant::now();
        let mut made = 0;
        while start.elapsed() < SAMPLED || made < CHURN {
            let prefix = format!("churn-{made}");
            scene.burst(&prefix, AT_A_TIME).await?;
            made += AT_A_TIME;
            if made == AT_A_TIME {
                let other = scene.running("churn-0-0").await?;
                let allowed = affinity(&scene, &other).await?;
                let node =
                    |pod: &str| Some(text(&scene.pod(pod).ok()?, "/spec/nodeName")?.to_owned());
                ensure!(!allowed.is_empty(), "a sandbox without any CPU");
                ensure!(
                    node(&other) != node(&pod) || allowed.is_disjoint(&cpus),
                    "{other} runs on {allowed:?}"
                );
            }
            for n in 0..AT_A_TIME {
                scene
                    .sandbox_api()
                    .delete(&format!("{prefix}-{n}"), &DeleteParams::default())
                    .await?;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let seen = sampler.await??;
        println!(
            "pinning: {} samples of {} threads under churn of {made} pods; a new one left the CPUs after {} ms at most",
            seen.samples,
            seen.threads,
            seen.longest.as_millis()
        );
        ensure!(
            seen.own_threads > 0 && seen.threads > seen.own_threads,
            "too little was seen"
        );
        ensure!(
            affinity(&scene, &pod).await? == cpus,
            "python runs elsewhere now"
        );
        Ok(())
    });
}

#[test]
fn two_pinned_sandboxes_never_share_and_the_one_too_many_waits_with_its_reason() {
    alone("pinned-all", |scene| async move {
        // Elsewhere it takes who knows how many to use all CPUs up.
        if Faults::of(scene.environment).is_none() {
            return Ok(());
        }
        // Two nodes of two CPUs, of which one each stays shared.
        for name in ["one", "two"] {
            scene.ask(name, own()).await?;
            scene.running(name).await?;
        }
        let mut taken = BTreeSet::new();
        for name in ["one", "two"] {
            let sandbox = scene.seen(name)?;
            let node = text(&sandbox, "/status/nodeName")
                .unwrap_or_default()
                .to_owned();
            for cpu in status_cpus(&sandbox)? {
                ensure!(
                    taken.insert((node.clone(), cpu)),
                    "CPU {cpu} of {node} is given twice"
                );
            }
        }
        scene.ask("three", own()).await?;
        scene.waits_for("three", "WaitingForCpus").await?;
        // It holds up nobody who asks for no CPUs.
        scene.ask("plain", json!({})).await?;
        scene.running("plain").await?;
        scene
            .sandbox_api()
            .delete("one", &DeleteParams::default())
            .await?;
        scene.running("three").await?;
        let pod = scene.running("three").await?;
        ensure!(
            affinity(&scene, &pod).await? == status_cpus(&scene.seen("three")?)?,
            "python runs elsewhere"
        );
        Ok(())
    });
}

#[test]
fn more_cpus_than_any_node_has_are_refused_with_the_most_that_can_be_had() {
    alone("pinned-many", |scene| async move {
        let many =
            json!({ "resources": { "cpu": "5000.0", "memory": "48Mi", "cpuPinning": true } });
        scene.ask("many", many).await?;
        scene.refused("many", "CpuPinningUnavailable").await?;
        let said = scene.kubectl(&["describe", "sb", "many"]).await?.out;
        ensure!(said.contains("the most that any node can give"), "{said}");
        Ok(())
    });
}

#[test]
fn pins_outlive_a_killed_agent_and_a_container_that_starts_anew() {
    alone("pinned-faults", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        scene.ask("pinned", own()).await?;
        let pod = scene.running("pinned").await?;
        let cpus = status_cpus(&scene.seen("pinned")?)?;
        let uid = scene.pod(&pod)?.metadata.uid.context("a pod has a UID")?;
        let agents: Vec<i32> = faults.agents()?.iter().map(|f| f.pid).collect();
        faults.kill(agents)?;
        ensure!(
            affinity(&scene, &pod).await? == cpus,
            "moved while the agent is away"
        );
        faults.healed().await?;
        ensure!(
            affinity(&scene, &pod).await? == cpus,
            "moved by the agent that came back"
        );
        ensure!(
            status_cpus(&scene.seen("pinned")?)? == cpus,
            "the status says others"
        );

        // Every process of the pod but the pause container's, which is the oldest.
        let mut own: Vec<i32> = threads()
            .remove(&uid)
            .unwrap_or_default()
            .into_keys()
            .map(|t| t.0)
            .collect();
        own.sort_unstable();
        own.dedup();
        for pid in own.iter().skip(1) {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).with_context(|| format!("kill {pid}"))?;
        }
        scene
            .pods
            .expect(&scene.namespace, &pod, |pod| {
                pod.is_some_and(|pod| {
                    pod.data.pointer("/status/containerStatuses/0/restartCount") == Some(&json!(1))
                        && pod.data.pointer("/status/containerStatuses/0/ready")
                            == Some(&json!(true))
                })
            })
            .within(PATIENCE)
            .await
            .context("the container did not start anew")?;
        ensure!(
            affinity(&scene, &pod).await? == cpus,
            "the new container runs elsewhere"
        );
        Ok(())
    });
}
