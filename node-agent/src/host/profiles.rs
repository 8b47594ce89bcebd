//! The seccomp profiles as files below the kubelet's folder. Called by [`super::kernel`].
//!
//! A file is never changed: its name contains a hash of what it says, so a new profile is a new file. It is written beside its
//! place, synced, moved there and read back. [`Store::check`] compares every wanted file with what it must say and writes
//! anew what is missing, changed, or no plain file; the agent asks for that every few seconds. What nobody wants
//! and no pod of the node names is removed after an hour.
//!
//! A container names its file when it starts, and again whenever it is restarted; one that runs does not need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use pilotlight_seccomp::{Arch, MAX_BYTES, Profile, built_in, verify};

use crate::protocol::{CheckedProfiles, ProfileFile, UserProfile};

/// How long a file stays that nobody wants and no pod names: the pod that names it may be on its way.
const UNUSED_GRACE: Duration = Duration::from_hours(1);
/// Prefix of files that are being written; they are never named by a pod.
const PARTIAL_PREFIX: &str = ".partial-";
/// Most files of the folder that are looked at for removal.
const MAX_FILES: usize = 4096;
/// Everybody may read a profile and nobody may write it.
const FILE_MODE: u32 = 0o444;
/// Only root may add or remove profiles.
const FOLDER_MODE: u32 = 0o755;

/// Why a profile could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A step with the folder failed.
    #[error("cannot {step} the folder of seccomp profiles {folder}: {source}")]
    Folder {
        /// The step.
        step: &'static str,
        /// The folder.
        folder: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The folder is not a folder of root's.
    #[error(
        "the folder of seccomp profiles {0} is not a folder that only root can write; make it one"
    )]
    Untrusted(String),
    /// A step with a file failed.
    #[error("cannot {step} seccomp profile {file}: {source}")]
    File {
        /// The step.
        step: &'static str,
        /// Name of the file.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was read back is not what was written.
    #[error("seccomp profile {0} reads back differently from what was written")]
    ReadBack(String),
    /// A user's profile is none.
    #[error(transparent)]
    Invalid(#[from] pilotlight_seccomp::ProfileError),
}

/// The folder of profiles.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    arch: Arch,
    /// What must be there.
    wanted: BTreeMap<ProfileFile, Vec<u8>>,
    /// The project's own, which are always wanted.
    built_in: BTreeSet<ProfileFile>,
    /// When a file of the folder was last wanted or named by a pod, as far as this process knows.
    last_used: BTreeMap<ProfileFile, Instant>,
    repaired: u64,
}

impl Store {
    /// The project's own profiles for processors of kind `arch`, in `folder`; nothing is written before [`Self::check`].
    pub fn new(folder: &Path, arch: Arch) -> Self {
        let mut wanted = BTreeMap::new();
        for profile in built_in() {
            if let Ok(file) = ProfileFile::try_from(profile.file_name()) {
                wanted.insert(file, profile.render(arch));
            }
        }
        Self {
            folder: folder.to_owned(),
            arch,
            built_in: wanted.keys().cloned().collect(),
            wanted,
            last_used: BTreeMap::new(),
            repaired: 0,
        }
    }

    /// Validates a profile that a user brought, and installs it. Returns its file.
    pub fn install(&mut self, profile: &UserProfile) -> Result<ProfileFile, StoreError> {
        let valid = Profile::from_user(&profile.name, profile.json.as_bytes())?;
        let name = valid.file_name();
        let file = ProfileFile::try_from(name.clone()).map_err(|_| StoreError::ReadBack(name))?;
        let bytes = valid.render(self.arch);
        self.folder()?;
        self.put(&file, &bytes)?;
        self.wanted.insert(file.clone(), bytes);
        Ok(file)
    }

    /// Makes every wanted file what it must be. `wanted` are the users' profiles that somebody may still name, `named`
    /// those that pods of this node name.
    pub fn check(
        &mut self,
        wanted: &BTreeSet<ProfileFile>,
        named: &BTreeSet<ProfileFile>,
        now: Instant,
    ) -> CheckedProfiles {
        let unknown = wanted
            .iter()
            .filter(|file| !self.wanted.contains_key(*file))
            .cloned()
            .collect();
        self.wanted.retain(|file, _| {
            self.built_in.contains(file) || wanted.contains(file) || named.contains(file)
        });
        let mut installed = Vec::new();
        let mut problem = None;
        if let Err(error) = self.folder() {
            problem = Some(error);
        } else {
            for (file, bytes) in &self.wanted {
                if !self.is_as_it_must_be(file, bytes) {
                    if let Err(error) = self.put(file, bytes) {
                        problem = Some(error);
                        continue;
                    }
                    self.repaired += 1;
                    tracing::info!(file = file.as_str(), "installed a seccomp profile");
                }
                installed.push(file.clone());
            }
            self.remove_unused(named, now);
        }
        CheckedProfiles {
            installed,
            unknown,
            problem: problem.map(|error| error.to_string()),
            repaired: self.repaired,
        }
    }

