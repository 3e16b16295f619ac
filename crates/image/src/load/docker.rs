//! Reading Docker's `manifest.json`.

use spec::Digest;
use spec::oci::ArchiveManifest;

use super::spool::Spool;
use super::{Planned, PlannedLayer, parse_names};
use crate::error::ImageError;

pub(super) fn plan(spool: &Spool) -> Result<Vec<Planned>, ImageError> {
    let json = spool.document(&spool.need("manifest.json")?)?;
    let images: Vec<ArchiveManifest> = serde_json::from_slice(&json)
        .map_err(|error| ImageError::Archive { reason: format!("manifest.json: {error}") })?;
    images.iter().map(|image| plan_image(spool, image)).collect()
}

fn plan_image(spool: &Spool, image: &ArchiveManifest) -> Result<Planned, ImageError> {
    let layers = image.layers.iter().map(|name| {
        // A layer that several images share may be there once under several names, by links.
        Ok(PlannedLayer { data: spool.need(name)?, digest: blob_digest(name) })
    });
    let tags = image.repo_tags.iter().flatten().map(String::as_str);
    Ok(Planned {
        config: spool.need(&image.config)?,
        config_digest: config_digest(&image.config),
        layers: layers.collect::<Result<_, ImageError>>()?,
        names: parse_names(tags)?,
    })
}

/// `<hex>.json` in the old form, `blobs/sha256/<hex>` since Docker 25. Another name promises
/// nothing.
fn config_digest(name: &str) -> Option<Digest> {
    let old = name.strip_suffix(".json").and_then(|hex| Digest::from_hex(hex).ok());
    old.or_else(|| blob_digest(name))
}

fn blob_digest(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}
