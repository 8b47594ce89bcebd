//! What the DNS proxy adds to an answer, and whether it holds thousands of queries a second. Called by [`super::run`].
//!
//! Queries are sent from within the sandboxes' network namespaces, by threads of this program: a program in a sandbox would measure its
//! own CPU limit. The same queries go to the cluster's DNS from the node's namespace, in turns, so that both see the same machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use nix::sched::{CloneFlags, setns};
use pilotlight_cluster::DNS_SERVICE;
use serde::Serialize;

use crate::stats::{Samples, Summary, count, rounded};

/// The cluster's DNS, as every pod of the local cluster asks it.
const SERVER: SocketAddrV4 = SocketAddrV4::new(DNS_SERVICE, 53);
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Queries a second of one sandbox under load: as many as the agent allows one.
const PER_SANDBOX: u32 = 500;
/// Between two queries of the sandbox beside the load.
const PACE: Duration = Duration::from_millis(10);

/// The numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queries {
    /// Answers of the cluster's DNS, asked from the node.
    pub direct: Summary,
    /// The same through the proxy, from a sandbox, in turns.
    pub proxied: Summary,
    /// What the proxy adds: the difference of the medians, in milliseconds.
    pub added_p50_ms: f64,
    /// The difference of the 99th percentiles.
    pub added_p99_ms: f64,
    /// Sandboxes that asked as much as they may.
    pub load_sandboxes: usize,
    /// Queries of all of them in a second.
    pub load_per_s: f64,
    /// How many of these were answered, in per cent.
    pub load_answered_percent: f64,
    /// Answers to another sandbox of the same node meanwhile.
    pub beside: Summary,
}

impl Queries {
    /// For people.
    pub fn lines(&self) -> [String; 2] {
        [
            format!(
                "DNS: p50 {:.3} ms direct, {:.3} ms through the proxy: {:.3} ms more (aim: below 1); p99 {:.3} ms more (aim: below 5); {} lost",
                self.direct.p50_ms,
                self.proxied.p50_ms,
                self.added_p50_ms,
                self.added_p99_ms,
                self.proxied.failed
            ),
            format!(
                "DNS under load: {:.0} queries/s of {} sandboxes, {:.1} % answered; another sandbox: p50 {:.2} ms, p99 {:.2} ms, {} lost",
                self.load_per_s,
                self.load_sandboxes,
                self.load_answered_percent,
                self.beside.p50_ms,
                self.beside.p99_ms,
                self.beside.failed
            ),
        ]
    }
}

/// A network namespace that is kept open.
pub struct Netns(File);

impl Netns {
    /// That of a pod's processes, from their cgroup; none where they are not on this machine.
    pub fn of_pod(uid: &str) -> Result<Option<Self>> {
        let spellings = [uid.to_owned(), uid.replace('-', "_")];
        for process in procfs::process::all_processes()? {
            // Processes end while they are looked at.
            let Ok(process) = process else { continue };
            let Ok(groups) = process.cgroups() else {
                continue;
            };
            let of_pod = groups
                .into_iter()
                .any(|group| spellings.iter().any(|uid| group.pathname.contains(uid)));
            if of_pod {
                return Self::of_process(process.pid()).map(Some);
            }
        }
        Ok(None)
    }

    /// That of a process.
    pub fn of_process(pid: i32) -> Result<Self> {
        let path: PathBuf = ["/proc", &pid.to_string(), "ns/net"].iter().collect();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(Self(file))
    }

    /// A socket in it. A thread's namespace is its own, so the thread that enters it is one that ends.
    fn socket(&self) -> Result<UdpSocket> {
        let socket = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(SERVER)?;
                anyhow::Ok(socket)
            });
            made.join()
                .map_err(|_| anyhow!("the thread that entered a namespace failed"))?
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }
}

/// A question for addresses, as bytes.
fn question(name: &str, id: u16) -> Result<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(
        Name::from_ascii(format!("{name}."))?,
        RecordType::A,
    ));
    Ok(message.to_vec()?)
}

/// Asks once; none where nothing came back in time.
fn ask(socket: &UdpSocket, name: &str, id: u16) -> Result<Option<Duration>> {
    let question = question(name, id)?;
    let start = Instant::now();
    socket.send(&question)?;
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        let answer = Message::from_vec(&buffer[..length])?;
        if answer.metadata.id != id {
            // Of an earlier one that was given up.
            continue;
        }
        ensure!(
            answer.metadata.response_code == ResponseCode::NoError && !answer.answers.is_empty(),
            "{name} is answered with {}",
            answer.metadata.response_code
        );
        return Ok(Some(start.elapsed()));
    }
    Ok(None)
}

fn take(samples: &mut Samples, took: Option<Duration>) {
    match took {
        Some(took) => {
            samples.wall += took;
            samples.took.push(took);
        }
        None => samples.failed += 1,
    }
}

