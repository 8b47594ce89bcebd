//! Nodes that publish what they were not given, and what becomes of them.

use pilotlight_common::kinds::{ConditionStatus, SandboxPhase};
use pilotlight_scheduler::action::{Done, Expel, ExpelOutcome};
use pilotlight_scheduler::decide::{Verdict, judge};
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::NodeView;

use super::World;

impl World {
    /// An agent publishes a sandbox as it likes, on a pod of any name: what its token is good for.
    pub fn publish_unasked(&mut self, node: &str, uid: &str, pod: &str) {
        self.intruded.insert(uid.to_owned());
        self.write_publication(uid, pod, node);
    }

    /// Somebody who looked into a node takes its label away.
    pub fn clear_node(&mut self, node: &str) {
        self.change_node(node, |view| {
            view.labelled = false;
            view.distrusted = false;
        });
    }

    pub fn change_node(&mut self, node: &str, change: impl FnOnce(&mut NodeView)) -> NodeView {
        self.revision += 1;
        let revision = self.revision;
        let view = self.nodes.get_mut(node).unwrap();
        change(view);
        view.identity.revision = revision;
        let view = view.clone();
        self.undelivered
            .push_back(Input::Node(Change::Upsert(view.clone())));
        view
    }

    /// Looks at what bears a publication out, and ends the sandbox where nothing does.
    pub(super) fn expel(&mut self, expel: &Expel) -> Done {
        let publication = &expel.publication;
        let verdict = judge(
            publication,
            self.warm_pods.get(&publication.pod),
            self.pods.get(&publication.pod),
        );
        let uid = expel.sandbox.uid.clone();
        self.looks += 1;
        if !matches!(verdict, Verdict::Contradicted(_)) {
            let outcome = ExpelOutcome::Cleared;
            return Done::Expelled { uid, outcome };
        }
        assert!(self.intruded.contains(&uid), "an honest node was accused");
        let node = publication.node.as_ref().map(|node| {
            let view = self.change_node(node, |view| {
                view.labelled = false;
                view.distrusted = true;
            });
            Box::new(view)
        });
        let now = self.now;
        self.revision += 1;
        let Some(sandbox) = self.sandboxes.get_mut(&uid) else {
            let outcome = ExpelOutcome::Failed;
            return Done::Expelled { uid, outcome };
        };
        sandbox.phase = Some(SandboxPhase::Failed);
        sandbox.finished = Some(now);
        for condition in &mut sandbox.conditions {
            if ["Ready", "Prepared"].contains(&condition.type_.as_str()) {
                condition.status = ConditionStatus::False;
                condition.reason = Some("NotAssigned".into());
            }
        }
        sandbox.identity.revision = self.revision;
        let view = sandbox.clone();
        self.undelivered
            .push_back(Input::Sandbox(Change::Upsert(view)));
        let outcome = ExpelOutcome::Ended(node);
        Done::Expelled { uid, outcome }
    }
}
