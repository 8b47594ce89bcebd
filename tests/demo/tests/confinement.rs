//! The policies of the chart: for whom they hold, that they refuse, and that no right to write is without one.

#[cfg(test)]
mod rendering;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use pilotlight_common::names;
    use pilotlight_demo::NAMESPACE;
    use serde_json::{Value, json};

    use crate::rendering::{find, render, rights};

    const AGENT: &str = "system:serviceaccount:pilotlight-system:pilotlight-node-agent";
    const SCHEDULER: &str = "system:serviceaccount:pilotlight-system:pilotlight-scheduler";
    const CONTROLLER: &str = "system:serviceaccount:pilotlight-system:pilotlight-agents";

    /// The policies that refuse; the one that only warns is not of these.
    fn policies(objects: &[Value]) -> Vec<&Value> {
        let policies = objects.iter().filter(|object| {
            object["kind"] == "ValidatingAdmissionPolicy"
                && object["spec"]["failurePolicy"] == "Fail"
        });
        policies.collect()
    }

    fn name(object: &Value) -> &str {
        object["metadata"]["name"].as_str().unwrap()
    }

    /// Whether a policy holds this user, and nobody else.
    fn holds(policy: &Value, user: &str) -> bool {
        let condition = &policy["spec"]["matchConditions"][0]["expression"];
        *condition == format!("request.userInfo.username == '{user}'")
    }

    fn words(value: &Value) -> Vec<&str> {
        let words = value.as_array().into_iter().flatten();
        words.map(|word| word.as_str().unwrap()).collect()
    }

    #[test]
    fn every_policy_refuses_everywhere_and_says_what_to_do_instead_of_failing_open() {
        let objects = render(&[]);
        let policies = policies(&objects);
        assert_eq!(policies.len(), 18);
        for policy in policies {
            let binding = find(&objects, "ValidatingAdmissionPolicyBinding", name(policy));
            let spec = &binding["spec"];
            assert_eq!(spec["policyName"], name(policy));
            assert_eq!(spec["validationActions"], json!(["Deny"]));
            assert!(spec["matchResources"].is_null(), "a hole in {policy}");
            let constraints = policy["spec"]["matchConstraints"].as_object().unwrap();
            assert_eq!(
                constraints.len(),
                1,
                "a selector that labels dodge: {policy}"
            );
            assert!(!words_of_validations(policy).is_empty());
        }
    }

    /// Every message of a policy.
    fn words_of_validations(policy: &Value) -> Vec<&str> {
        let validations = policy["spec"]["validations"].as_array().unwrap();
        let messages = validations
            .iter()
            .map(|validation| validation["message"].as_str().unwrap());
        messages
            .inspect(|message| assert!(message.len() > 20))
            .collect()
    }

    #[test]
    fn the_policies_hold_exactly_the_accounts_that_the_chart_makes() {
        for (values, prefix) in [
            (&[][..], "pilotlight"),
            (&["--set", "fullnameOverride=other"], "other"),
        ] {
            let objects = render(values);
            for (program, policies_of, least) in [
                ("scheduler", "scheduler-", 5),
                ("node-agent", "agent-", 5),
                ("agents", "agents-", 2),
            ] {
                let account = format!("{prefix}-{program}");
                find(&objects, "ServiceAccount", &account);
                let user = format!("'system:serviceaccount:{NAMESPACE}:{account}'");
                let of_program = format!("{prefix}-{policies_of}");
                let own: Vec<&Value> = policies(&objects)
                    .into_iter()
                    .filter(|policy| name(policy).starts_with(&of_program))
                    .collect();
                assert!(own.len() >= least, "{account}");
                for policy in own {
                    assert_eq!(
                        policy["spec"]["matchConditions"][0]["expression"],
                        format!("request.userInfo.username == {user}"),
                        "{}",
                        name(policy)
                    );
                }
            }
        }
    }

    #[test]
    fn an_agent_may_do_nothing_with_a_token_that_names_no_node() {
        let objects = render(&[]);
        for policy in policies(&objects) {
            if !holds(policy, AGENT) {
                continue;
            }
            let node = &policy["spec"]["variables"][0];
            assert_eq!(node["name"], "node");
            let claim = node["expression"].as_str().unwrap();
            assert!(
                claim.contains("authentication.kubernetes.io/node-name"),
                "{claim}"
            );
            assert!(claim.ends_with("orValue('')"), "{claim}");
            let first = policy["spec"]["validations"][0]["expression"]
                .as_str()
                .unwrap();
            let compared =
                first.contains("variables.node != ''") || policy["spec"]["paramKind"].is_object();
            assert!(compared, "{}: {first}", name(policy));
        }
    }

    /// Whether some policy for `user` is asked about this operation.
    fn is_held(
        objects: &[Value],
        user: &str,
        group: &str,
        resource: &str,
        operation: &str,
    ) -> bool {
        policies(objects).into_iter().any(|policy| {
            holds(policy, user)
                && policy["spec"]["matchConstraints"]["resourceRules"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|rule| {
                        words(&rule["apiGroups"]).contains(&group)
                            && words(&rule["resources"]).contains(&resource)
                            && words(&rule["operations"]).contains(&operation)
                    })
        })
    }

    #[test]
    fn no_right_to_write_is_without_a_policy_but_those_that_harm_nobody() {
        let objects = render(&["--set", "finishedTTLSeconds=0"]);
        // Each with the reason why its right alone is narrow enough.
        let free = BTreeMap::from([
            (
                "events.k8s.io/events: create",
                "it says what happened, to people",
            ),
            ("events.k8s.io/events: patch", "the same"),
            (
                "authentication.k8s.io/tokenreviews: create",
                "it asks and changes nothing",
            ),
            (
                "llmsafespace.dev/warmpods: create",
                "a WarmPod without a pod serves nobody",
            ),
            (
                "llmsafespace.dev/warmpools/status: patch",
                "it says how a pool fares, to people",
            ),
            (
                "llmsafespace.dev/runtimeenvironments/status: patch",
                "it says how a runtime fares, to people",
            ),
            (
                "agents.x-k8s.io/sandboxes: delete",
                "a Sandbox ends at the time that its user gave; its pod is held",
            ),
            (
                "agents.x-k8s.io/sandboxes/status: patch",
                "it says how a Sandbox fares; nothing is done by it",
            ),
            (
                "agents.x-k8s.io/sandboxes/finalizers: update",
                "it changes nothing: it is asked for when an owner is named",
            ),
        ]);
        let mut unused: BTreeSet<&str> = free.keys().copied().collect();
        for (role, user) in [
            ("pilotlight-node-agent", AGENT),
            ("pilotlight-scheduler", SCHEDULER),
            ("pilotlight-agents", CONTROLLER),
        ] {
            for right in rights(find(&objects, "ClusterRole", role)) {
                let (what, verbs) = right.split_once(": ").unwrap();
                let (group, resource) = what.split_once('/').unwrap();
                // A right to one name is held as one to all.
                let resource = resource.split('[').next().unwrap();
                for verb in verbs.split(' ') {
                    let operation = match verb {
                        "create" => "CREATE",
                        "patch" | "update" => "UPDATE",
                        "delete" => "DELETE",
                        _ => continue,
                    };
                    let one = format!("{what}: {verb}");
                    if unused.remove(one.as_str()) || free.contains_key(one.as_str()) {
                        continue;
                    }
                    assert!(
                        is_held(&objects, user, group, resource, operation),
                        "{role} may {one}, held by nothing"
                    );
                }
            }
        }
        assert_eq!(unused, BTreeSet::new(), "rights that nobody has");
    }

    /// `['a', 'b']` of CEL.
    fn list(policy: &Value, variable: &str) -> BTreeSet<String> {
        let variables = policy["spec"]["variables"].as_array().unwrap();
        let found = variables.iter().find(|v| v["name"] == variable).unwrap();
        let text = found["expression"].as_str().unwrap();
        text.split('\'')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_fields_that_the_programs_may_write_are_fields_of_the_kinds() {
        let objects = render(&[]);
        let status = |crd: &str| -> BTreeSet<String> {
            let crd = find(&objects, "CustomResourceDefinition", crd);
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let fields = &schema["properties"]["status"]["properties"];
            fields.as_object().unwrap().keys().cloned().collect()
        };
        let (sandbox, warm_pod) = (
            status("sandboxes.llmsafespace.dev"),
            status("warmpods.llmsafespace.dev"),
        );
        let of = |policy: &str, variable: &str| {
            list(
                find(&objects, "ValidatingAdmissionPolicy", policy),
                variable,
            )
        };
        let by_agent = of("pilotlight-agent-sandboxes", "publication");
        let afterwards = of("pilotlight-agent-sandboxes", "afterwards");
        let by_scheduler = of("pilotlight-scheduler-sandboxes", "fields");
        assert!(afterwards.is_subset(&by_agent));
        // Between them they write all there is, so that a field that is added is given to one of them.
        assert_eq!(&by_agent | &by_scheduler, sandbox);
        let by_agent = of("pilotlight-agent-warm-pod-status", "fields");
        let by_scheduler = of("pilotlight-scheduler-warm-pods", "fields");
        assert_eq!(&by_agent | &by_scheduler, warm_pod);
        assert_eq!(
            &by_agent & &by_scheduler,
            BTreeSet::from(["phase".to_owned()])
        );
    }

    /// Every word of this project in the expressions, as `'llmsafespace.dev/...'`.
    #[test]
    fn the_names_in_the_policies_are_those_of_the_programs() {
        let objects = render(&[]);
        let known = BTreeSet::from([
            names::PREPARED_CONDITION,
            names::SHAPE_LABEL,
            names::AGENT_READY_LABEL,
            names::SANDBOX_POD_LABEL,
            names::SANDBOX_ANNOTATION,
            // All labels, and all versions.
            "llmsafespace.dev/",
        ]);
        let mut found = BTreeSet::new();
        for policy in policies(&objects) {
            let mut expressions = Vec::new();
            for part in ["matchConditions", "variables", "validations"] {
                let items = policy["spec"][part].as_array().into_iter().flatten();
                expressions
                    .extend(items.map(|item| item["expression"].as_str().unwrap().to_owned()));
            }
            for expression in expressions {
                for word in expression.split('\'').skip(1).step_by(2) {
                    if word.starts_with("llmsafespace.dev/") {
                        assert!(known.contains(word), "{}: {word}", name(policy));
                        found.insert(word.to_owned());
                    }
                }
            }
        }
        assert_eq!(found.len(), known.len(), "{found:?}");
        let volumes = find(
            &objects,
            "ValidatingAdmissionPolicy",
            "pilotlight-scheduler-volumes",
        );
        let claim = names::volume_claim("");
        assert!(
            volumes["spec"]
                .to_string()
                .contains(&format!("'{claim}' + "))
        );
        let services = find(
            &objects,
            "ValidatingAdmissionPolicy",
            "pilotlight-scheduler-services",
        );
        assert!(
            services["spec"]
                .to_string()
                .contains(&format!("== '{}'", names::SUBDOMAIN))
        );
        let nodes = find(
            &objects,
            "ValidatingAdmissionPolicy",
            "pilotlight-scheduler-nodes",
        );
        for value in [names::AGENT_READY, names::AGENT_DISTRUSTED] {
            assert!(
                nodes["spec"].to_string().contains(&format!("'{value}'")),
                "{value}"
            );
        }
        let binding = find(
            &objects,
            "ValidatingAdmissionPolicyBinding",
            "pilotlight-agent-distrusted",
        );
        assert_eq!(
            binding["spec"]["paramRef"],
            json!({
                "selector": {"matchLabels": {names::AGENT_READY_LABEL: names::AGENT_DISTRUSTED}},
                "parameterNotFoundAction": "Allow",
            })
        );
    }
}
