//! Where things that are slow to make are kept: outside the source tree, each under a key that is a hash of everything it was made
//! from, made in a temporary folder and renamed whole. Used for tools and images.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::{files, lock};

/// The cache folder: `PILOTLIGHT_CACHE`, else below the user's cache folder.
pub(crate) fn root() -> PathBuf {
    choose_root(
        std::env::var_os("PILOTLIGHT_CACHE").map(PathBuf::from),
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        std::env::var_os("HOME").map(PathBuf::from),
    )
}

fn choose_root(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let set = |path: &PathBuf| path.is_absolute();
    own.filter(set)
        .or_else(|| xdg.filter(set).map(|folder| folder.join("pilotlight")))
        .or_else(|| {
            home.filter(set)
                .map(|folder| folder.join(".cache/pilotlight"))
        })
        .unwrap_or_else(|| PathBuf::from("/var/cache/pilotlight"))
}

/// A short hash of parts; the length of each part is hashed too, so that parts cannot run into each other.
pub(crate) fn key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..8])
}

/// The entry `kind/name-key`, made by `make` in an empty temporary folder if it is not there yet.
pub(crate) fn entry(
    kind: &str,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    entry_in(&root(), kind, name, key, make)
}

fn entry_in(
    root: &Path,
    kind: &str,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = root.join(kind);
    let done = folder.join(format!("{name}-{key}"));
    if done.is_dir() {
        return Ok(done);
    }
    let _lock = lock::acquire(&folder.join(format!(".{name}.lock")))?;
    if done.is_dir() {
        return Ok(done);
    }
    let work = folder.join(format!(".{name}.partial"));
    if work.exists() {
        // Left by a run that was killed; nobody else works here, we hold the lock.
        fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
    }
    files::create_dir(&work)?;
    make(&work)?;
    fs::rename(&work, &done).map_err(Error::io("rename into place", &done))?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_every_part_and_with_their_borders() {
        assert_eq!(key(["a", "bc"]), key(["a", "bc"]));
        assert_ne!(key(["a", "bc"]), key(["ab", "c"]));
        assert_ne!(key(["a", "bc"]), key(["a", "bc", ""]));
        assert_eq!(key(["x"]).len(), 16);
    }

    #[test]
    fn the_own_variable_wins_over_xdg_over_home() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            choose_root(path("/a"), path("/b"), path("/c")),
            Path::new("/a")
        );
        assert_eq!(
            choose_root(path(""), path("/b"), path("/c")),
            Path::new("/b/pilotlight")
        );
        assert_eq!(
            choose_root(None, None, path("/c")),
            Path::new("/c/.cache/pilotlight")
        );
        assert_eq!(
            choose_root(None, None, None),
            Path::new("/var/cache/pilotlight")
        );
    }

    #[test]
    fn an_entry_is_made_once_and_a_failed_one_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let failed = entry_in(folder.path(), "t", "n", "k", |work| {
            files::write(&work.join("half"), "x")?;
            Err(Error::NoCluster(PathBuf::new()))
        });
        assert!(failed.is_err());
        let made = entry_in(folder.path(), "t", "n", "k", |work| {
            assert!(!work.join("half").exists());
            files::write(&work.join("whole"), "x")
        })
        .unwrap();
        assert!(made.join("whole").exists());
        entry_in(folder.path(), "t", "n", "k", |_| panic!("made twice")).unwrap();
    }
}
