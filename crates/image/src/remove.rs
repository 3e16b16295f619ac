//! `docker rmi` and `docker image prune`, with Docker's rules and words.
//!
//! A name is removed first; the image goes with its last name, unless a container uses it or
//! another image was built on it. Removing is one transaction (names, record, layers' holders);
//! the files go afterwards. A crash in between leaves files without records, which the next
//! start clears away.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use metadata::{ReadTxn, View as _};
use spec::{Digest, Filters, Reference};
use storage::Freed;

use crate::error::ImageError;
use crate::images::{Images, record, resolve, unix_seconds};
use crate::list::{dangling, until};
use crate::records::{IMAGES, ImageId, ImageRecord, Names, REFERENCES, key};

/// A line of what `docker rmi` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, in familiar form.
    Untagged(String),
    /// An image id or the chain id of a layer.
    Deleted(Digest),
}

/// A container that uses an image; a running one if there is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub container: String,
    pub running: bool,
}

pub type InUse<'a> = dyn Fn(&ImageId) -> Option<Use> + 'a;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    pub removed: Vec<Removed>,
    /// Bytes in layers that went.
    pub reclaimed: u64,
}

/// What a removal will do; decided first, done in one transaction.
#[derive(Debug, Default)]
struct Plan {
    names: Vec<Reference>,
    images: Vec<(ImageId, ImageRecord)>,
    removed: Vec<Removed>,
}

/// The state a removal is decided on.
struct Picture<'a> {
    view: ReadTxn,
    names: Names,
    in_use: &'a InUse<'a>,
    force: bool,
    prune: bool,
    plan: Plan,
}

impl Images {
    /// Removes a name, or an image with all its names when `text` is an id. `prune` also removes
    /// nameless parents that nothing needs any more.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        prune: bool,
        in_use: &InUse<'_>,
    ) -> Result<Vec<Removed>, ImageError> {
        let _editing = self.edit();
        let view = self.store().begin_read()?;
        let id = resolve(&view, text)?;
        let names = Names::read(&view)?;
        let mut picture = Picture { view, names, in_use, force, prune, plan: Plan::default() };
        picture.decide(&id, text)?;
        Ok(self.carry_out(picture.plan)?.0)
    }

    /// Removes images that no container uses: the nameless ones, or (`dangling=false`) all.
    /// Further filters: `label`, `label!`, `until`, and our own `keep-last`, which spares the
    /// newest images of each repository.
    pub fn prune(&self, filters: &Filters, in_use: &InUse<'_>) -> Result<PruneReport, ImageError> {
        filters.validate(&["dangling", "keep-last", "label", "label!", "until"])?;
        let only_dangling = dangling(filters)?.unwrap_or(true);
        let keep_last = keep_last(filters)?;
        if only_dangling && keep_last.is_some() {
            return Err(ImageError::KeepLast);
        }
        let until = until(filters)?;
        let _editing = self.edit();
        let mut report = PruneReport::default();
        let view = self.store().begin_read()?;
        let names = Names::read(&view)?;
        let records = IMAGES.scan(&view)?;
        let parents: HashSet<_> = records.iter().filter_map(|(_, it)| it.parent).collect();
        let newest = keep_last.map(|count| newest(&records, &names, count)).unwrap_or_default();
        for (hex, record) in records {
            let Ok(id) = Digest::from_hex(&hex) else { continue };
            let label = |name: &str| record.labels.as_ref()?.get(name).map(String::as_str);
            let names = names.of(&id);
            let kept = only_dangling && !names.is_empty()
                || names.is_empty() && parents.contains(&id)
                || newest.contains(&id)
                || until.is_some_and(|until| unix_seconds(record.created.as_deref()) > until)
                || !filters.matches_labels("label", label)
                || filters.contains("label!") && filters.matches_labels("label!", label)
                || in_use(&id).is_some();
            if kept {
                continue;
            }
            let (removed, freed) = self.prune_one(&id, &names, in_use)?;
            report.removed.extend(removed);
            report.reclaimed += freed.iter().map(|layer| layer.size).sum::<u64>();
        }
        Ok(report)
    }

    /// Removes one image by all its names, or by its id; what refuses stays, without a word.
    fn prune_one(
        &self,
        id: &ImageId,
        names: &[Reference],
        in_use: &InUse<'_>,
    ) -> Result<(Vec<Removed>, Vec<Freed>), ImageError> {
        let mut texts: Vec<_> = names.iter().map(Reference::familiar).collect();
        if texts.is_empty() {
            texts.push(id.to_string());
        }
        let (mut removed, mut freed) = (Vec::new(), Vec::new());
        for text in texts {
            let view = self.store().begin_read()?;
            let names = Names::read(&view)?;
            let plan = Plan::default();
            let mut picture = Picture { view, names, in_use, force: false, prune: true, plan };
            // A name that went with the one before, or an image that is needed.
            if picture.view.bytes("images", &id.hex())?.is_none() {
                break;
            }
            match picture.decide(id, &text) {
                Ok(()) => {}
                Err(ImageError::Conflict { .. } | ImageError::ReferenceInUse { .. }) => continue,
                Err(error) => return Err(error),
            }
            let done = self.carry_out(picture.plan)?;
            removed.extend(done.0);
            freed.extend(done.1);
        }
        Ok((removed, freed))
    }

    fn carry_out(&self, plan: Plan) -> Result<(Vec<Removed>, Vec<Freed>), ImageError> {
        let Plan { names, images, mut removed } = plan;
        let ids: Vec<_> = images.iter().map(|(id, _)| *id).collect();
        let leases = self.storage.leases().clone();
        let freed = self.store().write(move |txn| -> Result<_, ImageError> {
            for name in &names {
                REFERENCES.remove(txn, &key(name));
            }
            let mut freed = Vec::new();
            for (id, record) in &images {
                IMAGES.remove(txn, &id.hex());
                if let Some(chain) = &record.chain {
                    freed.extend(storage::release(txn, chain, &leases)?);
                }
            }
            Ok(freed)
        })?;
        for id in ids {
            self.storage.content().remove(&id)?;
        }
        self.storage.discard(&freed)?;
        removed.extend(freed.iter().map(|layer| Removed::Deleted(layer.chain_id)));
        Ok((removed, freed))
    }
}

