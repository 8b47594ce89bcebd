//! The command lines of the control plane: etcd, API server, controller manager, scheduler, cluster DNS and storage, all on the host, all
//! bound to the bridge's address. Pure but for the configuration files; `cluster` starts what this returns.

use crate::component::Component;
use crate::error::Result;
use crate::pki::kubeconfig_path;
use crate::plan::{DOMAIN, OUTSIDE_DOMAIN, Plan, SERVICE_CIDR};
use crate::tools::Tools;
use crate::{files, objects};

/// The file of the objects every cluster has from the start.
pub(crate) const OBJECTS: &str = "objects.json";

/// Writes the configuration files that are not command lines.
pub(crate) fn write_config(plan: &Plan) -> Result<()> {
    files::create_dir(&plan.config())?;
    files::write(
        &plan.config().join("kube-scheduler.yaml"),
        scheduler_config(plan),
    )?;
    files::write(&plan.config().join("Corefile"), corefile(plan))?;
    files::write(
        &plan.config().join("resolv.conf"),
        format!("nameserver {}\n", plan.host()),
    )?;
    files::write(&plan.config().join(OBJECTS), objects::all(plan))?;
    files::write(&plan.hosts(), "")
}

/// Program and arguments of one control-plane component.
pub(crate) fn command_line(
    component: Component,
    plan: &Plan,
    tools: &Tools,
) -> Result<Vec<String>> {
    if component == Component::Storage {
        return Ok(storage(plan));
    }
    let (program, args) = match component {
        Component::Etcd => ("etcd", etcd(plan)),
        Component::Apiserver => ("kube-apiserver", apiserver(plan)),
        Component::ControllerManager => ("kube-controller-manager", controller_manager(plan)),
        Component::Scheduler => ("kube-scheduler", scheduler(plan)),
        Component::CoreDns => (
            "coredns",
            vec![
                "-conf".into(),
                plan.config().join("Corefile").display().to_string(),
            ],
        ),
        Component::Storage | Component::Node(_) | Component::NodeDaemon(..) => ("", Vec::new()),
    };
    let mut line = vec![tools.path(program)?.display().to_string()];
    line.extend(args);
    Ok(line)
}

fn pki(plan: &Plan, file: &str) -> String {
    plan.pki().join(file).display().to_string()
}

