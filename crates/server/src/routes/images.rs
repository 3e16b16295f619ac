//! Images. Archives go through in pieces: nothing here holds one.

use std::io::{self, BufWriter};

use api_types::image::{ErrorDetail, Progress};
use bytes::Bytes;
use engine::images::{ImportRequest, ListOptions, ProgressSink, RemoveOptions};
use futures_util::{StreamExt, stream};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::legacy;
use crate::answer::{self, ApiError, Body};
use crate::request::Request;
use crate::upload::{self, Rest, from_channel};

type Result<T = Response<Body>> = std::result::Result<T, ApiError>;

const SAVE_BUFFER: usize = 256 << 10;

pub(super) async fn list(request: Request) -> Result {
    let query = &request.query;
    let mut filters = query.filters()?;
    if !request.version.has(41) {
        // The reference to look for had a parameter of its own.
        query.text("filter").into_iter().for_each(|name| filters.add("reference", name));
    }
    let options = ListOptions {
        all: query.flag("all"),
        filters,
        shared_size: request.version.has(42) && query.flag("shared-size"),
        count_containers: request.version.has(51),
    };
    let images = request.engine().images.list(options).await?;
    Ok(legacy::image_list_response(images, request.version))
}

pub(super) async fn inspect(request: Request) -> Result {
    check_platform(&request)?;
    let inspect = request.engine().images.inspect(request.name()).await?;
    Ok(legacy::image_inspect_response(inspect, request.version))
}

fn check_platform(request: &Request) -> std::result::Result<(), ApiError> {
    match request.query.text("platform") {
        Some(platform) => Ok(request.engine().images.check_platform(request.name(), platform)?),
        None => Ok(()),
    }
}

pub(super) async fn history(request: Request) -> Result {
    check_platform(&request)?;
    Ok(answer::json(&request.engine().images.history(request.name()).await?))
}

pub(super) async fn tag(request: Request) -> Result {
    let (repository, tag) = (request.query.get("repo"), request.query.get("tag"));
    let images = &request.engine().images;
    images.tag(request.name(), repository.unwrap_or_default(), tag.unwrap_or_default()).await?;
    Ok(answer::status(StatusCode::CREATED))
}

pub(super) async fn remove(request: Request) -> Result {
    refuse(&request, &["platforms"])?;
    let options = RemoveOptions {
        force: request.query.flag("force"),
        no_prune: request.query.flag("noprune"),
    };
    Ok(answer::json(&request.engine().images.remove(request.name(), options).await?))
}

pub(super) async fn prune(request: Request) -> Result {
    let filters = request.query.filters()?;
    Ok(answer::json(&request.engine().images.prune(filters).await?))
}

/// A parameter that would change the answer is not ignored. (`manifests` would not: dockerd, with
/// a store like ours, has none to show either.)
fn refuse(request: &Request, parameters: &[&str]) -> Result<()> {
    let given = |name: &&&str| request.query.text(name).is_some_and(|value| value != "0");
    match parameters.iter().find(given) {
        Some(name) => {
            Err(ApiError::not_supported(&format!("the parameter {name:?} of this request")))
        }
        None => Ok(()),
    }
}

/// dockerd answers 200 and tells a failure in the body, even the first.
pub(super) async fn load(mut request: Request) -> Result {
    refuse(&request, &["platform"])?;
    let quiet = request.query.flag("quiet");
    let mut upload = request.upload();
    let rest = upload.rest();
    let images = request.engine().images.clone();
    let report = report(quiet, Some(rest), |progress| async move {
        images.load(Box::new(upload), progress).await.map(drop)
    });
    let lines =
        from_channel(report).map(|line| Ok(line.unwrap_or_else(|error| error_line(&error))));
    Ok(answer::stream(answer::JSON, lines))
}

