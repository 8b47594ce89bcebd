//! The token of a node's agent, in the hands of somebody who wants more than the agent does.

pub(crate) mod attempts;

use anyhow::{Context, Result, ensure};
use pilotlight_bench::objects::pods;
use pilotlight_e2e::attempt::{Attempt, Expected, How, attempt, try_all};
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::condition;
use pilotlight_e2e::token;
use serde_json::json;

use super::{idle_on, running_on, set_up, shapes};
use attempts::{Places, allowed, forbidden};

#[test]
fn the_token_of_an_agent_is_good_for_its_own_node_and_its_own_fields_alone() {
    scene("agent-token", |scene| async move {
        let (first, second) = set_up(&scene).await?;
        let environment = scene.environment;
        let stolen = token::of_agent(environment, &first).await?;
        let thief = token::client(environment, stolen).await?;
        let agent_pod = token::agent_pod(environment, &first).await?.metadata.name;
        let agent_pod = agent_pod.context("a pod has a name")?;
        let on = |node: &str| -> Result<[String; 4]> {
            let (sandbox, pod) = running_on(&scene, node)?;
            Ok([node.to_owned(), idle_on(&scene, node)?, sandbox, pod])
        };
        let (own, other) = (on(&first)?, on(&second)?);
        let places = Places {
            namespace: &scene.namespace,
            system: &environment.installation.namespace,
            agent_pod: &agent_pod,
            own: own.each_ref().map(String::as_str),
            other: other.each_ref().map(String::as_str),
        };
        let watched = [own[1].as_str(), &own[3], &other[1], &other[3]];
        let before = shapes(&scene, &watched).await?;

        let attempts = forbidden(&places);
        println!("{} forbidden requests", attempts.len());
        ensure!(attempts.len() >= 30, "too few");
        try_all(&thief, Expected::Refused, &attempts).await?;

        let pod = scene.pod(&own[3])?;
        let prepared = condition(&pod, "llmsafespace.dev/prepared");
        let prepared = prepared.context("a pod that serves is prepared")?;
        try_all(&thief, Expected::Passes, &allowed(&places, prepared)).await?;

        // The API server leaves these out of what a status write changes; they pass, and change nothing.
        let owner = json!({ "metadata": { "ownerReferences": null } });
        let image = json!({ "spec": { "containers": [{ "name": "sandbox", "image": "stolen" }] } });
        let without_effect = [
            attempt(
                "pod: owner by the status",
                &pods(),
                (&scene.namespace, &own[3]),
                How::Merge("status", owner),
            ),
            attempt(
                "pod: image by the status",
                &pods(),
                (&scene.namespace, &own[3]),
                How::Strategic("status", image),
            ),
        ];
        try_all(&thief, Expected::Passes, &without_effect).await?;
        ensure!(before == shapes(&scene, &watched).await?, "a pod changed");

        // One that the account may have issued for no pod at all names no node.
        let unbound = token::request(environment, token::AGENT, None).await?;
        let unbound = token::client(environment, unbound).await?;
        let writes = allowed(&places, prepared);
        let writes: Vec<Attempt> = writes
            .into_iter()
            .filter(|a| !matches!(a.how, How::Get))
            .collect();
        try_all(&unbound, Expected::Refused, &writes).await?;
        scene.one_to_one().await
    });
}
