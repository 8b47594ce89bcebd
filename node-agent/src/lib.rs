//! The node agent: two processes from one binary.
//!
//! [`api`] is unprivileged and does everything that touches a network: the node stream, the pod watch, status
//! writes and metrics. [`host`] runs as root in the node's PID namespace, has no token and speaks to `api` only, over
//! a unix socket with the messages of [`protocol`]. Hostile bytes are parsed in `api`; `host` reads kernel files.
//!
//! `api` is one event loop: watches and streams feed [`api::decide`], a pure state machine whose answers
//! [`api::apply`] carries out.

pub mod api;
pub mod args;
pub mod host;
pub mod metrics;
pub mod protocol;
