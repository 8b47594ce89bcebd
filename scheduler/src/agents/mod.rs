//! The controller of `agents.x-k8s.io` Sandboxes: a process of its own (`pilotlight-scheduler agents`), since its pods are whatever its users
//! write, and the account that makes the pods of `llmsafespace.dev` may make none of that kind.
//!
//! [`watches`](crate::watches) -> [`engine`] (which owns the [`index`] and asks it to [`decide`]) -> [`apply`], the only module that writes.
//! [`webhook`] converts between both versions of the API on every replica; [`authority`] has the API server trust it.

mod apply;
mod authority;
mod children;
pub mod decide;
mod engine;
pub mod index;
pub mod metadata;
mod metrics;
pub mod pod;
mod run;
pub mod service;
pub mod status;
mod timers;
pub mod view;
mod webhook;
pub mod write;

pub use run::run;
