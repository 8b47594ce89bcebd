//! The installation that all tests share; made by the first that needs it.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::Client;
use kube::api::{Api, DynamicObject};
use pilotlight_bench::outside::Outside;
use pilotlight_bench::{connect::connect, objects};
use pilotlight_demo::{InstallOptions, Installation, install};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Name of the RuntimeEnvironment that the tests use.
pub const RUNTIME: &str = "e2e-python";

/// Cluster, client and runtime.
pub struct Environment {
    /// The installation.
    pub installation: Installation,
    /// A client with all rights.
    pub client: Client,
    /// Where the tests' futures run.
    pub runtime: Runtime,
}

/// The environment. An installation that failed once fails every test, without another try.
pub fn environment() -> Result<&'static Environment> {
    static SHARED: OnceLock<Result<Environment, String>> = OnceLock::new();
    SHARED
        .get_or_init(|| make().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("no installation to test: {error}"))
}

fn make() -> Result<Environment> {
    let installation = install(&InstallOptions::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let client = runtime.block_on(async {
        let client = connect(&installation).await?;
        let runtimes: Api<DynamicObject> = Api::all_with(client.clone(), &objects::runtimes());
        let python = objects::runtime(RUNTIME, &installation.python_image);
        objects::apply(&runtimes, &python).await?;
        anyhow::Ok(client)
    })?;
    Ok(Environment {
        installation,
        client,
        runtime,
    })
}

impl Environment {
    /// The internet of the tests, from its first use to the end of the suite; none where the cluster is not the local one.
    pub async fn outside(&self) -> Result<Option<&'static Outside>> {
        static SHARED: OnceCell<Option<Outside>> = OnceCell::const_new();
        let outside = SHARED.get_or_try_init(|| async {
            match self.installation.local() {
                Some(cluster) => Outside::serve(cluster.plan()).await.map(Some),
                None => anyhow::Ok(None),
            }
        });
        Ok(outside.await?.as_ref())
    }
}

/// What a command prints; with what it says where it fails.
pub fn output(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().context("cannot run the command")?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long anything that is not about speed may take on a machine whose cores are shared with a whole cluster.
pub const PATIENCE: Duration = Duration::from_mins(2);
