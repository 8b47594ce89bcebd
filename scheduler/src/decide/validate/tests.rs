//! Tests of the judgement: every transition by itself, and what holds of any facts.

use pilotlight_common::reasons::{Reason, Refusal};
use proptest::prelude::*;

use super::*;

const TIMEOUT: SignedDuration = SignedDuration::from_secs(300);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn facts(pod: Pod<'_>) -> Facts<'_> {
    Facts {
        refusal: None,
        ready: false,
        available_at: None,
        since: at(0),
        pod,
        timeout: TIMEOUT,
        retry_at: Timestamp::MIN,
    }
}

fn starting_since(second: i64, trouble: Option<(&Trouble, i64)>) -> Pod<'_> {
    Pod::Starting {
        since: at(second),
        trouble: trouble.map(|(trouble, since)| (trouble, at(since))),
    }
}

fn reason(judgement: &Judgement) -> Option<&str> {
    match judgement.verdict.as_ref()? {
        Verdict::Available { .. } => Some(POD_BECAME_READY),
        Verdict::Undecided { reason, .. } => Some(reason),
        Verdict::Unavailable { reason, .. } => Some(reason),
    }
}

/// Reason (empty where what is known stands), step and the time of the next look.
fn judged(facts: &Facts<'_>, second: i64) -> (String, Step, Option<Timestamp>) {
    let judgement = judge(facts, at(second));
    (
        reason(&judgement).unwrap_or_default().to_owned(),
        judgement.step,
        judgement.next,
    )
}

fn word(reason: &str) -> String {
    reason.to_owned()
}

#[test]
fn a_runtime_that_is_new_waits_five_seconds_for_others_to_show_that_it_works() {
    let new = facts(Pod::None);
    assert_eq!(
        judged(&new, 0),
        (word("Validating"), Step::Keep, Some(at(5)))
    );
    assert_eq!(judged(&new, 5), (word("Validating"), Step::Start, None));
}

#[test]
fn a_ready_pod_is_evidence_and_ends_the_validation() {
    let mut seen = facts(starting_since(0, None));
    seen.ready = true;
    let day = 24 * 3600;
    assert_eq!(
        judged(&seen, 3),
        (word("PodBecameReady"), Step::Remove, Some(at(3 + day)))
    );
    seen.pod = Pod::Between;
    assert_eq!(judged(&seen, 3).1, Step::Keep);
}

#[test]
fn evidence_is_good_for_a_day_and_is_then_renewed_by_a_pod_that_is_ready_or_by_another_trial() {
    let day = 24 * 3600;
    let mut known = facts(Pod::None);
    known.available_at = Some(at(0));
    assert_eq!(
        judged(&known, day - 1),
        (word(""), Step::Keep, Some(at(day)))
    );
    assert_eq!(judged(&known, day).1, Step::Start);
    known.ready = true;
    assert_eq!(
        judged(&known, day - 1).0,
        word(""),
        "no write before its time"
    );
    assert_eq!(judged(&known, day).0, word("PodBecameReady"));
    known.pod = starting_since(0, None);
    assert_eq!(judged(&known, 1).1, Step::Remove);
}

#[test]
fn a_definite_trouble_counts_once_it_has_lasted() {
    for name in DEFINITE {
        let trouble = Trouble::new(name, "said so");
        let pod = facts(starting_since(5, Some((&trouble, 7))));
        assert_eq!(
            judged(&pod, 16),
            (word("Validating"), Step::Keep, Some(at(17)))
        );
        let judgement = judge(&pod, at(17));
        assert_eq!(
            (reason(&judgement), judgement.step),
            (Some(name), Step::GiveUp)
        );
        let Some(Verdict::Unavailable { message, .. }) = judgement.verdict else {
            unreachable!()
        };
        assert!(message.contains("said so"), "{message}");
    }
}

#[test]
fn a_pod_that_does_not_become_ready_in_time_is_given_up() {
    let silent = facts(starting_since(5, None));
    assert_eq!(
        judged(&silent, 304),
        (word("Validating"), Step::Keep, Some(at(305)))
    );
    assert_eq!(
        judged(&silent, 305),
        (word("ValidationTimedOut"), Step::GiveUp, None)
    );
}

