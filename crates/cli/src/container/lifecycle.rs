//! Commands on several containers at once: stop, kill, rm, pause, wait and their like.
//!
//! Each prints the names it succeeded with, in the order given, and fails with all the errors.

use api_types::container::{PruneResponse, WaitResponse};
use client::Request;
use futures_util::stream::{self, StreamExt};

use crate::app::{App, container_path};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::progress::while_waiting;
use crate::system::confirm;

/// Docker's own limit for work on many containers.
const PARALLEL: usize = 50;

/// Calls the daemon for every name, up to [`PARALLEL`] at a time, and prints names as they succeed.
async fn each(
    app: &App,
    names: &[String],
    request: impl Fn(&str) -> Request,
    shown: impl Fn(&str) -> &str,
) -> Outcome {
    let calls = names.iter().map(|name| {
        let request = request(name);
        async move { (name, app.client.call(request).await) }
    });
    let mut results = stream::iter(calls).buffered(PARALLEL);
    let mut failures = Vec::new();
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(()) => output::print_line(shown(name))?,
            Err(error) => failures.push(Failure::Client(error)),
        }
    }
    Failure::all(&failures)
}

fn as_given(name: &str) -> &str {
    name
}

/// `docker stop`.
pub(crate) async fn stop(app: &App, flags: &Parsed) -> Outcome {
    each(app, &flags.args, |name| ending(flags, name, "/stop"), as_given).await
}

/// `docker restart`.
pub(crate) async fn restart(app: &App, flags: &Parsed) -> Outcome {
    each(app, &flags.args, |name| ending(flags, name, "/restart"), as_given).await
}

fn ending(flags: &Parsed, name: &str, action: &str) -> Request {
    let signal = flags.text("signal");
    let timeout = flags.given("timeout").or_else(|| flags.given("time"));
    Request::post(container_path(name, action))
        .query_if(!signal.is_empty(), "signal", signal)
        .query_if(timeout.is_some(), "t", timeout.unwrap_or_default())
}

/// `docker kill`.
pub(crate) async fn kill(app: &App, flags: &Parsed) -> Outcome {
    let signal = flags.text("signal");
    let request = |name: &str| {
        Request::post(container_path(name, "/kill")).query_if(!signal.is_empty(), "signal", signal)
    };
    each(app, &flags.args, request, as_given).await
}

/// `docker pause`.
pub(crate) async fn pause(app: &App, flags: &Parsed) -> Outcome {
    each(app, &flags.args, |name| Request::post(container_path(name, "/pause")), as_given).await
}

/// `docker unpause`.
pub(crate) async fn unpause(app: &App, flags: &Parsed) -> Outcome {
    each(app, &flags.args, |name| Request::post(container_path(name, "/unpause")), as_given).await
}

/// `docker rm`; with `-f`, what is gone already is no failure.
pub(crate) async fn rm(app: &App, flags: &Parsed) -> Outcome {
    let force = flags.bool("force");
    let calls = flags.args.iter().map(|name| {
        let request = Request::delete(container_path(name.trim_matches('/'), ""))
            .query_if(force, "force", "1")
            .query_if(flags.bool("link"), "link", "1")
            .query_if(flags.bool("volumes"), "v", "1");
        async move {
            if name.trim_matches('/').is_empty() {
                return (name, Err(Failure::new("container name cannot be empty")));
            }
            (name, app.client.call(request).await.map_err(Failure::Client))
        }
    });
    let mut results = stream::iter(calls).buffered(PARALLEL);
    let mut failures = Vec::new();
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(()) => output::print_line(name)?,
            Err(Failure::Client(error)) if force && error.is_not_found() => {
                output::complain(&error.to_string());
            }
            Err(failure) => failures.push(failure),
        }
    }
    Failure::all(&failures)
}

/// `docker wait`: the exit codes, in the order given.
pub(crate) async fn wait(app: &App, flags: &Parsed) -> Outcome {
    let calls = flags.args.iter().map(|name| async move {
        let request = Request::post(container_path(name, "/wait"));
        app.client.get::<WaitResponse>(request).await
    });
    let mut results = stream::iter(calls).buffered(flags.args.len());
    let mut failures = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(status) => output::print_line(&status.status_code.to_string())?,
            Err(error) => failures.push(Failure::Client(error)),
        }
    }
    Failure::all(&failures)
}

/// `docker rename`.
pub(crate) async fn rename(app: &App, flags: &Parsed) -> Outcome {
    let [old, new] = flags.args.as_slice() else {
        unreachable!("the table requires two arguments")
    };
    let (old, new) = (old.trim(), new.trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    let request = Request::post(container_path(old, "/rename")).query("name", new);
    if let Err(error) = app.client.call(request).await {
        output::complain(&error.to_string());
        return Err(Failure::new(format!("Error: failed to rename container named {old}")));
    }
    Ok(0)
}

/// `docker container prune`.
pub(crate) async fn prune(app: &App, flags: &Parsed) -> Outcome {
    let warning = "WARNING! This will remove all stopped containers.";
    if !flags.bool("force") && !confirm(warning).await? {
        return Ok(0);
    }
    let (text, bytes) = prune_containers(app, &flags.filters()).await?;
    output::print(&text)?;
    output::print_line(&format!("Total reclaimed space: {}", spec::size::human(bytes)))?;
    Ok(0)
}

/// Prunes; returns what to print and the bytes reclaimed.
pub(crate) async fn prune_containers(app: &App, filters: &spec::Filters) -> Outcome<(String, f64)> {
    let request = Request::post("/containers/prune").query_if(
        *filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let pruned: PruneResponse =
        while_waiting("Removing unused containers", app.client.get(request)).await?;
    let deleted = pruned.containers_deleted.unwrap_or_default();
    let text = match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted Containers:\n{}\n\n", deleted.join("\n")),
    };
    Ok((text, pruned.space_reclaimed as f64))
}
