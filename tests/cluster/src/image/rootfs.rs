//! A Debian root folder made by debootstrap and stripped of what no container needs. Used by the runtime images.

use std::fs;
use std::path::Path;

use crate::command::{command, run};
use crate::error::{Error, Result};
use crate::files;
use crate::packages;

/// What is dropped: caches, lists, documentation, translations.
const DROPPED: &[&str] = &[
    "var/cache",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "tmp",
    "run",
    "dev",
];

/// What must be there again, empty, with its permissions.
const KEPT: &[(&str, u32)] = &[
    ("var/cache", 0o755),
    ("var/cache/apt/archives/partial", 0o755),
    ("var/lib/apt/lists/partial", 0o755),
    ("var/log", 0o755),
    ("tmp", 0o1777),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("dev", 0o755),
    ("workspace", 0o777),
];

/// Part of the images' cache key: raise it when the recipe changes.
pub(super) const RECIPE: &str = "3";
/// Makes the packages that pip installs; part of the cache key too.
pub(super) const WHEELS: &str = include_str!("wheels.py");
/// Where pip looks, for every user: nowhere else than in the image, since a sandbox may reach no index.
const PIP_CONFIG: &str = "[global]
no-index = true
find-links = /opt/wheels
no-cache-dir = true
disable-pip-version-check = true
";

/// The host's own release, so that its package mirror works for the image too.
pub(super) fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    codename(&text).unwrap_or_else(|| "stable".into())
}

/// The release's code name if the host is Debian itself.
fn codename(os_release: &str) -> Option<String> {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// Makes a root folder with these packages beside the minimum.
pub(super) fn make(folder: &Path, release: &str, included: &[&str]) -> Result<()> {
    packages::require_root()?;
    packages::require(packages::ROOT_FOLDER)?;
    let include = format!("--include={}", included.join(","));
    let mut bootstrap = command("debootstrap", ["--variant=minbase", &include, release]);
    bootstrap.arg(folder);
    if let Some(mirror) = std::env::var_os("PILOTLIGHT_DEBIAN_MIRROR") {
        bootstrap.arg(mirror);
    }
    run(&mut bootstrap)?;
    for name in DROPPED {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
    }
    remove_bytecode(&folder.join("usr/lib"))?;
    if folder.join("usr/bin/pip").exists() {
        wheelhouse(folder)?;
    }
    if folder.join("usr/bin/python3").exists() {
        // Bound to nothing: the root is read-only, so no module can change, and without them every start compiles all again.
        let mut compile = command("chroot", [folder]);
        compile.args([
            "python3",
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
            "/usr/lib/python3",
        ]);
        compile.args([library_folder(folder)?]);
        run(&mut compile)?;
    }
    for (name, mode) in KEPT {
        let path = folder.join(name);
        files::create_dir(&path)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(*mode))
            .map_err(Error::io("protect", &path))?;
    }
    files::write(&folder.join("etc/hostname"), "")?;
    files::write(&folder.join("etc/resolv.conf"), "")?;
    append(
        &folder.join("etc/passwd"),
        "sandbox:x:1000:1000:sandbox:/workspace:/bin/sh\n",
    )?;
    append(&folder.join("etc/group"), "sandbox:x:1000:\n")
}

/// Packages for pip, and the configuration that leads it to them.
fn wheelhouse(root: &Path) -> Result<()> {
    run(command("chroot", [root]).args(["python3", "-c", WHEELS]))?;
    files::write(&root.join("etc/pip.conf"), PIP_CONFIG)
}

/// The standard library's folder, such as `/usr/lib/python3.11`, as the image sees it.
fn library_folder(root: &Path) -> Result<String> {
    let library = root.join("usr/lib");
    let entries = fs::read_dir(&library).map_err(Error::io("list", &library))?;
    let mut names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found = names.find(|name| name.starts_with("python3."));
    Ok(format!(
        "/usr/lib/{}",
        found.unwrap_or_else(|| "python3".into())
    ))
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut text = files::read(path)?;
    text.push_str(line);
    files::write(path, text)
}

/// Python's compiled modules are bound to the time of their source, which an image does not keep.
fn remove_bytecode(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)
        .map_err(Error::io("list", folder))?
        .flatten()
    {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == "__pycache__" {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        } else {
            remove_bytecode(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_has_a_code_name_for_debootstrap() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(),
            Some("bookworm")
        );
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(codename(""), None);
    }
}
