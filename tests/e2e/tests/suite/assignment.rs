//! A Sandbox gets a warm pod.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::ensure;
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
