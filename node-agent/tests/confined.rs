//! The three processes as they are started on a node: held to their seccomp profiles, with no capability that they do not need,
//! and doing their work all the same.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use pilotlight_node_agent::api::host_client::{Host, HostSocket};
use pilotlight_node_agent::network_protocol::Request;
use pilotlight_node_agent::protocol::PodUid;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

const BINARY: &str = env!("CARGO_BIN_EXE_pilotlight-node-agent");
/// No file of the machine belongs to this user, and no capability.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(20);

/// A process of the agent that ends with the test.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn start(command: &mut Command, folder: &Path) -> Self {
        let log = folder.join("log");
        let out = fs::File::create(&log).unwrap();
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until something is so.
    fn until<T>(&mut self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "{what}: {ended:?} {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status of each of its threads.
    fn threads(&self) -> Vec<String> {
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .unwrap()
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok())
            .collect()
    }

    /// Every thread is held by two filters more than this test, and can use no capability but `capabilities`.
    fn assert_confined(&self, capabilities: u64) {
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let threads = self.threads();
        assert!(!threads.is_empty());
        for status in &threads {
            assert_eq!(value(status, "Seccomp:"), "2", "{status}");
            assert_eq!(value(status, "NoNewPrivs:"), "1", "{status}");
            let filters = |status| value(status, "Seccomp_filters:").parse::<u32>().unwrap();
            assert_eq!(filters(status), filters(&own) + 2, "{status}");
            for (set, mask) in [
                ("CapInh:", 0),
                ("CapPrm:", capabilities),
                ("CapEff:", capabilities),
                ("CapAmb:", 0),
            ] {
                assert_eq!(value(status, set), format!("{mask:016x}"), "{set}");
            }
        }
    }

    /// Ends it as the kubelet does. Whatever it was refused would be in the log.
    fn stop(mut self) -> (ExitStatus, String) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(
            log.contains("held to the seccomp profile of this process"),
            "{log}"
        );
        assert!(
            !log.contains("os error 1)") && !log.contains("not permitted"),
            "{log}"
        );
        (status, log)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value<'a>(status: &'a str, key: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key} in {status}"))
        .trim()
}

/// A folder that every user may read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn host_answers_under_its_profile_and_without_capabilities() {
    let folder = folder();
    let socket = folder.path().join("host.sock");
    let mut agent = Agent::start(
        Command::new(BINARY)
            .args(["host", "--cgroup-root", "/sys/fs/cgroup", "--socket"])
            .arg(&socket)
            .args(["--api-uid", &Uid::current().to_string()])
            .args(["--api-gid", &Gid::current().to_string()]),
        folder.path(),
    );
    // It is served once its mode is set.
    agent.until("the socket", || {
        let mode = fs::metadata(&socket).ok()?.permissions().mode();
        (mode & 0o777 == 0o660).then_some(())
    });
    let host = HostSocket::new(&socket);
    let pod = PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap();
    for _ in 0..3 {
        let inspected = host.inspect(vec![pod.clone()]).await.unwrap();
        assert_eq!(inspected.len(), 1);
        assert!(!inspected[0].found);
        assert_eq!(host.usage(vec![pod.clone()]).await.unwrap(), []);
    }
    agent.assert_confined(0);
    let (status, log) = agent.stop();
    assert!(status.success(), "{log}");
}

/// Which capabilities `network` keeps: `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`.
const OF_NETWORK: u64 = 1 << 12 | 1 << 19 | 1 << 21;

