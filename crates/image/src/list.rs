//! `docker images`: which images are shown, with which names.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use spec::{Digest, Filters, Reference, time};

use crate::error::ImageError;
use crate::images::{Images, record, resolve, unix_seconds};
use crate::pattern;
use crate::records::{IMAGES, ImageId, ImageRecord, Names, tags_and_digests};

const ACCEPTED: &[&str] = &["dangling", "label", "before", "since", "reference", "until"];

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    pub id: ImageId,
    pub parent: Option<ImageId>,
    pub chain: Option<Digest>,
    /// Seconds since the epoch.
    pub created: i64,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    pub labels: Option<BTreeMap<String, String>>,
}

/// What a caller wants to see, read from the query once.
struct Wanted<'filters> {
    all: bool,
    filters: &'filters Filters,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Images {
    /// Lists images, the newest first. Without `all`, images that are only steps of others are
    /// left out.
    pub fn list(&self, all: bool, filters: &Filters) -> Result<Vec<ImageSummary>, ImageError> {
        filters.validate(ACCEPTED)?;
        let view = self.store().begin_read()?;
        let created_of = |name| -> Result<Option<i64>, ImageError> {
            let text: Option<&str> = filters.get(name).next();
            let Some(text) = text else { return Ok(None) };
            let record = record(&view, &resolve(&view, text)?)?;
            Ok(Some(unix_seconds(record.created.as_deref())))
        };
        let wanted = Wanted {
            all,
            filters,
            dangling: dangling(filters)?,
            before: created_of("before")?,
            since: created_of("since")?,
            until: until(filters)?,
        };
        for pattern in filters.get("reference") {
            pattern::check(pattern)?;
        }
        let names = Names::read(&view)?;
        let records = IMAGES.scan(&view)?;
        let parents: HashSet<ImageId> =
            records.iter().filter_map(|(_, record)| record.parent).collect();
        let mut list: Vec<_> = records
            .into_iter()
            .filter_map(|(hex, record)| Some((Digest::from_hex(&hex).ok()?, record)))
            .filter_map(|(id, record)| {
                wanted.summary(id, record, &names.of(&id), parents.contains(&id))
            })
            .collect();
        list.sort_by(|one, other| other.created.cmp(&one.created).then(one.id.cmp(&other.id)));
        Ok(list)
    }
}

impl Wanted<'_> {
    fn summary(
        &self,
        id: ImageId,
        record: ImageRecord,
        names: &[Reference],
        has_children: bool,
    ) -> Option<ImageSummary> {
        let created = unix_seconds(record.created.as_deref());
        let label = |name: &str| record.labels.as_ref()?.get(name).map(String::as_str);
        if self.before.is_some_and(|before| created >= before)
            || self.since.is_some_and(|since| created <= since)
            || self.until.is_some_and(|until| created > until)
            || !self.filters.matches_labels("label", label)
        {
            return None;
        }
        let shown: Vec<_> = names
            .iter()
            .filter(|name| self.filters.any("reference", |wanted| pattern::matches(wanted, name)))
            .cloned()
            .collect();
        let (tags, digests) = tags_and_digests(&shown);
        if shown.is_empty() {
            // Nameless: a step of another image is shown on request only.
            if !names.is_empty() || self.filters.contains("reference") {
                return None;
            }
            if self.dangling == Some(false) || has_children && !self.all {
                return None;
            }
        } else if self.dangling == Some(true) && !tags.is_empty() {
            return None;
        }
        Some(ImageSummary {
            id,
            parent: record.parent,
            chain: record.chain,
            created,
            tags,
            digests,
            size: record.size,
            labels: record.labels,
        })
    }
}

/// The `dangling` filter, in Docker's spellings of a boolean.
pub(crate) fn dangling(filters: &Filters) -> Result<Option<bool>, ImageError> {
    filters.boolean("dangling").map_err(|_invalid| ImageError::FilterValue {
        name: "dangling",
        value: filters.get("dangling").collect::<Vec<_>>().join(" "),
    })
}

/// The `until` filter in seconds since the epoch.
pub(crate) fn until(filters: &Filters) -> Result<Option<i64>, ImageError> {
    let Some(text) = filters.get("until").next() else { return Ok(None) };
    let time = time::parse_since(text, SystemTime::now())
        .map_err(|_malformed| ImageError::Until { text: text.to_owned() })?;
    Ok(Some(unix_seconds(Some(&time::rfc3339_nano(time)))))
}