fn etcd(plan: &Plan) -> Vec<String> {
    let (host, data) = (plan.host(), plan.dir.join("etcd"));
    vec![
        "--name=pilotlight".into(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=https://{host}:2379"),
        format!("--advertise-client-urls=https://{host}:2379"),
        // One member, but a peer address must be given; nobody else speaks to it.
        format!("--listen-peer-urls=http://{host}:2380"),
        format!("--initial-advertise-peer-urls=http://{host}:2380"),
        format!("--initial-cluster=pilotlight=http://{host}:2380"),
        format!("--cert-file={}", pki(plan, "etcd.crt")),
        format!("--key-file={}", pki(plan, "etcd.key")),
        format!("--trusted-ca-file={}", pki(plan, "ca.crt")),
        "--client-cert-auth=true".into(),
        // The data need not survive the machine, only the process, and a test machine's disk would set the pace of every write.
        "--unsafe-no-fsync=true".into(),
        "--quota-backend-bytes=4294967296".into(),
        "--log-level=warn".into(),
    ]
}

fn apiserver(plan: &Plan) -> Vec<String> {
    let host = plan.host();
    vec![
        format!("--advertise-address={host}"),
        format!("--bind-address={host}"),
        "--secure-port=6443".into(),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        // No kube-proxy runs here, so webhooks and aggregated APIs must be called at endpoint addresses.
        "--enable-aggregator-routing=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        // Load tests run up to many writers; the default of 200 is not what is to be measured.
        "--max-mutating-requests-inflight=400".into(),
        "--max-requests-inflight=800".into(),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
        format!(
            "--service-account-signing-key-file={}",
            pki(plan, "service-account.key")
        ),
        format!(
            "--service-account-key-file={}",
            pki(plan, "service-account.pub")
        ),
        format!("--client-ca-file={}", pki(plan, "ca.crt")),
        format!("--tls-cert-file={}", pki(plan, "apiserver.crt")),
        format!("--tls-private-key-file={}", pki(plan, "apiserver.key")),
        format!("--etcd-servers=https://{host}:2379"),
        format!("--etcd-cafile={}", pki(plan, "ca.crt")),
        format!("--etcd-certfile={}", pki(plan, "apiserver-etcd.crt")),
        format!("--etcd-keyfile={}", pki(plan, "apiserver-etcd.key")),
        format!("--kubelet-certificate-authority={}", pki(plan, "ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            pki(plan, "apiserver-kubelet.crt")
        ),
        format!(
            "--kubelet-client-key={}",
            pki(plan, "apiserver-kubelet.key")
        ),
        format!("--proxy-client-cert-file={}", pki(plan, "front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki(plan, "front-proxy.key")),
        format!(
            "--requestheader-client-ca-file={}",
            pki(plan, "front-proxy-ca.crt")
        ),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
    ]
}

fn controller_manager(plan: &Plan) -> Vec<String> {
    let config = kubeconfig_path(plan, "controller-manager");
    let config = config.display();
    vec![
        format!("--bind-address={}", plan.host()),
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        format!("--tls-cert-file={}", pki(plan, "controller-manager-serving.crt")),
        format!("--tls-private-key-file={}", pki(plan, "controller-manager-serving.key")),
        // Pod networks and routes are fixed by the plan, and there is no cloud.
        "--controllers=*,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller,-service-lb-controller"
            .into(),
        // One instance; an election would only delay its restart.
        "--leader-elect=false".into(),
        format!("--root-ca-file={}", pki(plan, "ca.crt")),
        format!("--service-account-private-key-file={}", pki(plan, "service-account.key")),
        format!("--cluster-signing-cert-file={}", pki(plan, "ca.crt")),
        format!("--cluster-signing-key-file={}", pki(plan, "ca.key")),
        "--use-service-account-credentials=true".into(),
        // A dead node is noticed in 16 s instead of 50: tests wait for it.
        "--node-monitor-grace-period=16s".into(),
        "--node-monitor-period=2s".into(),
        // Bursts of deletions and endpoints must not queue behind the default of 20 requests a second.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ]
}

fn scheduler(plan: &Plan) -> Vec<String> {
    vec![
        format!(
            "--config={}",
            plan.config().join("kube-scheduler.yaml").display()
        ),
        format!("--bind-address={}", plan.host()),
        format!(
            "--tls-cert-file={}",
            pki(plan, "kube-scheduler-serving.crt")
        ),
        format!(
            "--tls-private-key-file={}",
            pki(plan, "kube-scheduler-serving.key")
        ),
        // Its own metrics need no delegated authentication here.
        "--authentication-skip-lookup=true".into(),
    ]
}

/// The copy of this crate's own program that the cluster keeps.
fn storage(plan: &Plan) -> Vec<String> {
    vec![
        plan.own_program().display().to_string(),
        format!("--state-dir={}", plan.dir.display()),
        "serve-storage".into(),
    ]
}

fn scheduler_config(plan: &Plan) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": { "leaderElect": false },
        "clientConnection": {
            "kubeconfig": kubeconfig_path(plan, "kube-scheduler").display().to_string(),
            "qps": 200,
            "burst": 400,
        },
    });
    format!("{config:#}\n")
}

/// The tests' internet is asked even after it was silent: it is there while a test has it up.
/// `fallthrough` in `hosts` is what lets cluster names through to the next plugin. No cache: a new pod's name must be found at once.
fn corefile(plan: &Plan) -> String {
    let (host, hosts, config) = (plan.host(), plan.hosts(), kubeconfig_path(plan, "coredns"));
    let (hosts, config) = (hosts.display(), config.display());
    let outside = plan.outside_dns();
    format!(
        "{OUTSIDE_DOMAIN}:53 {{
    bind {host}
    errors
    forward . {outside} {{
        max_fails 0
    }}
}}
.:53 {{
    bind {host}
    errors
    hosts {hosts} {{
        ttl 5
        reload 500ms
        fallthrough
    }}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {config}
        ttl 5
        fallthrough in-addr.arpa ip6.arpa
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            instance: 4,
            dir: "/state".into(),
        }
    }

    #[test]
    fn nothing_listens_beyond_the_bridge() {
        for line in [
            etcd(&plan()),
            apiserver(&plan()),
            controller_manager(&plan()),
            scheduler(&plan()),
        ] {
            for arg in line
                .iter()
                .filter(|arg| arg.contains("listen") || arg.contains("bind-address"))
            {
                assert!(arg.contains("172.30.4.1"), "{arg}");
            }
        }
        assert!(corefile(&plan()).contains("bind 172.30.4.1"));
    }

    #[test]
    fn test_domains_do_not_hide_cluster_names() {
        let text = corefile(&plan());
        let hosts = &text[text.find("hosts").unwrap()..text.find("kubernetes").unwrap()];
        assert!(hosts.contains("fallthrough"));
    }
}
