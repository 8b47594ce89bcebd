//! The hostile objects: all of them within the schema, generated with a fixed seed, so that a failure can be repeated.
//!
//! What could ask for more pods than two small nodes can start is left out: pools have few pods, and huge limits are ones
//! that no node has.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use pilotlight_bench::objects::CPU;
use pilotlight_e2e::environment::RUNTIME;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

/// What kinds are made, again and again in this order.
const KINDS: [Kind; 10] = [
    Kind::Sandbox,
    Kind::Pool,
    Kind::Profile,
    Kind::Sandbox,
    Kind::Runtime,
    Kind::Sandbox,
    Kind::Pool,
    Kind::Profile,
    Kind::Sandbox,
    Kind::Pool,
];

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Sandbox,
    Pool,
    Profile,
    Runtime,
}

/// Objects in all.
pub const COUNT: usize = 200;

/// All of them: kind, number and spec.
pub fn manifests(scene: &str, image: &str) -> Result<Vec<(Kind, usize, Value)>> {
    let mut runner = TestRunner::deterministic();
    let strategies = BTreeMap::from([
        (Kind::Sandbox, sandbox(scene)),
        (Kind::Pool, pool(scene)),
        (Kind::Profile, profile()),
        (Kind::Runtime, environment(image)),
    ]);
    let all = (0..COUNT).map(|number| {
        let kind = KINDS[number % KINDS.len()];
        let tree = strategies[&kind].new_tree(&mut runner);
        let spec = tree.map_err(|reason| anyhow!("{reason}"))?.current();
        Ok((kind, number, spec))
    });
    all.collect()
}

/// Some as long as a name can be, some with dots.
pub fn name(number: usize) -> String {
    match number % 7 {
        3 => format!("h{number}.with.dots-and-{}", "x".repeat(number % 60)),
        5 => format!(
            "h{number}-{}",
            "l".repeat(253 - format!("h{number}-").len())
        ),
        _ => format!("h{number}"),
    }
}

/// Cluster-wide, and so with the scene's name.
pub fn runtime_name(scene: &str, number: usize) -> String {
    let name = format!("{scene}-{}", name(number));
    name.chars().take(253).collect()
}

fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    prop::sample::select(values).boxed()
}

/// Mostly `good`, else one of `bad`.
fn mostly(good: Value, bad: Vec<Value>) -> BoxedStrategy<Value> {
    prop_oneof![4 => Just(good), 1 => one_of(bad)].boxed()
}

