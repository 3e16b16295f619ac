//! `docker cp`: files between a container and here, as tar streams.
//!
//! What is copied where follows `cp -a`: into a directory that exists, or to a new name beside it;
//! `dir/.` means the contents. An archive from a container is not trusted: it is unpacked by
//! `unpack_in`, which leaves the directory for no name or link, and a new name is given by a rename
//! of what was unpacked into a directory of our own. A crash leaves that directory
//! (`.boxship-cp-PID`) behind, in the destination's parent.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use client::{Body, Method, Request, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::app::{App, container_path};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::stdin_body;
use crate::options::files::{absolute_path, errno_text};
use crate::output;
use crate::progress::Meter;

/// Pieces on their way between the archive's thread and the connection.
const IN_FLIGHT: usize = 8;
const PIECE: usize = 128 * 1024;

/// Go's bits for directories and symbolic links in `os.FileMode`.
const MODE_DIRECTORY: u32 = 1 << 31;
const MODE_SYMLINK: u32 = 1 << 27;

/// What the daemon says about a path in a container (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PathStat {
    mode: u32,
    link_target: String,
}

impl PathStat {
    fn is_directory(&self) -> bool {
        self.mode & MODE_DIRECTORY != 0
    }

    fn is_symlink(&self) -> bool {
        self.mode & MODE_SYMLINK != 0
    }
}

/// `CONTAINER:PATH`, or a path here: absolute, starting with a dot, or without a colon.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((container, path))
            if !argument.starts_with('/')
                && !container.starts_with('.')
                && !container.is_empty() =>
        {
            (Some(container), path)
        }
        _ => (None, argument),
    }
}

/// `docker cp`.
pub(crate) async fn cp(app: &App, flags: &Parsed) -> Outcome {
    let [source, target] = flags.args.as_slice() else {
        unreachable!("the table requires two arguments")
    };
    for (argument, what) in [(source, "source"), (target, "destination")] {
        if argument.is_empty() {
            return Err(Failure::new(format!("{what} can not be empty")));
        }
    }
    match (split(source), split(target)) {
        ((None, _), (None, _)) => Err(Failure::new("must specify at least one container source")),
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        ((Some(container), path), (None, target)) => {
            from_container(app, flags, container, path, target).await
        }
        ((None, source), (Some(container), path)) => {
            to_container(app, flags, source, container, path).await
        }
    }
}

fn archive(method: Method, container: &str, path: &str) -> Request {
    Request::new(method, container_path(container, "/archive")).query("path", path)
}

