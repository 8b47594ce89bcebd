//! What a SandboxProfile and a RuntimeEnvironment give their sandboxes, and what they refuse them.

use anyhow::{Context, ensure};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::Api;
use pilotlight_bench::objects::{self, text};
use pilotlight_cluster::GVISOR_RUNTIME_CLASS;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::inside::{READ_ONLY, able, looks, writes_at_most};
use pilotlight_e2e::scene::scene;
use serde_json::{Value, json};

#[test]
fn a_profile_supplies_what_its_sandbox_does_not_say() {
    scene("profile", |scene| async move {
        scene.restricted().await?;
        let reference = |name: &str| json!({ "name": name });
        let inherits = json!({ "resources": null, "profileRef": reference("python") });
        scene.ask("inherits", inherits).await?;
        scene.refused("inherits", "ProfileNotFound").await?;
        scene
            .profile("python", json!({
                "securityLevel": "standard",
                "resourceDefaults": { "cpu": "120m", "memory": "56Mi", "ephemeralStorage": "96Mi" },
                "filesystemConfig": { "readOnlyPaths": ["/opt"], "writablePaths": ["/var/cache"] },
            }))
            .await?;
        let insists = json!({ "cpu": "130m", "memory": "64Mi", "ephemeralStorage": "32Mi" });
        scene
            .ask(
                "insists",
                json!({
                    "resources": insists, "profileRef": reference("python"),
                    "filesystem": { "writablePaths": ["/scratch"] },
                }),
            )
            .await?;
        looks(
            &scene,
            "inherits",
            json!({ "cpu": 120, "memory": 56, "write": {
                "/tmp": 0, "/workspace": 0, "/var/cache": 0, "/opt": READ_ONLY,
            }}),
        )
        .await?;
        looks(
            &scene,
            "insists",
            json!({ "cpu": 130, "memory": 64, "write": {
                "/tmp": READ_ONLY, "/scratch": 0, "/var/cache": 0, "/opt": READ_ONLY,
            }}),
        )
        .await?;
        for (name, size, paths) in [
            ("inherits", "96Mi", ["/tmp", "/var/cache"]),
            ("insists", "32Mi", ["/scratch", "/var/cache"]),
        ] {
            let pod = scene.running(name).await?;
            writes_at_most(&scene.pod(&pod)?, size, &paths)?;
        }
        Ok(())
    });
}

#[test]
fn what_a_profile_cannot_mean_is_refused_to_its_users_and_told_on_the_profile() {
    scene("bad-profile", |scene| async move {
        let rule =
            |rule: Value| json!({ "networkPolicies": [{ "type": "egress", "rules": [rule] }] });
        let cases = [
            (
                "language",
                json!({ "language": "nodejs" }),
                "ProfileInvalid",
            ),
            (
                "packages",
                json!({ "preInstalledPackages": ["numpy"] }),
                "ProfileInvalid",
            ),
            (
                "seccomp",
                json!({ "seccompProfile": "nobodys" }),
                "SeccompProfileUnknown",
            ),
            (
                "rules",
                rule(
                    json!({ "domain": "not..a.name", "ports": [{ "port": 443, "protocol": "TCP" }] }),
                ),
                "ProfileInvalid",
            ),
            (
                "cidr",
                rule(json!({ "cidr": "everything" })),
                "ProfileInvalid",
            ),
            (
                "port",
                rule(json!({ "domain": "a", "ports": [{ "port": 0 }] })),
                "ProfileInvalid",
            ),
            (
                "cpu",
                json!({ "resourceDefaults": { "cpu": "much" } }),
                "ProfileInvalid",
            ),
            (
                "climbs",
                json!({ "filesystemConfig": { "writablePaths": ["/a/../b"] } }),
                "ProfileInvalid",
            ),
            (
                "covered",
                json!({ "filesystemConfig": { "readOnlyPaths": ["/workspace/kept"] } }),
                "InvalidFilesystem",
            ),
        ];
        for (name, fields, _) in &cases {
            scene.profile(name, fields.clone()).await?;
        }
        let users = cases
            .iter()
            .map(|(name, _, reason)| (*name, json!({ "profileRef": { "name": name } }), *reason))
            .collect();
        scene.all_refused(users).await?;
        // Nothing kept read-only could be, with a root that is not.
        scene
            .profile(
                "kept",
                json!({ "filesystemConfig": { "readOnlyPaths": ["/opt"] } }),
            )
            .await?;
        let open =
            json!({ "profileRef": { "name": "kept" }, "filesystem": { "readOnlyRoot": false } });
        scene
            .all_refused(vec![("open", open, "InvalidFilesystem")])
            .await?;
        let events = scene.watch(&objects::events()).await?;
        events
            .expect_all(|all| {
                all.values().any(|e| {
                    text(e, "/involvedObject/kind") == Some("SandboxProfile")
                        && text(e, "/involvedObject/name") == Some("climbs")
                        && text(e, "/reason") == Some("ProfileInvalid")
                })
            })
            .within(PATIENCE)
            .await
            .context("no Event on the profile")?;
        ensure!(
            scene.pods.objects().is_empty(),
            "a refused sandbox has a pod"
        );
        Ok(())
    });
}

