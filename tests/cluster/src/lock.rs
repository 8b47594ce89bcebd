//! A lock between processes on a file that may be removed meanwhile: `flock`, and a look whether the path still names the locked
//! file. Used by the tools and image caches (two runs must not build twice) and by everything that changes a cluster's state.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::progress::say;

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits for the lock; says so when somebody else has it.
pub(crate) fn acquire(path: &Path) -> Result<Lock> {
    if let Some(folder) = path.parent() {
        files::create_dir(folder)?;
    }
    let mut said = false;
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open the lock", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !said {
                    said = true;
                    say(format_args!(
                        "waiting for another run that holds {}",
                        path.display()
                    ));
                }
                file.lock().map_err(Error::io("lock", path))?;
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    action: "lock",
                    path: path.to_path_buf(),
                    source,
                });
            }
        }
        let held = file.metadata().map_err(Error::io("look at", path))?;
        let named = path.metadata();
        if named.is_ok_and(|named| named.ino() == held.ino() && named.dev() == held.dev()) {
            return Ok(Lock { _file: file });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = acquire(&path).unwrap();
        assert!(matches!(
            File::open(&path).unwrap().try_lock(),
            Err(TryLockError::WouldBlock)
        ));
        drop(first);
        drop(acquire(&path).unwrap());
    }

    #[test]
    fn a_removed_lock_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let _first = acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(acquire(&path).unwrap());
    }
}
