//! Tables of nf_tables by netlink, without a process for each change: [`pod_table`] and [`node_table`] make the two kinds that
//! [`super::table::PodTable`] speaks of. Called by the network thread of `host`.
//!
//! [`rules`] says what a table does, [`elements`] what its sets hold; [`table`] puts that into the kernel in [`batch`]es through
//! [`socket`] and reads it back in [`drift`].

mod attribute;
pub mod batch;
mod drift;
mod elements;
mod expression;
mod rules;
mod socket;
mod table;

use std::net::IpAddr;

use crate::network::table::{PodTable, TableError};
use crate::protocol::PodUid;

pub use socket::NetfilterSocket;

/// Name of a table in a pod's network namespace; in the node's, the link follows behind an underscore.
const TABLE: &str = "pilotlight";

/// The node's end of a pod's link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The pod's addresses behind it, at most one of a family.
    pub addresses: Vec<IpAddr>,
}

/// The table of a pod whose runtime uses the kernel's network stack; the socket was opened in the pod's network namespace.
pub fn pod_table(socket: NetfilterSocket, pod: &PodUid) -> Box<dyn PodTable> {
    Box::new(table::Table::new(
        socket,
        TABLE.to_owned(),
        pod,
        rules::Place::Pod,
    ))
}

/// The table of a pod whose runtime has a network stack of its own; the socket was opened in the node's network namespace, and
/// the proxy listens on these addresses of the node, at most one of a family.
pub fn node_table(
    socket: NetfilterSocket,
    pod: &PodUid,
    link: &Link,
    proxy: Vec<IpAddr>,
) -> Box<dyn PodTable> {
    let place = rules::Place::Node {
        link: link.name.clone(),
        addresses: link.addresses.clone(),
        proxy,
    };
    Box::new(table::Table::new(socket, of_link(&link.name), pod, place))
}

/// Removes the tables of links that are not there any more.
pub fn tidy(socket: &mut NetfilterSocket, links: &[String]) -> Result<(), TableError> {
    let prefix = of_link("");
    let failed = |step| move |source| TableError::Kernel { step, source };
    for name in drift::tables(socket).map_err(failed("list the tables"))? {
        let Some(link) = name.strip_prefix(&prefix) else {
            continue;
        };
        if links.iter().any(|known| known == link) {
            continue;
        }
        let mut batch = batch::Batch::new(&name);
        batch.remove_table();
        socket
            .commit(&batch)
            .map_err(failed("remove the table of a link that is gone"))?;
    }
    Ok(())
}

fn of_link(link: &str) -> String {
    format!("{TABLE}_{link}")
}

#[cfg(test)]
mod tests;
