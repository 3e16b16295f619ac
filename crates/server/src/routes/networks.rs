//! Networks: the three that every daemon has; making others is refused by the engine.

use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateRequest {
    name: String,
    driver: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateResponse {
    id: String,
    warning: String,
}

pub(super) async fn create(mut request: Request) -> Result {
    let create: CreateRequest = request.json_or_default().await?;
    let id = request.engine().networks.create(&create.name, &create.driver)?;
    let response = CreateResponse { id, warning: String::new() };
    Ok(answer::json_with(StatusCode::CREATED, &response))
}

pub(super) async fn remove(request: Request) -> Result {
    request.engine().networks.remove(request.name())?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}
