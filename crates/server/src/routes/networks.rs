//! Networks: made, shown, joined, left, removed.

use api_types::network::{ConnectRequest, CreateRequest, DisconnectRequest};
use hyper::{Response, StatusCode};

use crate::answer::{self, ApiError, Body};
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

pub(super) async fn list(request: Request) -> Result {
    let filters = request.query.filters()?;
    Ok(answer::json(&request.engine().networks.list(&filters)?))
}

pub(super) async fn inspect(request: Request) -> Result {
    Ok(answer::json(&request.engine().networks.inspect(request.name())?))
}

pub(super) async fn create(mut request: Request) -> Result {
    let create: CreateRequest = request.json_or_default().await?;
    let created = request.engine().networks.create(create).await?;
    Ok(answer::json_with(StatusCode::CREATED, &created))
}

pub(super) async fn remove(request: Request) -> Result {
    request.engine().networks.remove(request.name()).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}

pub(super) async fn connect(mut request: Request) -> Result {
    let connect: ConnectRequest = request.json_or_default().await?;
    let settings = connect.endpoint_config.unwrap_or_default();
    let containers = &request.engine().containers;
    containers.join_network(request.name(), &connect.container, settings).await?;
    Ok(answer::status(StatusCode::OK))
}

pub(super) async fn disconnect(mut request: Request) -> Result {
    let disconnect: DisconnectRequest = request.json_or_default().await?;
    let containers = &request.engine().containers;
    containers.leave_network(request.name(), &disconnect.container).await?;
    Ok(answer::status(StatusCode::OK))
}

pub(super) async fn prune(request: Request) -> Result {
    let filters = request.query.filters()?;
    Ok(answer::json(&request.engine().networks.prune(&filters).await?))
}
