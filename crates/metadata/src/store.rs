//! Opening, reading and quarantine.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, RwLock};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::frame;
use crate::reserve::{Reserve, Reserving};
use crate::txn::{ReadTxn, Table, View as _, WriteTxn};
use crate::writer::{Job, Writer};

/// Pages kept in memory. The working set of a busy daemon is a few hundred KiB.
const CACHE: usize = 1 << 20;

const SCHEMA: Table<u32> = Table::new("schema");
const SCHEMA_KEY: &str = "version";
/// Key: table, a zero byte, the record's key. Value: the reason, a zero byte, the raw record.
const QUARANTINE: &str = "quarantine";

/// Brings the records of one schema version to the next.
pub type Migration = fn(&mut WriteTxn<'_>) -> Result<(), StoreError>;

/// What the running code expects. The first migration leads from version 1 to 2, and so on; the
/// version is one more than there are migrations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schema {
    pub migrations: &'static [Migration],
}

impl Schema {
    pub fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).expect("a handful") + 1
    }
}

/// A record that did not parse and was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    pub table: String,
    pub key: String,
    pub reason: String,
    /// As it was found.
    pub bytes: Vec<u8>,
}

/// The store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {
    // Dropped first: the writer's last commit needs the database.
    writer: Arc<Writer>,
    shared: Arc<Shared>,
}

/// What callers and the writer thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    path: PathBuf,
    pub(crate) reserve: Arc<Reserve>,
    /// None only while, or after, reopening failed.
    database: RwLock<Option<Database>>,
    set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens or makes the store at `path` with the first schema.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_schema(path, Schema::default())
    }

    /// Opens or makes the store at `path`. A file that is damaged is set aside and a fresh one
    /// made; a file from a newer schema, or one that another process uses, is refused untouched.
    pub fn open_schema(path: impl AsRef<Path>, schema: Schema) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let reserve = Arc::new(Reserve::beside(path));
        let (database, set_aside) = open_or_set_aside(path, &reserve)?;
        let database = migrate(path, database, schema, &reserve)?;
        reserve.refill();
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            reserve,
            database: RwLock::new(Some(database)),
            set_aside,
        });
        let writer = Writer::start(&shared).map_err(file_error("start the writer of", path))?;
        Ok(Self { writer: Arc::new(writer), shared })
    }

    /// Checks every record of `table` and moves those that do not parse to the quarantine. Each
    /// owner of a table calls this once, before it reads.
    pub fn adopt<V>(&self, table: Table<V>) -> Result<(), StoreError>
    where
        V: Serialize + DeserializeOwned + 'static,
    {
        let records = self.begin_read()?.range(table.name(), "")?;
        let damaged: Vec<_> = records
            .into_iter()
            .filter_map(|(key, bytes)| {
                frame::decode::<V>(&bytes).err().map(|reason| (key, bytes, reason))
            })
            .collect();
        if damaged.is_empty() {
            return Ok(());
        }
        self.write(move |txn| {
            for (key, bytes, reason) in damaged {
                let place = format!("{}\0{key}", table.name());
                let entry = [reason.as_bytes(), b"\0", &bytes].concat();
                txn.change(QUARANTINE, &place, Some(entry));
                table.remove(txn, &key);
            }
            Ok(())
        })
    }

    /// The records in quarantine, from this and earlier runs.
    pub fn damaged(&self) -> Result<Vec<DamagedRecord>, StoreError> {
        let records = self.begin_read()?.range(QUARANTINE, "")?;
        let name = |(place, entry): (String, Vec<u8>)| {
            let (table, key) = place.split_once('\0').unwrap_or(("", &place));
            let end = entry.iter().position(|byte| *byte == 0).unwrap_or(entry.len());
            let reason = &entry[..end];
            DamagedRecord {
                bytes: entry.get(end + 1..).unwrap_or_default().to_vec(),
                table: table.to_owned(),
                key: key.to_owned(),
                reason: String::from_utf8_lossy(reason).into_owned(),
            }
        };
        Ok(records.into_iter().map(name).collect())
    }

    /// Removes a record from the quarantine; the caller has it elsewhere now.
    pub fn forget_damaged(&self, record: &DamagedRecord) -> Result<(), StoreError> {
        let place = format!("{}\0{}", record.table, record.key);
        self.write(move |txn| {
            txn.change(QUARANTINE, &place, None);
            Ok(())
        })
    }

    /// Where the damaged file went, when this run had to begin with a fresh one.
    pub fn set_aside(&self) -> Option<&Path> {
        self.shared.set_aside.as_deref()
    }

    /// Starts reading: one consistent picture for as long as the value lives.
    pub fn begin_read(&self) -> Result<ReadTxn, StoreError> {
        self.shared.with_database(ReadTxn::begin)
    }

    pub fn get<V>(&self, table: Table<V>, key: &str) -> Result<Option<V>, StoreError>
    where
        V: Serialize + DeserializeOwned,
    {
        table.get(&self.begin_read()?, key)
    }

    pub fn scan<V>(&self, table: Table<V>) -> Result<Vec<(String, V)>, StoreError>
    where
        V: Serialize + DeserializeOwned,
    {
        table.scan(&self.begin_read()?)
    }

    /// Runs `work` in a transaction and returns once its changes are on the disk. Writers that
    /// come at the same time share the sync. `work` must be quick: all others wait for it.
    pub fn write<R, E>(
        &self,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_waiting(true, work)
    }

    /// Like [`Store::write`], for facts that a power cut may take back: returns as soon as every
    /// reader sees them.
    pub fn write_relaxed<R, E>(
        &self,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_waiting(false, work)
    }

    /// Like [`Store::write`], but returns at once; `then` is called by the writer thread with the
    /// result, after the sync, and must not block.
    pub fn write_then<R, E>(
        &self,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
        then: impl FnOnce(Result<R, E>) + Send + 'static,
    ) where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.send(Job::new(true, work, then));
    }

    fn write_waiting<R, E>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        // The receiver below lives until it has the answer, so the send cannot fail.
        let reply = move |result| drop(answer.send(result));
        self.writer.send(Job::new(durable, work, reply));
        answered.recv().unwrap_or_else(|_closed| Err(StoreError::Closed.into()))
    }
}

