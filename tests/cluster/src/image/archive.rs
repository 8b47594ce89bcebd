//! What an image holds, and the archive made from it: the layer, the configuration and the manifest `docker load`, `kind load` and
//! `ctr images import` read. The same content always gives the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::image::layer::{Entry, Layer};

/// An image to be built.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// `name:tag`, with a registry part that leads nowhere, such as `pilotlight.local/x:1`.
    pub name: String,
    /// A whole root folder below everything else.
    pub rootfs: Option<PathBuf>,
    /// Files of the host: path on the host, path in the image, permission bits.
    pub files: Vec<(PathBuf, String, u32)>,
    /// Small files by content: path in the image, content, permission bits.
    pub contents: Vec<(String, Vec<u8>, u32)>,
    /// Folders and their permission bits; parents of files need not be listed.
    pub directories: Vec<(String, u32)>,
    /// Symbolic links: path in the image, what it points to.
    pub symlinks: Vec<(String, String)>,
    /// The program and its arguments.
    pub entrypoint: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// `uid:gid`, numeric, so that Kubernetes can check it is not root; empty for root.
    pub user: String,
    /// Working directory; empty for `/`.
    pub workdir: String,
}

impl Image {
    /// An image of that name with nothing in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Builds the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        if !self.name.contains(':') || self.entrypoint.is_empty() {
            return Err(self.refuse("it needs a name with a tag, and an entrypoint"));
        }
        let folder = archive.parent().unwrap_or(Path::new("."));
        let mut layer_file =
            tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write into", folder))?;
        let diff = self.write_layer(layer_file.as_file_mut())?;
        let config = self.config(&diff)?;
        let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        let manifest = self.json(&serde_json::json!([{
            "Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"],
        }]))?;

        // Written beside and renamed: nobody ever reads half an archive.
        let out =
            tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write into", folder))?;
        let mut tar = tar::Builder::new(io::BufWriter::new(out));
        let fail = |source| Error::Io {
            action: "write the image archive",
            path: archive.to_path_buf(),
            source,
        };
        append(&mut tar, "manifest.json", &manifest).map_err(fail)?;
        append(&mut tar, &config_name, &config).map_err(fail)?;
        let layer = layer_file.reopen().map_err(fail)?;
        let mut header = plain_header(layer.metadata().map_err(fail)?.len());
        tar.append_data(&mut header, "layer.tar", io::BufReader::new(layer))
            .map_err(fail)?;
        let out = tar
            .into_inner()
            .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error))
            .map_err(fail)?;
        let out = out.persist(archive).map_err(|error| fail(error.error))?;
        // A temporary file is private; an archive may be read by all.
        out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .map_err(fail)
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Image {
            name: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn json(&self, value: &serde_json::Value) -> Result<Vec<u8>> {
        serde_json::to_vec(value).map_err(|error| self.refuse(error.to_string()))
    }

    /// Writes the layer and returns the hash of its content.
    fn write_layer(&self, out: &mut File) -> Result<String> {
        let mut layer = Layer::default();
        if let Some(root) = &self.rootfs {
            layer.add_root(root)?;
        }
        let entries = self
            .directories
            .iter()
            .map(|(path, mode)| {
                (
                    path,
                    Entry::Folder {
                        mode: *mode,
                        owner: (0, 0),
                    },
                )
            })
            .chain(self.files.iter().map(|(source, path, mode)| {
                (
                    path,
                    Entry::File {
                        source: source.clone(),
                        mode: *mode,
                        owner: (0, 0),
                    },
                )
            }))
            .chain(self.contents.iter().map(|(path, content, mode)| {
                (
                    path,
                    Entry::Content {
                        content: content.clone(),
                        mode: *mode,
                    },
                )
            }))
            .chain(self.symlinks.iter().map(|(path, target)| {
                (
                    path,
                    Entry::Link {
                        target: PathBuf::from(target),
                    },
                )
            }));
        for (path, entry) in entries.collect::<Vec<_>>() {
            layer
                .add(Path::new(path), entry)
                .map_err(|reason| self.refuse(reason))?;
        }
        let mut hashing = Hashing {
            out: io::BufWriter::new(out),
            hash: Sha256::new(),
        };
        layer.write(&mut hashing)?;
        hashing
            .flush()
            .map_err(|error| self.refuse(error.to_string()))?;
        Ok(format!("sha256:{}", hex::encode(hashing.hash.finalize())))
    }

    fn config(&self, diff: &str) -> Result<Vec<u8>> {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let mut env = self.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.insert(0, path);
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        // A map sorted by name, and a fixed date: the same image has the same hash on every day.
        let mut config = BTreeMap::from([
            ("Entrypoint", serde_json::json!(self.entrypoint)),
            ("Env", serde_json::json!(env)),
        ]);
        if !self.user.is_empty() {
            config.insert("User", serde_json::json!(self.user));
        }
        config.insert(
            "WorkingDir",
            serde_json::json!(if self.workdir.is_empty() {
                "/"
            } else {
                &self.workdir
            }),
        );
        self.json(&serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [diff] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "pilotlight-cluster" }],
        }))
    }
}

fn plain_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut plain_header(content.len() as u64), name, content)
}

/// Hashes what is written through it.
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image(folder: &Path) -> Image {
        std::fs::write(folder.join("program"), "content").unwrap();
        Image {
            files: vec![(folder.join("program"), "/bin/program".into(), 0o755)],
            contents: vec![("/etc/passwd".into(), b"root".to_vec(), 0o644)],
            directories: vec![("/tmp".into(), 0o1777)],
            symlinks: vec![("/bin/link".into(), "program".into())],
            entrypoint: vec!["/bin/program".into()],
            user: "1000:1000".into(),
            ..Image::new("pilotlight.local/test:1")
        }
    }

    fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        });
        entries.collect()
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
        image(folder.path()).write(&a).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        image(folder.path()).write(&b).unwrap();
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }

    #[test]
    fn manifest_configuration_and_layer_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        image(folder.path()).write(&path).unwrap();
        let outer = members(&std::fs::read(path).unwrap());
        let manifest: serde_json::Value = serde_json::from_slice(&outer["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "pilotlight.local/test:1");
        let config = &outer[manifest[0]["Config"].as_str().unwrap()];
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        let diff = format!(
            "sha256:{}",
            hex::encode(Sha256::digest(&outer["layer.tar"]))
        );
        assert_eq!(config["rootfs"]["diff_ids"][0], diff);
        assert_eq!(config["config"]["User"], "1000:1000");
        let layer = members(&outer["layer.tar"]);
        assert_eq!(layer["bin/program"], b"content");
        assert!(
            layer.contains_key("etc/")
                && layer.contains_key("tmp/")
                && layer.contains_key("bin/link")
        );
    }

    #[test]
    fn an_image_without_tag_or_entrypoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        assert!(Image::new("x").write(&path).is_err());
        assert!(Image::new("x:1").write(&path).is_err());
        assert!(!path.exists());
    }
}
