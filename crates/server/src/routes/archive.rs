//! Files in and out of containers, as tar streams.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::containers::PutOptions;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::images;
use crate::answer::{self, ApiError, Body};
use crate::request::Request;

type Result = std::result::Result<Response<Body>, ApiError>;

fn path(request: &Request) -> String {
    request.query.get("path").unwrap_or_default().to_owned()
}

fn with_stat(
    mut response: Response<Body>,
    stat: &api_types::container::PathStat,
) -> Response<Body> {
    let json = serde_json::to_vec(stat).expect("strings and numbers always serialize");
    let value = HeaderValue::try_from(STANDARD.encode(json)).expect("base64 is ASCII");
    response.headers_mut().insert("X-Docker-Container-Path-Stat", value);
    response
}

pub(super) async fn stat(request: Request) -> Result {
    let stat = request.engine().containers.stat_path(request.name(), &path(&request)).await?;
    Ok(with_stat(answer::status(StatusCode::OK), &stat))
}

pub(super) async fn get(request: Request) -> Result {
    let containers = &request.engine().containers;
    let archive = containers.open_archive(request.name(), &path(&request)).await?;
    let stat = archive.stat.clone();
    Ok(with_stat(images::archive(move |output| archive.write(output)), &stat))
}

pub(super) async fn put(mut request: Request) -> Result {
    let options = PutOptions {
        no_overwrite_dir_non_dir: request.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: request.query.flag("copyUIDGID"),
    };
    let (name, path) = (request.name().to_owned(), path(&request));
    let mut upload = request.upload();
    let rest = upload.rest();
    let containers = request.engine().containers.clone();
    let put = containers.put_archive(&name, &path, options, Box::new(upload)).await;
    // A client that is still sending gets to read the answer.
    if put.is_err() {
        tokio::spawn(rest.drain());
    }
    put?;
    Ok(answer::status(StatusCode::OK))
}
