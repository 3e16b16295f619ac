//! Records of images and of the names they go by.

use std::collections::BTreeMap;

use metadata::{StoreError, Table, View, WriteTxn};
use serde::{Deserialize, Serialize};
use spec::{Digest, Reference};

use crate::error::ImageError;

/// The digest of the config document.
pub type ImageId = Digest;

/// Key: the hexadecimal image id.
pub(crate) const IMAGES: Table<ImageRecord> = Table::new("images");
/// Key: a reference in full, with a tag or (exclusive) a digest.
pub(crate) const REFERENCES: Table<ReferenceRecord> = Table::new("references");

/// What lists need of an image without reading its config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Its topmost layer, which it holds; none for an image without layers.
    pub(crate) chain: Option<Digest>,
    pub(crate) size: u64,
    pub(crate) created: Option<String>,
    pub(crate) parent: Option<ImageId>,
    #[serde(default)]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// RFC 3339.
    #[serde(default)]
    pub(crate) tagged: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReferenceRecord {
    pub(crate) image: ImageId,
}

/// The key of a reference. One with both a tag and a digest is looked up by the digest.
pub(crate) fn key(reference: &Reference) -> String {
    let mut reference = reference.clone().or_latest();
    if reference.digest.is_some() {
        reference.tag = None;
    }
    reference.to_string()
}

/// The references of every image, or of one.
pub(crate) struct Names(Vec<(Reference, ImageId)>);

impl Names {
    pub(crate) fn read(view: &impl View) -> Result<Self, StoreError> {
        let records = REFERENCES.scan(view)?;
        let parse = |(key, record): (String, ReferenceRecord)| {
            // Keys are printed references; one that does not parse names nothing.
            Reference::parse(&key).ok().map(|reference| (reference, record.image))
        };
        Ok(Self(records.into_iter().filter_map(parse).collect()))
    }

    pub(crate) fn of(&self, id: &ImageId) -> Vec<Reference> {
        let names = self.0.iter().filter(|(_, image)| image == id);
        names.map(|(reference, _)| reference.clone()).collect()
    }

    pub(crate) fn of_repository(&self, name: &str) -> Vec<(Reference, ImageId)> {
        self.0.iter().filter(|(reference, _)| reference.full_name() == name).cloned().collect()
    }
}

/// Splits references into Docker's two lists, in familiar form.
pub(crate) fn tags_and_digests(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<_>, Vec<_>) =
        names.iter().partition(|reference| reference.digest.is_some());
    let familiar = |list: Vec<&Reference>| list.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

/// Lets a name stand for an image; returns the image it stood for before.
pub(crate) fn put_name(
    txn: &mut WriteTxn<'_>,
    reference: &Reference,
    image: &ImageId,
    now: &str,
) -> Result<Option<ImageId>, ImageError> {
    let key = key(reference);
    let before = REFERENCES.get(txn, &key)?.map(|record| record.image);
    REFERENCES.put(txn, &key, &ReferenceRecord { image: *image })?;
    let mut record = require(txn, image)?;
    record.tagged = Some(now.to_owned());
    IMAGES.put(txn, &image.hex(), &record)?;
    Ok(before.filter(|before| before != image))
}

fn require(txn: &WriteTxn<'_>, id: &ImageId) -> Result<ImageRecord, ImageError> {
    let record = IMAGES.get(txn, &id.hex())?;
    record.ok_or_else(|| ImageError::NoSuchImage { reference: id.to_string() })
}

/// Fails when the image is gone. For the transaction that makes a container of it, so that it
/// cannot be removed between the look-up and the making.
pub fn require_image(txn: &mut WriteTxn<'_>, id: &ImageId) -> Result<(), ImageError> {
    require(txn, id).map(drop)
}
