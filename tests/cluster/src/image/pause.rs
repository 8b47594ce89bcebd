//! The pause image: twenty lines of C, linked statically. Loaded into every node before its kubelet starts.

use std::path::PathBuf;

use crate::cache;
use crate::command::{command, run};
use crate::error::{Error, Result};
use crate::files;
use crate::image::Image;
use crate::progress::say;

/// The name containerd is told.
pub(crate) const NAME: &str = "pilotlight.local/pause:1";
const SOURCE: &str = include_str!("pause.c");

/// The archive, built once.
pub(crate) fn archive() -> Result<PathBuf> {
    let folder = cache::entry("images", "pause", &cache::key([NAME, SOURCE]), |work| {
        say("building the pause image");
        let build =
            tempfile::tempdir().map_err(Error::io("create a folder in", &std::env::temp_dir()))?;
        let (source, program) = (build.path().join("pause.c"), build.path().join("pause"));
        files::write(&source, SOURCE)?;
        run(command("cc", ["-Os", "-static", "-s", "-o"])
            .arg(&program)
            .arg(&source))?;
        let image = Image {
            files: vec![(program, "/pause".into(), 0o755)],
            entrypoint: vec!["/pause".into()],
            user: "65535:65535".into(),
            ..Image::new(NAME)
        };
        image.write(&work.join("image.tar"))
    })?;
    Ok(folder.join("image.tar"))
}
