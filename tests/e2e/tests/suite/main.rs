//! The end-to-end suite, on a real cluster. One binary, so that the installation is made once.
#![allow(clippy::print_stdout, clippy::print_stderr)] // Times and what was left out are for people to read.

mod alone;
mod assignment;
mod auth;
mod cold;
mod confinement;
mod ends;
mod fields;
mod input;
mod lifecycle;
mod network;
mod other_api;
mod pools;
mod profiles;
mod runtimes;
mod seccomp;
mod storage;
