//! The controller of `agents.x-k8s.io` in a simulated cluster: its index and decisions, with an API server that does what it is asked, or not.

#[path = "agents/cluster.rs"]
mod cluster;

#[cfg(test)]
mod tests {
    use pilotlight_scheduler::agents::write::Kind;
    use proptest::prelude::*;
    use serde_json::json;

    use crate::cluster::Cluster;

    #[test]
    fn a_sandbox_gets_a_pod_of_its_name_and_is_ready_with_three_writes() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        let pod = cluster.object(Kind::Pod, "a").unwrap();
        assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(
            pod["metadata"]["labels"]["agents.x-k8s.io/sandbox-name-hash"],
            "e40c292c"
        );
        cluster.pass_seconds(1);
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False DependenciesNotReady Pod exists with phase: Pending"
        );
        cluster.schedule("a");
        cluster.run("a");
        assert_eq!(
            cluster.condition("a", "Ready"),
            "True DependenciesReady Pod is Ready"
        );
        assert_eq!(
            cluster.condition("a", "Suspended"),
            "False NotSuspended Sandbox is not suspended"
        );
        assert_eq!(cluster.condition("a", "PodScheduled"), "True PodScheduled ");
        let status = cluster.status("a");
        assert_eq!(status["podIPs"][0], "10.0.0.1");
        assert_eq!(status["nodeName"], "node");
        assert_eq!(status["replicas"], 1);
        assert_eq!(
            status["selector"],
            "agents.x-k8s.io/sandbox-name-hash=e40c292c"
        );
        assert_eq!(cluster.writes, 3, "its pod, a first word, and Ready");
        cluster.pass_seconds(120);
        assert_eq!(cluster.writes, 3, "nothing is written without a reason");
    }

    #[test]
    fn what_nobody_can_use_yet_is_not_written_one_by_one() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod(), "service": true }));
        cluster.schedule("a");
        cluster.run("a");
        assert_eq!(
            cluster.condition("a", "Ready"),
            "True DependenciesReady Pod is Ready; Service Exists"
        );
        assert_eq!(cluster.writes, 3, "its pod, its Service, and Ready");
        assert_eq!(cluster.status("a")["serviceFQDN"], "a.default.svc.test");
        assert_eq!(cluster.status("a")["service"], "a");
    }

    #[test]
    fn suspended_it_keeps_everything_but_its_pod() {
        let mut cluster = Cluster::new();
        let mut spec =
            json!({ "podTemplate": pod(), "service": true, "volumeClaimTemplates": [volume()] });
        cluster.apply("a", spec.clone());
        cluster.run("a");
        let claim = cluster.object(Kind::Claim, "data-a").unwrap();
        let volumes = &cluster.object(Kind::Pod, "a").unwrap()["spec"]["volumes"];
        assert_eq!(volumes[0]["persistentVolumeClaim"]["claimName"], "data-a");
        spec["operatingMode"] = "Suspended".into();
        cluster.apply("a", spec.clone());
        assert_eq!(
            cluster.condition("a", "Suspended"),
            "False PodTerminating Pod is terminating. Sandbox is suspending"
        );
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False SandboxSuspended Sandbox is suspending"
        );
        cluster.pass_seconds(100);
        assert!(
            cluster.condition("a", "Suspended").starts_with("False"),
            "a pod that is stuck is not gone"
        );
        cluster.end_pod("a");
        assert_eq!(
            cluster.condition("a", "Suspended"),
            "True PodTerminated Pod has been terminated. Sandbox is suspended"
        );
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False SandboxSuspended Sandbox is suspended"
        );
        assert_eq!(cluster.condition("a", "PodScheduled"), "");
        assert_eq!(cluster.status("a")["replicas"], 0);
        assert_eq!(cluster.status("a").get("podIPs"), None);
        assert_eq!(cluster.object(Kind::Claim, "data-a").unwrap(), claim);
        assert!(cluster.object(Kind::Service, "a").is_some());
        spec["operatingMode"] = "Running".into();
        cluster.apply("a", spec);
        cluster.run("a");
        assert!(cluster.condition("a", "Ready").starts_with("True"));
    }

    #[test]
    fn a_deleted_pod_is_made_again_once_it_is_gone() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.run("a");
        let first = cluster.uid(Kind::Pod, "a").unwrap();
        cluster.delete_pod("a");
        cluster.pass_seconds(60);
        assert_eq!(cluster.uid(Kind::Pod, "a").unwrap(), first);
        cluster.end_pod("a");
        assert_ne!(cluster.uid(Kind::Pod, "a").unwrap(), first);
    }

    #[test]
    fn a_failed_pod_is_reported_and_replaced_where_that_is_asked_for() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.fail("a");
        assert_eq!(
            cluster.condition("a", "Finished"),
            "True PodFailed Pod failed"
        );
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False PodFailed Pod failed"
        );
        let first = cluster.uid(Kind::Pod, "a").unwrap();
        cluster.pass_seconds(600);
        assert_eq!(cluster.uid(Kind::Pod, "a").unwrap(), first);
        cluster.annotate("a", "llmsafespace.dev/recreate-failed-pod", "true");
        cluster.end_pod("a");
        assert_ne!(cluster.uid(Kind::Pod, "a").unwrap(), first);
        assert_eq!(cluster.condition("a", "Finished"), "");
        // One that fails again and again is not made again and again.
        let before = cluster.made;
        for _ in 0..30 {
            cluster.fail("a");
            cluster.end_pod("a");
            cluster.pass_seconds(1);
        }
        assert!(cluster.made - before <= 3, "{}", cluster.made - before);
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone_and_said() {
        for kind in [Kind::Pod, Kind::Service, Kind::Claim] {
            let name = if kind == Kind::Claim { "data-a" } else { "a" };
            let mut cluster = Cluster::new();
            cluster.stranger(kind, name, &json!({}), Some("other"));
            let foreign = cluster.uid(kind, name).unwrap();
            let spec = json!({ "podTemplate": pod(), "service": true, "volumeClaimTemplates": [volume()] });
            cluster.apply("a", spec);
            let said = cluster.condition("a", "Ready");
            assert!(
                said.starts_with("False ReconcilerError Error seen: ")
                    && said.contains(
                        "is owned by ReplicaSet/other (UID: other), not by sandbox \"a\""
                    ),
                "{said}"
            );
            assert_eq!(cluster.uid(kind, name).unwrap(), foreign);
            // Once it is gone, there is nothing in the way, though no watch showed it.
            cluster.remove(kind, name);
            cluster.pass_seconds(6);
            cluster.run("a");
            assert_eq!(
                cluster.condition("a", "Ready"),
                "True DependenciesReady Pod is Ready; Service Exists",
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_is_nobodys_is_taken_only_where_it_says_so() {
        for kind in [Kind::Pod, Kind::Service, Kind::Claim] {
            let name = if kind == Kind::Claim { "data-a" } else { "a" };
            let spec = json!({ "podTemplate": pod(), "service": true, "volumeClaimTemplates": [volume()] });
            let mut cluster = Cluster::new();
            cluster.stranger(kind, name, &json!({}), None);
            cluster.apply("a", spec.clone());
            let said = cluster.condition("a", "Ready");
            assert!(said.contains("cannot adopt unowned"), "{said}");
            let mut cluster = Cluster::new();
            let labels = json!({ "agents.x-k8s.io/adoptable": "true", "app": "mine" });
            cluster.stranger(kind, name, &labels, None);
            let found = cluster.uid(kind, name).unwrap();
            cluster.apply("a", spec);
            let taken = cluster.object(kind, name).unwrap();
            assert_eq!(taken["metadata"]["uid"], found.as_str());
            assert_eq!(taken["metadata"]["ownerReferences"][0]["name"], "a");
            assert_eq!(taken["metadata"]["labels"]["app"], "mine");
            cluster.run("a");
            assert!(
                cluster.condition("a", "Ready").starts_with("True"),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_suspended_sandbox_does_not_delete_a_pod_that_is_not_its_own() {
        let mut cluster = Cluster::new();
        let labels = json!({ "agents.x-k8s.io/sandbox-name-hash": "e40c292c" });
        cluster.stranger(Kind::Pod, "a", &labels, Some("other"));
        cluster.apply(
            "a",
            json!({ "podTemplate": pod(), "operatingMode": "Suspended" }),
        );
        assert_eq!(
            cluster.condition("a", "Suspended"),
            "False PodNotOwned Refused to delete pod because it is not owned by this sandbox"
        );
        assert!(cluster.object(Kind::Pod, "a").is_some());
    }

    #[test]
    fn edits_of_labels_and_annotations_reach_the_pod_and_nothing_else_does() {
        let mut cluster = Cluster::new();
        let metadata = |labels| json!({ "metadata": { "labels": labels, "annotations": { "note": "1" } }, "spec": pod()["spec"] });
        let first = json!({ "keep": "1", "go": "1", "agents.x-k8s.io/sandbox-name-hash": "evil" });
        cluster.apply("a", json!({ "podTemplate": metadata(first) }));
        cluster.run("a");
        cluster.label_pod("a", "others", "stay");
        let mut second = metadata(json!({ "keep": "2", "new": "1" }));
        second["spec"]["containers"][0]["image"] = "other".into();
        cluster.apply("a", json!({ "podTemplate": second }));
        let pod = cluster.object(Kind::Pod, "a").unwrap();
        assert_eq!(
            pod["metadata"]["labels"],
            json!({ "keep": "2", "new": "1", "others": "stay", "agents.x-k8s.io/sandbox-name-hash": "e40c292c" })
        );
        let annotations = &pod["metadata"]["annotations"];
        assert_eq!(annotations["agents.x-k8s.io/propagated-labels"], "keep,new");
        assert_eq!(
            annotations["agents.x-k8s.io/propagated-annotations"],
            "note"
        );
        assert_eq!(pod["spec"]["containers"][0]["image"], "image");
    }

    #[test]
    fn at_its_end_it_goes_or_says_so() {
        for (policy, at) in [
            ("Retain", 100),
            ("Delete", 100),
            ("Retain", -5),
            ("Delete", -5),
        ] {
            let mut cluster = Cluster::new();
            let end = cluster.in_seconds(at);
            let spec = json!({ "podTemplate": pod(), "service": true, "shutdownTime": end, "shutdownPolicy": policy });
            cluster.apply("a", spec);
            if at > 0 {
                cluster.run("a");
                cluster.pass_seconds(99);
                assert!(cluster.condition("a", "Ready").starts_with("True"));
                cluster.pass_seconds(2);
                cluster.end_pod("a");
            }
            assert!(cluster.object(Kind::Pod, "a").is_none(), "{policy} {at}");
            assert!(cluster.object(Kind::Service, "a").is_none());
            if policy == "Delete" {
                assert!(!cluster.exists("a"));
            } else {
                assert_eq!(
                    cluster.condition("a", "Ready"),
                    "False SandboxExpired Sandbox has expired"
                );
                assert_eq!(cluster.status("a").get("serviceFQDN"), None);
                assert_eq!(cluster.condition("a", "PodScheduled"), "");
                let writes = cluster.writes;
                cluster.pass_seconds(600);
                assert_eq!(cluster.writes, writes);
            }
        }
    }

    #[test]
    fn a_service_that_is_not_wanted_goes_and_one_nobody_spoke_of_stays() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod(), "service": true }));
        cluster.apply("a", json!({ "podTemplate": pod() }));
        assert!(cluster.object(Kind::Service, "a").is_some());
        cluster.change_selector("a");
        let selector = &cluster.object(Kind::Service, "a").unwrap()["spec"]["selector"];
        assert_eq!(
            *selector,
            json!({ "agents.x-k8s.io/sandbox-name-hash": "e40c292c" }),
            "its traffic is not led elsewhere"
        );
        cluster.apply("a", json!({ "podTemplate": pod(), "service": false }));
        assert!(cluster.object(Kind::Service, "a").is_none());
        assert_eq!(cluster.status("a").get("service"), None);
    }

    #[test]
    fn what_is_refused_is_said_and_tried_again_less_and_less_often() {
        let mut cluster = Cluster::new();
        cluster.refuse("exceeded quota");
        cluster.apply("a", json!({ "podTemplate": pod() }));
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False ReconcilerError Error seen: exceeded quota"
        );
        let tries = cluster.tries;
        cluster.pass_seconds(600);
        let tries = cluster.tries - tries;
        assert!((5..=20).contains(&tries), "{tries} tries in ten minutes");
        cluster.refuse("");
        cluster.pass_seconds(60);
        cluster.run("a");
        assert!(cluster.condition("a", "Ready").starts_with("True"));
    }

    #[test]
    fn a_deleted_sandbox_takes_its_pod_along_at_once_unless_it_let_go_of_it() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.run("a");
        cluster.delete("a");
        assert!(cluster.is_deleting("a"));
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.run("a");
        cluster.orphan("a");
        assert!(!cluster.is_deleting("a"));
    }

    #[test]
    fn two_pods_are_one_too_many() {
        let mut cluster = Cluster::new();
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.run("a");
        cluster.second_pod("a", "b");
        assert_eq!(
            cluster.condition("a", "Ready"),
            "False MultiplePods multiple Pods (2) are controlled by this Sandbox; refusing to choose or create a Pod"
        );
        cluster.remove(Kind::Pod, "b");
        assert!(cluster.condition("a", "Ready").starts_with("True"));
    }

    #[test]
    fn a_standby_does_nothing_and_a_new_leader_only_what_is_missing() {
        let mut cluster = Cluster::new();
        cluster.lead(false);
        cluster.apply("a", json!({ "podTemplate": pod() }));
        cluster.pass_seconds(10);
        assert_eq!(cluster.writes, 0);
        cluster.lead(true);
        cluster.run("a");
        let uid = cluster.uid(Kind::Pod, "a");
        let writes = cluster.writes;
        cluster.restart();
        cluster.pass_seconds(60);
        assert_eq!(cluster.uid(Kind::Pod, "a"), uid);
        assert_eq!(
            cluster.writes, writes,
            "it found everything as it should be"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(u8, bool, Option<bool>),
        Delete(u8),
        Run(u8),
        Fail(u8),
        DeletePod(u8),
        EndPod(u8),
        Pass(u8),
        Refuse(bool),
        Lose(bool),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = 0..3_u8;
        prop_oneof![
            4 => (name.clone(), any::<bool>(), any::<Option<bool>>()).prop_map(|(n, s, v)| Step::Apply(n, s, v)),
            1 => name.clone().prop_map(Step::Delete),
            3 => name.clone().prop_map(Step::Run),
            1 => name.clone().prop_map(Step::Fail),
            1 => name.clone().prop_map(Step::DeletePod),
            2 => name.clone().prop_map(Step::EndPod),
            3 => (1..20_u8).prop_map(Step::Pass),
            1 => any::<bool>().prop_map(Step::Refuse),
            1 => any::<bool>().prop_map(Step::Lose),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_every_sandbox_ends_as_it_is_wanted(steps in prop::collection::vec(step(), 0..40)) {
            let mut cluster = Cluster::new();
            let name = |n: u8| format!("s{n}");
            for step in steps {
                match step {
                    Step::Apply(n, suspended, service) => {
                        let mode = if suspended { "Suspended" } else { "Running" };
                        let mut spec = json!({ "podTemplate": pod(), "operatingMode": mode });
                        if let Some(service) = service {
                            spec["service"] = service.into();
                        }
                        cluster.apply(&name(n), spec);
                    }
                    Step::Delete(n) => cluster.delete(&name(n)),
                    Step::Run(n) => cluster.run(&name(n)),
                    Step::Fail(n) => cluster.fail(&name(n)),
                    Step::DeletePod(n) => cluster.delete_pod(&name(n)),
                    Step::EndPod(n) => cluster.end_pod(&name(n)),
                    Step::Pass(seconds) => cluster.pass_seconds(seconds.into()),
                    Step::Refuse(refuse) => cluster.refuse(if refuse { "no" } else { "" }),
                    Step::Lose(lose) => cluster.lose_answers(lose),
                    Step::Restart => cluster.restart(),
                }
                cluster.holds();
            }
            cluster.refuse("");
            cluster.lose_answers(false);
            for _ in 0..3 {
                cluster.pass_seconds(61);
                for n in 0..3 {
                    cluster.end_pod(&name(n));
                    cluster.run(&name(n));
                }
            }
            cluster.pass_seconds(61);
            cluster.settled();
        }
    }

    fn pod() -> serde_json::Value {
        json!({ "spec": { "containers": [{ "name": "c", "image": "image" }] } })
    }

    fn volume() -> serde_json::Value {
        json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } })
    }
}
