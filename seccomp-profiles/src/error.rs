//! Why a profile is refused. Returned by the readers of this crate.

/// Why a profile is refused, with what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Nobody could tell it from another, or no file could be called that.
    #[error("a profile cannot be called `{name}`: {why}")]
    Name {
        /// What it was to be called.
        name: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// Larger than any profile needs to be.
    #[error("the profile has {found} bytes; {most} is the most")]
    Size {
        /// Its size in bytes.
        found: usize,
        /// The largest size.
        most: usize,
    },
    /// Not JSON, or a key stands twice.
    #[error("not readable as JSON: {0}")]
    Json(String),
    /// Not an OCI seccomp profile, or one that container runtimes would take for something else.
    #[error("{place}: {problem}")]
    Form {
        /// Where, as `syscalls[3].args[0].op`.
        place: String,
        /// What is wrong there, and what to write.
        problem: String,
    },
    /// It lets a call through that no sandbox may make.
    #[error("{place}: `{call}` cannot be let through: {why}")]
    Forbidden {
        /// Which rule.
        place: String,
        /// The call.
        call: String,
        /// Why, and what could be written instead.
        why: String,
    },
    /// A rendered file that is not byte for byte what rendering its content gives.
    #[error("the file is not in the form in which profiles are written for {arch}; write it anew")]
    Altered {
        /// The architecture, as OCI names it.
        arch: &'static str,
    },
}

impl ProfileError {
    /// A stable word for metrics and events.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Name { .. } => "name",
            Self::Size { .. } => "size",
            Self::Json(_) => "json",
            Self::Form { .. } => "form",
            Self::Forbidden { .. } => "forbidden",
            Self::Altered { .. } => "altered",
        }
    }

    pub(crate) fn form(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Form {
            place: place.into(),
            problem: problem.into(),
        }
    }
}
