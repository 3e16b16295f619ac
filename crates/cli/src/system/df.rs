//! `docker system df`.

use std::rc::Rc;

use api_types::volume::{UsageData, Volume};
use api_types::{container, image};
use client::Request;
use serde::Deserialize;

use crate::app::App;
use crate::container::{CONTAINERS, ContainerRow};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::{IMAGES, ImageRow, image_rows, short_id};
use crate::output::{self, Column, Listing, header_default};
use crate::template::{Row, Template, Value};
use crate::volume::{VOLUMES, VolumeRow};

/// `GET /system/df` as the API had it up to 1.51.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Usage {
    layers_size: i64,
    images: Option<Vec<image::Summary>>,
    containers: Option<Vec<container::Listed>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<Vec<CacheRecord>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CacheRecord {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Type")]
    kind: String,
    in_use: bool,
    shared: bool,
    size: i64,
    created_at: String,
    description: String,
    parent: String,
    last_used_at: Option<String>,
    usage_count: i64,
}

/// One line of the summary.
#[derive(Debug)]
struct UsageRow {
    kind: &'static str,
    total: usize,
    active: usize,
    size: f64,
    reclaimable: f64,
    /// Whether the share is shown behind the reclaimable size.
    share: bool,
}

impl UsageRow {
    fn reclaimable(&self) -> String {
        let size = spec::size::human(self.reclaimable);
        if self.share && self.size > 0.0 {
            format!("{size} ({}%)", (self.reclaimable * 100.0 / self.size) as i64)
        } else {
            size
        }
    }
}

static SUMMARY: Listing<UsageRow> = Listing {
    type_name: "*formatter.diskUsageImagesContext",
    columns: &[
        Column {
            name: "Active",
            header: "ACTIVE",
            value: |row| Value::text(row.active.to_string()),
        },
        Column {
            name: "Reclaimable",
            header: "RECLAIMABLE",
            value: |row| Value::text(row.reclaimable()),
        },
        Column {
            name: "Size",
            header: "SIZE",
            value: |row| Value::text(spec::size::human(row.size)),
        },
        Column {
            name: "TotalCount",
            header: "TOTAL",
            value: |row| Value::text(row.total.to_string()),
        },
        Column { name: "Type", header: "TYPE", value: |row| Value::text(row.kind) },
    ],
    label: None,
};

/// `docker system df`.
pub(crate) async fn df(app: &App, flags: &Parsed) -> Outcome {
    let format = flags.text("format");
    let usage: Usage = app.client.get(Request::get("/system/df")).await?;
    let text = if flags.bool("verbose") {
        match format {
            "" | "table" => verbose(usage)?,
            format => by_template(usage, format)?,
        }
    } else {
        let table = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
        SUMMARY.render(header_default(format, table), summary(&usage))?
    };
    output::print(&text)?;
    Ok(0)
}

fn summary(usage: &Usage) -> Vec<UsageRow> {
    vec![images(usage), containers(usage), volumes(usage), build_cache(usage)]
}

fn images(usage: &Usage) -> UsageRow {
    let images = usage.images.as_deref().unwrap_or_default();
    let used: i64 = images
        .iter()
        .filter(|image| image.containers > 0 && image.size != -1 && image.shared_size != -1)
        .map(|image| image.size - image.shared_size)
        .sum();
    UsageRow {
        kind: "Images",
        total: images.len(),
        active: images.iter().filter(|image| image.containers > 0).count(),
        size: usage.layers_size as f64,
        reclaimable: (usage.layers_size - used) as f64,
        share: true,
    }
}

fn containers(usage: &Usage) -> UsageRow {
    let containers = usage.containers.as_deref().unwrap_or_default();
    let active = |container: &&container::Listed| {
        ["running", "paused", "restarting"].contains(&container.state.as_str())
    };
    let size = |container: &container::Listed| container.size_rw.unwrap_or_default() as f64;
    UsageRow {
        kind: "Containers",
        total: containers.len(),
        active: containers.iter().filter(active).count(),
        size: containers.iter().map(size).sum(),
        reclaimable: containers.iter().filter(|one| !active(one)).map(size).sum(),
        share: true,
    }
}

fn volumes(usage: &Usage) -> UsageRow {
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let data = || volumes.iter().map(|volume| volume.usage_data.unwrap_or_default());
    let sizes = |wanted: fn(&UsageData) -> bool| -> f64 {
        data().filter(|data| data.size != -1).filter(wanted).map(|data| data.size as f64).sum()
    };
    UsageRow {
        kind: "Local Volumes",
        total: volumes.len(),
        active: data().filter(|data| data.ref_count > 0).count(),
        size: sizes(|_data| true),
        reclaimable: sizes(|data| data.ref_count == 0),
        share: true,
    }
}

fn build_cache(usage: &Usage) -> UsageRow {
    let records = usage.build_cache.as_deref().unwrap_or_default();
    let sizes = |wanted: fn(&&CacheRecord) -> bool| -> f64 {
        records.iter().filter(wanted).map(|record| record.size as f64).sum()
    };
    UsageRow {
        kind: "Build Cache",
        total: records.len(),
        active: records.iter().filter(|record| record.in_use).count(),
        size: sizes(|record| !record.shared),
        reclaimable: sizes(|record| !record.shared && !record.in_use),
        share: false,
    }
}

