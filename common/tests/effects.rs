//! Every field that a user can set takes effect or is refused aloud: the generated schema is walked, each field is set,
//! and what the objects resolve to must change. A field that nothing reads fails here, and so does one that
//! `docs/api.md` does not explain.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kube::CustomResourceExt;
use pilotlight_common::kinds::{
    self, RuntimeEnvironment, Sandbox, SandboxProfile, SandboxSpec, WarmPool,
};
use pilotlight_common::resolve::{
    Defaults, find_runtime, profile_name, profile_not_found, resolve_pool, resolve_sandbox,
};
use serde_json::{Value, json};

/// The kinds whose spec users write.
const USERS: [&str; 4] = [
    "Sandbox",
    "SandboxProfile",
    "WarmPool",
    "RuntimeEnvironment",
];

fn schema(kind: &str) -> Value {
    let crd = match kind {
        "Sandbox" => kinds::Sandbox::crd(),
        "SandboxProfile" => kinds::SandboxProfile::crd(),
        "WarmPool" => kinds::WarmPool::crd(),
        "WarmPod" => kinds::WarmPod::crd(),
        "RuntimeEnvironment" => kinds::RuntimeEnvironment::crd(),
        other => panic!("no kind {other}"),
    };
    serde_json::to_value(&crd.spec.versions[0]).unwrap()
}

/// Paths of the fields that hold values, `a.b[].c`.
fn leaves(kind: &str) -> BTreeSet<String> {
    fn walk(path: &str, node: &Value, into: &mut BTreeSet<String>) {
        if let Some(properties) = node["properties"].as_object() {
            for (name, child) in properties {
                let path = format!("{path}.{name}");
                walk(path.trim_start_matches('.'), child, into);
            }
        } else if node["items"]["properties"].is_object() {
            walk(&format!("{path}[]"), &node["items"], into);
        } else {
            into.insert(path.to_owned());
        }
    }
    let mut into = BTreeSet::new();
    walk("", &schema(kind)["schema"]["openAPIV3Schema"], &mut into);
    into
}

/// Objects that fit each other, as a user would write them.
#[derive(Clone)]
struct Objects(BTreeMap<&'static str, Value>);

impl Objects {
    fn new() -> Self {
        let named = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
        let reference = json!({ "name": "profile" });
        Self(BTreeMap::from([
            (
                "Sandbox",
                named(
                    "one",
                    json!({ "runtime": "python", "profileRef": reference }),
                ),
            ),
            (
                "WarmPool",
                named(
                    "pool",
                    json!({ "runtime": "python", "minSize": 1, "profileRef": reference }),
                ),
            ),
            (
                "SandboxProfile",
                named("profile", json!({ "language": "python" })),
            ),
            (
                "RuntimeEnvironment",
                named(
                    "python",
                    json!({ "language": "python", "image": "registry.example/python:3" }),
                ),
            ),
        ]))
    }

    /// Sets a field; what lies on the way to it is made, arrays with one item.
    fn set(&mut self, kind: &str, path: &str, value: Value) {
        let mut node = self.0.get_mut(kind).unwrap();
        for part in path.split('.') {
            let name = part.trim_end_matches("[]");
            let child = &mut node[name];
            node = if part.ends_with("[]") {
                if child.is_null() {
                    *child = json!([{}]);
                }
                &mut child[0]
            } else {
                child
            };
        }
        *node = value;
    }

    /// What all of them come to.
    fn outcome(&self) -> String {
        let read = |kind: &str| self.0[kind].clone();
        let sandbox: SandboxSpec = serde_json::from_value(read("Sandbox")["spec"].clone()).unwrap();
        let pool = serde_json::from_value(read("WarmPool")["spec"].clone()).unwrap();
        let mut profile = SandboxProfile::new("profile", kinds::SandboxProfileSpec::default());
        profile.spec = serde_json::from_value(read("SandboxProfile")["spec"].clone()).unwrap();
        let mut runtime =
            RuntimeEnvironment::new("python", kinds::RuntimeEnvironmentSpec::default());
        runtime.spec = serde_json::from_value(read("RuntimeEnvironment")["spec"].clone()).unwrap();
        let runtimes = [runtime];
        let defaults = Defaults {
            high_runtime_class: Some("gvisor".into()),
            ..Defaults::default()
        };
        let of = |name: &str, reference: Option<&kinds::ProfileRef>| {
            let runtime = find_runtime(&runtimes, name)?;
            let profile = match profile_name(reference, "ns")? {
                Some("profile") => Some(&profile),
                Some(other) => return Err(profile_not_found(other)),
                None => None,
            };
            Ok((runtime, profile))
        };
        let first =
            of(&sandbox.runtime, sandbox.profile_ref.as_ref()).and_then(|(runtime, profile)| {
                resolve_sandbox("ns", &sandbox, profile, runtime, &defaults)
            });
        let pool: kinds::WarmPoolSpec = pool;
        let second = of(&pool.runtime, pool.profile_ref.as_ref())
            .and_then(|(runtime, profile)| resolve_pool("ns", &pool, profile, runtime, &defaults));
        let by_version = find_runtime(&runtimes, "python:3.11").is_ok();
        format!("{first:?}\n{second:?}\n{by_version}")
    }
}

/// How a field is seen to have an effect.
enum Effect {
    /// With the first settings made, setting it to this value changes what the objects resolve to, or refuses them.
    Resolves(
        &'static [(&'static str, &'static str, &'static str)],
        &'static str,
    ),
    /// It is for people: this printer column shows it.
    Column(&'static str),
}