/// An object with some of these fields, each present so many times of a hundred.
fn object(fields: Vec<(&'static str, u32, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields
        .into_iter()
        .map(|(name, percent, value)| {
            let share = f64::from(percent) / 100.0;
            (name, prop::option::weighted(share.clamp(0.01, 0.99), value))
        })
        .unzip();
    values
        .prop_map(move |values| {
            let fields = names.iter().zip(values);
            let present = fields.filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(present.collect::<Map<_, _>>())
        })
        .boxed()
}

fn list(item: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(item, 0..=most)
        .prop_map(Value::Array)
        .boxed()
}

/// Text that means something to some program, or to none.
fn text_of_all_kinds() -> BoxedStrategy<Value> {
    let odd = [
        "",
        " ",
        "a",
        "..",
        "../../etc/passwd",
        "$(reboot)",
        "`id`",
        "{{ .Values }}",
        "%s%n",
        "-",
        "--help",
        "null",
        "a\nb: c",
        "\t",
        "\u{0}",
        "\u{202e}gnp.exe",
        "\u{1f525}",
        "e\u{301}",
        "\u{feff}",
        "İ",
        "'\"\\",
        "a=b,c=d",
        "true",
    ];
    let mut all: Vec<Value> = odd.map(Value::from).to_vec();
    all.push("a".repeat(300).into());
    all.push("\u{1f525}".repeat(5_000).into());
    prop_oneof![2 => one_of(all), 1 => ".{0,60}".prop_map(Value::from)].boxed()
}

/// Within the schema's pattern; what is good fits beside everything else.
fn cpu() -> BoxedStrategy<Value> {
    let long = format!("{}m", "9".repeat(400));
    let bad = [
        "0m",
        "0.0",
        "00000010m",
        "4000.0",
        "0.0000000000001",
        "18446744073709551616m",
        "9223372036854775807.99",
        &long,
    ];
    mostly(CPU.into(), bad.map(Value::from).to_vec())
}

fn memory() -> BoxedStrategy<Value> {
    let long = format!("{}Gi", "9".repeat(400));
    let bad = [
        "0Ki",
        "1Ki",
        "00048Mi",
        "9223372036854775807Ki",
        "17179869184Gi",
        "99999999999999999999Gi",
        "4000Gi",
        &long,
    ];
    mostly("48Mi".into(), bad.map(Value::from).to_vec())
}

/// A quantity where the schema takes any text.
fn any_quantity() -> BoxedStrategy<Value> {
    let bad = [
        "1", "-1", "1e309", "1E", "0x10", "∞", "1.5.5", "1mi", "NaN", "1_000",
    ];
    prop_oneof![3 => one_of(bad.map(Value::from).to_vec()), 1 => text_of_all_kinds()].boxed()
}

fn path() -> BoxedStrategy<Value> {
    let bad = [
        "",
        "/",
        "//",
        "/.",
        "/..",
        "/a/../b",
        "/a//b",
        "a",
        "/proc",
        "/sys/fs",
        "/dev/shm/",
        "/a:b",
        "/\u{1f525}",
        "/a b",
        "/data",
        "/data/x",
        "/etc",
        "/usr/bin",
        "/lib",
        "/var/run/secrets/kubernetes.io",
        "/opt/preload/x",
        "/a/./b",
        "/a\nb",
    ];
    prop_oneof![
        6 => one_of(["/tmp", "/workspace", "/scratch", "/a/b"].map(Value::from).to_vec()),
        2 => one_of(bad.map(Value::from).to_vec()),
        1 => text_of_all_kinds(),
    ]
    .boxed()
}

fn paths() -> BoxedStrategy<Value> {
    let many: Vec<String> = (0..60).map(|i| format!("/many/{i}")).collect();
    prop_oneof![8 => list(path(), 3), 1 => Just(json!(many))].boxed()
}

fn level() -> BoxedStrategy<Value> {
    prop_oneof![5 => Just(json!("standard")), 3 => Just(json!("custom")), 1 => Just(json!("high"))]
        .boxed()
}

fn protocol() -> BoxedStrategy<Value> {
    one_of(vec!["TCP".into(), "UDP".into()])
}

/// Which runtime: the tests' own, one of the hostile ones, or none that there is.
fn runtime(scene: &str) -> BoxedStrategy<Value> {
    let own: Vec<Value> = (0..COUNT / KINDS.len())
        .map(|i| runtime_name(scene, i * KINDS.len() + 4).into())
        .collect();
    prop_oneof![7 => Just(json!(RUNTIME)), 3 => one_of(own), 1 => text_of_all_kinds()].boxed()
}

fn profile_reference() -> BoxedStrategy<Value> {
    let names: Vec<Value> = (0..COUNT)
        .filter(|i| KINDS[i % KINDS.len()] == Kind::Profile)
        .map(|i| name(i).into())
        .collect();
    let namespace = mostly("default".into(), vec!["".into(), "kube-system".into()]);
    object(vec![
        (
            "name",
            95,
            prop_oneof![8 => one_of(names), 1 => text_of_all_kinds()].boxed(),
        ),
        ("namespace", 10, namespace),
    ])
}

fn integers() -> BoxedStrategy<Value> {
    one_of(vec![
        json!(i64::MIN),
        json!(-1),
        json!(0),
        json!(1),
        json!(1000),
        json!(4_294_967_295_i64),
        json!(i64::MAX),
    ])
}

fn sandbox(scene: &str) -> BoxedStrategy<Value> {
    let port = object(vec![
        ("port", 80, one_of(vec![json!(1), json!(443), json!(65535)])),
        ("protocol", 50, protocol()),
    ]);
    let rule = object(vec![
        ("domain", 100, text_of_all_kinds()),
        ("ports", 50, list(port, 3)),
    ])
    .prop_map(|mut rule| {
        // The one field that the schema asks for.
        if rule["domain"].is_null() {
            rule["domain"] = "".into();
        }
        rule
    })
    .boxed();
    let seccomp = object(vec![
        (
            "type",
            80,
            one_of(vec!["RuntimeDefault".into(), "Localhost".into()]),
        ),
        ("localhostProfile", 40, text_of_all_kinds()),
    ]);
    let user = || prop_oneof![3 => Just(json!(1000)), 2 => integers()].boxed();
    let yes = || one_of(vec![true.into(), false.into()]);
    let size = mostly(
        "1Mi".into(),
        ["0Ki", "9223372036854775807Gi", "4000Gi"]
            .map(Value::from)
            .to_vec(),
    );
    let resources = object(vec![
        ("cpu", 99, cpu()),
        ("memory", 99, memory()),
        ("ephemeralStorage", 30, memory()),
        ("cpuPinning", 5, yes()),
    ]);
    object(vec![
        ("securityLevel", 40, level()),
        ("timeout", 40, one_of(vec![json!(1), json!(2), json!(3600)])),
        ("resources", 97, resources),
        (
            "networkAccess",
            8,
            object(vec![("egress", 60, list(rule, 4)), ("ingress", 50, yes())]),
        ),
        (
            "filesystem",
            25,
            object(vec![
                ("readOnlyRoot", 50, yes()),
                ("writablePaths", 70, paths()),
            ]),
        ),
        (
            "storage",
            12,
            object(vec![("persistent", 70, yes()), ("volumeSize", 90, size)]),
        ),
        (
            "securityContext",
            20,
            object(vec![
                ("runAsUser", 60, user()),
                ("runAsGroup", 40, user()),
                ("seccompProfile", 25, seccomp),
            ]),
        ),
        ("profileRef", 20, profile_reference()),
    ])
    .prop_flat_map({
        let runtime = runtime(scene);
        move |spec| (Just(spec), runtime.clone())
    })
    .prop_map(with_runtime)
    .boxed()
}

fn with_runtime((mut spec, runtime): (Value, Value)) -> Value {
    spec["runtime"] = runtime;
    spec
}

fn pool(scene: &str) -> BoxedStrategy<Value> {
    // Together, as pods are what they cost.
    let sizes = one_of(vec![
        json!({ "minSize": 0 }),
        json!({ "minSize": 0, "maxSize": i64::MAX }),
        json!({ "minSize": 1, "maxSize": 1 }),
        json!({ "minSize": 1, "maxSize": 2, "autoScaling": { "enabled": true, "targetUtilization": 1, "scaleDownDelay": 0 } }),
        json!({ "minSize": 0, "maxSize": 2, "autoScaling": { "enabled": true, "scaleDownDelay": i64::MAX } }),
        json!({ "minSize": 2, "maxSize": 1 }),
        json!({ "minSize": i32::MAX, "maxSize": 2 }),
        json!({ "minSize": i32::MAX, "maxSize": 1, "autoScaling": { "enabled": true, "targetUtilization": 100 } }),
    ]);
    let package = prop_oneof![
        2 => one_of(["pilotlight-sample", "no-such==1", "-r/etc/passwd", "a; id", "git+http://a", "a==1==2"].map(Value::from).to_vec()),
        1 => text_of_all_kinds(),
    ];
    let script = object(vec![
        ("name", 90, prop_oneof![3 => one_of(vec!["a".into(), "b.sh".into()]), 1 => text_of_all_kinds()].boxed()),
        ("content", 90, prop_oneof![
            2 => one_of(["true", "exit 1", "#!/no/such/program", "#!", "sleep 1000"].map(Value::from).to_vec()),
            1 => text_of_all_kinds(),
            1 => Just(json!("#".repeat(70_000))),
        ].boxed()),
    ]);
    let resources = object(vec![("cpu", 99, cpu()), ("memory", 99, memory())]);
    object(vec![
        ("securityLevel", 20, level()),
        ("ttl", 30, one_of(vec![json!(0), json!(2), json!(i64::MAX)])),
        ("resources", 97, resources),
        ("profileRef", 25, profile_reference()),
        ("preloadPackages", 15, list(package.boxed(), 3)),
        ("preloadScripts", 15, list(script, 3)),
    ])
    .prop_flat_map({
        let runtime = runtime(scene);
        move |spec| (Just(spec), runtime.clone())
    })
    .prop_map(with_runtime)
    .prop_flat_map(move |spec| (Just(spec), sizes.clone()))
    .prop_map(|(mut spec, sizes)| {
        if let (Some(spec), Value::Object(sizes)) = (spec.as_object_mut(), sizes) {
            spec.extend(sizes);
        }
        spec
    })
    .boxed()
}

fn profile() -> BoxedStrategy<Value> {
    let port = object(vec![("port", 80, integers()), ("protocol", 50, protocol())]);
    let rule = object(vec![
        ("domain", 50, text_of_all_kinds()),
        (
            "cidr",
            50,
            mostly(
                "10.0.0.0/8".into(),
                vec!["::/200".into(), "10.0.0.0/-1".into(), "".into()],
            ),
        ),
        ("ports", 40, list(port, 3)),
    ]);
    let policy = object(vec![
        ("type", 80, one_of(vec!["egress".into(), "ingress".into()])),
        ("rules", 80, list(rule, 3)),
    ]);
    let defaults = object(vec![
        ("cpu", 60, any_quantity()),
        ("memory", 60, any_quantity()),
        ("ephemeralStorage", 60, any_quantity()),
    ]);
    let config = object(vec![
        ("readOnlyPaths", 60, paths()),
        ("writablePaths", 60, paths()),
    ]);
    object(vec![
        ("securityLevel", 40, level()),
        ("seccompProfile", 10, text_of_all_kinds()),
        ("networkPolicies", 15, list(policy, 3)),
        ("preInstalledPackages", 15, list(text_of_all_kinds(), 3)),
        ("resourceDefaults", 20, defaults),
        ("filesystemConfig", 40, config),
    ])
    .prop_flat_map(|spec| {
        (
            Just(spec),
            mostly(
                "python".into(),
                vec!["".into(), "nodejs".into(), "\u{0}".into()],
            ),
        )
    })
    .prop_map(|(mut spec, language)| {
        spec["language"] = language;
        spec
    })
    .boxed()
}

fn environment(image: &str) -> BoxedStrategy<Value> {
    let images = prop_oneof![
        6 => Just(json!(image)),
        1 => Just(json!("pilotlight.local/no-such-image:1")),
        1 => text_of_all_kinds(),
    ];
    let commands = prop_oneof![
        4 => Just(json!(["sleep", "infinity"])),
        2 => one_of(vec![json!([]), json!(["true"]), json!(["/no/such/program"]), json!([""]), json!(["sleep", "\u{0}"])]),
        1 => list(text_of_all_kinds(), 40),
    ];
    let requirements = object(vec![
        ("minCpu", 40, any_quantity()),
        ("minMemory", 40, any_quantity()),
        ("recommendedCpu", 40, any_quantity()),
        ("recommendedMemory", 40, any_quantity()),
    ]);
    object(vec![
        ("version", 50, text_of_all_kinds()),
        ("tags", 40, list(text_of_all_kinds(), 20)),
        ("preInstalledPackages", 30, list(text_of_all_kinds(), 20)),
        (
            "packageManager",
            30,
            prop_oneof![1 => Just(json!("npm")), 1 => text_of_all_kinds()].boxed(),
        ),
        ("securityFeatures", 30, list(text_of_all_kinds(), 5)),
        ("resourceRequirements", 20, requirements),
    ])
    .prop_flat_map(move |spec| {
        let language = mostly("python".into(), vec!["".into(), "\u{1f525}".into()]);
        (Just(spec), images.clone(), commands.clone(), language)
    })
    .prop_map(|(mut spec, image, command, language)| {
        (spec["image"], spec["command"], spec["language"]) = (image, command, language);
        spec
    })
    .boxed()
}
