//! Gives up every capability before any thread is started, and reads back that they are gone. Called by `main`.
//!
//! Nothing `host` does so far needs one: the files of `/proc` and the cgroup tree it reads are readable by
//! everybody, and the socket's directory belongs to its own user.

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
}

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
