//! The streams of a container: attach, by a hijacked connection or a websocket; logs; statistics.

use std::time::SystemTime;

use engine::containers::{AttachHandle, AttachOptions, LogOptions};
use engine::errors::ContainerError;
use futures_util::StreamExt;
use hyper::Response;
use hyper::header::HeaderValue;

use crate::answer::{self, Answer, ApiError, Body};
use crate::hijack::{self, Session};
use crate::reframe::Reframe;
use crate::request::Request;
use crate::upload::from_channel;
use crate::websocket;

type Result<T = Response<Body>> = std::result::Result<T, ApiError>;

fn attach_options(request: &Request, websocket: bool) -> AttachOptions {
    let query = &request.query;
    // Which streams are wanted could not be said to a websocket before 1.42: all of them.
    let all = websocket && !request.version.has(42);
    let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(|name| all || query.flag(name));
    AttachOptions {
        // A stream of nothing ends at once.
        stream: query.flag("stream") && (stdin || stdout || stderr),
        logs: query.flag("logs"),
        stdin,
        stdout,
        stderr,
        detach_keys: query.text("detachKeys").map(str::to_owned),
    }
}

pub(super) async fn attach(request: Request) -> Result<Answer> {
    let options = attach_options(&request, false);
    let handle = request.engine().containers.attach(request.name(), options).await?;
    let head = hijack::head(&request.headers, request.version, handle.tty);
    let AttachHandle { tty, stream, logs, keys, detached } = handle;
    let session = Session {
        stream,
        logs: logs.map(|logs| logs.chunks),
        frames: Reframe::Keep,
        keys: tty.then_some(keys),
        detached: Some(detached),
    };
    Ok(hijack::takeover(head, session))
}

pub(super) async fn attach_websocket(request: Request) -> Result<Answer> {
    let head = websocket::head(&request.headers)
        .ok_or_else(|| ApiError::bad_request("not websocket protocol"))?;
    let options = attach_options(&request, true);
    let handle = request.engine().containers.attach(request.name(), options).await?;
    Ok(websocket::takeover(head, handle))
}

pub(super) async fn logs(request: Request) -> Result {
    let query = &request.query;
    let now = SystemTime::now();
    let time = |key: &str| match query.text(key) {
        None | Some("0") => Ok(None),
        Some(text) => spec::time::parse_since(text, now)
            .map(Some)
            .map_err(|error| ApiError::bad_request(format!("invalid value for {key:?}: {error}"))),
    };
    let options = LogOptions {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: time("since")?,
        until: if request.version.has(35) { time("until")? } else { None },
        timestamps: query.flag("timestamps"),
        // Anything but a number is all, as in dockerd.
        tail: query.text("tail").and_then(|tail| tail.parse().ok()),
        details: query.flag("details"),
    };
    if !options.stdout && !options.stderr {
        return Err(ContainerError::NoStream.into());
    }
    let logs = request.engine().containers.logs(request.name(), options).await?;
    let content_type = if request.version.has(42) && !logs.tty {
        HeaderValue::from_static(api_types::stream::MULTIPLEXED)
    } else {
        HeaderValue::from_static(api_types::stream::RAW)
    };
    Ok(answer::stream(content_type, from_channel(logs.chunks).map(Ok)))
}

pub(super) async fn stats(request: Request) -> Result {
    let stream = request.query.flag_or("stream", true);
    let one_shot = request.version.has(41) && request.query.flag("one-shot");
    if stream && one_shot {
        return Err(ApiError::bad_request("cannot have stream=true and one-shot=true"));
    }
    let containers = &request.engine().containers;
    let mut samples = containers.stats(request.name(), stream, one_shot).await?;
    if stream {
        let lines = from_channel(samples).map(|sample| Ok(answer::json_line(&sample)));
        return Ok(answer::stream(answer::JSON, lines));
    }
    match samples.recv().await {
        Some(sample) => Ok(answer::json(&sample)),
        None => Err(engine::Error::ShuttingDown.into()),
    }
}
