//! What a Sandbox says, field by field, as it is seen from inside the pod; or refused with its reason. All pods here pass
//! Pod Security `restricted`.

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use pilotlight_bench::objects::{self, text};
use pilotlight_common::names::SUBDOMAIN;
use pilotlight_common::quantity::Bytes;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::inside::{DENIED, MISSING, READ_ONLY, able, looks, writes_at_most};
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::stage::refused_for;
use serde_json::{Value, json};

#[test]
fn a_sandbox_finds_its_limits_user_and_paths_as_it_asked_for_them() {
    scene("inside", |scene| async move {
        scene.restricted().await?;
        let limits = json!({ "cpu": "150m", "memory": "72Mi", "ephemeralStorage": "64Mi" });
        let asked = [
            ("limits", json!({ "resources": limits })),
            // Nothing but a runtime.
            ("plain", json!({ "resources": null, "timeout": null })),
            (
                "open",
                json!({ "resources": able(), "filesystem": {
                    "readOnlyRoot": false, "writablePaths": ["/scratch", "/var/deep/er/"],
                }}),
            ),
            (
                "closed",
                json!({ "resources": able(), "filesystem": { "writablePaths": [] } }),
            ),
            (
                "other",
                json!({
                    "resources": able(), "securityLevel": "custom",
                    "securityContext": { "runAsUser": 2000, "runAsGroup": 3000, "seccompProfile": { "type": "RuntimeDefault" } },
                }),
            ),
        ];
        try_join_all(asked.map(|(name, fields)| scene.ask(name, fields))).await?;

        let writable = json!({ "/tmp": 0, "/workspace": 0, "/scratch": MISSING, "/etc": READ_ONLY, "/opt": READ_ONLY });
        looks(&scene, "limits", json!({
            "cpu": 150, "memory": 72, "user": 1000, "group": 1000, "read-only": true, "write": writable,
        })).await?;
        looks(&scene, "plain", json!({
            "cpu": 500, "memory": 512, "user": 1000, "group": 1000, "read-only": true, "write": writable,
        })).await?;
        looks(
            &scene,
            "open",
            json!({ "cpu": 100, "memory": 48, "read-only": false, "write": {
                "/scratch": 0, "/var/deep/er": 0, "/etc": DENIED,
            }}),
        )
        .await?;
        looks(
            &scene,
            "closed",
            json!({ "read-only": true, "write": {
                "/tmp": READ_ONLY, "/workspace": READ_ONLY, "/etc": READ_ONLY,
            }}),
        )
        .await?;
        looks(
            &scene,
            "other",
            json!({ "user": 2000, "group": 3000, "write": { "/tmp": 0, "/workspace": 0 } }),
        )
        .await?;

        let pod = |name: &str| {
            let sandbox = scene.seen(name)?;
            scene.pod(text(&sandbox, "/status/podName").context("no pod")?)
        };
        writes_at_most(&pod("limits")?, "64Mi", &["/tmp", "/workspace"])?;
        writes_at_most(&pod("plain")?, "1Gi", &["/tmp", "/workspace"])?;
        writes_at_most(&pod("open")?, "1Gi", &["/scratch", "/var/deep/er"])?;
        Ok(())
    });
}

/// Asks for the address of a name until there is one: no watch tells when the DNS server has seen the pod.
fn lookup(name: &str) -> String {
    format!(
        "import socket, time
for _ in range(100):
    try:
        print(socket.gethostbyname('{name}'))
        break
    except OSError:
        time.sleep(0.2)"
    )
}

