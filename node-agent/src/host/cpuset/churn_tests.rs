//! Whole lives of a node's pins, against a kernel in memory that refuses what kernels refuse. That files are read and written
//! as they are is tested in [`super::tests`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;
use proptest::prelude::*;

/// UID of pod `n`.
fn uid(n: usize) -> PodUid {
    PodUid::try_from(format!("00000000-0000-4000-8000-0000000000{n:02x}")).unwrap()
}

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// What a kernel holds: the CPUs of each cgroup by path, and which version's rules it has.
#[derive(Debug, Default)]
struct Kernel {
    v2: bool,
    full: CpuSet,
    /// What was written; empty is the parent's.
    written: BTreeMap<PathBuf, CpuSet>,
    /// Once a write comes that names this pod, a container of it appears with all CPUs.
    surprise: Option<PathBuf>,
}

impl Kernel {
    fn effective(&self, path: &Path) -> CpuSet {
        let Some(own) = self.written.get(path) else {
            return CpuSet::default();
        };
        let above = path
            .parent()
            .filter(|parent| self.written.contains_key(*parent));
        let Some(above) = above.map(|parent| self.effective(parent)) else {
            return self.full.clone();
        };
        if !self.v2 {
            return own.clone();
        }
        let both = own.intersection(&above);
        if both.is_empty() { above } else { both }
    }

    fn children(&self, path: &Path) -> Vec<PathBuf> {
        let of = |child: &&PathBuf| child.parent() == Some(path);
        self.written.keys().filter(of).cloned().collect()
    }

    /// What a runtime does: on v1 a new cgroup is a copy of its parent's, on v2 it says nothing.
    fn make(&mut self, path: &Path) {
        let cpus = if self.v2 {
            CpuSet::default()
        } else {
            self.effective(above(path))
        };
        self.written.insert(path.to_owned(), cpus);
    }

    fn remove(&mut self, path: &Path) {
        self.written.retain(|other, _| !other.starts_with(path));
    }
}

#[derive(Clone, Debug)]
struct Model(Arc<Mutex<Kernel>>);

impl Model {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }
}

impl Cpusets for Model {
    fn roots(&mut self, _now: Instant) -> Vec<PathBuf> {
        vec![PathBuf::from("/kubepods")]
    }

    fn children(&self, directory: &Path) -> Vec<(String, PathBuf)> {
        let children = self.kernel().children(directory);
        let named = |path: PathBuf| (name(&path).to_owned(), path);
        children.into_iter().map(named).collect()
    }

    fn read(&self, directory: &Path) -> io::Result<Option<CpuSet>> {
        let kernel = self.kernel();
        let there = kernel.written.contains_key(directory);
        Ok(there.then(|| kernel.effective(directory)))
    }

    fn write(&mut self, directory: &Path, cpus: &CpuSet) -> io::Result<()> {
        let mut kernel = self.kernel();
        if !kernel.written.contains_key(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let errno = |number| Err(io::Error::from_raw_os_error(number));
        if cpus.is_empty() {
            return errno(nix::libc::ENOSPC);
        }
        if !kernel.v2 {
            let parent = kernel.effective(above(directory));
            if !cpus.is_subset(&parent) {
                return errno(nix::libc::EACCES);
            }
            let children = kernel.children(directory);
            if children
                .iter()
                .any(|child| !kernel.effective(child).is_subset(cpus))
            {
                return errno(nix::libc::EBUSY);
            }
        }
        kernel.written.insert(directory.to_owned(), cpus.clone());
        if let Some(path) = kernel.surprise.take() {
            kernel.make(&path);
        }
        Ok(())
    }
}

/// One thing that happens on the model's node.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A pod comes: which, and of which class.
    Come(usize, usize),
    /// A pod goes.
    Go(usize),
    /// A container starts in a pod, or starts anew.
    Restart(usize),
    /// A sandbox asks for CPUs.
    Pin(usize, u32),
    /// The same, while a container starts in another pod.
    PinWhile(usize, u32, usize),
    /// Time passes.
    Tick,
    /// The agent starts anew, with its checkpoint or without.
    Agent(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let pod = 0usize..8;
    let event = prop_oneof![
        4 => (pod.clone(), 0usize..3).prop_map(|(n, class)| Event::Come(n, class)),
        2 => pod.clone().prop_map(Event::Go),
        2 => pod.clone().prop_map(Event::Restart),
        4 => (pod.clone(), 1u32..4).prop_map(|(n, cpus)| Event::Pin(n, cpus)),
        1 => (pod.clone(), 1u32..4, pod).prop_map(|(n, cpus, other)| Event::PinWhile(n, cpus, other)),
        2 => Just(Event::Tick),
        1 => any::<bool>().prop_map(Event::Agent),
    ];
    proptest::collection::vec(event, 1..60)
}

/// A node of the model: eight CPUs in four cores.
struct World {
    kernel: Arc<Mutex<Kernel>>,
    folder: tempfile::TempDir,
    agent: Pinning<Model>,
    /// Where the pods are, and what each was granted.
    pods: BTreeMap<usize, (PathBuf, Option<CpuSet>)>,
    /// UIDs never come back, so each coming has a number of its own.
    coming: BTreeMap<usize, usize>,
    comings: usize,
}

const FLOOR: usize = 2;

impl World {
    fn new(v2: bool) -> Self {
        let kernel = Arc::new(Mutex::new(Kernel {
            v2,
            full: set("0-7"),
            ..Kernel::default()
        }));
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-7\n");
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            write(&format!("cpu/cpu{cpu}/topology/core_cpus_list"), &siblings);
        }
        write("sys/kernel/random/boot_id", "boot\n");
        {
            let mut kernel = kernel.lock().unwrap();
            kernel.written.insert("/kubepods".into(), set("0-7"));
            for path in [
                "/kubepods/burstable",
                "/kubepods/besteffort",
                "/kubepods/burstable/podagent",
                "/kubepods/burstable/podagent/c",
            ] {
                kernel.make(Path::new(path));
            }
        }
        let agent = Self::agent(&kernel, folder.path());
        Self {
            kernel,
            folder,
            agent,
            pods: BTreeMap::new(),
            coming: BTreeMap::new(),
            comings: 0,
        }
    }

