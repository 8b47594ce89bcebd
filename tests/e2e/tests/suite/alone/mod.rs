//! Tests that run while no other does: they make faults, measure, or fill the cluster. Tests run in the order of their
//! names, so these come first, one after the other, and the rest is not interrupted by them.

mod agents;
mod cold;
mod distrust;
mod faults;
mod hostile;
mod load;
mod network;
mod node_lost;
mod pinning;
mod refusal;
mod seccomp;
mod unreadable;
