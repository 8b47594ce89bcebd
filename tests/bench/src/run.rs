//! The order of the measurements: floor, assignments, floor again.
//!
//! The floor is taken before and after, so that a machine that gets slower or faster on the way shows, and with
//! the scheduler scaled to nothing, so that nobody but the measurement writes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use pilotlight_demo::{Installation, target_dir};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::agents::{self, Agents};
use crate::args::Args;
use crate::connect::{Account, connect, connect_as};
use crate::footprint::{self, Cordon, Footprint};
use crate::hub::{Hub, Objects};
use crate::load::{FLOOR_NODE, Field, SharedField, Writers, burst, names, serial, timetable};
use crate::objects::{self, text};
use crate::outside::{Meaning, Outside};
use crate::process::{self, Reading};
use crate::queries::{self, Netns, Queries};
use crate::report::Report;
use crate::requests::Writes;
use crate::stats::{Samples, arrivals, count, rounded};

const NAMESPACE: &str = "pilotlight-bench";
const FLOOR_NAMESPACE: &str = "pilotlight-bench-floor";
/// Name of the RuntimeEnvironment and of the pool.
const NAME: &str = "pilotlight-bench";
const DEPLOYMENT: &str = "pilotlight-scheduler";
/// Pods beyond the largest block, so that the last of a block does not depend on one slow pod.
const SPARE: u32 = 5;
/// Largest block of the serial mode: its pods are not refilled before it is through.
const BLOCK: u32 = 50;
/// Assignments before the first that counts: connections, caches and certificates are warm after them.
const WARM_UP: u32 = 3;
/// What follows an assignment, events above all, is written within this time; only then writes are counted.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the scheduler may take to go or to come.
const SCALE_LIMIT: Duration = Duration::from_mins(2);
/// CPU limit of the pods that fill one node: 110 of them fit on one of two cores.
const LITTLE_CPU: &str = "10m";
/// After a node was filled, until nothing that follows from that is done any more: the agents' slowest round is a minute.
const CALM: Duration = Duration::from_secs(70);

/// Sandboxes that ask for names: with ten and one beside them on one node, 5,000 queries a second are more than it is to hold.
const DNS_SANDBOXES: u32 = 24;

struct Bench {
    client: Client,
    system: String,
    scheduler_pods: Hub,
    replicas: i32,
    field: SharedField,
    floor: SharedField,
    writers: Arc<Writers>,
    args: Args,
}

/// Measures, prints, and writes the file. What was created is removed, whatever happens.
pub async fn run(installation: &Installation, args: &Args) -> Result<()> {
    let client = connect(installation).await?;
    let system = installation.namespace.clone();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &system);
    let deployment = deployments.get(DEPLOYMENT).await?;
    let bench = Bench {
        scheduler_pods: Hub::open(objects::api(&client, &system, &objects::pods())).await?,
        replicas: deployment.spec.and_then(|s| s.replicas).unwrap_or(2).max(1),
        field: Arc::new(Field::open(&client, NAMESPACE).await?),
        floor: Arc::new(Field::open(&client, FLOOR_NAMESPACE).await?),
        writers: Arc::new(Writers {
            scheduler: connect_as(installation, Account::Scheduler).await?,
            agent: connect_as(installation, Account::Agent { node: FLOOR_NODE }).await?,
        }),
        args: args.clone(),
        client,
        system,
    };
    let measured = bench.measure(installation).await;
    let cleaned = bench.clean_up().await;
    let report = measured?;
    cleaned?;
    println!();
    for line in report.lines() {
        println!("{line}");
    }
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| target_dir().join("bench.json"));
    let json = serde_json::to_string_pretty(&report)?;
    std::fs::write(&output, json + "\n")
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("numbers in {}", output.display());
    Ok(())
}

