//! Lints and renders the chart with real helm, and holds what comes out against what the installation is meant to be allowed.

#[cfg(test)]
mod rendering;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use pilotlight_demo::{NAMESPACE, workspace};
    use serde_json::{Value, json};

    use crate::rendering::{chart, find, helm, render, rights, template, yaml};

    const EVERY_OPTION: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/values/every-option.yaml"
    );

    fn container<'a>(workload: &'a Value, name: &str) -> &'a Value {
        let containers = workload["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap();
        containers
            .iter()
            .find(|container| container["name"] == name)
            .unwrap()
    }

    #[test]
    fn the_linter_finds_nothing() {
        let chart = chart();
        for values in [&[][..], &["--values", EVERY_OPTION]] {
            let mut arguments = vec!["lint", "--strict", chart.to_str().unwrap()];
            arguments.extend(values);
            let output = helm(&arguments);
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }

    #[test]
    fn every_object_has_a_name_its_namespace_and_the_common_labels() {
        let cluster_wide = [
            "ClusterRole",
            "ClusterRoleBinding",
            "Namespace",
            "CustomResourceDefinition",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
        ];
        for (values, count) in [
            (&[][..], 70),
            (&["--values", EVERY_OPTION], 65),
            (&["--set", "fullnameOverride=other"], 70),
            (&["--set", "agents.enabled=false"], 54),
        ] {
            let objects = render(values);
            assert_eq!(objects.len(), count, "{values:?}");
            for object in &objects {
                let kind = object["kind"].as_str().unwrap();
                let metadata = &object["metadata"];
                assert!(metadata["name"].is_string(), "{object}");
                if !cluster_wide.contains(&kind) {
                    assert_eq!(metadata["namespace"], NAMESPACE, "{kind}");
                }
                if kind != "CustomResourceDefinition" {
                    assert_eq!(
                        metadata["labels"]["app.kubernetes.io/name"], "pilotlight",
                        "{kind}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_option_arrives_where_it_belongs() {
        let objects = render(&["--values", EVERY_OPTION]);
        let scheduler = find(&objects, "Deployment", "pilotlight-scheduler");
        assert_eq!(scheduler["spec"]["replicas"], 3);
        let arguments = container(scheduler, "scheduler")["args"].to_string();
        for argument in [
            "--lease-duration-seconds=15",
            "--refill-per-second=100",
            "--agent-deadline-seconds=10",
            "--preload-timeout-seconds=60",
            "--cluster-domain=example.internal",
            "--high-runtime-class=gvisor",
            "--validation-timeout-seconds=60",
            "--cpu-overcommit=2.5",
            "--memory-overcommit=1.2",
            "--finished-ttl-seconds=86400",
            "--log-format=text",
        ] {
            assert!(arguments.contains(argument), "{argument} in {arguments}");
        }
        assert_eq!(
            container(scheduler, "scheduler")["image"],
            "registry.example/pilotlight/scheduler@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        );
        let agent = find(&objects, "DaemonSet", "pilotlight-node-agent");
        assert_eq!(
            container(agent, "host")["image"],
            "registry.example:5000/node-agent:v1"
        );
        assert!(container(agent, "api")["args"].to_string().contains(
            "--scheduler-host=pilotlight-scheduler-nodes.pilotlight-system.svc.example.internal"
        ));
        let arguments = container(agent, "host")["args"].to_string();
        for argument in ["--reserved-cpus=0-1,8", "--shared-cpu-floor=4"] {
            assert!(arguments.contains(argument), "{argument} in {arguments}");
        }
        let volumes = &agent["spec"]["template"]["spec"]["volumes"];
        assert!(
            volumes
                .to_string()
                .contains("/data/kubelet/cpu_manager_state")
        );
        assert_eq!(agent["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
        assert_eq!(
            find(&objects, "Namespace", NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
            "privileged"
        );
        assert!(
            !objects
                .iter()
                .any(|object| object["kind"] == "PodDisruptionBudget"
                    && object["metadata"]["name"] == "pilotlight-scheduler")
        );
    }

    #[test]
    fn a_value_that_is_unknown_or_out_of_bounds_is_refused() {
        for wrong in [
            "scheduler.replicaz=3",
            "images.scheduler.tagg=x",
            "nodeAgent.privileged=true",
            "cpuPinning.sharedFloor=0",
            "cpuPinning.reservedCPUs=all",
            "unheard=of",
            "overcommit.cpu=0.5",
            "runtimes.validationTimeoutSeconds=1",
            "prePull.images[0].imagee=x",
            "finishedTTLSeconds=-1",
            "scheduler.leaseDurationSeconds=61",
            "scheduler.replicas=0",
            "log.format=xml",
            "images.scheduler.digest=sha256:0",
        ] {
            let output = template(&["--set", wrong]);
            assert!(!output.status.success(), "{wrong} was taken");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains("don't meet the specifications"),
                "{wrong}: {said}"
            );
        }
    }

    #[test]
    fn the_schema_knows_every_value_and_no_others() {
        fn compare(path: &str, values: &Value, schema: &Value) {
            let Some(properties) = schema["properties"].as_object() else {
                return;
            };
            assert_eq!(schema["additionalProperties"], false, "{path}");
            let known: BTreeSet<&String> =
                properties.keys().filter(|key| *key != "global").collect();
            // Kubernetes' own resource requirements may leave out either half.
            if !path.contains(".resources") {
                let given: BTreeSet<&String> = values
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key)
                    .collect();
                assert_eq!(given, known, "{path}");
            }
            for (key, value) in values.as_object().into_iter().flatten() {
                compare(&format!("{path}.{key}"), value, &properties[key]);
            }
        }
        let read = |name: &str| std::fs::read_to_string(chart().join(name)).unwrap();
        let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
        compare("", &yaml(&read("values.yaml")), &schema);
    }

    /// What `restricted` asks for, as far as it concerns the scheduler's fields.
    #[test]
    fn the_scheduler_fits_the_restricted_pod_security_level() {
        for values in [&[][..], &["--values", EVERY_OPTION]] {
            let objects = render(values);
            let pod =
                &find(&objects, "Deployment", "pilotlight-scheduler")["spec"]["template"]["spec"];
            for forbidden in ["hostPID", "hostNetwork", "hostIPC", "volumes"] {
                assert!(pod[forbidden].is_null(), "{forbidden}");
            }
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            for container in pod["containers"].as_array().unwrap() {
                assert_eq!(
                    container["securityContext"],
                    json!({
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    })
                );
            }
        }
    }

    #[test]
    fn images_are_pulled_in_advance_where_any_are_named_and_by_nothing_with_a_right() {
        let name = "pilotlight-pre-pull";
        let is_pre_pull = |object: &Value| object["metadata"]["name"] == name;
        assert!(!render(&[]).iter().any(is_pre_pull));
        let objects = render(&["--values", EVERY_OPTION]);
        let pre_pull = find(&objects, "DaemonSet", name);
        let pod = &pre_pull["spec"]["template"]["spec"];
        assert_eq!(
            pod["nodeSelector"],
            json!({pilotlight_common::names::AGENT_READY_LABEL: pilotlight_common::names::AGENT_READY})
        );
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
        let images = pod["initContainers"].as_array().unwrap();
        let commands: Vec<(&Value, &Value)> = images
            .iter()
            .map(|container| (&container["image"], &container["command"]))
            .collect();
        assert_eq!(
            commands,
            [
                (
                    &json!("registry.example/python:3.13"),
                    &json!(["/bin/sh", "-c", "exit 0"])
                ),
                (
                    &json!("registry.example/distroless:1"),
                    &json!(["/app", "--version"])
                ),
            ]
        );
        assert_eq!(
            container(pre_pull, "pause")["image"],
            "registry.example/pause:1"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        for container in images.iter().chain(pod["containers"].as_array().unwrap()) {
            assert_eq!(
                container["securityContext"],
                json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                })
            );
            assert!(container["resources"]["limits"]["memory"].is_string());
        }
    }

    #[test]
    fn the_deletion_of_a_runtime_in_use_is_warned_of_and_never_blocked() {
        let objects = render(&[]);
        let name = "pilotlight-runtime-in-use";
        let policy = find(&objects, "ValidatingAdmissionPolicy", name);
        assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
        assert_eq!(
            policy["spec"]["matchConstraints"]["resourceRules"],
            json!([{
                "apiGroups": [pilotlight_common::kinds::GROUP],
                "apiVersions": [pilotlight_common::kinds::VERSION],
                "operations": ["DELETE"],
                "resources": ["runtimeenvironments"],
            }])
        );
        let uses = policy["spec"]["variables"][0]["expression"].to_string();
        assert!(uses.contains(pilotlight_common::names::conditions::IN_USE));
        let binding = find(&objects, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(
            binding["spec"],
            json!({"policyName": name, "validationActions": ["Warn"]})
        );
    }

    #[test]
    fn only_network_has_capabilities_and_only_api_has_tokens() {
        let objects = render(&[]);
        let agent = find(&objects, "DaemonSet", "pilotlight-node-agent");
        let pod = &agent["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert!(pod["hostNetwork"].is_null());
        let three = ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"];
        for (name, capabilities) in [
            ("api", json!({"drop": ["ALL"]})),
            ("host", json!({"drop": ["ALL"]})),
            ("network", json!({"drop": ["ALL"], "add": three})),
        ] {
            let context = &container(agent, name)["securityContext"];
            assert_eq!(context["capabilities"], capabilities, "{name}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert!(context["privileged"].is_null(), "{name}");
        }
        assert_eq!(
            container(agent, "api")["securityContext"]["runAsNonRoot"],
            true
        );
        let mounts = |name: &str| -> BTreeMap<String, bool> {
            let mounts = container(agent, name)["volumeMounts"].as_array().unwrap();
            mounts
                .iter()
                .map(|mount| {
                    let name = mount["name"].as_str().unwrap().to_owned();
                    (name, mount["readOnly"] == true)
                })
                .collect()
        };
        let expected = |pairs: &[(&str, bool)]| -> BTreeMap<String, bool> {
            pairs
                .iter()
                .map(|(name, read_only)| ((*name).to_owned(), *read_only))
                .collect()
        };
        assert_eq!(
            mounts("host"),
            expected(&[
                ("run", false),
                ("cgroup", false),
                ("kubelet-cpu-state", true),
                ("state", false),
                ("seccomp", false)
            ])
        );
        assert_eq!(
            mounts("network"),
            expected(&[("run", false), ("cgroup", true)])
        );
        assert_eq!(
            mounts("api"),
            expected(&[
                ("run", false),
                ("ca", true),
                ("api-token", true),
                ("stream-token", true)
            ])
        );
        let volumes = pod["volumes"].as_array().unwrap();
        let stream = volumes
            .iter()
            .find(|volume| volume["name"] == "stream-token")
            .unwrap();
        assert_eq!(
            stream["projected"]["sources"],
            json!([{"serviceAccountToken": {
                "path": "token", "audience": pilotlight_common::names::STREAM_AUDIENCE, "expirationSeconds": 3600,
            }}])
        );
    }

    #[test]
    fn where_no_cpus_are_pinned_the_agent_cannot_write_any() {
        let objects = render(&["--set", "cpuPinning.enabled=false"]);
        let agent = find(&objects, "DaemonSet", "pilotlight-node-agent");
        let host = container(agent, "host");
        let mounts = host["volumeMounts"].as_array().unwrap();
        let names: Vec<&Value> = mounts.iter().map(|mount| &mount["name"]).collect();
        assert_eq!(names, ["run", "cgroup", "seccomp"]);
        assert_eq!(mounts[1]["readOnly"], true);
        assert!(!host["args"].to_string().contains("cpu"));
    }

    #[test]
    fn where_network_policies_keep_the_rules_the_scheduler_may_write_them_and_no_agent_has_capabilities()
     {
        let objects = render(&["--set", "network.mode=policy"]);
        let agent = find(&objects, "DaemonSet", "pilotlight-node-agent");
        assert!(!agent.to_string().contains("NET_ADMIN"));
        assert!(
            container(agent, "api")["args"]
                .to_string()
                .contains("--network-mode=policy")
        );
        let role = rights(find(&objects, "ClusterRole", "pilotlight-scheduler"));
        let plain = render(&[]);
        let before = rights(find(&plain, "ClusterRole", "pilotlight-scheduler"));
        let more: Vec<&String> = role.difference(&before).collect();
        assert_eq!(more, ["networking.k8s.io/networkpolicies: create patch"]);
        let scheduler = find(&objects, "Deployment", "pilotlight-scheduler");
        assert!(scheduler.to_string().contains("--network-mode=policy"));
        let name = "pilotlight-scheduler-network-policies";
        find(&objects, "ValidatingAdmissionPolicy", name);
        find(&objects, "ValidatingAdmissionPolicyBinding", name);
    }

    fn assert_rights(role: &Value, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|right| (*right).to_owned()).collect();
        assert_eq!(rights(role), expected, "{}", role["metadata"]["name"]);
    }

    #[test]
    fn the_rights_are_these_and_no_more() {
        let objects = render(&[]);
        assert_rights(
            find(&objects, "ClusterRole", "pilotlight-scheduler"),
            &[
                "llmsafespace.dev/sandboxes: get list watch",
                "llmsafespace.dev/warmpools: get list watch",
                "llmsafespace.dev/sandboxprofiles: get list watch",
                "llmsafespace.dev/runtimeenvironments: get list watch",
                "llmsafespace.dev/sandboxes/status: patch",
                "llmsafespace.dev/warmpools/status: patch",
                "llmsafespace.dev/runtimeenvironments/status: patch",
                "llmsafespace.dev/warmpods: create delete get list watch",
                "llmsafespace.dev/warmpods/status: patch",
                "/pods: create delete get list watch",
                "/persistentvolumeclaims: create get list patch watch",
                "/services: create get list watch",
                "/nodes: get list patch watch",
                "node.k8s.io/runtimeclasses: get list watch",
                "events.k8s.io/events: create patch",
                "authentication.k8s.io/tokenreviews: create",
            ],
        );
        assert_rights(
            find(&objects, "Role", "pilotlight-scheduler"),
            &[
                "coordination.k8s.io/leases: create",
                "coordination.k8s.io/leases[pilotlight-scheduler]: get patch update",
                "/secrets[pilotlight-ca]: get patch update",
                "/configmaps: list watch",
                "/configmaps[pilotlight-ca]: get patch update",
            ],
        );
        assert_rights(
            find(&objects, "ClusterRole", "pilotlight-node-agent"),
            &[
                "/pods: list watch",
                "/pods/status: patch",
                "llmsafespace.dev/warmpods: get patch",
                "llmsafespace.dev/warmpods/status: patch",
                "llmsafespace.dev/sandboxes: get",
                "llmsafespace.dev/sandboxes/status: patch",
            ],
        );
        assert_rights(
            find(&objects, "ClusterRole", "pilotlight-agents"),
            &[
                "agents.x-k8s.io/sandboxes: delete get list watch",
                "agents.x-k8s.io/sandboxes/status: patch",
                "agents.x-k8s.io/sandboxes/finalizers: update",
                "/pods: create delete get list patch watch",
                "/services: create delete get list patch watch",
                "/persistentvolumeclaims: create get list patch watch",
                "events.k8s.io/events: create patch",
                "apiextensions.k8s.io/customresourcedefinitions[sandboxes.agents.x-k8s.io]: get list patch watch",
            ],
        );
        assert_rights(
            find(&objects, "Role", "pilotlight-agents"),
            &[
                "coordination.k8s.io/leases: create",
                "coordination.k8s.io/leases[pilotlight-agents]: get patch update",
                "/secrets[pilotlight-agents-ca]: get update",
            ],
        );
        let roles = objects.iter().filter(|object| {
            object["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("Role"))
        });
        assert_eq!(roles.count(), 5, "a role that this test does not know");
    }

    #[test]
    fn sandboxes_can_be_deleted_only_where_they_are_to_be() {
        let objects = render(&["--set", "finishedTTLSeconds=0"]);
        let role = find(&objects, "ClusterRole", "pilotlight-scheduler");
        let deletes = role["rules"].as_array().unwrap().iter().any(|rule| {
            rule["resources"] == json!(["sandboxes"]) && rule["verbs"] == json!(["delete"])
        });
        assert!(deletes, "{role}");
        let scheduler = find(&objects, "Deployment", "pilotlight-scheduler");
        let arguments = container(scheduler, "scheduler")["args"].to_string();
        assert!(
            arguments.contains("--finished-ttl-seconds=0"),
            "{arguments}"
        );
        let objects = render(&[]);
        let scheduler = find(&objects, "Deployment", "pilotlight-scheduler");
        let arguments = container(scheduler, "scheduler")["args"].to_string();
        assert!(!arguments.contains("finished-ttl"), "{arguments}");
    }

    /// With content in the template, an upgrade would take the CA back from the scheduler.
    #[test]
    fn the_ca_objects_come_without_content() {
        let objects = render(&[]);
        for kind in ["Secret", "ConfigMap"] {
            let object = find(&objects, kind, "pilotlight-ca");
            for field in ["data", "stringData", "binaryData", "immutable"] {
                assert!(object[field].is_null(), "{kind}: {field}");
            }
        }
    }

    #[test]
    fn the_crds_are_the_generated_ones_and_stay_at_uninstall() {
        let read = |file| std::fs::read_to_string(chart().join("generated").join(file)).unwrap();
        let all = [read("crds.yaml"), read("agents-crd.yaml")].map(|text| {
            text.replace("RELEASE-NAMESPACE", NAMESPACE)
                .replace("WEBHOOK-SERVICE", "pilotlight-agents")
        });
        let generated: Vec<Value> = all
            .iter()
            .flat_map(|text| text.split("\n---\n").skip(1).map(yaml))
            .collect();
        let mut rendered: Vec<Value> = render(&[])
            .into_iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .collect();
        for crd in &mut rendered {
            let metadata = crd["metadata"].as_object_mut().unwrap();
            assert_eq!(
                metadata.remove("annotations"),
                Some(json!({"helm.sh/resource-policy": "keep"}))
            );
        }
        assert_eq!(rendered.len(), 6);
        for crd in &generated {
            assert!(rendered.contains(crd), "{}", crd["metadata"]["name"]);
        }
        assert!(
            !render(&["--set", "crds.install=false"])
                .iter()
                .any(|object| object["kind"] == "CustomResourceDefinition")
        );
    }

    #[test]
    fn every_image_file_is_named_after_what_it_builds() {
        for (file, program) in [
            ("scheduler.Dockerfile", "pilotlight-scheduler"),
            ("node-agent.Dockerfile", "pilotlight-node-agent"),
        ] {
            let text =
                std::fs::read_to_string(Path::new(&workspace().join("deploy/docker").join(file)))
                    .unwrap();
            assert!(text.contains(&format!("--locked -p {program} ")), "{file}");
            assert!(text.contains("USER 65532:65532"), "{file}");
        }
    }
}
