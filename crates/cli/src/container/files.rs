//! A container's files as a whole: export, commit.

use client::Request;

use crate::app::{App, container_path};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::download;
use crate::output;

/// `docker export`.
pub(crate) async fn export(app: &App, flags: &Parsed) -> Outcome {
    let path = flags.text("output");
    if path.is_empty() && crate::terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let request = Request::get(container_path(&flags.args[0], "/export"));
    download(app, request, path, "export container").await
}

/// `docker commit`.
pub(crate) async fn commit(app: &App, flags: &Parsed) -> Outcome {
    let reference = match flags.args.get(1) {
        Some(name) => {
            Some(spec::Reference::parse(name).map_err(|error| Failure::new(error.to_string()))?)
        }
        None => None,
    };
    let repository = reference.as_ref().map(spec::Reference::full_name).unwrap_or_default();
    let tag = reference.map(spec::Reference::or_latest).and_then(|reference| reference.tag);
    let mut request = Request::post("/commit").query("author", flags.text("author"));
    for change in flags.list("change") {
        request = request.query("changes", change);
    }
    let request = request
        .query("comment", flags.text("message"))
        .query("container", &flags.args[0])
        .query_if(!flags.bool("pause"), "pause", "0")
        .query("repo", &repository)
        .query("tag", tag.as_deref().unwrap_or_default());
    let committed: api_types::IdResponse = app.client.get(request).await?;
    output::print_line(&committed.id)?;
    Ok(0)
}
