//! Whole connections over socket pairs, byte by byte, with an application made for the test.

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::answer::{self, ApiError};
use crate::hijack::{End, Session, head, relay};
use crate::reframe::Reframe;
use crate::version;

/// `/hijack` joins the client to the next of `containers` and reports how that ended; `/read`
/// answers with the length of the body; everything else is 204.
struct TestApp {
    containers: Mutex<Vec<UnixStream>>,
    ends: mpsc::UnboundedSender<End>,
    keys: Option<engine::containers::DetachKeys>,
}

impl App for TestApp {
    fn call(&self, request: Request<Incoming>, _client: &Client) -> BoxFuture<'static, Answer> {
        match request.uri().path() {
            "/hijack" => {
                let stream = self.containers.lock().unwrap().pop();
                let session = Session {
                    stream,
                    logs: None,
                    frames: Reframe::Keep,
                    keys: self.keys.clone(),
                    detached: None,
                };
                let head = head(request.headers(), version::MAXIMUM, false);
                let ends = self.ends.clone();
                Box::pin(async move {
                    // Long enough for hyper to see what the client does meanwhile.
                    tokio::task::yield_now().await;
                    Answer::Takeover(Takeover {
                        head,
                        run: Box::new(move |client| {
                            Box::pin(
                                async move { ends.send(relay(client, session).await).unwrap() },
                            )
                        }),
                    })
                })
            }
            "/refuse" => {
                let error = ApiError::new(StatusCode::NOT_FOUND, "No such container: x");
                Box::pin(async { error.into_response(version::MAXIMUM).into() })
            }
            "/unread" => {
                let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too large");
                Box::pin(async { error.into_response(version::MAXIMUM).into() })
            }
            "/slow" => Box::pin(async {
                tokio::task::yield_now().await;
                answer::stream(answer::JSON, futures_util::stream::iter([Ok("slow".into())])).into()
            }),
            "/never" => Box::pin(async {
                answer::stream(answer::JSON, futures_util::stream::pending()).into()
            }),
            _ => Box::pin(async { answer::status(StatusCode::NO_CONTENT).into() }),
        }
    }
}

struct Peer {
    client: UnixStream,
    container: UnixStream,
    ends: mpsc::UnboundedReceiver<End>,
    served: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

fn connect(keys: Option<&str>) -> Peer {
    let (client, server) = UnixStream::pair().unwrap();
    let (container, inside) = UnixStream::pair().unwrap();
    let (sender, ends) = mpsc::unbounded_channel();
    let keys = keys.map(|keys| engine::containers::DetachKeys::parse(Some(keys)).unwrap());
    let app = TestApp { containers: Mutex::new(vec![inside]), ends: sender, keys };
    let info = ListenerInfo { reachable_by_browsers: false, names: Vec::new() };
    let (stop, stopped) = watch::channel(false);
    let client_info = Client::new(Arc::new(info));
    let served = tokio::spawn(serve(Transport::Unix(server), client_info, Arc::new(app), stopped));
    Peer { client, container, ends, served, _stop: stop }
}

const HIJACK: &[u8] =
    b"POST /hijack HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const OLD_HIJACK: &[u8] = b"POST /hijack HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n";

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// Reads a head, which ends with an empty line.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let mut seen = vec![0; bytes.len()];
        self.client.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, bytes);
    }

    async fn container_sees(&mut self, bytes: &[u8]) {
        let mut seen = vec![0; bytes.len()];
        self.container.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, bytes);
    }

    async fn rest_of_client(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        self.served.await.unwrap();
        rest
    }
}

