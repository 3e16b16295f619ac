//! `docker search`.

use client::Request;
use serde::Deserialize;

use crate::account::registry_auth;
use crate::app::App;
use crate::failure::Outcome;
use crate::flags::Parsed;
use crate::output::{self, Column, Listing, ellipsis, header_default};
use crate::template::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    star_count: i64,
    is_official: bool,
    name: String,
    description: String,
}

#[derive(Debug)]
struct SearchRow {
    found: Found,
    truncate: bool,
}

static RESULTS: Listing<SearchRow> = Listing {
    type_name: "*formatter.searchContext",
    columns: &[
        Column {
            name: "Description",
            header: "DESCRIPTION",
            value: |row| {
                let text = row.found.description.replace(['\n', '\r'], " ");
                Value::text(if row.truncate { ellipsis(&text, 45) } else { text })
            },
        },
        Column { name: "IsAutomated", header: "AUTOMATED", value: |_row| Value::text("") },
        Column {
            name: "IsOfficial",
            header: "OFFICIAL",
            value: |row| Value::text(if row.found.is_official { "[OK]" } else { "" }),
        },
        Column { name: "Name", header: "NAME", value: |row| Value::text(row.found.name.as_str()) },
        Column {
            name: "StarCount",
            header: "STARS",
            value: |row| Value::text(row.found.star_count.to_string()),
        },
    ],
    label: None,
};

/// `docker search`.
pub(crate) async fn search(app: &App, flags: &Parsed) -> Outcome {
    let filters = flags.filters();
    let limit = flags.int("limit");
    let request = Request::get("/images/search")
        .query_if(filters != spec::Filters::default(), "filters", &filters.to_json())
        .query_if(limit > 0, "limit", &limit.to_string())
        .query("term", &flags.args[0])
        .header("x-registry-auth", registry_auth(app, &registry(&flags.args[0])));
    let found: Vec<Found> = app.client.get(request).await?;
    let truncate = !flags.bool("no-trunc");
    let rows = found.into_iter().map(|found| SearchRow { found, truncate });
    let table = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
    output::print(&RESULTS.render(header_default(flags.text("format"), table), rows)?)?;
    Ok(0)
}

/// The registry that a term begins with, or Docker Hub.
fn registry(term: &str) -> String {
    spec::Reference::parse(term)
        .map_or_else(|_not_a_name| "docker.io".to_owned(), |reference| reference.domain)
}
