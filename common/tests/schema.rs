//! Holds the generated CRDs against the API that was promised, written out by hand in [`promised`].
//!
//! Every object valid under the promise stays valid: each promised property is there with the same type, enum,
//! pattern, default, bounds, format and required list, and whatever else is generated stands in an explicit list
//! of additions, none of them required.

#[path = "schema/promised.rs"]
mod promised;

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResourceExt;
use pilotlight_common::kinds;
use promised::{KindPromise, PROMISES, Scope};
use serde_json::{Value, json};

/// Words of a schema node that say nothing about which values are valid.
const HARMLESS: [&str; 4] = ["description", "title", "nullable", "properties"];
/// Words of a schema node that [`differences_of_node`] compares.
const COMPARED: [&str; 9] = [
    "type", "enum", "pattern", "default", "minimum", "maximum", "format", "required", "items",
];

fn generated(kind: &str) -> Value {
    let crd = match kind {
        "Sandbox" => kinds::Sandbox::crd(),
        "SandboxProfile" => kinds::SandboxProfile::crd(),
        "WarmPool" => kinds::WarmPool::crd(),
        "WarmPod" => kinds::WarmPod::crd(),
        "RuntimeEnvironment" => kinds::RuntimeEnvironment::crd(),
        _ => return Value::Null,
    };
    serde_json::to_value(crd).unwrap_or_default()
}

fn version(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]
}

/// Every node of a schema by its path; the root's is empty, an array's items are `path[]`.
fn nodes<'a>(path: &str, node: &'a Value, into: &mut BTreeMap<String, &'a Value>) {
    into.insert(path.to_owned(), node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let child_path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        nodes(&child_path, child, into);
    }
    if node["items"].is_object() {
        nodes(&format!("{path}[]"), &node["items"], into);
    }
}

fn words(value: &Value) -> BTreeSet<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// How the constraints of one generated node differ from `promised`, a schema node in the same notation.
fn differences_of_node(path: &str, promised: &Value, node: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for word in ["type", "pattern", "default"] {
        if node[word] != promised[word] {
            found.push(format!(
                "{path}: {word} is {}, promised {}",
                node[word], promised[word]
            ));
        }
    }
    for word in ["minimum", "maximum"] {
        // The bounds come out as floating point numbers, 1.0 for 1.
        if node[word].as_f64() != promised[word].as_f64() {
            found.push(format!(
                "{path}: {word} is {}, promised {}",
                node[word], promised[word]
            ));
        }
    }
    for word in ["enum", "required"] {
        if words(&node[word]) != words(&promised[word]) {
            found.push(format!(
                "{path}: {word} is {}, promised {}",
                node[word], promised[word]
            ));
        }
    }
    // int64 is what every integer of the API is anyway.
    let width_only = promised["format"].is_null() && node["format"] == "int64";
    if node["format"] != promised["format"] && !width_only {
        found.push(format!(
            "{path}: format is {}, promised {}",
            node["format"], promised["format"]
        ));
    }
    for word in node.as_object().into_iter().flatten().map(|(word, _)| word) {
        let list_map = path.ends_with("status.conditions") && word.starts_with("x-kubernetes-list");
        let rules = path.is_empty() && word == "x-kubernetes-validations";
        let known = HARMLESS.contains(&word.as_str()) || COMPARED.contains(&word.as_str());
        if !known && !list_map && !rules {
            found.push(format!("{path}: \"{word}\" was not promised"));
        }
    }
    found
}

/// How the schema of a generated CRD differs from its promise, in both directions.
fn differences(promise: &KindPromise, crd: &Value) -> Vec<String> {
    let mut generated = BTreeMap::new();
    nodes(
        "",
        &version(crd)["schema"]["openAPIV3Schema"],
        &mut generated,
    );
    let promised: BTreeMap<String, Value> = (promise.fields)().into_iter().collect();
    let mut found = Vec::new();
    for (path, constraints) in &promised {
        match generated.get(path) {
            None => found.push(format!("{path}: missing")),
            Some(node) => found.extend(differences_of_node(path, constraints, node)),
        }
    }
    for path in generated
        .keys()
        .filter(|path| !promised.contains_key(*path))
    {
        // An added list brings its items along.
        if !promise.added.contains(&path.trim_end_matches("[]")) {
            found.push(format!(
                "{path}: neither promised nor in the list of additions"
            ));
        }
    }
    for path in promise.added {
        if !generated.contains_key(*path) {
            found.push(format!("{path}: listed as added, and not there"));
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        // What lies inside an addition may be required there: no promised object has it.
        if promise.added.contains(&parent.trim_end_matches("[]")) {
            continue;
        }
        if generated
            .get(parent)
            .is_some_and(|node| words(&node["required"]).contains(name))
        {
            found.push(format!("{path}: added, so it must not be required"));
        }
    }
    found
}

#[test]
fn every_schema_is_the_promised_one_plus_optional_additions() {
    for promise in PROMISES {
        let found = differences(promise, &generated(promise.kind));
        assert!(found.is_empty(), "{}:\n{}", promise.kind, found.join("\n"));
    }
}

#[test]
fn names_scope_and_version_are_the_promised_ones() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let spec = &crd["spec"];
        assert_eq!(
            crd["metadata"]["name"],
            format!("{}.llmsafespace.dev", promise.plural)
        );
        assert_eq!(spec["group"], "llmsafespace.dev");
        assert_eq!(
            spec["names"],
            json!({
                "kind": promise.kind,
                "plural": promise.plural,
                "singular": promise.singular,
                "shortNames": [promise.short_name],
            })
        );
        let scope = match promise.scope {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        };
        assert_eq!(spec["scope"], scope, "{}", promise.kind);
        assert_eq!(spec["versions"].as_array().map(Vec::len), Some(1));
        let version = version(&crd);
        assert_eq!(version["name"], "v1");
        assert_eq!(version["served"], true);
        assert_eq!(version["storage"], true);
    }
}

