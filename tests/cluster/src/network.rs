//! The bridge, the link of each node and the routes to its pods. Called by `up`, by a node's start and by `down`.

use std::process::Command;

use crate::command::{command, run, succeeds};
use crate::error::Result;
use crate::plan::{NodePlan, Plan};

fn ip<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    command("ip", args)
}

/// A command inside a process's network namespace. Never `ip netns exec`: it remounts /sys and loses the cgroups.
fn inside(pid: i32, argv: &[&str]) -> Command {
    let mut enter = command("nsenter", ["--target", &pid.to_string(), "--net"]);
    enter.args(argv);
    enter
}

/// Whether the cluster's bridge exists.
pub(crate) fn exists(plan: &Plan) -> bool {
    succeeds(&mut ip(["link", "show", &plan.bridge()]))
}

/// Makes the bridge with the host's address and those of the tests' internet.
pub(crate) fn create(plan: &Plan) -> Result<()> {
    let bridge = plan.bridge();
    // Without a forward delay a new port works at once instead of after 15 s of learning.
    run(&mut ip([
        "link",
        "add",
        &bridge,
        "type",
        "bridge",
        "forward_delay",
        "0",
    ]))?;
    run(&mut ip(["addr", "add", &plan.host_cidr(), "dev", &bridge]))?;
    for address in plan.outside() {
        run(&mut ip([
            "addr",
            "add",
            &format!("{address}/32"),
            "dev",
            &bridge,
        ]))?;
    }
    run(&mut ip(["link", "set", &bridge, "up"]))?;
    Ok(())
}

/// Connects a node's namespace to the bridge: link, address, default route, a route to every other node's pods, and the host's
/// route to this node's pods (the API server calls webhooks at pod addresses, tests scrape pods).
pub(crate) fn connect(plan: &Plan, node: &NodePlan, nodes: usize, pid: i32) -> Result<()> {
    let (bridge, host) = (plan.bridge(), plan.host().to_string());
    // A killed node's link goes with its namespace, but a little later.
    succeeds(&mut ip(["link", "del", &node.host_link]));
    let netns = pid.to_string();
    run(&mut ip([
        "link",
        "add",
        &node.host_link,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &netns,
    ]))?;
    run(&mut ip([
        "link",
        "set",
        &node.host_link,
        "master",
        &bridge,
        "up",
    ]))?;
    run(&mut inside(pid, &["ip", "link", "set", "lo", "up"]))?;
    run(&mut inside(
        pid,
        &[
            "ip",
            "addr",
            "add",
            &format!("{}/24", node.address),
            "dev",
            "eth0",
        ],
    ))?;
    run(&mut inside(pid, &["ip", "link", "set", "eth0", "up"]))?;
    run(&mut inside(
        pid,
        &["ip", "route", "add", "default", "via", &host],
    ))?;
    for other in plan
        .nodes(nodes)
        .iter()
        .filter(|other| other.number != node.number)
    {
        run(&mut inside(
            pid,
            &[
                "ip",
                "route",
                "add",
                &other.pod_cidr,
                "via",
                &other.address.to_string(),
            ],
        ))?;
    }
    run(&mut inside(
        pid,
        &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"],
    ))?;
    run(&mut ip([
        "route",
        "replace",
        &node.pod_cidr,
        "via",
        &node.address.to_string(),
        "dev",
        &bridge,
    ]))?;
    Ok(())
}

/// Removes the bridge and whatever links of nodes are left; routes over the bridge go with it.
pub(crate) fn remove(plan: &Plan) -> Result<()> {
    let links = run(&mut ip(["-o", "link", "show"]))?;
    for link in own_links(&links, &plan.bridge(), &plan.link_prefix()) {
        // One that vanished meanwhile is as good.
        succeeds(&mut ip(["link", "del", &link]));
    }
    Ok(())
}

/// The links of a cluster among all of the machine, from `ip -o link show`.
fn own_links(listing: &str, bridge: &str, prefix: &str) -> Vec<String> {
    let node_link = format!("{prefix}n");
    listing
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .map(|name| name.split('@').next().unwrap_or(name))
        .filter(|name| {
            *name == bridge
                || name
                    .strip_prefix(&node_link)
                    .is_some_and(|rest| rest.parse::<u32>().is_ok())
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_of_this_cluster_are_taken() {
        let listing = "1: lo: <LOOPBACK> mtu 65536\n5: plbr0: <BROADCAST> mtu 1500\n6: plbr1: <BROADCAST> mtu 1500\n\
                       7: plc0n1@if2: <BROADCAST> mtu 1500\n8: plc1n1@if2: <BROADCAST> mtu 1500\n9: plc0nx: <UP>\n";
        assert_eq!(own_links(listing, "plbr0", "plc0"), ["plbr0", "plc0n1"]);
    }
}
