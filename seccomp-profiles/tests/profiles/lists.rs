//! The lists that the profiles are held to, by hand and not from the data. Read by `tables`.

/// Refused by every profile for sandboxes, with whatever arguments.
pub const REFUSED: [(&str, &[&str]); 13] = [
    ("namespaces", &["unshare", "setns", "clone3"]),
    (
        "mounts",
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
            "statmount",
            "listmount",
        ],
    ),
    (
        "other processes",
        &[
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "process_madvise",
            "pidfd_getfd",
            "kcmp",
        ],
    ),
    ("keys", &["keyctl", "add_key", "request_key"]),
    ("bpf and perf", &["bpf", "perf_event_open"]),
    ("faults", &["userfaultfd"]),
    (
        "modules",
        &[
            "init_module",
            "finit_module",
            "delete_module",
            "create_module",
            "query_module",
            "get_kernel_syms",
        ],
    ),
    (
        "the running kernel",
        &[
            "kexec_load",
            "kexec_file_load",
            "reboot",
            "syslog",
            "acct",
            "quotactl",
            "quotactl_fd",
            "vhangup",
            "iopl",
            "ioperm",
        ],
    ),
    ("swap", &["swapon", "swapoff"]),
    (
        "rings",
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
    ),
    (
        "time and names of the node",
        &[
            "settimeofday",
            "clock_settime",
            "adjtimex",
            "clock_adjtime",
            "sethostname",
            "setdomainname",
        ],
    ),
    (
        "handles, notifications and old ways in",
        &[
            "open_by_handle_at",
            "name_to_handle_at",
            "fanotify_init",
            "fanotify_mark",
            "lookup_dcookie",
            "uselib",
            "nfsservctl",
            "_sysctl",
            "sysfs",
            "ustat",
            "modify_ldt",
            "remap_file_pages",
            "memfd_secret",
            "map_shadow_stack",
            "vmsplice",
            "tee",
        ],
    ),
    (
        "memory between processes",
        &[
            "shmget",
            "shmat",
            "shmctl",
            "shmdt",
            "semget",
            "semop",
            "semctl",
            "semtimedop",
            "msgget",
            "msgsnd",
            "msgrcv",
            "msgctl",
            "mq_open",
            "mq_unlink",
            "mq_notify",
            "mbind",
            "set_mempolicy",
            "get_mempolicy",
            "migrate_pages",
            "move_pages",
        ],
    ),
];

/// Answered as by a kernel that does not have them.
pub const ABSENT: [&str; 14] = [
    "clone3",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "memfd_secret",
    "map_shadow_stack",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "open_tree_attr",
    "file_getattr",
    "file_setattr",
];

/// Let through by every profile for sandboxes: what container runtimes need after the filter is loaded, and what every
/// language needs.
pub const NEEDED: [&str; 78] = [
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "close",
    "close_range",
    "openat",
    "openat2",
    "fstat",
    "newfstatat",
    "statx",
    "fstatfs",
    "faccessat2",
    "readlinkat",
    "getdents64",
    "getcwd",
    "chdir",
    "fcntl",
    "dup3",
    "pipe2",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "futex",
    "set_robust_list",
    "rseq",
    "membarrier",
    "execve",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "tgkill",
    "kill",
    "getpid",
    "gettid",
    "getuid",
    "setuid",
    "setgid",
    "setgroups",
    "capget",
    "capset",
    "umask",
    "prlimit64",
    "sched_getaffinity",
    "sched_yield",
    "getrandom",
    "uname",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "timer_create",
    "timerfd_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "eventfd2",
    "ppoll",
    "pselect6",
    "pidfd_open",
    "pidfd_send_signal",
    "sendmsg",
    "recvmsg",
    "connect",
    "accept4",
    "setsockopt",
    "inotify_init1",
    "copy_file_range",
    "set_tid_address",
];

/// Let through by the container runtimes' default profile to processes without capabilities, of the calls that our
/// architectures have (moby/profiles of June 2026; the limits on arguments are tried apart).
pub const RUNTIME_DEFAULT: &str = "accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir \
    chmod chown clock_adjtime clock_getres clock_gettime clock_nanosleep clone close close_range connect \
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
    epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate \
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork \
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake \
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage \
    getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get \
    ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen \
    listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd \
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause personality \
    pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 \
    prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename \
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto \
    set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority \
    setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt \
    shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statmount statx symlink symlinkat \
    sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat \
    uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev";