/// Measures with one sandbox, then with as many as there are, all of the same node.
pub fn measure(
    node: &Netns,
    sandboxes: &[Netns],
    name: &str,
    queries: u32,
    seconds: u32,
) -> Result<Queries> {
    let (beside, load) = sandboxes
        .split_last()
        .context("no sandbox is on this machine")?;
    let (node, one) = (node.socket()?, beside.socket()?);
    let (mut direct, mut proxied) = (Samples::default(), Samples::default());
    // The first of each are not counted: routes, caches and sockets are warm after them.
    for id in 0..20 {
        ask(&node, name, id)?;
        ask(&one, name, id)?;
    }
    for n in 0..queries {
        let id = u16::try_from(n % 60_000)? + 100;
        take(&mut direct, ask(&node, name, id)?);
        take(&mut proxied, ask(&one, name, id)?);
    }
    let (direct, proxied) = (direct.summary(None), proxied.summary(None));
    let mut report = Queries {
        added_p50_ms: rounded(proxied.p50_ms - direct.p50_ms),
        added_p99_ms: rounded(proxied.p99_ms - direct.p99_ms),
        direct,
        proxied,
        load_sandboxes: load.len(),
        ..Queries::default()
    };
    if load.is_empty() || seconds == 0 {
        return Ok(report);
    }
    under_load(&mut report, load, &one, name, seconds)?;
    Ok(report)
}

/// One sandbox that asks as much as it may, until it is told to end: how many it sent, and how many were answered.
fn load(
    socket: UdpSocket,
    name: &str,
    end: Receiver<()>,
) -> Result<JoinHandle<Result<(u64, u64)>>> {
    let question = question(name, 7)?;
    socket.set_nonblocking(true)?;
    let pause = Duration::from_secs(1) / PER_SANDBOX;
    Ok(std::thread::spawn(move || {
        let (mut sent, mut answered) = (0, 0);
        let mut buffer = [0; 4096];
        let mut next = Instant::now();
        let mut ends: Option<Instant> = None;
        loop {
            if ends.is_none() && end.try_recv().is_ok() {
                // The last answers are on their way.
                ends = Some(Instant::now() + PATIENCE);
            }
            if ends.is_some_and(|ends| Instant::now() > ends) {
                return Ok((sent, answered));
            }
            while socket.recv(&mut buffer).is_ok() {
                answered += 1;
            }
            while ends.is_none() && Instant::now() >= next {
                if socket.send(&question).is_ok() {
                    sent += 1;
                }
                next += pause;
            }
            std::thread::sleep(pause);
        }
    }))
}

fn under_load(
    report: &mut Queries,
    sandboxes: &[Netns],
    beside: &UdpSocket,
    name: &str,
    seconds: u32,
) -> Result<()> {
    let mut threads = Vec::new();
    let mut ends: Vec<Sender<()>> = Vec::new();
    let start = Instant::now();
    for sandbox in sandboxes {
        let (end, told) = channel();
        threads.push(load(sandbox.socket()?, name, told)?);
        ends.push(end);
    }
    let length = Duration::from_secs(u64::from(seconds));
    let mut samples = Samples::default();
    let mut id = 0_u16;
    while start.elapsed() < length {
        id = id.wrapping_add(1);
        take(&mut samples, ask(beside, name, id)?);
        std::thread::sleep(PACE);
    }
    let took = start.elapsed();
    for end in ends {
        // A thread that ended by itself says why when it is joined.
        let _ = end.send(());
    }
    let (mut sent, mut answered) = (0, 0);
    for thread in threads {
        let joined = thread.join().map_err(|_| anyhow!("a load thread failed"))?;
        let (s, a) = joined?;
        sent += s;
        answered += a;
    }
    report.load_per_s = rounded(count(usize::try_from(sent)?) / took.as_secs_f64());
    report.load_answered_percent =
        rounded(100.0 * count(usize::try_from(answered)?) / count(usize::try_from(sent.max(1))?));
    report.beside = samples.summary(None);
    Ok(())
}

/// The sandboxes of the node that has most of them, by their pods' nodes.
pub fn on_one_node<T>(pods: impl IntoIterator<Item = (String, T)>) -> Vec<T> {
    let mut by_node: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (node, pod) in pods {
        by_node.entry(node).or_default().push(pod);
    }
    by_node
        .into_values()
        .max_by_key(Vec::len)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_with_most_is_chosen() {
        let pods = [("a", 1), ("b", 2), ("b", 3)].map(|(node, pod)| (node.to_owned(), pod));
        assert_eq!(on_one_node(pods), [2, 3]);
        assert!(on_one_node::<u8>([]).is_empty());
    }

    #[test]
    fn a_question_can_be_read() {
        let bytes = question("a.internet.test", 9).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.id, 9);
        assert_eq!(message.queries[0].name().to_ascii(), "a.internet.test.");
    }
}