/// One field, with its effect.
type Case = (&'static str, &'static str, Effect);

const CUSTOM: &[(&str, &str, &str)] = &[("Sandbox", "spec.securityLevel", r#""custom""#)];
const LOCALHOST: &[(&str, &str, &str)] = &[(
    "Sandbox",
    "spec.securityContext.seccompProfile.type",
    r#""Localhost""#,
)];
const HIGH: &[(&str, &str, &str)] = &[("Sandbox", "spec.securityLevel", r#""high""#)];
const PERSISTENT: &[(&str, &str, &str)] = &[("Sandbox", "spec.storage.persistent", "true")];
const SCALING: &[(&str, &str, &str)] = &[("WarmPool", "spec.autoScaling.enabled", "true")];
const PACKAGES: &[(&str, &str, &str)] = &[("WarmPool", "spec.preloadPackages", r#"["numpy"]"#)];
const SCRIPT: &[(&str, &str, &str)] = &[
    ("WarmPool", "spec.preloadScripts[].name", r#""a""#),
    ("WarmPool", "spec.preloadScripts[].content", r#""true""#),
];
const NAME: &[(&str, &str, &str)] = &[(
    "Sandbox",
    "spec.networkAccess.egress[].domain",
    r#""example.com""#,
)];
const NAME_AND_PORT: &[(&str, &str, &str)] = &[
    NAME[0],
    ("Sandbox", "spec.networkAccess.egress[].ports[].port", "53"),
];
const TYPELESS: &[(&str, &str, &str)] = &[(
    "SandboxProfile",
    "spec.networkPolicies[].rules[].domain",
    r#""example.com""#,
)];
const EGRESS: &[(&str, &str, &str)] = &[(
    "SandboxProfile",
    "spec.networkPolicies[].type",
    r#""egress""#,
)];
const RANGE: &[(&str, &str, &str)] = &[
    EGRESS[0],
    (
        "SandboxProfile",
        "spec.networkPolicies[].rules[].cidr",
        r#""10.0.0.0/8""#,
    ),
];
const RANGE_AND_PORT: &[(&str, &str, &str)] = &[
    RANGE[0],
    RANGE[1],
    (
        "SandboxProfile",
        "spec.networkPolicies[].rules[].ports[].port",
        "53",
    ),
];
const COUNTED_ON: &[(&str, &str, &str)] = &[(
    "SandboxProfile",
    "spec.preInstalledPackages",
    r#"["numpy"]"#,
)];

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("Sandbox", "spec.runtime", Effect::Resolves(&[], r#""none""#)),
    ("Sandbox", "spec.securityLevel", Effect::Resolves(&[], r#""high""#)),
    ("Sandbox", "spec.timeout", Effect::Resolves(&[], "7")),
    ("Sandbox", "spec.resources.cpu", Effect::Resolves(&[], r#""250m""#)),
    ("Sandbox", "spec.resources.memory", Effect::Resolves(&[], r#""64Mi""#)),
    ("Sandbox", "spec.resources.ephemeralStorage", Effect::Resolves(&[], r#""2Gi""#)),
    ("Sandbox", "spec.resources.cpuPinning", Effect::Resolves(&[], "true")),
    ("Sandbox", "spec.networkAccess.egress[].domain", Effect::Resolves(&[], r#""example.org""#)),
    ("Sandbox", "spec.networkAccess.egress[].ports[].port", Effect::Resolves(NAME, "8443")),
    ("Sandbox", "spec.networkAccess.egress[].ports[].protocol", Effect::Resolves(NAME_AND_PORT, r#""UDP""#)),
    ("Sandbox", "spec.networkAccess.ingress", Effect::Resolves(&[], "true")),
    ("Sandbox", "spec.filesystem.readOnlyRoot", Effect::Resolves(&[], "false")),
    ("Sandbox", "spec.filesystem.writablePaths", Effect::Resolves(&[], r#"["/a"]"#)),
    ("Sandbox", "spec.storage.persistent", Effect::Resolves(&[], "true")),
    ("Sandbox", "spec.storage.volumeSize", Effect::Resolves(PERSISTENT, r#""1Gi""#)),
    ("Sandbox", "spec.securityContext.runAsUser", Effect::Resolves(CUSTOM, "2000")),
    ("Sandbox", "spec.securityContext.runAsGroup", Effect::Resolves(CUSTOM, "2000")),
    ("Sandbox", "spec.securityContext.seccompProfile.type", Effect::Resolves(&[], r#""Localhost""#)),
    ("Sandbox", "spec.securityContext.seccompProfile.localhostProfile", Effect::Resolves(LOCALHOST, r#""x""#)),
    ("Sandbox", "spec.profileRef.name", Effect::Resolves(&[], r#""other""#)),
    ("Sandbox", "spec.profileRef.namespace", Effect::Resolves(&[], r#""other""#)),

    ("SandboxProfile", "spec.language", Effect::Resolves(&[], r#""nodejs""#)),
    ("SandboxProfile", "spec.securityLevel", Effect::Resolves(&[], r#""high""#)),
    ("SandboxProfile", "spec.seccompProfile", Effect::Resolves(&[], r#""x""#)),
    ("SandboxProfile", "spec.networkPolicies[].type", Effect::Resolves(TYPELESS, r#""egress""#)),
    ("SandboxProfile", "spec.networkPolicies[].rules[].domain", Effect::Resolves(EGRESS, r#""example.com""#)),
    ("SandboxProfile", "spec.networkPolicies[].rules[].cidr", Effect::Resolves(EGRESS, r#""10.0.0.0/8""#)),
    ("SandboxProfile", "spec.networkPolicies[].rules[].ports[].port", Effect::Resolves(RANGE, "8443")),
    ("SandboxProfile", "spec.networkPolicies[].rules[].ports[].protocol", Effect::Resolves(RANGE_AND_PORT, r#""UDP""#)),
    ("SandboxProfile", "spec.preInstalledPackages", Effect::Resolves(&[], r#"["numpy"]"#)),
    ("SandboxProfile", "spec.resourceDefaults.cpu", Effect::Resolves(&[], r#""2""#)),
    ("SandboxProfile", "spec.resourceDefaults.memory", Effect::Resolves(&[], r#""2Gi""#)),
    ("SandboxProfile", "spec.resourceDefaults.ephemeralStorage", Effect::Resolves(&[], r#""2Gi""#)),
    ("SandboxProfile", "spec.filesystemConfig.readOnlyPaths", Effect::Resolves(&[], r#"["/etc"]"#)),
    ("SandboxProfile", "spec.filesystemConfig.writablePaths", Effect::Resolves(&[], r#"["/a"]"#)),

    ("WarmPool", "spec.runtime", Effect::Resolves(&[], r#""none""#)),
    ("WarmPool", "spec.minSize", Effect::Resolves(&[], "3")),
    ("WarmPool", "spec.maxSize", Effect::Resolves(&[], "3")),
    ("WarmPool", "spec.securityLevel", Effect::Resolves(&[], r#""high""#)),
    ("WarmPool", "spec.ttl", Effect::Resolves(&[], "0")),
    ("WarmPool", "spec.resources.cpu", Effect::Resolves(&[], r#""250m""#)),
    ("WarmPool", "spec.resources.memory", Effect::Resolves(&[], r#""64Mi""#)),
    ("WarmPool", "spec.profileRef.name", Effect::Resolves(&[], r#""other""#)),
    ("WarmPool", "spec.profileRef.namespace", Effect::Resolves(&[], r#""other""#)),
    ("WarmPool", "spec.preloadPackages", Effect::Resolves(&[], r#"["numpy"]"#)),
    ("WarmPool", "spec.preloadScripts[].name", Effect::Resolves(SCRIPT, r#""b""#)),
    ("WarmPool", "spec.preloadScripts[].content", Effect::Resolves(SCRIPT, r#""false""#)),
    ("WarmPool", "spec.autoScaling.enabled", Effect::Resolves(&[], "true")),
    ("WarmPool", "spec.autoScaling.targetUtilization", Effect::Resolves(SCALING, "50")),
    ("WarmPool", "spec.autoScaling.scaleDownDelay", Effect::Resolves(SCALING, "0")),

    ("RuntimeEnvironment", "spec.image", Effect::Resolves(&[], r#""other:1""#)),
    ("RuntimeEnvironment", "spec.command", Effect::Resolves(&[], r#"["sleep", "1"]"#)),
    ("RuntimeEnvironment", "spec.language", Effect::Resolves(&[], r#""nodejs""#)),
    ("RuntimeEnvironment", "spec.version", Effect::Resolves(&[], r#""3.11""#)),
    ("RuntimeEnvironment", "spec.tags", Effect::Column("Tags")),
    ("RuntimeEnvironment", "spec.preInstalledPackages", Effect::Resolves(COUNTED_ON, r#"["numpy"]"#)),
    ("RuntimeEnvironment", "spec.packageManager", Effect::Resolves(PACKAGES, r#""apt""#)),
    ("RuntimeEnvironment", "spec.securityFeatures", Effect::Resolves(HIGH, r#"["seccomp"]"#)),
    ("RuntimeEnvironment", "spec.resourceRequirements.minCpu", Effect::Resolves(&[], r#""2""#)),
    ("RuntimeEnvironment", "spec.resourceRequirements.minMemory", Effect::Resolves(&[], r#""2Gi""#)),
    ("RuntimeEnvironment", "spec.resourceRequirements.recommendedCpu", Effect::Resolves(&[], r#""2""#)),
    ("RuntimeEnvironment", "spec.resourceRequirements.recommendedMemory", Effect::Resolves(&[], r#""2Gi""#)),
];

#[test]
fn every_field_of_a_spec_has_a_case_here() {
    for kind in USERS {
        let cases: BTreeSet<String> = CASES
            .iter()
            .filter(|case| case.0 == kind)
            .map(|case| case.1.to_owned())
            .collect();
        let fields: BTreeSet<String> = leaves(kind)
            .into_iter()
            .filter(|path| path.starts_with("spec."))
            .collect();
        assert_eq!(fields, cases, "{kind}");
    }
}

#[test]
fn setting_any_field_changes_what_comes_of_it_or_refuses_it() {
    for (kind, path, effect) in CASES {
        match effect {
            Effect::Resolves(given, value) => {
                let mut objects = Objects::new();
                for (kind, path, value) in *given {
                    objects.set(kind, path, serde_json::from_str(value).unwrap());
                }
                let before = objects.outcome();
                objects.set(kind, path, serde_json::from_str(value).unwrap());
                assert!(
                    objects.outcome() != before,
                    "{kind} {path}: nothing reads it"
                );
            }
            Effect::Column(name) => {
                let version = schema(kind);
                let columns = version["additionalPrinterColumns"].as_array().unwrap();
                let shown = columns
                    .iter()
                    .any(|c| c["name"] == *name && c["jsonPath"] == format!(".{path}"));
                assert!(shown, "{kind} {path}: no column {name} shows it");
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources of the workspace.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// `docs/api.md` has a section for each kind with a table `| field | effect | test |`: every field stands there, by
/// itself or under a row that ends in `.*`, with what it does and a test that shows it and exists.
#[test]
fn the_documentation_explains_every_field_and_names_a_test_that_exists() {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let mut all = String::new();
    for folder in ["common", "scheduler", "node-agent", "tests"] {
        sources(&root().join(folder), &mut all);
    }
    for kind in [
        "Sandbox",
        "SandboxProfile",
        "WarmPool",
        "WarmPod",
        "RuntimeEnvironment",
    ] {
        let heading = format!("\n## {kind}\n");
        let (_, section) = text
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no section {kind}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let fields = leaves(kind);
        let mut covered = BTreeSet::new();
        for line in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [field, effect, tests] = cells[..] else {
                panic!("{kind}: not three cells: {line}");
            };
            let field = field.trim_matches('`');
            assert!(!effect.is_empty(), "{kind} {field}: no effect");
            let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "{kind} {field}: no test");
            for name in names {
                assert!(
                    all.contains(&format!("fn {name}(")),
                    "{kind} {field}: there is no test {name}"
                );
            }
            let prefix = field.strip_suffix('*');
            let mut matched: Vec<&String> = fields
                .iter()
                .filter(|path| match prefix {
                    Some(prefix) => path.starts_with(prefix),
                    None => *path == field,
                })
                .collect();
            assert!(!matched.is_empty(), "{kind}: there is no field {field}");
            covered.extend(matched.drain(..).cloned());
        }
        let missing: Vec<&String> = fields.difference(&covered).collect();
        assert!(
            missing.is_empty(),
            "{kind}: not in docs/api.md: {missing:?}"
        );
    }
}

/// The kinds are read as users write them, so none of the objects here may be out of step with its type.
#[test]
fn the_objects_of_these_tests_are_valid() {
    let objects = Objects::new();
    let read = |kind: &str| objects.0[kind].clone();
    serde_json::from_value::<Sandbox>(with_kind("Sandbox", read("Sandbox"))).unwrap();
    serde_json::from_value::<WarmPool>(with_kind("WarmPool", read("WarmPool"))).unwrap();
    assert!(
        objects.outcome().starts_with("Ok("),
        "{}",
        objects.outcome()
    );
}

fn with_kind(kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!("llmsafespace.dev/v1");
    object["kind"] = json!(kind);
    object
}
