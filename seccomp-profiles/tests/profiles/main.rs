//! What the profiles are held to: how they are written, what they refuse, what becomes of them in a container runtime
//! and in the kernel, and that programs run under them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]
#![allow(
    clippy::too_many_lines,
    reason = "long tests are tables: a case in each line"
)]
#![allow(
    clippy::print_stderr,
    reason = "which interpreter was found is for people to read"
)]

mod bpf;
mod compiled;
mod data;
mod edges;
mod forbidden;
mod kernel;
mod languages;
mod lists;
mod reading;
mod runc;
mod system;
mod tables;