    /// Makes the folder where it is missing, and holds it to be root's own. (Nobody below root can put another in its place: its
    /// parent is root's as well.)
    fn folder(&self) -> Result<(), StoreError> {
        let folder = || self.folder.display().to_string();
        let step = |step| {
            move |source| StoreError::Folder {
                step,
                folder: folder(),
                source,
            }
        };
        let metadata = match fs::symlink_metadata(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(FOLDER_MODE)
                    .create(&self.folder)
                    .map_err(step("make"))?;
                fs::symlink_metadata(&self.folder).map_err(step("read"))?
            }
            other => other.map_err(step("read"))?,
        };
        if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(StoreError::Untrusted(folder()));
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            fs::set_permissions(&self.folder, PermissionsExt::from_mode(FOLDER_MODE))
                .map_err(step("set the mode of"))?;
        }
        Ok(())
    }

    fn path(&self, file: &ProfileFile) -> PathBuf {
        self.folder.join(file.as_str())
    }

    fn is_as_it_must_be(&self, file: &ProfileFile, bytes: &[u8]) -> bool {
        read(&self.path(file)).is_ok_and(|there| there == bytes)
    }

    /// Writes a file beside its place, moves it there, and reads it back.
    fn put(&self, file: &ProfileFile, bytes: &[u8]) -> Result<(), StoreError> {
        let partial = self
            .folder
            .join(format!("{PARTIAL_PREFIX}{}", file.as_str()));
        let step = |step| {
            move |source| StoreError::File {
                step,
                file: file.as_str().to_owned(),
                source,
            }
        };
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step("remove the rest of")(error));
            }
            _ => {}
        }
        let mut written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&partial)
            .map_err(step("create"))?;
        written.write_all(bytes).map_err(step("write"))?;
        // The umask may have taken bits away, and the runtime may read as another user.
        written
            .set_permissions(PermissionsExt::from_mode(FILE_MODE))
            .map_err(step("set the mode of"))?;
        written.sync_all().map_err(step("sync"))?;
        let path = self.path(file);
        // A folder in its place can be no work of the kubelet's; an empty one is simply removed.
        let _ = fs::remove_dir(&path);
        fs::rename(&partial, &path).map_err(step("move"))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(step("sync the folder of"))?;
        let back = read(&path).map_err(step("read back"))?;
        if back != bytes {
            return Err(StoreError::ReadBack(file.as_str().to_owned()));
        }
        Ok(verify(&back, self.arch)?)
    }

    fn remove_unused(&mut self, named: &BTreeSet<ProfileFile>, now: Instant) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut there = BTreeSet::new();
        // Whatever has another kind of name is not ours.
        for entry in entries.take(MAX_FILES).flatten() {
            if let Some(file) = entry
                .file_name()
                .to_str()
                .and_then(|name| ProfileFile::try_from(name.to_owned()).ok())
            {
                there.insert(file);
            }
        }
        self.last_used.retain(|file, _| there.contains(file));
        for file in there {
            if self.wanted.contains_key(&file) || named.contains(&file) {
                self.last_used.insert(file, now);
                continue;
            }
            // What this process did not see in use may have been until just before it started.
            let last = *self.last_used.entry(file.clone()).or_insert(now);
            if now.saturating_duration_since(last) < UNUSED_GRACE {
                continue;
            }
            match fs::remove_file(self.path(&file)) {
                Ok(()) => {
                    tracing::info!(file = file.as_str(), "removed an unused seccomp profile");
                }
                Err(error) => {
                    tracing::warn!(file = file.as_str(), %error, "cannot remove an unused seccomp profile");
                }
            }
        }
    }
}

