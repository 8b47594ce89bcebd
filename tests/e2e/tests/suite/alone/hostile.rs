//! Two hundred objects that nobody wrote with good intentions, all of them within the schema: each ends Running, waiting
//! with a reason, or Failed with a reason, and meanwhile everybody else is served.

mod manifests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use kube::api::DynamicObject;
use pilotlight_bench::objects::{self, text};
use pilotlight_e2e::scene::{Scene, crowd};
use pilotlight_e2e::state::{condition, not_ready_reason};
use serde_json::{Value, json};

use manifests::{COUNT, Kind, manifests, name, runtime_name};

/// Pods that are ready before anything hostile is: of a shape that hostile sandboxes ask for too, and of one that is for
/// the ordinary ones alone.
const WARM: u32 = 4;

/// Limits that no hostile object has.
fn ordinary() -> Value {
    json!({ "resources": { "cpu": "26m", "memory": "48Mi" } })
}

/// How long all of them may take to come to an end, a reason or a pod.
const SETTLED: Duration = Duration::from_mins(2);
/// Between two looks at whether others are served.
const PROBE_EVERY: Duration = Duration::from_secs(4);

/// Creates one; whether the API server took it.
async fn create(scene: &Scene, kind: Kind, number: usize, spec: Value) -> Result<bool> {
    let (namespace, name) = (&scene.namespace, name(number));
    let created = match kind {
        Kind::Runtime => {
            // Its name is the scene's and the number's.
            let name = &runtime_name(namespace, number)[namespace.len() + 1..];
            let runtime = scene.runtime_object(name, spec);
            return refused_or(objects::create(&scene.runtime_api(), &runtime).await);
        }
        Kind::Sandbox => objects::sandboxes(),
        Kind::Pool => objects::warm_pools(),
        Kind::Profile => objects::profiles(),
    };
    let api = objects::api(scene.client(), namespace, &created);
    let object = objects::object(&created, &name, json!({ "spec": spec }));
    refused_or(objects::create(&api, &object).await)
}

/// A refusal by the API server is an answer; anything else is none.
fn refused_or(created: Result<DynamicObject>) -> Result<bool> {
    let Err(error) = created else {
        return Ok(true);
    };
    let refused = error.chain().any(|cause| {
        matches!(cause.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if (400..500).contains(&status.code))
    });
    if refused {
        println!(
            "refused by the API server: {}",
            format!("{error:#}").chars().take(300).collect::<String>()
        );
        return Ok(false);
    }
    Err(error)
}

/// What became of a Sandbox, in words that are counted; none where it hangs in between.
fn outcome(sandbox: &DynamicObject) -> Option<String> {
    let phase = text(sandbox, "/status/phase").unwrap_or_default();
    let reason = not_ready_reason(sandbox).filter(|reason| !reason.is_empty());
    match phase {
        "Running" => Some("Running".to_owned()),
        "Terminated" | "Failed" => Some(format!("{phase}: {}", reason?)),
        // On its way: to its end, or to its pod.
        "Terminating" => None,
        _ => reason
            .filter(|reason| !["PodStarting", "WaitingForWarmPod"].contains(reason))
            .map(|reason| format!("waits: {reason}")),
    }
}

/// A pool says whether it holds its minimum, and why not.
fn pool_outcome(pool: &DynamicObject) -> Option<String> {
    let ready = condition(pool, "Ready")?;
    Some(format!(
        "pool {}: {}",
        ready["status"].as_str()?,
        ready["reason"].as_str()?
    ))
}

/// Waits until there is a pod for the next ordinary sandbox.
async fn one_is_ready(scene: &Scene) -> Result<()> {
    let of_ours = |o: &DynamicObject| text(o, "/spec/poolRef/name") == Some("ordinary");
    scene
        .warm_pods
        .expect_all(move |all| all.values().any(|o| of_ours(o) && objects::is_ready(o)))
        .within(SETTLED)
        .await
        .context("no pod of the ordinary pool is ready")?;
    Ok(())
}

