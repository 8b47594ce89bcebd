//! Which cluster is used, in the words of this crate's callers.

use std::path::{Path, PathBuf};

use pilotlight_cluster::{Choice, Target, choose_with};

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
    pub(crate) fn of(target: &Target) -> Self {
        match target {
            Target::Given(_) => Self::Given,
            Target::Kind(_) => Self::Kind,
            Target::Local(_) => Self::Local,
        }
    }
}

/// The choice for this machine. `own` is the kubeconfig that `make up` writes: to name that one again, as its closing
/// words suggest, is not to choose another cluster.
pub(crate) fn choose(own: &Path) -> Choice {
    let given = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    choose_with(given.filter(|path| !same_file(path, own)))
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
    fn one_file_by_two_names_is_the_same() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(same_file(&here.join("src"), &here.join("tests/../src")));
        assert!(!same_file(&here.join("src"), &here.join("tests")));
    }
}
