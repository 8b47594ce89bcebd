//! The Go-built programs of the cluster: which module makes which, how they are built, and where they lie once cached.
//! Called by `up` (all modules) and by whoever wants the path of `kubectl` or `helm`.

use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::command::{command, run};
use crate::error::{Error, Result};
use crate::progress::say;
use crate::{cache, files, packages};

/// One Go module with the programs it builds.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// More files the module needs, by path inside it.
    extra: &'static [(&'static str, &'static str)],
    tags: &'static str,
    ldflags: &'static str,
    packages: &'static [&'static str],
    /// How long the first build takes on two cores, for the progress line.
    first_time: &'static str,
}

macro_rules! module_files {
    ($name:literal) => {
        (
            include_str!(concat!("../tools/", $name, "/go.mod")),
            include_str!(concat!("../tools/", $name, "/go.sum")),
        )
    };
}

/// The version compiled into the Kubernetes programs; `kubectl version` and the node's status show it.
const KUBERNETES_LDFLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

const KUBERNETES: Module = Module {
    name: "kubernetes",
    go_mod: module_files!("kubernetes").0,
    go_sum: module_files!("kubernetes").1,
    extra: &[(
        "empty/sample-cli-plugin/go.mod",
        include_str!("../tools/kubernetes/empty/sample-cli-plugin/go.mod"),
    )],
    tags: "",
    ldflags: KUBERNETES_LDFLAGS,
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/cmd/kubelet",
    ],
    first_time: "6 minutes",
};

const ETCD: Module = Module {
    name: "etcd",
    go_mod: module_files!("etcd").0,
    go_sum: module_files!("etcd").1,
    extra: &[],
    tags: "",
    ldflags: "-s -w",
    packages: &["go.etcd.io/etcd/server/v3"],
    first_time: "half a minute",
};

const CONTAINERD: Module = Module {
    name: "containerd",
    go_mod: module_files!("containerd").0,
    go_sum: module_files!("containerd").1,
    extra: &[],
    // Snapshotters that would need more libraries and are not used here.
    tags: "no_btrfs no_zfs no_devmapper",
    ldflags: "-s -w",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    first_time: "a minute",
};

const CNI: Module = Module {
    name: "cni",
    go_mod: module_files!("cni").0,
    go_sum: module_files!("cni").1,
    extra: &[],
    tags: "",
    ldflags: "-s -w",
    packages: &[
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/ptp",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ],
    first_time: "a few seconds",
};

const COREDNS: Module = Module {
    name: "coredns",
    go_mod: module_files!("coredns").0,
    go_sum: module_files!("coredns").1,
    extra: &[],
    tags: "",
    ldflags: "-s -w",
    packages: &["github.com/coredns/coredns"],
    first_time: "3 minutes",
};

const HELM: Module = Module {
    name: "helm",
    go_mod: module_files!("helm").0,
    go_sum: module_files!("helm").1,
    extra: &[],
    tags: "",
    ldflags: "-s -w",
    packages: &["helm.sh/helm/v4/cmd/helm"],
    first_time: "2 minutes",
};

/// gVisor, the runtime with a kernel of its own.
const GVISOR: Module = Module {
    name: "gvisor",
    go_mod: module_files!("gvisor").0,
    go_sum: module_files!("gvisor").1,
    extra: &[],
    tags: "",
    ldflags: "-s -w",
    packages: &["gvisor.dev/gvisor/runsc"],
    first_time: "2 minutes",
};

/// Where the built programs lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl.
    kubernetes: PathBuf,
    etcd: PathBuf,
    containerd: PathBuf,
    cni: PathBuf,
    coredns: PathBuf,
    helm: PathBuf,
    /// Missing in the state of a cluster made before there was gVisor, which is to be found, and replaced, nevertheless.
    #[serde(default)]
    gvisor: PathBuf,
}

impl Tools {
    /// Builds whatever is not in the cache yet. Says so, since the first time takes about a quarter of an hour on two cores.
    pub fn build() -> Result<Self> {
        let go = packages::go_version()?;
        Ok(Self {
            kubernetes: KUBERNETES.built(&go)?,
            etcd: ETCD.built(&go)?,
            containerd: CONTAINERD.built(&go)?,
            cni: CNI.built(&go)?,
            coredns: COREDNS.built(&go)?,
            helm: HELM.built(&go)?,
            gvisor: GVISOR.built(&go)?,
        })
    }

