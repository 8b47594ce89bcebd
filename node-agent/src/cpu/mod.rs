//! Whole CPUs for single sandboxes: everything about it that is a function of data.
//!
//! [`topology`] reads what the kernel says of the machine, [`allocate`] chooses CPUs, [`checkpoint`] is the memory of what
//! was given, [`adopt`] reconciles that memory with the cgroups that are there, and [`plan`] says which cgroup has to hold
//! which CPUs. [`crate::host::cpuset`] reads and writes the files; nothing in here does.

pub mod adopt;
pub mod allocate;
pub mod checkpoint;
#[cfg(test)]
mod machines;
pub mod plan;
pub mod set;
pub mod topology;

pub use allocate::{Allocation, Pool, Shortage};
pub use set::CpuSet;
pub use topology::Topology;
