//! The streams against a real TLS server that stands for a scheduler replica.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotlight_common::stream::StreamMessage;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use super::*;

/// A scheduler: what it was told, and lines to say on each new stream.
#[derive(Default)]
struct Scheduler {
    seen: Mutex<Vec<String>>,
    lines: Mutex<Vec<&'static str>>,
}

const SNAPSHOT: &str = "{\"type\":\"SNAPSHOT\",\"assignments\":[]}\n";

impl Scheduler {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
        let head = format!(
            "{:?} {} {} {}",
            request.version(),
            request.method(),
            request.uri().path(),
            request.headers()["authorization"].to_str().unwrap()
        );
        let put = request.method() == hyper::Method::PUT;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.seen.lock().unwrap().push(format!("{head} {body}"));
        let lines: Vec<&'static str> = if put {
            Vec::new()
        } else {
            self.lines.lock().unwrap().clone()
        };
        let frames = futures::stream::iter(lines)
            .map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from_static(line.as_bytes()))));
        if put {
            return Response::new(BodyExt::boxed(StreamBody::new(frames)));
        }
        // The stream stays open for a moment and then ends, as one does when a replica goes.
        let open = frames.chain(
            futures::stream::once(tokio::time::sleep(Duration::from_millis(300)))
                .filter_map(|()| async { None }),
        );
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(open))))
    }
}

struct Setup {
    scheduler: Arc<Scheduler>,
    events: mpsc::Receiver<Event>,
    reports: watch::Sender<NodeReport>,
    directory: tempfile::TempDir,
    _streams: tokio::task::JoinSet<()>,
}

/// Starts a scheduler whose certificate bears `name`, and streams to it.
async fn start(name: &str) -> Setup {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scheduler = Arc::new(Scheduler::default());
    let mut tasks = tokio::task::JoinSet::new();
    let served = Arc::clone(&scheduler);
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let service = service_fn(move |request| {
                    let answer = Arc::clone(&served).answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.crt"), ca.pem()).unwrap();
    std::fs::write(directory.path().join("token"), "first\n").unwrap();
    let (sender, events) = mpsc::channel(100);
    let (reports, seen_reports) = watch::channel(NodeReport::default());
    let streams = Streams {
        host: "127.0.0.1".into(),
        port,
        endpoint: Arc::new(Endpoint {
            node: "node-1".into(),
            server_name: "pilotlight-scheduler".into(),
            ca_file: directory.path().join("ca.crt"),
            token_file: directory.path().join("token"),
        }),
        events: sender,
        reports: seen_reports,
        metrics: Arc::new(Metrics::default()),
    };
    tasks.spawn(streams.run());
    Setup {
        scheduler,
        events,
        reports,
        directory,
        _streams: tasks,
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stream_is_heard_made_again_and_told_every_change() {
    let mut setup = start("pilotlight-scheduler").await;
    *setup.scheduler.lines.lock().unwrap() = vec![
        SNAPSHOT,
        "{\"type\":\"SOMETHING_NEW\"}\nnot json\n{\"type\":\"BOOK",
        "MARK\"}\n",
    ];
    let mut heard = Vec::new();
    while heard.len() < 5 {
        match within(setup.events.recv()).await.unwrap() {
            Event::Stream(_, message) => heard.push(match message {
                StreamMessage::Snapshot { .. } => "snapshot",
                StreamMessage::Bookmark => "bookmark",
                _ => "other",
            }),
            Event::Disconnected(_) => {
                heard.push("disconnected");
                std::fs::write(setup.directory.path().join("token"), "second").unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        heard,
        [
            "snapshot",
            "bookmark",
            "disconnected",
            "snapshot",
            "bookmark"
        ]
    );
    setup.reports.send_modify(|report| report.ready = true);
    within(async {
        loop {
            let seen = setup.scheduler.seen.lock().unwrap().clone();
            if seen.iter().any(|line| {
                line.starts_with("HTTP/2.0 PUT /v1/nodes/node-1/report Bearer second")
                    && line.contains("\"ready\":true")
            }) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let seen = setup.scheduler.seen.lock().unwrap().clone();
    let get = "HTTP/2.0 GET /v1/nodes/node-1/assignments Bearer first ";
    assert!(seen.iter().any(|line| line == get), "{seen:?}");
}

#[tokio::test]
async fn a_server_of_another_name_hears_nothing() {
    let mut setup = start("somebody-else").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(setup.scheduler.seen.lock().unwrap().is_empty());
    assert!(setup.events.try_recv().is_err());
}

#[tokio::test]
async fn a_ca_that_comes_late_is_used() {
    let mut setup = start("pilotlight-scheduler").await;
    let path = setup.directory.path().join("ca.crt");
    let pem = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    *setup.scheduler.lines.lock().unwrap() = vec![SNAPSHOT];
    tokio::time::sleep(Duration::from_millis(500)).await;
    while setup.events.try_recv().is_ok() {}
    std::fs::write(&path, pem).unwrap();
    loop {
        if let Event::Stream(_, StreamMessage::Snapshot { .. }) =
            within(setup.events.recv()).await.unwrap()
        {
            break;
        }
    }
}
