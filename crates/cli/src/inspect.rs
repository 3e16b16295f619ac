//! `inspect`: what the daemon says about a thing, as it says it, or through a template.

use client::{Error, Request};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::platform_json;
use crate::options::parse_platform;
use crate::template::{Template, from_json};
use crate::{json, output};

/// Docker's exit code for a template that does not parse.
const BAD_TEMPLATE: u8 = 64;

/// The kinds of things `docker inspect` looks for, in its order.
const KINDS: &[&str] = &["container", "image", "network", "volume"];

/// Docker's other kinds, which the daemon does not have yet.
const OTHER_KINDS: &[&str] = &["service", "task", "node", "plugin", "secret", "config"];

fn request(kind: &str, name: &str, flags: &Parsed) -> Outcome<Request> {
    let segment = Request::segment(name);
    let size = flags.has("size") && flags.bool("size");
    Ok(match kind {
        "container" => {
            Request::get(format!("/containers/{segment}/json")).query_if(size, "size", "1")
        }
        "image" => {
            let request = Request::get(format!("/images/{segment}/json"));
            match flags.has("platform").then(|| flags.given("platform")).flatten() {
                Some(platform) => request.query("platform", &platform_json(platform)?),
                None => request,
            }
        }
        "network" => {
            let verbose = flags.has("verbose") && flags.bool("verbose");
            Request::get(format!("/networks/{segment}")).query_if(verbose, "verbose", "true")
        }
        _ => Request::get(format!("/volumes/{segment}")),
    })
}

/// `docker inspect`: the first kind that has a thing of that name.
pub(crate) async fn anything(app: &App, flags: &Parsed) -> Outcome {
    let kind = flags.text("type");
    if flags.changed("type") && kind.is_empty() {
        return Err(Failure::new(
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
        ));
    }
    if OTHER_KINDS.contains(&kind) {
        return Err(Failure::new(format!("--type {kind}: the daemon does not support it")));
    }
    if !kind.is_empty() && !KINDS.contains(&kind) {
        return Err(Failure::new(format!(
            "unknown type: {kind:?}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
        )));
    }
    let kinds = KINDS.iter().copied().filter(|known| kind.is_empty() || *known == kind);
    let kinds: Vec<&str> = kinds.collect();
    inspect(app, flags, &kinds).await
}

pub(crate) async fn containers(app: &App, flags: &Parsed) -> Outcome {
    inspect(app, flags, &["container"]).await
}

pub(crate) async fn images(app: &App, flags: &Parsed) -> Outcome {
    if let Some(platform) = flags.given("platform") {
        parse_platform(platform)?;
    }
    inspect(app, flags, &["image"]).await
}

pub(crate) async fn networks(app: &App, flags: &Parsed) -> Outcome {
    inspect(app, flags, &["network"]).await
}

pub(crate) async fn volumes(app: &App, flags: &Parsed) -> Outcome {
    inspect(app, flags, &["volume"]).await
}

async fn inspect(app: &App, flags: &Parsed, kinds: &[&'static str]) -> Outcome {
    let format = flags.text("format");
    let view = View::parse(format)?;
    let mut shown = Shown::new(view);
    let mut failures = Vec::new();
    for name in &flags.args {
        match find(app, flags, kinds, name).await {
            Ok((kind, json)) => {
                if let Err(failure) = shown.add(&json, kind) {
                    failures.push(failure);
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    shown.print()?;
    Failure::all(&failures)
}

async fn find(
    app: &App,
    flags: &Parsed,
    kinds: &[&'static str],
    name: &str,
) -> Outcome<(&'static str, Vec<u8>)> {
    for kind in kinds {
        match app.client.get_bytes(request(kind, name, flags)?).await {
            Ok(json) => {
                if *kind != "container" && flags.has("size") && flags.bool("size") {
                    output::complain(&format!("WARNING: --size ignored for {kind}"));
                }
                return Ok((kind, json.to_vec()));
            }
            Err(error) if kinds.len() > 1 && is_absence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("Error: No such object: {name}")))
}

/// A name that is no image reference is not an image, either.
fn is_absence(error: &Error) -> bool {
    error.is_not_found()
        || error.daemon_message().is_some_and(|text| text.contains("invalid reference format"))
}

/// Shows JSON documents that are there already, as `inspect` does.
pub(crate) fn show(format: &str, documents: &[Vec<u8>], kind: &'static str) -> Outcome<()> {
    let mut shown = Shown::new(View::parse(format)?);
    for document in documents {
        shown.add(document, kind)?;
    }
    shown.print()
}

enum View {
    Indented,
    Compact,
    Template(Template),
}

impl View {
    fn parse(format: &str) -> Outcome<Self> {
        match format {
            "" => Ok(Self::Indented),
            "json" => Ok(Self::Compact),
            template => Template::parse(template).map(Self::Template).map_err(|error| {
                Failure::with_code(format!("template parsing error: {error}"), BAD_TEMPLATE)
            }),
        }
    }
}

struct Shown {
    view: View,
    documents: Vec<String>,
}

impl Shown {
    fn new(view: View) -> Self {
        Self { view, documents: Vec::new() }
    }

    fn add(&mut self, document: &[u8], kind: &str) -> Outcome<()> {
        let decode = |source| Failure::Client(Error::Decode { source });
        if let View::Template(template) = &self.view {
            let value = from_json(document, kind).map_err(decode)?;
            let text = template
                .render(&value)
                .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
            self.documents.push(text);
        } else {
            self.documents.push(String::from_utf8_lossy(document).trim().to_owned());
        }
        Ok(())
    }

    fn print(self) -> Outcome<()> {
        let list = || format!("[{}]", self.documents.join(","));
        let text = match &self.view {
            View::Indented => json::indent(&list()) + "\n",
            View::Compact => json::compact(&list()) + "\n",
            View::Template(_) if self.documents.is_empty() => "\n".to_owned(),
            View::Template(_) => self.documents.iter().map(|text| format!("{text}\n")).collect(),
        };
        Ok(output::print(&text)?)
    }
}
