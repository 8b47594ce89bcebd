//! All certificates and keys of a cluster: one authority for the cluster, one for the aggregation layer, and a kubeconfig for
//! every client. Called once by `up`; components find the files by name.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::error::{Error, Result};
use crate::files;
use crate::plan::{API_SERVICE, DOMAIN, Plan};

/// A client of the API server: file name, common name, organisation.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("coredns", "system:coredns", ""),
    (crate::storage::CLIENT, "system:pilotlight-storage", ""),
];

/// An authority: signs leaf certificates into one folder.
struct Authority<'a> {
    folder: &'a Path,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn certificate_error(name: &str) -> impl Fn(rcgen::Error) -> Error + '_ {
    move |source| Error::Certificate {
        name: name.to_owned(),
        source,
    }
}

fn params(name: &str, common_name: &str, organisation: &str) -> Result<CertificateParams> {
    let mut params =
        CertificateParams::new(Vec::<String>::new()).map_err(certificate_error(name))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if !organisation.is_empty() {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organisation);
    }
    // Wide enough for any clock a test machine may have; 2050 is where the date format changes.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

impl<'a> Authority<'a> {
    fn create(folder: &'a Path, name: &str) -> Result<Self> {
        let mut params = params(name, name, "")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate().map_err(certificate_error(name))?;
        let certificate = params.self_signed(&key).map_err(certificate_error(name))?;
        let pem = certificate.pem();
        files::write(&folder.join(format!("{name}.crt")), &pem)?;
        files::write_secret(&folder.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(Self {
            folder,
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    fn sign(
        &self,
        name: &str,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<(String, String)> {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(certificate_error(name))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(certificate_error(name))?;
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        files::write(&self.folder.join(format!("{name}.crt")), &certificate)?;
        files::write_secret(&self.folder.join(format!("{name}.key")), &key)?;
        Ok((certificate, key))
    }

    fn client(
        &self,
        name: &str,
        common_name: &str,
        organisation: &str,
    ) -> Result<(String, String)> {
        self.sign(
            name,
            params(name, common_name, organisation)?,
            &[ExtendedKeyUsagePurpose::ClientAuth],
        )
    }

    fn server(
        &self,
        name: &str,
        common_name: &str,
        dns: &[&str],
        addresses: &[Ipv4Addr],
    ) -> Result<()> {
        let mut params = params(name, common_name, "")?;
        for dns in dns {
            params.subject_alt_names.push(SanType::DnsName(
                (*dns).try_into().map_err(certificate_error(name))?,
            ));
        }
        params.subject_alt_names.extend(
            addresses
                .iter()
                .map(|address| SanType::IpAddress(IpAddr::V4(*address))),
        );
        // etcd answers and asks with one certificate.
        self.sign(
            name,
            params,
            &[
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )?;
        Ok(())
    }
}

/// Makes everything: certificates into the `pki` folder, kubeconfigs into `config`, the administrator's into the state folder.
pub(crate) fn create(plan: &Plan, nodes: usize) -> Result<()> {
    let folder = plan.pki();
    files::create_dir(&folder)?;
    files::create_dir(&plan.config())?;
    let authority = Authority::create(&folder, "ca")?;
    let service = format!("kubernetes.default.svc.{DOMAIN}");
    authority.server(
        "apiserver",
        "kube-apiserver",
        &[
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            &service,
            "localhost",
        ],
        &[plan.host(), API_SERVICE, Ipv4Addr::LOCALHOST],
    )?;
    authority.server(
        "etcd",
        "etcd",
        &["localhost"],
        &[plan.host(), Ipv4Addr::LOCALHOST],
    )?;
    authority.server(
        "controller-manager-serving",
        "kube-controller-manager",
        &["localhost"],
        &[plan.host()],
    )?;
    authority.server(
        "kube-scheduler-serving",
        "kube-scheduler",
        &["localhost"],
        &[plan.host()],
    )?;
    authority.client("apiserver-kubelet", "kube-apiserver", "system:masters")?;
    authority.client("apiserver-etcd", "kube-apiserver", "")?;
    for (name, common_name, organisation) in CLIENTS {
        kubeconfig(plan, &authority, name, common_name, organisation)?;
    }
    for node in plan.nodes(nodes) {
        let name = &node.name;
        kubeconfig(
            plan,
            &authority,
            name,
            &format!("system:node:{name}"),
            "system:nodes",
        )?;
        authority.server(&format!("{name}-serving"), name, &[name], &[node.address])?;
    }
    Authority::create(&folder, "front-proxy-ca")?.client(
        "front-proxy",
        "front-proxy-client",
        "",
    )?;
    let tokens = KeyPair::generate().map_err(certificate_error("service-account"))?;
    files::write_secret(&folder.join("service-account.key"), tokens.serialize_pem())?;
    files::write(&folder.join("service-account.pub"), tokens.public_key_pem())
}

/// Where a client's kubeconfig lies.
pub(crate) fn kubeconfig_path(plan: &Plan, client: &str) -> std::path::PathBuf {
    if client == "admin" {
        plan.kubeconfig()
    } else {
        plan.config().join(format!("{client}.kubeconfig"))
    }
}

fn kubeconfig(
    plan: &Plan,
    authority: &Authority<'_>,
    name: &str,
    common_name: &str,
    organisation: &str,
) -> Result<()> {
    let (certificate, key) = authority.client(name, common_name, organisation)?;
    // JSON is YAML, and needs no quoting rules of our own. The certificates are embedded, so that the file can be moved.
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "pilotlight",
            "cluster": { "server": plan.api_url(), "certificate-authority-data": base64(&authority.pem) },
        }],
        "users": [{
            "name": name,
            "user": { "client-certificate-data": base64(&certificate), "client-key-data": base64(&key) },
        }],
        "contexts": [{ "name": "pilotlight", "context": { "cluster": "pilotlight", "user": name } }],
        "current-context": "pilotlight",
    });
    files::write_secret(&kubeconfig_path(plan, name), format!("{config:#}\n"))
}

/// Standard base64 with padding, as kubeconfigs hold it.
fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_gets_a_kubeconfig_and_keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            instance: 0,
            dir: dir.path().to_path_buf(),
        };
        create(&plan, 1).unwrap();
        for client in [
            "admin",
            "controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "coredns",
            "storage",
            "node-1",
        ] {
            let path = kubeconfig_path(&plan, client);
            let config: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(
                config["clusters"][0]["cluster"]["server"],
                "https://172.30.0.1:6443"
            );
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
