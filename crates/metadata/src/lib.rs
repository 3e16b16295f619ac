//! The daemon's records on disk: typed tables in one transactional file.
//!
//! ```text
//! metadata.redb               the store (redb: copy-on-write B-trees, checksummed pages)
//! metadata.redb.reserve       room for a full disk (see `reserve`)
//! metadata.redb.damaged-<n>   a store that could not be opened, set aside
//! metadata.redb.schema-<n>    the copy made before a migration from schema <n>
//! ```
//!
//! Inside, each [`Table`] maps strings to JSON values framed by a checksum ([`frame`]). Two more
//! tables are the store's own: `schema` (its version) and `quarantine` (records that did not
//! parse). Damage never stops [`Store::open`]; it is named by [`Store::damaged`] and
//! [`Store::set_aside`].
//!
//! All writes go through one thread that puts everything waiting into one synced commit, so that
//! fifty parallel creates cost a few syncs. Start reading at [`Store`].

mod error;
mod frame;
mod reserve;
mod store;
mod txn;
mod writer;

pub use error::StoreError;
pub use store::{DamagedRecord, Migration, Schema, Store};
pub use txn::{ReadTxn, Table, View, WriteTxn};
