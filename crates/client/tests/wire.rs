//! The client against servers that answer by script: what goes over the wire, in which order.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::Path;
use std::sync::Arc;

use client::config::{self, TlsFiles};
use client::{Body, Client, Endpoint, Error, Request, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// Answers each connection with the next of `answers`; returns the requests' heads and bodies.
async fn script(listener: UnixListener, answers: Vec<String>) -> Vec<String> {
    let mut requests = Vec::new();
    for answer in answers {
        let (mut stream, _address) = listener.accept().await.unwrap();
        requests.push(exchange(&mut stream, &answer).await);
    }
    requests
}

/// Reads one request (its body has a length or is chunked) and answers it.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) -> String {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        request.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let done = match head.split_once("content-length: ") {
            Some((_, rest)) => {
                body.len() >= rest.split("\r\n").next().unwrap().parse::<usize>().unwrap()
            }
            None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
        };
        if done || count == 0 {
            break;
        }
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    request
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn json(status: &str, body: &str) -> String {
    answer(status, "Content-Type: application/json\r\n", body)
}

fn too_new() -> String {
    let text = "client version 1.51 is too new. Maximum supported API version is 1.43";
    json("400 Bad Request", &format!("{{\"message\":\"{text}\"}}"))
}

struct Fixture {
    _directory: tempfile::TempDir,
    client: Client,
    server: tokio::task::JoinHandle<Vec<String>>,
}

impl Fixture {
    fn new(pinned: Option<Version>, answers: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(script(listener, answers));
        let endpoint = config::endpoint(&format!("unix://{}", path.display()), None).unwrap();
        Self { _directory: directory, client: Client::new(endpoint, pinned, "test"), server }
    }

