//! A Sandbox that no warm pod fits gets a pod of its own.

use anyhow::{Context, ensure};
use pilotlight_bench::objects::text;
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::condition;
use serde_json::json;

#[test]
fn a_sandbox_that_differs_from_the_pool_in_what_a_pod_fixes_gets_a_pod_of_its_own() {
    scene("differs", |scene| async move {
        scene.filled_pool(1, 1).await?;
        scene
            .ask(
                "other",
                json!({
                    "securityLevel": "custom", "securityContext": { "runAsUser": 2000, "runAsGroup": 3000 },
                    "filesystem": { "writablePaths": ["/scratch"], "readOnlyRoot": true },
                }),
            )
            .await?;
        let pod = scene.running("other").await?;
        let program = "import os
print(os.getuid(), os.getgid())
open('/scratch/a', 'w').write('x')
for path in ['/tmp/a', '/etc/a']:
    try:
        open(path, 'w')
        print('wrote', path)
    except OSError as e:
        print(path, e.errno)";
        let said = scene.python(&pod, program).await?;
        ensure!(
            said == "2000 3000\n/tmp/a 30\n/etc/a 30\n",
            "the sandbox says {said:?}"
        );
        let sandboxes = scene.sandboxes.objects();
        let sandbox = &sandboxes[&(scene.namespace.clone(), "other".to_owned())];
        let assigned = condition(sandbox, "Assigned").context("no Assigned condition")?;
        ensure!(assigned["reason"] == "PodCreated", "{assigned}");
        ensure!(text(sandbox, "/status/nodeName").is_some());
        scene.one_to_one().await
    });
}
