//! The proxy between real sockets: resolvers on one side, a DNS server on the other.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures::FutureExt;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};

use super::fixtures::{rules, tcp};
use super::*;

/// Longer than any answer takes, and shorter than a resolver's patience.
const SOON: Duration = Duration::from_secs(4);

/// What the server does with a question.
type Script = fn(&Message) -> Vec<Message>;

/// A DNS server; what it was asked comes out of the channel.
async fn server(script: Script) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The same port of the other protocol may be somebody else's.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let address = tcp.local_addr().unwrap();
    let (asked, questions) = mpsc::unbounded_channel();
    let over_tcp = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let _ = asked.send(query.queries[0].name().to_ascii());
            for answer in script(&query) {
                let mut bytes = answer.to_vec().unwrap();
                if bytes.len() > 1232 {
                    let mut short = answer.clone();
                    short.answers.clear();
                    short.metadata.truncation = true;
                    bytes = short.to_vec().unwrap();
                }
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await.unwrap();
            let query = Message::from_vec(&bytes).unwrap();
            let _ = over_tcp.send(format!("tcp {}", query.queries[0].name()));
            for answer in script(&query) {
                let bytes = upstream::frame(&answer.to_vec().unwrap());
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    (address, questions)
}

fn respond(query: &Message, addresses: impl IntoIterator<Item = [u8; 4]>) -> Message {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.add_query(query.queries[0].clone());
    for address in addresses {
        let data = RData::A(Ipv4Addr::from(address).into());
        let name = query.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, 60, data));
    }
    message
}

fn one_address(query: &Message) -> Vec<Message> {
    vec![respond(query, [[1, 2, 3, 4]])]
}

/// What was asked of the kernel, in order.
#[derive(Debug)]
enum Asked {
    Open(RulesDigest, Vec<Opening>, oneshot::Sender<bool>),
    Configure(Configure),
}

struct Kernel(mpsc::UnboundedSender<Asked>);

impl Opener for Kernel {
    fn open(
        &self,
        _: &PodUid,
        digest: RulesDigest,
        openings: Vec<Opening>,
    ) -> BoxFuture<'static, Result<(), OpenError>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked::Open(digest, openings, answer)).unwrap();
        async move {
            match answered.await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(OpenError("as tested".to_owned())),
            }
        }
        .boxed()
    }
}

struct Scene {
    proxy: Proxy,
    kernel: mpsc::UnboundedReceiver<Asked>,
    sender: mpsc::UnboundedSender<Asked>,
}

fn scene(upstreams: Vec<SocketAddr>) -> Scene {
    let (sender, kernel) = mpsc::unbounded_channel();
    let config = Config {
        upstreams,
        allowed_ranges: Vec::new(),
    };
    let proxy = Proxy::new(config, Arc::new(Kernel(sender.clone())));
    Scene {
        proxy,
        kernel,
        sender,
    }
}