#[test]
fn the_status_of_a_sandbox_says_where_it_is_and_how_it_is_reached() {
    scene("status", |scene| async move {
        scene
            .keep("pool", json!({ "minSize": 2, "resources": able() }))
            .await?;
        scene.ready(2).await?;
        // One that may know the names of others, which mean addresses that are not public.
        let names = format!("*.{SUBDOMAIN}.{}.svc.cluster.local", scene.namespace);
        let rules = json!([{ "domain": names }, { "cidr": "10.0.0.0/8" }]);
        let policies = json!({ "networkPolicies": [{ "type": "egress", "rules": rules }] });
        scene.profile("knows-others", policies).await?;
        let profile = json!({ "name": "knows-others" });
        let asking = json!({ "resources": able(), "profileRef": profile });
        scene.ask("asking", asking).await?;
        scene.ask("asked", json!({ "resources": able() })).await?;
        for name in ["asked", "asking"] {
            scene.running(name).await?;
        }
        let sandbox = scene.seen("asked")?;
        let said = |path: &str| {
            text(&sandbox, path)
                .map(str::to_owned)
                .with_context(|| format!("no {path}"))
        };
        let pod = said("/status/podName")?;
        ensure!(said("/status/podNamespace")? == scene.namespace);
        let seen = scene.pod(&pod)?;
        ensure!(text(&seen, "/spec/nodeName") == Some(said("/status/nodeName")?.as_str()));
        let (start, created) = (
            said("/status/startTime")?,
            sandbox.metadata.creation_timestamp.clone(),
        );
        let created = created.context("no creation time")?.0;
        let start: MicroTime = serde_json::from_value(start.into())?;
        let waited = start.0.as_second() - created.as_second();
        // The object's own time has whole seconds.
        ensure!(
            (0..30).contains(&waited),
            "Running {waited} s after the creation"
        );

        let endpoint = said("/status/endpoint")?;
        scene
            .pods
            .expect(&scene.namespace, &pod, |p| {
                p.is_some_and(objects::is_pod_ready)
            })
            .within(PATIENCE)
            .await?;
        let address = text(&scene.pod(&pod)?, "/status/podIP")
            .context("no address")?
            .to_owned();
        let from = scene.running("asking").await?;
        let found = scene.python(&from, &lookup(&endpoint)).await?;
        ensure!(
            found.trim() == address,
            "{endpoint} is {found:?}, and the pod {address}"
        );

        // Columns that answer "why is it not running" without a look into the YAML.
        scene
            .ask("waiting", json!({ "runtime": "no-such-runtime" }))
            .await?;
        scene.refused("waiting", "RuntimeNotFound").await?;
        let table = scene.kubectl(&["get", "sb", "-o", "wide"]).await?.out;
        for word in [
            &pod,
            &endpoint,
            "Running",
            "Pending",
            "RuntimeNotFound",
            "no RuntimeEnvironment is named",
        ] {
            ensure!(table.contains(word), "no {word} in\n{table}");
        }

        // Two samples of its node's agent lie ten seconds apart.
        scene
            .sandboxes
            .expect(&scene.namespace, "asked", |o| {
                o.is_some_and(|o| {
                    let uses = |field: &str| {
                        text(o, &format!("/status/resources/{field}")).map(str::to_owned)
                    };
                    uses("cpuUsage").is_some_and(|cpu| cpu.ends_with('m'))
                        && uses("memoryUsage")
                            .is_some_and(|memory| Bytes::parse(&memory).is_ok_and(|m| m.0 > 0))
                })
            })
            .within(PATIENCE)
            .await
            .context("nothing is said of what it uses")?;
        Ok(())
    });
}

#[test]
fn what_a_sandbox_cannot_be_given_is_refused_aloud_field_by_field() {
    scene("refused", |scene| async move {
        let paths = |paths: &[&str]| json!({ "filesystem": { "writablePaths": paths } });
        let user = |level: &str, user: i64, group: i64| json!({ "securityLevel": level, "securityContext": { "runAsUser": user, "runAsGroup": group } });
        let resources = |field: &str, value: Value| {
            let mut resources = able();
            resources[field] = value;
            json!({ "resources": resources })
        };
        let egress = |domain: &str, port: Value| json!({ "networkAccess": { "egress": [{ "domain": domain, "ports": [port] }] } });
        let https = json!({ "port": 443, "protocol": "TCP" });
        let localhost = json!({ "type": "Localhost", "localhostProfile": "profiles/strict.json" });
        let huge = "99999999999999999999Gi";
        scene
            .all_refused(vec![
                ("runtime", json!({ "runtime": "no-such-runtime" }), "RuntimeNotFound"),
                ("cpu", resources("cpu", json!("0m")), "InvalidResources"),
                ("memory", resources("memory", json!(huge)), "InvalidResources"),
                ("ephemeral", resources("ephemeralStorage", json!(huge)), "InvalidResources"),
                ("domain", egress("not..a.name", https.clone()), "InvalidNetworkAccess"),
                ("address", egress("203.0.113.7", https.clone()), "InvalidNetworkAccess"),
                ("any-name", egress("*", https), "InvalidNetworkAccess"),
                ("port", egress("example.org", json!({ "protocol": "TCP" })), "InvalidNetworkAccess"),
                ("dots", paths(&["/a/../b"]), "InvalidFilesystem"),
                ("relative", paths(&["scratch"]), "InvalidFilesystem"),
                ("root", paths(&["/"]), "InvalidFilesystem"),
                ("kernel", paths(&["/proc/sys"]), "InvalidFilesystem"),
                ("nested", paths(&["/a", "/a-b", "/a/b"]), "InvalidFilesystem"),
                ("volume", json!({
                    "storage": { "persistent": true }, "filesystem": { "writablePaths": ["/data/cache"] },
                }), "InvalidFilesystem"),
                ("volume-size", json!({ "storage": { "persistent": true, "volumeSize": huge } }), "InvalidResources"),
                ("root-user", user("custom", 0, 1000), "InvalidSecurityContext"),
                ("root-group", user("custom", 1000, 0), "InvalidSecurityContext"),
                ("no-such-user", user("custom", -1, 1000), "InvalidSecurityContext"),
                ("deviation", user("standard", 2000, 1000), "InvalidSecurityContext"),
                ("seccomp", json!({ "securityContext": { "seccompProfile": localhost } }), "SeccompProfileUnknown"),
                ("profile", json!({ "profileRef": { "name": "no-such-profile" } }), "ProfileNotFound"),
                ("elsewhere", json!({ "profileRef": { "name": "a", "namespace": "default" } }), "ProfileInvalid"),
                ("nameless", json!({ "profileRef": {} }), "ProfileInvalid"),
            ])
            .await?;
        ensure!(
            scene.pods.objects().is_empty(),
            "a refused sandbox has a pod"
        );
        Ok(())
    });
}

