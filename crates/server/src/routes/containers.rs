//! Containers: everything that answers at once, and waiting.

use api_types::container::WaitResponse;
use engine::containers::{CommitRequest, ListOptions, RemoveOptions, StopOptions, WaitCondition};
use futures_util::FutureExt;
use hyper::{Response, StatusCode};

use super::{images, legacy};
use crate::answer::{self, ApiError, Body};
use crate::json;
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

pub(super) async fn list(request: Request) -> Result {
    let query = &request.query;
    let mut filters = query.filters()?;
    if !request.version.has(24) {
        for name in ["since", "before"] {
            query.text(name).into_iter().for_each(|id| filters.add(name, id));
        }
    }
    let limit = query.integer("limit")?.filter(|limit| *limit > 0);
    let options = ListOptions {
        all: query.flag("all"),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        size: query.flag("size"),
        filters,
    };
    Ok(answer::json_text(request.engine().containers.list_json(options).await?))
}

pub(super) async fn create(mut request: Request) -> Result {
    let mut body = request.json().await?;
    if !request.version.has(18) {
        body = legacy::move_limits_to_host_config(body)?;
    }
    let create = json::decode_create(body)?;
    let mut mounts = create.host_config.mounts.iter().flatten();
    if !request.version.has(48) && mounts.any(|mount| mount.kind == "image") {
        return Err(ApiError::bad_request("Mount type \"Image\" needs API v1.48 or newer"));
    }
    let name = request.query.text("name").map(str::to_owned);
    let platform = request.query.text("platform").filter(|_| request.version.has(41));
    let platform = platform.map(str::to_owned);
    let created = request.engine().containers.create(name, create, platform).await?;
    Ok(answer::json_with(StatusCode::CREATED, &created))
}

/// The root file system as a tar.
pub(super) async fn export(request: Request) -> Result {
    let containers = request.engine().containers.clone();
    let name = request.name().to_owned();
    containers.check_export(&name)?;
    Ok(images::archive(move |output| async move { containers.export(&name, output).await }))
}

pub(super) async fn commit(mut request: Request) -> Result {
    let config = request.json_or_default().await?;
    let query = &request.query;
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let commit = CommitRequest {
        container: text("container"),
        repository: text("repo"),
        tag: text("tag"),
        comment: text("comment"),
        author: text("author"),
        // Clients from before 1.13 did not know that they could ask for it.
        pause: query.flag("pause") || query.get("pause").is_none(),
        changes: query.all("changes").map(str::to_owned).collect(),
        config,
    };
    let made = request.engine().containers.commit(commit).await?;
    Ok(answer::json_with(StatusCode::CREATED, &made))
}

pub(super) async fn inspect(request: Request) -> Result {
    let size = request.query.flag("size");
    let inspect = request.engine().containers.inspect(request.name(), size).await?;
    Ok(legacy::inspect_response(inspect, request.version))
}

pub(super) async fn top(request: Request) -> Result {
    let ps_args = request.query.text("ps_args").unwrap_or("-ef");
    Ok(answer::json(&request.engine().containers.top(request.name(), ps_args).await?))
}

pub(super) async fn changes(request: Request) -> Result {
    let changes = request.engine().containers.changes(request.name()).await?;
    // Go's empty list.
    Ok(answer::json(&Some(changes).filter(|changes| !changes.is_empty())))
}

pub(super) async fn start(mut request: Request) -> Result {
    if request.query.text("checkpoint").is_some() {
        return Err(ApiError::not_supported("starting from a checkpoint"));
    }
    let late = legacy::start_body(&mut request).await?;
    let containers = &request.engine().containers;
    match late {
        None => containers.start(request.name()).await?,
        Some(host_config) => containers.start_with(request.name(), host_config).await?,
    }
    Ok(answer::status(StatusCode::NO_CONTENT))
}

fn stop_options(request: &Request) -> std::result::Result<StopOptions, ApiError> {
    let signal = request.query.text("signal").filter(|_| request.version.has(42));
    Ok(StopOptions { signal: signal.map(str::to_owned), timeout: request.query.integer("t")? })
}

pub(super) async fn stop(request: Request) -> Result {
    let options = stop_options(&request)?;
    request.engine().containers.stop(request.name(), options).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn restart(request: Request) -> Result {
    let options = stop_options(&request)?;
    request.engine().containers.restart(request.name(), options).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn kill(request: Request) -> Result {
    let signal = request.query.text("signal").map(str::to_owned);
    request.engine().containers.kill(request.name(), signal).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn pause(request: Request) -> Result {
    request.engine().containers.pause(request.name()).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn unpause(request: Request) -> Result {
    request.engine().containers.unpause(request.name()).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn rename(request: Request) -> Result {
    let name = request.query.get("name").unwrap_or_default();
    request.engine().containers.rename(request.name(), name).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn update(mut request: Request) -> Result {
    let body = request.optional_json().await?.unwrap_or_default();
    let update = json::decode_update(body)?;
    Ok(answer::json(&request.engine().containers.update(request.name(), update).await?))
}

pub(super) async fn resize(request: Request) -> Result {
    let (height, width) = size(&request)?;
    request.engine().containers.resize(request.name(), height, width).await?;
    Ok(answer::status(StatusCode::OK))
}

/// The size of a terminal, in the query of both resize routes.
pub(super) fn size(request: &Request) -> std::result::Result<(u16, u16), ApiError> {
    let side = |key: &str, name: &str| {
        let text = request.query.get(key).unwrap_or_default();
        text.parse::<u16>().map_err(|error| {
            let reason = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("invalid resize {name} {text:?}: {reason}"))
        })
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

pub(super) async fn remove(request: Request) -> Result {
    let query = &request.query;
    let options = RemoveOptions {
        force: query.flag("force"),
        volumes: query.flag("v"),
        link: query.flag("link"),
    };
    request.engine().containers.remove(request.name(), options).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn prune(request: Request) -> Result {
    let filters = request.query.filters()?;
    Ok(answer::json(&request.engine().containers.prune(filters).await?))
}

/// Since 1.30 the head is sent at once: `docker run` takes it as the sign that its wait is in
/// place before it starts the container.
pub(super) async fn wait(request: Request) -> Result {
    let containers = &request.engine().containers;
    if !request.version.has(30) {
        let wait = containers.wait(request.name(), WaitCondition::NotRunning).await?;
        return Ok(answer::json(&WaitResponse { error: None, ..wait.await }));
    }
    let condition = request.query.get("condition").unwrap_or_default();
    let condition = WaitCondition::parse(condition).map_err(engine::Error::from)?;
    let wait = containers.wait(request.name(), condition).await?;
    let line = wait.map(|response| Ok(answer::json_line(&response)));
    Ok(answer::stream(answer::JSON, line.into_stream()))
}
