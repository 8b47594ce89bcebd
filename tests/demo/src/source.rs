//! Which cluster is used: a given one, else kind where Docker answers, else the local one.

use std::path::Path;
use std::process::Command;

use crate::run;

/// Where the cluster comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// `KUBECONFIG` names it. It is never made nor removed here.
    Given,
    /// kind made it, in Docker containers.
    Kind,
    /// `pilotlight-cluster` made it on this machine; its parts can be stopped, paused and killed.
    Local,
}

impl Source {
    /// The choice for this machine. `own` is the kubeconfig that `make up` writes: naming that one again, as its
    /// closing words suggest, is no choice of another cluster.
    pub(crate) fn choose(own: &Path) -> Self {
        let given = std::env::var_os("KUBECONFIG")
            .is_some_and(|value| !value.is_empty() && !same_file(Path::new(&value), own));
        Self::of(given, || {
            run::succeeds(Command::new("docker").args(["info"]))
                && run::succeeds(Command::new("kind").arg("version"))
        })
    }

    fn of(given: bool, kind_works: impl FnOnce() -> bool) -> Self {
        if given {
            Self::Given
        } else if kind_works() {
            Self::Kind
        } else {
            Self::Local
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_cluster_wins_over_kind_over_the_local_one() {
        assert_eq!(Source::of(true, || true), Source::Given);
        assert_eq!(Source::of(false, || true), Source::Kind);
        assert_eq!(Source::of(false, || false), Source::Local);
    }

    #[test]
    fn one_file_by_two_names_is_the_same() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(same_file(&here.join("src"), &here.join("tests/../src")));
        assert!(!same_file(&here.join("src"), &here.join("tests")));
    }
}