#[test]
fn a_pod_without_a_node_says_nothing_about_its_image() {
    let trouble = Trouble::new("PodUnschedulable", "no room");
    let pod = facts(starting_since(5, Some((&trouble, 5))));
    assert_eq!(judged(&pod, 14).0, word("Validating"));
    assert_eq!(
        judged(&pod, 15),
        (word("PodUnschedulable"), Step::Keep, Some(at(305)))
    );
    let judgement = judge(&pod, at(305));
    assert_eq!(judgement.step, Step::GiveUp);
    assert!(matches!(judgement.verdict, Some(Verdict::Undecided { .. })));
}

#[test]
fn a_pod_that_was_evicted_says_nothing_either() {
    let over = facts(Pod::Over);
    assert_eq!(judged(&over, 20), (word("Validating"), Step::GiveUp, None));
}

#[test]
fn the_next_attempt_waits_for_its_time() {
    let mut failed = facts(Pod::None);
    failed.retry_at = at(100);
    assert_eq!(
        judged(&failed, 50),
        (word("Validating"), Step::Keep, Some(at(100)))
    );
    assert_eq!(judged(&failed, 100).1, Step::Start);
}

#[test]
fn a_runtime_that_nothing_can_run_gets_no_pod() {
    let refusal = Refusal::new(Reason::RuntimeInvalid, "no image");
    let mut invalid = facts(Pod::None);
    invalid.refusal = Some(&refusal);
    assert_eq!(
        judged(&invalid, 50),
        (word("RuntimeInvalid"), Step::Keep, None)
    );
    invalid.pod = starting_since(0, None);
    assert_eq!(judged(&invalid, 50).1, Step::Remove);
}

proptest! {
    /// Whatever the facts: a pod is made only where none is there and no evidence is; the time of the next look lies
    /// ahead; and something always follows, be it from the time, from the pod or from a write under way.
    #[test]
    fn a_pod_is_made_for_want_of_evidence_only_and_nothing_is_left_to_chance(
        refused in prop::bool::weighted(0.1), ready in any::<bool>(), available_at in prop::option::of(-100_000i64..100_000), since in 0i64..100,
        pod in 0u8..4, started in 0i64..400, trouble in prop::option::of((0usize..5, 0i64..400)), retry_at in 0i64..400, now in 0i64..100_000,
    ) {
        let refusal = Refusal::new(Reason::RuntimeInvalid, "no image");
        let words = ["ImagePullFailed", "ContainerCrashing", "ContainerNotCreated", "PodUnschedulable", "SomethingNew"];
        let trouble = trouble.map(|(n, since)| (Trouble::new(words[n], ""), since));
        let pod = match pod {
            0 => Pod::None,
            1 => Pod::Between,
            2 => Pod::Over,
            _ => starting_since(started, trouble.as_ref().map(|(t, s)| (t, *s))),
        };
        let facts = Facts {
            refusal: refused.then_some(&refusal),
            ready,
            available_at: available_at.map(at),
            since: at(since),
            retry_at: at(retry_at),
            ..facts(pod)
        };
        let judgement = judge(&facts, at(now));
        let fresh = facts.available_at.is_some_and(|seen| after(seen, REVALIDATE) > at(now));
        if judgement.step == Step::Start {
            prop_assert!(matches!(facts.pod, Pod::None) && !ready && !fresh && !refused);
        }
        if let Some(next) = judgement.next { prop_assert!(next > at(now)); }
        let settled = refused || matches!(facts.pod, Pod::Between);
        prop_assert!(settled || judgement.next.is_some() || judgement.step != Step::Keep, "{judgement:?}");
        let failed = matches!(judgement.verdict, Some(Verdict::Unavailable { .. }));
        prop_assert!(!failed || refused || judgement.step == Step::GiveUp);
        prop_assert!(!(failed && ready && !refused), "evidence beats every trouble");
    }
}
