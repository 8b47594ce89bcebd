//! A real Kubernetes cluster on one Linux machine, without Docker and without an image registry: control plane processes on the
//! host, nodes in namespaces of their own, images from archives. Used by the end-to-end tests, the benchmarks and `make`.
//!
//! [`Cluster::up`] makes it, [`Cluster::component`] breaks and repairs parts of it, [`down()`] removes it without a trace.

mod cache;
mod cargo;
mod cgroup;
mod cluster;
mod command;
mod component;
mod control_plane;
mod down;
mod error;
mod files;
pub mod image;
mod lock;
mod network;
mod node;
mod node_config;
mod objects;
mod operate;
mod own_program;
mod packages;
mod pki;
mod plan;
mod process;
mod progress;
mod start;
mod state;
mod storage;
mod sysctl;
mod target;
mod tools;
mod up;

pub use cargo::cargo;
pub use cluster::Cluster;
pub use component::{Component, NodeDaemon};
pub use down::down;
pub use error::{Error, Result};
pub use objects::{GVISOR_RUNTIME_CLASS, STORAGE_CLASS};
pub use operate::ComponentHandle;
pub use packages::require_for_tests;
pub use plan::{API_SERVICE, DNS_SERVICE, MAX_INSTANCE, OUTSIDE_ADDRESSES, OUTSIDE_DOMAIN, Plan};
pub use storage::serve_storage;
pub use target::{Choice, Target, choose, choose_with, down_kind};
pub use tools::Tools;
pub use up::UpOptions;
