//! The assignment protocol as a model that is checked exhaustively.
//!
//! Who reads this: whoever changes the order of writes in the scheduler or the agent. Change the model first,
//! run `cargo test -p pilotlight-model`, and let it find the interleaving that the change forgot.
//!
//! What is in the model, and why it is enough:
//!
//! * **API server** ([`state::State`]): objects change one at a time, and the set-once rules of `assignedTo` and
//!   `podName` decide each patch. A request in flight is executed at any later time, even after its sender
//!   crashed, and its reply can be lost. Execution and reply are one step: a late reply is a lost one that the
//!   resend answers, and a request that is never executed is one that was never sent.
//! * **Watches**: each scheduler has its own copy of each object, brought up to date at any time. A delivery that
//!   arrives late is the same as one that arrived at once and was acted on late, so nothing else is needed for lag.
//! * **Node stream**: what a scheduler ever learned of an assignment can reach the agent at any time, never, or
//!   again and again, in any order, after the assignment is long over too: loss, repetition and reordering at once.
//! * **Crashes**: a scheduler or an agent loses all it knows, at every step. It is back at once: a long absence
//!   is one in which none of its steps happens to be taken.
//! * **Refusal, deadline, idle deletion, a deleted Sandbox, a dead pod**: one step each, at any time.
//!
//! Faults are bounded by [`config::Budget`]. Apart from them every step makes progress
//! ([`State::rank`](state::State::rank)), so there is no cycle, every run ends, and liveness is what holds in every state in which no more
//! protocol step is possible ([`properties`]). That is sound, unlike an `eventually` on a graph with cycles.

pub mod config;
mod effects;
pub mod properties;
pub mod state;
pub mod steps;
