//! `docker system df`.

use api_types::volume::{UsageData, Volume};
use api_types::{container, image};
use client::Request;
use serde::Deserialize;

use crate::app::App;
use crate::container::{CONTAINERS, ContainerRow};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::{IMAGES, image_rows, short_id};
use crate::output::{self, Column, Listing, header_default};
use crate::template::Value;
use crate::volume::{VOLUMES, VolumeRow};

/// `GET /system/df` as the API had it up to 1.51.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Usage {
    layers_size: i64,
    images: Option<Vec<image::Summary>>,
    containers: Option<Vec<container::Summary>>,
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
    type_name: "*formatter.diskUsageContext",
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
        if !["", "table"].contains(&format) {
            return Err(Failure::new("--format is not supported together with --verbose"));
        }
        verbose(usage)?
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
    let active = |container: &&container::Summary| {
        ["running", "paused", "restarting"].contains(&container.state.as_str())
    };
    let size = |container: &container::Summary| container.size_rw.unwrap_or_default() as f64;
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
            name: "CreatedSince",
            header: "CREATED",
            value: |record| Value::text(output::ago_of(&record.created_at)),
        },
        Column {
            name: "ID",
            header: "CACHE ID",
            value: |record| Value::text(short_id(&record.id)),
        },
        Column {
            name: "LastUsedSince",
            header: "LAST USED",
            value: |record| {
                Value::text(record.last_used_at.as_deref().map(output::ago_of).unwrap_or_default())
            },
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

fn verbose(usage: Usage) -> Outcome<String> {
    let cache_size = spec::size::human(build_cache(&usage).size);
    let images = IMAGES.render(
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
         {{.UniqueSize}}\t{{.Containers}}",
        image_rows(usage.images.unwrap_or_default(), false, true),
    )?;
    let containers = usage.containers.unwrap_or_default().into_iter();
    let containers = CONTAINERS.render(
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t\
         {{.Status}}\t{{.Names}}",
        // `df` shows what containers wrote, not the image below it.
        containers.map(|container| ContainerRow {
            container: container::Summary { size_root_fs: None, ..container },
            truncate: true,
        }),
    )?;
    let volumes = usage.volumes.unwrap_or_default().into_iter();
    let volumes = VOLUMES.render(
        "table {{.Name}}\t{{.Links}}\t{{.Size}}",
        volumes.map(|volume| VolumeRow {
            usage: volume.usage_data.map(|data| (data.ref_count, data.size)),
            volume,
        }),
    )?;
    let cache = CACHE.render(
        "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t\
         {{.UsageCount}}\t{{.Shared}}",
        usage.build_cache.unwrap_or_default(),
    )?;
    Ok(format!(
        "Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}\n\
         Local Volumes space usage:\n\n{volumes}\nBuild cache usage: {cache_size}\n\n{cache}"
    ))
}
