//! `docker images`.

use api_types::image::Summary;
use client::Request;

use super::names::{Name, names};
use super::short_id;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output::{self, Column, Listing};
use crate::template::Value;

/// One name of one image.
#[derive(Debug)]
pub(crate) struct ImageRow {
    pub image: Summary,
    name: Name,
    truncate: bool,
}

impl ImageRow {
    /// As `df` has it, which does not look for digests.
    pub(crate) fn without_digest(mut self) -> Self {
        self.name.digest.clear();
        self
    }

    fn id(&self) -> &str {
        if self.truncate { short_id(&self.image.id) } else { &self.image.id }
    }

    fn shared_size(&self) -> String {
        match self.image.shared_size {
            -1 => "N/A".to_owned(),
            bytes => spec::size::human(bytes as f64),
        }
    }

    fn unique_size(&self) -> String {
        match self.image.shared_size {
            -1 => "N/A".to_owned(),
            shared => spec::size::human((self.image.size - shared) as f64),
        }
    }

    fn containers(&self) -> String {
        match self.image.containers {
            -1 => "N/A".to_owned(),
            count => count.to_string(),
        }
    }
}

pub(crate) static IMAGES: Listing<ImageRow> = Listing {
    type_name: "*formatter.imageContext",
    columns: &[
        Column {
            name: "Containers",
            header: "CONTAINERS",
            value: |row| Value::text(row.containers()),
        },
        Column {
            name: "CreatedAt",
            header: "CREATED AT",
            value: |row| Value::text(output::local_time(row.image.created)),
        },
        Column {
            name: "CreatedSince",
            header: "CREATED",
            value: |row| Value::text(output::ago(row.image.created)),
        },
        Column {
            name: "Digest",
            header: "DIGEST",
            value: |row| Value::text(row.name.digest.as_str()),
        },
        Column { name: "ID", header: "IMAGE ID", value: |row| Value::text(row.id()) },
        Column {
            name: "Repository",
            header: "REPOSITORY",
            value: |row| Value::text(row.name.repository.as_str()),
        },
        Column {
            name: "SharedSize",
            header: "SHARED SIZE",
            value: |row| Value::text(row.shared_size()),
        },
        Column {
            name: "Size",
            header: "SIZE",
            value: |row| Value::text(spec::size::human_3(row.image.size as f64)),
        },
        Column { name: "Tag", header: "TAG", value: |row| Value::text(row.name.tag.as_str()) },
        Column {
            name: "UniqueSize",
            header: "UNIQUE SIZE",
            value: |row| Value::text(row.unique_size()),
        },
        Column {
            name: "VirtualSize",
            header: "SIZE",
            value: |row| Value::text(spec::size::human(row.image.size as f64)),
        },
    ],
    label: None,
};

/// The rows of a list of images, newest first.
pub(crate) fn rows(mut images: Vec<Summary>, with_digests: bool, truncate: bool) -> Vec<ImageRow> {
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let one = |image: Summary| {
        names(&image, with_digests)
            .into_iter()
            .map(|name| ImageRow { image: image.clone(), name, truncate })
            .collect::<Vec<_>>()
    };
    images.into_iter().flat_map(one).collect()
}

/// `docker images`.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let tree = flags.bool("tree");
    if tree {
        check_tree(app, flags).await?;
    }
    let mut filters = flags.filters();
    if let Some(pattern) = flags.args.first() {
        filters.add("reference", pattern);
    }
    let request = Request::get("/images/json").query_if(flags.bool("all"), "all", "1").query_if(
        filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let request = request.query_if(tree, "manifests", "1");
    let images: Vec<Summary> = app.client.get(request).await?;
    if tree {
        let text = super::tree::render(images, flags.bool("all"), super::tree::Screen::stdout());
        output::print(&text)?;
        return Ok(0);
    }
    let digests = flags.bool("digests");
    let rows = rows(images, digests, !flags.bool("no-trunc"));
    output::print(&IMAGES.render(&format(app, flags, digests), rows)?)?;
    Ok(0)
}

/// What the tree has no room for, and daemons that do not know it.
async fn check_tree(app: &App, flags: &Parsed) -> Outcome<()> {
    let version = app.client.negotiate().await?;
    if version < client::Version::parse("1.47").expect("it is a version") {
        return Err(Failure::new(format!(
            "\"--tree\" requires API version 1.47, but the Docker daemon API version is {version}"
        )));
    }
    // Docker names the flag for digests otherwise than it is spelled.
    let others = [
        ("quiet", flags.bool("quiet")),
        ("no-trunc", flags.bool("no-trunc")),
        ("show-digest", flags.bool("digests")),
        ("format", !flags.text("format").is_empty()),
    ];
    match others.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::new(format!("--{name} is not yet supported with --tree"))),
        None => Ok(()),
    }
}

fn format(app: &App, flags: &Parsed, digests: bool) -> String {
    let quiet = flags.bool("quiet");
    let given = match flags.text("format") {
        "" if !quiet => app.config.images_format.as_str(),
        given => given,
    };
    let table = match given {
        "" | "table" => true,
        "raw" => return raw(quiet, digests),
        other => return other.to_owned(),
    };
    match (table, quiet, digests) {
        (_, true, _) => "{{.ID}}",
        (_, _, true) => {
            "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        }
        _ => "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    }
    .to_owned()
}

fn raw(quiet: bool, digests: bool) -> String {
    if quiet {
        return "image_id: {{.ID}}".to_owned();
    }
    let digest = if digests { "digest: {{.Digest}}\n" } else { "" };
    format!(
        "repository: {{{{ .Repository }}}}\ntag: {{{{.Tag}}}}\n{digest}image_id: {{{{.ID}}}}\n\
         created_at: {{{{.CreatedAt}}}}\nvirtual_size: {{{{.Size}}}}\n"
    )
}