/// Prints the log of the kernel that the sandbox sees.
const KERNEL_LOG: &str = "import ctypes
text = ctypes.create_string_buffer(65536)
size = ctypes.CDLL(None).klogctl(3, text, len(text))
print(text.raw[:max(size, 0)].decode())";

#[test]
fn level_high_runs_in_a_kernel_of_its_own_whoever_asks_for_it() {
    scene("high", |scene| async move {
        let classes: Api<RuntimeClass> = Api::all(scene.client().clone());
        if classes.get_opt(GVISOR_RUNTIME_CLASS).await?.is_none() {
            eprintln!("left out: there is no RuntimeClass {GVISOR_RUNTIME_CLASS}");
            return Ok(());
        }
        scene.restricted().await?;
        let resources = json!({ "cpu": "500m", "memory": "256Mi" });
        scene
            .keep("pool", json!({ "minSize": 1, "maxSize": 1, "securityLevel": "high", "resources": resources }))
            .await?;
        scene
            .profile("strict", json!({ "securityLevel": "high" }))
            .await?;
        scene.ready(1).await?;
        scene
            .ask(
                "asks",
                json!({ "securityLevel": "high", "resources": resources }),
            )
            .await?;
        let warm = scene.running("asks").await?;
        ensure!(scene.cold_pods().is_empty(), "the warm pod was not taken");
        // It says standard, and the profile is stricter.
        scene
            .ask("is-told", json!({
                "securityLevel": "standard", "resources": resources, "profileRef": { "name": "strict" },
            }))
            .await?;
        let told = scene.running("is-told").await?;
        for pod in [&warm, &told] {
            let class = scene.pod(pod)?;
            ensure!(text(&class, "/spec/runtimeClassName") == Some(GVISOR_RUNTIME_CLASS));
            let log = scene.python(pod, KERNEL_LOG).await?;
            ensure!(log.contains("Starting gVisor"), "the kernel says {log:?}");
        }
        let features = json!({ "securityFeatures": ["seccomp"] });
        let unfit = scene.runtime("unfit", features).await?;
        let custom = json!({ "runAsUser": 2000 });
        scene
            .all_refused(vec![
                ("unfit", json!({ "runtime": unfit, "securityLevel": "high" }), "RuntimeIncompatible"),
                ("softer", json!({
                    "securityLevel": "custom", "securityContext": custom, "profileRef": { "name": "strict" },
                }), "InvalidSecurityContext"),
            ])
            .await
    });
}

#[test]
fn a_runtime_is_found_by_its_names_and_decides_what_its_sandboxes_get_at_least() {
    scene("runtime-says", |scene| async move {
        scene.restricted().await?;
        let needs = json!({
            "minCpu": "100m", "minMemory": "50Mi", "recommendedCpu": "0.13", "recommendedMemory": "80Mi",
        });
        let wanting = scene
            .runtime("wanting", json!({ "resourceRequirements": needs }))
            .await?;
        let version = scene.namespace.clone();
        let fields = json!({ "version": version, "preInstalledPackages": ["numpy"] });
        scene.runtime("by-dash", fields).await?;
        let broken = scene
            .runtime("broken", json!({ "image": "not an image" }))
            .await?;
        let crossed = json!({ "minMemory": "1Gi", "recommendedMemory": "1Mi" });
        let crossed = scene
            .runtime("crossed", json!({ "resourceRequirements": crossed }))
            .await?;
        scene
            .profile("numeric", json!({ "preInstalledPackages": ["numpy"] }))
            .await?;

        scene
            .ask(
                "recommended",
                json!({ "runtime": wanting, "resources": null }),
            )
            .await?;
        let by_name = format!("{version}-by:dash");
        let carries =
            json!({ "runtime": by_name, "resources": able(), "profileRef": { "name": "numeric" } });
        scene.ask("by-name", carries).await?;
        let by_version = json!({ "runtime": format!("python:{version}"), "resources": able() });
        scene.ask("by-version", by_version).await?;
        let asks = |cpu: &str, memory: &str| json!({ "runtime": wanting, "resources": { "cpu": cpu, "memory": memory } });
        scene
            .all_refused(vec![
                ("little-cpu", asks("90m", "64Mi"), "InsufficientResources"),
                (
                    "little-memory",
                    asks("200m", "40Mi"),
                    "InsufficientResources",
                ),
                ("no-image", json!({ "runtime": broken }), "RuntimeInvalid"),
                (
                    "no-sense",
                    json!({ "runtime": crossed, "resources": null }),
                    "RuntimeInvalid",
                ),
            ])
            .await?;
        looks(&scene, "recommended", json!({ "cpu": 130, "memory": 80 })).await?;
        for name in ["by-name", "by-version"] {
            scene.running(name).await?;
        }
        Ok(())
    });
}
