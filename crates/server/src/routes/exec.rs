//! Commands in running containers.

use api_types::exec::{CreateRequest, StartRequest};
use api_types::stream::{StreamKind, header};
use engine::errors::{Error, ExecError};
use hyper::{Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::containers::size;
use crate::answer::{self, Answer, ApiError, Body, Takeover};
use crate::hijack::{self, Session};
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

pub(super) async fn create(mut request: Request) -> Result {
    let create: CreateRequest = request.json_or_default().await?;
    let created = request.engine().containers.exec_create(request.name(), create).await?;
    Ok(answer::json_with(StatusCode::CREATED, &created))
}

pub(super) async fn inspect(request: Request) -> Result {
    Ok(answer::json(&request.engine().containers.exec_inspect(request.name()).await?))
}

pub(super) async fn resize(request: Request) -> Result {
    let (height, width) = size(&request)?;
    request.engine().containers.exec_resize(request.name(), height, width).await?;
    Ok(answer::status(StatusCode::OK))
}

/// A command that cannot be run is told in the stream (on stdout), as dockerd does: the CLI shows
/// what it reads there and takes the exit code (126, 127) from the exec, but drops the body of an
/// error.
pub(super) async fn start(mut request: Request) -> std::result::Result<Answer, ApiError> {
    let mut start: StartRequest = request.json_or_default().await?;
    if !request.version.has(42) {
        start.console_size = None;
    }
    let containers = &request.engine().containers;
    let tty = containers.exec_inspect(request.name()).await?.process_config.tty;
    let detach = start.detach;
    let handle = match containers.exec_start(request.name(), start).await {
        Ok(handle) => handle,
        Err(error) if detach || concerns_the_request(&error) => return Err(error.into()),
        Err(error) => return Ok(tell_in_stream(&request, tty, &ApiError::from(error).message)),
    };
    if detach {
        return Ok(answer::status(StatusCode::OK).into());
    }
    let session =
        Session { stream: handle.stream, logs: None, keys: handle.tty.then_some(handle.keys) };
    let head = hijack::head(&request.headers, request.version, handle.tty);
    Ok(hijack::takeover(head, session, handle.detached))
}

/// No such exec, one that ran already, a container in the wrong state.
fn concerns_the_request(error: &Error) -> bool {
    !matches!(error, Error::Exec(ExecError::Failed { .. }) | Error::Start(_) | Error::Io { .. })
}

fn tell_in_stream(request: &Request, tty: bool, message: &str) -> Answer {
    let text = format!("{message}\r\n");
    let mut bytes = Vec::with_capacity(text.len() + api_types::stream::HEADER_LEN);
    if !tty {
        let length = u32::try_from(text.len()).expect("an error text is short");
        bytes.extend_from_slice(&header(StreamKind::Stdout, length));
    }
    bytes.extend_from_slice(text.as_bytes());
    Answer::Takeover(Takeover {
        head: hijack::head(&request.headers, request.version, tty),
        run: Box::new(move |mut client| {
            Box::pin(async move {
                if let Err(error) = client.write_all(&bytes).await {
                    tracing::debug!(%error, "client left before it was told of a failed exec");
                }
                client.close().await;
            })
        }),
    })
}
