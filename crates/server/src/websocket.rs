//! Attaching by websocket: binary messages out, any messages in. The two output streams are not
//! told apart; dockerd never did here.

use base64::Engine as _;
use engine::containers::AttachHandle;
use futures_util::{SinkExt, StreamExt};
use hyper::HeaderMap;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use crate::answer::{Answer, Takeover};
use crate::connection::ClientStream;
use crate::reframe::Reframe;

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_MESSAGE: usize = 1 << 20;

/// The server's part of the handshake; `None` when the client's is not one.
pub(crate) fn head(headers: &HeaderMap) -> Option<Vec<u8>> {
    let lists = |name, wanted: &str| {
        let tokens = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
        };
        headers.get_all(name).iter().any(tokens)
    };
    let version = headers.get(SEC_WEBSOCKET_VERSION)?;
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let right = lists(UPGRADE, "websocket") && lists(CONNECTION, "upgrade") && version == "13";
    right.then(|| {
        let accept = accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes()
    })
}

fn accept_key(key: &[u8]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash.finish())
}

pub(crate) fn takeover(head: Vec<u8>, handle: AttachHandle) -> Answer {
    Answer::Takeover(Takeover { head, run: Box::new(|client| Box::pin(run(client, handle))) })
}

async fn run(client: ClientStream, handle: AttachHandle) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
    let mut frames = Reframe::websocket(handle.tty);
    if let Some(mut logs) = handle.logs {
        while let Some(chunk) = logs.chunks.recv().await {
            if send(&mut socket, &frames.feed(&chunk)).await.is_err() {
                return;
            }
        }
    }
    if let Some(stream) = handle.stream
        && let Err(error) = relay(&mut socket, stream, frames).await
    {
        tracing::debug!(%error, "websocket ended");
        return;
    }
    // The client may have closed it already.
    drop(socket.close(None).await);
}

type Socket = WebSocketStream<ClientStream>;
type SocketResult<T> = Result<T, tokio_tungstenite::tungstenite::Error>;

async fn relay(socket: &mut Socket, stream: UnixStream, mut frames: Reframe) -> SocketResult<()> {
    let (mut from_container, mut to_container) = stream.into_split();
    let mut buffer = vec![0; 32 << 10];
    loop {
        tokio::select! {
            length = from_container.read(&mut buffer) => match length? {
                0 => return Ok(()),
                length => send(socket, &frames.feed(&buffer[..length])).await?,
            },
            message = socket.next() => match message.transpose()? {
                None | Some(Message::Close(_)) => return Ok(()),
                Some(Message::Binary(bytes)) => to_container.write_all(&bytes).await?,
                Some(Message::Text(text)) => to_container.write_all(text.as_bytes()).await?,
                // The library answers pings.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            },
        }
    }
}

async fn send(socket: &mut Socket, bytes: &[u8]) -> SocketResult<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    socket.send(Message::binary(bytes.to_vec())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_standards_example() {
        let mut headers = HeaderMap::new();
        assert_eq!(head(&headers), None);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let head = String::from_utf8(head(&headers).unwrap()).unwrap();
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }
}
