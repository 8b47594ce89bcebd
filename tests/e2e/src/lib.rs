//! What the end-to-end tests stand on: one installation for all of them, a scene of its own for each, a ledger that sees
//! every assignment and publication, and faults.
//!
//! The tests are in `tests/suite`; run them with `cargo test -p pilotlight-e2e -- --test-threads=1`, as one test's
//! faults would disturb another.

pub mod environment;
pub mod faults;
pub mod inside;
pub mod ledger;
pub mod scene;
pub mod stage;
pub mod state;
