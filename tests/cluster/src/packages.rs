//! What the machine itself must bring: root, Debian packages, Go. Missing packages are installed, and what cannot be is named.
//! Called at the beginning of `up`, of `make test` and of every image that needs more than Rust.

use crate::command::{command, find, run, succeeds};
use crate::error::{Error, Result};
use crate::progress::say;

/// A program and the Debian package that brings it.
pub(crate) type Need = (&'static str, &'static str);

/// What a cluster with nodes needs. kube-proxy wants `conntrack`.
pub(crate) const CLUSTER: &[Need] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("runc", "runc"),
    ("tini", "tini"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("sysctl", "procps"),
    ("cc", "gcc libc6-dev"),
];

/// What a Debian root folder needs to be made.
pub(crate) const ROOT_FOLDER: &[Need] = &[("debootstrap", "debootstrap")];

/// What the tests need beside a cluster: a compiler for the fuzz targets, the languages whose programs run under the
/// seccomp profiles, and what makes links between network namespaces. Go is there for the cluster's tools.
const TESTS: &[Need] = &[
    ("g++", "g++"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("ip", "iproute2"),
];

/// Installs what the tests need beside a cluster.
pub fn require_for_tests() -> Result<()> {
    require(TESTS)
}

/// Refuses to go on for anyone but root: namespaces, mounts, bridges and cgroups all need it.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "not running as root".into(),
        remedy: "run as root, or give another cluster by KUBECONFIG".into(),
    })
}

/// Installs the packages of those programs that are not there.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|(program, _)| find(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing
        .iter()
        .flat_map(|(_, package)| package.split(' '))
        .collect();
    packages.dedup();
    let remedy = format!("install: {}", packages.join(" "));
    if find("apt-get").is_none() {
        return Err(Error::Unsupported {
            what: format!("missing {}", programs(&missing)),
            remedy,
        });
    }
    say(format_args!(
        "installing Debian packages: {}",
        packages.join(" ")
    ));
    if !succeeds(&mut install(&packages)) {
        say("updating the package lists");
        // A failing third-party source must not stop the rest; the installation after it tells.
        succeeds(&mut command("apt-get", ["update", "-q"]));
        run(&mut install(&packages))?;
    }
    let missing: Vec<Need> = missing
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("missing {} even after installation", programs(&missing)),
        remedy,
    })
}

fn install(packages: &[&str]) -> std::process::Command {
    let mut install = command(
        "apt-get",
        ["install", "-y", "-q", "--no-install-recommends"],
    );
    install
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    install
}

fn programs(needs: &[Need]) -> String {
    needs
        .iter()
        .map(|(program, _)| *program)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The version line of the Go toolchain, part of every cache key.
pub(crate) fn go_version() -> Result<String> {
    if find("go").is_none() {
        return Err(Error::Unsupported {
            what: "no Go toolchain".into(),
            remedy: "install Go 1.26 or newer and put it in PATH".into(),
        });
    }
    Ok(run(&mut command("go", ["version"]))?.trim().to_owned())
}
