//! The cgroup folders of the control plane and of each node, in every hierarchy of the machine (v1, v2 or both). Made before a
//! node starts, emptied and removed from the leaves by `down`; the freezer pauses a whole node with all its pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{self, Identity};
use crate::{files, process::wait_until};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    v2: bool,
    controllers: Vec<String>,
}

/// Finds the hierarchies in the text of /proc/self/mountinfo.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount = PathBuf::from(left.split(' ').nth(4)?);
            let mut fields = right.split(' ');
            let v2 = match fields.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let controllers = fields
                .nth(1)
                .unwrap_or_default()
                .split(',')
                .map(str::to_owned)
                .collect();
            Some(Hierarchy {
                mount,
                v2,
                controllers,
            })
        })
        .collect()
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let path = Path::new("/proc/self/mountinfo");
    let found = parse(&files::read(path)?);
    if found.is_empty() {
        return Err(Error::Unsupported {
            what: "no cgroup hierarchy is mounted".into(),
            remedy: "mount cgroup v2 on /sys/fs/cgroup".into(),
        });
    }
    Ok(found)
}

/// Makes a top-level cgroup in every hierarchy, with a child `daemons` for processes (v2 allows none beside child groups).
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.mount.join(name);
        if hierarchy.v2 {
            delegate(&hierarchy.mount);
        }
        for folder in [folder.clone(), folder.join("daemons")] {
            files::create_dir(&folder)?;
            if hierarchy
                .controllers
                .iter()
                .any(|controller| controller == "cpuset")
            {
                // A new cpuset is empty, and a task cannot join an empty one.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let parent = folder.parent().unwrap_or(&hierarchy.mount).join(file);
                    files::write(&folder.join(file), files::read(&parent)?.trim())?;
                }
            }
        }
        if hierarchy.v2 {
            delegate(&folder);
        }
    }
    Ok(())
}

/// Hands all controllers of a v2 group to its children. On a hybrid machine v2 has none, and a refused one only lacks there.
fn delegate(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _refused = fs::write(
            folder.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// Moves processes into the `daemons` child of a group, in every hierarchy.
pub(crate) fn join(name: &str, pids: &[i32]) -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.mount.join(name).join("daemons/cgroup.procs");
        for pid in pids {
            if let Err(source) = fs::write(&file, pid.to_string()) {
                // A process that ended meanwhile is told apart from a refused one.
                if Identity::of(*pid).is_some() {
                    return Err(Error::Io {
                        action: "move a process by",
                        path: file,
                        source,
                    });
                }
            }
        }
    }
    Ok(())
}

/// All processes below the groups whose name begins with `prefix`.
pub(crate) fn members(prefix: &str) -> Result<Vec<Identity>> {
    let mut pids = Vec::new();
    for folder in groups(prefix)? {
        for leaf in leaves_first(&folder) {
            let text = fs::read_to_string(leaf.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids.into_iter().filter_map(Identity::of).collect())
}

/// Halts or resumes everything in a group.
pub(crate) fn freeze(name: &str, frozen: bool) -> Result<()> {
    let mut done = false;
    for hierarchy in hierarchies()? {
        let folder = hierarchy.mount.join(name);
        let (file, value, settled) = if hierarchy
            .controllers
            .iter()
            .any(|controller| controller == "freezer")
        {
            (
                "freezer.state",
                if frozen { "FROZEN" } else { "THAWED" },
                "freezer.state",
            )
        } else if hierarchy.v2 && !done {
            (
                "cgroup.freeze",
                if frozen { "1" } else { "0" },
                "cgroup.freeze",
            )
        } else {
            continue;
        };
        let path = folder.join(file);
        if !path.exists() {
            continue;
        }
        files::write(&path, value)?;
        wait_until(Duration::from_secs(5), || {
            fs::read_to_string(folder.join(settled)).is_ok_and(|now| now.trim() == value)
        });
        done = true;
    }
    if done || !frozen {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "no cgroup freezer".into(),
        remedy: "kill the node instead of pausing it, or mount the freezer hierarchy".into(),
    })
}

/// Whether a group is frozen.
pub(crate) fn frozen(name: &str) -> bool {
    hierarchies().unwrap_or_default().iter().any(|hierarchy| {
        let read =
            |file| fs::read_to_string(hierarchy.mount.join(name).join(file)).unwrap_or_default();
        read("freezer.state").trim() == "FROZEN" || read("cgroup.freeze").trim() == "1"
    })
}

/// Removes all groups whose name begins with `prefix`, from the leaves. They must hold no process any more.
pub(crate) fn remove(prefix: &str) -> Result<()> {
    for folder in groups(prefix)? {
        for leaf in leaves_first(&folder) {
            let mut last = None;
            // A group stays busy for a moment after its last process ended.
            let gone = wait_until(Duration::from_secs(10), || match fs::remove_dir(&leaf) {
                Ok(()) => true,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(error) => {
                    last = Some(error);
                    false
                }
            });
            if let (false, Some(source)) = (gone, last) {
                return Err(Error::Io {
                    action: "remove the cgroup",
                    path: leaf,
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Whether any group of such a name is left.
pub(crate) fn exists(prefix: &str) -> Result<bool> {
    Ok(!groups(prefix)?.is_empty())
}

/// The top-level groups whose name begins with `prefix`, in every hierarchy.
fn groups(prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let Ok(entries) = fs::read_dir(&hierarchy.mount) else {
            continue;
        };
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    Ok(found)
}

/// A folder and all below it, each after its children.
fn leaves_first(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.extend(leaves_first(&entry.path()));
            }
        }
    }
    found.push(folder.to_path_buf());
    found
}

/// Moves a freshly started daemon with its launcher and whatever it started meanwhile.
pub(crate) fn adopt(name: &str, daemon: &process::Daemon) -> Result<()> {
    let root = daemon.launcher.unwrap_or(daemon.main);
    join(name, &process::tree(root.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_told_apart() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = parse(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].mount, Path::new("/sys/fs/cgroup/cpuset"));
        assert_eq!(found[0].controllers, ["rw", "cpuset"]);
        assert!(!found[1].v2 && found[2].v2);
    }

    #[test]
    fn children_come_before_their_parents() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let order = leaves_first(folder.path());
        assert_eq!(
            order,
            [
                folder.path().join("a/b"),
                folder.path().join("a"),
                folder.path().to_path_buf()
            ]
        );
    }
}