/// A plain file of bounded size; a symlink is none, wherever it leads.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        // Not blocking: somebody may have put a pipe there.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let bound = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    file.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == bound {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_seccomp::GO;
    use std::os::unix::fs::symlink;

    /// What a user may bring: what the project's own for Go says.
    fn users() -> String {
        let go = built_in().iter().find(|profile| profile.name() == GO);
        String::from_utf8(go.unwrap().render(Arch::X86_64)).unwrap()
    }

    struct Node {
        root: tempfile::TempDir,
        store: Store,
    }

    impl Node {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let store = Store::new(&root.path().join("pilotlight"), Arch::X86_64);
            Self { root, store }
        }

        fn check(&mut self) -> CheckedProfiles {
            self.store
                .check(&BTreeSet::new(), &BTreeSet::new(), Instant::now())
        }

        fn path(&self, file: &ProfileFile) -> PathBuf {
            self.root.path().join("pilotlight").join(file.as_str())
        }

        fn user(&mut self, name: &str) -> ProfileFile {
            let profile = UserProfile {
                name: name.into(),
                json: users(),
            };
            self.store.install(&profile).unwrap()
        }
    }

    #[test]
    fn every_profile_of_the_project_is_installed_and_can_only_be_read() {
        let mut node = Node::new();
        let checked = node.check();
        assert_eq!(checked.problem, None);
        assert_eq!(checked.installed.len(), built_in().len());
        for file in &checked.installed {
            let metadata = fs::metadata(node.path(file)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, FILE_MODE);
            assert!(verify(&fs::read(node.path(file)).unwrap(), Arch::X86_64).is_ok());
        }
        assert_eq!(node.check().repaired, checked.repaired, "nothing to repair");
    }

    #[test]
    fn whatever_somebody_puts_in_a_profiles_place_is_replaced_by_the_profile() {
        let mut node = Node::new();
        let file = node.check().installed[0].clone();
        let path = node.path(&file);
        let right = fs::read(&path).unwrap();
        let elsewhere = node.root.path().join("elsewhere.json");
        fs::write(&elsewhere, &right).unwrap();
        let spoil: [(&str, &dyn Fn()); 7] = [
            ("gone", &|| {}),
            ("empty", &|| fs::write(&path, "").unwrap()),
            ("{}", &|| fs::write(&path, "{}").unwrap()),
            ("null", &|| fs::write(&path, "null").unwrap()),
            ("oversize", &|| {
                fs::write(&path, vec![b' '; MAX_BYTES + 1]).unwrap();
            }),
            ("a symlink to the right words", &|| {
                symlink(&elsewhere, &path).unwrap();
            }),
            ("a folder", &|| fs::create_dir(&path).unwrap()),
        ];
        for (what, spoil) in spoil {
            fs::remove_file(&path).unwrap();
            spoil();
            let checked = node.check();
            assert_eq!(checked.problem, None, "{what}");
            assert!(checked.installed.contains(&file), "{what}");
            assert_eq!(fs::read(&path).unwrap(), right, "{what}");
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{what}");
        }
        assert_eq!(fs::read(&elsewhere).unwrap(), right, "untouched");
    }

    #[test]
    fn a_users_profile_is_installed_and_kept_as_long_as_it_may_be_needed() {
        let mut node = Node::new();
        let file = node.user("team-a");
        let wanted = BTreeSet::from([file.clone()]);
        let nobody = BTreeSet::new();
        let start = Instant::now();
        let checked = node.store.check(&wanted, &nobody, start);
        assert!(checked.installed.contains(&file) && checked.unknown.is_empty());
        // Its ConfigMap is gone, and a pod names it still: repaired as before.
        fs::remove_file(node.path(&file)).unwrap();
        let checked = node.store.check(&nobody, &wanted, start);
        assert!(checked.installed.contains(&file));
        // Nobody names it any more: it stays for the hour.
        let soon = start + UNUSED_GRACE / 2;
        assert!(
            !node
                .store
                .check(&nobody, &nobody, soon)
                .installed
                .contains(&file)
        );
        assert!(node.path(&file).exists());
        node.store.check(&nobody, &nobody, start + UNUSED_GRACE);
        assert!(!node.path(&file).exists());
    }

    #[test]
    fn a_file_that_an_earlier_process_installed_is_asked_for_again_and_not_removed_at_once() {
        let mut node = Node::new();
        let file = node.user("team-a");
        node.store = Store::new(&node.root.path().join("pilotlight"), Arch::X86_64);
        let wanted = BTreeSet::from([file.clone()]);
        let checked = node.store.check(&wanted, &BTreeSet::new(), Instant::now());
        assert_eq!(checked.unknown, std::slice::from_ref(&file));
        assert!(node.path(&file).exists());
    }

    #[test]
    fn what_is_no_profile_is_refused_and_nothing_is_written() {
        let mut node = Node::new();
        for json in [
            "{}",
            "null",
            r#"{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}"#,
            "[",
            r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#,
        ] {
            let profile = UserProfile {
                name: "team-a".into(),
                json: json.into(),
            };
            assert!(node.store.install(&profile).is_err(), "{json}");
        }
        assert!(!node.root.path().join("pilotlight").exists());
    }

    #[test]
    fn a_folder_that_is_not_roots_own_is_a_problem_and_one_that_others_may_write_is_closed() {
        let mut node = Node::new();
        let folder = node.root.path().join("pilotlight");
        let other = node.root.path().join("other");
        fs::create_dir(&other).unwrap();
        symlink(&other, &folder).unwrap();
        let checked = node.check();
        assert!(checked.problem.is_some() && checked.installed.is_empty());
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(node.check().problem, None);
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FOLDER_MODE);
    }

    #[test]
    fn a_file_of_another_name_is_left_alone() {
        let mut node = Node::new();
        node.check();
        let foreign = node.root.path().join("pilotlight/notes.txt");
        fs::write(&foreign, "mine").unwrap();
        let later = Instant::now() + 2 * UNUSED_GRACE;
        node.store.check(&BTreeSet::new(), &BTreeSet::new(), later);
        assert!(foreign.exists());
    }
}