impl Scene {
    /// A pod with sockets, which may reach what these rules say.
    fn pod(&mut self, number: u8, names: &[(&str, u16)]) -> (PodUid, SocketAddr, SocketAddr) {
        let uid = format!("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d{number:02x}");
        let uid = PodUid::try_from(uid).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (to_udp, to_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let sockets = PodSockets {
            udp: vec![udp],
            tcp: vec![tcp],
        };
        self.proxy.attach(&uid, sockets).unwrap();
        self.allow(&uid, names);
        (uid, to_udp, to_tcp)
    }

    fn allow(&self, pod: &PodUid, names: &[(&str, u16)]) {
        let send = &mut |configure| self.sender.send(Asked::Configure(configure)).unwrap();
        self.proxy.set_rules(pod, rules(names), send);
    }

    /// The next thing that was asked to be opened; what was configured before it is passed over.
    async fn next_open(&mut self) -> (RulesDigest, Vec<Opening>, oneshot::Sender<bool>) {
        loop {
            let asked = tokio::time::timeout(SOON, self.kernel.recv()).await;
            if let Asked::Open(digest, openings, answer) = asked.unwrap().unwrap() {
                return (digest, openings, answer);
            }
        }
    }

    /// Opens whatever is asked for from now on.
    fn open_all(self) -> Proxy {
        let mut kernel = self.kernel;
        tokio::spawn(async move {
            while let Some(asked) = kernel.recv().await {
                if let Asked::Open(_, _, answer) = asked {
                    let _ = answer.send(true);
                }
            }
        });
        self.proxy
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 42;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// A resolver of a pod.
async fn resolver(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn answer(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(SOON, socket.recv(&mut buffer)).await;
    let length = received.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask(to: SocketAddr, name: &str) -> Message {
    let socket = resolver(to).await;
    socket.send(&query(name)).await.unwrap();
    answer(&socket).await
}

async fn ask_stream(stream: &mut TcpStream, name: &str) -> Message {
    let bytes = upstream::frame(&query(name));
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

#[tokio::test]
async fn an_address_is_open_before_its_name_is_answered() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (_, udp, _) = scene.pod(1, &[("a.org", 443)]);
    let socket = resolver(udp).await;
    socket.send(&query("A.org.")).await.unwrap();
    let (digest, openings, opened) = scene.next_open().await;
    assert_eq!(digest, rules(&[("a.org", 443)]).digest());
    assert_eq!(openings.len(), 1);
    assert_eq!(openings[0].element.address, Ipv4Addr::new(1, 2, 3, 4));
    assert_eq!(openings[0].element.port, tcp(443));
    let mut buffer = [0; 512];
    let early = socket.try_recv(&mut buffer);
    assert_eq!(early.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    opened.send(true).unwrap();
    let message = answer(&socket).await;
    assert_eq!((message.metadata.id, message.answers.len()), (42, 1));
    assert_eq!(message.queries[0].name().to_ascii(), "A.org.");
    assert_eq!(scene.proxy.counters().allowed, 1);
}

#[tokio::test]
async fn what_cannot_be_opened_is_not_answered() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (_, udp, _) = scene.pod(1, &[("a.org", 443)]);
    let socket = resolver(udp).await;
    socket.send(&query("a.org.")).await.unwrap();
    scene.next_open().await.2.send(false).unwrap();
    let message = answer(&socket).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert!(message.answers.is_empty());
    assert_eq!(scene.proxy.counters().not_opened, 1);
}

#[tokio::test]
async fn no_server_hears_of_a_name_that_is_refused() {
    let (server, mut questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (uid, udp, to_tcp) = scene.pod(1, &[("a.org", 443)]);
    let (_, nothing, _) = scene.pod(2, &[]);
    let proxy = scene.open_all();
    for (to, name) in [
        (udp, "secret.evil.org."),
        (udp, "x.a.org."),
        (nothing, "a.org."),
    ] {
        let message = ask(to, name).await;
        assert_eq!(
            message.metadata.response_code,
            ResponseCode::Refused,
            "{name}"
        );
    }
    let mut stream = TcpStream::connect(to_tcp).await.unwrap();
    let message = ask_stream(&mut stream, "evil.org.").await;
    assert_eq!(message.metadata.response_code, ResponseCode::Refused);
    let message = ask(udp, "a.org.svc.cluster.local.").await;
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    ask(udp, "a.org.").await;
    assert_eq!(
        questions.recv().await.unwrap(),
        "a.org.",
        "the first that it heard of"
    );
    let refused: Vec<_> = proxy
        .take_refused(&uid)
        .into_iter()
        .map(|r| r.name)
        .collect();
    assert_eq!(refused, ["secret.evil.org", "x.a.org", "evil.org"]);
    assert!(proxy.take_refused(&uid).is_empty());
    assert_eq!(proxy.counters().refused, 4);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_over_tcp() {
    let (server, mut questions) =
        server(|query| vec![respond(query, (0..250).map(|n| [1, 2, 3, n]))]).await;
    let mut scene = scene(vec![server]);
    let (_, udp, to_tcp) = scene.pod(1, &[("a.org", 443)]);
    let _proxy = scene.open_all();
    // What is left of it does not fit into a datagram for the pod either.
    let message = ask(udp, "a.org.").await;
    assert!(message.metadata.truncation);
    assert_eq!(questions.recv().await.unwrap(), "a.org.");
    assert_eq!(questions.recv().await.unwrap(), "tcp a.org.");
    let mut stream = TcpStream::connect(to_tcp).await.unwrap();
    for _ in 0..3 {
        let message = ask_stream(&mut stream, "a.org.").await;
        assert_eq!(message.answers.len(), answer::MAX_ADDRESSES);
    }
}

#[tokio::test]
async fn a_guess_does_not_replace_the_true_answer() {
    let (server, _questions) = server(|query| {
        let mut guess = respond(query, [[6, 6, 6, 6]]);
        guess.metadata.id = query.metadata.id.wrapping_add(1);
        vec![guess, respond(query, [[1, 2, 3, 4]])]
    })
    .await;
    let mut scene = scene(vec![server]);
    let (_, udp, _) = scene.pod(1, &[("a.org", 443)]);
    let _proxy = scene.open_all();
    let message = ask(udp, "a.org.").await;
    assert_eq!(
        message.answers[0].data,
        RData::A(Ipv4Addr::new(1, 2, 3, 4).into())
    );
}

#[tokio::test]
async fn a_silent_server_costs_a_try_and_a_failing_one_none() {
    let (silent, _silent) = server(|_| Vec::new()).await;
    let (failing, _failing) = server(|query| {
        let mut message = respond(query, []);
        message.metadata.response_code = ResponseCode::ServFail;
        vec![message]
    })
    .await;
    let (good, _good) = server(one_address).await;
    for first in [silent, failing] {
        let mut scene = scene(vec![first, good]);
        let (_, udp, _) = scene.pod(1, &[("a.org", 443)]);
        let _proxy = scene.open_all();
        assert_eq!(ask(udp, "a.org.").await.answers.len(), 1);
    }
    let mut scene = scene(vec![failing]);
    let (_, udp, _) = scene.pod(1, &[("a.org", 443)]);
    let proxy = scene.open_all();
    let message = ask(udp, "a.org.").await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(proxy.counters().upstream_failed, 1);
}

#[tokio::test]
async fn an_edit_closes_what_it_takes_away_behind_what_was_opened_before() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let before = [("a.org", 443), ("b.org", 80)];
    let (uid, udp, _) = scene.pod(1, &before);
    let socket = resolver(udp).await;
    socket.send(&query("a.org.")).await.unwrap();
    let (_, opened, answered) = scene.next_open().await;
    // Edited while the kernel opens it.
    scene.allow(&uid, &[("b.org", 80)]);
    let Asked::Configure(configure) = scene.kernel.recv().await.unwrap() else {
        panic!("the change comes behind what it closes");
    };
    assert_eq!(configure.previous, rules(&before).digest());
    assert_eq!(configure.digest, rules(&[("b.org", 80)]).digest());
    let closed = BTreeSet::from([opened[0].element]);
    assert_eq!(configure.close, Close::Only(closed));
    answered.send(true).unwrap();
    answer(&socket).await;
    let message = ask(udp, "a.org.").await;
    assert_eq!(message.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn an_edit_that_comes_before_the_servers_answer_is_what_counts() {
    let (silent, mut questions) = server(|_| Vec::new()).await;
    let (good, _good) = server(one_address).await;
    let mut scene = scene(vec![silent, good]);
    let (uid, udp, _) = scene.pod(1, &[("a.org", 443)]);
    let socket = resolver(udp).await;
    socket.send(&query("a.org.")).await.unwrap();
    questions.recv().await.unwrap();
    scene.allow(&uid, &[]);
    let message = answer(&socket).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    while let Ok(asked) = scene.kernel.try_recv() {
        assert!(matches!(asked, Asked::Configure(_)), "{asked:?}");
    }
}

#[tokio::test]
async fn what_another_life_opened_is_closed_by_the_next_change() {
    let mut scene = scene(Vec::new());
    let (uid, _, _) = scene.pod(1, &[]);
    scene.kernel.recv().await.unwrap();
    scene.proxy.was_armed(&uid, rules(&[("a.org", 1)]).digest());
    scene.allow(&uid, &[("a.org", 1)]);
    let Asked::Configure(configure) = scene.kernel.recv().await.unwrap() else {
        panic!();
    };
    // Where the digests agree, nothing was taken away, and the table keeps what is open.
    assert_eq!(configure.previous, configure.digest);
    assert_eq!(configure.close, Close::Only(BTreeSet::new()));
    scene.allow(&uid, &[]);
    let Asked::Configure(configure) = scene.kernel.recv().await.unwrap() else {
        panic!();
    };
    assert_eq!(configure.close, Close::All);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_floods_hurts_only_itself() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (_, flooded, flooded_tcp) = scene.pod(1, &[("a.org", 443)]);
    let (_, other, other_tcp) = scene.pod(2, &[("a.org", 443)]);
    let proxy = scene.open_all();
    // Connections on which nothing is asked, and more queries than a pod may ask.
    let mut half_open = Vec::new();
    for _ in 0..200 {
        half_open.push(TcpStream::connect(flooded_tcp).await.unwrap());
    }
    let flood = tokio::spawn(async move {
        let socket = resolver(flooded).await;
        for n in 0..20_000 {
            let _ = socket.send(&query("a.org.")).await;
            if n % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(other, "a.org.").await.answers.len(), 1);
    }
    let mut stream = TcpStream::connect(other_tcp).await.unwrap();
    assert_eq!(ask_stream(&mut stream, "a.org.").await.answers.len(), 1);
    println!("51 answers beside a flood in {:?}", start.elapsed());
    flood.await.unwrap();
    assert!(proxy.counters().over_rate > 1000, "{:?}", proxy.counters());
    // Of the silent connections all but a few were closed at once.
    let mut closed = 0;
    for stream in &mut half_open {
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read_u8()).await;
        closed += usize::from(read.is_ok());
    }
    assert!(closed >= 184, "{closed} of 200");
}

#[tokio::test]
async fn giant_and_malformed_queries_end_a_connection_and_nothing_else() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (_, udp, to_tcp) = scene.pod(1, &[("a.org", 443)]);
    let proxy = scene.open_all();
    let mut stream = TcpStream::connect(to_tcp).await.unwrap();
    stream.write_all(&[0xff; 2000]).await.unwrap();
    // Closed with bytes unread is a reset.
    let ended = stream.read_u8().await.unwrap_err().kind();
    let ends = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
    assert!(ends.contains(&ended), "{ended:?}");
    let socket = resolver(udp).await;
    socket.send(&[0xff; 4000]).await.unwrap();
    socket.send(&[]).await.unwrap();
    let mut broken = query("a.org.");
    broken.truncate(15);
    socket.send(&broken).await.unwrap();
    let message = answer(&socket).await;
    assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(ask(udp, "a.org.").await.answers.len(), 1);
    assert_eq!(proxy.counters().malformed, 3);
}

#[tokio::test]
async fn a_pod_that_is_gone_is_not_served() {
    let (server, _questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let (uid, _, to_tcp) = scene.pod(1, &[("a.org", 443)]);
    let proxy = scene.open_all();
    let mut stream = TcpStream::connect(to_tcp).await.unwrap();
    assert_eq!(ask_stream(&mut stream, "a.org.").await.answers.len(), 1);
    proxy.detach(&uid);
    let ended = tokio::time::timeout(SOON, stream.read_u8()).await;
    assert!(ended.unwrap().is_err(), "its connection is served");
    assert!(TcpStream::connect(to_tcp).await.is_err());
}

#[tokio::test]
async fn a_question_asked_again_costs_neither_a_server_nor_an_opening() {
    let (server, mut questions) = server(one_address).await;
    let mut scene = scene(vec![server]);
    let names = [("a.org", 443)];
    let (uid, udp, to_tcp) = scene.pod(1, &names);
    let (_, other, _) = scene.pod(2, &names);
    let socket = resolver(udp).await;
    socket.send(&query("a.org.")).await.unwrap();
    scene.next_open().await.2.send(true).unwrap();
    answer(&socket).await;
    for name in ["a.org.", "A.org."] {
        assert_eq!(ask(udp, name).await.answers.len(), 1);
        let mut stream = TcpStream::connect(to_tcp).await.unwrap();
        assert_eq!(ask_stream(&mut stream, name).await.answers.len(), 1);
    }
    let counters = scene.proxy.counters();
    assert_eq!((counters.allowed, counters.kept), (1, 4));
    assert_eq!(questions.try_recv().unwrap(), "a.org.");
    assert!(questions.try_recv().is_err());
    while let Ok(asked) = scene.kernel.try_recv() {
        assert!(matches!(asked, Asked::Configure(_)), "it is open already");
    }
    // Another pod does not profit from it, nor the same one once what it may reach is made anew.
    let socket = resolver(other).await;
    socket.send(&query("a.org.")).await.unwrap();
    scene.next_open().await.2.send(true).unwrap();
    answer(&socket).await;
    scene.proxy.was_armed(&uid, RulesDigest::FRESH);
    let socket = resolver(udp).await;
    socket.send(&query("a.org.")).await.unwrap();
    scene.next_open().await.2.send(true).unwrap();
    answer(&socket).await;
    assert_eq!(questions.recv().await.unwrap(), "a.org.");
    // An edit counts for what is kept as well.
    scene.allow(&uid, &[]);
    let message = ask(udp, "a.org.").await;
    assert_eq!(message.metadata.response_code, ResponseCode::Refused);
}
