//! Reading and writing tables inside a transaction.
//!
//! Many closures share one redb transaction (see `writer`). Each collects its changes in a
//! [`WriteTxn`] of its own and they reach redb only when it returns `Ok`: one that fails leaves
//! nothing behind and disturbs none of its neighbours.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::frame;

/// A table by name: strings to values of one type. Constant, free to copy.
pub struct Table<V> {
    name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Table<V> {}

impl<V> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

/// Something tables can be read from.
pub trait View {
    fn bytes(&self, table: &'static str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All records whose key starts with `prefix`, in key order.
    fn range(
        &self,
        table: &'static str,
        prefix: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub fn get(&self, view: &impl View, key: &str) -> Result<Option<V>, StoreError> {
        let bytes = view.bytes(self.name, key)?;
        bytes.map(|bytes| self.decode(key, &bytes)).transpose()
    }

    /// All records, in key order.
    pub fn scan(&self, view: &impl View) -> Result<Vec<(String, V)>, StoreError> {
        self.scan_prefix(view, "")
    }

    /// The records whose key starts with `prefix`, in key order.
    pub fn scan_prefix(
        &self,
        view: &impl View,
        prefix: &str,
    ) -> Result<Vec<(String, V)>, StoreError> {
        let records = view.range(self.name, prefix)?;
        let decode = |(key, bytes): (String, Vec<u8>)| {
            let value = self.decode(&key, &bytes)?;
            Ok((key, value))
        };
        records.into_iter().map(decode).collect()
    }

    pub fn put(&self, txn: &mut WriteTxn<'_>, key: &str, value: &V) -> Result<(), StoreError> {
        let bytes = frame::encode(value).map_err(|source| StoreError::Encode {
            table: self.name,
            key: key.to_owned(),
            source: Arc::new(source),
        })?;
        txn.change(self.name, key, Some(bytes));
        Ok(())
    }

    pub fn remove(&self, txn: &mut WriteTxn<'_>, key: &str) {
        txn.change(self.name, key, None);
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<V, StoreError> {
        frame::decode(bytes).map_err(|reason| StoreError::Damaged {
            table: self.name.to_owned(),
            key: key.to_owned(),
            reason,
        })
    }
}

pub(crate) const fn definition(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

/// A consistent picture of the store.
pub struct ReadTxn(redb::ReadTransaction);

impl fmt::Debug for ReadTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadTxn")
    }
}

impl ReadTxn {
    pub(crate) fn begin(database: &redb::Database) -> Result<Self, StoreError> {
        database.begin_read().map(Self).map_err(StoreError::access("read"))
    }
}

impl View for ReadTxn {
    fn bytes(&self, table: &'static str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.open_table(definition(table)) {
            Ok(table) => get(&table, key),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::access("read")(error)),
        }
    }

    fn range(
        &self,
        table: &'static str,
        prefix: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        match self.0.open_table(definition(table)) {
            Ok(table) => range(&table, prefix),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(StoreError::access("read")(error)),
        }
    }
}

type Changes = BTreeMap<&'static str, BTreeMap<String, Option<Vec<u8>>>>;

/// One closure's view of the shared transaction: everything before it, and its own changes.
pub struct WriteTxn<'base> {
    base: &'base redb::WriteTransaction,
    changes: Changes,
}

impl fmt::Debug for WriteTxn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTxn").field("tables", &self.changes.keys()).finish_non_exhaustive()
    }
}

impl<'base> WriteTxn<'base> {
    pub(crate) fn new(base: &'base redb::WriteTransaction) -> Self {
        Self { base, changes: Changes::new() }
    }

    pub(crate) fn change(&mut self, table: &'static str, key: &str, value: Option<Vec<u8>>) {
        self.changes.entry(table).or_default().insert(key.to_owned(), value);
    }

    /// Moves the collected changes into the shared transaction. Returns by how many bytes the
    /// records grew; none when there was no change.
    pub(crate) fn apply(self) -> Result<Option<i64>, StoreError> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let failed = StoreError::access::<redb::StorageError>;
        let length = |bytes: &[u8]| i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let mut growth = 0;
        for (name, changes) in self.changes {
            let mut table =
                self.base.open_table(definition(name)).map_err(StoreError::access("write"))?;
            for (key, value) in changes {
                let old = match &value {
                    Some(bytes) => table.insert(key.as_str(), bytes.as_slice()),
                    None => table.remove(key.as_str()),
                };
                let old = old.map_err(failed("write"))?.map_or(0, |old| length(old.value()));
                growth += value.as_deref().map_or(0, length) - old;
            }
        }
        Ok(Some(growth))
    }
}

impl View for WriteTxn<'_> {
    fn bytes(&self, table: &'static str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(change) = self.changes.get(table).and_then(|changes| changes.get(key)) {
            return Ok(change.clone());
        }
        let table = self.base.open_table(definition(table)).map_err(StoreError::access("read"))?;
        get(&table, key)
    }

    fn range(
        &self,
        table: &'static str,
        prefix: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let opened = self.base.open_table(definition(table)).map_err(StoreError::access("read"))?;
        let mut records: BTreeMap<_, _> = range(&opened, prefix)?.into_iter().collect();
        for (key, change) in self.changes.get(table).into_iter().flatten() {
            match change {
                Some(bytes) if key.starts_with(prefix) => {
                    records.insert(key.clone(), bytes.clone());
                }
                _ => drop(records.remove(key)),
            }
        }
        Ok(records.into_iter().collect())
    }
}

type Opened<'a> = &'a dyn ErasedTable;

/// What `get` and `range` need of redb's two table types.
trait ErasedTable {
    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, redb::StorageError>;
    fn from(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, redb::StorageError>;
}

impl<T: ReadableTable<&'static str, &'static [u8]>> ErasedTable for T {
    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, redb::StorageError> {
        Ok(ReadableTable::get(self, key)?.map(|guard| guard.value().to_vec()))
    }

    fn from(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, redb::StorageError> {
        let mut records = Vec::new();
        for record in ReadableTable::range(self, prefix..)? {
            let (key, value) = record?;
            if !key.value().starts_with(prefix) {
                break;
            }
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(records)
    }
}

fn get(table: Opened<'_>, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    table.value(key).map_err(StoreError::access("read"))
}

fn range(table: Opened<'_>, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    table.from(prefix).map_err(StoreError::access("read"))
}
