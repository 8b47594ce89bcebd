//! What the chart makes of the values for `agents.x-k8s.io`.

#[cfg(test)]
mod rendering;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::rendering::{find, render};

    fn is_of_agents(object: &Value) -> bool {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.contains("agents")
    }

    #[test]
    fn it_can_be_left_out_as_a_whole() {
        let without = render(&["--set", "agents.enabled=false"]);
        let left: Vec<&Value> = without.iter().filter(|o| is_of_agents(o)).collect();
        assert!(left.is_empty(), "{left:?}");
        let with = render(&[]);
        assert_eq!(with.len() - without.len(), 16);
    }

    #[test]
    fn what_users_bring_is_warned_of_refused_or_not_looked_at() {
        let name = "pilotlight-agents-security";
        for (check, action, policy) in [("warn", "Warn", "Ignore"), ("enforce", "Deny", "Fail")] {
            let objects = render(&["--set", &format!("agents.securityCheck={check}")]);
            let binding = find(&objects, "ValidatingAdmissionPolicyBinding", name);
            assert_eq!(binding["spec"]["validationActions"], json!([action]));
            let found = find(&objects, "ValidatingAdmissionPolicy", name);
            assert_eq!(found["spec"]["failurePolicy"], policy);
        }
        let objects = render(&["--set", "agents.securityCheck=off"]);
        assert!(!objects.iter().any(|o| o["metadata"]["name"] == name));
    }

    #[test]
    fn the_webhook_is_asked_where_the_controller_listens() {
        let objects = render(&["--set", "fullnameOverride=other"]);
        let crd = find(
            &objects,
            "CustomResourceDefinition",
            "sandboxes.agents.x-k8s.io",
        );
        let client = &crd["spec"]["conversion"]["webhook"]["clientConfig"];
        let service = &client["service"];
        assert_eq!(service["name"], "other-agents");
        assert!(client["caBundle"].is_null(), "the controller fills it");
        let found = find(&objects, "Service", "other-agents");
        assert_eq!(found["spec"]["ports"][0]["port"], service["port"]);
        let controller = find(&objects, "Deployment", "other-agents");
        let arguments = controller["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        for argument in [
            "\"agents\"",
            "--webhook-service=other-agents",
            "--ca-secret=other-agents-ca",
        ] {
            assert!(arguments.contains(argument), "{argument} in {arguments}");
        }
        let versions = crd["spec"]["versions"].as_array().unwrap();
        let stored: Vec<&Value> = versions.iter().filter(|v| v["storage"] == true).collect();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0]["name"], "v1beta1");
        let first = versions.iter().find(|v| v["name"] == "v1alpha1").unwrap();
        assert_eq!(
            (&first["served"], &first["deprecated"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(
            first["subresources"]["scale"]["specReplicasPath"],
            ".spec.replicas"
        );
    }

    #[test]
    fn every_option_arrives_where_it_belongs() {
        let values = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/values/every-option.yaml"
        );
        let objects = render(&["--values", values]);
        let controller = find(&objects, "Deployment", "pilotlight-agents");
        assert_eq!(controller["spec"]["replicas"], 1);
        let pod = &controller["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["c"], "d");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(pod["spec"]["nodeSelector"], json!({ "pool": "control" }));
        assert_eq!(pod["spec"]["tolerations"][0]["key"], "control");
        assert!(pod["spec"]["priorityClassName"].is_null());
        let arguments = pod["spec"]["containers"][0]["args"].to_string();
        for argument in [
            "--cluster-domain=example.internal",
            "--lease-duration-seconds=15",
            "--log-format=text",
        ] {
            assert!(arguments.contains(argument), "{argument} in {arguments}");
        }
    }
}
