//! From an installation to an answer out of a sandbox: the objects a user writes, the waits, and the time each step took.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use pilotlight_common::kinds::{Condition, Sandbox, SandboxPhase, SandboxSpec, WarmPod, WarmPool};
use pilotlight_common::names::CONTAINER;

use crate::progress::say;
use crate::{Installation, Source, run};

/// Namespace of the demo's objects: where a user tries things.
const NAMESPACE: &str = "default";
/// Name of the RuntimeEnvironment and of the WarmPool.
const NAME: &str = "python";
/// Pods the demo keeps warm; three show that one can be taken and the others stay.
const WARM: i64 = 3;
/// Label of the demo's sandboxes, by which the next run removes them.
const LABEL: &str = "pilotlight-demo";
/// How long the pool may take to fill: pods start in seconds once their image is there.
const POOL_LIMIT: Duration = Duration::from_mins(3);
/// How long one assignment may take, a pod that starts cold included.
const SANDBOX_LIMIT: Duration = Duration::from_mins(1);
/// What runs in the sandbox; its answer shows language, user and machine.
const PROGRAM: &str = "import os, platform; print(f'python {platform.python_version()} answers as uid {os.getuid()} in {platform.node()}')";

/// What the demo measured, in the order in which it happened; times in milliseconds since the create was sent.
struct Timeline {
    steps: Vec<(&'static str, Option<f64>)>,
}

/// Runs the demo and prints its timeline on standard output.
pub async fn run(installation: &Installation) -> Result<()> {
    let client = client(installation).await?;
    say("saying which image sandboxes run, and that three of them are to be kept warm");
    installation.apply(&objects(&installation.python_image))?;
    let sandboxes: Api<Sandbox> = Api::namespaced(client.clone(), NAMESPACE);
    sandboxes
        .delete_collection(
            &DeleteParams::default(),
            &ListParams::default().labels(LABEL),
        )
        .await
        .context("cannot delete the sandboxes of an earlier demo")?;
    wait_for_pool(Api::namespaced(client.clone(), NAMESPACE)).await?;

    let (sandbox, pod, timeline) =
        take_one(installation, &sandboxes, Api::namespaced(client, NAMESPACE)).await?;
    println!();
    for line in timeline.lines() {
        println!("{line}");
    }
    println!("{}", further(installation, &sandbox, &pod));
    Ok(())
}

async fn client(installation: &Installation) -> Result<Client> {
    // An error says that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = match installation.source {
        // A list of files, perhaps.
        Source::Given => Kubeconfig::from_env()?.context("KUBECONFIG names no file")?,
        Source::Kind | Source::Local => Kubeconfig::read_from(&installation.kubeconfig)?,
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn objects(image: &str) -> String {
    format!(
        "apiVersion: llmsafespace.dev/v1
kind: RuntimeEnvironment
metadata:
  name: {NAME}
spec:
  language: python
  image: {image}
  command: [sleep, infinity]
---
apiVersion: llmsafespace.dev/v1
kind: WarmPool
metadata:
  name: {NAME}
  namespace: {NAMESPACE}
spec:
  runtime: {NAME}
  minSize: {WARM}
"
    )
}

/// Waits until the pool holds its minimum, and shows every change on the way.
async fn wait_for_pool(pools: Api<WarmPool>) -> Result<()> {
    let filled = async {
        let mut changes = std::pin::pin!(kube::runtime::watcher::watch_object(pools, NAME));
        let mut told = String::new();
        while let Some(pool) = changes.next().await {
            // The watch itself tries again after an error.
            let Ok(Some(pool)) = pool else { continue };
            let status = pool.status.unwrap_or_default();
            let available = status.available_pods.unwrap_or(0);
            let mut now = format!(
                "warm pool {NAME}: {available} of {WARM} available, {} starting",
                status.pending_pods.unwrap_or(0)
            );
            if let Some(problem) = problem(status.conditions.as_deref()) {
                now = format!("{now} ({problem})");
            }
            if now != told {
                say(&now);
                told = now;
            }
            if available >= WARM {
                return Ok(());
            }
        }
        bail!("the watch of the pool ended")
    };
    tokio::time::timeout(POOL_LIMIT, filled)
        .await
        .context("the warm pool did not fill; see `kubectl describe warmpool python` and `kubectl get pods,warmpods`")?
}

/// What the Ready condition complains about.
fn problem(conditions: Option<&[Condition]>) -> Option<String> {
    let ready = conditions?
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    match ready.status {
        pilotlight_common::kinds::ConditionStatus::True => None,
        _ => ready.message.clone().or(ready.reason.clone()),
    }
}

async fn take_one(
    installation: &Installation,
    sandboxes: &Api<Sandbox>,
    warm_pods: Api<WarmPod>,
) -> Result<(String, String, Timeline)> {
    let name = format!("demo-{}", Timestamp::now().as_second());
    let mut sandbox = Sandbox::new(
        &name,
        SandboxSpec {
            runtime: NAME.into(),
            timeout: Some(3600),
            ..SandboxSpec::default()
        },
    );
    sandbox.labels_mut().insert(LABEL.into(), String::new());

    // The watch is open before the object exists, so that it measures nothing but the assignment.
    let version = sandboxes
        .list(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = sandboxes.watch(&params, &version).await?.boxed();

    say(format_args!("creating Sandbox {name}"));
    let created = Timestamp::now();
    let clock = Instant::now();
    sandboxes
        .create(&PostParams::default(), &sandbox)
        .await
        .context("the Sandbox was not taken")?;
    let accepted = clock.elapsed();
    let running = tokio::time::timeout(SANDBOX_LIMIT, until_running(&mut events))
        .await
        .with_context(|| format!("the sandbox does not run; see `kubectl describe sb {name}`"))??;
    let seen = clock.elapsed();

    let status = running.status.clone().unwrap_or_default();
    let pod = status
        .pod_name
        .context("the sandbox runs, and its status names no pod")?;
    let answer = run::read(exec(installation, &pod).args(["--", "python3", "-c", PROGRAM]))?;
    let answered = clock.elapsed();
    say(answer.trim());
    let assigned = warm_pods
        .get_opt(&pod)
        .await?
        .and_then(|warm_pod| warm_pod.status?.assigned_at);

    let millis = |duration: Duration| Some(duration.as_secs_f64() * 1e3);
    // Clocks of other machines: near ours on one host, and only that near elsewhere.
    let after_create = |time: Timestamp| time.duration_since(created).as_secs_f64() * 1e3;
    let timeline = Timeline {
        steps: vec![
            ("create sent", Some(0.0)),
            ("create answered", millis(accepted)),
            (
                "assigned to a warm pod (assignedAt)",
                assigned.map(|time| after_create(time.0)),
            ),
            (
                "armed on its node (startTime)",
                running.started_at().map(after_create),
            ),
            ("Running seen by watch", millis(seen)),
            ("python answered over kubectl exec", millis(answered)),
        ],
    };
    Ok((name, pod, timeline))
}

async fn until_running(
    events: &mut (impl Stream<Item = kube::Result<WatchEvent<Sandbox>>> + Unpin),
) -> Result<Sandbox> {
    while let Some(event) = events.try_next().await? {
        let sandbox = match event {
            WatchEvent::Added(sandbox) | WatchEvent::Modified(sandbox) => sandbox,
            WatchEvent::Deleted(_) => bail!("somebody deleted the sandbox"),
            WatchEvent::Error(error) => bail!("the watch ended: {error}"),
            WatchEvent::Bookmark(_) => continue,
        };
        let conditions = sandbox
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        match sandbox.phase() {
            Some(SandboxPhase::Running) => return Ok(sandbox),
            Some(phase) if phase.is_final() => {
                bail!(
                    "the sandbox is {phase:?}: {}",
                    problem(conditions).unwrap_or_default()
                )
            }
            _ => {
                if let Some(problem) = problem(conditions) {
                    say(problem);
                }
            }
        }
    }
    bail!("the watch of the sandbox ended")
}

fn exec(installation: &Installation, pod: &str) -> Command {
    let mut command = installation.kubectl();
    command.args(["exec", "-n", NAMESPACE, pod, "-c", CONTAINER]);
    command
}

impl Timeline {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["Timeline, in milliseconds since the create was sent:".to_owned()];
        lines.extend(self.steps.iter().map(|(step, at)| match at {
            Some(at) => format!("  {at:9.1}  {step}"),
            None => format!("  {:>9}  {step}", "-"),
        }));
        lines
    }
}

fn further(installation: &Installation, sandbox: &str, pod: &str) -> String {
    let kubeconfig = installation.kubeconfig.display();
    let down = match installation.source {
        Source::Given => "`make down` uninstalls Pilotlight.",
        Source::Kind | Source::Local => "`make down` removes the cluster.",
    };
    let kubectl = installation
        .kubectl()
        .get_program()
        .to_string_lossy()
        .into_owned();
    format!(
        "
Go on by hand:
  export KUBECONFIG={kubeconfig}
  alias kubectl={kubectl}
  kubectl get sandboxes,warmpools,warmpods
  kubectl describe sb {sandbox}
  kubectl exec -it {pod} -c {CONTAINER} -- python3
  kubectl delete sb {sandbox}        # its pod goes, the pool refills
{down}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_without_a_time_is_shown_as_such() {
        let timeline = Timeline {
            steps: vec![("a", Some(12.34)), ("b", None)],
        };
        assert_eq!(timeline.lines()[1..], ["       12.3  a", "          -  b"]);
    }

    #[test]
    fn the_objects_name_the_image() {
        let yaml = objects("some/image:1");
        assert!(yaml.contains("image: some/image:1\n"));
        assert_eq!(yaml.matches("kind: ").count(), 2);
    }
}
