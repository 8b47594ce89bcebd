//! Runs other programs to their end and turns their failure into an [`Error`] that quotes what they said.
//! Used by every module that needs `ip`, `go`, `kubectl` and the like; never through a shell.

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How much of a program's complaint is quoted.
const QUOTED: usize = 2_000;

/// Builds a command from a program and its arguments.
pub(crate) fn command<P, I, A>(program: P, args: I) -> Command
where
    P: AsRef<OsStr>,
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a command and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failure(command, &output))
    }
}

/// Runs a command with a text as its input and returns its standard output.
pub(crate) fn feed(command: &mut Command, text: &str) -> Result<String> {
    let fail = |program| move |source| Error::Start { program, source };
    // A file, which no reader has to keep up with, and none has to read to its end.
    let mut input = tempfile::tempfile().map_err(fail(program_name(command)))?;
    input
        .write_all(text.as_bytes())
        .and_then(|()| input.rewind())
        .map_err(fail(program_name(command)))?;
    let output = command
        .stdin(input)
        .output()
        .map_err(fail(program_name(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failure(command, &output))
    }
}

/// Runs a command whose failure is an answer in itself, with both outputs captured.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: program_name(command),
            source,
        })
}

/// Whether a command can be run and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

/// Where a program lies in PATH, looking into the system folders too (a user's PATH often lacks sbin).
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn program_name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}

fn failure(command: &Command, output: &Output) -> Error {
    let mut line = program_name(command);
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    let said = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(QUOTED)..])
        .trim()
        .to_owned();
    Error::Command {
        command: line,
        status: output.status.to_string(),
        stderr: said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_quoted() {
        let error = run(&mut command("ls", ["/does-not-exist-at-all"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("ls /does-not-exist-at-all"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut command("no-such-program-here", ["x"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn programs_of_the_system_folders_are_found() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
