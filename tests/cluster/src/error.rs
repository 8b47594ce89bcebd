//! The one error type of this crate: every variant says what is missing and what to do about it.
//! Every module returns it; the binary prints it, tests stop at it.

use std::path::{Path, PathBuf};

/// What can go wrong while a cluster is made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot start `{program}`: {source}; is it installed and in PATH?")]
    Start {
        /// The program's name.
        program: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line, for reading.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// The machine lacks something that cannot be installed from here.
    #[error("this machine cannot run a local cluster: {what}; {remedy}")]
    Unsupported {
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s for {what}; {hint}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// A process ended that should be running.
    #[error("{component} ended right after its start; the end of its log ({}):\n{tail}", log.display())]
    Died {
        /// Which component.
        component: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// There is no cluster in the state folder.
    #[error("no cluster in {}; start one with `pilotlight-cluster up`", .0.display())]
    NoCluster(PathBuf),
    /// The state file cannot be understood.
    #[error("the state file {} cannot be read ({reason}); run `pilotlight-cluster down` and start again", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A component name that does not exist in this cluster.
    #[error("no component `{name}`; there are: {known}")]
    UnknownComponent {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A component is not in the state an operation needs.
    #[error("{component} is not running; start it with `pilotlight-cluster start {component}`")]
    NotRunning {
        /// Which component.
        component: String,
    },
    /// A healthy cluster of another shape runs in the same state folder.
    #[error(
        "a healthy cluster with {running} nodes runs in {}, {wanted} were asked for; use it, remove it with `down`, or choose another --instance",
        dir.display()
    )]
    OtherShape {
        /// The state folder.
        dir: PathBuf,
        /// How many nodes run.
        running: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate `{name}`: {source}")]
    Certificate {
        /// Whose certificate.
        name: String,
        /// What the generator said.
        source: rcgen::Error,
    },
    /// An image specification that makes no image.
    #[error("cannot build image {name}: {reason}")]
    Image {
        /// The image's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An answer from a program that was not understood.
    #[error("cannot understand what `{program}` answered: {reason}")]
    Answer {
        /// Which program.
        program: String,
        /// What is wrong.
        reason: String,
    },
    /// The operation is not possible on this kind of cluster.
    #[error("{what} is only possible on the local cluster, not on {kind}")]
    NotHere {
        /// What was tried.
        what: &'static str,
        /// The kind of cluster in use.
        kind: &'static str,
    },
}

/// Shorthand used all over this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: attaches what was tried on which path to an I/O error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