#[test]
fn network_answers_under_its_profile_and_with_its_three_capabilities() {
    if !Uid::current().is_root() {
        // Then it has no capabilities to keep, and does not start.
        return;
    }
    let folder = folder();
    // A node's own network, which is nobody's, and a /proc in which its first process is in it.
    let mut node = Command::new("unshare")
        .args(["--net", "sleep", "infinity"])
        .spawn()
        .unwrap();
    let proc_root = folder.path().join("proc");
    fs::create_dir_all(proc_root.join("1")).unwrap();
    symlink("/proc/self", proc_root.join("self")).unwrap();
    symlink(
        format!("/proc/{}/ns", node.id()),
        proc_root.join("1").join("ns"),
    )
    .unwrap();
    let socket = folder.path().join("network.sock");
    let mut agent = Agent::start(
        Command::new(BINARY)
            .args(["network", "--cgroup-root", "/sys/fs/cgroup", "--proc-root"])
            .arg(&proc_root)
            .arg("--socket")
            .arg(&socket)
            .args(["--api-uid", &Uid::current().to_string()])
            .args(["--api-gid", &Gid::current().to_string()]),
        folder.path(),
    );
    agent.until("the socket", || {
        let mode = fs::metadata(&socket).ok()?.permissions().mode();
        (mode & 0o777 == 0o660).then_some(())
    });
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let pod = PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap();
    for request in [
        Request::Arm { pod: pod.clone() },
        Request::Check { pods: [pod].into() },
    ] {
        let body = serde_json::to_vec(&request).unwrap();
        let length = u32::try_from(body.len()).unwrap();
        stream.write_all(&length.to_le_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).unwrap();
        // There is no such pod on the machine; that it says so, it had to look for it.
        let answer = String::from_utf8(body).unwrap();
        assert!(!answer.contains("protocol"), "{answer}");
    }
    agent.assert_confined(OF_NETWORK);
    let (status, log) = agent.stop();
    node.kill().unwrap();
    node.wait().unwrap();
    assert_eq!(status.signal(), Some(15), "{log}");
}

/// Something that speaks TLS as an API server does, and tells when it heard a request.
async fn server() -> (u16, String, tokio::sync::mpsc::Receiver<usize>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, requests) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut bytes = [0; 1024];
                if let Ok(read) = stream.read(&mut bytes).await
                    && read > 0
                {
                    let _ = heard.try_send(read);
                }
            }
        }
    });
    (port, made.cert.pem(), requests)
}

/// The status line and the body.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// `api` as nobody, where this is root; the binary and its files are put where nobody can read them.
fn api(folder: &Path, server: u16, ca: &str, metrics: u16) -> Command {
    let kubeconfig = folder.join("kubeconfig");
    let ca_file = folder.join("ca.crt");
    fs::write(&ca_file, ca).unwrap();
    fs::write(
        &kubeconfig,
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {
                "server": format!("https://localhost:{server}"), "certificate-authority": ca_file,
            }}],
            "users": [{"name": "a", "user": {"token": "none"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        })
        .to_string(),
    )
    .unwrap();
    let binary = folder.join("agent");
    // By another process: where this one had it open for writing, a child that another test starts in that moment would
    // have it open too, and a program that is being written cannot be run.
    let copied = Command::new("cp").arg(BINARY).arg(&binary).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(binary);
    command
        .args([
            "api",
            "--node-name",
            "node",
            "--scheduler-host",
            "localhost",
        ])
        .args([
            "--scheduler-port",
            "9",
            "--metrics-port",
            &metrics.to_string(),
        ])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--ca-file")
        .arg(ca_file)
        .arg("--host-socket")
        .arg(folder.join("host.sock"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn api_speaks_tls_serves_metrics_and_stops_under_its_profile_as_nobody() {
    let folder = folder();
    let (port, ca, mut requests) = server().await;
    // Free a moment ago; nothing else on the machine asks for this one in between.
    let metrics = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = api(folder.path(), port, &ca, metrics);
    if Uid::current().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut agent = Agent::start(&mut command, folder.path());
    let health = agent.until("/healthz", || get(metrics, "/healthz"));
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    // No scheduler and no host: it works, and says that it is not ready.
    let ready = get(metrics, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(get(metrics, "/metrics").unwrap().contains("# HELP"));
    let heard = tokio::time::timeout(PATIENCE, requests.recv()).await;
    assert!(heard.is_ok_and(|heard| heard.is_some()), "{}", agent.log());
    // Names are looked up in threads of their own, which are held too.
    assert!(agent.threads().len() > 2);
    agent.assert_confined(0);
    for status in agent.threads() {
        assert!(
            value(&status, "Uid:")
                .split_whitespace()
                .all(|user| user != "0"),
            "{status}"
        );
    }
    let (status, log) = agent.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn api_does_not_start_as_root() {
    if !Uid::current().is_root() {
        // Then it cannot be tried, and cannot happen either.
        return;
    }
    let folder = folder();
    let output = api(folder.path(), 9, "", 9).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("runs as root and must not"),
        "{said}"
    );
}
