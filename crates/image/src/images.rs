//! The image store: finding, naming and describing images.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use metadata::{Store, View};
use spec::oci::{ImageConfig, RunConfig};
use spec::{Digest, Reference, time};
use storage::{Lease, Storage, top_chain};

use crate::document;
use crate::error::ImageError;
use crate::records::{
    IMAGES, ImageId, ImageRecord, Names, REFERENCES, key, put_name, tags_and_digests,
};

/// The store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Images {
    pub(crate) storage: Storage,
    /// Held while names and images change, from the decision to the commit.
    editing: Arc<Mutex<()>>,
}

/// Everything known of one image.
#[derive(Debug, Clone)]
pub struct ImageInfo {
    pub id: ImageId,
    /// The config document as read, and verbatim.
    pub config: ImageConfig,
    pub raw: Vec<u8>,
    /// Bottom first.
    pub diff_ids: Vec<Digest>,
    /// The topmost layer, to put a container on.
    pub chain: Option<Digest>,
    /// `busybox:latest`
    pub tags: Vec<String>,
    /// `busybox@sha256:...`
    pub digests: Vec<String>,
    pub size: u64,
    pub parent: Option<ImageId>,
    /// When a name was last given to it; RFC 3339.
    pub tagged: Option<String>,
}

/// A step in the making of an image, newest first in [`Images::history`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// `<missing>` for steps whose image is not here.
    pub id: String,
    /// Seconds since the epoch.
    pub created: i64,
    pub created_by: String,
    pub comment: String,
    pub size: u64,
    pub tags: Vec<String>,
}

impl Images {
    /// Opens the images in `storage`. Configs without a record are garbage from a crash; after a
    /// loss of the metadata they become nameless images again.
    pub fn open(storage: Storage) -> Result<Self, ImageError> {
        storage.store().adopt(IMAGES)?;
        storage.store().adopt(REFERENCES)?;
        let images = Self { storage, editing: Arc::default() };
        images.recover()?;
        Ok(images)
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn store(&self) -> &Store {
        self.storage.store()
    }

    pub(crate) fn edit(&self) -> MutexGuard<'_, ()> {
        self.editing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds an image by name, id or unambiguous start of an id, in Docker's order: a name wins
    /// over the start of an id.
    pub fn resolve(&self, text: &str) -> Result<ImageId, ImageError> {
        resolve(&self.store().begin_read()?, text)
    }

    pub fn inspect(&self, text: &str) -> Result<ImageInfo, ImageError> {
        let view = self.store().begin_read()?;
        let id = resolve(&view, text)?;
        let record = record(&view, &id)?;
        let (tags, digests) = tags_and_digests(&Names::read(&view)?.of(&id));
        let raw = self.storage.content().get(&id)?;
        let document = document::parse(&raw)?;
        Ok(ImageInfo {
            id,
            config: document.config,
            raw,
            diff_ids: document.diff_ids,
            chain: record.chain,
            tags,
            digests,
            size: record.size,
            parent: record.parent,
            tagged: record.tagged,
        })
    }

    /// The topmost layer of an image, to put a container on.
    pub fn chain(&self, id: &ImageId) -> Result<Option<Digest>, ImageError> {
        Ok(record(&self.store().begin_read()?, id)?.chain)
    }

    /// What the image says about running it.
    pub fn config_for_run(&self, id: &ImageId) -> Result<RunConfig, ImageError> {
        record(&self.store().begin_read()?, id)?;
        let raw = self.storage.content().get(id)?;
        Ok(document::parse(&raw)?.config.config.unwrap_or_default())
    }

    /// The steps of an image's making, newest first. Steps that were images of their own here
    /// (the classic builder's) have their ids.
    pub fn history(&self, text: &str) -> Result<Vec<HistoryEntry>, ImageError> {
        let view = self.store().begin_read()?;
        let id = resolve(&view, text)?;
        let document = document::parse(&self.storage.content().get(&id)?)?;
        let mut sizes = match record(&view, &id)?.chain {
            Some(chain) => self.storage.layers(&chain)?,
            None => Vec::new(),
        }
        .into_iter()
        .map(|layer| layer.size);
        let mut entries = Vec::new();
        for step in document.config.history.unwrap_or_default() {
            let size = match step.empty_layer {
                true => 0,
                false => sizes.next().ok_or(ImageError::History)?,
            };
            entries.push(HistoryEntry {
                id: "<missing>".to_owned(),
                created: unix_seconds(step.created.as_deref()),
                created_by: step.created_by.unwrap_or_default(),
                comment: step.comment.unwrap_or_default(),
                size,
                tags: Vec::new(),
            });
        }
        entries.reverse();
        let names = Names::read(&view)?;
        let mut next = Some(id);
        for entry in &mut entries {
            let Some(id) = next else { break };
            entry.id = id.to_string();
            entry.tags = tags_and_digests(&names.of(&id)).0;
            next = IMAGES.get(&view, &id.hex())?.and_then(|record| record.parent);
        }
        Ok(entries)
    }

    /// Gives an image another name; a name that stood for another image moves.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), ImageError> {
        let _editing = self.edit();
        let id = self.resolve(source)?;
        if target.domain == "docker.io" && target.path == "library/sha256" {
            return Err(ImageError::AmbiguousTarget);
        }
        let (target, now) = (target.clone(), now());
        self.store().write(move |txn| put_name(txn, &target, &id, &now).map(drop))
    }

