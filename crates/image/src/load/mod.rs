//! `docker load`: images from an archive, in Docker's form or as an OCI layout.
//!
//! The archive is spooled first, since its members come in any order, or what looks like a layer
//! unpacked at once; then a plan is made of it (`docker`, `oci`: pure reading of its documents),
//! then the layers that are missing are unpacked and put on top of one another, each checked against its digest, and at last all images and names appear in one
//! transaction. Until then nothing is visible; an error or a crash leaves nothing.

mod docker;
mod oci;
mod spool;

use std::collections::HashMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use spec::{Digest, Reference};
use storage::{Lease, Staged, StorageError, chain_id, sha256};

use crate::document;
use crate::error::ImageError;
use crate::images::{Images, NewImage};
use crate::records::ImageId;
use spool::{Member, Spool};

/// What a caller may want to show meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// So much of a layer has been read.
    Layer { diff_id: Digest, current: u64, total: u64 },
    /// A name moved here from another image.
    Renamed { reference: String, old: ImageId },
}

/// A loaded image under one name, in familiar form; without a name when it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    pub reference: Option<String>,
}

/// An image of the archive.
struct Planned {
    config: Member,
    /// What the archive says the config's digest is.
    config_digest: Option<Digest>,
    layers: Vec<PlannedLayer>,
    names: Vec<Reference>,
}

struct PlannedLayer {
    data: Member,
    /// The digest of the blob as it is in the archive, compressed or not.
    digest: Option<Digest>,
}

type Progress<'a> = &'a mut (dyn FnMut(LoadEvent) + Send);

impl Images {
    /// Loads all images of an archive (plain, gzip or zstd).
    pub fn load(
        &self,
        stream: &mut (dyn Read + Send),
        progress: Progress<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let spool = Spool::read(stream, &self.storage)?;
        let plan = if spool.has("manifest.json") {
            docker::plan(&spool)?
        } else if spool.has("index.json") {
            oci::plan(&spool)?
        } else {
            let reason = "it has neither manifest.json nor index.json".to_owned();
            return Err(ImageError::Archive { reason });
        };
        let mut lease = self.storage.lease();
        let mut stage =
            Stage { images: self, spool: &spool, lease: &mut lease, staged: Vec::new() };
        let mut images = Vec::with_capacity(plan.len());
        for planned in plan {
            let config = stage.image(&planned, progress)?;
            images.push(NewImage { config, parent: None, names: planned.names });
        }
        let staged = stage.staged;
        // Before the sync, so that what is spooled is never written out.
        drop(spool);
        self.storage.commit(&mut lease, staged)?;
        let names: Vec<_> = images.iter().map(|image| image.names.clone()).collect();
        let mut loaded = Vec::new();
        for (made, names) in self.create_all(images)?.into_iter().zip(names) {
            let id = made.id;
            for (reference, old) in made.moved {
                progress(LoadEvent::Renamed { reference: reference.familiar(), old });
            }
            if names.is_empty() {
                loaded.push(Loaded { id, reference: None });
            }
            loaded.extend(names.iter().map(|name| Loaded { id, reference: Some(name.familiar()) }));
        }
        Ok(loaded)
    }
}

/// Layers unpacked so far, for all images of the archive.
struct Stage<'a> {
    images: &'a Images,
    spool: &'a Spool,
    lease: &'a mut Lease,
    staged: Vec<Staged>,
}

