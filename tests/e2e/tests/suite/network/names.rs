//! What a name may come to mean, and how answers change.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use pilotlight_bench::outside::Meaning;
use pilotlight_cluster::{API_SERVICE, DNS_SERVICE};
use pilotlight_e2e::reach::{Tries, egress, ended, refused};
use pilotlight_e2e::scene::Scene;
use serde_json::{Value, json};

use super::{A, AAAA, levels, name_of, sandbox, with_internet};

#[test]
fn a_name_cannot_mean_an_address_inside() {
    with_internet("rebinding", |scene, outside| async move {
        let local = scene.environment.installation.local();
        let host = local
            .context("this cluster is the local one")?
            .host_address();
        let public = outside.addresses()[0];
        let inside: Vec<IpAddr> = [
            host,
            API_SERVICE,
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(169, 254, 169, 254),
            Ipv4Addr::new(100, 64, 0, 1),
            Ipv4Addr::new(224, 0, 0, 1),
        ]
        .map(IpAddr::from)
        .into_iter()
        .chain(
            [
                "::1",
                "fe80::1",
                "fd00::1",
                "::ffff:10.96.0.1",
                "64:ff9b::a60:1",
            ]
            .map(|a| a.parse().unwrap_or(IpAddr::from([0; 4]))),
        )
        .collect();
        let rebinding = name_of(
            &scene,
            outside,
            "rebinding",
            Meaning::addresses(inside.clone()),
        );
        let mixed = name_of(&scene, outside, "mixed", Meaning::addresses([host, public]));
        let access = json!({ "egress": [egress(&rebinding, &[443, 6443, 10250]), egress(&mixed, &[443, 6443])] });
        let pod = sandbox(&scene, "rebound", json!({}), access).await?;
        let ends = Tries::default()
            .dns("addresses", DNS_SERVICE, &rebinding, A)
            .dns("addresses of IPv6", DNS_SERVICE, &rebinding, AAAA)
            .name("mixed", &mixed)
            .from_inside(&scene, &pod)
            .await?;
        ended(
            &ends,
            &[
                ("addresses", "code 0 answers 0"),
                ("addresses of IPv6", "code 0 answers 0"),
                ("mixed", &public.to_string()),
            ],
        )?;
        let ends = Tries::default()
            .tcp("the host", host, 6443)
            .tcp("the API server's Service", inside[1], 443)
            .from_inside(&scene, &pod)
            .await?;
        refused(&ends, &["the host", "the API server's Service"])
    });
}

#[test]
fn where_a_profile_allows_the_range_a_name_may_mean_an_address_inside() {
    with_internet("split-horizon", |scene, outside| async move {
        let local = scene.environment.installation.local();
        let host = local
            .context("this cluster is the local one")?
            .host_address();
        let inside = name_of(&scene, outside, "inside", Meaning::addresses([host]));
        let rule = json!({ "cidr": format!("{host}/32"), "ports": [{ "port": 5300 }] });
        let policies = json!({ "networkPolicies": [{ "type": "egress", "rules": [rule, { "domain": inside, "ports": [{ "port": 6443 }] }] }] });
        scene.profile("inside", policies).await?;
        let profile = json!({ "profileRef": { "name": "inside" } });
        let pod = sandbox(&scene, "allowed", profile, Value::Null).await?;
        let ends = Tries::default()
            .tcp("by range", host, 5300)
            .name("by name", &inside)
            .tcp("at its port", host, 6443)
            .from_inside(&scene, &pod)
            .await?;
        let meant = host.to_string();
        ended(
            &ends,
            &[
                ("by range", "open"),
                ("by name", &meant),
                ("at its port", "open"),
            ],
        )
    });
}