#[tokio::test]
async fn connections_are_kept_between_requests_and_hijacked_after() {
    for (request, expect) in
        [(HIJACK, "HTTP/1.1 101 UPGRADED\r\n"), (OLD_HIJACK, "HTTP/1.1 200 OK\r\n")]
    {
        let mut peer = connect(None);
        for _ in 0..2 {
            peer.send(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n").await;
            assert!(peer.head().await.starts_with("HTTP/1.1 204 No Content\r\n"));
        }
        peer.send(request).await;
        assert!(peer.head().await.starts_with(expect));
        peer.send(b"to the container").await;
        peer.container_sees(b"to the container").await;
        peer.container.write_all(b"and back").await.unwrap();
        peer.expect(b"and back").await;
        peer.container.shutdown().await.unwrap();
        assert_eq!(peer.ends.recv().await, Some(End::Container));
        assert_eq!(peer.rest_of_client().await, b"");
    }
}

/// Request, all of stdin and the end of sending in one breath, as a shell pipe does it.
#[tokio::test]
async fn what_comes_with_the_request_is_stdin() {
    for request in [HIJACK, OLD_HIJACK] {
        let mut peer = connect(None);
        peer.send(&[request, b"input"].concat()).await;
        peer.client.shutdown().await.unwrap();
        let mut stdin = Vec::new();
        peer.container.read_to_end(&mut stdin).await.unwrap();
        assert_eq!(stdin, b"input");
        peer.head().await;
        peer.container.write_all(b"output").await.unwrap();
        peer.container.shutdown().await.unwrap();
        assert_eq!(peer.rest_of_client().await, b"output");
    }
}

#[tokio::test]
async fn a_container_may_stop_reading_first() {
    let mut peer = connect(None);
    peer.send(HIJACK).await;
    peer.head().await;
    // Closes the container's reading half only.
    let container = peer.container.into_std().unwrap();
    container.shutdown(std::net::Shutdown::Read).unwrap();
    container.set_nonblocking(true).unwrap();
    peer.container = UnixStream::from_std(container).unwrap();
    peer.send(&[b'x'; 100_000]).await;
    peer.container.write_all(b"still here").await.unwrap();
    peer.expect(b"still here").await;
    drop(peer.container);
    assert_eq!(peer.ends.recv().await, Some(End::Container));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_session() {
    // Leaves with and without having shut down its half, and while the container does not read.
    for step in 0..3 {
        let mut peer = connect(None);
        peer.send(HIJACK).await;
        peer.head().await;
        if step == 1 {
            peer.client.shutdown().await.unwrap();
            peer.container_sees(b"").await;
        }
        drop(peer.client);
        assert_eq!(peer.ends.recv().await, Some(End::Client), "{step}");
        peer.served.await.unwrap();
        let mut rest = Vec::new();
        peer.container.read_to_end(&mut rest).await.unwrap();
    }
}

/// The client is gone and its last input cannot be delivered: after a while nobody waits for it.
#[tokio::test(start_paused = true)]
async fn undeliverable_input_is_given_up() {
    let mut peer = connect(None);
    peer.send(HIJACK).await;
    peer.head().await;
    let mut sent = 0;
    loop {
        let write = peer.client.write(&[b'x'; 65_536]);
        match tokio::time::timeout(Duration::from_millis(10), write).await {
            Ok(written) => sent += written.unwrap(),
            Err(_full) => break,
        }
    }
    assert!(sent > 0);
    drop(peer.client);
    assert_eq!(peer.ends.recv().await, Some(End::Client));
}

#[tokio::test]
async fn detach_keys_end_the_session_and_not_the_container() {
    let mut peer = connect(Some("ctrl-p,ctrl-q"));
    peer.send(HIJACK).await;
    peer.head().await;
    peer.send(b"ls\x10").await;
    peer.container_sees(b"ls").await;
    peer.send(b"\x11").await;
    assert_eq!(peer.ends.recv().await, Some(End::Detached));
    assert_eq!(peer.rest_of_client().await, b"");
}

#[tokio::test]
async fn a_refused_hijack_leaves_the_connection_in_http() {
    let mut peer = connect(None);
    for _ in 0..2 {
        peer.send(b"POST /refuse HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").await;
        let head = peer.head().await;
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
        peer.expect(b"{\"message\":\"No such container: x\"}\n").await;
    }
    peer.client.shutdown().await.unwrap();
    assert_eq!(peer.rest_of_client().await, b"");
}

/// Whoever still sends gets to read why nobody listens.
#[tokio::test]
async fn an_answer_comes_before_the_end_of_an_unread_body() {
    let mut peer = connect(None);
    peer.send(b"POST /unread HTTP/1.1\r\nHost: d\r\nContent-Length: 9999999\r\n\r\n").await;
    let (mut read, mut write) = peer.client.into_split();
    let sending = tokio::spawn(async move { while write.write_all(&[0; 65_536]).await.is_ok() {} });
    let mut answer = Vec::new();
    // The connection may be reset after the answer.
    drop(read.read_to_end(&mut answer).await);
    assert!(answer.starts_with(b"HTTP/1.1 413 Payload Too Large\r\n"));
    assert!(answer.ends_with(b"{\"message\":\"too large\"}\n"));
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn heads_that_never_end_are_cut_off() {
    let mut peer = connect(None);
    peer.send(b"GET /x HTTP/1.1\r\nHost:").await;
    let before = tokio::time::Instant::now();
    let rest = peer.rest_of_client().await;
    assert!(before.elapsed() >= HEAD_TIMEOUT, "{rest:?}");
}

#[tokio::test]
async fn a_daemon_that_stops_closes_idle_connections() {
    let mut peer = connect(None);
    peer.send(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n").await;
    peer.head().await;
    peer._stop.send_replace(true);
    assert_eq!(peer.rest_of_client().await, b"");
}

/// `printf 'GET ...' | nc -U docker.sock`
#[tokio::test]
async fn a_client_may_stop_sending_before_the_answer() {
    for (path, end) in [("/x", "\r\n\r\n"), ("/unread", "}\n"), ("/slow", "\r\n0\r\n\r\n")] {
        let mut peer = connect(None);
        let request = format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}");
        peer.send(request.as_bytes()).await;
        peer.client.shutdown().await.unwrap();
        let answer = String::from_utf8(peer.rest_of_client().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 ") && answer.ends_with(end), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_client_leaves() {
    for half_first in [false, true] {
        let mut peer = connect(None);
        peer.send(b"GET /never HTTP/1.1\r\nHost: d\r\n\r\n").await;
        peer.head().await;
        if half_first {
            peer.client.shutdown().await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(peer.client);
        peer.served.await.unwrap();
    }
}

#[tokio::test]
async fn garbage_is_answered_or_dropped() {
    let check = async |bytes: &[u8], expect: &[u8]| {
        let peer = connect(None);
        let (mut read, mut write) = peer.client.into_split();
        // The daemon may have heard enough before it heard all.
        let sending = async { write.write_all(bytes).await.and(write.shutdown().await).ok() };
        let mut seen = Vec::new();
        let reading = async { read.read_to_end(&mut seen).await.ok() };
        tokio::join!(sending, reading);
        let text = String::from_utf8_lossy(bytes);
        assert!(seen.starts_with(expect), "{text:?}: {}", String::from_utf8_lossy(&seen));
    };
    let bad = b"HTTP/1.1 400 Bad Request\r\n";
    check(b"garbage\r\n\r\n", bad).await;
    check(b"GET / HTTP/9.9\r\n\r\n", bad).await;
    check(b"\0\0\0\0\r\n\r\n", bad).await;
    check(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"HTTP/1.1 400").await;
    check(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", bad)
        .await;
    check(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n", bad).await;
    check(b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n", bad).await;
    check(b"GET / HTTP/1.1\r\nHost: d\r\nX: \0\r\n\r\n", bad).await;
    check(b"GET / HTTP/1.1\r\nHost: d\r\n : x\r\n\r\n", bad).await;
    let long = [&b"GET / HTTP/1.1\r\nHost: d\r\nX: "[..], &[b'a'; 2 * MAX_HEAD]].concat();
    check(&long, b"HTTP/1.1 431").await;
    check(b"", b"").await;
}