impl Stage<'_> {
    /// Unpacks the layers an image lacks; returns its config.
    fn image(&mut self, planned: &Planned, progress: Progress<'_>) -> Result<Vec<u8>, ImageError> {
        let config = self.spool.document(&planned.config)?;
        let digest = sha256(&config);
        if let Some(expected) = planned.config_digest.filter(|expected| *expected != digest) {
            let name = "the image config".to_owned();
            return Err(ImageError::WrongDigest { name, expected, actual: digest });
        }
        let diff_ids = document::parse(&config)?.diff_ids;
        if diff_ids.len() != planned.layers.len() {
            let (expected, got) = (planned.layers.len(), diff_ids.len());
            return Err(ImageError::LayerCount { expected, got });
        }
        let mut parent = None;
        for (index, (layer, diff_id)) in planned.layers.iter().zip(&diff_ids).enumerate() {
            let chain = chain_id(parent.as_ref(), diff_id);
            let known = self.staged.iter().any(|staged| staged.chain_id == chain)
                || self.images.storage.keep(self.lease, &chain)?.is_some();
            if !known {
                let staged = self.layer(parent.as_ref(), layer, diff_id, progress);
                self.staged.push(staged.map_err(|error| wrong_layer(error, index))?);
            }
            parent = Some(chain);
        }
        Ok(config)
    }

    /// What a layer goes on top of. Some of the layers below may have been lost and be staged
    /// again, while others were there: those are to be found by their directories.
    fn base(&mut self, parent: Option<&Digest>) -> Result<storage::Base, ImageError> {
        let staged = self.staged.iter().find(|staged| Some(&staged.chain_id) == parent);
        if let Some(staged) = staged {
            return Ok(staged.base());
        }
        match self.images.storage.base(parent) {
            Err(StorageError::Lost { .. }) if !self.staged.is_empty() => {
                self.images.storage.commit(self.lease, std::mem::take(&mut self.staged))?;
                Ok(self.images.storage.base(parent)?)
            }
            base => Ok(base?),
        }
    }

    fn layer(
        &mut self,
        parent: Option<&Digest>,
        layer: &PlannedLayer,
        diff_id: &Digest,
        progress: Progress<'_>,
    ) -> Result<Staged, ImageError> {
        let base = self.base(parent)?;
        let total = layer.data.length;
        if let Some(unpacked) = self.spool.take(&layer.data) {
            progress(LoadEvent::Layer { diff_id: *diff_id, current: total, total });
            // Plain: the digest of the blob is the layer's.
            let actual = unpacked.diff_id();
            check_blob(layer.digest, actual)?;
            return Ok(self.images.storage.place(&base, unpacked, Some(diff_id))?);
        }
        let mut data = Watched {
            data: self.spool.open(&layer.data)?,
            hasher: layer.digest.map(|_expected| Sha256::new()),
            done: 0,
            told: 0,
            tell: &mut |current| progress(LoadEvent::Layer { diff_id: *diff_id, current, total }),
        };
        let staged = self.images.storage.unpack(&base, &mut data, Some(diff_id))?;
        // What follows the compressed stream belongs to the blob as well.
        io::copy(&mut data, &mut io::sink()).map_err(|source| ImageError::Spool { source })?;
        (data.tell)(total);
        if let Some(hasher) = data.hasher {
            check_blob(layer.digest, Digest::from_bytes(hasher.finalize().into()))?;
        }
        Ok(staged)
    }
}

fn check_blob(expected: Option<Digest>, actual: Digest) -> Result<(), ImageError> {
    match expected {
        Some(expected) if expected != actual => {
            Err(ImageError::WrongDigest { name: "a layer".to_owned(), expected, actual })
        }
        _ => Ok(()),
    }
}

fn wrong_layer(error: ImageError, index: usize) -> ImageError {
    match error {
        ImageError::Storage(StorageError::WrongLayer { expected, actual }) => {
            ImageError::WrongDiffId { index, expected, actual }
        }
        other => other,
    }
}

/// How often progress is told.
const STEP: u64 = 512 << 10;

/// Hashes what is read, when there is a digest to check, and tells how far it is.
struct Watched<'a, R> {
    data: R,
    hasher: Option<Sha256>,
    done: u64,
    told: u64,
    tell: &'a mut (dyn FnMut(u64) + Send),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.data.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..length]);
        }
        self.done += length as u64;
        if self.done - self.told >= STEP {
            self.told = self.done;
            (self.tell)(self.done);
        }
        Ok(length)
    }
}

/// The names of an archive's image: those that can be tags.
fn parse_names<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Reference>, ImageError> {
    let mut seen = HashMap::new();
    let mut names = Vec::new();
    for text in texts {
        let name = Reference::parse(text)?;
        if name.tag.is_none() || name.digest.is_some() {
            return Err(ImageError::Archive { reason: format!("invalid tag \"{text}\"") });
        }
        if seen.insert(name.to_string(), ()).is_none() {
            names.push(name);
        }
    }
    Ok(names)
}
