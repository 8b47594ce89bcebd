//! Processes by pid and start time, so that a reused pid is never taken for ours, and daemons: started in sessions of their own
//! with a log file, so that they outlive the program that started them. Used by the control plane, nodes and component operations.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::command::command;
use crate::error::{Error, Result};

/// The environment variable that marks every process of a cluster with the cluster's random id.
pub(crate) const MARK: &str = "PILOTLIGHT_CLUSTER_ID";

/// How much of a dead component's log is quoted.
const QUOTED_LINES: usize = 12;

/// One process, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot: a later process with the same number differs here.
    pub(crate) start: u64,
}

impl Identity {
    /// The process that has this number now, unless it is already dead.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!stat.dead()).then_some(Self {
            pid,
            start: stat.start,
        })
    }

    /// Whether it still runs (a zombie does not).
    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it is stopped by a signal.
    pub(crate) fn stopped(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start == self.start && stat.state == 'T')
    }

    /// Sends a signal if it still runs; that it ends meanwhile is no error.
    pub(crate) fn signal(self, signal: Signal) {
        if self.alive() {
            // The only other failure, a lack of permission, shows as a process that does not end.
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits for its end.
    pub(crate) fn wait_gone(self, limit: Duration) -> bool {
        wait_until(limit, || !self.alive())
    }
}

/// The fields of /proc/PID/stat this crate needs.
struct Stat {
    state: char,
    parent: i32,
    start: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name stands in parentheses and may hold anything, so count from the last one.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // `starttime` is field 22 of the whole line; state was the third and ppid the fourth.
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self {
            state,
            parent,
            start,
        })
    }

    fn dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// All process numbers of the machine.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The children of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    all_pids()
        .into_iter()
        .filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// A process and everything below it.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = all_pids()
        .into_iter()
        .filter_map(|pid| Some((pid, Stat::read(pid)?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(pid, above)| *above == parent && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    found
}

/// All processes that carry the mark of a cluster.
pub(crate) fn marked(id: &str) -> Vec<Identity> {
    all_pids()
        .into_iter()
        .filter(|pid| mark(*pid).as_deref() == Some(id))
        .filter_map(Identity::of)
        .collect()
}

/// The id of the cluster a process was started for. What containers run has an environment of its own and none.
pub(crate) fn mark(pid: i32) -> Option<String> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARK}=");
    let value = environ
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A long-running process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Daemon {
    /// The process itself.
    pub(crate) main: Identity,
    /// The `nsenter` or `unshare` above it, which waits for it.
    pub(crate) launcher: Option<Identity>,
}

impl Daemon {
    /// Whether the process itself runs.
    pub(crate) fn alive(&self) -> bool {
        self.main.alive()
    }

    /// Halts it. `nsenter` halts itself too when its child does.
    pub(crate) fn pause(&self) {
        self.main.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.main.signal(Signal::SIGCONT);
        if let Some(launcher) = self.launcher {
            launcher.signal(Signal::SIGCONT);
        }
    }

    /// Ends it at once and waits for that.
    pub(crate) fn kill(&self) -> bool {
        self.main.signal(Signal::SIGKILL);
        // The launcher reaps it; a halted one must go on for that.
        if let Some(launcher) = self.launcher {
            launcher.signal(Signal::SIGCONT);
        }
        let gone = self.main.wait_gone(Duration::from_secs(10));
        if let Some(launcher) = self.launcher {
            launcher.signal(Signal::SIGKILL);
            launcher.wait_gone(Duration::from_secs(5));
        }
        gone
    }

    /// Asks it to end, and makes it end after `limit`.
    pub(crate) fn stop(&self, limit: Duration) -> bool {
        self.resume();
        self.main.signal(Signal::SIGTERM);
        self.main.wait_gone(limit);
        self.kill()
    }
}

/// How a daemon is started.
pub(crate) struct Launch<'a> {
    /// The component's name, for messages.
    pub(crate) name: &'a str,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Whether the program is an `nsenter` or `unshare` whose child is the component.
    pub(crate) nested: bool,
    /// PATH for it.
    pub(crate) path: &'a str,
    /// The cluster's id.
    pub(crate) id: &'a str,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// Starts a daemon in a session of its own. The caller writes it to the state at once; should it be killed before that, the mark
/// in the environment finds the process.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Daemon> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&launch.log)
        .map_err(Error::io("open the log", &launch.log))?;
    let errors = log
        .try_clone()
        .map_err(Error::io("open the log", &launch.log))?;
    let mut start: Command = command("setsid", &launch.argv);
    start
        .env_clear()
        .env("PATH", launch.path)
        .env("HOME", "/")
        .env(MARK, launch.id);
    start
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let mut child = start.spawn().map_err(|source| Error::Start {
        program: launch.name.to_owned(),
        source,
    })?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    // While this program lives it is the parent and must collect the dead; afterwards init does.
    let started = Identity::of(pid);
    thread::spawn(move || child.wait());
    let Some(started) = started else {
        return Err(died(launch.name, &launch.log));
    };
    if !launch.nested {
        return Ok(Daemon {
            main: started,
            launcher: None,
        });
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while started.alive() && Instant::now() < deadline {
        if let Some(main) = children(pid).into_iter().find_map(Identity::of) {
            return Ok(Daemon {
                main,
                launcher: Some(started),
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
    started.signal(Signal::SIGKILL);
    Err(died(launch.name, &launch.log))
}

/// The error for a component that ended, with the end of its log.
pub(crate) fn died(component: &str, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
    Error::Died {
        component: component.to_owned(),
        log: log.to_path_buf(),
        tail,
    }
}

/// Polls until a condition holds or time is over.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_confuse_the_parser() {
        let line = "42 (a) R (b)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), ('S', 7, 12345));
        assert!(Stat::parse("42 (x").is_none());
        assert!(Stat::parse("42 (x) S 1").is_none());
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(
            !Identity {
                start: me.start + 1,
                ..me
            }
            .alive()
        );
    }

    #[test]
    fn a_daemon_is_found_by_its_mark_paused_resumed_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let id = format!("test-{}", std::process::id());
        let daemon = launch(&Launch {
            name: "sleeper",
            argv: vec!["sleep".into(), "60".into()],
            nested: false,
            path: "/usr/bin:/bin",
            id: &id,
            log: folder.path().join("log"),
        })
        .unwrap();
        assert!(wait_until(Duration::from_secs(5), || marked(&id) == vec![daemon.main]));
        daemon.pause();
        assert!(wait_until(Duration::from_secs(5), || daemon.main.stopped()));
        daemon.resume();
        assert!(wait_until(Duration::from_secs(5), || !daemon
            .main
            .stopped()));
        assert!(daemon.kill());
        assert!(!daemon.alive());
        assert!(marked(&id).is_empty());
    }
}
