//! An object that the programs cannot read hurts nobody else, after a new start either.

use anyhow::Result;
use pilotlight_bench::connect::{Account, connect_as};
use pilotlight_bench::objects;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, alone};
use serde_json::json;

/// Valid for the API server, and beyond what the programs' own type of a time can hold.
#[test]
fn an_object_that_does_not_parse_does_not_stop_the_watches() {
    alone("unreadable", |scene| async move {
        scene.filled_pool(4, 0).await?;
        let spec = json!({ "spec": {
            "poolRef": { "name": "pool" }, "lastHeartbeat": "9999-12-31T23:59:59Z",
        }});
        let bad = objects::object(&objects::warm_pods(), "unreadable", spec);
        // Nobody else may make one.
        let installation = &scene.environment.installation;
        let scheduler = connect_as(installation, Account::Scheduler).await?;
        let api = objects::api(&scheduler, &scene.namespace, &objects::warm_pods());
        objects::create(&api, &bad).await?;
        let served = beside_unreadable(&scene).await;
        // Nothing but its creator can make sense of it, and so nothing else removes it.
        objects::delete(&scene.warm_pod_api(), "unreadable").await?;
        served
    });
}

async fn beside_unreadable(scene: &Scene) -> Result<()> {
    scene.others_are_served("after-bad-event").await?;
    // Lists contain it too, not only events.
    if let Some(faults) = Faults::of(scene.environment) {
        let leader = faults.leader().await?;
        faults.kill([faults.scheduler(&leader)?])?;
        scene.create("after-bad-list").await?;
        scene.running("after-bad-list").await?;
        faults.healed().await?;
    }
    scene.others_are_served("after-all").await
}
