//! A Sandbox gets a warm pod: quickly, with two writes, and exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use pilotlight_bench::connect::connect;
use pilotlight_bench::objects;
use pilotlight_bench::requests::Writes;
use pilotlight_e2e::environment::RUNTIME;
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::condition;

#[test]
fn a_sandbox_lands_on_a_warm_pod_and_python_answers() {
    scene("warm", |scene| async move {
        scene.filled_pool(2, 0).await?;
        let warm: BTreeSet<String> = scene.warm_pods.objects().into_keys().map(|k| k.1).collect();
        let start = Instant::now();
        scene.create("one").await?;
        let pod = scene.running("one").await?;
        println!("create to Running: {} ms", start.elapsed().as_millis());
        ensure!(
            warm.contains(&pod),
            "{pod} is none of the warm pods {warm:?}"
        );
        let sandboxes = scene.sandboxes.objects();
        let sandbox = &sandboxes[&(scene.namespace.clone(), "one".to_owned())];
        for type_ in ["Accepted", "Assigned", "Prepared", "Ready"] {
            let condition = condition(sandbox, type_);
            ensure!(
                condition.is_some_and(|c| c["status"] == "True"),
                "{type_} is {condition:?}"
            );
        }
        let answer = scene.python(&pod, "print(6 * 7)").await?;
        ensure!(answer.trim() == "42", "python says {answer:?}");
        scene.one_to_one().await
    });
}

#[test]
fn an_assignment_costs_two_writes() {
    const N: u32 = 10;
    scene("writes", |scene| async move {
        // No refill: the pool is full, and stays so with its assigned pods counted.
        scene.filled_pool(N, N).await?;
        // What the filling brings in its wake is written by then; only silence could tell, and silence is a time.
        let quiet = Duration::from_secs(5);
        tokio::time::sleep(quiet).await;
        let before = Writes::read(scene.client()).await?;
        for i in 0..N {
            let name = format!("w-{i}");
            scene.create(&name).await?;
            scene.running(&name).await?;
        }
        tokio::time::sleep(quiet).await;
        let writes = Writes::read(scene.client()).await?.since(&before);
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
    scene("hundred", |scene| async move {
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
                    let sandbox = objects::sandbox(&format!("c{c}-{i}"), RUNTIME);
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
