//! What a pool puts into its pods before they are ready: packages, then scripts. Bounded and checked here, so that
//! nothing a user writes becomes an option of the package manager or a word of a shell.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::kinds::{PreloadScript, RuntimeEnvironmentSpec};
use crate::reasons::{Reason, Refusal};

use super::filesystem::below;
use super::{PodTemplate, shortened};

/// Where packages are installed; read-only in the sandbox itself.
pub const PRELOAD_PATH: &str = "/opt/preload";
/// Home and temporary directory of the package manager, while it runs.
pub const PRELOAD_HOME: &str = "/opt/preload-home";
/// Where a script is found while it runs.
pub const PRELOAD_SCRIPT_PATH: &str = "/opt/preload-script";

/// Packages of one pool at most.
pub const MAX_PACKAGES: usize = 64;
/// Characters of one package at most, its version included.
pub const MAX_PACKAGE: usize = 200;
/// Scripts of one pool at most: each is a container of the pod.
pub const MAX_SCRIPTS: usize = 16;
/// Bytes of one script at most.
pub const MAX_SCRIPT: usize = 64 << 10;
/// Bytes of all scripts of a pool at most: they travel in annotations of the pod, which hold 256 KiB together.
pub const MAX_SCRIPTS_TOGETHER: usize = 192 << 10;

/// What a pool puts into its pods before they are ready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preload {
    /// Packages to install first.
    pub packages: Option<Packages>,
    /// Scripts to run then, in this order.
    pub scripts: Vec<Script>,
    hash: String,
}

/// Packages, and the program that installs them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packages {
    /// The program.
    pub manager: PackageManager,
    /// Names with their versions, in the program's own notation; never empty.
    pub specs: Vec<String>,
}

/// A script.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Script {
    /// Its name, fit for a file's.
    pub name: String,
    /// Its text.
    pub content: String,
}

/// A program that installs packages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PackageManager {
    /// Python's.
    Pip,
    /// Node's.
    Npm,
}

impl PackageManager {
    /// All that are known, for messages.
    const KNOWN: &str = "pip, npm";

    /// The word for it in a RuntimeEnvironment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        }
    }

    /// The command that installs `specs` below [`PRELOAD_PATH`]. Words, no shell.
    pub fn command(self, specs: &[String]) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Pip => &[
                "pip",
                "install",
                "--no-input",
                "--disable-pip-version-check",
                "--no-cache-dir",
                "--target",
                PRELOAD_PATH,
            ],
            Self::Npm => &[
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                PRELOAD_PATH,
            ],
        };
        words
            .iter()
            .map(|word| (*word).to_owned())
            .chain(specs.iter().cloned())
            .collect()
    }

    /// The variable by which the language finds what was installed, and its value.
    pub fn search_path(self) -> (&'static str, String) {
        match self {
            Self::Pip => ("PYTHONPATH", PRELOAD_PATH.to_owned()),
            Self::Npm => ("NODE_PATH", format!("{PRELOAD_PATH}/node_modules")),
        }
    }

    /// The one of a runtime: what it says, else what its language has.
    fn of(runtime: &RuntimeEnvironmentSpec) -> Result<Self, Refusal> {
        let said = runtime.package_manager.as_deref();
        match (said, runtime.language.as_str()) {
            (Some("pip"), _) | (None, "python") => Ok(Self::Pip),
            (Some("npm"), _) | (None, "nodejs") => Ok(Self::Npm),
            (Some(other), _) => Err(Refusal::new(
                Reason::PreloadUnavailable,
                format!(
                    "the RuntimeEnvironment's packageManager is \"{}\", and preloadPackages knows {} only; put the packages into its image",
                    shortened(other),
                    Self::KNOWN
                ),
            )),
            (None, language) => Err(Refusal::new(
                Reason::PreloadUnavailable,
                format!(
                    "the RuntimeEnvironment names no packageManager, and its language \"{}\" has none that is known; set spec.packageManager to one of {}, or put the packages into its image",
                    shortened(language),
                    Self::KNOWN
                ),
            )),
        }
    }

    /// Whether `spec` is a package with an optional version, and nothing that the program could take for an option,
    /// a path or an address.
    fn understands(self, spec: &str) -> bool {
        spec.len() <= MAX_PACKAGE
            && match self {
                Self::Pip => is_pip_package(spec),
                Self::Npm => is_npm_package(spec),
            }
    }
}

