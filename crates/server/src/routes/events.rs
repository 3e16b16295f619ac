//! `GET /events`: what happened, then what happens, until the client leaves.

use std::time::SystemTime;

use futures_util::stream;
use hyper::Response;

use crate::answer::{self, ApiError, Body};
use crate::request::Request;

pub(super) async fn events(request: Request) -> Result<Response<Body>, ApiError> {
    let now = SystemTime::now();
    let time = |key: &str| match request.query.text(key) {
        None => Ok(None),
        Some(text) => spec::time::parse_since(text, now)
            .map(Some)
            .map_err(|error| ApiError::bad_request(format!("invalid value for {key:?}: {error}"))),
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let (since, until) = (request.query.get("since"), request.query.get("until"));
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            since.unwrap_or_default(),
            until.unwrap_or_default()
        )));
    }
    let subscription = request.engine().events.subscribe(request.query.filters()?, since, until)?;
    let lines = stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((Ok(answer::json_line(&*event)), subscription))
    });
    Ok(answer::stream(answer::JSON, lines))
}
