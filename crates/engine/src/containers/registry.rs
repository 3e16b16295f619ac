//! Which containers there are: by id, by name, by a prefix of the id.
//!
//! One short lock, never held across a wait. A name is taken before the container exists
//! ([`Registry::reserve`]) so that two creates cannot both have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use spec::{ContainerName, Id};

use super::snapshot::Container;
use crate::errors::{ContainerError, Error, NoSuchContainer, Result};

#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<Index>);

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<Id, Arc<Container>>,
    by_name: HashMap<ContainerName, Id>,
    /// Those that may have links.
    linking: BTreeSet<Id>,
}

impl Index {
    fn find_by_name(&self, name: &str) -> Option<Arc<Container>> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id)).cloned()
    }

    /// `web/db`: what `web` knows as `db`.
    fn find_by_link(&self, path: &str) -> Option<Arc<Container>> {
        let (parent, alias) = path.split_once('/')?;
        let parent = self.find_by_name(parent)?.snapshot();
        let link = parent.definition.link(alias)?;
        self.by_id.get(&link.target).cloned().or_else(|| self.find_by_name(&link.name))
    }
}

/// A name that is taken for a container to come. Given back when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    registry: &'a Registry,
    pub name: ContainerName,
    kept: bool,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a container by full id, name (a leading slash is allowed) or unambiguous prefix of
    /// its id, in this order.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let index = self.read();
        if let Some(container) = index.by_id.get(reference) {
            return Ok(Arc::clone(container));
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(container) = index.find_by_name(name) {
            return Ok(container);
        }
        if let Some(target) = index.find_by_link(name) {
            return Ok(target);
        }
        if reference.is_empty() {
            return Err(no_such(reference));
        }
        let start = (std::ops::Bound::Included(reference), std::ops::Bound::Unbounded);
        let mut matches = index
            .by_id
            .range::<str, _>(start)
            .take_while(|(id, _)| id.as_str().starts_with(reference))
            .map(|(_, container)| container);
        match (matches.next(), matches.next()) {
            (None, _) => Err(no_such(reference)),
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                let prefix = reference.to_owned();
                Err(ContainerError::AmbiguousPrefix { prefix }.into())
            }
        }
    }

    /// By its own name alone.
    pub(crate) fn find_by_name(&self, name: &str) -> Option<Arc<Container>> {
        self.read().find_by_name(name)
    }

    /// Those that have links to others, or had.
    pub(crate) fn linking(&self) -> Vec<Arc<Container>> {
        let index = self.read();
        index.linking.iter().filter_map(|id| index.by_id.get(id).cloned()).collect()
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Takes `name` for `id`, or says who has it.
    pub(crate) fn reserve(&self, name: ContainerName, id: &Id) -> Result<Reservation<'_>> {
        let mut index = self.write();
        if let Some(holder) = index.by_name.get(&name) {
            let (name, holder) = (name.to_string(), holder.clone());
            return Err(ContainerError::NameInUse { name, holder }.into());
        }
        index.by_name.insert(name.clone(), id.clone());
        Ok(Reservation { registry: self, name, kept: false })
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut index = self.write();
        let definition = Arc::clone(&container.snapshot().definition);
        if !definition.links.is_empty() {
            index.linking.insert(container.id.clone());
        }
        index.by_name.insert(definition.name.clone(), container.id.clone());
        index.by_id.insert(container.id.clone(), container);
    }

    /// After the links of a container that is known were changed.
    pub(crate) fn note_links(&self, container: &Container) {
        if !container.snapshot().definition.links.is_empty() {
            self.write().linking.insert(container.id.clone());
        }
    }

    pub(crate) fn release_name(&self, name: &ContainerName) {
        self.write().by_name.remove(name);
    }

    pub(crate) fn remove(&self, container: &Container) {
        let name = container.snapshot().definition.name.clone();
        let mut index = self.write();
        index.by_id.remove(&container.id);
        index.linking.remove(&container.id);
        index.by_name.remove(&name);
    }
}

impl Reservation<'_> {
    /// The container exists; the name is its own.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.release_name(&self.name);
        }
    }
}

pub(crate) fn no_such(reference: &str) -> Error {
    ContainerError::NotFound(NoSuchContainer { reference: reference.to_owned() }).into()
}