impl Preload {
    /// A preload of these packages and scripts.
    pub fn new(packages: Option<Packages>, scripts: Vec<Script>) -> Self {
        let mut hash = Sha256::new();
        // With lengths, so that no two contents can share one text.
        let mut put = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        if let Some(Packages { manager, specs }) = &packages {
            put(manager.as_str());
            for spec in specs {
                put(spec);
            }
        }
        put("scripts");
        for Script { name, content } in &scripts {
            put(name);
            put(content);
        }
        let hash = hex::encode(&hash.finalize()[..8]);
        Self {
            packages,
            scripts,
            hash,
        }
    }

    /// Hash of what is preloaded: 16 hexadecimal digits. A pod with another one is replaced.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// What a pool preloads, if anything.
pub(super) fn preload(
    packages: Option<&[String]>,
    scripts: Option<&[PreloadScript]>,
    runtime: &RuntimeEnvironmentSpec,
    template: &PodTemplate,
) -> Result<Option<Preload>, Refusal> {
    let packages = self::packages(packages.unwrap_or_default(), runtime)?;
    let scripts = self::scripts(scripts.unwrap_or_default())?;
    if packages.is_none() && scripts.is_empty() {
        return Ok(None);
    }
    for path in [PRELOAD_PATH, PRELOAD_HOME, PRELOAD_SCRIPT_PATH] {
        if let Some(other) = template
            .writable_paths
            .iter()
            .find(|w| below(w, path) || below(path, w))
        {
            return Err(Refusal::new(
                Reason::InvalidFilesystem,
                format!(
                    "writablePaths: {other} overlaps {path}, where the pool's preloads are; leave it out"
                ),
            ));
        }
    }
    Ok(Some(Preload::new(packages, scripts)))
}

fn invalid<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::new(Reason::PreloadInvalid, message))
}

fn packages(
    asked: &[String],
    runtime: &RuntimeEnvironmentSpec,
) -> Result<Option<Packages>, Refusal> {
    if asked.is_empty() {
        return Ok(None);
    }
    let manager = PackageManager::of(runtime)?;
    if asked.len() > MAX_PACKAGES {
        return invalid(format!(
            "preloadPackages: {} packages are too many; at most {MAX_PACKAGES} are taken, put the rest into the runtime's image",
            asked.len()
        ));
    }
    if let Some(wrong) = asked.iter().find(|spec| !manager.understands(spec)) {
        return invalid(format!(
            "preloadPackages: \"{}\" is no package of {}; write a name and, if wanted, a version ({}), without spaces, addresses or paths",
            shortened(wrong),
            manager.as_str(),
            match manager {
                PackageManager::Pip => "numpy==2.1.0",
                PackageManager::Npm => "lodash@4.17.21",
            }
        ));
    }
    let there = runtime
        .pre_installed_packages
        .as_deref()
        .unwrap_or_default();
    let specs: Vec<String> = asked
        .iter()
        .filter(|spec| !there.contains(spec))
        .cloned()
        .collect();
    Ok((!specs.is_empty()).then_some(Packages { manager, specs }))
}

