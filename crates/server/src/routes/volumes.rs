//! Volumes, of which there are only anonymous ones yet. `docker inspect` asks here for every name
//! that nothing else has, and wants to hear that it is not found.

use hyper::{Response, StatusCode};

use crate::answer::{ApiError, Body};
use crate::request::Request;

pub(super) async fn inspect(request: Request) -> Result<Response<Body>, ApiError> {
    let name = request.name();
    Err(ApiError::new(StatusCode::NOT_FOUND, format!("get {name}: no such volume")))
}
