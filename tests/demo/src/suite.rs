//! `make test`: every check and test, each with its log in `target/test-logs`, one count over all of them at the end.
//!
//! A failed step does not keep the later ones from running: one run shows all that is wrong. The local cluster is
//! removed at the end and on a signal, unless it ran before.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pilotlight_cluster::Choice;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::{local, source, target_dir, workspace};

/// How often a step that takes long says that it is still at it.
const REMINDER: Duration = Duration::from_mins(1);
/// Lines of a failed step's log that are shown.
const TAIL: usize = 60;

/// How many lines of the message of one panic are shown.
const MESSAGE: usize = 12;

/// One step.
struct Step {
    /// Name in the progress, in `--only` and of the log.
    name: &'static str,
    /// Arguments of cargo.
    arguments: &'static [&'static str],
    /// More environment.
    environment: &'static [(&'static str, &'static str)],
}

/// From quick to slow.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        environment: &[],
    },
    Step {
        name: "lint",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Step {
        name: "documentation",
        // Nobody links against these crates: their documentation is for those who change them.
        arguments: &[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    Step {
        // Unit, property and model tests; that generated files are fresh; the chart's lint and rendering; the README's commands.
        name: "tests",
        arguments: &[
            "test",
            "--workspace",
            "--exclude",
            "pilotlight-e2e",
            "--exclude",
            "pilotlight-fuzz",
            "--no-fail-fast",
            "--locked",
        ],
        environment: &[],
    },
    Step {
        // Each target for a minute, two at a time. The targets are built apart from all else, once.
        name: "fuzz",
        arguments: &[
            "test",
            "-p",
            "pilotlight-fuzz",
            "--no-default-features",
            "--no-fail-fast",
            "--locked",
            "--",
            "--test-threads=2",
            "--nocapture",
        ],
        environment: &[],
    },
    Step {
        // One cluster for all; two tests at a time, but for those that must be alone and see to it.
        name: "end-to-end",
        arguments: &[
            "test",
            "-p",
            "pilotlight-e2e",
            "--no-fail-fast",
            "--locked",
            "--",
            "--test-threads=2",
            "--nocapture",
        ],
        environment: &[],
    },
];

/// Sum of the tests of all steps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// Runs the steps whose name contains `only`, prints the closing line `N passed, N failed`, and says whether all passed.
pub async fn run(only: &str) -> Result<bool> {
    let logs = target_dir().join("test-logs");
    if logs.is_dir() {
        std::fs::remove_dir_all(&logs)
            .with_context(|| format!("cannot empty {}", logs.display()))?;
    }
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    tokio::task::spawn_blocking(pilotlight_cluster::require_for_tests).await??;
    let own = target_dir().join("kubeconfig");
    let ours = source::choose(&own) == Choice::Local && local::running().is_none();

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let result = tokio::select! {
        counts = run_steps(only, &logs) => counts,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if ours && local::running().is_some() {
        tokio::task::spawn_blocking(local::down).await??;
    }
    let counts = result?;
    if counts.failed > 0 {
        println!("the logs are in {}", logs.display());
    }
    // Programs read this line: alone, last, and there after every complete run.
    println!("\n{} passed, {} failed", counts.passed, counts.failed);
    Ok(counts.failed == 0)
}

async fn run_steps(only: &str, logs: &Path) -> Result<Counts> {
    let mut total = Counts::default();
    for (number, step) in STEPS
        .iter()
        .enumerate()
        .filter(|(_, step)| step.name.contains(only))
    {
        let log = logs.join(format!("{}-{}.log", number + 1, step.name));
        let started = Instant::now();
        println!("==> {}: cargo {}", step.name, step.arguments.join(" "));
        let succeeded = run_step(step, &log).await?;
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let counts = verdict(&text, succeeded);
        total.passed += counts.passed;
        total.failed += counts.failed;
        let seconds = started.elapsed().as_secs_f64();
        if counts.failed == 0 {
            println!("    ok, {} tests, {seconds:.1} s", counts.passed);
        } else {
            println!("{}", tail(&text));
            println!(
                "    FAILED after {seconds:.1} s; all of it is in {}",
                log.display()
            );
        }
    }
    Ok(total)
}

/// A process group that is killed when the run is given up: the tests' own children must not stay behind.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended in the meantime.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

async fn run_step(step: &Step, log: &PathBuf) -> Result<bool> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let child = Command::from(crate::cargo())
        .current_dir(workspace())
        .args(step.arguments)
        .envs(step.environment.iter().copied())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(file.as_fd().try_clone_to_owned()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .context("cannot start cargo")?;
    let mut group = Group(child);
    let started = Instant::now();
    loop {
        match tokio::time::timeout(REMINDER, group.0.wait()).await {
            Ok(status) => return Ok(status?.success()),
            Err(_) => println!(
                "    still running, {} s; see {}",
                started.elapsed().as_secs(),
                log.display()
            ),
        }
    }
}

/// What a step's log and exit status say. A step that failed without a failed test counts as one: the closing line
/// never says "0 failed" of a run that did fail.
fn verdict(log: &str, succeeded: bool) -> Counts {
    let mut counts = log
        .lines()
        .filter_map(parse)
        .fold(Counts::default(), |sum, counts| Counts {
            passed: sum.passed + counts.passed,
            failed: sum.failed + counts.failed,
        });
    if !succeeded && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn parse(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = counts.split(';').find(|part| part.trim().ends_with(word))?;
        part.trim().split(' ').next()?.parse().ok()
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

/// What to show of a failed step: what the failed tests said, else the end of the log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = Vec::new();
    let mut inside = false;
    let mut message = 0;
    for line in &lines {
        // Between these two lines a test program repeats what its failed tests printed; one that captures nothing
        // says it once, where it happened.
        inside = (inside || *line == "failures:") && !line.starts_with("test result: ");
        if line.contains("panicked at ") {
            message = MESSAGE;
        } else if line.starts_with("stack backtrace:") || line.starts_with("note: run with ") {
            message = 0;
        }
        // Frames of backtraces bury the message; the log has them.
        let frame = line.trim_start().starts_with(|c: char| c.is_ascii_digit())
            || line.trim_start().starts_with("at ");
        if message > 0 || inside && !frame {
            shown.push(*line);
        }
        message = message.saturating_sub(1);
    }
    if shown.is_empty() {
        shown = lines;
    }
    let shown = &shown[shown.len().saturating_sub(TAIL)..];
    format!("    | {}", shown.join("\n    | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_test_programs_are_summed() {
        let log = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(
            verdict(log, false),
            Counts {
                passed: 13,
                failed: 2
            }
        );
    }

    #[test]
    fn a_step_that_fails_without_a_failed_test_counts_as_one() {
        assert_eq!(
            verdict("error: could not compile\n", false),
            Counts {
                passed: 0,
                failed: 1
            }
        );
        assert_eq!(verdict("", true), Counts::default());
    }

    #[test]
    fn of_failed_tests_their_words_are_shown() {
        let text = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nleft is not right\n   0: frame\n             at file\n\
            test result: FAILED. 0 passed; 1 failed; 0 ignored\n   Doc-tests b\nrunning 0 tests\n";
        let shown = tail(text);
        assert!(shown.contains("left is not right"), "{shown}");
        assert!(
            !shown.contains("Doc-tests") && !shown.contains("frame"),
            "{shown}"
        );
    }

    #[test]
    fn the_message_of_a_test_that_is_not_captured_is_shown() {
        let log = "scene a: 3.0 s\nthread 'a' panicked at a.rs:1:2:\na: 3 writes too many\nstack backtrace:\n   0: frame\n\
            scene b: 1.0 s\nfailures:\n    a\n\ntest result: FAILED. 1 passed; 1 failed;\n";
        let shown = tail(log);
        assert!(shown.contains("3 writes too many"), "{shown}");
        assert!(
            !shown.contains("frame") && !shown.contains("scene b"),
            "{shown}"
        );
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let lines: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let tail = tail(&lines.join("\n"));
        assert!(tail.ends_with("| 199") && !tail.contains("| 139"), "{tail}");
    }
}
