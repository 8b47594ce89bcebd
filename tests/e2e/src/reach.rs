//! What a program in a sandbox can reach: tries everything from inside and tells how each try ended.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::scene::Scene;

/// Tries what it is given, one after the other. A try that is neither answered nor refused within 5 s ends as `silence`.
const TRY: &str = r"
import errno, json, socket, struct, sys, time
PATIENCE = 5
def tcp(host, port):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(PATIENCE)
        s.connect((host, port))
        return 'open'
def greeted(host, port):
    with socket.create_connection((host, port), PATIENCE) as s:
        return 'open' if s.recv(64).startswith(b'outside') else 'closed'
def udp(host, port):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect((host, port))
        s.send(b'hello')
        s.recv(64)
        return 'open'
def name(host):
    start = time.monotonic()
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        # The C library says the same of a server that refuses and of one that is silent; for that it waits twice five seconds.
        again = 'refused' if time.monotonic() - start < PATIENCE else 'silence'
        return {socket.EAI_NONAME: 'unknown', socket.EAI_NODATA: 'unknown', socket.EAI_AGAIN: again}.get(error.errno, str(error))
    return ' '.join(sorted({where[4][0] for where in found}))
def query(host, kind):
    labels = b''.join(bytes([len(part)]) + part.encode() for part in host.split('.'))
    return struct.pack('>6H', 77, 0x100, 1, 0, 0, 0) + labels + struct.pack('>BHH', 0, kind, 1)
def verdict(answer):
    flags, _, answers = struct.unpack('>3H', answer[2:8])
    return f'code {flags & 15} answers {answers}'
def dns(server, host, kind):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect((server, 53))
        s.send(query(host, kind))
        return verdict(s.recv(4096))
def dns_tcp(server, host, kind):
    with socket.create_connection((server, 53), PATIENCE) as s:
        q = query(host, kind)
        s.sendall(struct.pack('>H', len(q)) + q)
        data = b''
        while len(data) < 2 or len(data) < 2 + struct.unpack('>H', data[:2])[0]:
            more = s.recv(4096)
            if not more:
                return 'closed'
            data += more
        return verdict(data[2:])
def raw(host, protocol):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as s:
        s.settimeout(PATIENCE)
        s.sendto(b'\x08\x00\xf7\xff\x00\x00\x00\x00', (host, 0))
        s.recv(64)
        return 'open'
def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.settimeout(PATIENCE)
        s.connect((host, 0))
        s.send(b'\x08\x00\xf7\xff\x00\x00\x00\x00')
        s.recv(64)
        return 'open'
def broadcast(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(b'hello', (host, port))
        s.recv(64)
        return 'open'
def attempt(kind, arguments):
    try:
        return globals()[kind](*arguments)
    except socket.timeout:
        return 'silence'
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
print(json.dumps({what: attempt(kind, arguments) for what, kind, arguments in json.loads(sys.argv[1])}))
";

/// Tries of a program, by what they are called.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Tries(Vec<(String, &'static str, Vec<Value>)>);

/// How each try ended: `open` where it got through, the name of an error where it was refused, `silence` where nothing came back,
/// addresses for a name or `refused` or `unknown`, code and number of answers for a query.
pub type Ends = BTreeMap<String, String>;

impl Tries {
    fn add(mut self, what: &str, kind: &'static str, arguments: &Value) -> Self {
        let arguments = arguments.as_array().cloned().unwrap_or_default();
        self.0.push((what.to_owned(), kind, arguments));
        self
    }

    /// A connection.
    #[must_use]
    pub fn tcp(self, what: &str, to: impl Into<IpAddr>, port: u16) -> Self {
        self.add(what, "tcp", &json!([to.into(), port]))
    }

    /// A connection to a name, and the greeting of the tests' internet.
    #[must_use]
    pub fn greeted(self, what: &str, to: &str, port: u16) -> Self {
        self.add(what, "greeted", &json!([to, port]))
    }

    /// A datagram and its answer.
    #[must_use]
    pub fn udp(self, what: &str, to: impl Into<IpAddr>, port: u16) -> Self {
        self.add(what, "udp", &json!([to.into(), port]))
    }

    /// A look-up by the C library, search domains and all.
    #[must_use]
    pub fn name(self, what: &str, name: &str) -> Self {
        self.add(what, "name", &json!([name]))
    }

    /// A query of this type to a server over UDP.
    #[must_use]
    pub fn dns(self, what: &str, server: impl Into<IpAddr>, name: &str, kind: u16) -> Self {
        self.add(what, "dns", &json!([server.into(), name, kind]))
    }

    /// The same over TCP.
    #[must_use]
    pub fn dns_tcp(self, what: &str, server: impl Into<IpAddr>, name: &str, kind: u16) -> Self {
        self.add(what, "dns_tcp", &json!([server.into(), name, kind]))
    }

    /// A packet of this protocol through a raw socket.
    #[must_use]
    pub fn raw(self, what: &str, to: impl Into<IpAddr>, protocol: u8) -> Self {
        self.add(what, "raw", &json!([to.into(), protocol]))
    }

    /// An echo request through the kind of socket that needs no rights.
    #[must_use]
    pub fn ping(self, what: &str, to: impl Into<IpAddr>) -> Self {
        self.add(what, "ping", &json!([to.into()]))
    }

    /// A datagram to many at once. None of them is there to refuse it, so silence is all that can come back.
    #[must_use]
    pub fn broadcast(self, what: &str, to: impl Into<IpAddr>, port: u16) -> Self {
        self.add(what, "broadcast", &json!([to.into(), port]))
    }

    /// Tries everything in a sandbox's pod.
    pub async fn from_inside(&self, scene: &Scene, pod: &str) -> Result<Ends> {
        let tries = serde_json::to_string(self)?;
        let arguments = ["exec", pod, "--", "python3", "-c", TRY, &tries];
        let said = scene.kubectl(&arguments).await?;
        serde_json::from_str(&said.out).with_context(|| said.out.clone())
    }
}

/// Each try ended as is said here.
pub fn ended(ends: &Ends, expected: &[(&str, &str)]) -> Result<()> {
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(what, end)| ends.get(*what).map(String::as_str) != Some(*end))
        .map(|(what, end)| format!("{what}: {:?} and not {end}", ends.get(*what)))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Errors that a refusal by reset, by an ICMP message, or by the socket itself shows as. Silence is none of them.
const REFUSALS: [&str; 8] = [
    "ECONNREFUSED",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "EACCES",
    "EPERM",
    "ECONNRESET",
    "EAFNOSUPPORT",
    "EADDRNOTAVAIL",
];

/// Each of these was refused, and aloud.
pub fn refused(ends: &Ends, which: &[&str]) -> Result<()> {
    let wrong: Vec<String> = which
        .iter()
        .filter(|what| {
            !ends
                .get(**what)
                .is_some_and(|end| REFUSALS.contains(&end.as_str()))
        })
        .map(|what| format!("{what}: {:?}", ends.get(*what)))
        .collect();
    ensure!(wrong.is_empty(), "not refused: {wrong:#?}");
    Ok(())
}

/// An egress rule, or one with the usual ports.
pub fn egress(domain: &str, ports: &[u16]) -> Value {
    if ports.is_empty() {
        return json!({ "domain": domain });
    }
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "port": port, "protocol": "TCP" }))
        .collect();
    json!({ "domain": domain, "ports": ports })
}
