//! What the end-to-end tests stand on: one installation for all of them, a scene of its own for each, a ledger that sees
//! every assignment and publication, and faults.
//!
//! The tests are in `tests/suite`. Two at a time are what two cores and two small nodes can bear: run them with
//! `cargo test -p pilotlight-e2e -- --test-threads=2`. Those whose faults would disturb others wait until they are alone.

pub mod agents;
pub mod attempt;
pub mod environment;
pub mod faults;
pub mod inside;
pub mod ledger;
pub mod reach;
pub mod scene;
pub mod stage;
pub mod state;
pub mod token;
