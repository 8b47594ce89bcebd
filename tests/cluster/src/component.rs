//! The names of everything that can be stopped, killed, paused and started again, as the command line and tests write them.
//! Pure; the operations themselves are in `cluster`.

use std::fmt;
use std::str::FromStr;

/// One part of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The store.
    Etcd,
    /// kube-apiserver.
    Apiserver,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The cluster DNS.
    CoreDns,
    /// What makes volumes; a process of this crate.
    Storage,
    /// A whole node, with its pods.
    Node(usize),
    /// One daemon of a node.
    NodeDaemon(usize, NodeDaemon),
}

/// What runs on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeDaemon {
    /// containerd; its shims and containers outlive it.
    Containerd,
    /// kubelet.
    Kubelet,
    /// kube-proxy.
    KubeProxy,
}

impl NodeDaemon {
    /// In the order they are started.
    pub(crate) const ALL: [Self; 3] = [Self::Containerd, Self::Kubelet, Self::KubeProxy];

    fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

impl Component {
    /// The control plane, in the order it is started.
    pub(crate) const CONTROL_PLANE: [Self; 6] = [
        Self::Etcd,
        Self::Apiserver,
        Self::ControllerManager,
        Self::Scheduler,
        Self::CoreDns,
        Self::Storage,
    ];

    /// Everything in a cluster of so many nodes.
    pub(crate) fn all(nodes: usize) -> Vec<Self> {
        let mut all = Self::CONTROL_PLANE.to_vec();
        for node in 1..=nodes {
            all.push(Self::Node(node));
            all.extend(NodeDaemon::ALL.map(|daemon| Self::NodeDaemon(node, daemon)));
        }
        all
    }
}

impl fmt::Display for Component {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => out.write_str("etcd"),
            Self::Apiserver => out.write_str("apiserver"),
            Self::ControllerManager => out.write_str("controller-manager"),
            Self::Scheduler => out.write_str("kube-scheduler"),
            Self::CoreDns => out.write_str("coredns"),
            Self::Storage => out.write_str("storage"),
            Self::Node(number) => write!(out, "node-{number}"),
            Self::NodeDaemon(number, daemon) => write!(out, "node-{number}/{}", daemon.name()),
        }
    }
}

/// The text names no component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchName;

impl FromStr for Component {
    type Err = NoSuchName;

    fn from_str(text: &str) -> Result<Self, NoSuchName> {
        match text {
            "etcd" => return Ok(Self::Etcd),
            "apiserver" | "kube-apiserver" => return Ok(Self::Apiserver),
            "controller-manager" | "kube-controller-manager" => return Ok(Self::ControllerManager),
            "kube-scheduler" => return Ok(Self::Scheduler),
            "coredns" => return Ok(Self::CoreDns),
            "storage" => return Ok(Self::Storage),
            _ => {}
        }
        let (node, daemon) = text
            .split_once('/')
            .map_or((text, None), |(node, daemon)| (node, Some(daemon)));
        let number: usize = node
            .strip_prefix("node-")
            .and_then(|number| number.parse().ok())
            .ok_or(NoSuchName)?;
        match daemon {
            None => Ok(Self::Node(number)),
            Some(name) => NodeDaemon::ALL
                .into_iter()
                .find(|daemon| daemon.name() == name)
                .map(|daemon| Self::NodeDaemon(number, daemon))
                .ok_or(NoSuchName),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_what_it_names() {
        for component in Component::all(3) {
            assert_eq!(component.to_string().parse(), Ok(component));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "node",
            "node-",
            "node-x",
            "node-1/",
            "node-1/etcd",
            "scheduler",
            "node-1/kubelet/x",
        ] {
            assert_eq!(name.parse::<Component>(), Err(NoSuchName), "{name}");
        }
    }
}
