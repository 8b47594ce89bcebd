//! Where a pod's rules are enforced: found by what its network looks like, never by the name of its runtime. Called by
//! [`super::pods`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use ipnet::IpNet;

use super::links::{Interface, Links, number_of};
use super::namespace::{self, Identity, Namespace};
use super::nft::{Link, NetfilterSocket, node_table, pod_table};
use super::proxy_sockets;
use super::table::{Arming, PodTable};
use crate::network_protocol::{Backend, NetworkProblem};
use crate::protocol::PodUid;

/// Why a pod cannot be armed now.
#[derive(Debug)]
pub struct Failure {
    /// The word for `api`.
    pub reason: NetworkProblem,
    /// What happened, for people.
    pub message: String,
}

impl Failure {
    pub(super) fn new(reason: NetworkProblem, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The namespaces of this node that are not a pod's.
#[derive(Debug)]
pub struct Node {
    /// That of this process.
    pub home: Namespace,
    /// The node's.
    pub node: Namespace,
}

/// A pod that was found, with everything to arm it.
pub struct Found {
    /// Its rules.
    pub table: Box<dyn PodTable>,
    /// What they are made with.
    pub arming: Arming,
    /// Where they are.
    pub place: Place,
    /// The pod's namespace.
    pub namespace: Identity,
    /// Where its DNS queries arrive.
    pub sockets: Vec<OwnedFd>,
}

/// What a pod's network looks like.
#[derive(Debug, Eq, PartialEq)]
pub enum Place {
    /// Its addresses are in its own namespace.
    Pod,
    /// They are not: its runtime took them. The node's end of its link, and where the node's proxy for it listens.
    Node(Link, Vec<IpAddr>),
}

impl Place {
    /// Where its rules go.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Pod => Backend::Pod,
            Self::Node(..) => Backend::Node,
        }
    }
}

impl Node {
    /// The namespaces of this process and of the node, which is that of the first process there is.
    pub fn new(proc_root: &Path) -> io::Result<Self> {
        Ok(Self {
            home: Namespace::open(&proc_root.join("self/ns/net"))?,
            node: Namespace::open(&proc_root.join("1/ns/net"))?,
        })
    }

    /// Does something in the node's namespace.
    pub fn visit<T>(&self, job: impl FnOnce() -> T) -> io::Result<T> {
        self.node.visit(&self.home, job)
    }

