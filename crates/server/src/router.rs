//! From a request to its route: version, path, checks that hold for every route, and the headers
//! that every answer carries. The routes themselves are the table in [`crate::routes`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, LOCATION, SERVER};
use hyper::{Method, Response, StatusCode, Version};

use crate::answer::{self, Answer, ApiError, Body};
use crate::connection::{App, Client};
use crate::origin;
use crate::query::{self, Query};
use crate::request::Request;
use crate::routes::{self, Action, Route};
use crate::version::{self, ApiVersion};

/// What every handler works with.
#[derive(Debug)]
pub struct Api {
    pub engine: engine::Engine,
}

/// Serves the table of routes.
#[derive(Debug, Clone)]
pub(crate) struct Router(Arc<Api>);

impl Router {
    pub(crate) fn new(api: Api) -> Self {
        Self(Arc::new(api))
    }
}

/// What is known of a request before its handler runs.
struct Routed {
    route: &'static Route,
    version: ApiVersion,
    captures: Vec<String>,
}

/// Why there is no handler to run.
enum Unrouted {
    Error(ApiError, ApiVersion),
    /// Go's router sends untidy paths to their clean form.
    Moved(String),
    Preflight,
}

impl App for Router {
    fn call(
        &self,
        request: hyper::Request<Incoming>,
        client: &Client,
    ) -> BoxFuture<'static, Answer> {
        let (head, body) = request.into_parts();
        tracing::debug!(method = %head.method, uri = %head.uri, "request");
        let routed = check_head(&head, client)
            .map_err(|error| Unrouted::Error(error, version::MAXIMUM))
            .and_then(|()| route(&head.method, head.uri.path()));
        let routed = match routed {
            Ok(routed) => routed,
            Err(unrouted) => return Box::pin(async { finish(unrouted.into_response()).into() }),
        };
        let Routed { route, version, captures } = routed;
        let query = match Query::parse(head.uri.query().unwrap_or_default()) {
            Ok(query) => query,
            Err(error) => {
                let response = ApiError::from(error).into_response(version);
                return Box::pin(async { finish(response).into() });
            }
        };
        let request = Request {
            api: Arc::clone(&self.0),
            version,
            query,
            headers: head.headers,
            is_head: head.method == Method::HEAD,
            captures,
            body: Some(body),
        };
        Box::pin(async move {
            match run(route, request).await {
                Ok(Answer::Http(response)) => finish(response).into(),
                Ok(takeover) => takeover,
                Err(error) => finish(error.into_response(version)).into(),
            }
        })
    }
}

/// Runs a route's action. What changes something is finished even if the client leaves.
async fn run(route: &'static Route, request: Request) -> Result<Answer, ApiError> {
    let handler = match route.action {
        Action::Handle(handler) => handler,
        Action::Refuse(thing) => return Err(ApiError::not_supported(thing)),
        Action::NeedsManager => return Err(routes::not_a_manager()),
    };
    let outcome = if route.may_be_dropped {
        AssertUnwindSafe(async move { handler(request).await }).catch_unwind().await.ok()
    } else {
        // The task is owned by nobody on purpose: it ends by itself, as its work does.
        tokio::spawn(async move { handler(request).await }).await.ok()
    };
    outcome.unwrap_or_else(|| {
        // The panic's message and place are on stderr already.
        tracing::error!(method = route.method, path = route.path, "handler panicked");
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error: handler panicked"))
    })
}

/// Refuses what Go's server refuses before routing, and what only a deceived browser sends.
fn check_head(head: &hyper::http::request::Parts, client: &Client) -> Result<(), ApiError> {
    let host = head.headers.get(HOST);
    if head.version == Version::HTTP_11 && host.is_none() {
        return Err(ApiError::bad_request("missing required Host header"));
    }
    if client.listener.reachable_by_browsers {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let host = host.map(text).unwrap_or_default();
        let header = |name| head.headers.get(name).map(text);
        let (origin, site) = (header("origin"), header("sec-fetch-site"));
        let page = origin::is_web_page(&host, origin.as_deref(), site.as_deref());
        origin::check(&host, page, &client.listener.names)
            .map_err(|reason| ApiError::new(StatusCode::FORBIDDEN, reason.to_string()))?;
    }
    Ok(())
}

