//! Network namespaces and the traffic between them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use pilotlight_common::network::{NetworkRules, PortRule, Protocol, RangeRule, RulesDigest};

use crate::network::nft::NetfilterSocket;
use crate::network::table::{Arming, ProxyPorts};
use crate::network_protocol::{Close, Configure, Element, Opening};
use crate::protocol::PodUid;

/// What takes longer was not refused but lost.
pub const AT_ONCE: Duration = Duration::from_secs(5);
/// What did not arrive by then was dropped.
pub const LOST: Duration = Duration::from_millis(300);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: it is there as long as the thread that is in it.
pub struct Namespace {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in work {
                job();
            }
        });
        let thread = is_ready.recv().unwrap();
        let this = Self { jobs, thread };
        this.ip("link set lo up");
        // Addresses are used at once, those that links give themselves too.
        this.set("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        this
    }

    /// Runs something in it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = answer.send(job());
            }))
            .unwrap();
        answered.recv().unwrap()
    }

    pub fn ip(&self, arguments: &str) {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let output = self.run(move || Command::new("ip").args(words).output().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {said}");
    }

    pub fn set(&self, file: &'static str, value: &'static str) {
        self.run(move || std::fs::write(file, value).unwrap());
    }

    /// A link from `name` here to `peer` there, both up.
    pub fn link(&self, name: &str, there: &Self, peer: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer}"));
        self.ip(&format!("link set {peer} netns {}", there.thread));
        self.ip(&format!("link set {name} up"));
        there.ip(&format!("link set {peer} up"));
    }

    pub fn address(&self, link: &str, address: &str) {
        // Without waiting for whether somebody else has it.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {link}{nodad}"));
    }

    pub fn netfilter(&self) -> NetfilterSocket {
        self.run(|| NetfilterSocket::open().unwrap())
    }

    /// Listens, and answers each line with the same line.
    pub fn echo(&self, address: &str) {
        let address = socket_address(address);
        let listener = self.run(move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Answers each datagram with the same.
    pub fn echo_udp(&self, address: &str) {
        let address = socket_address(address);
        let socket = self.run(move || UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }

    /// Connects, within a time.
    pub fn connect(&self, to: &str, within: Duration) -> std::io::Result<TcpStream> {
        let to = socket_address(to);
        self.run(move || TcpStream::connect_timeout(&to, within))
    }

    /// A datagram there and back; the error, where one came back instead.
    pub fn ask_udp(&self, to: &str) -> std::io::Result<()> {
        let to = socket_address(to);
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = self.run(move || UdpSocket::bind((any, 0)))?;
        socket.set_read_timeout(Some(AT_ONCE))?;
        socket.connect(to)?;
        socket.send(b"x")?;
        socket.recv(&mut [0; 8]).map(|_| ())
    }

    pub fn may_connect(&self, to: &str) {
        let stream = self.connect(to, AT_ONCE);
        let stream = stream.unwrap_or_else(|error| panic!("{to}: {error}"));
        assert!(answers(&stream), "{to}");
    }

    /// Refused, and told so.
    pub fn is_refused(&self, to: &str) {
        let start = Instant::now();
        let error = self.connect(to, AT_ONCE).expect_err(to);
        assert!(start.elapsed() < AT_ONCE, "{to} was lost, not refused");
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionRefused, "{to}: {error}");
    }

    /// Refused, and told so, by whatever word.
    pub fn udp_is_refused(&self, to: &str) {
        let start = Instant::now();
        let error = self.ask_udp(to).expect_err(to);
        assert!(start.elapsed() < AT_ONCE, "{to}: {error}");
    }

    /// Dropped without a word.
    pub fn is_dropped(&self, to: &str) {
        let error = self.connect(to, LOST).expect_err(to);
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{to}: {error}");
    }
}

/// What a test says an address is.
pub fn socket_address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Whether what is said on a connection comes back.
pub fn answers(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(AT_ONCE)).unwrap();
    stream.write_all(b"hello").is_ok() && stream.read(&mut [0; 8]).is_ok_and(|length| length > 0)
}

pub fn uid() -> PodUid {
    PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap()
}

pub fn arming(node: &[&str]) -> Arming {
    Arming {
        proxy: ProxyPorts {
            udp: 5301,
            tcp: 5302,
        },
        node_addresses: node.iter().map(|a| a.parse().unwrap()).collect(),
        ingress_ranges: Vec::new(),
    }
}

pub fn element(to: &str, protocol: Protocol) -> Element {
    let to = socket_address(to);
    Element {
        address: to.ip(),
        port: PortRule {
            protocol,
            port: to.port(),
        },
    }
}

pub fn opening(to: &str, seconds: u32) -> Opening {
    Opening {
        element: element(to, Protocol::Tcp),
        seconds,
    }
}

pub fn range(range: &str, ports: &[u16]) -> RangeRule {
    RangeRule {
        range: range.parse().unwrap(),
        ports: ports
            .iter()
            .map(|port| PortRule {
                protocol: Protocol::Tcp,
                port: *port,
            })
            .collect(),
    }
}

/// From one set of rules to another, with nothing closed.
pub fn change(previous: RulesDigest, rules: &NetworkRules) -> Configure {
    Configure {
        pod: uid(),
        previous,
        digest: rules.digest(),
        egress: rules.egress.clone(),
        ingress: rules.ingress.clone(),
        close: Close::Only([].into()),
    }
}