/// The scripts in the order of their names.
fn scripts(asked: &[PreloadScript]) -> Result<Vec<Script>, Refusal> {
    if asked.len() > MAX_SCRIPTS {
        return invalid(format!(
            "preloadScripts: {} scripts are too many; at most {MAX_SCRIPTS} are taken",
            asked.len()
        ));
    }
    let mut names = HashSet::new();
    let mut together = 0;
    let mut scripts = Vec::with_capacity(asked.len());
    for (position, PreloadScript { name, content }) in asked.iter().enumerate() {
        let name = name.as_deref().unwrap_or_default();
        if !is_file_name(name) {
            return invalid(format!(
                "preloadScripts[{position}].name \"{}\" must be 1 to 63 letters, digits, '.', '_' or '-', and not begin with '.'; scripts run in the order of their names",
                shortened(name)
            ));
        }
        if !names.insert(name) {
            return invalid(format!(
                "preloadScripts: two scripts are named \"{name}\"; rename one"
            ));
        }
        let content = content.as_deref().unwrap_or_default();
        if content.is_empty() || content.contains('\0') {
            return invalid(format!(
                "preloadScripts: the content of \"{name}\" is empty or no text"
            ));
        }
        together += content.len();
        if content.len() > MAX_SCRIPT || together > MAX_SCRIPTS_TOGETHER {
            return invalid(format!(
                "preloadScripts: \"{name}\" is too long; a script has at most {MAX_SCRIPT} bytes, all together {MAX_SCRIPTS_TOGETHER}"
            ));
        }
        scripts.push(Script {
            name: name.to_owned(),
            content: content.to_owned(),
        });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

fn is_file_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && !name.starts_with('.') && is_word(name)
}

/// Letters, digits, `.`, `_` and `-`.
fn is_word(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && is_word(text)
}

/// `name`, `name[extra,extra]`, each with versions such as `==1.2`, `>=1,<2` or `~=1.4.0`.
fn is_pip_package(spec: &str) -> bool {
    let end = spec
        .find(['[', '=', '<', '>', '!', '~'])
        .unwrap_or(spec.len());
    let (name, mut rest) = spec.split_at(end);
    if !is_name(name) {
        return false;
    }
    if let Some(inside) = rest.strip_prefix('[') {
        let Some((extras, after)) = inside.split_once(']') else {
            return false;
        };
        if !extras.split(',').all(is_name) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() || rest.split(',').all(is_pip_version)
}

fn is_pip_version(clause: &str) -> bool {
    ["===", "==", "~=", "!=", "<=", ">=", "<", ">"]
        .iter()
        .find_map(|operator| clause.strip_prefix(operator))
        .is_some_and(|version| {
            version.starts_with(|c: char| c.is_ascii_alphanumeric())
                && version.chars().all(|c| {
                    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '*' | '+' | '!' | '-')
                })
        })
}

/// `name` or `@scope/name`, with a version, range or tag such as `@4.17.21`, `@^4`, `@>=4` or `@latest`.
fn is_npm_package(spec: &str) -> bool {
    let (scope, rest) = match spec.strip_prefix('@').map(|s| s.split_once('/')) {
        Some(Some((scope, rest))) => (Some(scope), rest),
        Some(None) => return false,
        None => (None, spec),
    };
    let (name, version) = match rest.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    scope.is_none_or(is_name)
        && is_name(name)
        && version.is_none_or(|version| {
            is_npm_version(
                ["^", "~", ">=", "<=", ">", "<", "="]
                    .iter()
                    .find_map(|operator| version.strip_prefix(operator))
                    .unwrap_or(version),
            )
        })
}

fn is_npm_version(text: &str) -> bool {
    text == "*"
        || (text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runtime(language: &str, manager: Option<&str>) -> RuntimeEnvironmentSpec {
        RuntimeEnvironmentSpec {
            image: "i".into(),
            language: language.into(),
            package_manager: manager.map(Into::into),
            ..RuntimeEnvironmentSpec::default()
        }
    }

    fn script(name: &str, content: &str) -> PreloadScript {
        PreloadScript {
            name: Some(name.into()),
            content: Some(content.into()),
        }
    }

    #[test]
    fn packages_are_names_with_versions_and_nothing_else() {
        for good in [
            "numpy",
            "numpy==2.1.0",
            "requests[socks,security]>=2,<3",
            "zope.interface~=5.0",
            "torch==2.1.0+cpu",
            "a===1",
            "b!=1.*",
        ] {
            assert!(PackageManager::Pip.understands(good), "{good}");
        }
        for bad in [
            "",
            "-r",
            "--index-url=x",
            "a b",
            "a; python_version<'3'",
            "./a",
            "/etc/passwd",
            "git+https://x",
            "a@https://x",
            "a==",
            "a==-x",
            "a[",
            "a[]",
            "a[x",
            "a[x]y",
            "a,b",
            "a=1",
            "a\n",
            "ä",
        ] {
            assert!(!PackageManager::Pip.understands(bad), "{bad}");
        }
        for good in [
            "lodash",
            "lodash@4.17.21",
            "@types/node@^20",
            "left-pad@latest",
            "a@>=1.2.3-beta.1",
            "a@*",
        ] {
            assert!(PackageManager::Npm.understands(good), "{good}");
        }
        for bad in [
            "",
            "-g",
            "user/repo",
            "@scope",
            "@/a",
            "a@",
            "a@file:b",
            "a@user/repo",
            "git://x",
            "../a",
            "a@1 || 2",
            "@s/a/b",
        ] {
            assert!(!PackageManager::Npm.understands(bad), "{bad}");
        }
    }

    #[test]
    fn the_manager_is_the_runtimes_or_its_languages_and_another_one_is_refused() {
        let of = |language, manager| PackageManager::of(&runtime(language, manager));
        assert_eq!(of("python", None), Ok(PackageManager::Pip));
        assert_eq!(of("nodejs", None), Ok(PackageManager::Npm));
        assert_eq!(of("python", Some("npm")), Ok(PackageManager::Npm));
        for (language, manager) in [("python", Some("conda")), ("go", None)] {
            let refusal = of(language, manager).unwrap_err();
            assert_eq!(refusal.reason, Reason::PreloadUnavailable);
            assert!(refusal.message.contains("pip, npm"));
        }
    }

    #[test]
    fn what_the_image_carries_is_not_installed_again() {
        let mut python = runtime("python", None);
        python.pre_installed_packages = Some(vec!["numpy==1".into()]);
        let specs = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|s| (*s).to_owned()).collect();
            packages(&asked, &python).unwrap().map(|p| p.specs)
        };
        assert_eq!(specs(&["numpy==1"]), None);
        assert_eq!(
            specs(&["numpy==2", "numpy==1"]),
            Some(vec!["numpy==2".to_owned()])
        );
    }

    #[test]
    fn scripts_run_in_the_order_of_their_names_and_bad_ones_are_refused() {
        let order: Vec<String> = scripts(&[script("b", "2"), script("10", "0"), script("a", "1")])
            .unwrap()
            .into_iter()
            .map(|s| s.name)
            .collect();
        assert_eq!(order, ["10", "a", "b"]);
        let long = "x".repeat(MAX_SCRIPT);
        for wrong in [
            vec![PreloadScript {
                name: None,
                content: Some("x".into()),
            }],
            vec![script("", "x")],
            vec![script("..", "x")],
            vec![script("a/b", "x")],
            vec![script("a", "")],
            vec![script("a", "x\0")],
            vec![script("a", "x"), script("a", "y")],
            vec![script("a", &format!("{long}x"))],
            (0..4).map(|n| script(&format!("s{n}"), &long)).collect(),
            (0..17).map(|n| script(&format!("s{n}"), "x")).collect(),
        ] {
            assert_eq!(scripts(&wrong).unwrap_err().reason, Reason::PreloadInvalid);
        }
        let most: Vec<_> = (0..3).map(|n| script(&format!("s{n}"), &long)).collect();
        assert_eq!(scripts(&most).unwrap().len(), 3);
    }

    proptest! {
        /// Whatever is understood stays one harmless word of the command.
        #[test]
        fn no_package_becomes_an_option_a_path_or_an_address(spec in "[-a-z0-9@/:.=<>^~!,\\[\\]; ]{0,12}") {
            for manager in [PackageManager::Pip, PackageManager::Npm] {
                if manager.understands(&spec) {
                    prop_assert!(!spec.starts_with('-') && !spec.starts_with('.') && !spec.starts_with('/'));
                    prop_assert!(!spec.contains(':') && !spec.contains(' ') && !spec.contains("//"));
                }
            }
        }

        #[test]
        fn two_preloads_have_one_hash_only_where_they_are_equal(a in any_preload(), b in any_preload()) {
            prop_assert_eq!(a == b, a.hash() == b.hash());
        }
    }

    fn any_preload() -> impl Strategy<Value = Preload> {
        let packages = prop::option::of((any::<bool>(), prop::collection::vec("[ab]{1,2}", 1..3)));
        let scripts = prop::collection::vec(("[ab]{1,2}", "[ab]{1,2}"), 0..3);
        (packages, scripts).prop_map(|(packages, scripts)| {
            let packages = packages.map(|(pip, specs)| Packages {
                manager: if pip {
                    PackageManager::Pip
                } else {
                    PackageManager::Npm
                },
                specs,
            });
            let script = |(name, content)| Script { name, content };
            Preload::new(packages, scripts.into_iter().map(script).collect())
        })
    }
}
