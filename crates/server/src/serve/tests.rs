//! Listeners as clients meet them: TLS with right and wrong certificates, and web pages.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::answer::{self, Answer};
use crate::connection::ListenerInfo;
use crate::tls::{self, TlsFiles};

struct Fine;

impl App for Fine {
    fn call(&self, _request: Request<Incoming>, _client: &Client) -> BoxFuture<'static, Answer> {
        Box::pin(async { answer::json("fine").into() })
    }
}

fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make-certificates.sh");
    let output =
        Command::new("sh").arg(script).current_dir(directory.path()).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

fn listener(tls: Option<Arc<rustls::ServerConfig>>) -> (Listener, std::net::SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let info = ListenerInfo { reachable_by_browsers: true, names: Vec::new() };
    let name = address.to_string();
    (Listener { socket: Socket::Tcp(socket), info: Arc::new(info), tls, name }, address)
}

fn service() -> (Service, watch::Sender<bool>) {
    let (sender, stop) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(2));
    (Service { app: Arc::new(Fine), connections, stop }, sender)
}

/// Sends a request as the holder of this certificate; the whole answer.
async fn ask(
    directory: &Path,
    identity: Option<&str>,
    address: std::net::SocketAddr,
) -> io::Result<Bytes> {
    let pem = |name: &str, kind: &str| directory.join(format!("{name}.{kind}"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("authority", "pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(pem(name, "pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(pem(name, "key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await?;
    let server = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.into())
}

#[tokio::test]
async fn only_certified_clients_get_through() {
    let directory = certificates();
    let file = |name: &str| directory.path().join(name);
    let files = TlsFiles {
        certificate: file("server.pem"),
        key: file("server.key"),
        client_ca: Some(file("authority.pem")),
    };
    let (listener, address) = listener(Some(tls::server_config(&files).unwrap()));
    let (service, stop) = service();
    let serving = tokio::spawn(accept(listener, service));
    for _ in 0..2 {
        let answer = ask(directory.path(), Some("client"), address).await.unwrap();
        assert!(answer.ends_with(b"\"fine\"\n"), "{answer:?}");
        for identity in [None, Some("expired"), Some("misused"), Some("foreign")] {
            assert!(ask(directory.path(), identity, address).await.is_err(), "{identity:?}");
        }
    }
    stop.send_replace(true);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn missing_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("empty.pem"), "").unwrap();
    let files = TlsFiles { certificate: file("empty.pem"), key: file("key.pem"), client_ca: None };
    let error = answer::text_with_causes(&tls::server_config(&files).unwrap_err());
    assert!(error.contains("could not load TLS key from") && error.contains("key.pem"), "{error}");
}

/// Clients beyond the limit are sent away; those within it are not disturbed.
#[tokio::test]
async fn clients_are_counted() {
    let (listener, address) = listener(None);
    let (service, _stop) = service();
    let serving = tokio::spawn(accept(listener, service));
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    for client in [&mut first, &mut second] {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'H');
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    // Ended or reset, without an answer.
    drop(third.read_to_end(&mut rest).await);
    assert_eq!(rest, b"");
    serving.abort();
}
