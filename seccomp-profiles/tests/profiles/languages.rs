//! Programs under their profiles, as a user without privileges: Python, Node.js and Go, doing what they do every day.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pilotlight_seccomp::{Arch, ENOSYS, built_in};
use tempfile::TempDir;

use crate::runc::{Numbers, filter};
use crate::system::confined;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");

/// A folder that anybody may write to.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A copy that anybody may read, whatever the permissions of the source tree.
fn readable(folder: &TempDir, name: &str) -> PathBuf {
    let copy = folder.path().join(name);
    fs::copy(Path::new(PROGRAMS).join(name), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

/// A command that will run under the profile as nobody.
fn under(profile: &str, program: &Path, folder: &TempDir) -> Command {
    let arch = Arch::native().unwrap();
    let profile = built_in()
        .iter()
        .find(|built_in| built_in.name() == profile)
        .unwrap();
    let filter = filter(&profile.render(arch), arch, Numbers::Ours, ENOSYS.into());
    // A program that waits for a call it was refused must not wait for ever.
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(program)
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path());
    confined(&mut command, &filter.instructions);
    command
}

/// The first of this name on the path, or where it usually is, that nobody may run.
fn find(name: &str, question: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/local/go/bin"];
    for place in path.split(':').chain(usual) {
        let program = Path::new(place).join(name);
        let folder = folder();
        if program.is_file()
            && under("baseline", &program, &folder)
                .arg(question)
                .output()
                .is_ok_and(|out| out.status.success())
        {
            eprintln!("{name}: {}", program.display());
            return program;
        }
    }
    panic!(
        "there is no {name} that every user may run: install it (Debian: python3, nodejs, golang)"
    );
}

fn assert_done(what: &str, output: &Output) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.ends_with("all done\n"),
        "{what}: {}\n{out}\n{err}",
        output.status
    );
}

#[test]
fn a_confined_program_is_nobody_has_no_capability_and_a_filter() {
    let folder = folder();
    for profile in built_in() {
        let output = under(profile.name(), Path::new("/bin/cat"), &folder)
            .arg("/proc/self/status")
            .output()
            .unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        for line in [
            "Seccomp:\t2",
            "NoNewPrivs:\t1",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
        ] {
            assert!(
                status.lines().any(|found| found == line),
                "{}: no {line} in {status}",
                profile.name()
            );
        }
        assert!(!status.contains("Uid:\t0"), "{status}");
    }
}

#[test]
fn python_runs_under_its_profile_under_strict_and_under_baseline() {
    let python = find("python3", "--version");
    // What the profile of the language adds is seen to be missing from the others.
    for (profile, splice) in [
        ("python", "works"),
        ("strict", "EINVAL"),
        ("baseline", "EINVAL"),
    ] {
        let folder = folder();
        let program = readable(&folder, "everyday.py");
        let output = under(profile, &python, &folder)
            .arg(program)
            .arg(splice)
            .output()
            .unwrap();
        assert_done(&format!("python under {profile}"), &output);
    }
}

#[test]
fn node_runs_under_its_profile_under_strict_and_under_baseline() {
    let node = find("node", "--version");
    for profile in ["nodejs", "strict", "baseline"] {
        let folder = folder();
        let program = readable(&folder, "everyday.mjs");
        let output = under(profile, &node, &folder)
            .arg(program)
            .output()
            .unwrap();
        assert_done(&format!("node under {profile}"), &output);
    }
}

#[test]
fn go_programs_run_under_their_profile_under_strict_and_under_baseline() {
    let go = find("go", "version");
    let folder = folder();
    let program = folder.path().join("everyday");
    let build = Command::new(go)
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(PROGRAMS).join("everyday"))
        .envs([
            ("CGO_ENABLED", "0"),
            ("GOTOOLCHAIN", "local"),
            ("GOPROXY", "off"),
            ("GOWORK", "off"),
        ])
        .output()
        .unwrap();
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    for profile in ["go", "strict", "baseline"] {
        let output = under(profile, &program, &folder).output().unwrap();
        assert_done(&format!("go under {profile}"), &output);
    }
}
