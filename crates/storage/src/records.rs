//! Who needs which layer: the records, and counting them inside other people's transactions.
//!
//! A layer is held by each image whose top it is, by each container on it and by each layer right
//! above it; `holders` is that number, changed in the transaction that makes or removes the
//! holder. A layer without holders goes in the same transaction, unless a [`Lease`] (in memory: a
//! running load or pull) has it; then it goes when the lease ends, or when the store is next
//! opened.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metadata::{ReadTxn, Store, StoreError, Table, View, WriteTxn};
use serde::{Deserialize, Serialize};
use spec::Digest;

use crate::error::StorageError;
use crate::unpack::Form;

/// Key: the hexadecimal chain id.
pub(crate) const LAYERS: Table<LayerRecord> = Table::new("layers");
/// Key: the container's id.
pub(crate) const CONTAINERS: Table<ContainerRecord> = Table::new("container_layers");

/// Also the content of `<layer>/committed`, there with `holders` 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    pub(crate) parent: Option<Digest>,
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
    #[serde(default)]
    pub(crate) opaque: bool,
    #[serde(default)]
    pub(crate) form: Form,
    /// Of what a one-file layer has behind its tar; none where there is nothing.
    #[serde(default)]
    pub(crate) copies: Option<Digest>,
    /// Its files are missing or were set aside as damaged: [`crate::Storage::commit`] brings it back.
    #[serde(default)]
    pub(crate) lost: bool,
    /// Records that refer to it: images, layers on top, containers.
    #[serde(default)]
    pub(crate) holders: u64,
}

impl LayerRecord {
    /// Of a layer of which nothing is left.
    pub(crate) fn lost(diff_id: Digest, parent: Option<Digest>) -> Self {
        Self {
            diff_id,
            parent,
            size: 0,
            tar_size: 0,
            opaque: false,
            form: Form::default(),
            copies: None,
            lost: true,
            holders: 0,
        }
    }

    /// Fails for a layer whose files are lost.
    pub(crate) fn present(&self, chain: &Digest) -> Result<(), StorageError> {
        if self.lost { Err(StorageError::Lost { chain: *chain }) } else { Ok(()) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) chain: Option<Digest>,
    /// Images that it mounts.
    #[serde(default)]
    pub(crate) mounted: Vec<Digest>,
}

/// A committed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub chain_id: Digest,
    pub diff_id: Digest,
    pub parent: Option<Digest>,
    /// Bytes in files, as Docker counts them.
    pub size: u64,
    /// Length of the plain tar.
    pub tar_size: u64,
}

/// A layer whose record is gone. Its files are the receiver's to give to
/// [`crate::Storage::discard`] once the transaction is committed.
#[derive(Debug)]
pub struct Freed {
    pub chain_id: Digest,
    pub size: u64,
    _claim: Claim,
}

pub(crate) fn find(view: &impl View, chain: &Digest) -> Result<LayerRecord, StorageError> {
    let record = LAYERS.get(view, &chain.hex())?;
    record.ok_or(StorageError::NoLayer { chain: *chain })
}

/// Adds a holder to a layer.
pub fn hold(txn: &mut WriteTxn<'_>, chain: &Digest) -> Result<(), StorageError> {
    let mut record = find(txn, chain)?;
    record.holders += 1;
    LAYERS.put(txn, &chain.hex(), &record)?;
    Ok(())
}

/// Adds the holder that a layer must have had, if it has none at all: its record was lost and made
/// anew.
pub fn hold_again(txn: &mut WriteTxn<'_>, chain: &Digest) -> Result<(), StorageError> {
    match LAYERS.get(txn, &chain.hex())? {
        Some(record) if record.holders == 0 => hold(txn, chain),
        _ => Ok(()),
    }
}

/// Takes a holder away and with the last one the layer, and so on downwards.
pub fn release(
    txn: &mut WriteTxn<'_>,
    chain: &Digest,
    leases: &Leases,
) -> Result<Vec<Freed>, StoreError> {
    let Some(mut record) = LAYERS.get(txn, &chain.hex())? else { return Ok(Vec::new()) };
    record.holders = record.holders.saturating_sub(1);
    LAYERS.put(txn, &chain.hex(), &record)?;
    collect(txn, chain, leases)
}