    /// Finds the network of the pod whose cgroup is `directory`, and opens the sockets for its DNS queries.
    pub fn find(
        &self,
        pod: &PodUid,
        directory: &Path,
        proc_root: &Path,
        ingress_ranges: &[IpNet],
    ) -> Result<Found, Failure> {
        let failed = |what: &'static str| {
            move |error: io::Error| {
                Failure::new(NetworkProblem::Failed, format!("cannot {what}: {error}"))
            }
        };
        let (namespace, links) = self.network_of(directory, proc_root)?;
        let (node_links, number) = self
            .visit(|| (Links::read(), number_of(namespace.file())))
            .map_err(failed("enter the node's network"))?;
        let node_links = node_links.map_err(failed("read the node's links"))?;
        let place = match place(&links, &node_links, || number.ok().flatten()) {
            Ok(place) => place,
            Err(why) => return Err(Failure::new(NetworkProblem::Unsupported, why)),
        };
        let (visited, listen) = match &place {
            Place::Pod => (
                &namespace,
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            ),
            Place::Node(_, proxy) => (&self.node, proxy.clone()),
        };
        let (socket, opened) = visited
            .visit(&self.home, || {
                (NetfilterSocket::open(), proxy_sockets::open(&listen))
            })
            .map_err(failed("enter the pod's network"))?;
        let socket = socket.map_err(failed("speak with nf_tables"))?;
        let (sockets, proxy) = opened.map_err(failed("open the sockets for DNS"))?;
        let table = match &place {
            Place::Pod => pod_table(socket, pod),
            Place::Node(link, listen) => node_table(socket, pod, link, listen.clone()),
        };
        Ok(Found {
            table,
            arming: Arming {
                proxy,
                node_addresses: node_links.addresses(),
                ingress_ranges: ingress_ranges.to_vec(),
            },
            place,
            namespace: namespace.identity(),
            sockets,
        })
    }

    /// Whether a pod's network still looks as it did: a runtime with a network stack of its own takes the pod's addresses out of its
    /// namespace some time after they are there.
    pub fn is_still(&self, place: &Place, namespace: &Namespace, node_links: &Links) -> bool {
        let links = namespace
            .visit(&self.home, Links::read)
            .and_then(|links| links);
        let number = || {
            let number = self.visit(|| number_of(namespace.file()));
            number.and_then(|number| number).ok().flatten()
        };
        links.is_ok_and(|links| self::place(&links, node_links, number).as_ref() == Ok(place))
    }

    /// The one network that the pod's processes are in, and its links.
    fn network_of(
        &self,
        directory: &Path,
        proc_root: &Path,
    ) -> Result<(Namespace, Links), Failure> {
        let mut candidates = namespace::of_pod(directory, proc_root);
        if candidates.is_empty() {
            return Err(Failure::new(
                NetworkProblem::NotFound,
                "the pod has no process yet",
            ));
        }
        candidates.retain(|candidate| candidate.identity() != self.node.identity());
        if candidates.is_empty() {
            return Err(Failure::new(
                NetworkProblem::HostNetwork,
                "the pod is in the node's own network",
            ));
        }
        let mut found = Vec::new();
        for candidate in candidates {
            let links = candidate
                .visit(&self.home, Links::read)
                .and_then(|links| links)
                .map_err(|error| {
                    Failure::new(
                        NetworkProblem::Failed,
                        format!("cannot read the links of the pod: {error}"),
                    )
                })?;
            // A runtime may keep processes in an empty namespace, where there is nothing to reach.
            if links.interfaces.iter().any(|interface| {
                !interface.loopback && interface.peer_namespace.is_some()
                    || !interface.addresses.is_empty()
            }) {
                found.push((candidate, links));
            }
        }
        let count = found.len();
        match (found.pop(), count) {
            (Some(found), 1) => Ok(found),
            (None, _) => Err(Failure::new(
                NetworkProblem::NotFound,
                "the pod has no link yet",
            )),
            // One that is not armed would be a way out.
            _ => Err(Failure::new(
                NetworkProblem::Failed,
                format!("the pod's processes are in {count} networks"),
            )),
        }
    }
}

