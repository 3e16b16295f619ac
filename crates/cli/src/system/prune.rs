//! `docker system prune`.

use client::Request;
use serde::Deserialize;

use super::confirm;
use crate::app::App;
use crate::container::prune_containers;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::{prune_filters, prune_images, pruned_images};
use crate::network::prune_networks;
use crate::output;
use crate::volume::prune_volumes;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BuildPrune {
    caches_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// `docker system prune`: containers, networks, volumes when asked for, images, build cache.
pub(crate) async fn prune(app: &App, flags: &Parsed) -> Outcome {
    let (all, volumes) = (flags.bool("all"), flags.bool("volumes"));
    let filters = flags.filters();
    let of_images = prune_filters(flags)?;
    if volumes && filters.contains("until") {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !flags.bool("force") && !confirm(&warning(all, volumes, flags)).await? {
        return Ok(0);
    }
    let mut total = 0.0;
    let mut show = |text: String, bytes: f64| {
        total += bytes;
        output::print(&text)
    };
    let (text, bytes) = prune_containers(app, &filters).await?;
    show(text, bytes)?;
    show(prune_networks(app, &filters).await?, 0.0)?;
    if volumes {
        let (text, bytes) = prune_volumes(app, &filters).await?;
        show(text, bytes)?;
    }
    let (text, bytes) = prune_images(app, &of_images).await?;
    show(text, bytes)?;
    let (text, bytes) = prune_build_cache(app, all, &filters).await?;
    show(text, bytes)?;
    output::print_line(&format!("Total reclaimed space: {}", spec::size::human(total)))?;
    Ok(0)
}

fn warning(all: bool, volumes: bool, flags: &Parsed) -> String {
    let mut lines = vec![
        "all stopped containers".to_owned(),
        "all networks not used by at least one container".to_owned(),
    ];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container".to_owned());
    }
    lines.push(pruned_images(flags));
    lines.push(if all { "all build cache" } else { "unused build cache" }.to_owned());
    let mut text = "WARNING! This will remove:\n".to_owned();
    text.extend(lines.iter().map(|line| format!("  - {line}\n")));
    if !flags.list("filter").is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        text.extend(flags.list("filter").iter().map(|filter| format!("  - {filter}\n")));
    }
    text
}

/// Prunes; a daemon that does not build has no cache to prune.
async fn prune_build_cache(
    app: &App,
    all: bool,
    filters: &spec::Filters,
) -> Outcome<(String, f64)> {
    let request = Request::post("/build/prune").query_if(all, "all", "1").query_if(
        *filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let pruned: BuildPrune = match app.client.get(request).await {
        Err(error) if matches!(error.status(), Some(404 | 501)) => BuildPrune::default(),
        answer => answer?,
    };
    let deleted = pruned.caches_deleted.unwrap_or_default();
    let text = match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted build cache objects:\n{}\n\n", deleted.join("\n")),
    };
    Ok((text, pruned.space_reclaimed as f64))
}
