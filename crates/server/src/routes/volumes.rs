//! Volumes.

use api_types::volume::CreateRequest;
use engine::errors::VolumeError;
use hyper::{Response, StatusCode};

use crate::answer::{self, ApiError, Body};
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

pub(super) async fn list(request: Request) -> Result {
    let filters = request.query.filters()?;
    Ok(answer::json(&request.engine().volumes.list(&filters).await?))
}

pub(super) async fn create(mut request: Request) -> Result {
    let create: CreateRequest = request.json_or_default().await?;
    let made = request.engine().volumes.create(create).await?;
    Ok(answer::json_with(StatusCode::CREATED, &made))
}

pub(super) async fn inspect(request: Request) -> Result {
    Ok(answer::json(&request.engine().volumes.inspect(request.name()).await?))
}

/// Cluster volumes need a swarm.
pub(super) async fn update(_request: Request) -> Result {
    Err(engine::Error::from(VolumeError::Update).into())
}

pub(super) async fn remove(request: Request) -> Result {
    let force = request.query.flag("force");
    request.engine().volumes.remove(request.name(), force).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

/// Older clients mean all volumes, since 1.42 the anonymous ones are meant.
pub(super) async fn prune(request: Request) -> Result {
    let (filters, all) = (request.query.filters()?, !request.version.has(42));
    Ok(answer::json(&request.engine().volumes.prune(filters, all).await?))
}
