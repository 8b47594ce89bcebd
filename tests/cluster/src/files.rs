//! Small file operations with errors that name the file. Used by every module that writes state, configuration or caches.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Creates a folder and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create the folder", path))
}

/// Writes a file readable by all.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).map_err(Error::io("write", path))
}

/// Writes a file only its owner may read: keys and kubeconfigs.
pub(crate) fn write_secret(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Error::io("protect", path))
}

/// Writes a program that all may run.
pub(crate) fn write_program(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io("protect", path))
}

/// Replaces a file in one step: a reader, or a kill at any moment, sees the old content or the new.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file =
        tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write into", folder))?;
    file.write_all(content.as_ref())
        .map_err(Error::io("write", path))?;
    file.persist(path).map_err(|error| Error::Io {
        action: "replace",
        path: path.to_path_buf(),
        source: error.error,
    })?;
    Ok(())
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}