impl Picture<'_> {
    fn decide(&mut self, id: &ImageId, text: &str) -> Result<(), ImageError> {
        let names = self.names.of(id);
        if is_id_prefix(id, text) {
            if one_repository(&names) {
                self.check(id, &names, !self.force, false)?;
                self.untag_all(&names);
                return self.delete(id, &[], false);
            }
            return self.delete(id, &names, false);
        }
        self.decide_name(id, text, names)
    }

    fn decide_name(
        &mut self,
        id: &ImageId,
        text: &str,
        mut names: Vec<Reference>,
    ) -> Result<(), ImageError> {
        if !self.force
            && one_repository(&names)
            && let Some(user) = (self.in_use)(id)
        {
            return Err(ImageError::ReferenceInUse {
                reference: text.to_owned(),
                container: short(&user.container),
                image: short(&id.hex()),
            });
        }
        let wanted = Reference::parse(text)?.or_latest();
        let wanted_key = key(&wanted);
        names.retain(|name| key(name) != wanted_key);
        self.untag(&wanted);
        let repository = wanted.full_name();
        let in_repository = |name: &&Reference| name.full_name() == repository;
        let tag_left = names.iter().filter(in_repository).any(|name| name.digest.is_none());
        if wanted.digest.is_none() && !tag_left {
            // The digests of a repository go with its last tag.
            let (gone, left): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| in_repository(&name));
            self.untag_all(&gone);
            names = left;
        }
        if !names.is_empty() {
            return Ok(());
        }
        self.delete(id, &[], true)
    }

    /// Deletes an image that has (still) these names, and with `prune` the parents it leaves
    /// without purpose. `quiet`: the wish was to remove a name, and that happens in any case.
    fn delete(&mut self, id: &ImageId, names: &[Reference], quiet: bool) -> Result<(), ImageError> {
        match self.check(id, names, !self.force, true) {
            Ok(()) => {}
            // The name is gone; that the image stays for a container or a child is no error.
            Err(ImageError::Conflict { .. }) if quiet => return Ok(()),
            Err(error) => return Err(error),
        }
        self.untag_all(names);
        let record = record(&self.view, id)?;
        let parent = record.parent;
        self.plan.images.push((*id, record));
        self.plan.removed.push(Removed::Deleted(*id));
        match parent {
            Some(parent) if self.prune => self.prune_parent(&parent),
            _ => Ok(()),
        }
    }

    fn prune_parent(&mut self, parent: &ImageId) -> Result<(), ImageError> {
        if IMAGES.get(&self.view, &parent.hex())?.is_none() {
            return Ok(());
        }
        let names = self.names.of(parent);
        if !names.is_empty() {
            return Ok(());
        }
        let force = std::mem::take(&mut self.force);
        let outcome = self.delete(parent, &[], true);
        self.force = force;
        outcome
    }

    /// Docker's order: children, running containers; then, unless forced, names and stopped
    /// containers.
    fn check(
        &self,
        id: &ImageId,
        names: &[Reference],
        soft: bool,
        count_names: bool,
    ) -> Result<(), ImageError> {
        let conflict =
            |hard, reason| Err(ImageError::Conflict { image: short(&id.hex()), hard, reason });
        let going = |image: &str| self.plan.images.iter().any(|(id, _)| id.hex() == image);
        let children = IMAGES.scan(&self.view)?;
        if children.iter().any(|(hex, child)| child.parent == Some(*id) && !going(hex)) {
            return conflict(true, "image has dependent child images".to_owned());
        }
        let user = (self.in_use)(id);
        if let Some(user) = user.as_ref().filter(|user| user.running) {
            let container = short(&user.container);
            return conflict(true, format!("image is being used by running container {container}"));
        }
        if !soft {
            return Ok(());
        }
        if count_names && !names.is_empty() {
            return conflict(false, "image is referenced in multiple repositories".to_owned());
        }
        if let Some(user) = user {
            let container = short(&user.container);
            return conflict(
                false,
                format!("image is being used by stopped container {container}"),
            );
        }
        Ok(())
    }

    fn untag_all(&mut self, names: &[Reference]) {
        for name in names {
            self.untag(name);
        }
    }

    fn untag(&mut self, name: &Reference) {
        self.plan.removed.push(Removed::Untagged(name.familiar()));
        self.plan.names.push(name.clone());
    }
}

