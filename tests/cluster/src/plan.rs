//! Every name and address of a cluster, computed from its instance number and state folder alone, so that two clusters on one
//! machine never meet and a crashed one can be found again. Pure; used by everything else.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The addresses inside the cluster's Service network; the same in every instance, since they exist only in nodes' namespaces.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The API server's own Service, the first address of [`SERVICE_CIDR`].
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where pods send DNS questions.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The cluster's DNS domain.
pub(crate) const DOMAIN: &str = "cluster.local";
/// The domain that a test answers for, below the reserved `test` (RFC 6761).
pub const OUTSIDE_DOMAIN: &str = "internet.test";
/// How many addresses [`Plan::outside`] has.
pub const OUTSIDE_ADDRESSES: usize = 8;
/// The port of [`Plan::outside_dns`]. Not the usual one, which is the cluster's.
const OUTSIDE_DNS_PORT: u16 = 5300;
/// Each node has a /23, the pods of the instance share a /16.
pub(crate) const MAX_NODES: usize = 100;
/// Instances count from 0; ten keep all addresses apart.
pub const MAX_INSTANCE: u8 = 9;

/// The links and cgroups of all instances begin with this.
pub(crate) const INSTANCE_PREFIX: &str = "plc";

/// Names and addresses of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The instance number, 0 unless several clusters run on one machine.
    pub instance: u8,
    /// Where everything of the cluster lies.
    pub dir: PathBuf,
}

impl Plan {
    /// The state folder of an instance where none was given.
    pub fn default_dir(instance: u8) -> PathBuf {
        if instance == 0 {
            PathBuf::from("/var/lib/pilotlight-cluster")
        } else {
            PathBuf::from(format!("/var/lib/pilotlight-cluster-{instance}"))
        }
    }

    /// The network bridge.
    pub(crate) fn bridge(&self) -> String {
        format!("plbr{}", self.instance)
    }

    /// The host's address on the bridge: the control plane's and the cluster DNS's.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.instance, 1)
    }

    /// The host's address with its prefix length.
    pub(crate) fn host_cidr(&self) -> String {
        format!("{}/24", self.host())
    }

    /// Addresses of the host that are public by their number (TEST-NET-2, RFC 5737) and reached from every node, for tests that
    /// need an internet. Nothing listens on them but what a test starts.
    pub fn outside(&self) -> [Ipv4Addr; OUTSIDE_ADDRESSES] {
        std::array::from_fn(|index| {
            // Below 16, so that instances stay apart.
            let index = u8::try_from(index + 1).unwrap_or(u8::MAX);
            Ipv4Addr::new(198, 51, 100, 16 * self.instance + index)
        })
    }

    /// Where the cluster DNS asks for names of [`OUTSIDE_DOMAIN`].
    pub fn outside_dns(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(), OUTSIDE_DNS_PORT)
    }

    /// All pods of the cluster.
    pub(crate) fn pod_cidr(&self) -> String {
        format!("10.{}.0.0/16", 128 + self.instance)
    }

    /// The names of the first `count` nodes.
    pub(crate) fn nodes(&self, count: usize) -> Vec<NodePlan> {
        (1..=count.min(MAX_NODES))
            .map(|number| self.node(number))
            .collect()
    }

    /// One node, counted from 1.
    pub(crate) fn node(&self, number: usize) -> NodePlan {
        // At most MAX_NODES, so neither can overflow a byte.
        let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
        let name = format!("node-{number}");
        NodePlan {
            address: Ipv4Addr::new(172, 30, self.instance, byte(10 + number)),
            pod_cidr: format!("10.{}.{}.0/23", 128 + self.instance, byte(2 * number)),
            host_link: format!("{}n{number}", self.link_prefix()),
            cgroup: format!("{}{name}", self.cgroup_prefix()),
            dir: self.dir.join("nodes").join(&name),
            name,
            number,
        }
    }

    /// All links of nodes begin with this.
    pub(crate) fn link_prefix(&self) -> String {
        format!("{INSTANCE_PREFIX}{}", self.instance)
    }

    /// All top-level cgroup folders begin with this.
    pub(crate) fn cgroup_prefix(&self) -> String {
        format!("{INSTANCE_PREFIX}{}-", self.instance)
    }

    /// The cgroup of the control plane.
    pub(crate) fn control_plane_cgroup(&self) -> String {
        format!("{}control-plane", self.cgroup_prefix())
    }

    /// The API server's address for clients.
    pub(crate) fn api_url(&self) -> String {
        format!("https://{}:6443", self.host())
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// Configuration files of the components.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// The log of a component; `/` in its name becomes `-`.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.logs()
            .join(format!("{}.log", component.replace('/', "-")))
    }

    /// All logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The cluster's copy of `pilotlight-cluster`, which outlives the build it came from.
    pub(crate) fn own_program(&self) -> PathBuf {
        self.dir.join("bin/pilotlight-cluster")
    }

    /// The file that gives test domains addresses.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.config().join("hosts")
    }

    /// The file all changes of this cluster's state are serialised by.
    pub(crate) fn lock(&self) -> PathBuf {
        let mut name = self.dir.as_os_str().to_owned();
        name.push(".lock");
        PathBuf::from(name)
    }
}

/// Names and addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// The node's name.
    pub(crate) name: String,
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Its address on the bridge.
    pub(crate) address: Ipv4Addr,
    /// Its pods' network.
    pub(crate) pod_cidr: String,
    /// The host's end of its link.
    pub(crate) host_link: String,
    /// Its cgroup root, in every hierarchy.
    pub(crate) cgroup: String,
    /// Its data.
    pub(crate) dir: PathBuf,
}

impl NodePlan {
    /// A folder of the node's data.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The containerd socket inside the node's mount namespace, whose /run is its own.
    pub(crate) fn containerd_socket() -> &'static Path {
        Path::new("/run/containerd/containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(instance: u8) -> Plan {
        Plan {
            instance,
            dir: Plan::default_dir(instance),
        }
    }

    #[test]
    fn instances_share_no_name_and_no_address() {
        let (a, b) = (plan(0), plan(MAX_INSTANCE));
        assert_ne!(a.dir, b.dir);
        assert_ne!(a.bridge(), b.bridge());
        assert_ne!(a.host(), b.host());
        assert_ne!(a.pod_cidr(), b.pod_cidr());
        let (first, second) = (a.node(1), b.node(1));
        assert_ne!(first.host_link, second.host_link);
        assert_ne!(first.cgroup, second.cgroup);
        assert_ne!(first.pod_cidr, second.pod_cidr);
    }

    #[test]
    fn all_nodes_have_names_and_networks_of_their_own() {
        let nodes = plan(3).nodes(MAX_NODES);
        let fields: [fn(&NodePlan) -> String; 3] = [
            |n| n.name.clone(),
            |n| n.pod_cidr.clone(),
            |n| n.address.to_string(),
        ];
        for field in fields {
            let mut seen: Vec<String> = nodes.iter().map(field).collect();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), MAX_NODES);
        }
    }

    #[test]
    fn link_names_fit_the_kernel_limit_of_fifteen() {
        assert!(plan(9).node(MAX_NODES).host_link.len() <= 15);
    }
}
