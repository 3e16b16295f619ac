//! Who needs which layer: the records, and counting them inside other people's transactions.
//!
//! A layer is held by each image whose top it is, by each container on it and by each layer right
//! above it; `holders` is that number, changed in the transaction that makes or removes the
//! holder. A layer without holders goes in the same transaction, unless a [`Lease`] (in memory: a
//! running load or pull) has it; then it goes when the lease ends, or when the store is next
//! opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metadata::{Store, StoreError, Table, View, WriteTxn};
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
    #[serde(default)]
    pub(crate) holders: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    pub chain_id: Digest,
    pub size: u64,
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
        if record.holders > 0 || leases.has(&chain_id) {
            break;
        }
        LAYERS.remove(txn, &chain_id.hex());
        freed.push(Freed { chain_id, size: record.size });
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

/// Layers that running work needs although no record says so yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

impl Leases {
    fn has(&self, chain: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(chain)
    }

    fn add(&self, chain: Digest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(chain).or_default() += 1;
    }

    fn remove(&self, chain: &Digest) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = leases.get_mut(chain) {
            *count -= 1;
            if *count == 0 {
                leases.remove(chain);
            }
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
    pub(crate) fn add(&mut self, chain: Digest) {
        self.storage.leases().add(chain);
        self.chains.push(chain);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for chain in &self.chains {
            self.storage.leases().remove(chain);
        }
        // Children first, so that one pass frees a whole stack.
        let chains: Vec<_> = self.chains.drain(..).rev().collect();
        if let Err(error) = self.storage.collect_unheld(chains) {
            tracing::warn!(error = &error as &dyn std::error::Error, "leased layers not removed");
        }
    }
}

/// The chains among `chains` that nobody holds.
pub(crate) fn unheld(store: &Store, chains: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
    let view = store.begin_read()?;
    let mut found = Vec::new();
    for chain in chains {
        if LAYERS.get(&view, &chain.hex())?.is_some_and(|record| record.holders == 0) {
            found.push(chain);
        }
    }
    Ok(found)
}
