//! Creating a container, and getting its image first when it is missing.

use std::fs::{File, OpenOptions};
use std::io::Write;

use api_types::container::{CreateRequest, CreateResponse};
use client::Request;
use spec::Reference;

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::parse_platform;
use crate::{image, output};

pub(super) fn check_pull_policy(flags: &Parsed) -> Result<(), String> {
    match flags.text("pull") {
        "always" | "missing" | "never" | "" => Ok(()),
        other => Err(format!(
            "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
        )),
    }
}

/// Creates the container and returns its id; warnings go to stderr.
pub(super) async fn create_container(
    app: &App,
    flags: &Parsed,
    request: &CreateRequest,
) -> Outcome<String> {
    let cid_file = CidFile::open(flags.text("cidfile"))?;
    let image = &request.config.image;
    check_reference(image)?;
    if let Some(platform) = flags.given("platform").filter(|platform| !platform.is_empty()) {
        parse_platform(platform)
            .map_err(|reason| format!("error parsing specified platform: {reason}"))?;
    }
    if flags.text("pull") == "always" {
        pull(app, flags, image).await?;
    }
    let created = match try_create(app, flags, request).await {
        // Also when the image is there for other platforms only.
        Err(Failure::Client(error))
            if error.is_not_found() && flags.text("pull") != "never" && is_named(image) =>
        {
            if !flags.bool("quiet") {
                output::complain(&format!("Unable to find image '{}' locally", familiar(image)));
            }
            pull(app, flags, image).await?;
            try_create(app, flags, request).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        output::complain(&format!("WARNING: {warning}"));
    }
    cid_file.write(&created.id)?;
    Ok(created.id)
}

/// Names are checked before the daemon is asked; ids are names that only the daemon knows.
fn check_reference(image: &str) -> Outcome<()> {
    match Reference::parse(image) {
        Ok(_) | Err(spec::reference::ReferenceError::HexName) => Ok(()),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// `os[/architecture[/variant]]`; what the parts may be is the daemon's to know.
/// An id cannot be pulled.
fn is_named(image: &str) -> bool {
    Reference::parse(image).is_ok()
}

fn familiar(image: &str) -> String {
    Reference::parse(image)
        .map_or_else(|_not_a_reference| image.to_owned(), |image| image.or_latest().familiar())
}

async fn try_create(app: &App, flags: &Parsed, request: &CreateRequest) -> Outcome<CreateResponse> {
    let (name, platform) = (flags.text("name"), flags.text("platform"));
    let create = Request::post("/containers/create")
        .query_if(!name.is_empty(), "name", name)
        .query_if(!platform.is_empty(), "platform", platform);
    Ok(app.client.post(create, request).await?)
}

async fn pull(app: &App, flags: &Parsed, image: &str) -> Outcome<()> {
    let options = image::PullOptions {
        platform: flags.text("platform").to_owned(),
        quiet: flags.bool("quiet"),
        // `run -d` and `create` print the id on stdout, so progress goes to stderr.
        to_stderr: true,
    };
    image::pull_reference(app, image, &options).await
}

/// `--cidfile`: must not exist, and disappears again when there is no container.
struct CidFile {
    file: Option<(File, String)>,
    written: bool,
}

impl CidFile {
    fn open(path: &str) -> Outcome<Self> {
        if path.is_empty() {
            return Ok(Self { file: None, written: true });
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                Failure::new(format!(
                    "container ID file found, make sure the other container isn't running or \
                     delete {path}"
                ))
            } else {
                let reason = crate::options::files::open_error(path, &error);
                Failure::new(format!("failed to create the container ID file: {reason}"))
            }
        })?;
        Ok(Self { file: Some((file, path.to_owned())), written: false })
    }

    fn write(mut self, id: &str) -> Outcome<()> {
        if let Some((file, path)) = &mut self.file {
            file.write_all(id.as_bytes()).map_err(|error| {
                Failure::new(format!("failed to write the container ID ({path}): {error}"))
            })?;
        }
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if let (false, Some((_, path))) = (self.written, &self.file)
            && let Err(error) = std::fs::remove_file(path)
        {
            output::complain(&format!("failed to remove the CID file '{path}': {error}"));
        }
    }
}