/// Where the rules of a pod with these links go. `number` is what the node's namespace knows the pod's by.
fn place(pod: &Links, node: &Links, number: impl FnOnce() -> Option<i32>) -> Result<Place, String> {
    if !pod.addresses().is_empty() {
        return Ok(Place::Pod);
    }
    let with_peer =
        |interface: &&Interface| !interface.loopback && interface.peer_namespace.is_some();
    let mut links = pod.interfaces.iter().filter(with_peer);
    let (Some(inner), None) = (links.next(), links.next()) else {
        return Err(
            "the pod's runtime has a network stack of its own, and not one link but several"
                .to_owned(),
        );
    };
    // Both ends name each other, and the outer one the pod's namespace: numbers of links alone could be made to fit.
    let number = number();
    let outer = node.interfaces.iter().find(|outer| {
        Some(outer.index) == inner.peer
            && outer.peer == Some(inner.index)
            && outer.peer_namespace.is_some()
            && outer.peer_namespace == number
    });
    let Some(outer) = outer else {
        return Err(
            "the pod's runtime has a network stack of its own, and its link does not end in the node's network; use network.mode=policy"
                .to_owned(),
        );
    };
    if outer.enslaved {
        return Err(format!(
            "the pod's runtime has a network stack of its own, and its link {} is part of a bridge, where rules of the node would not \
             see its packets; use a CNI plugin that routes, or network.mode=policy",
            outer.name
        ));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut proxy = Vec::new();
    for route in node
        .host_routes
        .iter()
        .filter(|route| route.index == outer.index)
    {
        let same = |address: &&IpAddr| address.is_ipv4() == route.address.is_ipv4();
        if addresses.iter().any(|address| same(&address)) {
            return Err(format!(
                "the node has several routes over the pod's link {}",
                outer.name
            ));
        }
        let own = outer.addresses.iter().find(same).copied();
        let nodes = node.addresses();
        let Some(listen) = own.or_else(|| nodes.iter().find(same).copied()) else {
            return Err(format!(
                "the node has no address of the family of the pod's {}",
                route.address
            ));
        };
        addresses.push(route.address);
        proxy.push(listen);
    }
    if addresses.is_empty() {
        return Err(format!(
            "the node has no route to the pod over its link {}; use a CNI plugin that routes, or network.mode=policy",
            outer.name
        ));
    }
    Ok(Place::Node(
        Link {
            name: outer.name.clone(),
            addresses,
        },
        proxy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::links::HostRoute;

    fn links(pod_addresses: &[&str]) -> (Links, Links) {
        let inner = Interface {
            index: 2,
            name: "eth0".to_owned(),
            peer: Some(9),
            peer_namespace: Some(0),
            addresses: pod_addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..Interface::default()
        };
        let loopback = Interface {
            index: 1,
            name: "lo".to_owned(),
            loopback: true,
            ..Interface::default()
        };
        let outer = Interface {
            index: 9,
            name: "veth9".to_owned(),
            peer: Some(2),
            peer_namespace: Some(7),
            addresses: vec!["10.1.0.1".parse().unwrap()],
            ..Interface::default()
        };
        let uplink = Interface {
            index: 3,
            name: "ens3".to_owned(),
            addresses: vec!["192.168.0.3".parse().unwrap(), "fd00::3".parse().unwrap()],
            ..Interface::default()
        };
        let route = |address: &str| HostRoute {
            address: address.parse().unwrap(),
            index: 9,
        };
        (
            Links {
                interfaces: vec![loopback.clone(), inner],
                host_routes: Vec::new(),
            },
            Links {
                interfaces: vec![loopback, uplink, outer],
                host_routes: vec![route("10.1.0.5"), route("fd00:1::5")],
            },
        )
    }

    #[test]
    fn a_pod_that_has_its_address_is_kept_by_its_own_namespace() {
        let (pod, node) = links(&["10.1.0.5"]);
        assert_eq!(place(&pod, &node, || None), Ok(Place::Pod));
    }

    #[test]
    fn one_whose_runtime_took_it_by_the_nodes_end_of_its_link() {
        let (pod, node) = links(&[]);
        let link = Link {
            name: "veth9".to_owned(),
            addresses: vec!["10.1.0.5".parse().unwrap(), "fd00:1::5".parse().unwrap()],
        };
        let proxy = vec!["10.1.0.1".parse().unwrap(), "fd00::3".parse().unwrap()];
        assert_eq!(place(&pod, &node, || Some(7)), Ok(Place::Node(link, proxy)));
    }

    #[test]
    fn a_link_that_is_not_proved_to_be_the_pods_is_refused() {
        let (pod, node) = links(&[]);
        assert!(place(&pod, &node, || Some(8)).is_err());
        assert!(place(&pod, &node, || None).is_err());
        let mut other = node.clone();
        other.interfaces[2].peer = Some(3);
        assert!(place(&pod, &other, || Some(7)).is_err());
    }

    #[test]
    fn a_link_where_the_nodes_rules_would_see_nothing_is_refused_with_what_to_do() {
        let (pod, mut node) = links(&[]);
        node.interfaces[2].enslaved = true;
        let why = place(&pod, &node, || Some(7)).unwrap_err();
        assert!(
            why.contains("veth9") && why.contains("network.mode=policy"),
            "{why}"
        );
        let (pod, mut node) = links(&[]);
        node.host_routes.clear();
        assert!(place(&pod, &node, || Some(7)).is_err());
    }
}
