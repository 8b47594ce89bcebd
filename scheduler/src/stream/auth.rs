//! Whose agent is this? A projected token, reviewed by the API server, names the node it was issued on.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use pilotlight_common::names::STREAM_AUDIENCE;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};

/// Longest bearer token looked at, in bytes: projected tokens have about 1.2 kB.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// How long a positive review is trusted, so that the regular reports cost no review each. A revoked token is
/// refused after this time at the latest.
const TRUST: Duration = Duration::from_secs(30);
/// Reviews under way at once: unknown tokens must not flood the API server.
const REVIEWS: usize = 8;
/// Longest a review may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Extra of a reviewed token that names the node it was issued on.
const NODE_NAME_EXTRA: &str = "authentication.kubernetes.io/node-name";

/// Why an agent was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No bearer token, or one that cannot be one.
    #[error("no bearer token")]
    NoToken,
    /// The API server does not accept the token for this audience.
    #[error("the token is not valid here: {0}")]
    Invalid(String),
    /// Another account's token.
    #[error("the token belongs to {0}, not to the node agent")]
    WrongAccount(String),
    /// The token was not issued to a pod on a node.
    #[error("the token names no node")]
    NoNode,
    /// The API server did not answer.
    #[error("the token could not be reviewed; try again")]
    Unavailable,
}

impl AuthError {
    /// HTTP status of the refusal.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::Invalid(_) => StatusCode::UNAUTHORIZED,
            Self::WrongAccount(_) | Self::NoNode => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Finds out which node a token stands for.
pub struct Authenticator {
    api: Api<TokenReview>,
    account: String,
    permits: Semaphore,
    trusted: Mutex<HashMap<[u8; 32], (String, Instant)>>,
}

impl Authenticator {
    /// Accepts tokens of the service account `account` of `namespace` alone.
    pub fn new(client: Client, namespace: &str, account: &str) -> Self {
        Self {
            api: Api::all(client),
            account: format!("system:serviceaccount:{namespace}:{account}"),
            permits: Semaphore::new(REVIEWS),
            trusted: Mutex::new(HashMap::new()),
        }
    }

    /// The node that a bearer token proves.
    pub async fn node_of(&self, token: Option<&str>) -> Result<String, AuthError> {
        let token = token
            .filter(|t| !t.is_empty() && t.len() <= MAX_TOKEN_BYTES)
            .ok_or(AuthError::NoToken)?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((node, since)) = self.trusted.lock().await.get(&digest)
            && since.elapsed() < TRUST
        {
            return Ok(node.clone());
        }
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| AuthError::Unavailable)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![STREAM_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = tokio::time::timeout(
            REVIEW_TIMEOUT,
            self.api.create(&PostParams::default(), &review),
        )
        .await;
        let status = match answer {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "token review failed");
                return Err(AuthError::Unavailable);
            }
            Err(_) => return Err(AuthError::Unavailable),
        };
        let node = judge(&status, &self.account)?;
        let mut trusted = self.trusted.lock().await;
        trusted.retain(|_, (_, since)| since.elapsed() < TRUST);
        trusted.insert(digest, (node.clone(), Instant::now()));
        Ok(node)
    }
}

/// The node of a reviewed token.
fn judge(status: &TokenReviewStatus, account: &str) -> Result<String, AuthError> {
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if status.authenticated != Some(true) || !audiences.iter().any(|a| a == STREAM_AUDIENCE) {
        let error = status.error.as_deref().unwrap_or("not authenticated");
        return Err(AuthError::Invalid(error.chars().take(200).collect()));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != account {
        return Err(AuthError::WrongAccount(name));
    }
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    match extra.get(NODE_NAME_EXTRA).map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(node.clone()),
        _ => Err(AuthError::NoNode),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(audience: &str, name: &str, node: Option<&str>) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo {
                username: Some(name.to_owned()),
                extra: node
                    .map(|n| BTreeMap::from([(NODE_NAME_EXTRA.to_owned(), vec![n.to_owned()])])),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    #[test]
    fn only_the_agents_token_for_this_audience_with_a_node_is_taken() {
        assert_eq!(
            judge(&status(STREAM_AUDIENCE, "agent", Some("n1")), "agent").unwrap(),
            "n1"
        );
        assert!(matches!(
            judge(&status("other", "agent", Some("n1")), "agent"),
            Err(AuthError::Invalid(_))
        ));
        assert!(matches!(
            judge(&status(STREAM_AUDIENCE, "tenant", Some("n1")), "agent"),
            Err(AuthError::WrongAccount(_))
        ));
        assert!(matches!(
            judge(&status(STREAM_AUDIENCE, "agent", None), "agent"),
            Err(AuthError::NoNode)
        ));
        assert!(matches!(
            judge(&TokenReviewStatus::default(), "agent"),
            Err(AuthError::Invalid(_))
        ));
        // No audience in the answer means that an authenticator which knows of none reviewed it.
        let mut unaware = status(STREAM_AUDIENCE, "agent", Some("n1"));
        unaware.audiences = None;
        assert!(matches!(
            judge(&unaware, "agent"),
            Err(AuthError::Invalid(_))
        ));
    }
}
