//! What no sandbox may do, whoever wrote its profile. Called by `oci` for each rule that lets something through.

use crate::rule::{Condition, Test};

/// Namespace flags of `clone`, the one for time included (its bit lies among those of the exit signal).
pub(crate) const NAMESPACE_FLAGS: u64 = 0x7e02_0080;
/// Protocol families that a sandbox may open sockets of: UNIX, INET, INET6 and NETLINK.
pub(crate) const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// Terminal requests that put input into somebody else's shell: TIOCSTI, TIOCLINUX.
pub(crate) const TERMINAL_INJECTION: [u32; 2] = [0x5412, 0x541c];

/// Calls that are never let through, with the reason.
const NEVER: [(&[&str], &str); 14] = [
    (
        &[
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "mount_setattr",
        ],
        "it changes what a container sees of the node's file systems",
    ),
    (
        &["unshare", "setns", "clone3"],
        "it enters or makes namespaces (`clone3` hides its flags from filters; answer it with errnoRet 38)",
    ),
    (
        &[
            "init_module",
            "finit_module",
            "delete_module",
            "create_module",
            "query_module",
            "get_kernel_syms",
        ],
        "it changes the node's kernel",
    ),
    (
        &["kexec_load", "kexec_file_load", "reboot"],
        "it replaces or stops the node's kernel",
    ),
    (
        &["bpf", "perf_event_open"],
        "it runs or watches code in the node's kernel",
    ),
    (
        &[
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "process_madvise",
            "kcmp",
            "pidfd_getfd",
        ],
        "it reaches into other processes",
    ),
    (
        &["keyctl", "add_key", "request_key"],
        "the kernel's keys are not separate for containers",
    ),
    (
        &["userfaultfd"],
        "it holds the kernel up at will, which most attacks on it want",
    ),
    (
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
        "what is asked through a ring passes by this filter (answer it with errnoRet 38)",
    ),
    (&["swapon", "swapoff"], "it changes the node's memory"),
    (
        &["open_by_handle_at"],
        "it opens files that the container does not see",
    ),
    (
        &[
            "settimeofday",
            "clock_settime",
            "sethostname",
            "setdomainname",
            "acct",
            "quotactl",
            "quotactl_fd",
            "syslog",
        ],
        "it changes the node or reads its log",
    ),
    (&["iopl", "ioperm"], "it reaches the node's hardware"),
    (
        &[
            "fanotify_init",
            "lookup_dcookie",
            "vhangup",
            "uselib",
            "nfsservctl",
            "_sysctl",
            "sysfs",
            "ustat",
        ],
        "no sandbox has a use for it, and the node's kernel has one way in less without it",
    ),
];

/// Why a rule may not let this call through under these conditions; none if it may.
pub(crate) fn objection(call: &str, conditions: &[Condition]) -> Option<String> {
    if let Some((_, why)) = NEVER.iter().find(|(names, _)| names.contains(&call)) {
        return Some((*why).to_owned());
    }
    let tests = |arg| {
        conditions
            .iter()
            .filter(move |condition| condition.arg == arg)
            .map(|condition| condition.test)
    };
    match call {
        "clone" if !tests(0).any(without_namespaces) => Some(format!(
            "it makes namespaces; let it through with \"args\":[{{\"index\":0,\"value\":{NAMESPACE_FLAGS},\"valueTwo\":0,\"op\":\"SCMP_CMP_MASKED_EQ\"}}]"
        )),
        "socket" | "socketpair" if !tests(0).any(known_family) => Some(
            "families such as AF_ALG, AF_VSOCK and AF_PACKET reach past the container; write one rule for each family \
             it needs, with \"args\":[{\"index\":0,\"value\":2,\"op\":\"SCMP_CMP_EQ\"}]; 1 (UNIX), 2 (INET), 10 (INET6) \
             and 16 (NETLINK) can be had"
                .to_owned(),
        ),
        "ioctl" if !tests(1).any(without_injection) => Some(
            "TIOCSTI and TIOCLINUX type into other people's terminals; name the requests with SCMP_CMP_EQ, or let \
             `ioctl` through without any `args`: those two are then taken out"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Holds only where no namespace flag is set.
fn without_namespaces(test: Test) -> bool {
    match test {
        Test::Equal(value) => value & NAMESPACE_FLAGS == 0,
        Test::Masked { mask, value } => {
            mask & NAMESPACE_FLAGS == NAMESPACE_FLAGS && value & NAMESPACE_FLAGS == 0
        }
        _ => false,
    }
}

/// Holds only for one of the families. The kernel looks at 32 bits, so a mask must cover these.
fn known_family(test: Test) -> bool {
    let low = u64::from(u32::MAX);
    match test {
        Test::Equal(value) => FAMILIES.contains(&value),
        Test::Masked { mask, value } => mask & low == low && FAMILIES.contains(&(value & low)),
        _ => false,
    }
}

/// Never holds for a request that injects input, whatever the upper half of the argument, which the kernel ignores.
fn without_injection(test: Test) -> bool {
    let low = u64::from(u32::MAX);
    TERMINAL_INJECTION.iter().all(|request| {
        let request = u64::from(*request);
        match test {
            Test::Equal(value) => value & low != request,
            Test::Masked { mask, value } => request & mask & low != value & low,
            Test::Less(value) => value <= request,
            Test::LessOrEqual(value) => value < request,
            _ => false,
        }
    })
}
