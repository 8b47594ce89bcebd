//! Writes to the API server, counted by the API server itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Request;
use kube::Client;
use tokio::time::{Instant, sleep};

/// Mutating requests since the API server started, by `VERB group/resource/subresource`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Writes(pub BTreeMap<String, u64>);

/// Resources whose writes come at their own pace whether sandboxes are assigned or not: leases and nodes of the
/// cluster, the status of a pool (at most once a second), and the numbers of a runtime's users (at most once a minute).
const BACKGROUND: [&str; 5] = [
    "leases",
    "nodes",
    "nodes/status",
    "runtimeenvironments/status",
    "warmpools/status",
];

/// How long no write may come for the cluster to count as quiet.
const QUIET: Duration = Duration::from_secs(5);

/// How long to wait for it. A namespace of a hundred pods is not gone in less than half a minute on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

impl Writes {
    /// The counts once nothing has been written for a while: what came before, such as a namespace that is being
    /// removed, is done with. Only silence can tell, and silence is a time.
    ///
    /// # Errors
    /// The API server does not answer, or something is written all the time.
    pub async fn when_quiet(client: &Client) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        let mut last = Self::read(client).await?;
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            sleep(LOOK).await;
            let now = Self::read(client).await?;
            let added = now.since(&last);
            if !added.0.is_empty() {
                ensure!(
                    Instant::now() < end,
                    "the cluster does not become quiet; just now: {:?}",
                    added.0
                );
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Asks the API server. With several API servers it is the count of the one that answers.
    pub async fn read(client: &Client) -> Result<Self> {
        let metrics = client
            .request_text(Request::get("/metrics").body(Vec::new())?)
            .await?;
        Ok(Self::parse(&metrics))
    }

    /// Reads the text of `/metrics`.
    pub fn parse(metrics: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in metrics.lines() {
            let Some((labels, value)) = line
                .strip_prefix("apiserver_request_total{")
                .and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                labels
                    .split(',')
                    .filter_map(|pair| pair.split_once('='))
                    .find(|(key, _)| *key == name)
                    .map_or("", |(_, value)| value.trim_matches('"'))
            };
            let verb = label("verb");
            // Refused ones count as well: they cost the API server a request.
            if ![
                "PATCH",
                "PUT",
                "POST",
                "DELETE",
                "APPLY",
                "DELETECOLLECTION",
            ]
            .contains(&verb)
                || !label("dry_run").is_empty()
            {
                continue;
            }
            let (resource, subresource) = (label("resource"), label("subresource"));
            let what = if subresource.is_empty() {
                format!("{verb} {resource}")
            } else {
                format!("{verb} {resource}/{subresource}")
            };
            // Large counts are printed as 1.2e+06.
            let value: f64 = value.trim().parse().unwrap_or(0.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // A counter: whole, not negative, far below 2^53.
            let value = value as u64;
            *counts.entry(what).or_insert(0) += value;
        }
        Self(counts)
    }

    /// What was added since `before`, background and reviews of tokens and rights left out.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let added = self.0.iter().filter_map(|(what, now)| {
            let (_, resource) = what.split_once(' ')?;
            if BACKGROUND.contains(&resource) || resource.ends_with("reviews") {
                return None;
            }
            let added = now.saturating_sub(before.0.get(what).copied().unwrap_or(0));
            (added > 0).then(|| (what.clone(), added))
        });
        Self(added.collect())
    }

    /// All of them, `own` taken off: requests of whoever measures.
    pub fn total_without(&self, own: &[&str]) -> u64 {
        let others = self
            .0
            .iter()
            .filter(|(what, _)| !own.contains(&what.as_str()));
        others.map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="llmsafespace.dev",resource="warmpods",scope="resource",subresource="status",verb="PATCH",version="v1"} 4
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"} 9
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 1190
"#;
    const AFTER: &str = r#"
apiserver_request_total{code="200",component="apiserver",dry_run="",group="llmsafespace.dev",resource="warmpods",scope="resource",subresource="status",verb="PATCH",version="v1"} 6
apiserver_request_total{code="422",component="apiserver",dry_run="",group="llmsafespace.dev",resource="warmpods",scope="resource",subresource="status",verb="PATCH",version="v1"} 1
apiserver_request_total{code="201",component="apiserver",dry_run="",group="llmsafespace.dev",resource="sandboxes",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="201",component="apiserver",dry_run="All",group="llmsafespace.dev",resource="sandboxes",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 1.2e+06
"#;

    #[test]
    fn only_writes_that_belong_to_assignments_are_counted() {
        let added = Writes::parse(AFTER).since(&Writes::parse(BEFORE));
        let want = [("PATCH warmpods/status", 3), ("POST sandboxes", 3)];
        assert_eq!(added.0, want.map(|(k, v)| (k.to_owned(), v)).into());
        assert_eq!(added.total_without(&["POST sandboxes"]), 3);
    }
}