#[test]
fn two_hundred_hostile_objects_each_come_to_an_end_or_a_reason_and_nobody_else_notices() {
    crowd("hostile", |scene| async move {
        let mut pool = ordinary();
        pool["minSize"] = WARM.into();
        scene.keep("ordinary", pool).await?;
        scene.pool(WARM, 0).await?;
        scene.ready(2 * WARM).await?;
        let before = scene.programs().await?;
        let begun = Instant::now();
        let others = async {
            for probe in 0.. {
                let name = format!("ordinary-{probe}");
                scene.is_served(&name, ordinary()).await?;
                objects::delete(&scene.sandbox_api(), &name).await?;
                one_is_ready(&scene).await?;
                // Whether others are served all the time can only be tried from time to time.
                tokio::time::sleep(PROBE_EVERY).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            result = all_settle(&scene) => result?,
            result = others => result?,
        }
        println!(
            "all settled {} ms after the first was made",
            begun.elapsed().as_millis()
        );
        one_is_ready(&scene).await?;
        scene.is_served("after", ordinary()).await?;
        let after = scene.programs().await?;
        ensure!(before == after, "a program ended: {before:?}, {after:?}");
        let seconds = format!("--since={}s", begun.elapsed().as_secs() + 1);
        let namespace = scene.environment.installation.namespace.clone();
        for component in ["scheduler", "node-agent"] {
            let selector = format!("app.kubernetes.io/component={component}");
            let log = scene
                .kubectl(&[
                    "-n",
                    &namespace,
                    "logs",
                    "-l",
                    &selector,
                    "--all-containers",
                    &seconds,
                    "--tail=-1",
                ])
                .await?
                .out;
            let panics: Vec<&str> = log
                .lines()
                .filter(|line| line.contains("panicked"))
                .collect();
            ensure!(panics.is_empty(), "{component}: {panics:?}");
        }
        Ok(())
    });
}

/// Makes all of them and waits until each came to something; prints to what.
async fn all_settle(scene: &Scene) -> Result<()> {
    let image = &scene.environment.installation.python_image;
    let specs = manifests(&scene.namespace, image)?;
    let made: Vec<Result<(Kind, usize, bool)>> = futures::stream::iter(specs)
        .map(|(kind, number, spec)| async move {
            let taken = create(scene, kind, number, spec).await?;
            anyhow::Ok((kind, number, taken))
        })
        .buffer_unordered(8)
        .collect()
        .await;
    let made = made.into_iter().collect::<Result<Vec<_>>>()?;
    let taken: Vec<(Kind, usize)> = made.iter().filter(|m| m.2).map(|m| (m.0, m.1)).collect();
    println!("{} of {COUNT} were taken by the API server", taken.len());
    ensure!(
        COUNT - taken.len() < COUNT / 4,
        "too many were refused by the API server"
    );

    let pools = scene.watch(&objects::warm_pools()).await?;
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let end = Instant::now() + SETTLED;
    for (kind, number) in taken {
        let name = name(number);
        let (hub, of): (_, fn(&DynamicObject) -> Option<String>) = match kind {
            Kind::Sandbox => (&scene.sandboxes, outcome),
            Kind::Pool => (&pools, pool_outcome),
            // These say what they think to those who use them.
            Kind::Profile | Kind::Runtime => continue,
        };
        let left = end.saturating_duration_since(Instant::now());
        let settled = hub.expect(&scene.namespace, &name, move |o| {
            o.is_some_and(|o| of(o).is_some())
        });
        settled
            .within(left)
            .await
            .with_context(|| format!("{kind:?} {name} came to nothing"))?;
        let objects = hub.objects();
        let word = objects.get(&(scene.namespace.clone(), name)).and_then(of);
        *outcomes
            .entry(word.unwrap_or_else(|| "on its way".to_owned()))
            .or_default() += 1;
    }
    for (outcome, count) in &outcomes {
        println!("{count:4} {outcome}");
    }
    Ok(())
}