/// Whether the names are of one repository, with at most one tag among them.
fn one_repository(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest.is_none()).count();
    let same = names.windows(2).all(|pair| pair[0].full_name() == pair[1].full_name());
    tags <= 1 && same
}

/// How many images of each repository stay.
fn keep_last(filters: &Filters) -> Result<Option<usize>, ImageError> {
    let values: Vec<_> = filters.get("keep-last").collect();
    let count = match values.as_slice() {
        [] if !filters.contains("keep-last") => return Ok(None),
        [text] => text.parse().ok().filter(|count| *count > 0),
        _ => None,
    };
    let invalid = || ImageError::FilterValue { name: "keep-last", value: values.join(" ") };
    count.map(Some).ok_or_else(invalid)
}

/// The newest images of each repository: by the time they were made, and where that is the same,
/// as it is for builds that can be repeated, by the time they got a name.
fn newest(records: &[(String, ImageRecord)], names: &Names, count: usize) -> HashSet<ImageId> {
    let mut repositories: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (hex, record) in records {
        let Ok(id) = Digest::from_hex(hex) else { continue };
        let of: BTreeSet<_> = names.of(&id).iter().map(Reference::full_name).collect();
        let age = (unix_seconds(record.created.as_deref()), record.tagged.clone(), id);
        of.into_iter().for_each(|name| repositories.entry(name).or_default().push(age.clone()));
    }
    let kept = repositories.into_values().flat_map(|mut images| {
        images.sort_by(|one, other| other.cmp(one));
        images.into_iter().take(count).map(|(_, _, id)| id)
    });
    kept.collect()
}

fn is_id_prefix(id: &ImageId, text: &str) -> bool {
    id.to_string().starts_with(text) || id.hex().starts_with(text)
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
