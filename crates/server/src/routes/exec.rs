//! Commands in running containers.

use api_types::exec::{CreateRequest, StartRequest};
use api_types::stream::StreamKind;
use engine::errors::{Error, ExecError};
use hyper::{Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::containers::size;
use crate::answer::{self, Answer, ApiError, Body, Takeover};
use crate::hijack::{self, Session};
use crate::reframe::{Reframe, frame};
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

/// Once there is such an exec, in a container that runs, dockerd tells all else in the stream (on
/// stdout): the CLI shows what it reads there and takes the exit code (126, 127) from the exec, but
/// drops the body of an error. How the stream is framed is said here, not when the exec is made.
pub(super) async fn start(mut request: Request) -> std::result::Result<Answer, ApiError> {
    let mut start: StartRequest = request.json_or_default().await?;
    if !start.tty || !request.version.has(42) {
        start.console_size = None;
    }
    let StartRequest { detach, tty, .. } = start;
    let head = hijack::head(&request.headers, request.version, tty);
    let handle = match request.engine().containers.exec_start(request.name(), start).await {
        Ok(handle) => handle,
        Err(error) if detach || comes_before_the_stream(&error) => return Err(error.into()),
        Err(error) => return Ok(tell_in_stream(head, tty, &ApiError::from(error).message)),
    };
    if detach {
        return Ok(answer::status(StatusCode::OK).into());
    }
    let session = Session {
        stream: handle.stream,
        logs: None,
        frames: Reframe::exec(handle.tty, tty),
        keys: handle.tty.then_some(handle.keys),
        detached: Some(handle.detached),
    };
    Ok(hijack::takeover(head, session))
}

/// No such exec or user, or a container in the wrong state.
fn comes_before_the_stream(error: &Error) -> bool {
    use ExecError::{NotFound, User};
    matches!(error, Error::Exec(NotFound { .. } | User { .. }) | Error::Container(_))
}

fn tell_in_stream(head: Vec<u8>, tty: bool, message: &str) -> Answer {
    let text = format!("{message}\r\n").into_bytes();
    let bytes = if tty { text } else { frame(StreamKind::Stdout, &text) };
    Answer::Takeover(Takeover {
        head,
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