impl Shared {
    pub(crate) fn with_database<R>(
        &self,
        work: impl FnOnce(&Database) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let database = self.database.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(database.as_ref().ok_or(StoreError::Closed)?)
    }

    /// Opens the file again after redb gave up on it. Called by the writer thread only, and again
    /// by its next failure: while it does not succeed, everything answers `Closed`.
    pub(crate) fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *database = None;
        *database = open_database(&self.path, &self.reserve).ok();
    }
}

fn open_database(path: &Path, reserve: &Arc<Reserve>) -> Result<Database, DatabaseError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let opened = options.open(path).and_then(|file| {
        // The store knows what the daemon knows, registry names and container secrets included.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        Ok(file)
    });
    let file = opened.map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
    let backend = Reserving { file: FileBackend::new(file)?, reserve: Arc::clone(reserve) };
    Database::builder()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
}

/// Opens the file, or makes it; one that is damaged makes room for a fresh one. A crash between
/// the two leaves no file: a new store.
fn open_or_set_aside(
    path: &Path,
    reserve: &Arc<Reserve>,
) -> Result<(Database, Option<PathBuf>), StoreError> {
    if !path.exists() {
        make(path, reserve)?;
    }
    let error = match try_open(path, reserve) {
        Ok(database) => return Ok((database, None)),
        Err(error) => error,
    };
    match &error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            return Err(StoreError::Locked { path: path.to_owned() });
        }
        DatabaseError::Storage(StorageError::Io(io))
            if io.kind() != ErrorKind::InvalidData && io.kind() != ErrorKind::UnexpectedEof =>
        {
            return Err(open_error(path, error));
        }
        _ => {}
    }
    let aside = free_name(path, "damaged");
    std::fs::rename(path, &aside).map_err(file_error("set aside", path))?;
    sync_parent(path)?;
    make(path, reserve)?;
    let database = open_database(path, reserve).map_err(|error| open_error(path, error))?;
    Ok((database, Some(aside)))
}