    fn agent(kernel: &Arc<Mutex<Kernel>>, folder: &Path) -> Pinning<Model> {
        let rules = Rules {
            reserved: CpuSet::default(),
            floor: FLOOR,
        };
        Pinning::new(
            Model(Arc::clone(kernel)),
            Machine::new(folder, folder),
            Store::new(folder),
            rules,
            None,
        )
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    /// What has to hold at any moment: no file is in the way, and whoever should leave has left.
    fn tick(&mut self) -> Result<(), TestCaseError> {
        let ticked = self.agent.tick(Instant::now());
        ticked.map_err(|error| TestCaseError::fail(error.to_string()))
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = Instant::now();
        match event {
            Event::Come(n, class) => {
                if self.pods.contains_key(&n) {
                    return Ok(());
                }
                self.comings += 1;
                self.coming.insert(n, self.comings);
                let class = ["/kubepods", "/kubepods/burstable", "/kubepods/besteffort"][class];
                let path = PathBuf::from(format!("{class}/pod{}", uid(self.comings)));
                let mut kernel = self.kernel();
                kernel.make(&path);
                kernel.make(&path.join("pause"));
                kernel.make(&path.join("main"));
                drop(kernel);
                self.pods.insert(n, (path, None));
            }
            Event::Go(n) => {
                if let Some((path, _)) = self.pods.remove(&n) {
                    self.kernel().remove(&path);
                }
            }
            Event::Restart(n) => {
                if let Some((path, _)) = self.pods.get(&n) {
                    let mut kernel = self.kernel();
                    kernel.remove(&path.join("main"));
                    kernel.make(&path.join("main"));
                }
            }
            Event::PinWhile(n, cpus, other) => {
                if let Some((path, _)) = self.pods.get(&other) {
                    self.kernel().surprise = Some(path.join("late"));
                }
                self.pin(n, cpus, now)?;
                self.kernel().surprise = None;
            }
            Event::Pin(n, cpus) => self.pin(n, cpus, now)?,
            Event::Tick => self.tick()?,
            Event::Agent(keeps) => {
                if !keeps {
                    let _ = fs::remove_file(self.folder.path().join("cpus.json"));
                }
                self.agent = Self::agent(&self.kernel, self.folder.path());
                self.tick()?;
            }
        }
        Ok(())
    }

    fn pin(&mut self, n: usize, cpus: u32, now: Instant) -> Result<(), TestCaseError> {
        let Some((_, had)) = self.pods.get(&n) else {
            return Ok(());
        };
        let had = had.clone();
        // A pod serves one sandbox, which asks for one number.
        let wanted = had
            .as_ref()
            .map_or(cpus, |cpus| cpus.iter().map(|_| 1).sum());
        let pod = uid(self.coming[&n]);
        match self.agent.pin(&pod, wanted, now) {
            Ok(given) => {
                if let Some(had) = had {
                    prop_assert_eq!(&given, &had, "a running sandbox was moved");
                }
                prop_assert_eq!(u32::try_from(given.len()).ok(), Some(wanted));
                if let Some(pod) = self.pods.get_mut(&n) {
                    pod.1 = Some(given);
                }
                self.check()?;
            }
            Err(CpuError::Shortage(_)) => {
                prop_assert!(had.is_none(), "what was given is taken away");
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
        Ok(())
    }

    /// Whoever was granted CPUs is on them and alone; all others keep the floor.
    fn check(&self) -> Result<(), TestCaseError> {
        let kernel = self.kernel();
        let mut held = BTreeSet::new();
        for (_, granted) in self.pods.values() {
            for cpu in granted.iter().flat_map(CpuSet::iter) {
                prop_assert!(held.insert(cpu), "two sandboxes share CPU {}", cpu);
            }
        }
        let cores = |cpus: &CpuSet| -> BTreeSet<u32> { cpus.iter().map(|cpu| cpu % 4).collect() };
        let owned: BTreeSet<u32> = held.iter().map(|cpu| cpu % 4).collect();
        prop_assert!(8 - 2 * owned.len() >= FLOOR, "the floor is crossed");
        for path in kernel
            .written
            .keys()
            .filter(|path| path.components().count() > 2)
        {
            let cpus = kernel.effective(path);
            let pod = self.pods.values().find(|(pod, _)| path.starts_with(pod));
            if let Some((_, Some(granted))) = pod {
                prop_assert_eq!(&cpus, granted, "{}", path.display());
            } else if !["burstable", "besteffort"].contains(&name(path)) {
                prop_assert!(cpus.len() >= FLOOR, "{} has {}", path.display(), cpus);
                prop_assert!(
                    cores(&cpus).is_disjoint(&owned),
                    "{} runs on {}",
                    path.display(),
                    cpus
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn in_any_churn_nobody_shares_nobody_is_moved_and_the_floor_stands(v2 in any::<bool>(), events in events()) {
        let mut world = World::new(v2);
        for event in events {
            world.happen(event)?;
            // What came since the last look is off the CPUs of others by the next.
            world.tick()?;
            world.check()?;
        }
    }
}
