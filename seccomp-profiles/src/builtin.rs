//! The project's own profiles, out of the tables that the build script makes of `data/`.

use std::sync::LazyLock;

use crate::arch::Arch;
use crate::cover::all_but;
use crate::profile::{Profile, Source};
use crate::rule::{Action, Condition, EINVAL, ENOSYS, EPERM, Rule, Test};

/// What every sandbox gets that names nothing else and whose language has no profile of its own.
pub const BASELINE: &str = "baseline";
/// For python.
pub const PYTHON: &str = "python";
/// For JavaScript and TypeScript.
pub const NODEJS: &str = "nodejs";
/// For Go.
pub const GO: &str = "go";
/// For the security level `high`.
pub const STRICT: &str = "strict";

/// A process of the node agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// The one that talks to the network.
    Api,
    /// The one that runs as root without capabilities.
    Host,
    /// The one that writes the network rules of pods.
    Network,
}

impl Process {
    const fn profile(self) -> &'static str {
        match self {
            Self::Api => "agent-api",
            Self::Host => "agent-host",
            Self::Network => "agent-network",
        }
    }
}

/// A file of `data/`.
struct Table {
    name: &'static str,
    about: &'static str,
    extends: Option<&'static str>,
    rules: &'static [Line],
}

/// A rule as it is written.
struct Line {
    reason: &'static str,
    action: Action,
    only: Option<Arch>,
    names: &'static [&'static str],
    when: &'static [(u8, Wanted)],
}

/// A test as it is written; it may take several of a container runtime's.
enum Wanted {
    In(&'static [u64]),
    NotIn(&'static [u32]),
    Masked(&'static [(u64, u64)]),
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    [BASELINE, PYTHON, NODEJS, GO, STRICT]
        .iter()
        .filter_map(|name| assemble(name, Source::BuiltIn))
        .collect()
});

static API: LazyLock<Option<Profile>> =
    LazyLock::new(|| assemble(Process::Api.profile(), Source::Agent));
static HOST: LazyLock<Option<Profile>> =
    LazyLock::new(|| assemble(Process::Host.profile(), Source::Agent));
static NETWORK: LazyLock<Option<Profile>> =
    LazyLock::new(|| assemble(Process::Network.profile(), Source::Agent));

/// The profiles for sandboxes.
#[must_use]
pub fn built_in() -> &'static [Profile] {
    &PROFILES
}

/// What a process of the node agent holds itself to. There is one for each; none means a broken build, and the caller
/// must not go on unconfined.
#[must_use]
pub fn agent_profile(process: Process) -> Option<&'static Profile> {
    match process {
        Process::Api => API.as_ref(),
        Process::Host => HOST.as_ref(),
        Process::Network => NETWORK.as_ref(),
    }
}

/// Whether a name is taken by a profile of the project.
pub(crate) fn is_taken(name: &str) -> bool {
    TABLES.iter().any(|table| table.name == name)
}

/// The profile that suits a language, by the names that runtimes give it.
#[must_use]
pub fn for_language(language: &str) -> &'static str {
    match language.to_ascii_lowercase().as_str() {
        "python" => PYTHON,
        "nodejs" | "node" | "javascript" | "typescript" => NODEJS,
        "go" | "golang" => GO,
        _ => BASELINE,
    }
}

/// A rule of the data with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The profile that has it.
    pub profile: &'static str,
    /// What that profile is for.
    pub about: &'static str,
    /// Why the rule is there.
    pub reason: &'static str,
    /// The calls it is about.
    pub names: &'static [&'static str],
    /// The only architecture that has them.
    pub only: Option<Arch>,
}

/// All rules of the data, as they are written.
pub fn explained() -> impl Iterator<Item = Explained> {
    TABLES.iter().flat_map(|table| {
        table.rules.iter().map(|line| Explained {
            profile: table.name,
            about: table.about,
            reason: line.reason,
            names: line.names,
            only: line.only,
        })
    })
}

fn assemble(name: &str, source: Source) -> Option<Profile> {
    let table = TABLES.iter().find(|table| table.name == name)?;
    let base = TABLES
        .iter()
        .filter(|other| Some(other.name) == table.extends)
        .flat_map(|base| base.rules)
        .flat_map(expand)
        // What a profile says of a call replaces what the one below it says.
        .filter_map(|mut rule| {
            rule.names.retain(|name| {
                !table
                    .rules
                    .iter()
                    .any(|line| line.names.contains(&name.as_str()))
            });
            (!rule.names.is_empty()).then_some(rule)
        });
    let rules = base.chain(table.rules.iter().flat_map(expand)).collect();
    Some(Profile::new(
        table.name.to_owned(),
        source,
        Action::Errno(EPERM),
        rules,
    ))
}

/// One rule for each way in which all tests of a line can hold.
fn expand(line: &Line) -> Vec<Rule> {
    let mut ways: Vec<Vec<Condition>> = vec![Vec::new()];
    for (arg, wanted) in line.when {
        let tests: Vec<Test> = match wanted {
            Wanted::In(values) => values.iter().map(|value| Test::Equal(*value)).collect(),
            Wanted::NotIn(values) => all_but(values),
            Wanted::Masked(pairs) => pairs
                .iter()
                .map(|(mask, value)| Test::Masked {
                    mask: *mask,
                    value: *value,
                })
                .collect(),
        };
        ways = ways
            .iter()
            .flat_map(|way| {
                tests.iter().map(|test| {
                    let mut way = way.clone();
                    way.push(Condition {
                        arg: *arg,
                        test: *test,
                    });
                    way
                })
            })
            .collect();
    }
    ways.into_iter()
        .map(|mut conditions| {
            conditions.sort_unstable();
            Rule {
                names: line.names.iter().map(|name| (*name).to_owned()).collect(),
                action: line.action,
                conditions,
                only: line.only,
            }
        })
        .collect()
}
