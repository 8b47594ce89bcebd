//! What takes `unsafe`: libseccomp, opened at run time so that the tests need no header; children that run under a
//! filter; and the calls made in them.
#![allow(
    unsafe_code,
    reason = "the only module that speaks to C and to the kernel directly"
)]

use std::ffi::{CString, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use libloading::{Library, Symbol};

use crate::bpf::Instruction;

/// Nobody: no file of the machine belongs to this user, and no capability.
pub const NOBODY: u32 = 65534;
/// A child that hangs is ended after so many seconds.
const PATIENCE: u32 = 20;

static LIBRARY: LazyLock<Mutex<Library>> = LazyLock::new(|| {
    // SAFETY: the initialisers of libseccomp only set variables of its own.
    let library = unsafe { Library::new("libseccomp.so.2") };
    Mutex::new(library.expect("libseccomp.so.2 (Debian: libseccomp2, which apt itself depends on)"))
});

/// A comparison, laid out as `struct scmp_arg_cmp`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub arg: u32,
    pub op: c_int,
    pub first: u64,
    pub second: u64,
}

/// A rule for libseccomp. The number is the machine's own, whichever architecture the filter is for.
#[derive(Debug)]
pub struct Added {
    pub action: u32,
    pub number: c_int,
    pub compares: Vec<Compare>,
}

/// The number libseccomp knows a call by; negative where the architecture has none, or the library knows none.
pub fn resolve(name: &str, arch: Option<u32>) -> c_int {
    let library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let name = CString::new(name).unwrap();
    // SAFETY: both signatures are those of seccomp.h, and the name outlives the call.
    unsafe {
        match arch {
            None => {
                let resolve: Symbol<unsafe extern "C" fn(*const i8) -> c_int> =
                    library.get(b"seccomp_syscall_resolve_name").unwrap();
                resolve(name.as_ptr().cast())
            }
            Some(arch) => {
                let resolve: Symbol<unsafe extern "C" fn(u32, *const i8) -> c_int> =
                    library.get(b"seccomp_syscall_resolve_name_arch").unwrap();
                resolve(arch, name.as_ptr().cast())
            }
        }
    }
}

/// The filter that libseccomp makes of rules for one architecture.
pub fn compile(
    arch: u32,
    native: u32,
    default: u32,
    tree: bool,
    rules: &[Added],
) -> Vec<Instruction> {
    type Context = *mut c_void;
    let library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = tempfile::tempfile().unwrap();
    // SAFETY: the signatures are those of seccomp.h; the context is made, used and released here; arrays are passed
    // with their length.
    unsafe {
        let init: Symbol<unsafe extern "C" fn(u32) -> Context> =
            library.get(b"seccomp_init").unwrap();
        let release: Symbol<unsafe extern "C" fn(Context)> =
            library.get(b"seccomp_release").unwrap();
        let arch_add: Symbol<unsafe extern "C" fn(Context, u32) -> c_int> =
            library.get(b"seccomp_arch_add").unwrap();
        let arch_remove: Symbol<unsafe extern "C" fn(Context, u32) -> c_int> =
            library.get(b"seccomp_arch_remove").unwrap();
        let attribute: Symbol<unsafe extern "C" fn(Context, c_int, u32) -> c_int> =
            library.get(b"seccomp_attr_set").unwrap();
        let add: Symbol<unsafe extern "C" fn(Context, u32, c_int, u32, *const Compare) -> c_int> =
            library.get(b"seccomp_rule_add_array").unwrap();
        let export: Symbol<unsafe extern "C" fn(Context, c_int) -> c_int> =
            library.get(b"seccomp_export_bpf").unwrap();
        let context = init(default);
        assert!(!context.is_null(), "seccomp_init");
        if arch != native {
            assert_eq!(arch_add(context, arch), 0, "seccomp_arch_add");
            assert_eq!(arch_remove(context, native), 0, "seccomp_arch_remove");
        }
        if tree {
            const OPTIMIZE: c_int = 8;
            assert_eq!(attribute(context, OPTIMIZE, 2), 0, "seccomp_attr_set");
        }
        for rule in rules {
            let count = u32::try_from(rule.compares.len()).unwrap();
            let answer = add(
                context,
                rule.action,
                rule.number,
                count,
                rule.compares.as_ptr(),
            );
            assert_eq!(answer, 0, "seccomp_rule_add_array {rule:?}");
        }
        assert_eq!(export(context, file.as_raw_fd()), 0, "seccomp_export_bpf");
        release(context);
    }
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
        .chunks_exact(8)
        .map(|chunk| Instruction {
            code: u16::from_ne_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect()
}

fn native(filter: &[Instruction]) -> Vec<libc::sock_filter> {
    filter
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect()
}

/// Becomes nobody, where it was root, and puts the calling thread under a filter. Makes system calls only, so it may
/// run in the child of a process with threads. Zero, or the step that failed.
fn confine(filter: &[libc::sock_filter]) -> c_int {
    // SAFETY: calls with numbers and with a filter that outlives them.
    unsafe {
        if libc::syscall(libc::SYS_geteuid) == 0
            && (libc::syscall(libc::SYS_setgroups, 0, 0) != 0
                || libc::syscall(libc::SYS_setgid, NOBODY) != 0
                || libc::syscall(libc::SYS_setuid, NOBODY) != 0)
        {
            return 1;
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return 2;
        }
        let Ok(len) = u16::try_from(filter.len()) else {
            return 3;
        };
        let program = libc::sock_fprog {
            len,
            filter: filter.as_ptr().cast_mut(),
        };
        if libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        ) != 0
        {
            return 4;
        }
    }
    0
}

/// Lets a command run as nobody, without capabilities and under a filter.
pub fn confined(command: &mut Command, filter: &[Instruction]) {
    let filter = native(filter);
    // SAFETY: `confine` makes system calls only.
    unsafe {
        command.pre_exec(move || match confine(&filter) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Makes calls in a child under a filter, and returns the error number of each, zero for those that worked.
pub fn errors(filter: &[Instruction], calls: &[(u32, [u64; 6])]) -> Vec<i32> {
    let filter = native(filter);
    let mut found = vec![0_i32; calls.len()];
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    assert_eq!(
        unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) },
        0
    );
    // SAFETY: the child makes system calls on memory that it has a copy of, and ends without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: as above. The calls are those that the filter is to refuse; if it does not, nobody makes them, with
        // arguments that mean nothing.
        unsafe {
            libc::alarm(PATIENCE);
            let failed = confine(&filter);
            if failed != 0 {
                libc::_exit(failed);
            }
            for (slot, (number, args)) in found.iter_mut().zip(calls) {
                let answer = libc::syscall(
                    i64::from(*number),
                    args[0],
                    args[1],
                    args[2],
                    args[3],
                    args[4],
                    args[5],
                );
                if answer == -1 {
                    *slot = *libc::__errno_location();
                }
            }
            let bytes = std::mem::size_of_val(found.as_slice());
            let written = libc::write(ends[1], found.as_ptr().cast(), bytes);
            libc::_exit(if usize::try_from(written) == Ok(bytes) {
                0
            } else {
                9
            });
        }
    }
    // SAFETY: the descriptors are ours, and nobody else's.
    let (mut reader, writer) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let mut status = 0;
    // SAFETY: `status` has room for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child ended with {status:#x}");
    bytes
        .chunks_exact(4)
        .map(|chunk| i32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
        .collect()
}
