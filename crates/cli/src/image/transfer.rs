//! Images coming and going: pull, push, load, save, import.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use bytes::Bytes;
use client::{Body, Request, Response};
use spec::Reference;

use super::platform_json;
use crate::account::registry_auth;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::files::open_error;
use crate::progress::Meter;
use crate::terminal::{Sink, Stdin};
use crate::{output, progress, terminal};

/// Large pieces cost fewer wake-ups; the daemon reads as it can.
const PIECE: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct PullOptions {
    pub platform: String,
    pub quiet: bool,
    pub to_stderr: bool,
}

/// `docker pull`.
pub(crate) async fn pull(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    let reference = parse(name)?;
    let tagged = reference.tag.is_some() || reference.digest.is_some();
    let quiet = flags.bool("quiet");
    if flags.bool("all-tags") {
        if tagged {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        let request = Request::post("/images/create")
            .query("fromImage", &reference.full_name())
            .query_if(!flags.text("platform").is_empty(), "platform", flags.text("platform"))
            .header("x-registry-auth", registry_auth(app, &reference.domain));
        follow(app.client.send(request).await?, quiet, Sink::Stdout).await?;
        output::print_line(&reference.full_name())?;
        return Ok(0);
    }
    if !tagged && !quiet {
        output::print_line("Using default tag: latest")?;
    }
    let options =
        PullOptions { platform: flags.text("platform").to_owned(), quiet, to_stderr: false };
    pull_reference(app, name, &options).await?;
    output::print_line(&reference.or_latest().to_string())?;
    Ok(0)
}

/// Pulls one image; the daemon's error is the failure.
pub(crate) async fn pull_reference(app: &App, name: &str, options: &PullOptions) -> Outcome<()> {
    let reference = parse(name)?.or_latest();
    let digest = reference.digest.as_ref().map(ToString::to_string);
    let tag = digest.as_deref().or(reference.tag.as_deref()).unwrap_or_default();
    let request = Request::post("/images/create")
        .query("fromImage", &reference.full_name())
        .query_if(!options.platform.is_empty(), "platform", &options.platform)
        .query("tag", tag)
        .header("x-registry-auth", registry_auth(app, &reference.domain));
    let response = app.client.send(request).await?;
    let sink = if options.to_stderr { Sink::Stderr } else { Sink::Stdout };
    follow(response, options.quiet, sink).await
}

async fn follow(response: Response, quiet: bool, sink: Sink) -> Outcome<()> {
    if quiet { progress::drain(response).await } else { progress::show(response, sink).await }
}

fn parse(name: &str) -> Outcome<Reference> {
    Reference::parse(name).map_err(|error| Failure::new(error.to_string()))
}

/// `docker push`.
pub(crate) async fn push(app: &App, flags: &Parsed) -> Outcome {
    let reference = parse(&flags.args[0])?;
    let (all, quiet) = (flags.bool("all-tags"), flags.bool("quiet"));
    if all && reference.tag.is_some() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let reference = if all { reference } else { reference.or_latest() };
    if !quiet && !all && !flags.args[0].ends_with(reference.tag.as_deref().unwrap_or_default()) {
        output::print_line("Using default tag: latest")?;
    }
    let path = format!("/images/{}/push", Request::segment(&reference.full_name()));
    let mut request = Request::post(path)
        .query_if(!all, "tag", reference.tag.as_deref().unwrap_or_default())
        .header("x-registry-auth", registry_auth(app, &reference.domain));
    if let Some(platform) = flags.given("platform") {
        request = request.query("platform", &platform_json(platform)?);
    }
    follow(app.client.send(request).await?, quiet, Sink::Stdout).await?;
    if quiet {
        output::print_line(&reference.to_string())?;
    }
    Ok(0)
}

/// `docker load`.
pub(crate) async fn load(app: &App, flags: &Parsed) -> Outcome {
    let body = match flags.text("input") {
        "" if terminal::stdin_is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        // The daemon tells of each layer.
        "" => stdin_body(Meter::new("", 0, true)),
        path => file_body(path, "", true)?,
    };
    let quiet = flags.bool("quiet") || !terminal::stdout_is_terminal();
    let mut request = Request::post("/images/load").query("quiet", if quiet { "1" } else { "0" });
    for platform in flags.list("platform") {
        request = request.query("platform", &platform_json(platform)?);
    }
    let response = app.client.send(request.body("application/x-tar", body)).await?;
    progress::show(response, Sink::Stdout).await?;
    Ok(0)
}

/// `docker import`; a URL is the daemon's to fetch.
pub(crate) async fn import(app: &App, flags: &Parsed) -> Outcome {
    let source = flags.args[0].as_str();
    let is_url = ["http://", "https://", "ftp://"].iter().any(|scheme| source.starts_with(scheme));
    let mut request = Request::post("/images/create");
    for change in flags.list("change") {
        request = request.query("changes", change);
    }
    request = request.query("fromSrc", if is_url { source } else { "-" });
    request = request
        .query_if(!flags.text("message").is_empty(), "message", flags.text("message"))
        .query_if(!flags.text("platform").is_empty(), "platform", flags.text("platform"));
    if let Some(name) = flags.args.get(1) {
        parse(name)?;
        request = request.query("repo", name);
    }
    let request = match source {
        "-" => request.body("text/plain", stdin_body(Meter::new("Importing", 0, false))),
        _ if is_url => request,
        path => request.body("text/plain", file_body(path, "Importing", false)?),
    };
    progress::show(app.client.send(request).await?, Sink::Stdout).await?;
    Ok(0)
}

/// `docker save`.
pub(crate) async fn save(app: &App, flags: &Parsed) -> Outcome {
    let mut request = Request::get("/images/get");
    for name in &flags.args {
        request = request.query("names", name);
    }
    for platform in flags.list("platform") {
        request = request.query("platform", &platform_json(platform)?);
    }
    let path = flags.text("output");
    if path.is_empty() && terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    download(app, request, path, "save image").await
}

/// Copies an answer to stdout, or to a file that appears only when it is whole.
pub(crate) async fn download(app: &App, request: Request, path: &str, verb: &str) -> Outcome {
    if path.is_empty() {
        let mut response = app.client.send(request).await?;
        while let Some(chunk) = response.chunk().await? {
            output::write(&chunk)?;
        }
        return Ok(0);
    }
    let failed = |error: std::io::Error| {
        Failure::new(format!("failed to {verb}: {}", open_error(path, &error)))
    };
    check_output(path, verb)?;
    let mut response = app.client.send(request).await?;
    let partial = format!("{path}.boxship-{}", std::process::id());
    // Images may hold secrets, so the file is its owner's.
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
    let label = if verb.starts_with("save") { "Saving" } else { "Exporting" };
    let copied = async {
        let mut meter = Meter::new(label, 0, false);
        while let Some(chunk) = response.chunk().await? {
            meter.add(chunk.len());
            file.write_all(&chunk).map_err(failed)?;
        }
        std::fs::rename(&partial, path).map_err(failed)
    };
    let outcome = copied.await;
    if outcome.is_err()
        && let Err(error) = std::fs::remove_file(&partial)
    {
        output::complain(&format!("{partial}: {error}"));
    }
    outcome.map(|()| 0)
}

fn check_output(path: &str, verb: &str) -> Outcome<()> {
    if std::path::Path::new(path).is_dir() {
        return Err(Failure::new(format!("failed to {verb}: cannot write to a directory")));
    }
    let directory = std::path::Path::new(path).parent().filter(|parent| *parent != "");
    match directory {
        Some(directory) if !directory.is_dir() => Err(Failure::new(format!(
            "failed to {verb}: invalid output path: stat {}: no such file or directory",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

/// A body of a local file. Reading one does not block long enough to matter here.
pub(crate) fn file_body(path: &str, label: &'static str, quiet: bool) -> Outcome<Body> {
    let file = File::open(path).map_err(|error| Failure::new(open_error(path, &error)))?;
    let status = file.metadata()?;
    if status.is_dir() {
        return Err(Failure::new(format!("read {path}: is a directory")));
    }
    let state = (file, Meter::new(label, status.len(), quiet));
    Ok(Body::stream(futures_util::stream::try_unfold(state, |(mut file, mut meter)| async {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece)?;
        piece.truncate(count);
        meter.add(count);
        Ok((count > 0).then(|| (Bytes::from(piece), (file, meter))))
    })))
}

/// A body of our stdin.
pub(crate) fn stdin_body(meter: Meter) -> Body {
    Body::stream(futures_util::stream::try_unfold(meter, |mut meter| async {
        let mut piece = vec![0; PIECE];
        let count = Stdin.read(&mut piece).await?;
        piece.truncate(count);
        meter.add(count);
        Ok((count > 0).then(|| (Bytes::from(piece), meter)))
    }))
}