    /// Makes an image from a config document and layers that are committed and leased, and gives
    /// it names, all in one transaction. An image that is there already only gets the names.
    pub fn create(
        &self,
        _lease: &Lease,
        config: &[u8],
        parent: Option<ImageId>,
        names: &[Reference],
    ) -> Result<ImageId, ImageError> {
        let new = NewImage { config: config.to_vec(), parent, names: names.to_vec() };
        Ok(self.create_all(vec![new])?.remove(0).id)
    }

    /// Makes several images at once: all of them or none.
    pub(crate) fn create_all(&self, images: Vec<NewImage>) -> Result<Vec<Made>, ImageError> {
        let _editing = self.edit();
        let mut prepared = Vec::with_capacity(images.len());
        for image in images {
            let record = self.describe(&image)?;
            let id = self.storage.content().put(&image.config)?;
            prepared.push((id, record, image.names));
        }
        let now = now();
        self.store().write(move |txn| {
            let mut made = Vec::with_capacity(prepared.len());
            for (id, record, names) in prepared {
                if IMAGES.get(txn, &id.hex())?.is_none() {
                    if let Some(chain) = &record.chain {
                        storage::hold(txn, chain)?;
                    }
                    IMAGES.put(txn, &id.hex(), &record)?;
                } else if let Some(chain) = &record.chain {
                    storage::hold_again(txn, chain)?;
                }
                let mut moved = Vec::new();
                for name in names {
                    if let Some(before) = put_name(txn, &name, &id, &now)? {
                        moved.push((name, before));
                    }
                }
                made.push(Made { id, moved });
            }
            Ok(made)
        })
    }

    fn describe(&self, image: &NewImage) -> Result<ImageRecord, ImageError> {
        let document = document::parse(&image.config)?;
        let chain = top_chain(&document.diff_ids);
        let size = match &chain {
            Some(chain) => self.storage.layers(chain)?.iter().map(|layer| layer.size).sum(),
            None => 0,
        };
        Ok(ImageRecord {
            chain,
            size,
            created: document.config.created,
            parent: image.parent,
            labels: document.config.config.and_then(|config| config.labels),
            tagged: None,
        })
    }

    fn recover(&self) -> Result<(), ImageError> {
        let view = self.store().begin_read()?;
        for id in self.storage.content().all()? {
            if IMAGES.get(&view, &id.hex())?.is_some() {
                continue;
            }
            if !self.storage.records_were_lost() {
                self.storage.content().remove(&id)?;
                continue;
            }
            let adopted =
                self.storage.content().get(&id).map_err(ImageError::from).and_then(|config| {
                    self.create_all(vec![NewImage { config, parent: None, names: vec![] }])
                });
            if let Err(error) = adopted {
                tracing::warn!(%id, %error, "image not recovered");
            }
        }
        Ok(())
    }
}

/// An image about to be made.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) config: Vec<u8>,
    pub(crate) parent: Option<ImageId>,
    pub(crate) names: Vec<Reference>,
}

/// An image that was made, or was there already.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: ImageId,
    /// Names that it took, and from whom.
    pub(crate) moved: Vec<(Reference, ImageId)>,
}

/// Reads the `repo` and `tag` parameters of tag, import and commit. No repository, no name.
pub fn parse_target(repository: &str, tag: &str) -> Result<Option<Reference>, ImageError> {
    if repository.is_empty() {
        return Ok(None);
    }
    let mut reference = Reference::parse(repository)?;
    if reference.digest.is_some() {
        return Err(ImageError::DigestTarget);
    }
    if !tag.is_empty() {
        if !spec::reference::is_tag(tag) {
            return Err(ImageError::TagFormat);
        }
        reference.tag = Some(tag.to_owned());
    }
    Ok(Some(reference.or_latest()))
}

pub(crate) fn resolve(view: &impl View, text: &str) -> Result<ImageId, ImageError> {
    let whole = text.parse::<Digest>().or_else(|_short| Digest::from_hex(text));
    if let Ok(id) = whole {
        let known = IMAGES.get(view, &id.hex())?;
        return match known {
            Some(_) => Ok(id),
            None => Err(ImageError::NoSuchImage { reference: id.to_string() }),
        };
    }
    let reference = Reference::parse(text)?;
    if let Some(found) = REFERENCES.get(view, &key(&reference))? {
        return Ok(found.image);
    }
    match by_prefix(view, text)? {
        Some(id) => Ok(id),
        None => Err(ImageError::NoSuchImage { reference: reference.or_latest().familiar() }),
    }
}

/// The one image whose id starts with `text`; none when there are several, as in Docker.
fn by_prefix(view: &impl View, text: &str) -> Result<Option<ImageId>, ImageError> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if prefix.is_empty() || !prefix.bytes().all(digit) {
        return Ok(None);
    }
    let mut found = IMAGES.scan_prefix(view, prefix)?.into_iter();
    match (found.next(), found.next()) {
        (Some((hex, _)), None) => Ok(Digest::from_hex(&hex).ok()),
        _ => Ok(None),
    }
}

pub(crate) fn record(view: &impl View, id: &ImageId) -> Result<ImageRecord, ImageError> {
    let record = IMAGES.get(view, &id.hex())?;
    record.ok_or_else(|| ImageError::NoSuchImage { reference: id.to_string() })
}

/// The time of an RFC 3339 text; what cannot be read is Go's zero time.
pub(crate) fn unix_seconds(text: Option<&str>) -> i64 {
    const GO_ZERO: i64 = -62_135_596_800;
    let time = text.and_then(|text| time::parse_rfc3339(text).ok());
    time.map_or(GO_ZERO, |time| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    })
}

pub(crate) fn now() -> String {
    time::rfc3339_nano(SystemTime::now())
}
