//! The daemon about itself; and the little that is true of a swarm where there is none.

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, ApiError, Body};
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

/// Every client's first request. HEAD has `Content-Length: 0`.
pub(super) async fn ping(request: Request) -> Result {
    let body = if request.is_head { Body::Empty } else { Body::Whole("OK".into()) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, answer::TEXT);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 2 would promise BuildKit.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    Ok(response)
}

pub(super) async fn version(request: Request) -> Result {
    Ok(answer::json(&request.engine().system.version()))
}

pub(super) async fn info(request: Request) -> Result {
    Ok(answer::json(&request.engine().system.info()))
}

/// Each type of object and the member that tells of it.
const USAGE: &[(&str, &str)] = &[
    ("image", "Images"),
    ("container", "Containers"),
    ("volume", "Volumes"),
    ("build-cache", "BuildCache"),
];

pub(super) async fn disk_usage(request: Request) -> Result {
    let wanted: Vec<&str> =
        if request.version.has(42) { request.query.all("type").collect() } else { Vec::new() };
    let unknown = |kind: &&&str| !USAGE.iter().any(|(known, _)| known == *kind);
    if let Some(kind) = wanted.iter().find(unknown) {
        return Err(ApiError::bad_request(format!("unknown object type: {kind}")));
    }
    let usage = request.engine().system.disk_usage().await?;
    let mut body = serde_json::to_value(&usage).expect("API types have string keys only");
    for (kind, member) in USAGE {
        if !wanted.is_empty() && !wanted.contains(kind) {
            body[member] = Value::Null;
        }
    }
    Ok(answer::json(&body))
}

/// Ours: verifies the store, and with `repair=1` repairs it; `quick=1` reads no contents.
pub(super) async fn check(request: Request) -> Result {
    let (quick, repair) = (request.query.flag("quick"), request.query.flag("repair"));
    Ok(answer::json(&request.engine().system.check(quick, repair).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Credentials {
    serveraddress: String,
}

pub(super) async fn auth(mut request: Request) -> Result {
    let credentials: Credentials = request.json_or_default().await?;
    request.engine().system.auth(&credentials.serveraddress).await?;
    Ok(answer::json(&json!({"IdentityToken": "", "Status": "Login Succeeded"})))
}

pub(super) async fn leave_swarm(_request: Request) -> Result {
    let message = "This node is not part of a swarm";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
}