/// Rules as a sandbox that installs packages has them.
fn rules() -> Value {
    json!({ "egress": [
        { "domain": "pypi.org" },
        { "domain": "*.pythonhosted.org", "ports": [{ "port": 443, "protocol": "TCP" }] },
        { "domain": "packages.example.org" },
        { "domain": "github.com" },
        { "domain": "*.githubusercontent.com" },
    ] })
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// Scheduler and agents.
fn readings() -> Result<(Reading, Reading)> {
    Ok((
        process::read("pilotlight-scheduler")?,
        process::read("pilotlight-node-agent")?,
    ))
}

impl Bench {
    async fn measure(&self, installation: &Installation) -> Result<Report> {
        let Args { burst, bursts, .. } = self.args;
        let size = (burst.max(BLOCK.min(self.args.serial)) + SPARE).max(WARM_UP + SPARE);
        say(&format!("filling a pool of {size} warm pods"));
        let runtimes = Api::all_with(self.client.clone(), &objects::runtimes());
        let runtime = objects::runtime(NAME, &installation.python_image);
        objects::apply(&runtimes, &runtime).await?;
        self.pool(size, size).await?;
        self.field.filled(to_usize(size)).await?;

        say("floor: the scheduler is away");
        self.scale(0).await?;
        let mut floor = self
            .floor_serial("before", self.args.serial.div_ceil(2))
            .await?;
        let mut floor_burst = Samples::default();
        for round in 0..bursts {
            floor_burst.add(self.floor_burst(&format!("burst-{round}"), burst).await?);
        }
        self.scale(self.replicas).await?;

        let (before_scheduler, before_agent) = readings()?;
        let warm_up = self.assignments("warm-up", WARM_UP).await;
        anyhow::ensure!(warm_up.failed == 0, "no sandbox gets to Running; see above");
        self.refill(size).await?;

        say("serial assignments");
        let mut assigned = Samples::default();
        let mut writes = Writes::default();
        let mut left = self.args.serial;
        while left > 0 {
            let block = left.min(BLOCK);
            let before = Writes::read(&self.client).await?;
            assigned.add(self.assignments(&format!("serial-{left}"), block).await);
            tokio::time::sleep(SETTLE).await;
            let added = Writes::read(&self.client).await?.since(&before);
            for (what, n) in added.0 {
                *writes.0.entry(what).or_insert(0) += n;
            }
            left -= block;
            self.refill(size).await?;
        }

        let mut at_once = Samples::default();
        let mut with_rules = Samples::default();
        // In turns, so that both see the same machine.
        for round in 0..bursts {
            say(&format!("burst of {burst}, {} of {bursts}", round + 1));
            let plain = self.burst_of(&format!("burst-{round}"), burst, None).await;
            at_once.add(plain);
            self.refill(size).await?;
            say("the same with network rules");
            let prefix = format!("rules-{round}");
            with_rules.add(self.burst_of(&prefix, burst, Some(rules())).await);
            self.refill(size).await?;
        }
        let queries = self.queries(installation, size).await?;

        let by_rate = self.rate(size).await?;
        let (after_scheduler, after_agent) = readings()?;

        say("floor once more");
        self.field.clear().await?;
        self.scale(0).await?;
        let again = self
            .floor_serial("after", self.args.serial.div_ceil(2))
            .await?;
        self.scale(self.replicas).await?;
        let footprint = self.footprint().await?;
        let agents = self.agents(&installation.python_image).await?;
        say(&format!(
            "floor p50 before {:.1} ms, after {:.1} ms",
            floor.summary(None).p50_ms,
            again.summary(None).p50_ms
        ));
        floor.add(again);

        let floor = floor.summary(None);
        let floor_burst = floor_burst.summary(None).p50_ms;
        let mut burst = at_once.summary(Some(floor_burst));
        burst.floor_p50_ms = Some(floor_burst);
        let n = assigned.took.len();
        let events = writes.0.get("POST events").copied().unwrap_or(0);
        // The creates are this program's, heartbeats come once a minute whatever happens, events are told apart.
        let total = writes.total_without(&["POST sandboxes", "PATCH warmpods", "POST events"]);
        let per_assignment = |writes: u64| -> Result<f64> {
            Ok(rounded(count(usize::try_from(writes)?) / count(n.max(1))))
        };
        Ok(Report {
            serial: assigned.summary(Some(floor.p50_ms)),
            rate: by_rate.summary(Some(floor.p50_ms)),
            floor,
            burst_with_rules: with_rules.summary(Some(burst.p50_ms)),
            burst,
            queries,
            agents,
            writes_per_assignment: per_assignment(total)?,
            events_per_assignment: per_assignment(events)?,
            writes: writes.0,
            writes_n: n,
            scheduler: process::used(&before_scheduler, &after_scheduler),
            agent: process::used(&before_agent, &after_agent),
            footprint,
        })
    }

    async fn burst_of(&self, prefix: &str, n: u32, access: Option<Value>) -> Samples {
        let field = Arc::clone(&self.field);
        let access = Arc::new(access);
        burst(&names(prefix, n), move |name| {
            let (field, access) = (Arc::clone(&field), Arc::clone(&access));
            async move { field.assign(&name, NAME, Option::as_ref(&access)).await }
        })
        .await
    }

    /// The DNS proxy of one node, asked by its sandboxes.
    async fn queries(&self, installation: &Installation, size: u32) -> Result<Option<Queries>> {
        let Args {
            dns_queries,
            dns_seconds,
            ..
        } = self.args;
        let Some(cluster) = installation.local().filter(|_| dns_queries > 0) else {
            say("the DNS proxy is not measured");
            return Ok(None);
        };
        let outside = Outside::serve(cluster.plan()).await?;
        let name = outside.name("bench", Meaning::addresses([outside.addresses()[0]]));
        say("queries through the DNS proxy");
        let access = json!({ "egress": [{ "domain": name }] });
        let asking = names("queries", DNS_SANDBOXES.min(size));
        for sandbox in &asking {
            self.field.assign(sandbox, NAME, Some(&access)).await?;
        }
        let mut pods = Vec::new();
        for sandbox in self.field.sandboxes.objects().values() {
            let (node, pod) = (
                text(sandbox, "/status/nodeName"),
                text(sandbox, "/status/podName"),
            );
            let own = pod.map(|pod| (self.field.namespace.clone(), pod.to_owned()));
            let found = own.and_then(|key| self.field.pods.objects().get(&key).cloned());
            let uid = found.and_then(|pod| pod.metadata.uid);
            pods.extend(node.map(str::to_owned).zip(uid));
        }
        let mut namespaces = Vec::new();
        for uid in queries::on_one_node(pods) {
            namespaces.extend(Netns::of_pod(&uid)?);
        }
        let kubelet = process::find("kubelet")?.first().map(|found| found.pid);
        let node = Netns::of_process(kubelet.context("no kubelet is on this machine")?)?;
        let measured = tokio::task::spawn_blocking(move || {
            queries::measure(&node, &namespaces, &name, dns_queries, dns_seconds)
        });
        let report = measured.await??;
        self.refill(size).await?;
        Ok(Some(report))
    }

    async fn pool(&self, min: u32, max: u32) -> Result<()> {
        let pools = objects::api(&self.client, NAMESPACE, &objects::warm_pools());
        objects::apply(
            &pools,
            &objects::warm_pool(NAME, NAME, min, max, objects::CPU),
        )
        .await
    }

    /// One node is filled, and its agent measured while nothing happens.
    async fn footprint(&self) -> Result<Option<Footprint>> {
        let Args {
            footprint_pods,
            footprint_seconds,
            ..
        } = self.args;
        if footprint_pods == 0 {
            return Ok(None);
        }
        // The pods of what went before are to be gone, so that what is counted is what is there.
        self.pool(0, 0).await?;
        self.field.emptied().await?;
        let full = footprint::choose(&self.client, &self.system, footprint_pods).await?;
        let Some(full) = full else {
            say("no agent is on this machine: its footprint is left out");
            return Ok(None);
        };
        say(&format!("{} pods on {}", full.pods, full.node));
        let cordon = Cordon::around(&self.client, &full.node).await?;
        let filled = async {
            let pools = objects::api(&self.client, NAMESPACE, &objects::warm_pools());
            let pool = objects::warm_pool(NAME, NAME, full.pods, full.pods, LITTLE_CPU);
            objects::apply(&pools, &pool).await?;
            self.field.filled(to_usize(full.pods)).await
        };
        let filled = filled.await;
        cordon.lift().await?;
        filled?;
        tokio::time::sleep(CALM).await;
        let length = Duration::from_secs(u64::from(footprint_seconds));
        footprint::measure(&full, length).await
    }

    /// The other API, with nothing else on the nodes.
    async fn agents(&self, image: &str) -> Result<Option<Agents>> {
        if self.args.agents == 0 {
            return Ok(None);
        }
        say(&format!(
            "{} Sandboxes of agents.x-k8s.io at once",
            self.args.agents
        ));
        self.pool(0, 0).await?;
        self.field.emptied().await?;
        agents::measure(&self.client, &self.system, image, self.args.agents)
            .await
            .map(Some)
    }

    /// Ends all sandboxes and waits until the pool is full again.
    async fn refill(&self, size: u32) -> Result<()> {
        self.field.clear().await?;
        self.field.filled(to_usize(size)).await
    }

    async fn assignments(&self, prefix: &str, n: u32) -> Samples {
        let field = &self.field;
        serial(&names(prefix, n), |name| async move {
            field.assign(&name, NAME, None).await
        })
        .await
    }

    async fn floor_serial(&self, prefix: &str, n: u32) -> Result<Samples> {
        let names = names(prefix, n);
        self.floor.floor_warm_pods(&self.writers, &names).await?;
        let (field, writers) = (&self.floor, &self.writers);
        let samples = serial(
            &names,
            |name| async move { field.floor(writers, &name).await },
        )
        .await;
        self.clear_floor().await?;
        Ok(samples)
    }

    async fn floor_burst(&self, prefix: &str, n: u32) -> Result<Samples> {
        let names = names(prefix, n);
        self.floor.floor_warm_pods(&self.writers, &names).await?;
        let (field, writers) = (Arc::clone(&self.floor), Arc::clone(&self.writers));
        let samples = burst(&names, move |name| {
            let (field, writers) = (Arc::clone(&field), Arc::clone(&writers));
            async move { field.floor(&writers, &name).await }
        })
        .await;
        self.clear_floor().await?;
        Ok(samples)
    }

    async fn clear_floor(&self) -> Result<()> {
        self.floor.clear().await?;
        self.floor.clear_warm_pods().await
    }

    /// Arrivals by chance; each sandbox ends as soon as it ran, and the pool refills all the while.
    async fn rate(&self, size: u32) -> Result<Samples> {
        let Args {
            rate,
            rate_seconds,
            seed,
            ..
        } = self.args;
        say(&format!(
            "{rate} arrivals a second for {rate_seconds} s, with refill"
        ));
        self.pool(size, 0).await?;
        let length = Duration::from_secs(u64::from(rate_seconds));
        let offsets = arrivals(&mut StdRng::seed_from_u64(seed), rate, length);
        let field = Arc::clone(&self.field);
        let samples = timetable(
            &names("rate", u32::try_from(offsets.len())?),
            &offsets,
            move |name| {
                let field = Arc::clone(&field);
                async move {
                    let took = field.assign(&name, NAME, None).await;
                    field.delete(&name).await?;
                    took
                }
            },
        )
        .await;
        self.pool(size, size).await?;
        Ok(samples)
    }

    /// Sets the number of schedulers and waits until there are as many, ready.
    async fn scale(&self, replicas: i32) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.system);
        let patch = json!({ "spec": { "replicas": replicas } });
        deployments
            .patch(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let wanted = usize::try_from(replicas)?;
        self.scheduler_pods
            .expect_all(move |all| {
                let pods = all.values().filter(|pod| {
                    let labels = pod.metadata.labels.as_ref();
                    labels.and_then(|l| l.get("app.kubernetes.io/component"))
                        == Some(&"scheduler".to_owned())
                });
                let ready: Vec<bool> = pods.map(objects::is_pod_ready).collect();
                ready.len() == wanted && ready.iter().all(|r| *r)
            })
            .within(SCALE_LIMIT)
            .await
            .with_context(|| format!("the scheduler did not get to {replicas} replicas"))?;
        Ok(())
    }

    async fn clean_up(&self) -> Result<()> {
        say("removing what was made");
        let scaled = self.scale(self.replicas).await;
        // While the scheduler is there to see it: it takes the idle pods away with their pool.
        let pools = objects::api(&self.client, NAMESPACE, &objects::warm_pools());
        objects::delete(&pools, NAME).await?;
        self.field.clear().await?;
        let empty = self.field.warm_pods.expect_all(Objects::is_empty);
        let emptied = empty.within(SCALE_LIMIT).await;
        objects::delete_namespace(&self.client, NAMESPACE).await?;
        objects::delete_namespace(&self.client, FLOOR_NAMESPACE).await?;
        let runtimes = Api::all_with(self.client.clone(), &objects::runtimes());
        objects::delete(&runtimes, NAME).await?;
        scaled?;
        emptied
            .map(drop)
            .context("WarmPods of the deleted pool were left; their namespace is being deleted")
    }
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
