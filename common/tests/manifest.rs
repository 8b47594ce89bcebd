//! `pilotlight-sandbox-manifest` writes what the client's own function writes: its documents, field by field.

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Output, Stdio};

    use serde_json::{Value, json};

    fn run(flags: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pilotlight-sandbox-manifest"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn written(input: &Value) -> Value {
        let output = run(&[], &input.to_string());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn least() -> Value {
        json!({
            "namespace": "team", "sandboxName": "run-1", "adapterType": "claude", "image": "agent:1",
            "envSecretName": "run-1-env", "serviceAccountName": "agent", "labels": {}, "resources": {},
        })
    }

    /// The document of the least input, with parts of it in the place of others.
    fn document(labels: &Value, pod_labels: &Value, resources: &Value) -> Value {
        json!({
            "apiVersion": "agents.x-k8s.io/v1alpha1",
            "kind": "Sandbox",
            "metadata": { "name": "run-1", "namespace": "team", "labels": labels },
            "spec": { "podTemplate": {
                "metadata": { "labels": pod_labels },
                "spec": {
                    "serviceAccountName": "agent",
                    "automountServiceAccountToken": false,
                    "restartPolicy": "Always",
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
                        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "agent",
                        "image": "agent:1",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/usr/bin/tini", "--", "/bin/sh", "-c", "sleep infinity"],
                        "envFrom": [{ "secretRef": { "name": "run-1-env" } }],
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "readOnlyRootFilesystem": true,
                            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                        },
                        "resources": resources,
                        "volumeMounts": [
                            { "name": "workspace", "mountPath": "/workspace" },
                            { "name": "home", "mountPath": "/home/paperclip" },
                            { "name": "cache", "mountPath": "/home/paperclip/.cache" },
                            { "name": "tmp", "mountPath": "/tmp" },
                        ],
                    }],
                    "volumes": [
                        { "name": "workspace", "emptyDir": { "sizeLimit": "8Gi" } },
                        { "name": "home", "emptyDir": { "sizeLimit": "1Gi" } },
                        { "name": "cache", "emptyDir": { "sizeLimit": "1Gi" } },
                        { "name": "tmp", "emptyDir": { "sizeLimit": "2Gi" } },
                    ],
                },
            } },
        })
    }

    fn resources() -> Value {
        json!({ "requests": { "cpu": "250m", "memory": "512Mi" }, "limits": { "cpu": "2", "memory": "4Gi" } })
    }

    #[test]
    fn the_least_input_makes_the_whole_document() {
        let role = json!({ "paperclip.io/role": "agent" });
        let expected = document(&json!({}), &role, &resources());
        assert_eq!(written(&least()), expected);
        // What is empty is as what is not said.
        let mut input = least();
        input["runtimeClassName"] = "".into();
        input["imagePullSecrets"] = json!([]);
        assert_eq!(written(&input), expected);
    }

    #[test]
    fn what_is_said_stands_where_it_belongs() {
        let mut input = least();
        input["labels"] = json!({ "app": "x", "paperclip.io/role": "other" });
        input["resources"] = json!({ "limits": { "cpu": "4" } });
        input["runtimeClassName"] = "gvisor".into();
        input["imagePullSecrets"] = json!(["one", "two"]);
        let pod_labels = json!({ "app": "x", "paperclip.io/role": "agent" });
        let mut amounts = resources();
        amounts["limits"] = json!({ "cpu": "4" });
        let mut expected = document(&input["labels"], &pod_labels, &amounts);
        let pod = &mut expected["spec"]["podTemplate"]["spec"];
        pod["runtimeClassName"] = "gvisor".into();
        pod["imagePullSecrets"] = json!([{ "name": "one" }, { "name": "two" }]);
        assert_eq!(written(&input), expected);
        input["resources"] = json!({ "requests": { "memory": "1Gi" }, "limits": {} });
        let found = written(&input);
        let container = &found["spec"]["podTemplate"]["spec"]["containers"][0];
        let expected = json!({ "requests": { "memory": "1Gi" }, "limits": {} });
        assert_eq!(container["resources"], expected);
    }

    #[test]
    fn flags_say_the_same_as_json() {
        let flags = [
            "--namespace",
            "team",
            "--name",
            "run-1",
            "--image",
            "agent:1",
            "--env-secret",
            "run-1-env",
            "--service-account",
            "agent",
            "--label",
            "app=x",
            "--limit-cpu",
            "1",
            "--limit-memory",
            "1Gi",
            "--runtime-class",
            "gvisor",
            "--image-pull-secret",
            "one",
        ];
        let output = run(&flags, "");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut input = least();
        input["labels"] = json!({ "app": "x" });
        input["resources"] = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        input["runtimeClassName"] = "gvisor".into();
        input["imagePullSecrets"] = json!(["one"]);
        assert_eq!(found, written(&input));
    }

    #[test]
    fn bad_input_is_refused_with_what_is_wrong() {
        for (input, word) in [
            ("{}", "missing field `namespace`"),
            ("", "EOF"),
            (r#"{"namespace": 1}"#, "expected a string"),
            (r#"{"imagee": "x"}"#, "unknown field `imagee`"),
        ] {
            let output = run(&[], input);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(word), "{said}");
        }
        let output = run(&["--namespace", "team"], "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("--image"),
            "{said}"
        );
    }
}