fn route(method: &Method, raw_path: &str) -> Result<Routed, Unrouted> {
    let newest = version::MAXIMUM;
    let path = query::decode(raw_path)
        .map_err(|error| Unrouted::Error(ApiError::bad_request(error.to_string()), newest))?;
    if let std::borrow::Cow::Owned(clean) = query::clean_path(&path) {
        return Err(Unrouted::Moved(clean));
    }
    if method == Method::OPTIONS {
        return Err(Unrouted::Preflight);
    }
    let not_found = || Unrouted::Error(ApiError::page_not_found(), newest);
    let (asked, version, path) = match version::split_path(&path) {
        Some((asked, version, path)) => (Some(asked), version, path),
        None => (None, newest, path.as_str()),
    };
    let (route, captures) = routes::find(method.as_str(), path).ok_or_else(not_found)?;
    if let Some(asked) = asked {
        version.check(asked).map_err(|error| Unrouted::Error(error.into(), newest))?;
    }
    Ok(Routed { route, version, captures })
}

impl Unrouted {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::Error(error, version) => error.into_response(version),
            Self::Preflight => answer::status(StatusCode::OK),
            Self::Moved(to) => {
                let mut response = answer::status(StatusCode::MOVED_PERMANENTLY);
                let to: String = to.chars().map(escape).collect();
                // What does not fit a header leaves the redirect without a place.
                if let Ok(to) = HeaderValue::from_str(&to) {
                    response.headers_mut().insert(LOCATION, to);
                }
                response
            }
        }
    }
}

/// Only what is plain in a path stays so in the `Location` of a redirect.
fn escape(character: char) -> String {
    if character.is_ascii_alphanumeric() || "/-._~:@!$&'()*+,=".contains(character) {
        return character.to_string();
    }
    let mut bytes = [0; 4];
    character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Adds what every answer says of the daemon.
fn finish(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(API_VERSION));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}

const API_VERSION: &str = "1.51";
const SERVER_NAME: &str = concat!("Boxship/", env!("CARGO_PKG_VERSION"), " (linux)");

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expect: Result<&str, (u16, &str)>) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match (route(&method, path), expect) {
            (Ok(routed), Ok(template)) => assert_eq!(routed.route.path, template),
            (Err(Unrouted::Error(error, _)), Err((status, message))) => {
                assert_eq!((error.status.as_u16(), error.message.as_str()), (status, message));
            }
            (Err(Unrouted::Moved(to)), Err((301, expect))) => assert_eq!(to, expect),
            (Err(Unrouted::Preflight), Err((200, _))) => {}
            _ => panic!("{method} {path} is not {expect:?}"),
        }
    }

    #[test]
    fn the_header_says_the_maximum() {
        assert_eq!(API_VERSION, version::MAXIMUM.to_string());
    }

    #[test]
    fn requests_find_their_route() {
        check("GET", "/v1.44/containers/json", Ok("/containers/json"));
        check("GET", "/containers/json/json", Ok("/containers/{id}/json"));
        check("GET", "/images/json", Ok("/images/json"));
        check("GET", "/images/a/b/c%3Ad/json", Ok("/images/{name}/json"));
        check("GET", "/images/get", Ok("/images/get"));
        check("GET", "/networks/", Ok("/networks/"));
        check("HEAD", "/_ping", Ok("/_ping"));
        check(
            "DELETE",
            "/containers/x/checkpoints/y",
            Ok("/containers/{id}/checkpoints/{checkpoint}"),
        );
        check("OPTIONS", "/anything", Err((200, "")));
    }

    #[test]
    fn what_is_no_route_is_refused_as_dockerd_does() {
        let not_found = Err((404, "page not found"));
        check("GET", "/", not_found);
        check("GET", "/vx/version", not_found);
        check("GET", "/v1.44/nope", not_found);
        check("DELETE", "/version", not_found);
        check("FOO", "/_ping", not_found);
        check("GET", "/containers/json/", not_found);
        check("GET", "//containers/json", Err((301, "/containers/json")));
        check("GET", "/containers/%2e%2e/json", Err((301, "/json")));
        check("GET", "/_ping%zz", Err((400, r#"invalid URL escape "%zz""#)));
        check(
            "GET",
            "/v9.99/version",
            Err((400, "client version 9.99 is too new. Maximum supported API version is 1.51")),
        );
    }
}
