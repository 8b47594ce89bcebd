//! What assignments cost, and that many at once are each done exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::ensure;
use futures::future::try_join_all;
use pilotlight_bench::connect::connect;
use pilotlight_bench::requests::Writes;
use pilotlight_e2e::scene::{alone, crowd};
use serde_json::json;

#[test]
fn an_assignment_costs_two_writes() {
    const N: u32 = 10;
    alone("writes", |scene| async move {
        // No refill: the pool is full, and stays so with its assigned pods counted.
        scene.filled_pool(N, N).await?;
        let before = Writes::when_quiet(scene.client()).await?;
        for i in 0..N {
            let name = format!("w-{i}");
            scene.create(&name).await?;
            scene.running(&name).await?;
        }
        let writes = Writes::when_quiet(scene.client()).await?.since(&before);
        println!("writes of {N} assignments: {:?}", writes.0);
        let count = |what: &str| writes.0.get(what).copied().unwrap_or(0);
        ensure!(count("PATCH warmpods/status") == u64::from(N), "{writes:?}");
        ensure!(
            count("PATCH sandboxes/status") == u64::from(N),
            "{writes:?}"
        );
        // One Event each may follow when all is done, and a heartbeat of a minute's interval may fall in.
        ensure!(count("POST events") <= u64::from(N), "{writes:?}");
        let aside = ["POST sandboxes", "POST events", "PATCH warmpods"];
        let others = writes.total_without(&aside) - u64::from(2 * N);
        ensure!(
            others == 0,
            "{others} writes beyond two an assignment: {writes:?}"
        );
        Ok(())
    });
}

#[test]
fn a_hundred_at_once_over_twenty_clients_while_the_pool_shrinks() {
    const CLIENTS: u32 = 20;
    const EACH: u32 = 5;
    crowd("hundred", |scene| async move {
        scene.filled_pool(60, 0).await?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(connect(&scene.environment.installation).await?);
        }
        let created = Arc::new(AtomicU32::new(0));
        let start = Instant::now();
        let creating = clients.into_iter().enumerate().map(|(c, client)| {
            let (scene, created) = (Arc::clone(&scene), Arc::clone(&created));
            async move {
                for i in 0..EACH {
                    let sandbox = scene.sandbox(&format!("c{c}-{i}"), json!({}));
                    scene.create_with(&client, &sandbox).await?;
                    // Midway, in the middle of the assignments, there are to be fewer.
                    if created.fetch_add(1, Ordering::Relaxed) == CLIENTS * EACH / 3 {
                        scene.pool(20, 0).await?;
                    }
                }
                anyhow::Ok(())
            }
        });
        try_join_all(creating).await?;
        println!("created after {} ms", start.elapsed().as_millis());
        let mut pods = BTreeSet::new();
        for c in 0..CLIENTS {
            for i in 0..EACH {
                pods.insert(scene.running(&format!("c{c}-{i}")).await?);
            }
        }
        println!("all Running after {} ms", start.elapsed().as_millis());
        ensure!(pods.len() == 100, "{} pods for 100 sandboxes", pods.len());
        scene.check()?;
        scene.one_to_one().await?;
        let ledger = scene.ledger();
        let cold = scene.cold_pods().len();
        println!(
            "{} WarmPods and {cold} pods of their own were given to {} sandboxes",
            ledger.given(),
            ledger.published()
        );
        ensure!(
            ledger.given() + cold == 100 && ledger.published() == 100,
            "{ledger:?}"
        );
        Ok(())
    });
}