static CACHE: Listing<CacheRecord> = Listing {
    type_name: "*formatter.buildCacheContext",
    columns: &[
        Column {
            name: "CacheType",
            header: "CACHE TYPE",
            value: |record| Value::text(record.kind.as_str()),
        },
        Column {
            name: "CreatedAt",
            header: "CREATED AT",
            value: |record| Value::text(output::time_in_go(&record.created_at)),
        },
        Column {
            name: "CreatedSince",
            header: "CREATED",
            value: |record| Value::text(output::ago_of(&record.created_at)),
        },
        Column {
            name: "Description",
            header: "DESCRIPTION",
            value: |record| Value::text(record.description.as_str()),
        },
        Column { name: "ID", header: "CACHE ID", value: |record| Value::text(record.id.as_str()) },
        Column {
            name: "InUse",
            header: "IN USE",
            value: |record| Value::text(record.in_use.to_string()),
        },
        Column {
            name: "LastUsedAt",
            header: "LAST USED AT",
            value: |record| {
                Value::text(
                    record.last_used_at.as_deref().map(output::time_in_go).unwrap_or_default(),
                )
            },
        },
        Column {
            name: "LastUsedSince",
            header: "LAST USED",
            value: |record| {
                Value::text(record.last_used_at.as_deref().map(output::ago_of).unwrap_or_default())
            },
        },
        Column {
            name: "Parent",
            header: "PARENT",
            value: |record| Value::text(record.parent.as_str()),
        },
        Column {
            name: "Shared",
            header: "SHARED",
            value: |record| Value::text(record.shared.to_string()),
        },
        Column {
            name: "Size",
            header: "SIZE",
            value: |record| Value::text(spec::size::human_3(record.size as f64)),
        },
        Column {
            name: "UsageCount",
            header: "USAGE",
            value: |record| Value::text(record.usage_count.to_string()),
        },
    ],
    label: None,
};

/// What a template sees of `df -v`: four lists.
#[derive(Debug)]
struct Everything([(&'static str, Value); 4]);

impl Row for Everything {
    fn type_name(&self) -> &'static str {
        "*formatter.diskUsageContext"
    }

    fn members(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn member(&self, name: &str) -> Option<Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, list)| list.clone())
    }
}

fn by_template(usage: Usage, format: &str) -> Outcome<String> {
    let parts = Parts::of(usage, false);
    let list = |values: Vec<Value>| Value::List(Rc::new(values));
    let everything = Everything([
        ("Images", list(parts.images.into_iter().map(|row| IMAGES.value(row)).collect())),
        (
            "Containers",
            list(parts.containers.into_iter().map(|row| CONTAINERS.value(row)).collect()),
        ),
        ("Volumes", list(parts.volumes.into_iter().map(|row| VOLUMES.value(row)).collect())),
        ("BuildCache", list(parts.cache.into_iter().map(|row| CACHE.value(row)).collect())),
    ]);
    let template = if format == "json" { "{{json .}}" } else { format };
    Template::parse(template)?
        .render(&Value::Row(Rc::new(everything)))
        .map_err(|error| Failure::new(error.to_string()))
}

/// The rows of the four lists.
struct Parts {
    images: Vec<ImageRow>,
    containers: Vec<ContainerRow>,
    volumes: Vec<VolumeRow>,
    cache: Vec<CacheRecord>,
}

impl Parts {
    fn of(usage: Usage, truncate: bool) -> Self {
        let containers = usage.containers.unwrap_or_default().into_iter();
        let volumes = usage.volumes.unwrap_or_default().into_iter();
        let cache = usage.build_cache.unwrap_or_default().into_iter().map(|record| CacheRecord {
            id: if truncate { short_id(&record.id).to_owned() } else { record.id },
            ..record
        });
        Self {
            images: image_rows(usage.images.unwrap_or_default(), false, truncate)
                .into_iter()
                .map(ImageRow::without_digest)
                .collect(),
            // `df` shows what containers wrote, not the image below it.
            containers: containers
                .map(|container| ContainerRow {
                    container: container::Listed { size_root_fs: None, ..container },
                    truncate,
                })
                .collect(),
            volumes: volumes
                .map(|volume| VolumeRow {
                    usage: volume.usage_data.map(|data| (data.ref_count, data.size)),
                    volume,
                })
                .collect(),
            cache: cache.collect(),
        }
    }
}

fn verbose(usage: Usage) -> Outcome<String> {
    let cache_size = spec::size::human(build_cache(&usage).size);
    let parts = Parts::of(usage, true);
    let images = IMAGES.render(
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
         {{.UniqueSize}}\t{{.Containers}}",
        parts.images,
    )?;
    let containers = CONTAINERS.render(
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t\
         {{.Status}}\t{{.Names}}",
        parts.containers,
    )?;
    let volumes = VOLUMES.render("table {{.Name}}\t{{.Links}}\t{{.Size}}", parts.volumes)?;
    let cache = CACHE.render(
        "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t\
         {{.UsageCount}}\t{{.Shared}}",
        parts.cache,
    )?;
    Ok(format!(
        "Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}\n\
         Local Volumes space usage:\n\n{volumes}\nBuild cache usage: {cache_size}\n\n{cache}"
    ))
}
