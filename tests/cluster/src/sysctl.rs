//! Kernel settings of the whole machine that a kubelet changes without asking: noted by `up`, put back by `down`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files;

/// What the kubelet sets unless told to fail over it; a developer's machine must not keep rebooting on an oops.
const CHANGED: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// The settings as they are. One the kernel does not have is left out.
pub(crate) fn read() -> BTreeMap<String, String> {
    let value = |name: &&str| {
        Some((
            (*name).to_owned(),
            files::read(&path(name)).ok()?.trim().to_owned(),
        ))
    };
    CHANGED.iter().filter_map(value).collect()
}

/// Puts back what differs now.
pub(crate) fn restore(before: &BTreeMap<String, String>) {
    let now = read();
    for (name, value) in before
        .iter()
        .filter(|(name, value)| now.get(*name) != Some(value))
    {
        if CHANGED.contains(&name.as_str()) {
            // A setting that cannot be put back is no reason to leave the rest of a cluster behind.
            let _kept = files::write(&path(name), value);
        }
    }
}
