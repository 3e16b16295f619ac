//! Commands on volumes.

use api_types::volume::{ListResponse, Volume};
use client::Request;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::container::join_labels;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output::{self, Column, Listing, header_default};
use crate::progress::while_waiting;
use crate::system::confirm;
use crate::template::Value;

/// A volume, with the figures that only `system df` has.
#[derive(Debug)]
pub(crate) struct VolumeRow {
    pub volume: Volume,
    pub usage: Option<(i64, i64)>,
}

impl VolumeRow {
    fn figure(&self, show: fn((i64, i64)) -> String) -> Value {
        Value::text(self.usage.map_or_else(|| "N/A".to_owned(), show))
    }
}

pub(crate) static VOLUMES: Listing<VolumeRow> = Listing {
    type_name: "*formatter.volumeContext",
    columns: &[
        Column { name: "Availability", header: "AVAILABILITY", value: |_row| Value::text("N/A") },
        Column {
            name: "Driver",
            header: "DRIVER",
            value: |row| Value::text(row.volume.driver.as_str()),
        },
        Column { name: "Group", header: "GROUP", value: |_row| Value::text("N/A") },
        Column {
            name: "Labels",
            header: "LABELS",
            value: |row| {
                Value::text(row.volume.labels.as_ref().map(join_labels).unwrap_or_default())
            },
        },
        Column {
            name: "Links",
            header: "LINKS",
            value: |row| row.figure(|(links, _size)| links.to_string()),
        },
        Column {
            name: "Mountpoint",
            header: "MOUNTPOINT",
            value: |row| Value::text(row.volume.mountpoint.as_str()),
        },
        Column {
            name: "Name",
            header: "VOLUME NAME",
            value: |row| Value::text(row.volume.name.as_str()),
        },
        Column {
            name: "Scope",
            header: "SCOPE",
            value: |row| Value::text(row.volume.scope.as_str()),
        },
        Column {
            name: "Size",
            header: "SIZE",
            value: |row| row.figure(|(_links, size)| spec::size::human(size as f64)),
        },
        Column { name: "Status", header: "STATUS", value: |_row| Value::text("N/A") },
    ],
    label: Some(|row, key| {
        row.volume.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
    }),
};

/// `docker volume ls`, ordered by name.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let filters = flags.filters();
    let request = Request::get("/volumes").query_if(
        filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let mut list: ListResponse = app.client.get(request).await?;
    list.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let quiet = flags.bool("quiet");
    let given = match flags.text("format") {
        "" if !quiet => app.config.volumes_format.as_str(),
        given => given,
    };
    let default = if quiet { "{{.Name}}" } else { "table {{.Driver}}\t{{.Name}}" };
    let format = match given {
        "raw" if quiet => "name: {{.Name}}",
        "raw" => "name: {{.Name}}\ndriver: {{.Driver}}\n",
        given => header_default(given, default),
    };
    let rows = list.volumes.into_iter().map(|volume| VolumeRow { volume, usage: None });
    output::print(&VOLUMES.render(format, rows)?)?;
    Ok(0)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateRequest {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    driver: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    driver_opts: std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    labels: std::collections::BTreeMap<String, String>,
}

/// `docker volume create`.
pub(crate) async fn create(app: &App, flags: &Parsed) -> Outcome {
    if flags.changed("name") && !flags.args.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a \
             positional arg",
        ));
    }
    let name = flags.args.first().map_or_else(|| flags.text("name"), String::as_str);
    let request = CreateRequest {
        name: name.to_owned(),
        driver: flags.text("driver").to_owned(),
        driver_opts: flags.map("opt"),
        labels: flags.map("label"),
    };
    let volume: Volume = app.client.post(Request::post("/volumes/create"), &request).await?;
    output::print_line(&volume.name)?;
    Ok(0)
}

/// `docker volume rm`.
pub(crate) async fn rm(app: &App, flags: &Parsed) -> Outcome {
    let mut failures = Vec::new();
    for name in &flags.args {
        let request = Request::delete(format!("/volumes/{}", Request::segment(name))).query_if(
            flags.bool("force"),
            "force",
            "1",
        );
        match app.client.call(request).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => failures.push(Failure::Client(error)),
        }
    }
    Failure::all(&failures)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PruneResponse {
    volumes_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// `docker volume prune`.
pub(crate) async fn prune(app: &App, flags: &Parsed) -> Outcome {
    let all = flags.bool("all");
    let warning = if all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !flags.bool("force") && !confirm(warning).await? {
        return Ok(0);
    }
    let mut filters = flags.filters();
    if all {
        if filters.contains("all") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        filters.add("all", "true");
    }
    let (text, bytes) = prune_volumes(app, &filters).await?;
    output::print(&text)?;
    output::print_line(&format!("Total reclaimed space: {}", spec::size::human(bytes)))?;
    Ok(0)
}

/// Prunes; returns what to print and the bytes reclaimed.
pub(crate) async fn prune_volumes(app: &App, filters: &spec::Filters) -> Outcome<(String, f64)> {
    let request = Request::post("/volumes/prune").query_if(
        *filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let pruned: PruneResponse =
        while_waiting("Removing unused volumes", app.client.get(request)).await?;
    let deleted = pruned.volumes_deleted.unwrap_or_default();
    let text = match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted Volumes:\n{}\n\n", deleted.join("\n")),
    };
    Ok((text, pruned.space_reclaimed as f64))
}
