//! Container images without a container tool: archives in Docker's format, built from files on the host.
//! Used for the cluster's own pause image, the runtime images, and by tests that pack their own programs.

mod archive;
mod layer;
mod pause;
mod program;
mod rootfs;
mod runtime;

pub use archive::Image;
pub use program::program_image;
pub use runtime::{NODEJS, PYTHON, RuntimeImage};

pub(crate) use pause::{NAME as PAUSE, archive as pause_archive};