/// Makes the file beside its place and moves it there when it is whole. A power cut while redb
/// writes its first pages leaves them under the other name, where nobody takes them for records
/// that were damaged; the next start begins again.
fn make(path: &Path, reserve: &Arc<Reserve>) -> Result<(), StoreError> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(file_error("remove", &new)(error));
        }
        _ => drop(open_database(&new, reserve).map_err(|error| open_error(&new, error))?),
    }
    // redb syncs data only.
    File::open(&new).and_then(|file| file.sync_all()).map_err(file_error("sync", &new))?;
    std::fs::rename(&new, path).map_err(file_error("create", path))?;
    sync_parent(path)
}

/// A plain `create`, with redb's assertions about the file turned into the error they mean.
fn try_open(path: &Path, reserve: &Arc<Reserve>) -> Result<Database, DatabaseError> {
    let open = std::panic::AssertUnwindSafe(|| open_database(path, reserve));
    std::panic::catch_unwind(open).unwrap_or_else(|_panic| {
        Err(DatabaseError::Storage(StorageError::Corrupted("redb panicked".to_owned())))
    })
}

fn migrate(
    path: &Path,
    database: Database,
    schema: Schema,
    reserve: &Arc<Reserve>,
) -> Result<Database, StoreError> {
    let known = schema.version();
    let found = SCHEMA.get(&ReadTxn::begin(&database)?, SCHEMA_KEY);
    let found = match found {
        // An unreadable version is taken for the current one; records that then do not parse go
        // to the quarantine one by one.
        Err(StoreError::Damaged { .. }) => None,
        other => other?,
    };
    match found {
        Some(found) if found == known => return Ok(database),
        Some(found) if found > known => {
            return Err(StoreError::Newer { path: path.to_owned(), found, known });
        }
        _ => {}
    }
    let database = match found {
        Some(found) => back_up(path, database, found, reserve)?,
        None => database,
    };
    let txn = database.begin_write().map_err(StoreError::access("migrate"))?;
    let mut changes = WriteTxn::new(&txn);
    let done = found.map_or(schema.migrations.len(), |found| found as usize - 1);
    for step in &schema.migrations[done..] {
        step(&mut changes)?;
    }
    SCHEMA.put(&mut changes, SCHEMA_KEY, &known)?;
    changes.apply()?;
    txn.commit().map_err(StoreError::access("migrate"))?;
    Ok(database)
}

/// Copies the closed file before anything is changed in it.
fn back_up(
    path: &Path,
    database: Database,
    found: u32,
    reserve: &Arc<Reserve>,
) -> Result<Database, StoreError> {
    drop(database);
    let copy = PathBuf::from(format!("{}.schema-{found}", path.display()));
    std::fs::copy(path, &copy).map_err(file_error("back up", path))?;
    File::open(&copy).and_then(|file| file.sync_all()).map_err(file_error("sync", &copy))?;
    sync_parent(path)?;
    open_database(path, reserve).map_err(|error| open_error(path, error))
}

fn free_name(path: &Path, word: &str) -> PathBuf {
    (1..)
        .map(|number: u32| PathBuf::from(format!("{}.{word}-{number}", path.display())))
        .find(|name| !name.exists())
        .expect("fewer than 2^32 damaged files")
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(file_error("sync", parent))
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    StoreError::Open { path: path.to_owned(), source: Arc::new(error.into()) }
}

fn file_error(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { attempt, path, source: Arc::new(source) }
}