#[test]
fn every_kind_with_a_status_has_the_status_subresource() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let expected = if promise.has_status {
            json!({})
        } else {
            Value::Null
        };
        assert_eq!(
            version(&crd)["subresources"]["status"],
            expected,
            "{}",
            promise.kind
        );
    }
}

#[test]
fn a_pool_can_be_scaled_by_paths_that_its_schema_has() {
    let crd = generated("WarmPool");
    let scale = &version(&crd)["subresources"]["scale"];
    let schema = &version(&crd)["schema"]["openAPIV3Schema"];
    for (path, kind) in [
        ("specReplicasPath", "integer"),
        ("statusReplicasPath", "integer"),
        ("labelSelectorPath", "string"),
    ] {
        let target = scale[path].as_str().unwrap();
        let pointer = target.replace('.', "/properties/");
        assert_eq!(schema.pointer(&pointer).unwrap()["type"], kind, "{target}");
    }
}

#[test]
fn the_promised_printer_columns_are_there_in_their_order() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let columns = version(&crd)["additionalPrinterColumns"]
            .as_array()
            .unwrap();
        let mut rest = columns.iter();
        for (name, type_, json_path) in promise.columns {
            let found = rest.find(|column| column["name"] == *name);
            let column =
                found.unwrap_or_else(|| panic!("{}: column {name} is not there", promise.kind));
            assert_eq!(
                (&column["type"], &column["jsonPath"]),
                (&json!(type_), &json!(json_path)),
                "{}: {name}",
                promise.kind
            );
        }
    }
}

#[test]
fn conditions_are_maps_by_type_so_that_writers_touch_only_their_own() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let status = &version(&crd)["schema"]["openAPIV3Schema"]["properties"]["status"];
        let Some(conditions) = status["properties"].get("conditions") else {
            continue;
        };
        assert_eq!(
            conditions["x-kubernetes-list-type"], "map",
            "{}",
            promise.kind
        );
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            json!(["type"]),
            "{}",
            promise.kind
        );
    }
}

#[test]
fn the_rules_of_change_are_there_and_no_others() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let rules: Vec<&str> =
            version(&crd)["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|rule| rule["rule"].as_str())
                .collect();
        assert_eq!(rules, promise.rules, "{}", promise.kind);
    }
}

#[test]
fn every_property_says_what_it_is() {
    for promise in PROMISES {
        let crd = generated(promise.kind);
        let mut all = BTreeMap::new();
        nodes("", &version(&crd)["schema"]["openAPIV3Schema"], &mut all);
        for (path, node) in all.iter().filter(|(path, _)| !path.ends_with("[]")) {
            assert!(
                node["description"].is_string(),
                "{}: {path} has no description",
                promise.kind
            );
        }
    }
}

/// The comparison itself must notice each way in which a schema can go wrong.
#[test]
fn the_comparison_notices_every_kind_of_change() {
    /// What to look for in the difference, and the change that makes it.
    type Case = (&'static str, fn(&mut Value));
    let spoil: [Case; 8] = [
        ("spec.timeout: default", |spec| {
            spec["timeout"]["default"] = json!(301);
        }),
        ("spec.timeout: maximum", |spec| {
            spec["timeout"]["maximum"] = json!(3599.0);
        }),
        ("spec.securityLevel: enum", |spec| {
            spec["securityLevel"]["enum"] = json!(["standard", "high"]);
        }),
        ("spec.runtime: type", |spec| {
            spec["runtime"]["type"] = json!("integer");
        }),
        ("spec.runtime: \"maxLength\"", |spec| {
            spec["runtime"]["maxLength"] = json!(63);
        }),
        ("spec.surprise: neither", |spec| {
            spec["surprise"] = json!({"type": "string"});
        }),
        ("spec.profileRef.name: missing", |spec| {
            spec["profileRef"]["properties"] = json!({"namespace": {"type": "string"}});
        }),
        ("spec.resources.cpu: pattern", |spec| {
            spec["resources"]["properties"]["cpu"]["pattern"] = json!("^[0-9]+m$");
        }),
    ];
    let promise = PROMISES.iter().find(|p| p.kind == "Sandbox").unwrap();
    for (expected, change) in spoil {
        let mut crd = generated("Sandbox");
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        change(crd.pointer_mut(spec).unwrap());
        let found = differences(promise, &crd);
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}: {found:?}");
    }
}
