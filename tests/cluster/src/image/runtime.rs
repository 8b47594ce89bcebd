//! The images sandboxes run: a small Debian with a language. Built once per release and package list, kept in the cache.
//! Called by `pilotlight-cluster runtime-image` and by tests.

use std::path::PathBuf;

use crate::cache;
use crate::error::{Error, Result};
use crate::image::{Image, rootfs};
use crate::progress::say;

/// A runtime image's recipe.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeImage {
    /// What it is called on the command line.
    pub language: &'static str,
    /// The image's name and tag.
    pub name: &'static str,
    /// Debian packages beside the minimum.
    packages: &'static [&'static str],
}

/// Debian's Python 3, at version "3" whatever the minor one, with a pip that installs `pilotlight-sample` 1.0.0 and 2.0.0 from
/// `/opt/wheels` and nothing else.
pub const PYTHON: RuntimeImage = RuntimeImage {
    language: "python",
    name: "pilotlight.local/runtime-python:3",
    packages: &["python3", "python3-pip", "tini"],
};

/// Node.js, whatever Debian's version is.
pub const NODEJS: RuntimeImage = RuntimeImage {
    language: "nodejs",
    name: "pilotlight.local/runtime-nodejs:1",
    packages: &["nodejs", "tini"],
};

const ALL: &[RuntimeImage] = &[PYTHON, NODEJS];

impl RuntimeImage {
    /// The recipe for a language.
    pub fn of(language: &str) -> Result<Self> {
        ALL.iter()
            .copied()
            .find(|image| image.language == language)
            .ok_or_else(|| Error::Image {
                name: language.to_owned(),
                reason: format!(
                    "no recipe; there are: {}",
                    ALL.iter()
                        .map(|image| image.language)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })
    }

    /// The archive, built if it is not in the cache.
    pub fn archive(&self) -> Result<PathBuf> {
        let release = rootfs::release();
        let mut parts = vec![self.name, &release, rootfs::RECIPE, rootfs::WHEELS];
        parts.extend(self.packages);
        let entry = cache::entry(
            "images",
            &format!("runtime-{}", self.language),
            &cache::key(parts),
            |work| {
                say(format_args!(
                    "building {} from Debian {release} (first time: about a minute)",
                    self.name
                ));
                let root = work.join("rootfs");
                rootfs::make(&root, &release, self.packages)?;
                // Stays up by itself, needs no writable place, and runs as the user sandboxes run as.
                let image = Image {
                    rootfs: Some(root.clone()),
                    entrypoint: ["/usr/bin/tini", "--", "sleep", "infinity"]
                        .map(str::to_owned)
                        .to_vec(),
                    env: vec![
                        "LANG=C.UTF-8".into(),
                        "HOME=/workspace".into(),
                        // A read-only root could not keep them anyway.
                        "PYTHONDONTWRITEBYTECODE=1".into(),
                    ],
                    user: "1000:1000".into(),
                    workdir: "/workspace".into(),
                    ..Image::new(self.name)
                };
                image.write(&work.join("image.tar"))?;
                std::fs::remove_dir_all(&root).map_err(Error::io("remove", &root))
            },
        )?;
        Ok(entry.join("image.tar"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found_by_name_and_others_refused() {
        assert_eq!(
            RuntimeImage::of("python").unwrap().name,
            "pilotlight.local/runtime-python:3"
        );
        assert!(
            RuntimeImage::of("cobol")
                .unwrap_err()
                .to_string()
                .contains("python, nodejs")
        );
    }
}