    /// The first lines of the requests there were.
    async fn lines(self) -> Vec<String> {
        let requests = self.server.await.unwrap();
        requests.iter().map(|request| request.lines().next().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn an_older_daemon_is_asked_again_in_its_own_version() {
    let answers = vec![too_new(), json("200 OK", "[]"), json("200 OK", "[]")];
    let fixture = Fixture::new(None, answers);
    for _ in 0..2 {
        let list: Vec<String> = fixture.client.get(Request::get("/x")).await.unwrap();
        assert!(list.is_empty());
    }
    let expect = ["GET /v1.51/x HTTP/1.1", "GET /v1.43/x HTTP/1.1", "GET /v1.43/x HTTP/1.1"];
    assert_eq!(fixture.lines().await, expect);
}

#[tokio::test]
async fn a_pinned_version_is_never_changed() {
    let fixture = Fixture::new(Version::parse("1.51"), vec![too_new()]);
    let error = fixture.client.call(Request::get("/x")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Error response from daemon: client version 1.51 is too new. Maximum supported API \
         version is 1.43"
    );
    assert_eq!(fixture.lines().await, ["GET /v1.51/x HTTP/1.1"]);
}

#[tokio::test]
async fn a_stream_is_sent_in_the_right_version_at_once() {
    let ping = answer("200 OK", "Api-Version: 1.44\r\n", "");
    let fixture = Fixture::new(None, vec![ping, json("200 OK", "{}")]);
    let pieces = [Ok(bytes::Bytes::from_static(b"abc")), Ok(bytes::Bytes::from_static(b"de"))];
    let body = Body::stream(futures_util::stream::iter(pieces));
    fixture.client.call(Request::post("/load").body("application/x-tar", body)).await.unwrap();
    let requests = fixture.server.await.unwrap();
    assert!(requests[0].starts_with("HEAD /_ping "), "{requests:?}");
    assert!(requests[1].starts_with("POST /v1.44/load "), "{requests:?}");
    assert!(requests[1].contains("abc") && requests[1].contains("de"), "{requests:?}");
}

#[tokio::test]
async fn errors_carry_status_and_sentence() {
    let fixture = Fixture::new(
        None,
        vec![
            json("404 Not Found", r#"{"message":"No such container: x"}"#),
            answer("500 Internal Server Error", "Content-Type: text/plain\r\n", "it broke\n"),
            answer("502 Bad Gateway", "", ""),
        ],
    );
    let mut texts = Vec::new();
    for _ in 0..3 {
        let error = fixture.client.call(Request::get("/x")).await.unwrap_err();
        texts.push(format!("{:?} {error}", error.status()));
    }
    assert_eq!(texts[0], "Some(404) Error response from daemon: No such container: x");
    assert_eq!(texts[1], "Some(500) Error response from daemon: it broke");
    assert!(texts[2].contains("request returned status 502 for API route /x"), "{}", texts[2]);
}

#[tokio::test]
async fn nulls_are_read_as_empty() {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct List {
        items: Vec<String>,
    }
    let fixture = Fixture::new(None, vec![json("200 OK", r#"{"items":null,"x":[null]}"#)]);
    let list: List = fixture.client.get(Request::get("/x")).await.unwrap();
    assert!(list.items.is_empty());
}

#[tokio::test]
async fn a_hijacked_connection_is_half_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _address) = listener.accept().await.unwrap();
        let upgrade = "HTTP/1.1 101 UPGRADED\r\nContent-Type: \
                       application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: \
                       tcp\r\n\r\nearly ";
        let request = exchange(&mut stream, upgrade).await;
        let mut input = String::new();
        stream.read_to_string(&mut input).await.unwrap();
        stream.write_all(format!("echo {input}").as_bytes()).await.unwrap();
        request
    });
    let endpoint = config::endpoint(&format!("unix://{}", path.display()), None).unwrap();
    let client = Client::new(endpoint, None, "test");
    let mut hijacked = client.hijack(Request::post("/attach")).await.unwrap();
    assert_eq!(hijacked.content_type, "application/vnd.docker.raw-stream");
    hijacked.io.write_all(b"hello").await.unwrap();
    hijacked.io.shutdown().await.unwrap();
    let mut output = String::new();
    hijacked.io.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "early echo hello");
    let request = server.await.unwrap().to_ascii_lowercase();
    assert!(request.contains("upgrade: tcp") && request.contains("connection: upgrade"));
}

#[tokio::test]
async fn no_daemon_is_said_as_docker_says_it() {
    let endpoint = config::endpoint("unix:///nonexistent/docker.sock", None).unwrap();
    let error = Client::new(endpoint, None, "test").call(Request::get("/x")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cannot connect to the Docker daemon at unix:///nonexistent/docker.sock. Is the docker \
         daemon running?"
    );
}

/// Makes a CA, a server's and a client's certificate; false when there is no openssl.
fn make_certificates(directory: &Path) -> bool {
    let openssl = |arguments: &str| {
        std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    std::fs::write(directory.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let sign = "-CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile san";
    openssl(&format!("req -x509 {key} -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=ca"))
        && ["server", "client"].iter().all(|name| {
            openssl(&format!("req {key} -keyout {name}-key.pem -out {name}.csr -subj /CN={name}"))
                && openssl(&format!("x509 -req -in {name}.csr -out {name}.pem {sign}"))
        })
}

fn server_config(directory: &Path) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = |name: &str| CertificateDer::from_pem_file(directory.join(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![certificate("server.pem")],
            PrivateKeyDer::from_pem_file(directory.join("server-key.pem")).unwrap(),
        )
        .unwrap()
}

#[tokio::test]
async fn tls_verifies_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    if !make_certificates(directory.path()) {
        println!("skipped: no openssl to make certificates with");
        return;
    }
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(directory.path())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (tcp, _address) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                exchange(&mut stream, &json("200 OK", "[]")).await;
                stream.shutdown().await.unwrap();
            }
        }
    });
    let file = |name: &str| directory.path().join(name);
    let call = |address: &str, verify: bool, own: bool| {
        let files = TlsFiles {
            verify,
            ca: file("ca.pem"),
            cert: own.then(|| file("client.pem")),
            key: own.then(|| file("client-key.pem")),
        };
        let endpoint: Endpoint =
            config::endpoint(&format!("tcp://{address}:{port}"), Some(files)).unwrap();
        async move {
            let client = Client::new(endpoint, None, "test");
            client.get::<Vec<String>>(Request::get("/x")).await
        }
    };
    assert!(call("127.0.0.1", true, true).await.is_ok());
    // Another name than the certificate's: refused, unless nobody asked for verification.
    let error = call("localhost", true, true).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert!(call("localhost", false, true).await.is_ok());
    // The server wants to know who we are.
    assert!(call("127.0.0.1", true, false).await.is_err());
    server.abort();
}