    /// One program that needs no cluster, such as `helm` or `kubectl`: only the module that it belongs to is built.
    pub fn only(program: &str) -> Result<PathBuf> {
        let module = [KUBERNETES, CONTAINERD, CNI, COREDNS, HELM, GVISOR]
            .into_iter()
            .find(|module| {
                module
                    .packages
                    .iter()
                    .any(|package| package.rsplit('/').next() == Some(program))
            })
            .ok_or_else(|| Error::Unsupported {
                what: format!("no module builds `{program}`"),
                remedy: "install it yourself".into(),
            })?;
        Ok(module.built(&packages::go_version()?)?.join(program))
    }

    /// The path of one program by its name: `kubectl`, `helm`, `etcd`, `kubelet`...
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        self.folders()
            .iter()
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::Unsupported {
                what: format!("no tool `{program}` in the cache"),
                remedy: "run `pilotlight-cluster up` again, it builds what is missing".into(),
            })
    }

    /// The folders to put in PATH.
    pub fn folders(&self) -> [&Path; 7] {
        [
            &self.kubernetes,
            &self.helm,
            &self.containerd,
            &self.etcd,
            &self.coredns,
            &self.cni,
            &self.gvisor,
        ]
        .map(PathBuf::as_path)
    }

    /// The folder of the CNI plugins, as containerd wants it.
    pub(crate) fn cni(&self) -> &Path {
        &self.cni
    }
}

impl Module {
    fn key(&self, go: &str) -> String {
        let mut parts = vec![go, self.go_mod, self.go_sum, self.tags, self.ldflags];
        parts.extend(self.packages);
        parts.extend(
            self.extra
                .iter()
                .flat_map(|(path, content)| [*path, *content]),
        );
        cache::key(parts)
    }

    fn built(&self, go: &str) -> Result<PathBuf> {
        cache::entry("tools", self.name, &self.key(go), |work| self.build(work))
    }

    fn build(&self, work: &Path) -> Result<()> {
        say(format_args!(
            "building {} (first time: about {})",
            self.name, self.first_time
        ));
        let source =
            tempfile::tempdir().map_err(Error::io("create a folder in", &std::env::temp_dir()))?;
        files::write(&source.path().join("go.mod"), self.go_mod)?;
        files::write(&source.path().join("go.sum"), self.go_sum)?;
        for (path, content) in self.extra {
            let path = source.path().join(path);
            if let Some(folder) = path.parent() {
                files::create_dir(folder)?;
            }
            files::write(&path, content)?;
        }
        let mut build = command(
            "go",
            [
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                self.ldflags,
            ],
        );
        if !self.tags.is_empty() {
            build.args(["-tags", self.tags]);
        }
        build
            .arg("-o")
            .arg(format!("{}/", work.display()))
            .args(self.packages);
        // No libc: the same programs run on the host and in any root folder.
        build.current_dir(source.path()).env("CGO_ENABLED", "0");
        // A compiler of one package ends before its garbage is in the way: without collecting it, a build takes two thirds of the time
        // (etcd: 50 s for 80), and a gigabyte more.
        build.env("GOGC", "400");
        thread::scope(|scope| {
            let running = scope.spawn(|| run(&mut build));
            let started = std::time::Instant::now();
            let mut told = 0;
            while !running.is_finished() {
                thread::sleep(std::time::Duration::from_millis(200));
                let minutes = started.elapsed().as_secs() / 60;
                if minutes > told {
                    told = minutes;
                    say(format_args!("still building {} ({minutes} min)", self.name));
                }
            }
            running.join().unwrap_or_else(|_| {
                Err(Error::Unsupported {
                    what: "the build thread ended".into(),
                    remedy: "try again".into(),
                })
            })
        })?;
        // Go names a program after the last part of its path that is no version: `server`.
        let unnamed = work.join("server");
        if unnamed.is_file() {
            let named = work.join("etcd");
            std::fs::rename(&unnamed, &named).map_err(Error::io("rename", &named))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_the_toolchain_and_the_sources() {
        let key = ETCD.key("go1");
        assert_ne!(key, ETCD.key("go2"));
        let changed = Module {
            go_sum: "else",
            ..ETCD
        };
        assert_ne!(key, changed.key("go1"));
        let changed = Module {
            ldflags: "",
            ..ETCD
        };
        assert_ne!(key, changed.key("go1"));
        assert_eq!(key, ETCD.key("go1"));
    }

    #[test]
    fn every_module_pins_what_it_builds() {
        for module in [
            &KUBERNETES,
            &ETCD,
            &CONTAINERD,
            &CNI,
            &COREDNS,
            &HELM,
            &GVISOR,
        ] {
            for package in module.packages {
                assert!(
                    module.go_mod.contains(package),
                    "{package} is no tool of {}",
                    module.name
                );
            }
        }
    }
}
