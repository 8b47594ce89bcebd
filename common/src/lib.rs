//! What the scheduler, the node agent and the tests share: the kinds, the names, quantities, the resolved
//! sandbox and the messages of the node stream.
//!
//! Nothing here holds a client, reads a clock or starts a task: every function is a pure one.

pub mod agents;
pub mod baseline;
pub mod fates;
pub mod kinds;
pub mod names;
pub mod network;
pub mod quantity;
pub mod reasons;
pub mod resolve;
pub mod stream;
