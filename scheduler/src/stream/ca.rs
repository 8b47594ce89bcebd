//! The certificate authority of the node stream or of the webhook, and this replica's certificate.
//!
//! The first replica makes the authority and keeps it in a Secret that the chart created empty; the write carries
//! the resourceVersion, so of several replicas one wins and the others read what it wrote. Agents trust what
//! the ConfigMap shows. Each replica's own key never leaves its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pilotlight_common::names::SCHEDULER_MANAGER;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

/// Keys of the Secret, as `kubernetes.io/tls` names them.
const CERT_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// Key of the ConfigMap.
const CA_KEY: &str = "ca.crt";
/// Ten years: to replace the authority, empty the Secret and restart the scheduler.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// One year: the certificate is made anew at every start.
const CERT_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365);
/// Clocks of nodes may be behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The Secret or ConfigMap could not be read or written.
    #[error("{object}: {source}; the chart creates it, is the release complete?")]
    Api {
        /// What it is about.
        object: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
    /// A certificate could not be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS configuration was refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The Secret holds something else than a certificate and key.
    #[error("Secret {0} holds no readable certificate and key; empty it and restart the scheduler")]
    Unreadable(String),
}

/// Where the authority is kept, and what this replica is called.
pub struct ServerIdentity {
    /// Client with access to both objects.
    pub client: Client,
    /// Namespace of both.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Name of the ConfigMap that shows the authority, where somebody reads it there.
    pub config_map: Option<String>,
    /// What the authority calls itself.
    pub authority_name: &'static str,
    /// Name that clients expect.
    pub server_name: String,
    /// Protocols that are spoken, the preferred one first.
    pub protocols: &'static [&'static [u8]],
}

impl ServerIdentity {
    /// Loads or makes the authority, shows it, and issues this replica's certificate. The authority's own comes with it, in PEM.
    pub async fn acceptor(&self) -> Result<(TlsAcceptor, String), CaError> {
        let (cert_pem, key_pem) = self.authority().await?;
        if let Some(config_map) = &self.config_map {
            self.publish(config_map, &cert_pem).await?;
        }
        let ca_key = KeyPair::from_pem(&key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, ca_key)?;
        let key = KeyPair::generate()?;
        let mut params = params(
            &self.server_name,
            CERT_LIFETIME,
            vec![self.server_name.clone()],
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| CaError::Unreadable(self.secret.clone()))?;
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = self.protocols.iter().map(|p| p.to_vec()).collect();
        Ok((TlsAcceptor::from(Arc::new(config)), cert_pem))
    }

    /// Certificate and key of the authority, in PEM.
    async fn authority(&self) -> Result<(String, String), CaError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let object = || format!("Secret {}", self.secret);
        loop {
            let mut secret = api
                .get(&self.secret)
                .await
                .map_err(|e| api_error(object(), e))?;
            if let Some(pair) = self.read(secret.data.as_ref())? {
                return Ok(pair);
            }
            let key = KeyPair::generate()?;
            let mut params = params(self.authority_name, CA_LIFETIME, vec![])?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let certificate = params.self_signed(&key)?;
            secret.data = Some(BTreeMap::from([
                (
                    CERT_KEY.to_owned(),
                    ByteString(certificate.pem().into_bytes()),
                ),
                (
                    PRIVATE_KEY.to_owned(),
                    ByteString(key.serialize_pem().into_bytes()),
                ),
            ]));
            match api.replace(&self.secret, &post_params(), &secret).await {
                // Read again: what counts is what is stored.
                Ok(_) => tracing::info!(secret = self.secret, "certificate authority made"),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(api_error(object(), error)),
            }
        }
    }

    /// What the Secret holds; nothing where it is empty.
    fn read(
        &self,
        data: Option<&BTreeMap<String, ByteString>>,
    ) -> Result<Option<(String, String)>, CaError> {
        let Some(data) = data.filter(|d| !d.is_empty()) else {
            return Ok(None);
        };
        let text = |key: &str| {
            data.get(key)
                .and_then(|b| String::from_utf8(b.0.clone()).ok())
        };
        let unreadable = || CaError::Unreadable(self.secret.clone());
        let (cert, key) = text(CERT_KEY)
            .zip(text(PRIVATE_KEY))
            .ok_or_else(unreadable)?;
        CertificateDer::from_pem_slice(cert.as_bytes()).map_err(|_| unreadable())?;
        Ok(Some((cert, key)))
    }

    async fn publish(&self, config_map: &str, cert_pem: &str) -> Result<(), CaError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams {
            field_manager: Some(SCHEDULER_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "data": { CA_KEY: cert_pem } }));
        api.patch(config_map, &params, &patch)
            .await
            .map_err(|e| api_error(format!("ConfigMap {config_map}"), e))?;
        Ok(())
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(SCHEDULER_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn api_error(object: String, source: kube::Error) -> CaError {
    CaError::Api {
        object,
        source: Box::new(source),
    }
}

fn params(
    name: &str,
    lifetime: SignedDuration,
    names: Vec<String>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let day = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    let now = Timestamp::now();
    params.not_before = day(now.saturating_sub(BACKDATED).unwrap_or(now));
    params.not_after = day(now.saturating_add(lifetime).unwrap_or(now));
    Ok(params)
}
