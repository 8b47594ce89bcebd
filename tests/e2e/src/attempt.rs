//! Requests that are tried with somebody's rights, and what must come of each.

use anyhow::{Result, ensure};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use pilotlight_bench::objects;
use serde_json::Value;

/// What is tried.
#[derive(Clone, Debug)]
pub enum How {
    /// A merge patch, of a subresource where one is named.
    Merge(&'static str, Value),
    /// A strategic merge patch, which only kinds of Kubernetes itself know.
    Strategic(&'static str, Value),
    /// A creation.
    Create(Value),
    /// A creation that is not carried out.
    DryCreate(Value),
    /// A creation of a subresource of a named object.
    Call(&'static str, Value),
    /// A deletion.
    Delete,
    /// A read.
    Get,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it is, for people.
    pub what: String,
    /// Kind of the object.
    pub kind: ApiResource,
    /// Namespace; empty for a kind that has none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What is tried.
    pub how: How,
}

/// Whether it must pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// It must.
    Passes,
    /// The API server must refuse it: for want of a right, or by a rule.
    Refused,
}

/// A new request.
pub fn attempt(what: &str, kind: &ApiResource, at: (&str, &str), how: How) -> Attempt {
    Attempt {
        what: what.to_owned(),
        kind: kind.clone(),
        namespace: at.0.to_owned(),
        name: at.1.to_owned(),
        how,
    }
}

impl Attempt {
    async fn send(&self, client: &Client) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = if self.namespace.is_empty() {
            Api::all_with(client.clone(), &self.kind)
        } else {
            objects::api(client, &self.namespace, &self.kind)
        };
        let (name, patch) = (&self.name, PatchParams::default());
        let create = |content: &Value, dry_run| {
            let params = PostParams {
                dry_run,
                ..PostParams::default()
            };
            let object = objects::object(&self.kind, name, content.clone());
            let object = with_metadata(object, content);
            let api = api.clone();
            async move { api.create(&params, &object).await }
        };
        match &self.how {
            How::Merge("", body) => drop(api.patch(name, &patch, &Patch::Merge(body)).await?),
            How::Merge(part, body) => {
                let body = &Patch::Merge(body);
                drop(api.patch_subresource(part, name, &patch, body).await?);
            }
            How::Strategic("", body) => {
                drop(api.patch(name, &patch, &Patch::Strategic(body)).await?);
            }
            How::Strategic(part, body) => {
                let body = &Patch::Strategic(body);
                drop(api.patch_subresource(part, name, &patch, body).await?);
            }
            How::Create(content) => drop(create(content, false).await?),
            How::DryCreate(content) => drop(create(content, true).await?),
            How::Call(part, content) => {
                let _: Value = api
                    .create_subresource(part, name, &PostParams::default(), content)
                    .await?;
            }
            How::Delete => drop(api.delete(name, &DeleteParams::default()).await?),
            How::Get => drop(api.get(name).await?),
        }
        Ok(())
    }
}

/// The metadata that the content brings, beside the name.
fn with_metadata(mut object: DynamicObject, content: &Value) -> DynamicObject {
    let name = object.metadata.name.clone();
    if let Ok(metadata) = serde_json::from_value(content["metadata"].clone()) {
        object.metadata = metadata;
    }
    object.metadata.name = name;
    if let Some(data) = object.data.as_object_mut() {
        data.remove("metadata");
    }
    object
}

/// Sends each with this client's rights, prints what came of it, and fails on what must not.
pub async fn try_all(client: &Client, expected: Expected, attempts: &[Attempt]) -> Result<()> {
    let mut wrong = Vec::new();
    for attempt in attempts {
        let (ok, said) = match attempt.send(client).await {
            Ok(()) => (expected == Expected::Passes, "passed".to_owned()),
            Err(kube::Error::Api(status)) => {
                // Not found, conflicts and the like say nothing about who may do what.
                let refused = matches!(status.code, 403 | 422);
                let ok = expected == Expected::Refused && refused;
                (ok, format!("{} {}", status.code, status.message))
            }
            Err(error) => (false, error.to_string()),
        };
        let said: String = said.chars().take(300).collect();
        println!("{:<60} {said}", attempt.what);
        if !ok {
            wrong.push(format!("{} (must be {expected:?}): {said}", attempt.what));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
