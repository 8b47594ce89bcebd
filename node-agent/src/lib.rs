//! The node agent: three processes from one binary.
//!
//! [`api`] is unprivileged and does everything that reads from a network: the node stream, the pod watch, status
//! writes, metrics and the sandboxes' DNS. [`host`] runs as root in the node's PID namespace, has no token and no capability, and reads
//! kernel files. [`network`] runs there too, with the capabilities that writing the network rules of pods takes. Both speak to
//! `api` only, over a unix socket each, with the messages of [`protocol`] and [`network_protocol`]. Hostile bytes are parsed in `api`.
//!
//! `api` is one event loop: watches and streams feed [`api::decide`], a pure state machine whose answers
//! [`api::apply`] carries out.

pub mod api;
pub mod args;
pub mod confinement;
pub mod cpu;
pub mod host;
pub mod metrics;
pub mod network;
pub mod network_protocol;
pub mod protocol;
