//! `docker ps`.

use api_types::container::{Listed, ListedMount};
use client::Request;
use spec::Reference;

use super::ports::displayable;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::short_id;
use crate::output::{self, Column, Listing, ellipsis};
use crate::template::{Nil, Value};

#[derive(Debug)]
pub(crate) struct ContainerRow {
    pub container: Listed,
    pub truncate: bool,
}

impl ContainerRow {
    fn id(&self) -> &str {
        if self.truncate { short_id(&self.container.id) } else { &self.container.id }
    }

    /// Names under links (`/other/alias`) are left out unless nothing is to be.
    fn names(&self) -> String {
        let names = self.container.names.iter().map(|name| name.trim_start_matches('/'));
        names.filter(|name| !self.truncate || !name.contains('/')).collect::<Vec<_>>().join(",")
    }

    /// Ids are cut and digests dropped, unless nothing is to be.
    fn image(&self) -> String {
        let image = &self.container.image;
        if image.is_empty() {
            return "<no image>".to_owned();
        }
        if !self.truncate {
            return image.clone();
        }
        let short = short_id(&self.container.image_id);
        if short == short_id(image) {
            return short.to_owned();
        }
        match Reference::parse(image) {
            Ok(reference) if reference.digest.is_some() => {
                Reference { digest: None, ..reference }.familiar()
            }
            _ => image.clone(),
        }
    }

    fn command(&self) -> String {
        let command = &self.container.command;
        let shown = if self.truncate { ellipsis(command, 20) } else { command.clone() };
        format!("{shown:?}")
    }

    fn labels(&self) -> String {
        join_labels(&self.container.labels)
    }

    fn mounts(&self) -> String {
        let name = |mount: &ListedMount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if self.truncate { ellipsis(name, 15) } else { name.clone() }
        };
        self.container.mounts.iter().map(name).collect::<Vec<_>>().join(",")
    }

    fn local_volumes(&self) -> String {
        self.container.mounts.iter().filter(|mount| mount.driver == "local").count().to_string()
    }

    fn networks(&self) -> String {
        let networks = &self.container.network_settings.networks;
        networks.keys().map(String::as_str).collect::<Vec<_>>().join(",")
    }

    fn size(&self) -> String {
        let size = |bytes: Option<i64>| spec::size::human_3(bytes.unwrap_or_default() as f64);
        match self.container.size_root_fs {
            Some(bytes) if bytes > 0 => {
                format!("{} (virtual {})", size(self.container.size_rw), size(Some(bytes)))
            }
            _ => size(self.container.size_rw),
        }
    }
}

/// `a=b,c=d`, ordered by key.
pub(crate) fn join_labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(crate) static CONTAINERS: Listing<ContainerRow> = Listing {
    type_name: "*formatter.ContainerContext",
    columns: &[
        Column { name: "Command", header: "COMMAND", value: |row| Value::text(row.command()) },
        Column {
            name: "CreatedAt",
            header: "CREATED AT",
            value: |row| Value::text(output::local_time(row.container.created)),
        },
        Column { name: "ID", header: "CONTAINER ID", value: |row| Value::text(row.id()) },
        Column { name: "Image", header: "IMAGE", value: |row| Value::text(row.image()) },
        Column { name: "Labels", header: "LABELS", value: |row| Value::text(row.labels()) },
        Column {
            name: "LocalVolumes",
            header: "LOCAL VOLUMES",
            value: |row| Value::text(row.local_volumes()),
        },
        Column { name: "Mounts", header: "MOUNTS", value: |row| Value::text(row.mounts()) },
        Column { name: "Names", header: "NAMES", value: |row| Value::text(row.names()) },
        Column { name: "Networks", header: "NETWORKS", value: |row| Value::text(row.networks()) },
        Column { name: "Platform", header: "PLATFORM", value: |_row| Value::Nil(Nil::Pointer) },
        Column {
            name: "Ports",
            header: "PORTS",
            value: |row| Value::text(displayable(&row.container.ports)),
        },
        Column {
            name: "RunningFor",
            header: "CREATED",
            value: |row| Value::text(output::ago(row.container.created)),
        },
        Column { name: "Size", header: "SIZE", value: |row| Value::text(row.size()) },
        Column {
            name: "State",
            header: "STATE",
            value: |row| Value::text(row.container.state.as_str()),
        },
        Column {
            name: "Status",
            header: "STATUS",
            value: |row| Value::text(row.container.status.as_str()),
        },
    ],
    label: Some(|row, key| row.container.labels.get(key).cloned().unwrap_or_default()),
};

const TABLE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t\
                     {{.Ports}}\t{{.Names}}";

const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\n\
                   created_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\n\
                   status: {{- pad .Status 1 0}}\nnames: {{.Names}}\n\
                   labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";

/// `docker ps`.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let format = format(app, flags);
    if flags.bool("quiet") && flags.changed("format") {
        output::complain(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
    }
    check_format(&format)?;
    let last = if flags.bool("latest") { 1 } else { flags.int("last") };
    let filters = flags.filters();
    let size = flags.bool("size") || format.contains(".Size") || format.contains("{{json .}}");
    let request = Request::get("/containers/json")
        .query_if(flags.bool("all"), "all", "1")
        .query_if(filters != spec::Filters::default(), "filters", &filters.to_json())
        .query_if(last > 0, "limit", &last.to_string())
        .query_if(size, "size", "1");
    let mut containers = app.client.get_items::<Listed>(request).await?;
    let truncate = !flags.bool("no-trunc");
    let mut failed = None;
    let rows = std::iter::from_fn(|| {
        let container = containers.next()?.map_err(|error| failed = Some(error)).ok()?;
        Some(ContainerRow { container, truncate })
    });
    let text = CONTAINERS.render(&format, rows)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    output::print(&text)?;
    Ok(0)
}

/// A format is tried before the daemon is asked: what names no member is wrong without any rows, too.
fn check_format(format: &str) -> Outcome<()> {
    let row = ContainerRow { container: Listed::default(), truncate: true };
    match CONTAINERS.render(format, [row]) {
        Err(failure) => {
            let text = failure.to_string();
            let reason = text.strip_prefix("template parsing error: ").unwrap_or(&text);
            match reason {
                // Functions may well fail on a row without content.
                _ if reason.contains("can't evaluate field") => {
                    Err(Failure::new(format!("failed to execute template: {reason}")))
                }
                _ if reason.contains("executing \"\"") => Ok(()),
                _ => Err(Failure::new(format!("failed to parse template: {reason}"))),
            }
        }
        Ok(_text) => Ok(()),
    }
}

fn format(app: &App, flags: &Parsed) -> String {
    let (quiet, size) = (flags.bool("quiet"), flags.bool("size"));
    let given = match flags.text("format") {
        "" if !quiet => app.config.ps_format.as_str(),
        given => given,
    };
    let sized = |table: &str| format!("{table}{}", if size { "\t{{.Size}}" } else { "" });
    match given {
        "raw" if quiet => "container_id: {{.ID}}".to_owned(),
        "raw" => format!("{RAW}{}", if size { "size: {{.Size}}\n" } else { "" }),
        _ if quiet => "{{.ID}}".to_owned(),
        "" | "table" => sized(TABLE),
        table if table.starts_with("table") => sized(table),
        template => template.to_owned(),
    }
}
