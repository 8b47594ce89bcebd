//! Holds the process to its own seccomp profile and reads back that it is held. Called by `main`, before any thread is
//! started.

use std::fs;
use std::io;
use std::path::Path;

use pilotlight_seccomp::{Arch, Process, agent_profile, in_process};

/// The mode of a thread that a filter holds, as `/proc` shows it.
const FILTERED: u64 = 2;

/// Why the process is not confined. It must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// Built for an architecture without profiles.
    #[error("there is no seccomp profile for this architecture; use x86_64 or aarch64")]
    Architecture,
    /// The build lacks the profile.
    #[error("this build has no seccomp profile for {0:?}")]
    Missing(Process),
    /// The profile cannot be made into a filter.
    #[error("the seccomp profile cannot be made into a filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel did not take a filter.
    #[error(
        "the kernel did not take the seccomp filter ({0}); is the container's own profile in the way of `seccomp` or `prctl`?"
    )]
    Load(seccompiler::Error),
    /// The state could not be read back.
    #[error("cannot read back the state of the threads: {0}")]
    ReadBack(#[from] io::Error),
    /// A thread is not as it must be.
    #[error("a thread of this process is not confined: {0}")]
    Loose(String),
}

/// What was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Every thread is held by the filters of the profile.
    Held {
        /// Threads looked at.
        threads: usize,
    },
    /// The kernel was built without seccomp. Everything else still holds.
    NotSupported,
}

/// Loads the profile of this process for all its threads, and reads back that it holds them.
pub fn apply(process: Process, proc_root: &Path) -> Result<Confinement, ConfinementError> {
    let before = fs::read_to_string(proc_root.join("self/status"))?;
    if field(&before, "Seccomp:").is_none() {
        return Ok(Confinement::NotSupported);
    }
    let arch = Arch::native().ok_or(ConfinementError::Architecture)?;
    let profile = agent_profile(process).ok_or(ConfinementError::Missing(process))?;
    let filters = in_process(profile, arch)?;
    for filter in &filters {
        seccompiler::apply_filter_all_threads(filter).map_err(ConfinementError::Load)?;
    }
    // Under a container runtime a filter is there already; only their number tells ours. Kernels before 5.9 do not say
    // it.
    let loaded = u64::try_from(filters.len()).unwrap_or(u64::MAX);
    let wanted = field(&before, "Seccomp_filters:").map(|found| found + loaded);
    let mut threads = 0;
    for status in statuses(proc_root)? {
        if let Some(problem) = loose(&status, wanted) {
            return Err(ConfinementError::Loose(problem));
        }
        threads += 1;
    }
    Ok(Confinement::Held { threads })
}

/// The status of each thread of this process.
fn statuses(proc_root: &Path) -> Result<Vec<String>, io::Error> {
    fs::read_dir(proc_root.join("self/task"))?
        .map(|entry| fs::read_to_string(entry?.path().join("status")))
        .collect()
}

/// The number after a key of a status file.
fn field(status: &str, key: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|value| value.trim().parse().ok())
}

/// Why a thread with this status is not held by our filters; none if it is.
fn loose(status: &str, wanted: Option<u64>) -> Option<String> {
    if field(status, "Seccomp:") != Some(FILTERED) {
        return Some("no seccomp filter holds it".to_owned());
    }
    let found = field(status, "Seccomp_filters:");
    (found < wanted).then(|| format!("{found:?} seccomp filters hold it, not {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: &str = "Name:\tagent\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_thread_is_held_where_as_many_filters_hold_it_as_there_must_be() {
        assert_eq!(loose(HELD, Some(3)), None);
        assert_eq!(loose(HELD, Some(2)), None);
        assert!(loose(HELD, Some(4)).is_some_and(|why| why.contains('3') && why.contains('4')));
        assert!(loose(&HELD.replace("Seccomp:\t2", "Seccomp:\t0"), None).is_some());
        assert!(loose("", None).is_some());
        // An old kernel, which does not count them.
        let old = HELD.replace("Seccomp_filters:\t3\n", "");
        assert_eq!(loose(&old, None), None);
        assert!(loose(&old, Some(2)).is_some());
    }

    /// Loads the filters for one thread, the rest of the tests staying as they are, and tries what they must say.
    fn under(process: Process, try_it: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            let profile = agent_profile(process).unwrap();
            for filter in in_process(profile, Arch::native().unwrap()).unwrap() {
                seccompiler::apply_filter(&filter).unwrap();
            }
            try_it();
        })
        .join()
        .unwrap();
    }

    fn status_here() -> String {
        fs::read_to_string("/proc/thread-self/status").unwrap()
    }

    #[test]
    fn the_kernel_takes_the_filters_and_refuses_what_they_refuse() {
        use nix::errno::Errno;
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        for process in [Process::Api, Process::Host] {
            let already = field(&status_here(), "Seccomp_filters:");
            under(process, move || {
                let wanted = already.map(|found| found + 2);
                assert_eq!(loose(&status_here(), wanted), None);
                let open = |family| socket(family, SockType::Stream, SockFlag::empty(), None);
                assert_eq!(open(AddressFamily::Vsock).unwrap_err(), Errno::EPERM);
                assert_eq!(open(AddressFamily::Inet).is_ok(), process == Process::Api);
                assert!(open(AddressFamily::Unix).is_ok());
                let started = std::process::Command::new("/bin/true").status();
                assert_eq!(
                    started.unwrap_err().raw_os_error(),
                    Some(Errno::EPERM as i32)
                );
                assert_eq!(nix::unistd::chroot("/").unwrap_err(), Errno::EPERM);
                let folder = std::env::temp_dir().join(format!("confined-{process:?}"));
                let made = std::fs::create_dir(&folder);
                assert_eq!(made.is_ok(), process == Process::Host, "{made:?}");
                let _ = std::fs::remove_dir(&folder);
                // The C library asks for clone3 first, and makes threads all the same.
                std::thread::spawn(|| ()).join().unwrap();
            });
        }
    }
}
