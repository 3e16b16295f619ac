//! A client's connection joined to a container's streams: attach and exec.
//!
//! ```text
//! client  --stdin-->  detach keys  -->  container      (half-close travels on)
//! client  <--past log, then frames or tty bytes--  container
//! ```
//! The container's end closing ends the session, the client's end of sending does not. Enter at
//! [`relay`].

use std::time::Duration;

use bytes::Bytes;
use engine::containers::{DetachKeys, Detached, Typed};
use futures_util::FutureExt;
use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::answer::{Answer, Takeover};
use crate::connection::ClientStream;
use crate::reframe::Reframe;
use crate::version::ApiVersion;

const BUFFER: usize = 32 << 10;
/// How long the stdin that a departed client left behind may take to reach the container.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The container closed its streams: it exited.
    Container,
    /// The client is gone.
    Client,
    /// The client typed its detach keys.
    Detached,
}

/// The container's side of a session.
#[derive(Debug)]
pub(crate) struct Session {
    pub stream: Option<UnixStream>,
    /// Past output, sent before the stream's.
    pub logs: Option<mpsc::Receiver<Bytes>>,
    /// How the stream's output is framed for this client.
    pub frames: Reframe,
    /// Watched for on a terminal; other input may hold any bytes.
    pub keys: Option<DetachKeys>,
    /// Told if the client types them.
    pub detached: Option<Detached>,
}

/// Tells the client in its own terms that the connection is its now.
pub(crate) fn head(headers: &HeaderMap, version: ApiVersion, tty: bool) -> Vec<u8> {
    use api_types::stream::{MULTIPLEXED, RAW};
    if !headers.contains_key(hyper::header::UPGRADE) {
        return format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n\r\n").into_bytes();
    }
    let content_type = if version.has(42) && !tty { MULTIPLEXED } else { RAW };
    format!(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\n"
    )
    .into_bytes()
}

/// Takes the connection over for a session.
pub(crate) fn takeover(head: Vec<u8>, session: Session) -> Answer {
    Answer::Takeover(Takeover {
        head,
        run: Box::new(|client| {
            Box::pin(async move {
                let end = relay(client, session).await;
                tracing::debug!(?end, "session ended");
            })
        }),
    })
}

/// Carries bytes both ways until one of the three ends comes.
pub(crate) async fn relay(client: ClientStream, session: Session) -> End {
    let gone = client.hangup().wait().shared();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let Session { stream, logs, mut frames, keys, detached } = session;
    let end = match stream {
        None => tokio::select! {
            end = send_logs(&mut to_client, logs) => end,
            () = gone.clone() => End::Client,
        },
        Some(stream) => {
            let (mut from_container, to_container) = stream.into_split();
            let up = upward(&mut from_client, to_container, keys, gone.clone());
            let down = async {
                match send_logs(&mut to_client, logs).await {
                    End::Container => {
                        downward(&mut from_container, &mut frames, &mut to_client).await
                    }
                    other => other,
                }
            };
            let departed = async {
                gone.clone().await;
                tokio::time::sleep(LAST_WORDS).await;
                End::Client
            };
            tokio::select! { end = up => end, end = down => end, end = departed => end }
        }
    };
    // Before the close, which waits for the client.
    if end == End::Detached
        && let Some(detached) = detached
    {
        detached.emit();
    }
    if end != End::Client {
        from_client.unsplit(to_client).close().await;
    }
    end
}

/// stdin: from the client to the container.
async fn upward(
    client: &mut (impl AsyncRead + Unpin),
    mut container: impl AsyncWrite + Unpin,
    mut keys: Option<DetachKeys>,
    gone: impl Future<Output = ()>,
) -> End {
    let mut buffer = vec![0; BUFFER];
    // The container may close its stdin and go on; what is typed after that is dropped.
    let mut listening = true;
    loop {
        let length = match client.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(_broken) => return End::Client,
        };
        let typed = match &mut keys {
            Some(keys) => keys.feed(&buffer[..length]),
            None if listening => {
                listening = container.write_all(&buffer[..length]).await.is_ok();
                continue;
            }
            None => continue,
        };
        let (Typed::Forward(bytes) | Typed::Detach(bytes)) = &typed;
        if listening && !bytes.is_empty() {
            listening = container.write_all(bytes).await.is_ok();
        }
        if matches!(typed, Typed::Detach(_)) {
            return End::Detached;
        }
    }
    // An error means that nobody listens any more.
    drop(container.shutdown().await);
    gone.await;
    End::Client
}

/// stdout and stderr: from the container to the client.
async fn downward(
    container: &mut (impl AsyncRead + Unpin),
    frames: &mut Reframe,
    client: &mut (impl AsyncWrite + Unpin),
) -> End {
    let mut buffer = vec![0; BUFFER];
    loop {
        // A container's end that breaks is an end as well.
        let length = container.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return End::Container;
        }
        if send(client, &frames.feed(&buffer[..length])).await.is_err() {
            return End::Client;
        }
    }
}

async fn send_logs(
    client: &mut (impl AsyncWrite + Unpin),
    logs: Option<mpsc::Receiver<Bytes>>,
) -> End {
    let Some(mut logs) = logs else { return End::Container };
    while let Some(chunk) = logs.recv().await {
        if send(client, &chunk).await.is_err() {
            return End::Client;
        }
    }
    End::Container
}

/// TLS keeps what was written until it is flushed.
async fn send(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn heads_follow_version_and_terminal() {
        let check = |upgrade: bool, minor, tty, expect: &str| {
            let mut headers = HeaderMap::new();
            if upgrade {
                headers.insert("upgrade", HeaderValue::from_static("tcp"));
            }
            let head = head(&headers, ApiVersion::new(1, minor), tty);
            assert_eq!(String::from_utf8(head).unwrap(), expect);
        };
        let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
        check(false, 51, false, ok);
        check(false, 41, true, ok);
        let upgraded = |kind: &str| {
            format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n\
                 Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        };
        check(true, 51, false, &upgraded("multiplexed"));
        check(true, 51, true, &upgraded("raw"));
        check(true, 41, false, &upgraded("raw"));
    }
}
