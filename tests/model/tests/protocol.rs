//! The protocol as implemented keeps every property in each of these configurations, each of them exhausted.
//!
//! Together they take some forty seconds on two cores. A wider one (three pods, two schedulers, all faults) does
//! not fit in there; each fault meets each other one in at least one configuration below.
#![allow(clippy::print_stdout)] // The number of states is the result.

use std::collections::HashSet;

use pilotlight_model::config::{Budget, Protocol};
use pilotlight_model::properties;
use stateright::{Checker, Model};

const NONE: Budget = Budget {
    scheduler_crashes: 0,
    agent_crashes: 0,
    lost_replies: 0,
    deaths: 0,
    whims: 0,
    deadlines: 0,
    retirements: 0,
    deletions: 0,
};

fn holds(protocol: Protocol) {
    let name = format!(
        "{} schedulers, {} pods, {} sandboxes, {:?}",
        protocol.schedulers, protocol.pods, protocol.sandboxes, protocol.budget
    );
    let started = std::time::Instant::now();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states in {:?}",
        checker.unique_state_count(),
        started.elapsed()
    );
    assert!(checker.is_done());
    checker.assert_properties();
}

fn late(mut protocol: Protocol) -> Protocol {
    protocol.created_late = true;
    protocol
}

#[test]
fn one_sandbox_survives_a_crash_of_a_scheduler_and_of_an_agent_and_a_lost_reply() {
    holds(Protocol::new(2, 2, 1).with(Budget {
        scheduler_crashes: 1,
        agent_crashes: 1,
        lost_replies: 1,
        ..NONE
    }));
}

#[test]
fn one_sandbox_survives_refusals_and_a_deadline_while_agents_crash() {
    holds(Protocol::new(2, 2, 1).with(Budget {
        agent_crashes: 1,
        deaths: 1,
        whims: 1,
        deadlines: 1,
        ..NONE
    }));
}

#[test]
fn a_refusal_leads_to_one_of_two_other_pods_under_two_leaders() {
    holds(Protocol::new(2, 3, 1).with(Budget { deaths: 1, ..NONE }));
}

#[test]
fn two_sandboxes_share_two_pods_under_two_leaders() {
    for budget in [
        Budget {
            lost_replies: 1,
            ..NONE
        },
        Budget { deaths: 1, ..NONE },
        Budget {
            deadlines: 1,
            ..NONE
        },
        Budget {
            agent_crashes: 1,
            ..NONE
        },
        Budget {
            scheduler_crashes: 1,
            ..NONE
        },
    ] {
        holds(Protocol::new(2, 2, 2).with(budget));
    }
}

#[test]
fn a_sandbox_created_and_one_deleted_during_the_run_leave_nothing_behind() {
    holds(late(Protocol::new(2, 2, 2)).with(Budget {
        deletions: 1,
        ..NONE
    }));
}

#[test]
fn idle_deletion_and_assignment_never_take_the_same_pod() {
    holds(late(Protocol::new(2, 2, 1)).with(Budget {
        retirements: 1,
        deletions: 1,
        ..NONE
    }));
}

#[test]
fn two_sandboxes_survive_a_restarted_scheduler_with_retirement_deletion_and_lost_replies() {
    holds(late(Protocol::new(1, 2, 2)).with(Budget {
        scheduler_crashes: 1,
        lost_replies: 1,
        retirements: 1,
        deletions: 1,
        ..NONE
    }));
}

#[test]
fn two_sandboxes_survive_a_restarted_scheduler_with_refusals_and_lost_replies() {
    holds(Protocol::new(1, 2, 2).with(Budget {
        scheduler_crashes: 1,
        agent_crashes: 1,
        lost_replies: 1,
        deaths: 1,
        ..NONE
    }));
}

#[test]
fn replies_alone_lost_cost_no_second_pod() {
    holds(Protocol::new(1, 3, 2).with(Budget {
        lost_replies: 2,
        ..NONE
    }));
}

/// Without this, a livelock would have no state in which nothing is left to do, and liveness would hold vacuously.
#[test]
fn every_step_makes_progress() {
    for protocol in [
        late(Protocol::new(2, 2, 1)).with(Budget {
            deadlines: 1,
            lost_replies: 1,
            ..NONE
        }),
        Protocol::new(2, 2, 1).with(Budget {
            scheduler_crashes: 1,
            ..NONE
        }),
        Protocol::new(1, 2, 2).with(Budget {
            agent_crashes: 1,
            deletions: 1,
            retirements: 1,
            ..NONE
        }),
    ] {
        let mut seen = HashSet::new();
        let mut queue = protocol.init_states();
        while let Some(state) = queue.pop() {
            assert!(properties::progress(&protocol, &state), "{state:#?}");
            let next = protocol.next_states(&state).into_iter();
            queue.extend(next.filter(|n| seen.insert(*n)));
        }
        println!("{} states, none comes back", seen.len());
    }
}
