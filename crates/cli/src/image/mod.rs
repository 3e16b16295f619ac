//! Commands on images.

mod list;
mod names;
mod transfer;
mod tree;

use api_types::image::{DeleteItem, HistoryItem, PruneResponse};
use client::Request;

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::parse_platform;
use crate::output::{self, Column, Listing, header_default};
use crate::progress::while_waiting;
use crate::system::confirm;
use crate::template::Value;

pub(crate) use list::{IMAGES, ImageRow, ls, rows as image_rows};
pub(crate) use transfer::{
    PullOptions, download, import, load, pull, pull_reference, push, save, stdin_body,
};

/// `docker tag`.
pub(crate) async fn tag(app: &App, flags: &Parsed) -> Outcome {
    let [source, target] = flags.args.as_slice() else {
        unreachable!("the table requires two arguments")
    };
    let parse = |text: &str| {
        spec::Reference::parse(text).map_err(|error| {
            Failure::new(format!(
                "Error parsing reference: {text:?} is not a valid repository/tag: {error}"
            ))
        })
    };
    if let Err(failure) = parse(source)
        && spec::Digest::from_hex(source).is_err()
    {
        return Err(failure);
    }
    let target = parse(target)?;
    if target.digest.is_some() {
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    let target = target.or_latest();
    let request = Request::post(format!("/images/{}/tag", Request::segment(source)))
        .query("repo", &target.full_name())
        .query("tag", target.tag.as_deref().unwrap_or_default());
    app.client.call(request).await?;
    Ok(0)
}

/// `docker rmi`.
pub(crate) async fn rm(app: &App, flags: &Parsed) -> Outcome {
    let mut failures = Vec::new();
    let mut only_missing = true;
    for name in &flags.args {
        let mut request = Request::delete(format!("/images/{}", Request::segment(name)))
            .query_if(flags.bool("force"), "force", "1")
            .query_if(flags.bool("no-prune"), "noprune", "1");
        for platform in flags.list("platform") {
            request = request.query("platforms", &platform_json(platform)?);
        }
        match app.client.get::<Vec<DeleteItem>>(request).await {
            Ok(items) => output::print(&deleted(&items))?,
            Err(error) => {
                only_missing &= error.is_not_found();
                failures.push(Failure::Client(error));
            }
        }
    }
    if flags.bool("force") && only_missing {
        for failure in &failures {
            output::complain(&failure.to_string());
        }
        return Ok(0);
    }
    Failure::all(&failures)
}

fn deleted(items: &[DeleteItem]) -> String {
    let line = |item: &DeleteItem| match item.deleted.is_empty() {
        true => format!("Untagged: {}\n", item.untagged),
        false => format!("Deleted: {}\n", item.deleted),
    };
    items.iter().map(line).collect()
}

/// `linux/arm64/v8` as the API takes it.
pub(crate) fn platform_json(text: &str) -> Outcome<String> {
    let platform = parse_platform(text).map_err(|reason| format!("invalid platform: {reason}"))?;
    serde_json::to_string(&platform).map_err(|error| Failure::new(error.to_string()))
}

/// `docker image prune`.
pub(crate) async fn prune(app: &App, flags: &Parsed) -> Outcome {
    let filters = prune_filters(flags)?;
    let warning = format!("WARNING! This will remove {}.", pruned_images(flags));
    if !flags.bool("force") && !confirm(&warning).await? {
        return Ok(0);
    }
    let (text, bytes) = prune_images(app, &filters).await?;
    output::print(&text)?;
    output::print_line(&format!("Total reclaimed space: {}", spec::size::human(bytes)))?;
    Ok(0)
}

/// The filters of a prune of images, from the flags of `image prune` or `system prune`.
pub(crate) fn prune_filters(flags: &Parsed) -> Outcome<spec::Filters> {
    let all = flags.bool("all");
    let mut filters = flags.filters();
    filters.add("dangling", if all { "false" } else { "true" });
    if flags.changed("keep-last") {
        let count = flags.int("keep-last");
        if count < 1 {
            return Err(Failure::new(format!("--keep-last must be 1 or more, not {count}")));
        }
        if !all {
            return Err(Failure::new(
                "--keep-last needs --all: without it only images without a name are removed",
            ));
        }
        filters.add("keep-last", &count.to_string());
    }
    Ok(filters)
}

/// Which images go, in the words of the question before.
pub(crate) fn pruned_images(flags: &Parsed) -> String {
    const ALL: &str = "all images without at least one container associated to them";
    match (flags.bool("all"), flags.given("keep-last")) {
        (false, _) => "all dangling images".to_owned(),
        (true, None) => ALL.to_owned(),
        (true, Some(count)) => format!("{ALL}, but the {count} newest of each repository"),
    }
}

/// Prunes; returns what to print and the bytes reclaimed.
pub(crate) async fn prune_images(app: &App, filters: &spec::Filters) -> Outcome<(String, f64)> {
    let request = Request::post("/images/prune").query("filters", &filters.to_json());
    let pruned: PruneResponse =
        while_waiting("Removing unused images", app.client.get(request)).await?;
    let items = pruned.images_deleted.unwrap_or_default();
    let text = match items.is_empty() {
        true => String::new(),
        false => format!("Deleted Images:\n{}\n", deleted_in_prune(&items)),
    };
    Ok((text, pruned.space_reclaimed as f64))
}

/// Prune writes its words in lower case.
fn deleted_in_prune(items: &[DeleteItem]) -> String {
    deleted(items).replace("Untagged: ", "untagged: ").replace("Deleted: ", "deleted: ")
}

#[derive(Debug)]
struct HistoryRow {
    item: HistoryItem,
    truncate: bool,
    human: bool,
}

impl HistoryRow {
    fn id(&self) -> String {
        if self.truncate { short_id(&self.item.id).to_owned() } else { self.item.id.clone() }
    }

    fn created_by(&self) -> String {
        let text = self.item.created_by.replace('\t', " ");
        if self.truncate { output::ellipsis(&text, 45) } else { text }
    }

    fn created_since(&self) -> String {
        match (self.human, self.item.created) {
            (_, created) if created < 0 => String::new(),
            (true, created) => output::ago(created),
            (false, created) => output::rfc3339(created),
        }
    }

    fn size(&self) -> String {
        if self.human {
            spec::size::human_3(self.item.size as f64)
        } else {
            self.item.size.to_string()
        }
    }
}

static HISTORY: Listing<HistoryRow> = Listing {
    type_name: "*image.historyContext",
    columns: &[
        Column {
            name: "Comment",
            header: "COMMENT",
            value: |row| Value::text(row.item.comment.as_str()),
        },
        Column {
            name: "CreatedAt",
            header: "CREATED AT",
            value: |row| Value::text(output::rfc3339(row.item.created)),
        },
        Column {
            name: "CreatedBy",
            header: "CREATED BY",
            value: |row| Value::text(row.created_by()),
        },
        Column {
            name: "CreatedSince",
            header: "CREATED",
            value: |row| Value::text(row.created_since()),
        },
        Column { name: "ID", header: "IMAGE", value: |row| Value::text(row.id()) },
        Column { name: "Size", header: "SIZE", value: |row| Value::text(row.size()) },
    ],
    label: None,
};

/// `docker history`.
pub(crate) async fn history(app: &App, flags: &Parsed) -> Outcome {
    let mut request = Request::get(format!("/images/{}/history", Request::segment(&flags.args[0])));
    if let Some(platform) = flags.given("platform") {
        request = request.query("platform", &platform_json(platform)?);
    }
    let items: Vec<HistoryItem> = app.client.get(request).await?;
    let human = flags.bool("human");
    let default = match (flags.bool("quiet"), human) {
        (true, _) => "{{.ID}}",
        (_, true) => "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        (_, false) => "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    };
    let truncate = !flags.bool("no-trunc");
    let rows = items.into_iter().map(|item| HistoryRow { item, truncate, human });
    output::print(&HISTORY.render(header_default(flags.text("format"), default), rows)?)?;
    Ok(0)
}

/// The first twelve digits of an id, without the algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}
