//! Writes the states of containers behind: a start and an exit within a tenth of a second cost
//! one write for all containers, and a container that was removed in the meantime none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metadata::{Store, StoreError, WriteTxn};
use spec::Id;
use tokio::sync::{Notify, oneshot};

use super::record::{DEFINITIONS, Progress, STATES};

/// How long changes gather.
const DELAY: Duration = Duration::from_millis(100);

/// Offset in `exits.log` up to which exits are reflected in the written states.
const OFFSETS: metadata::Table<u64> = metadata::Table::new("supervisor");
const EXITS_SEEN: &str = "exits_seen";

#[derive(Debug, Default)]
pub(crate) struct Persist {
    changed: Mutex<Changed>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Changed {
    states: HashMap<Id, Progress>,
    exits_seen: Option<u64>,
}

impl Persist {
    fn changed(&self) -> std::sync::MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, id: &Id, progress: &Progress) {
        self.changed().states.insert(id.clone(), progress.clone());
        self.wake.notify_one();
    }

    /// The container is gone; its last state is not to come back.
    pub(crate) fn forget(&self, id: &Id) {
        self.changed().states.remove(id);
    }

    /// Exits up to here were told to their containers, whose states follow in the same write or
    /// an earlier one.
    pub(crate) fn note_exits(&self, offset: u64) {
        self.changed().exits_seen = Some(offset);
        self.wake.notify_one();
    }

    /// What an earlier run wrote.
    pub(crate) fn exits_seen(store: &Store) -> u64 {
        match store.get(OFFSETS, EXITS_SEEN) {
            Ok(offset) => offset.unwrap_or_default(),
            Err(error) => {
                // All exits are told again; old ones change nothing.
                tracing::warn!(%error, "read how many exits were seen");
                0
            }
        }
    }

    /// Writes for as long as it is polled. Dropped between two writes it loses at most what
    /// [`Self::flush`] then writes.
    pub(crate) async fn run(&self, store: &Store) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(DELAY).await;
            if let Err(error) = self.flush(store).await {
                tracing::error!(%error, "write the states of containers");
            }
        }
    }

    /// Writes what has gathered, durably: a relaxed commit would not outlive our own process.
    pub(crate) async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut *self.changed());
        if changed.states.is_empty() && changed.exits_seen.is_none() {
            return Ok(());
        }
        let (done, is_done) = oneshot::channel();
        let write = move |txn: &mut WriteTxn<'_>| {
            for (id, progress) in &changed.states {
                // Removed between the gathering and now: the removal is the last word.
                if DEFINITIONS.get(txn, id.as_str())?.is_some() {
                    STATES.put(txn, id.as_str(), progress)?;
                }
            }
            match changed.exits_seen {
                Some(offset) => OFFSETS.put(txn, EXITS_SEEN, &offset),
                None => Ok(()),
            }
        };
        // Nobody waits any more when the daemon goes; the write is done all the same.
        store.write_then(write, move |result| drop(done.send(result)));
        is_done.await.unwrap_or(Ok(()))
    }
}
