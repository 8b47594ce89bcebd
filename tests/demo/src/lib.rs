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

/// The root of the source tree. These programs run from a checkout only.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Cargo, as from a shell: what the cargo that runs this program says of its package is left out. The build script of
/// a TLS crate looks at that, and with it half of the dependencies would be built again for each caller.
pub(crate) fn cargo() -> std::process::Command {
    let mut cargo =
        std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Where everything that is made lies: `CARGO_TARGET_DIR`, else `target` in the source tree.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => workspace().join(folder),
        _ => workspace().join("target"),
    }
}