/// `docker pull` and `docker import`. A failure before the first line is the answer's status.
pub(super) async fn create(mut request: Request) -> Result {
    let query = &request.query;
    if query.text("fromImage").is_some() {
        return Err(ApiError::not_supported("pulling an image"));
    }
    match query.get("fromSrc") {
        Some("-") => {}
        Some(_) => return Err(ApiError::not_supported("importing an image from a URL")),
        None => return Err(ApiError::bad_request("fromImage or fromSrc must be given")),
    }
    let text = |key: &str| query.get(key).unwrap_or_default().to_owned();
    let import = ImportRequest {
        repository: text("repo"),
        tag: text("tag"),
        message: text("message"),
        changes: query.all("changes").map(str::to_owned).collect(),
        platform: query.text("platform").map(str::to_owned),
    };
    let mut upload = request.upload();
    let rest = upload.rest();
    let images = request.engine().images.clone();
    let mut report = report(false, Some(rest), |progress| async move {
        images.import(import, Box::new(upload), progress).await.map(drop)
    });
    let first = report.recv().await.transpose()?;
    let rest = from_channel(report);
    let rest = rest.map(|line| line.unwrap_or_else(|error| error_line(&error)));
    let lines = stream::iter(first).chain(rest).map(Ok);
    Ok(answer::stream(answer::JSON, lines))
}

/// Runs a long operation beside the connection. Its progress comes out as lines; a client that
/// does not read them holds it back, one that left does not.
fn report<F>(
    quiet: bool,
    rest: Option<Rest>,
    operation: impl FnOnce(ProgressSink) -> F + Send + 'static,
) -> mpsc::Receiver<Result<Bytes>>
where
    F: Future<Output = engine::Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(16);
    let lines = sender.clone();
    let sink: ProgressSink = Box::new(move |progress: Progress| {
        if !quiet || progress.stream.is_some() {
            // An error means that the client is gone; the work is finished all the same.
            drop(lines.blocking_send(Ok(progress_line(&progress))));
        }
    });
    // Ends with the operation, which ends when its input does.
    tokio::spawn(async move {
        if let Err(error) = operation(sink).await {
            drop(sender.send(Err(error.into())).await);
        }
        if let Some(rest) = rest {
            rest.drain().await;
        }
    });
    receiver
}

fn progress_line(progress: &Progress) -> Bytes {
    let mut line = serde_json::to_vec(progress).expect("API types have string keys only");
    line.extend_from_slice(b"\r\n");
    line.into()
}

fn error_line(error: &ApiError) -> Bytes {
    progress_line(&Progress {
        error: Some(error.message.clone()),
        error_detail: Some(ErrorDetail { code: None, message: error.message.clone() }),
        ..Progress::default()
    })
}

pub(super) async fn save(request: Request) -> Result {
    let names = vec![request.name().to_owned()];
    send_archive(&request, names).await
}

pub(super) async fn save_all(request: Request) -> Result {
    let names = request.query.all("names").map(str::to_owned).collect();
    send_archive(&request, names).await
}

async fn send_archive(request: &Request, names: Vec<String>) -> Result {
    let images = request.engine().images.clone();
    images.check_save(&names, request.query.text("platform")).await?;
    Ok(archive(move |output| async move { images.save(names, output).await }))
}

/// Answers with the tar that `write` makes on a blocking thread.
pub(super) fn archive<F>(write: impl FnOnce(Box<dyn io::Write + Send>) -> F) -> Response<Body>
where
    F: Future<Output = engine::Result<()>> + Send + 'static,
{
    let (output, chunks) = upload::download();
    let failure = output.failure();
    let written = write(Box::new(BufWriter::with_capacity(SAVE_BUFFER, output)));
    // Ends when the archive does, or with the first write after the client left.
    tokio::spawn(async move {
        if let Err(error) = written.await {
            tracing::debug!(%error, "an archive was not sent to its end");
            drop(failure.send(Err(io::Error::other(error))).await);
        }
    });
    answer::stream(answer::TAR, chunks)
}
