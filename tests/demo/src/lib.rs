//! Puts Pilotlight onto a cluster: a given one, one of kind's, or the local one that `pilotlight-cluster` makes.
//!
//! `make up`, `make demo` and `make test` are thin calls of this crate; the end-to-end tests and the load generator
//! use [`install()`] too, so that all of them run what a user gets.

pub mod demo;
mod diagnose;
mod images;
mod install;
mod local;
mod progress;
mod run;
mod source;
pub mod suite;
mod wait;

pub use images::{ImageNames, pack};
pub use install::{InstallOptions, Installation, NAMESPACE, down, install};
pub use source::Source;

use std::path::{Path, PathBuf};

pub(crate) use pilotlight_cluster::cargo;

/// The root of the source tree. These programs run from a checkout only.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Where everything that is made lies: `CARGO_TARGET_DIR`, else `target` in the source tree.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => workspace().join(folder),
        _ => workspace().join("target"),
    }
}