/// Asks about a path; `None` when it is not there.
async fn stat(app: &App, container: &str, path: &str) -> Outcome<Option<PathStat>> {
    match app.client.send(archive(Method::HEAD, container, path)).await {
        Ok(response) => Ok(Some(path_stat(&response)?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn path_stat(response: &Response) -> Outcome<PathStat> {
    let header = response.header("x-docker-container-path-stat").unwrap_or_default();
    let invalid = || Failure::new("unable to decode container path stat header".to_owned());
    let json = client::decode_base64(header).ok_or_else(invalid)?;
    serde_json::from_slice(&json).map_err(|_malformed| invalid())
}

/// A link's target, seen from the directory of the link.
fn follow(link: &str, target: &str) -> String {
    match target.starts_with('/') {
        true => target.to_owned(),
        false => Path::new(link)
            .parent()
            .unwrap_or_else(|| Path::new("/"))
            .join(target)
            .display()
            .to_string(),
    }
}

async fn from_container(
    app: &App,
    flags: &Parsed,
    container: &str,
    path: &str,
    target: &str,
) -> Outcome {
    let mut path = path.to_owned();
    let base = base_name(&path);
    if flags.bool("follow-link")
        && let Some(stat) = stat(app, container, &path).await?
        && stat.is_symlink()
    {
        path = follow(&path, &stat.link_target);
    }
    let mut response = app.client.send(archive(Method::GET, container, &path)).await?;
    if target == "-" {
        while let Some(chunk) = response.chunk().await? {
            output::write(&chunk)?;
        }
        return Ok(0);
    }
    let source = Source { base, is_directory: path_stat(&response)?.is_directory() };
    let mut place = Place::here(target, &source)?;
    // What a link led to has its own name in the archive, and is to have that of the link.
    place.base = base_name(&path);
    if place.name.is_none() && place.base != source.base {
        place.name = Some(source.base);
    }
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let keep_owners = flags.bool("archive");
    let unpacking =
        tokio::task::spawn_blocking(move || place.unpack(Receiver::new(receiver), keep_owners));
    let mut meter = Meter::new("Copying from container", 0, flags.bool("quiet"));
    let copied = meter.count();
    while let Some(chunk) = response.chunk().await? {
        meter.add(chunk.len());
        // The other side closes early only when it failed, and then it says why.
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop((sender, meter));
    unpacking.await.map_err(|error| Failure::new(error.to_string()))??;
    report(flags, &copied, &absolute_path(target));
    Ok(0)
}

async fn to_container(
    app: &App,
    flags: &Parsed,
    source: &str,
    container: &str,
    path: &str,
) -> Outcome {
    let mut path = path.to_owned();
    let mut there = stat(app, container, &path).await?;
    if let Some(link) = there.as_ref().filter(|stat| stat.is_symlink()) {
        path = follow(&path, &link.link_target);
        there = stat(app, container, &path).await?;
    }
    let is_directory = there.as_ref().is_some_and(PathStat::is_directory);
    let meter = Meter::new("Copying to container", 0, flags.bool("quiet"));
    let copied = meter.count();
    let (directory, body) = if source == "-" {
        if !is_directory {
            return Err(Failure::new(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        (path.clone(), stdin_body(meter))
    } else {
        let local = Local::look(source, flags.bool("follow-link"))?;
        let place = place_there(&path, there.is_some(), is_directory, &local.source)?;
        (place.directory, local.archive(place.name, meter))
    };
    let request = Request::new(Method::PUT, container_path(container, "/archive"))
        .query_if(flags.bool("archive"), "copyUIDGID", "true")
        .query("noOverwriteDirNonDir", "true")
        .query("path", &directory)
        .body("application/x-tar", body);
    app.client.call(request).await?;
    report(flags, &copied, &format!("{container}:{path}"));
    Ok(0)
}

/// Docker says so on a terminal only.
fn report(flags: &Parsed, copied: &AtomicU64, target: &str) {
    let bytes = copied.load(Ordering::Relaxed);
    if !flags.bool("quiet") && rustix::termios::isatty(rustix::stdio::stderr()) {
        let size = if bytes > 0 {
            format!("{} ", spec::size::human_3(bytes as f64))
        } else {
            String::new()
        };
        output::complain(&format!("Successfully copied {size}to {target}"));
    }
}

/// What is copied: the name its entries have in the archive, and what it is.
#[derive(Debug)]
struct Source {
    base: String,
    is_directory: bool,
}

/// The last part of a path; `.` for `dir/.` and `/`, whose contents are meant.
fn base_name(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.is_empty() { ".".to_owned() } else { name.to_owned() }
}

/// Where entries go: below `directory`, the outermost under `name` when that differs.
#[derive(Debug)]
struct Place {
    directory: String,
    name: Option<String>,
}

/// The rules of `cp`, for a target that exists or not.
fn place(target: &str, exists: bool, is_directory: bool, source: &Source) -> Outcome<Place> {
    if exists && is_directory {
        return Ok(Place { directory: target.to_owned(), name: None });
    }
    if exists && source.is_directory {
        return Err(Failure::new("cannot copy directory"));
    }
    if target.ends_with('/') && !source.is_directory {
        return Err(Failure::new("no such directory"));
    }
    let trimmed = target.trim_end_matches('/');
    let (directory, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", trimmed),
    };
    Ok(Place { directory: directory.to_owned(), name: Some(name.to_owned()) })
}

fn place_there(path: &str, exists: bool, is_directory: bool, source: &Source) -> Outcome<Place> {
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    place(&absolute, exists, is_directory, source)
}

impl Place {
    /// Where a copy from a container goes.
    fn here(target: &str, source: &Source) -> Outcome<Unpacked> {
        let (exists, is_directory) = match std::fs::metadata(target) {
            Ok(metadata) => (true, metadata.is_dir()),
            Err(_absent) => (false, false),
        };
        let place = place(target, exists, is_directory, source)?;
        let directory = PathBuf::from(&place.directory);
        if !directory.is_dir() {
            return Err(Failure::new(format!(
                "invalid output path: directory \"{}\" does not exist",
                absolute_path(&place.directory)
            )));
        }
        Ok(Unpacked { directory, name: place.name, base: source.base.clone() })
    }
}

/// A place on our own disk.
#[derive(Debug)]
struct Unpacked {
    directory: PathBuf,
    name: Option<String>,
    base: String,
}

impl Unpacked {
    fn unpack(&self, archive: Receiver, keep_owners: bool) -> Outcome<()> {
        let failed = |error: io::Error| Failure::new(errno_text(&error));
        let Some(name) = &self.name else {
            return unpack(archive, &self.directory, keep_owners).map_err(failed);
        };
        let own = self.directory.join(format!(".boxship-cp-{}", std::process::id()));
        std::fs::create_dir(&own).map_err(failed)?;
        let unpacked = unpack(archive, &own, keep_owners).and_then(|()| self.rename(&own, name));
        if self.base != "." || unpacked.is_err() {
            std::fs::remove_dir_all(&own).map_err(failed)?;
        }
        unpacked.map_err(failed)
    }

    /// Contents (`.`) become the new directory itself; anything else is inside under its base name.
    fn rename(&self, own: &Path, name: &str) -> io::Result<()> {
        let from = if self.base == "." { own.to_owned() } else { own.join(&self.base) };
        std::fs::rename(from, self.directory.join(name))
    }
}

fn unpack(archive: Receiver, directory: &Path, keep_owners: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(keep_owners);
    archive.unpack(directory)
}

/// Something here that is to be copied.
#[derive(Debug)]
struct Local {
    path: PathBuf,
    source: Source,
    follow: bool,
}

impl Local {
    fn look(path: &str, follow: bool) -> Outcome<Self> {
        let failed = |error: io::Error| {
            let path = absolute_path(path);
            Failure::new(format!("lstat {path}: {}", errno_text(&error)))
        };
        // A trailing slash or dot looks through a link, as with lstat(2).
        let metadata = match follow || path.ends_with('/') {
            true => std::fs::metadata(path),
            false => std::fs::symlink_metadata(path),
        };
        let source =
            Source { base: base_name(path), is_directory: metadata.map_err(failed)?.is_dir() };
        Ok(Self { path: PathBuf::from(path), source, follow })
    }

    /// Archives on a thread while the pieces are sent.
    fn archive(self, name: Option<String>, meter: Meter) -> Body {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::task::spawn_blocking(move || {
            let errors = sender.clone();
            let name = name.unwrap_or_else(|| self.source.base.clone());
            if let Err(error) = self.write(&name, Sender { sender, piece: Vec::new() }) {
                // Nobody receives any more when the daemon has refused the archive already.
                let _refused_already = errors.blocking_send(Err(error));
            }
        });
        let state = (receiver, meter);
        Body::stream(futures_util::stream::unfold(state, |(mut receiver, mut meter)| async {
            let piece = receiver.recv().await?;
            meter.add(piece.as_ref().map_or(0, Bytes::len));
            Some((piece, (receiver, meter)))
        }))
    }

    fn write(&self, name: &str, sink: Sender) -> io::Result<()> {
        let mut builder = tar::Builder::new(sink);
        builder.follow_symlinks(false);
        if self.source.is_directory {
            builder.append_dir_all(name, &self.path)?;
        } else if self.follow {
            builder.append_path_with_name(std::fs::canonicalize(&self.path)?, name)?;
        } else {
            builder.append_path_with_name(&self.path, name)?;
        }
        builder.into_inner()?.flush()
    }
}

/// The archive's end of a channel to the connection.
struct Sender {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_closed| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// The archive's end of a channel from the connection.
#[derive(Debug)]
struct Receiver {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Receiver {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self { receiver, piece: Bytes::new() }
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_before_a_colon() {
        assert_eq!(split("c:/x"), (Some("c"), "/x"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("a"), (None, "a"));
    }

    #[test]
    fn targets_follow_cp() {
        let file = Source { base: "f".to_owned(), is_directory: false };
        let directory = Source { base: "d".to_owned(), is_directory: true };
        let check = |target: &str, exists, is_directory, source: &Source, expect: &str| {
            let got = match place(target, exists, is_directory, source) {
                Ok(place) => format!("{} {:?}", place.directory, place.name),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(got, expect, "{target}");
        };
        check("/t", true, true, &file, "/t None");
        check("/t/x", true, false, &file, "/t Some(\"x\")");
        check("x", false, false, &directory, ". Some(\"x\")");
        check("/x", false, false, &directory, "/ Some(\"x\")");
        check("/t/x/", false, false, &file, "no such directory");
        check("/t/x", true, false, &directory, "cannot copy directory");
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/a/."), ".");
        assert_eq!(base_name("/"), ".");
    }
}
