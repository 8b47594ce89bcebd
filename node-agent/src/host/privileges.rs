//! Gives up capabilities before any thread is started, and reads back that they are gone. Called by `main` for each
//! process.
//!
//! Nothing `host` does needs one: the files of `/proc` and the cgroup tree it reads are readable by
//! everybody, and the socket's directory belongs to its own user. `network` keeps three ([`NETWORK`]).

use std::fs;
use std::io;
use std::path::Path;

use caps::{CapSet, Capability};

/// Why the capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refused.
    #[error("cannot give up capabilities: {0}")]
    Drop(#[from] caps::errors::CapsError),
    /// The state could not be read back.
    #[error("cannot read back the capabilities: {0}")]
    ReadBack(#[from] io::Error),
    /// Some are still there.
    #[error("{0} is still set after capabilities were given up")]
    StillSet(String),
    /// One is missing that the process cannot work without.
    #[error(
        "the capabilities of this process are {0}, not NET_ADMIN, SYS_ADMIN and SYS_PTRACE alone; does its container have them?"
    )]
    NotThese(String),
    /// Files of root are open to it, whatever its capabilities.
    #[error("this process runs as root and must not; start it as a user of its own (runAsNonRoot)")]
    Root,
}

/// What `network` keeps: changing nf_tables, entering network namespaces, and finding out which one a process is in.
pub const NETWORK: [Capability; 3] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
];

/// Empties all sets of the calling thread, which must be the only one.
pub fn drop_all() -> Result<(), PrivilegesError> {
    // Emptying the bounding set needs CAP_SETPCAP; without it nothing can be gained through that set either,
    // since no_new_privs or the lack of files with capabilities in the image stand against it.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Permitted)?;
    Ok(())
}

/// Leaves the calling thread, which must be the only one, with [`NETWORK`] alone.
pub fn keep_network() -> Result<(), PrivilegesError> {
    let keep = NETWORK.into_iter().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            if !NETWORK.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)?
            {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    Ok(())
}

/// Reads the sets of the only thread back and fails where they are not [`NETWORK`] alone.
pub fn verify_network(proc_root: &Path) -> Result<(), PrivilegesError> {
    let status = fs::read_to_string(proc_root.join("self/status"))?;
    let wanted = NETWORK
        .iter()
        .fold(0, |mask, capability| mask | capability.bitmask());
    for (set, wanted) in [
        ("CapInh:", 0),
        ("CapPrm:", wanted),
        ("CapEff:", wanted),
        ("CapAmb:", 0),
    ] {
        let found = status.lines().find(|line| line.starts_with(set));
        let mask = found.and_then(|line| u64::from_str_radix(line[set.len()..].trim(), 16).ok());
        if mask != Some(wanted) {
            return Err(PrivilegesError::NotThese(
                found.unwrap_or("unknown").to_owned(),
            ));
        }
    }
    Ok(())
}

/// Reads the sets of every thread back and fails where one of them can use a capability.
pub fn verify(proc_root: &Path) -> Result<usize, PrivilegesError> {
    let mut threads = 0;
    for entry in fs::read_dir(proc_root.join("self/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        if let Some(line) = still_set(&status) {
            return Err(PrivilegesError::StillSet(line.to_owned()));
        }
        threads += 1;
    }
    Ok(threads)
}

/// Fails where one of the threads is root's in any way, which `api` must not be.
pub fn verify_not_root(proc_root: &Path) -> Result<(), PrivilegesError> {
    for entry in fs::read_dir(proc_root.join("self/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        if is_root(&status) {
            return Err(PrivilegesError::Root);
        }
    }
    Ok(())
}

/// Whether one of the real, effective, saved and file system users of a thread's status is root. So is a thread whose
/// status does not say.
fn is_root(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_none_or(|users| users.split_whitespace().any(|user| user == "0"))
}

/// The first set of a thread's status that is not empty.
fn still_set(status: &str) -> Option<&str> {
    status.lines().find(|line| {
        ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
            .iter()
            .any(|name| {
                line.strip_prefix(name)
                    .is_some_and(|set| set.trim().bytes().any(|digit| digit != b'0'))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_capabilities_passes_whatever_its_bounding_set() {
        let status = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        assert_eq!(still_set(status), None);
        let status = status.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000200000");
        assert_eq!(still_set(&status), Some("CapPrm:\t0000000000200000"));
    }

    #[test]
    fn a_thread_with_one_user_that_is_root_is_roots() {
        assert!(!is_root("Name:\tx\nUid:\t65532\t65532\t65532\t65532\n"));
        assert!(!is_root("Uid:\t1000\t1000\t1000\t1000\n"));
        assert!(is_root("Uid:\t65532\t65532\t0\t65532\n"));
        assert!(is_root("Name:\tx\n"));
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(is_root(&own), nix::unistd::Uid::current().is_root());
    }

    #[test]
    fn a_thread_that_gave_everything_up_reads_back_empty() {
        // In a thread of its own: the sets are per thread.
        std::thread::spawn(|| {
            drop_all().unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert_eq!(still_set(&status), None);
        })
        .join()
        .unwrap();
    }
}