/// Removes a layer that nobody holds or leases; its parent loses a holder by that.
pub(crate) fn collect(
    txn: &mut WriteTxn<'_>,
    chain: &Digest,
    leases: &Leases,
) -> Result<Vec<Freed>, StoreError> {
    let mut freed = Vec::new();
    let mut next = Some(*chain);
    while let Some(chain_id) = next {
        let Some(record) = LAYERS.get(txn, &chain_id.hex())? else { break };
        if record.holders > 0 || leases.defers(&chain_id) {
            break;
        }
        LAYERS.remove(txn, &chain_id.hex());
        let _claim = leases.claim(layer_place(&chain_id));
        freed.push(Freed { chain_id, size: record.size, _claim });
        next = record.parent;
        if let Some(parent) = &record.parent
            && let Some(mut below) = LAYERS.get(txn, &parent.hex())?
        {
            below.holders = below.holders.saturating_sub(1);
            LAYERS.put(txn, &parent.hex(), &below)?;
        }
    }
    Ok(freed)
}

/// What running work has in hand: layers that it needs although no record says so, and places
/// whose files and record are not in line at the moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<Held>>);

#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    layers: HashMap<Digest, usize>,
    /// Leased layers that lost their last holder: their last lease removes them.
    waiting: HashSet<Digest>,
    /// Below the root of the store.
    places: HashMap<String, usize>,
}

impl Held {
    pub(crate) fn has(&self, place: &str) -> bool {
        let layer = place.strip_prefix("layers/").and_then(|hex| Digest::from_hex(hex).ok());
        self.places.contains_key(place)
            || layer.is_some_and(|chain| self.layers.contains_key(&chain))
    }
}

/// Says while it lives that somebody is at work on a place: its files come before their record, or
/// go after it. Taken before the first of the two changes, dropped after the last.
#[derive(Debug)]
pub struct Claim {
    leases: Leases,
    place: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        count_down(&mut self.leases.lock().places, &self.place);
    }
}