#[test]
fn a_namespace_of_pod_security_restricted_takes_every_kind_of_pod() {
    scene("restricted", |scene| async move {
        scene.restricted().await?;
        let image = &scene.environment.installation.python_image;
        let careless = json!({ "spec": { "containers": [{ "name": "a", "image": image }] } });
        let api = objects::api(scene.client(), &scene.namespace, &objects::pods());
        let careless = objects::object(&objects::pods(), "careless", careless);
        let refused = objects::create(&api, &careless).await;
        let error = refused.err().context("Pod Security is not enforced here")?;
        ensure!(format!("{error:#}").contains("PodSecurity"), "{error:#}");

        let script = json!([{ "name": "a", "content": "echo here > /workspace/left" }]);
        scene
            .keep("pool", json!({ "minSize": 1, "maxSize": 1, "resources": able(), "preloadScripts": script }))
            .await?;
        scene.ready(1).await?;
        scene.ask("warm", json!({ "resources": able() })).await?;
        let cold = json!({
            "resources": able(), "securityLevel": "custom", "securityContext": { "runAsUser": 2000, "runAsGroup": 2000 },
            "filesystem": { "readOnlyRoot": false, "writablePaths": ["/scratch"] },
        });
        scene.ask("cold", cold).await?;
        // The local cluster's class makes volumes; others may have none.
        if scene.environment.installation.local().is_some() {
            let storage = json!({ "persistent": true, "volumeSize": "1Mi" });
            scene
                .ask("stored", json!({ "resources": able(), "storage": storage }))
                .await?;
            scene.running("stored").await?;
        }
        let pod = scene.running("warm").await?;
        let left = scene
            .python(&pod, "print(open('/workspace/left').read())")
            .await?;
        ensure!(left.trim() == "here", "the script left {left:?}");
        scene.running("cold").await?;
        scene.one_to_one().await
    });
}

/// A pool is refused as its sandboxes would be, and says so.
#[test]
fn a_pool_that_cannot_be_had_says_why_field_by_field() {
    scene("bad-pools", |scene| async move {
        let other = scene
            .runtime("other", json!({ "packageManager": "apt" }))
            .await?;
        let cases = [
            (
                "runtime",
                json!({ "runtime": "no-such-runtime" }),
                "RuntimeNotFound",
            ),
            (
                "bounds",
                json!({ "minSize": 3, "maxSize": 2 }),
                "InvalidPoolSize",
            ),
            (
                "cpu",
                json!({ "resources": { "cpu": "0m" } }),
                "InvalidResources",
            ),
            (
                "profile",
                json!({ "profileRef": { "name": "no-such-profile" } }),
                "ProfileNotFound",
            ),
            (
                "elsewhere",
                json!({ "profileRef": { "name": "a", "namespace": "default" } }),
                "ProfileInvalid",
            ),
            (
                "option",
                json!({ "preloadPackages": ["--index-url=http://example.org"] }),
                "PreloadInvalid",
            ),
            (
                "manager",
                json!({ "runtime": other, "preloadPackages": ["numpy"] }),
                "PreloadUnavailable",
            ),
            (
                "nameless",
                json!({ "preloadScripts": [{ "content": "true" }] }),
                "PreloadInvalid",
            ),
            (
                "empty",
                json!({ "preloadScripts": [{ "name": "a" }] }),
                "PreloadInvalid",
            ),
        ];
        let pools = scene.watch(&objects::warm_pools()).await?;
        for (name, fields, _) in &cases {
            scene.keep(name, fields.clone()).await?;
        }
        for (name, _, reason) in cases {
            pools
                .expect(&scene.namespace, name, move |o| refused_for(o, reason))
                .within(PATIENCE)
                .await
                .with_context(|| format!("pool {name} does not say {reason}"))?;
        }
        scene.warned("nameless", "PreloadInvalid").await?;
        ensure!(
            scene.warm_pods.objects().is_empty(),
            "a refused pool has WarmPods"
        );
        Ok(())
    });
}
