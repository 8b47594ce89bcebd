//! The file tree of an image as a tar stream: sorted, without times, parents before children. Used by `archive` only.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// One thing at a path.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A folder.
    Folder { mode: u32, owner: (u64, u64) },
    /// A file of the host.
    File {
        source: PathBuf,
        mode: u32,
        owner: (u64, u64),
    },
    /// A file by its content.
    Content { content: Vec<u8>, mode: u32 },
    /// A symbolic link.
    Link { target: PathBuf },
    /// Another name of a file that comes earlier in the layer.
    Same { first: PathBuf },
}

/// A file tree; later additions replace earlier ones.
#[derive(Debug, Default)]
pub(super) struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Layer {
    /// Puts one entry at an absolute path, and folders above it where there are none.
    pub(super) fn add(&mut self, path: &Path, entry: Entry) -> std::result::Result<(), String> {
        let mut relative = PathBuf::new();
        for part in path.components() {
            match part {
                Component::RootDir => {}
                Component::Normal(name) => relative.push(name),
                Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(format!("{} is not a plain absolute path", path.display()));
                }
            }
        }
        if !path.is_absolute() || relative.as_os_str().is_empty() {
            return Err(format!("{} is not a plain absolute path", path.display()));
        }
        let mut above = relative.parent();
        while let Some(folder) = above.filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries
                .entry(folder.to_path_buf())
                .or_insert(Entry::Folder {
                    mode: 0o755,
                    owner: (0, 0),
                });
            above = folder.parent();
        }
        self.entries.insert(relative, entry);
        Ok(())
    }

    /// Takes over a root folder with owners, permissions and hard links. Devices are left out: the runtime brings its own /dev.
    pub(super) fn add_root(&mut self, root: &Path) -> Result<()> {
        let mut found = Vec::new();
        walk(root, &mut found)?;
        found.sort();
        let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for path in found {
            let meta = path
                .symlink_metadata()
                .map_err(Error::io("look at", &path))?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
            let (mode, owner) = (
                meta.permissions().mode() & 0o7777,
                (meta.uid().into(), meta.gid().into()),
            );
            let kind = meta.file_type();
            let entry = if kind.is_dir() {
                Entry::Folder { mode, owner }
            } else if kind.is_symlink() {
                Entry::Link {
                    target: fs::read_link(&path).map_err(Error::io("read the link", &path))?,
                }
            } else if kind.is_file() {
                let node = (meta.dev(), meta.ino());
                if let Some(first) = linked.get(&node) {
                    Entry::Same {
                        first: first.clone(),
                    }
                } else {
                    if meta.nlink() > 1 {
                        linked.insert(node, name.clone());
                    }
                    Entry::File {
                        source: path,
                        mode,
                        owner,
                    }
                }
            } else {
                continue;
            };
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// Writes the tar stream.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, entry) in &self.entries {
            write_entry(&mut tar, path, entry).map_err(|source| {
                let path = match entry {
                    Entry::File { source, .. } => source,
                    _ => path,
                };
                Error::Io {
                    action: "put into an image",
                    path: path.clone(),
                    source,
                }
            })?;
        }
        tar.finish()
            .map_err(Error::io("finish", Path::new("layer.tar")))
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let path = entry.path();
        if entry
            .file_type()
            .map_err(Error::io("look at", &path))?
            .is_dir()
        {
            walk(&path, found)?;
        }
        found.push(path);
    }
    Ok(())
}

fn write_entry<W: Write>(tar: &mut tar::Builder<W>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_size(0);
    let own = |header: &mut tar::Header, mode: u32, owner: (u64, u64)| {
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
    };
    own(&mut header, 0o777, (0, 0));
    match entry {
        Entry::Folder { mode, owner } => {
            own(&mut header, *mode, *owner);
            header.set_entry_type(tar::EntryType::Directory);
            let mut name = path.as_os_str().to_owned();
            name.push("/");
            tar.append_data(&mut header, PathBuf::from(name), io::empty())
        }
        Entry::File {
            source,
            mode,
            owner,
        } => {
            let file = fs::File::open(source)?;
            own(&mut header, *mode, *owner);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, io::BufReader::new(file))
        }
        Entry::Content { content, mode } => {
            own(&mut header, *mode, (0, 0));
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_slice())
        }
        Entry::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)
        }
        Entry::Same { first } => {
            header.set_entry_type(tar::EntryType::Link);
            tar.append_link(&mut header, path, first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_folder_keeps_permissions_links_and_hard_links() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::write(at("bin/a"), "x").unwrap();
        fs::set_permissions(at("bin/a"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(at("bin/a"), at("bin/b")).unwrap();
        std::os::unix::fs::symlink("a", at("bin/c")).unwrap();
        let mut layer = Layer::default();
        layer.add_root(root.path()).unwrap();
        let mut out = Vec::new();
        layer.write(&mut out).unwrap();
        let mut archive = tar::Archive::new(out.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry
                    .link_name()
                    .unwrap()
                    .map(|link| link.display().to_string());
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                    link,
                )
            })
            .collect();
        assert_eq!(seen[1], ("bin/a".into(), 0o4755, None));
        assert_eq!(seen[2].2.as_deref(), Some("bin/a"));
        assert_eq!(seen[3].2.as_deref(), Some("a"));
    }

    #[test]
    fn paths_that_climb_out_are_refused() {
        let mut layer = Layer::default();
        for path in ["relative", "/a/../b", "/"] {
            assert!(
                layer
                    .add(
                        Path::new(path),
                        Entry::Folder {
                            mode: 0o755,
                            owner: (0, 0)
                        }
                    )
                    .is_err(),
                "{path}"
            );
        }
    }
}
