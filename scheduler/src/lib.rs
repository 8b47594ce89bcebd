//! The scheduler: gives every Sandbox a pod that already runs.
//!
//! `watches` -> `engine` (which owns the `index` and asks it to `decide`) -> `apply`, the only module that
//! writes. `stream` serves the node agents from the index of every replica; `lease` decides which replica acts.
//! `agents` is the other program of this crate: the controller of agents.x-k8s.io.

pub mod action;
pub mod agents;
pub mod apply;
pub mod args;
pub mod decide;
pub mod engine;
pub mod http;
pub mod index;
pub mod input;
pub mod lease;
pub mod metrics;
pub mod pod;
pub mod run;
pub mod stream;
pub mod view;
pub mod watches;