#[test]
fn an_alias_is_followed_and_is_itself_not_allowed() {
    with_internet("alias", |scene, outside| async move {
        let [first, second, ..] = outside.addresses();
        let edge = name_of(&scene, outside, "edge", Meaning::addresses([first, second]));
        let alias = Meaning {
            alias: Some(edge.clone()),
            ttl: 60,
            ..Meaning::default()
        };
        let between = name_of(&scene, outside, "between", alias);
        let alias = Meaning {
            alias: Some(between.clone()),
            ttl: 60,
            ..Meaning::default()
        };
        let front = name_of(&scene, outside, "front", alias);
        let access = json!({ "egress": [egress(&front, &[443])] });
        let pod = sandbox(&scene, "aliased", json!({}), access).await?;
        let ends = Tries::default()
            .greeted("front", &front, 443)
            .tcp("its second address", second, 443)
            .name("between", &between)
            .name("edge", &edge)
            .from_inside(&scene, &pod)
            .await?;
        ended(
            &ends,
            &[
                ("front", "open"),
                ("its second address", "open"),
                ("between", "refused"),
                ("edge", "refused"),
            ],
        )
    });
}

#[test]
fn an_answer_that_changes_is_followed_and_the_old_address_closed() {
    for (runtime, fields) in levels() {
        with_internet(
            &format!("changing-{runtime}"),
            |scene, outside| async move { follows(&scene, outside, fields).await },
        );
    }
}

async fn follows(
    scene: &Scene,
    outside: &pilotlight_bench::outside::Outside,
    fields: Value,
) -> Result<()> {
    let [first, second, ..] = outside.addresses();
    let short = |address| Meaning {
        ttl: 1,
        ..Meaning::addresses([address])
    };
    let name = name_of(scene, outside, "moves", short(first));
    let access = json!({ "egress": [egress(&name, &[443])] });
    let pod = sandbox(scene, "follows", fields, access).await?;
    let before = Tries::default()
        .greeted("the name", &name, 443)
        .tcp("the second address", second, 443)
        .from_inside(scene, &pod)
        .await?;
    ended(&before, &[("the name", "open")])?;
    refused(&before, &["the second address"])?;
    name_of(scene, outside, "moves", short(second));
    // Nothing tells when an address is closed: the kernel does it by itself, a grace after the answer is no longer good. A program
    // in the sandbox tries until it is refused.
    let until = format!(
        "import socket, time
def refused():
    try:
        socket.create_connection(('{first}', 443), 5).close()
    except OSError:
        return True
end = time.time() + 120
while not refused() and time.time() < end:
    time.sleep(0.5)
print('null')"
    );
    scene.python_json(&pod, &until).await?;
    let after = Tries::default()
        .name("the name", &name)
        .greeted("its new address", &name, 443)
        .tcp("its old address", first, 443)
        .from_inside(scene, &pod)
        .await?;
    ended(
        &after,
        &[
            ("the name", &second.to_string()),
            ("its new address", "open"),
        ],
    )?;
    refused(&after, &["its old address"])
}

#[test]
fn a_thousand_addresses_in_one_answer_are_no_harm() {
    with_internet("thousand", |scene, outside| async move {
        let [first, ..] = outside.addresses();
        let many =
            (0..1000_u32).map(|n| Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() + n));
        let many: Vec<Ipv4Addr> = many.chain([first]).collect();
        let crowd = name_of(&scene, outside, "crowd", Meaning::addresses(many));
        let plain = name_of(&scene, outside, "plain", Meaning::addresses([first]));
        let access =
            json!({ "egress": [egress(&crowd, &[443, 80, 8443]), egress(&plain, &[443])] });
        let pod = sandbox(&scene, "crowded", json!({}), access).await?;
        let ends = Tries::default()
            .dns_tcp("crowd", DNS_SERVICE, &crowd, A)
            .name("crowd by the C library", &crowd)
            .greeted("plain", &plain, 443)
            .from_inside(&scene, &pod)
            .await?;
        ended(&ends, &[("plain", "open")])?;
        let crowd = &ends["crowd"];
        ensure!(crowd.starts_with("code 0 answers"), "{crowd}");
        let other = sandbox(
            &scene,
            "other",
            json!({}),
            json!({ "egress": [egress(&plain, &[443])] }),
        )
        .await?;
        let ends = Tries::default()
            .greeted("plain", &plain, 443)
            .from_inside(&scene, &other)
            .await?;
        ended(&ends, &[("plain", "open")])
    });
}
