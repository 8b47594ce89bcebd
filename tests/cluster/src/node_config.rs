//! The configuration files of one node's containerd, CNI, kubelet and kube-proxy. Pure text from the plan, written by a node's start.

use std::path::Path;

use crate::error::Result;
use crate::files;
use crate::image::PAUSE;
use crate::pki::kubeconfig_path;
use crate::plan::{DNS_SERVICE, DOMAIN, NodePlan, Plan};
use crate::tools::Tools;

/// The runtime handler of gVisor, as RuntimeClasses name it.
pub(crate) const GVISOR_HANDLER: &str = "runsc";
/// What containerd runs for it in place of runc.
const RUNSC: &str = include_str!("runsc.sh");

/// Writes all of a node's configuration into its `config` folder.
pub(crate) fn write(plan: &Plan, node: &NodePlan, tools: &Tools, runc: &Path) -> Result<()> {
    let folder = node.folder("config");
    files::create_dir(&folder.join("cni"))?;
    let gvisor = folder.join("runsc.sh");
    files::write_program(&gvisor, RUNSC)?;
    files::write(
        &folder.join("containerd.toml"),
        containerd(node, tools, runc, &gvisor),
    )?;
    files::write(&folder.join("cni/10-pilotlight.conflist"), cni(node))?;
    files::write(&folder.join("kubelet.json"), kubelet(plan, node))?;
    files::write(&folder.join("kube-proxy.json"), kube_proxy(plan, node))
}

fn containerd(node: &NodePlan, tools: &Tools, runc: &Path, gvisor: &Path) -> String {
    let quote = |path: &Path| format!("{:?}", path.display().to_string());
    let root = quote(&node.folder("containerd"));
    let opt = quote(&node.folder("containerd-opt"));
    let plugins = quote(tools.cni());
    let config = quote(&node.folder("config").join("cni"));
    let nri_plugins = quote(&node.folder("nri/plugins"));
    let nri_config = quote(&node.folder("nri/conf.d"));
    let socket = quote(NodePlan::containerd_socket());
    let (runc, gvisor) = (quote(runc), quote(gvisor));
    // gVisor as another OCI runtime below runc's shim: its own shim dies of a negative score too.
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc dies on the negative score of critical pods.
    format!(
        r#"version = 3
root = {root}
state = "/run/containerd"

[grpc]
  address = {socket}

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = {runc}
  SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{GVISOR_HANDLER}]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{GVISOR_HANDLER}.options]
  BinaryName = {gvisor}
  SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{plugins}]
  conf_dir = {config}

[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "/run/nri/nri.sock"
  plugin_path = {nri_plugins}
  plugin_config_path = {nri_config}
"#
    )
}

/// The reservations lie in /run, which is new with every start of the node, as on a machine that boots.
fn cni(node: &NodePlan) -> String {
    let config = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pilotlight",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni/networks",
                "ranges": [[{ "subnet": node.pod_cidr }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    format!("{config:#}\n")
}

fn kubelet(plan: &Plan, node: &NodePlan) -> String {
    let pki = |file: &str| plan.pki().join(file).display().to_string();
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki(&format!("{}-serving.crt", node.name)),
        "tlsPrivateKeyFile": pki(&format!("{}-serving.key", node.name)),
        "containerRuntimeEndpoint": format!("unix://{}", NodePlan::containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS_SERVICE.to_string()],
        "clusterDomain": DOMAIN,
        "resolvConf": plan.config().join("resolv.conf").display().to_string(),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // Without CAP_SYS_RESOURCE the default of -999 cannot be set.
        "oomScoreAdj": 0,
        // kube-proxy makes its own nftables; the machine may have no iptables at all.
        "makeIPTablesUtilChains": false,
        "maxPods": 250,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        // Images come from archives only: what is collected could not be fetched again. A full disk is the machine's matter.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        // Together with the controller manager's grace period: a dead node shows in 16 s.
        "nodeStatusUpdateFrequency": "4s",
        "nodeStatusReportFrequency": "1m",
        "nodeLeaseDurationSeconds": 12,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
    });
    format!("{config:#}\n")
}

fn kube_proxy(plan: &Plan, node: &NodePlan) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": plan.pod_cidr(),
        "clientConnection": { "kubeconfig": kubeconfig_path(plan, "kube-proxy").display().to_string() },
        "oomScoreAdj": 0,
        // Zero: leave the machine's limits alone, they belong to the host.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "nftables": { "minSyncPeriod": "200ms" },
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gvisor_wrapper_is_a_script_that_sh_can_read() {
        use crate::command::{command, feed};
        feed(&mut command("sh", ["-n"]), RUNSC).unwrap();
    }

    #[test]
    fn every_node_has_its_own_network_and_cgroup() {
        let plan = Plan {
            instance: 0,
            dir: "/state".into(),
        };
        let text = |number| (cni(&plan.node(number)), kubelet(&plan, &plan.node(number)));
        let ((cni_1, kubelet_1), (cni_2, kubelet_2)) = (text(1), text(2));
        assert!(cni_1.contains("10.128.2.0/23") && cni_2.contains("10.128.4.0/23"));
        assert!(kubelet_1.contains("\"/plc0-node-1\"") && kubelet_2.contains("\"/plc0-node-2\""));
    }
}
