//! Each target for a minute, on the compiler that builds everything else: `cargo fuzz` wants a sanitizer and with it a
//! nightly one, and none of this code is `unsafe`. Two at a time: `cargo test -p pilotlight-fuzz -- --test-threads=2`.
//!
//! Every run begins with the corpus in `corpus`, which is the repository's, and with what earlier runs found on the way,
//! which stays in the target folder. `PILOTLIGHT_FUZZ_SECONDS` sets another length.
// The workspace allows this in tests; clippy does not count the functions tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pilotlight_cluster::cargo;

/// What reads the inputs, and is told apart by what they make it do. The rest, a Kubernetes client among it, is only there: measured as
/// well, it would take as long to build as everything else in the tests together.
const MEASURED: [&str; 8] = [
    "pilotlight_node_agent",
    "pilotlight_seccomp",
    "hickory_proto",
    "serde_json",
    "serde_core",
    "tokio_util",
    "bytes",
    "memchr",
];
/// What `cargo fuzz` gives the compiler, but for the sanitizer. One code unit: the coverage pass keeps functions from
/// being inlined across units.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth \
    -Ccodegen-units=1";
/// Bytes of the largest input; the kernel's files and the frames that matter are smaller.
const LARGEST: &str = "-max_len=8192";
/// Seconds of one input, and MiB: more is a finding. A quiet one takes microseconds and some 50 MiB.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where all of this is kept: not where other builds would be thrown away by other flags.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    here().join("..").join(target).join("fuzz")
}

/// The compiler's name for this machine. Given one, cargo leaves build scripts and macros without the flags.
fn machine() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

/// A compiler that gives [`FLAGS`] to what is [`MEASURED`] and to the targets themselves.
fn compiler() -> PathBuf {
    let targets = std::fs::read_dir(here().join("fuzz_targets")).unwrap();
    let targets = targets.map(|file| {
        let path = file.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    });
    let measured: Vec<String> = MEASURED
        .map(str::to_owned)
        .into_iter()
        .chain(targets)
        .collect();
    // Cargo calls it with the compiler before its arguments, of which `--crate-name NAME` are the first; `--target` is among them but for
    // build scripts and macros, and what those are built from.
    let script = format!(
        "#!/bin/sh\ncase \"$3 $*\" in\n{} exec \"$@\" {FLAGS} ;;\n*) exec \"$@\" ;;\nesac\n",
        measured
            .iter()
            .map(|name| format!("\"{name} \"*\" --target \"*"))
            .collect::<Vec<_>>()
            .join("|")
            + ")"
    );
    let path = folder().join("compiler.sh");
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Builds all targets, once; the folder of the programs.
fn built() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let machine = machine();
        let mut build = cargo();
        build.args(["build", "--locked", "--profile", "fuzz", "--bins"]);
        build.args(["--target", &machine, "--target-dir"]);
        build.arg(folder()).arg("--manifest-path");
        build.arg(here().join("Cargo.toml"));
        build.env("RUSTC_WRAPPER", compiler());
        // As `cargo fuzz` has it, for crates that ask.
        build.env("RUSTFLAGS", "--cfg fuzzing").stdin(Stdio::null());
        assert!(
            build.status().unwrap().success(),
            "the targets do not build"
        );
        folder().join(machine).join("fuzz")
    })
}

/// Runs a target for as long as is asked for; what it says where it finds something.
fn fuzz(target: &str) {
    let program = built().join(target);
    let (found, artifacts) = (
        folder().join("corpus").join(target),
        folder().join("artifacts").join(target),
    );
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let kept = here().join("corpus").join(target);
    let inputs = std::fs::read_dir(&kept).unwrap().count();
    assert!(inputs > 0, "no corpus in {}", kept.display());
    let seconds = std::env::var("PILOTLIGHT_FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let mut run = Command::new(program);
    run.arg(format!("-max_total_time={seconds}"));
    run.arg(format!("-artifact_prefix={}/", artifacts.display()));
    run.args(["-print_final_stats=1", LARGEST]).args(LIMITS);
    // Targets that read files make them here, thousands of times a second: in memory, where there is such a folder.
    let shared = Path::new("/dev/shm");
    let made = tempfile::Builder::new();
    let scratch = if shared.is_dir() {
        made.tempdir_in(shared)
    } else {
        made.tempdir()
    };
    let scratch = scratch.unwrap();
    run.env("TMPDIR", scratch.path());
    // New inputs go into the first.
    run.args([&found, &kept]).stdin(Stdio::null());
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        output.status.success(),
        "{target}: {}\n{}\nrepeat it with `cargo fuzz run -s none {target} <file>`",
        output.status,
        lines[lines.len().saturating_sub(60)..].join("\n")
    );
    let tells = |start: &str| {
        let line = lines.iter().rev().find(|line| line.starts_with(start));
        line.map_or("?", |line| line.rsplit(' ').next().unwrap_or("?"))
    };
    let runs: u64 = tells("stat::number_of_executed_units:").parse().unwrap();
    println!("{target}: {runs} inputs without a finding");
    assert!(
        runs > 1000,
        "{target} ran {runs} inputs only: something is wrong with it"
    );
}

#[test]
fn the_socket_between_both_processes_takes_any_bytes() {
    fuzz("protocol");
}

#[test]
fn the_reader_of_cgroups_takes_any_files() {
    fuzz("cgroup");
}

#[test]
fn the_reader_of_the_machines_cpus_takes_any_files_and_never_gives_what_is_not_free() {
    fuzz("topology");
}

#[test]
fn the_reader_of_seccomp_profiles_takes_any_bytes_and_renders_what_it_accepts() {
    fuzz("profile");
}

#[test]
fn the_reader_of_dns_messages_takes_any_bytes_and_opens_only_what_is_allowed() {
    fuzz("dns");
}
