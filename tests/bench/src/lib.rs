//! The load generator, and the measuring tools that the end-to-end tests share with it.
//!
//! `main.rs` reads the arguments; [`run`] is the order of the measurements; every number that is printed comes
//! from [`stats`], [`requests`], [`process`], [`agents`] or [`footprint`].

pub mod agents;
pub mod args;
pub mod connect;
pub mod footprint;
pub mod hub;
pub mod load;
pub mod objects;
pub mod outside;
pub mod process;
pub mod queries;
pub mod report;
pub mod requests;
pub mod run;
pub mod stats;
