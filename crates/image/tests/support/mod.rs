//! Archives to order and an image store in a temporary directory.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;

use image::{ImageError, Images, LoadEvent, Loaded};
use metadata::Store;
use storage::tar::Kind;
use storage::tar::write::{Writer, plain};
use storage::{Storage, sha256};

pub(crate) struct Lab {
    pub(crate) images: Images,
    pub(crate) dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        Self { images, dir }
    }

    pub(crate) fn reopen(self) -> Self {
        let Self { images, dir } = self;
        drop(images);
        let images = open(dir.path());
        Self { images, dir }
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        let mut stream = archive;
        self.images.load(&mut stream, &mut |_event: LoadEvent| {})
    }

    /// Loads an archive that must be refused, and checks that nothing of it stays.
    pub(crate) fn refused(&self, archive: &[u8]) -> String {
        let before = self.census();
        let error = self.load(archive).unwrap_err();
        assert_eq!(self.census(), before);
        full(&error)
    }

    /// Everything in the store that a user could see or pay for.
    pub(crate) fn census(&self) -> Vec<String> {
        let mut census = self.list(true);
        for directory in ["layers", "ingest", "content/sha256"] {
            let mut names: Vec<_> =
                std::fs::read_dir(self.dir.path().join("storage").join(directory))
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
            names.sort();
            census.extend(names);
        }
        census
    }

    /// The list as lines: short id, tags, digests.
    pub(crate) fn list(&self, all: bool) -> Vec<String> {
        self.filtered(all, "").unwrap()
    }

    pub(crate) fn filtered(&self, all: bool, filters: &str) -> Result<Vec<String>, ImageError> {
        let filters = spec::Filters::parse(filters).unwrap();
        let line = |image: image::ImageSummary| {
            format!("{} {}", &image.id.hex()[..6], [image.tags, image.digests].concat().join(" "))
        };
        Ok(self.images.list(all, &filters)?.into_iter().map(line).collect())
    }
}

/// `BOXSHIP_TEST_LAYOUT` says which form layers have.
fn open(dir: &Path) -> Images {
    let store = Store::open(dir.join("metadata.redb")).unwrap();
    let layout = std::env::var("BOXSHIP_TEST_LAYOUT")
        .map_or_else(|_unset| storage::Layout::default(), |name| name.parse().unwrap());
    let options = storage::Options { layout, ..storage::Options::default() };
    Images::open(Storage::open_with(dir.join("storage"), store, options).unwrap()).unwrap()
}

pub(crate) fn full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full(source)),
        None => error.to_string(),
    }
}

/// An archive being put together.
#[derive(Default)]
pub(crate) struct Archive(Vec<u8>);

impl Archive {
    pub(crate) fn file(mut self, path: &str, data: &[u8]) -> Self {
        Writer::new(&mut self.0).file(path, 0, data).unwrap();
        self
    }

    pub(crate) fn link(mut self, kind: Kind, path: &str, target: &str) -> Self {
        let mut entry = plain(path, kind, 0o777, 0, 0);
        entry.link = target.as_bytes().to_vec();
        Writer::new(&mut self.0).header(&entry).unwrap();
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        Writer::new(&mut self.0).finish().unwrap();
        self.0
    }
}

/// A layer with one file.
pub(crate) fn layer(name: &str, data: &str) -> Vec<u8> {
    Archive::default().file(name, data.as_bytes()).end()
}

pub(crate) fn config(layers: &[&[u8]], extra: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", sha256(layer))).collect();
    let history: Vec<_> =
        layers.iter().map(|_| r#"{"created":"2024-01-01T00:00:00Z","created_by":"x"}"#).collect();
    format!(
        r#"{{"os":"linux","architecture":"amd64","created":"2024-01-01T00:00:00Z"{extra},
            "history":[{}],"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        history.join(","),
        diff_ids.join(",")
    )
    .into_bytes()
}

/// A docker archive of one image.
pub(crate) fn docker(tags: &[&str], layers: &[&[u8]], extra: &str) -> Vec<u8> {
    let config = config(layers, extra);
    let names: Vec<_> = (0..layers.len()).map(|n| format!("\"{n}/layer.tar\"")).collect();
    let tags: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
    let manifest = format!(
        r#"[{{"Config":"{}.json","RepoTags":[{}],"Layers":[{}]}}]"#,
        sha256(&config).hex(),
        tags.join(","),
        names.join(",")
    );
    let mut archive = Archive::default();
    for (n, layer) in layers.iter().enumerate() {
        archive = archive.file(&format!("{n}/layer.tar"), layer);
    }
    archive
        .file(&format!("{}.json", sha256(&config).hex()), &config)
        .file("manifest.json", manifest.as_bytes())
        .end()
}
