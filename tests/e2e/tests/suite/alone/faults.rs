//! Faults in the middle of a burst: nothing is assigned twice, nothing is lost, nothing stays stuck.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotlight_bench::objects::is_running;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, crowd};

/// Sandboxes of each of the two waves of a burst.
const WAVE: u32 = 8;
/// Pods that are warm before it; some are to be left for what is created after the fault.
const WARM: u32 = 22;

/// A burst with a fault in its middle: the first wave has begun to run, most of it is under way, and the second
/// is created as the fault strikes. How long after the fault the last of both ran, and when it struck.
async fn burst_with<F, R>(scene: &Arc<Scene>, fault: F) -> Result<(Duration, Instant)>
where
    F: FnOnce() -> R,
    R: Future<Output = Result<()>>,
{
    scene.filled_pool(WARM, 0).await?;
    let wave = |prefix: &'static str| {
        let scene = Arc::clone(scene);
        tokio::spawn(async move { scene.burst(prefix, WAVE).await })
    };
    let begun = scene
        .sandboxes
        .expect_all(|all| all.values().any(is_running));
    let first = wave("first");
    begun.within(PATIENCE).await?;
    let struck = Instant::now();
    let second = wave("second");
    fault().await?;
    first.await??;
    second.await??;
    let recovered = struck.elapsed();
    scene.check()?;
    scene.one_to_one().await?;
    Ok((recovered, struck))
}

/// New sandboxes are served after it all.
async fn serves(scene: &Scene, prefix: &str) -> Result<()> {
    scene.burst(prefix, 4).await?;
    scene.check()?;
    scene.one_to_one().await
}

#[test]
fn the_leader_is_killed() {
    crowd("leader-killed", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        let leases = faults.leases().await?;
        let leader = faults.leader().await?;
        let pid = faults.scheduler(&leader)?;
        let (recovered, struck) = burst_with(&scene, || async { faults.kill([pid]) }).await?;
        println!(
            "recovery: leader killed: all of the burst Running after {} ms",
            recovered.as_millis()
        );
        serves(&scene, "after").await?;
        println!(
            "recovery: leader killed: next assignments done after {} ms",
            struck.elapsed().as_millis()
        );
        let now = faults.leader().await?;
        if now != leader {
            let took = faults.next_leader(&leases, &leader, struck).await?;
            println!(
                "recovery: leader killed: {now} leads after {} ms at most",
                took.as_millis()
            );
        }
        faults.healed().await
    });
}

#[test]
fn the_leader_is_paused_past_its_lease_and_goes_on() {
    crowd("leader-paused", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        let leases = faults.leases().await?;
        let leader = faults.leader().await?;
        let pid = faults.scheduler(&leader)?;
        let mut halted = None;
        let (recovered, struck) = burst_with(&scene, || {
            let result = faults.halt(vec![pid]).map(|h| halted = Some(h));
            async { result }
        })
        .await?;
        println!(
            "recovery: leader paused: all of the burst Running after {} ms",
            recovered.as_millis()
        );
        let took = faults.next_leader(&leases, &leader, struck).await?;
        println!(
            "recovery: leader paused: another leads after {} ms",
            took.as_millis()
        );
        // It wakes up in the middle of the next burst, believing what it believed.
        let next = {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.burst("next", 8).await })
        };
        drop(halted);
        next.await??;
        serves(&scene, "after").await?;
        faults.healed().await
    });
}

#[test]
fn both_agents_are_killed() {
    crowd("agents-killed", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        let pids: Vec<i32> = faults.agents()?.iter().map(|f| f.pid).collect();
        let (recovered, _) = burst_with(&scene, || async { faults.kill(pids) }).await?;
        println!(
            "recovery: agents killed: all of the burst Running after {} ms",
            recovered.as_millis()
        );
        serves(&scene, "after").await?;
        faults.healed().await
    });
}

#[test]
fn the_api_server_is_restarted() {
    crowd("apiserver", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        let (recovered, _) = burst_with(&scene, || async {
            faults.stop("apiserver").await?;
            faults.start("apiserver").await
        })
        .await?;
        println!(
            "recovery: API server restarted: all of the burst Running after {} ms",
            recovered.as_millis()
        );
        serves(&scene, "after").await?;
        faults.healed().await
    });
}

#[test]
fn a_kubelet_is_stopped() {
    crowd("kubelet", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        let struck = burst_with(&scene, || faults.stop("node-1/kubelet")).await;
        // Before anything else: a cluster without a kubelet helps no other test.
        let (recovered, _) = match struck {
            Ok(struck) => {
                println!(
                    "recovery: kubelet stopped: all of the burst Running after {} ms",
                    struck.0.as_millis()
                );
                let served = serves(&scene, "meanwhile").await;
                faults.start("node-1/kubelet").await?;
                served?;
                struck
            }
            Err(error) => {
                faults.start("node-1/kubelet").await?;
                return Err(error);
            }
        };
        ensure!(recovered < PATIENCE, "it took {recovered:?}");
        faults
            .healed()
            .await
            .context("the node did not come back")?;
        serves(&scene, "after").await
    });
}
