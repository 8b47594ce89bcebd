//! Removes a cluster, whole or half made, healthy or crashed: processes, links, cgroups, mounts, files. Only what the state file,
//! the id in a process's environment, or a name of the plan shows to be the cluster's own. Called by `down` and before `up`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::{command, run};
use crate::component::Component;
use crate::error::{Error, Result};
use crate::plan::{INSTANCE_PREFIX, Plan};
use crate::process::{Identity, mark, marked, wait_until};
use crate::progress::say;
use crate::state::State;
use crate::{cgroup, files, lock, network, packages, sysctl};

/// How long processes may take to vanish after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// Removes the cluster of a state folder. The instance is taken from the state file where there is one.
pub fn down(dir: &Path, instance: u8) -> Result<()> {
    packages::require_root()?;
    let dir = std::path::absolute(dir).map_err(Error::io("find", dir))?;
    let plan = match State::load(&dir) {
        Ok(Some(state)) => state.plan,
        _ => Plan { instance, dir },
    };
    let lock = lock::acquire(&plan.lock())?;
    remove(&plan)?;
    let path = plan.lock();
    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    drop(lock);
    say("the cluster is gone");
    Ok(())
}

/// The same under a lock the caller holds.
pub(crate) fn remove(plan: &Plan) -> Result<()> {
    // A damaged state file must not stand in the way of cleaning up; names and cgroups still tell what is ours.
    let state = State::load(&plan.dir).unwrap_or(None);
    let damaged = state.is_none() && State::path(&plan.dir).exists();
    if !damaged {
        refuse_foreign_processes(plan, state.as_ref())?;
    }
    if state.is_none() && !damaged {
        refuse_foreign_files(&plan.dir)?;
    }
    if let Some(state) = &state {
        end_processes(state)?;
    }
    end_members(plan)?;
    if network::exists(plan) {
        say("removing the network");
    }
    network::remove(plan)?;
    cgroup::remove(&plan.cgroup_prefix())?;
    unmount_below(&plan.dir)?;
    if plan.dir.exists() {
        say("removing files");
        fs::remove_dir_all(&plan.dir).map_err(Error::io("remove", &plan.dir))?;
    }
    let Some(state) = state else { return Ok(()) };
    sysctl::restore(&state.sysctls);
    if cgroup::exists(INSTANCE_PREFIX)? {
        // Removing a mount point would take the mounts of another instance's nodes with it.
        return Ok(());
    }
    for path in state.mount_points {
        // Not ours any more if somebody put something in.
        let _kept = fs::remove_dir(path);
    }
    Ok(())
}

/// Another state folder may use the same instance: its processes are not ours to end.
fn refuse_foreign_processes(plan: &Plan, state: Option<&State>) -> Result<()> {
    let own = state.map(|state| state.id.as_str());
    let members = cgroup::members(&plan.cgroup_prefix())?;
    if !members
        .iter()
        .any(|member| mark(member.pid).is_some_and(|id| Some(id.as_str()) != own))
    {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!(
            "a cluster of another state folder uses instance {}",
            plan.instance
        ),
        remedy: "remove that one with its --state-dir, or choose another --instance".into(),
    })
}

/// A folder without a state file is somebody else's, unless a run was killed before it wrote anything else.
fn refuse_foreign_files(dir: &Path) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    if entries.all(|entry| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"))
    }) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("{} holds files but no cluster", dir.display()),
        remedy: "choose an empty folder by --state-dir".into(),
    })
}

fn end_processes(state: &State) -> Result<()> {
    // A frozen process does not even die.
    for node in state.plan.nodes(state.nodes) {
        cgroup::freeze(&node.cgroup, false)?;
    }
    if !state.daemons.is_empty() {
        say("ending all processes");
    }
    // Nodes first: with its init a node's pods and daemons go at once, and no controller sees them go one by one.
    let nodes = (1..=state.nodes).map(|number| Component::Node(number).to_string());
    for name in nodes.chain(state.daemons.keys().cloned()) {
        if let Some(daemon) = state.daemons.get(&name) {
            daemon.main.signal(Signal::SIGKILL);
            if let Some(launcher) = daemon.launcher {
                launcher.signal(Signal::SIGCONT);
            }
        }
    }
    let left = |state: &State| -> Vec<Identity> {
        let recorded = state
            .daemons
            .values()
            .flat_map(|daemon| [Some(daemon.main), daemon.launcher])
            .flatten();
        recorded
            .filter(|process| process.alive())
            .chain(marked(&state.id))
            .collect()
    };
    end_all(|| left(state))
}

/// What is still in the cluster's own cgroups, whoever started it.
fn end_members(plan: &Plan) -> Result<()> {
    end_all(|| cgroup::members(&plan.cgroup_prefix()).unwrap_or_default())
}

fn end_all(left: impl Fn() -> Vec<Identity>) -> Result<()> {
    let gone = wait_until(KILL_LIMIT, || {
        let left = left();
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        left.is_empty()
    });
    if gone {
        return Ok(());
    }
    let pids: Vec<String> = left()
        .iter()
        .map(|process| process.pid.to_string())
        .collect();
    Err(Error::Timeout {
        what: format!("processes {} to end after SIGKILL", pids.join(", ")),
        seconds: KILL_LIMIT.as_secs(),
        hint: "look at their /proc/PID/stack; then run `down` again".into(),
    })
}

/// Unmounts everything below a folder, the deepest first.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = mounts_below(&files::read(Path::new("/proc/self/mountinfo"))?, dir);
    for mount in mounts {
        run(command("umount", ["--lazy"]).arg(&mount))?;
    }
    Ok(())
}

fn mounts_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(field.replace("\\040", " ")))
        .filter(|path| path.starts_with(dir) && path != dir)
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_files_is_never_emptied() {
        let dir = tempfile::tempdir().unwrap();
        refuse_foreign_files(dir.path()).unwrap();
        fs::write(dir.path().join(".tmpAbc"), "").unwrap();
        refuse_foreign_files(dir.path()).unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(
            refuse_foreign_files(dir.path())
                .unwrap_err()
                .to_string()
                .contains("holds files but no cluster")
        );
    }

    #[test]
    fn mounts_are_removed_from_the_deepest_and_neighbours_stay() {
        let text = "1 0 0:1 / /state/a rw - tmpfs x rw\n2 0 0:1 / /state/a/b\\040c rw - tmpfs x rw\n\
                    3 0 0:1 / /state2/a rw - tmpfs x rw\n4 0 0:1 / /state rw - tmpfs x rw\n";
        let found = mounts_below(text, Path::new("/state"));
        assert_eq!(found, [Path::new("/state/a/b c"), Path::new("/state/a")]);
    }
}
