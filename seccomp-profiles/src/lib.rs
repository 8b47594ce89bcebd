//! Seccomp profiles: the project's own as reviewed data, those of users checked, both rendered as OCI JSON.
//!
//! Pure: no file, no client, no clock. The node agent installs what [`Profile::render`] returns under
//! [`Profile::file_name`], and holds itself to [`agent_profile`]. The data and how to change it: `README.md`.

mod arch;
mod builtin;
mod cover;
mod error;
mod floor;
mod in_process;
mod json;
mod oci;
mod profile;
mod render;
mod rule;
mod user;

pub use arch::Arch;
pub use builtin::{
    BASELINE, Explained, GO, NODEJS, PYTHON, Process, STRICT, agent_profile, built_in, explained,
    for_language,
};
pub use error::ProfileError;
pub use in_process::in_process;
pub use oci::verify;
pub use profile::{Profile, Source};
pub use rule::{Action, Condition, EINVAL, ENOSYS, EPERM, Rule, Test, verdict};
pub use user::MAX_BYTES;

/// What must hold whatever the bytes; for fuzz targets, which fail where this does. A profile that is accepted renders
/// to files that are accepted in turn.
///
/// # Errors
/// Why a rendering of an accepted profile is refused: that is the finding.
pub fn check_any(bytes: &[u8]) -> Result<(), ProfileError> {
    for arch in Arch::ALL {
        // Refusing is what most bytes deserve; that nothing worse happens is what is tried here.
        let _ = verify(bytes, arch);
    }
    let Ok(profile) = Profile::from_user("any", bytes) else {
        return Ok(());
    };
    Arch::ALL
        .into_iter()
        .try_for_each(|arch| verify(&profile.render(arch), arch))
}
