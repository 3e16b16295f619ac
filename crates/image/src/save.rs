//! `docker save`: an OCI layout that is a docker archive as well.
//!
//! ```text
//! blobs/sha256/<hex>   configs, manifests, layers (plain tars), each once
//! index.json           one descriptor per image and name
//! manifest.json        the same for `docker load`
//! oci-layout
//! repositories         the names once more, for tools of 2014
//! ```
//!
//! The same images give the same bytes. Layers are streamed from the store, nothing is staged.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use spec::oci::{
    Descriptor, Index, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, Manifest,
};
use spec::{Digest, Reference};
use storage::tar::Kind;
use storage::tar::write::{Writer, plain};
use storage::{Layer, Lease, StorageError, sha256};

use crate::document;
use crate::error::ImageError;
use crate::images::{Images, record, resolve, unix_seconds};
use crate::records::{ImageId, Names, REFERENCES, key};

enum Blob {
    Document(Vec<u8>),
    Layer { chain: Digest, length: u64 },
}

/// An image to be saved with the names asked for.
struct Wanted {
    id: ImageId,
    names: Vec<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<Digest, Descriptor>,
}

#[derive(Default)]
struct Archive {
    blobs: BTreeMap<String, (i64, Blob)>,
    index: Vec<Descriptor>,
    items: Vec<ManifestItem>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Images {
    /// Writes images to `output`. A repository without a tag means all its tags. Names that are
    /// not there fail before the first byte; a damaged layer fails in the middle, with the
    /// archive incomplete.
    pub fn save(&self, names: &[&str], output: &mut dyn Write) -> Result<(), ImageError> {
        // The lease keeps the layers against a removal while they are being written.
        let mut lease = self.storage.lease();
        let mut archive = Archive::default();
        for wanted in self.wanted(names)? {
            self.add(&mut archive, &mut lease, &wanted)?;
        }
        self.write(archive, output)
    }

    /// The images meant, each once, with their names in order.
    fn wanted(&self, texts: &[&str]) -> Result<Vec<Wanted>, ImageError> {
        let view = self.store().begin_read()?;
        let all = Names::read(&view)?;
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut add = |id, name: Option<Reference>| {
            let at = wanted.iter().position(|image| image.id == id).unwrap_or_else(|| {
                wanted.push(Wanted { id, names: Vec::new() });
                wanted.len() - 1
            });
            if let Some(name) = name.filter(|name| !wanted[at].names.contains(name)) {
                wanted[at].names.push(name);
            }
        };
        for text in texts {
            let reference = Reference::parse(text).ok();
            let Some(reference) = reference else {
                add(resolve(&view, text)?, None);
                continue;
            };
            if reference.tag.is_none() && reference.digest.is_none() {
                let mut tagged = all.of_repository(&reference.full_name());
                tagged.retain(|(name, _)| name.digest.is_none());
                if !tagged.is_empty() {
                    tagged.into_iter().for_each(|(name, id)| add(id, Some(name)));
                    continue;
                }
            }
            if let Some(found) = REFERENCES.get(&view, &key(&reference))? {
                add(found.image, Some(reference).filter(|name| name.digest.is_none()));
                continue;
            }
            match resolve(&view, text) {
                Ok(id) => add(id, None),
                Err(ImageError::NoSuchImage { .. }) if reference.tag.is_some() => {
                    return Err(ImageError::NoSuchReference);
                }
                Err(ImageError::NoSuchImage { .. }) => {
                    return Err(ImageError::NoSuchImage { reference: (*text).to_owned() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(wanted)
    }

    fn add(
        &self,
        archive: &mut Archive,
        lease: &mut Lease,
        wanted: &Wanted,
    ) -> Result<(), ImageError> {
        let record = record(&self.store().begin_read()?, &wanted.id)?;
        let layers = match &record.chain {
            Some(chain) => {
                for layer in self.storage.layers(chain)? {
                    self.storage.keep(lease, &layer.chain_id)?;
                }
                self.storage.layers(chain)?
            }
            None => Vec::new(),
        };
        let raw = self.storage.content().get(&wanted.id)?;
        document::parse(&raw)?;
        let created = unix_seconds(record.created.as_deref()).max(0);
        let sources: Vec<_> = layers.iter().map(layer_descriptor).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: MEDIA_MANIFEST.to_owned(),
            config: descriptor(MEDIA_CONFIG, wanted.id, raw.len() as u64),
            layers: sources.clone(),
            annotations: BTreeMap::new(),
        };
        let manifest = to_json(&manifest)?;
        let manifest_digest = sha256(&manifest);
        archive.name(wanted, descriptor(MEDIA_MANIFEST, manifest_digest, manifest.len() as u64));
        let top = layers.last().map(|layer| layer.diff_id.hex()).unwrap_or_default();
        for name in &wanted.names {
            let tags = archive.repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag.clone().unwrap_or_default(), top.clone());
        }
        let tags = wanted.names.iter().map(Reference::familiar).collect::<Vec<_>>();
        archive.items.push(ManifestItem {
            config: blob_path(&wanted.id.hex()),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: layers.iter().map(|layer| blob_path(&layer.diff_id.hex())).collect(),
            layer_sources: sources.into_iter().map(|source| (source.digest, source)).collect(),
        });
        archive.blob(manifest_digest, 0, Blob::Document(manifest));
        archive.blob(wanted.id, created, Blob::Document(raw));
        for layer in layers {
            let blob = Blob::Layer { chain: layer.chain_id, length: layer.tar_size };
            archive.blob(layer.diff_id, created, blob);
        }
        Ok(())
    }

    fn write(&self, archive: Archive, output: &mut dyn Write) -> Result<(), ImageError> {
        let failed = |source| ImageError::Output { source };
        let mut writer = Writer::new(io::BufWriter::with_capacity(64 << 10, output));
        writer.directory("blobs/", 0).map_err(failed)?;
        writer.directory("blobs/sha256/", 0).map_err(failed)?;
        for (hex, (mtime, blob)) in archive.blobs {
            let path = blob_path(&hex);
            match blob {
                Blob::Document(bytes) => writer.file(&path, mtime, &bytes).map_err(failed)?,
                Blob::Layer { chain, length } => {
                    let entry = plain(&path, Kind::File, 0o644, mtime, length);
                    writer.header(&entry).map_err(failed)?;
                    let written = self.storage.write_tar(&chain, &mut writer.output);
                    written.map_err(|error| match error {
                        StorageError::Output { source } => ImageError::Output { source },
                        other => other.into(),
                    })?;
                    writer.pad(length).map_err(failed)?;
                }
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: MEDIA_INDEX.to_owned(),
            manifests: archive.index,
            annotations: BTreeMap::new(),
        };
        writer.file("index.json", 0, &to_json(&index)?).map_err(failed)?;
        writer.file("manifest.json", 0, &to_json(&archive.items)?).map_err(failed)?;
        let layout = br#"{"imageLayoutVersion": "1.0.0"}"#;
        writer.file("oci-layout", 0, layout).map_err(failed)?;
        if !archive.repositories.is_empty() {
            let repositories = to_json(&archive.repositories)?;
            writer.file("repositories", 0, &repositories).map_err(failed)?;
        }
        writer.finish().map_err(failed)
    }
}

impl Archive {
    /// One descriptor for each name; one without a name when there is none.
    fn name(&mut self, wanted: &Wanted, descriptor: Descriptor) {
        if wanted.names.is_empty() {
            self.index.push(descriptor);
            return;
        }
        for name in &wanted.names {
            let mut named = descriptor.clone();
            let tag = name.tag.clone().unwrap_or_default();
            named.annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), name.to_string()),
                ("org.opencontainers.image.ref.name".to_owned(), tag),
            ]);
            self.index.push(named);
        }
    }

    fn blob(&mut self, digest: Digest, mtime: i64, blob: Blob) {
        self.blobs.entry(digest.hex()).or_insert((mtime, blob));
    }
}

fn layer_descriptor(layer: &Layer) -> Descriptor {
    descriptor(MEDIA_LAYER, layer.diff_id, layer.tar_size)
}

fn descriptor(media_type: &str, digest: Digest, length: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: i64::try_from(length).unwrap_or(i64::MAX),
        annotations: BTreeMap::new(),
        platform: None,
    }
}

fn blob_path(hex: &str) -> String {
    format!("blobs/sha256/{hex}")
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::Json { reason: error.to_string() })
}