pub(crate) fn layer_place(chain: &Digest) -> String {
    format!("layers/{}", chain.hex())
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer without holders must stay; then its last lease is told.
    fn defers(&self, chain: &Digest) -> bool {
        let mut held = self.lock();
        let leased = held.layers.contains_key(chain);
        if leased {
            held.waiting.insert(*chain);
        }
        leased
    }

    fn add(&self, chain: Digest) {
        *self.lock().layers.entry(chain).or_default() += 1;
    }

    /// True when a transaction that has begun, and that readers may not see yet, left the layer
    /// to this lease.
    fn remove(&self, chain: &Digest) -> bool {
        let mut held = self.lock();
        count_down(&mut held.layers, chain);
        !held.layers.contains_key(chain) && held.waiting.remove(chain)
    }

    pub(crate) fn claim(&self, place: impl Into<String>) -> Claim {
        let place = place.into();
        *self.lock().places.entry(place.clone()).or_default() += 1;
        Claim { leases: self.clone(), place }
    }

    /// Looks at a place, and may change it, while nobody is at work on it; nothing is done when
    /// somebody is. New work waits, so `work` must be quick.
    pub(crate) fn at_rest<T>(&self, place: &str, work: impl FnOnce() -> T) -> Option<T> {
        let held = self.lock();
        (!held.has(place)).then(work)
    }

    /// A picture of the records, and of what was in hand at that very moment.
    pub(crate) fn picture(&self, store: &Store) -> Result<(ReadTxn, Held), StoreError> {
        let held = self.lock();
        Ok((store.begin_read()?, held.clone()))
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Keeps layers while it lives. Dropping it removes those that nobody came to hold.
#[derive(Debug)]
pub struct Lease {
    pub(crate) storage: crate::Storage,
    chains: Vec<Digest>,
}

impl Lease {
    pub(crate) const fn new(storage: crate::Storage) -> Self {
        Self { storage, chains: Vec::new() }
    }

    /// Keeps `chain` from now on, whether it exists already or not.
    pub fn add(&mut self, chain: Digest) {
        self.storage.leases().add(chain);
        self.chains.push(chain);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Without a holder and without a lease, but not forgotten.
        let leases = self.storage.leases().clone();
        let _going: Vec<_> =
            self.chains.iter().map(|chain| leases.claim(layer_place(chain))).collect();
        let left: HashSet<_> =
            self.chains.iter().copied().filter(|chain| leases.remove(chain)).collect();
        // Children first, so that one pass frees a whole stack.
        let chains: Vec<_> = self.chains.drain(..).rev().collect();
        let store = self.storage.store();
        let removed = unheld(store, &chains).map_err(StorageError::from).and_then(|unheld| {
            let wanted = |chain: &Digest| left.contains(chain) || unheld.contains(chain);
            self.storage.collect_unheld(chains.into_iter().filter(wanted).collect())
        });
        if let Err(error) = removed {
            tracing::warn!(error = &error as &dyn std::error::Error, "leased layers not removed");
        }
    }
}

/// The chains among `chains` that nobody holds.
fn unheld(store: &Store, chains: &[Digest]) -> Result<HashSet<Digest>, StoreError> {
    let view = store.begin_read()?;
    let mut found = HashSet::new();
    for chain in chains {
        if LAYERS.get(&view, &chain.hex())?.is_some_and(|record| record.holders == 0) {
            found.insert(*chain);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::Storage;

    /// A store with a layer that has one holder, and who makes it go: the transaction waits, where
    /// it has done its work and nobody sees that yet, until `go`.
    fn release_slowly(
        storage: &Storage,
        chain: Digest,
        go: impl Fn(&Leases) -> bool + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let (begun, has_begun) = channel();
        let storage = storage.clone();
        let releasing = thread::spawn(move || {
            let leases = storage.leases().clone();
            let freed = storage.store().write(move |txn| {
                let freed = release(txn, &chain, &leases);
                begun.send(()).unwrap();
                while !go(&leases) {
                    thread::yield_now();
                }
                freed
            });
            storage.discard(&freed.unwrap()).unwrap();
        });
        has_begun.recv().unwrap();
        releasing
    }

    fn with_layer(test: impl FnOnce(Storage, Lease, Digest)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("m")).unwrap();
        let storage = Storage::open(dir.path().join("s"), store).unwrap();
        let mut lease = storage.lease();
        let layer = storage.apply_layer(&mut lease, None, &mut &[0; 1024][..], None).unwrap();
        let chain = layer.chain_id;
        storage.store().write(move |txn| hold(txn, &chain)).unwrap();
        test(storage, lease, chain);
    }

    #[test]
    fn the_last_lease_removes_what_the_last_holder_left_to_it() {
        with_layer(|storage, lease, chain| {
            let releasing = release_slowly(&storage, chain, move |leases| {
                !leases.lock().layers.contains_key(&chain)
            });
            drop(lease);
            releasing.join().unwrap();
            assert_eq!(storage.layer(&chain).unwrap(), None);
            assert!(storage.names("layers").unwrap().is_empty());
        });
    }

    #[test]
    fn what_is_being_removed_is_not_kept() {
        with_layer(|storage, lease, chain| {
            drop(lease);
            let releasing = release_slowly(&storage, chain, move |leases| {
                leases.lock().layers.contains_key(&chain)
            });
            let mut lease = storage.lease();
            assert_eq!(storage.keep(&mut lease, &chain).unwrap(), None);
            releasing.join().unwrap();
        });
    }

    #[test]
    fn a_place_where_somebody_works_is_let_alone() {
        let leases = Leases::default();
        let [first, second] = [leases.claim("ingest/a"), leases.claim("ingest/a")];
        drop(first);
        assert_eq!(leases.at_rest("ingest/a", || ()), None);
        assert_eq!(leases.at_rest("ingest/b", || ()), Some(()));
        drop(second);
        assert_eq!(leases.at_rest("ingest/a", || ()), Some(()));
        let chain = crate::chain::sha256(b"a");
        leases.add(chain);
        assert_eq!(leases.at_rest(&layer_place(&chain), || ()), None);
        assert!(!leases.remove(&chain));
        assert_eq!(leases.at_rest(&layer_place(&chain), || ()), Some(()));
    }
}
