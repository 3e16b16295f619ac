//! The store of layers: opening it, adding, finding and removing layers.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use metadata::Store;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, syncfs};
use rustix::io::Errno;
use spec::Digest;
use sys::RootDir;

use crate::chain::chain_id;
use crate::content::Content;
use crate::erofs::{Mounts, check_layer};
use crate::error::StorageError;
use crate::layout::{Choice, Layout, Lowers};
use crate::records::{
    self, CONTAINERS, Claim, Freed, LAYERS, Layer, LayerRecord, Lease, Leases, collect, find,
    layer_place,
};
use crate::tree::errno;
use crate::unpack::{Form, InProcess, Job, Limits, Unpacked, Unpacker};
use crate::{recipe, trash};

pub(crate) const DIRECTORIES: [&str; 6] =
    ["layers", "ingest", "trash", "containers", "content", "mounts"];

/// How a store works.
#[derive(Debug)]
pub struct Options {
    pub unpacker: Box<dyn Unpacker>,
    pub limits: Limits,
    pub layout: Layout,
}

impl Default for Options {
    fn default() -> Self {
        Self { unpacker: Box::new(InProcess), limits: Limits::default(), layout: Layout::default() }
    }
}

/// The store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: RootDir,
    store: Store,
    content: Content,
    leases: Leases,
    /// Held while a layer's directory and its record come or go together.
    publish: Mutex<()>,
    reaping: Mutex<()>,
    /// Something went to the trash since it was last waited for.
    thrown: Mutex<bool>,
    thrown_away: Condvar,
    unpacker: Box<dyn Unpacker>,
    limits: Limits,
    choice: Choice,
    mounts: Mounts,
}

/// What a new layer goes on top of.
#[derive(Debug, Clone, Default)]
pub struct Base {
    pub chain: Option<Digest>,
    /// The directories of the chain; none where new layers are indexes.
    lowers: Lowers,
}

/// An unpacked layer of which nobody said yet what it goes on top of. Dropped, it is garbage.
#[derive(Debug)]
pub struct Unplaced {
    unpacked: Unpacked,
    form: Form,
    ingest: Ingest,
}

impl Unplaced {
    pub const fn diff_id(&self) -> Digest {
        self.unpacked.diff_id
    }

    /// The file that begins with the layer's tar as it came. Only where layers are
    /// [placed late](Storage::places_late).
    pub fn tar(&self) -> Result<File, StorageError> {
        let failed = || StorageError::file("open", self.ingest.path.join("tar"));
        let ingest = RootDir::open(&self.ingest.path).map_err(failed())?;
        let tar = ingest.open_strict("tar", OFlags::RDONLY, Mode::empty()).map_err(failed())?;
        Ok(tar.into())
    }
}

/// An unpacked layer that is not committed yet. Dropped, it is garbage.
#[derive(Debug)]
pub struct Staged {
    pub chain_id: Digest,
    pub diff_id: Digest,
    record: LayerRecord,
    ingest: Ingest,
    base: Base,
}

impl Staged {
    /// For a further layer on top of this one.
    pub fn base(&self) -> Base {
        let mut lowers = Lowers::default();
        if self.record.form == Form::Directory {
            if !self.record.opaque {
                lowers.clone_from(&self.base.lowers);
            }
            lowers.paths.insert(0, self.ingest.path.join("diff"));
        }
        Base { chain: Some(self.chain_id), lowers }
    }
}

/// A directory below `ingest/`. Dropped before it was committed, it goes to the trash.
#[derive(Debug)]
pub(crate) struct Ingest {
    storage: Storage,
    name: String,
    path: PathBuf,
    done: bool,
    /// Dropped after the directory is gone.
    _claim: Claim,
}

impl Ingest {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Below the root of the store.
    pub(crate) fn place(&self) -> String {
        format!("ingest/{}", self.name)
    }

    /// Moves it to its place in the store.
    pub(crate) fn put(&mut self, place: &str) -> Result<(), StorageError> {
        let root = &self.storage.0.root;
        renameat(root, self.place(), root, place).map_err(StorageError::file("create", place))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.storage.0.throw_away(&format!("ingest/{}", self.name))
        {
            tracing::debug!(name = self.name, %error, "ingest directory left for the next start");
        }
    }
}

impl Storage {
    /// Opens or makes the store below `path`, and clears away what a crash left: ingest
    /// directories, layers and containers without a record, layers that nobody holds. Nothing is
    /// deleted here, only moved to the trash.
    pub fn open(path: impl AsRef<Path>, store: Store) -> Result<Self, StorageError> {
        Self::open_with(path, store, Options::default())
    }

    pub fn open_with(
        path: impl AsRef<Path>,
        store: Store,
        options: Options,
    ) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let root = make_root(path)?;
        let mounts = Mounts::new(path, options.layout.rungs());
        let choice = match options.layout {
            Layout::Directories => Choice::Directories,
            layout => match (mounts.rung(&root), layout) {
                (Ok(rung), _) => Choice::Index(rung),
                (Err(_reason), Layout::Auto) => Choice::Directories,
                (Err(reason), _) => return Err(StorageError::NoErofs { reason }),
            },
        };
        store.adopt(LAYERS)?;
        store.adopt(CONTAINERS)?;
        let content = root.open_dir("content").map_err(StorageError::file("open", path))?;
        let storage = Self(Arc::new(Inner {
            path: path.to_owned(),
            root,
            store,
            content: Content::open(content)?,
            leases: Leases::default(),
            publish: Mutex::new(()),
            reaping: Mutex::new(()),
            thrown: Mutex::new(false),
            thrown_away: Condvar::new(),
            unpacker: options.unpacker,
            limits: options.limits,
            choice,
            mounts,
        }));
        storage.recover()?;
        Ok(storage)
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The blobs by digest: configs and manifests.
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Begins work that needs layers to stay.
    pub fn lease(&self) -> Lease {
        Lease::new(self.clone())
    }

    /// The base that `chain` is, for a layer on top of it.
    pub fn base(&self, chain: Option<&Digest>) -> Result<Base, StorageError> {
        let lowers = match chain {
            Some(chain) if self.form() == Form::Directory => self.lowers(chain)?,
            _ => Lowers::default(),
        };
        Ok(Base { chain: chain.copied(), lowers })
    }

    /// Finds a layer and keeps it for the lease, so that a later commit can rely on it. One whose
    /// files are lost is not found.
    pub fn keep(&self, lease: &mut Lease, chain: &Digest) -> Result<Option<Layer>, StorageError> {
        lease.add(*chain);
        let found = self.settled(chain)?.filter(|record| !record.lost);
        Ok(found.map(|record| to_layer(*chain, &record)))
    }

    /// The record of a layer that was leased before: it stays. A reader might still see one that
    /// is being removed at this moment.
    pub(crate) fn settled(&self, chain: &Digest) -> Result<Option<LayerRecord>, StorageError> {
        let hex = chain.hex();
        Ok(self.0.store.write(move |txn| LAYERS.get(txn, &hex))?)
    }

    /// Unpacks a tar (plain, gzip or zstd) on top of `base`. What is not `expected` is refused.
    pub fn unpack(
        &self,
        base: &Base,
        stream: &mut (dyn Read + Send),
        expected: Option<&Digest>,
    ) -> Result<Staged, StorageError> {
        self.place(base, self.unpack_over(&base.lowers.paths, stream)?, expected)
    }

    /// Whether layers are the same whatever is below them, so that [`Storage::unpack_unplaced`]
    /// can take them in.
    pub fn places_late(&self) -> bool {
        self.form() == Form::Index
    }

    /// Unpacks a tar before anybody knows what it goes on top of.
    pub fn unpack_unplaced(
        &self,
        stream: &mut (dyn Read + Send),
    ) -> Result<Unplaced, StorageError> {
        self.unpack_over(&[], stream)
    }

    fn unpack_over(
        &self,
        lowers: &[PathBuf],
        stream: &mut (dyn Read + Send),
    ) -> Result<Unplaced, StorageError> {
        let (ingest, form) = (self.ingest()?, self.form());
        let job = Job { layer: &ingest.path, form, lowers, limits: self.0.limits };
        let unpacked = self.0.unpacker.unpack(&job, stream)?;
        finish_unpacked(&ingest.path, form)?;
        Ok(Unplaced { unpacked, form, ingest })
    }

    /// Says what an unpacked layer goes on top of. What is not `expected` is refused.
    pub fn place(
        &self,
        base: &Base,
        layer: Unplaced,
        expected: Option<&Digest>,
    ) -> Result<Staged, StorageError> {
        let Unplaced { unpacked, form, ingest } = layer;
        let diff_id = unpacked.diff_id;
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            return Err(StorageError::WrongLayer { expected: *expected, actual: diff_id });
        }
        let copies = match form {
            Form::Directory => None,
            Form::Index => RootDir::open(&ingest.path)
                .map_err(std::io::Error::from)
                .and_then(|layer| crate::erofs::copies(&layer, unpacked.tar_size))
                .map_err(|error| StorageError::file("read", &ingest.path)(errno(error)))?,
        };
        let record = LayerRecord {
            diff_id,
            parent: base.chain,
            copies,
            lost: false,
            size: unpacked.size,
            tar_size: unpacked.tar_size,
            opaque: unpacked.opaque,
            form,
            holders: 0,
        };
        let chain_id = chain_id(base.chain.as_ref(), &diff_id);
        Ok(Staged { chain_id, diff_id, record, ingest, base: base.clone() })
    }

    /// Makes unpacked layers durable, bottom first: a sync of the file system, or of the few files
    /// of an index, then each is renamed into place, then one metadata commit. A crash before the
    /// renames leaves ingest directories, one after them layers without a record; both are removed
    /// at the next start.
    pub fn commit(
        &self,
        lease: &mut Lease,
        staged: Vec<Staged>,
    ) -> Result<Vec<Layer>, StorageError> {
        for layer in &staged {
            lease.add(layer.chain_id);
            write_committed(layer)?;
        }
        let layers_dir = self.0.open_readable("layers")?;
        if staged.iter().any(|layer| layer.record.form == Form::Directory) {
            syncfs(&layers_dir).map_err(StorageError::file("sync", &self.0.path))?;
        } else {
            staged.iter().try_for_each(sync_index)?;
        }
        let top = staged.last().map(|layer| layer.chain_id);
        let publish = self.publish();
        let mut records = Vec::with_capacity(staged.len());
        for mut layer in staged {
            let place = format!("layers/{}", layer.chain_id.hex());
            let from = format!("ingest/{}", layer.ingest.name);
            match renameat(&self.0.root, &from, &self.0.root, &place) {
                Ok(()) => layer.ingest.done = true,
                // Somebody else unpacked the same layer meanwhile; theirs is as good.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(StorageError::file("commit", place)(errno)),
            }
            records.push((layer.chain_id, layer.record.clone()));
        }
        rustix::fs::fsync(&layers_dir).map_err(StorageError::file("sync", &self.0.path))?;
        let layers = records.iter().map(|(chain, record)| to_layer(*chain, record)).collect();
        self.0.store.write(move |txn| -> Result<(), StorageError> {
            for (chain, record) in &records {
                match LAYERS.get(txn, &chain.hex())? {
                    Some(known) if !known.lost => continue,
                    // What refers to it stayed.
                    Some(known) => {
                        let record = LayerRecord { holders: known.holders, ..record.clone() };
                        LAYERS.put(txn, &chain.hex(), &record)?;
                        continue;
                    }
                    None => {}
                }
                if let Some(parent) = &record.parent {
                    records::hold(txn, parent)?;
                }
                LAYERS.put(txn, &chain.hex(), record)?;
            }
            Ok(())
        })?;
        drop(publish);
        if let Some(Err(error)) = top.map(|top| self.prepare_image(&top)) {
            // The first container will try again, and fail for its user to see.
            tracing::warn!(error = &error as &dyn std::error::Error, "image not prepared");
        }
        Ok(layers)
    }

    /// Unpacks and commits one layer.
    pub fn apply_layer(
        &self,
        lease: &mut Lease,
        parent: Option<&Digest>,
        stream: &mut (dyn Read + Send),
        expected: Option<&Digest>,
    ) -> Result<Layer, StorageError> {
        let staged = self.unpack(&self.base(parent)?, stream, expected)?;
        let mut layers = self.commit(lease, vec![staged])?;
        Ok(layers.remove(0))
    }

    pub fn layer(&self, chain: &Digest) -> Result<Option<Layer>, StorageError> {
        let record = self.0.store.get(LAYERS, &chain.hex())?;
        Ok(record.map(|record| to_layer(*chain, &record)))
    }

    /// The layers of a chain, bottom first.
    pub fn layers(&self, chain: &Digest) -> Result<Vec<Layer>, StorageError> {
        let view = self.0.store.begin_read()?;
        let mut layers = Vec::new();
        let mut next = Some(*chain);
        while let Some(chain) = next {
            let record = find(&view, &chain)?;
            next = record.parent;
            layers.push(to_layer(chain, &record));
        }
        layers.reverse();
        Ok(layers)
    }

    /// All layers there are.
    pub fn all_layers(&self) -> Result<Vec<Layer>, StorageError> {
        let records = self.0.store.scan(LAYERS)?;
        let layer = |(hex, record): (String, LayerRecord)| {
            Digest::from_hex(&hex).ok().map(|chain| to_layer(chain, &record))
        };
        Ok(records.into_iter().filter_map(layer).collect())
    }

    /// Writes the layer's tar, bit for bit as it came. The bytes are checked as they pass: an
    /// error after the last of them means that they are not the layer.
    pub fn write_tar(&self, chain: &Digest, output: &mut dyn Write) -> Result<(), StorageError> {
        let record = find(&self.0.store.begin_read()?, chain)?;
        record.present(chain)?;
        let damaged = |reason: String| StorageError::DataLoss { chain: *chain, reason };
        let mut output = NoticingErrors { output, failed: None };
        let rebuilt = self.tar_of(chain, &record, &mut output);
        if let Some(source) = output.failed {
            return Err(StorageError::Output { source });
        }
        let digest = rebuilt.map_err(|error| damaged(error.to_string()))?;
        if digest != record.diff_id {
            return Err(damaged(format!("its files make {digest}, not {}", record.diff_id)));
        }
        Ok(())
    }

    /// Writes the tar that the files of a layer make, and says what it is.
    pub(crate) fn tar_of(
        &self,
        chain: &Digest,
        record: &LayerRecord,
        output: &mut dyn Write,
    ) -> std::io::Result<Digest> {
        let dir = self.0.root.open_dir(layer_place(chain))?;
        match record.form {
            Form::Directory => recipe::rebuild(&dir, output),
            Form::Index => recipe::copy(&dir, record.tar_size, output),
        }
    }

    /// Moves the files of layers whose records are gone to the trash. A layer that somebody
    /// committed again meanwhile stays.
    pub fn discard(&self, freed: &[Freed]) -> Result<(), StorageError> {
        if freed.is_empty() {
            return Ok(());
        }
        let _publish = self.publish();
        let view = self.0.store.begin_read()?;
        for layer in freed {
            let hex = layer.chain_id.hex();
            if LAYERS.get(&view, &hex)?.is_none() {
                self.0.mounts.detach(&self.0.root, &hex)?;
                self.0.throw_away(&format!("layers/{hex}"))?;
            }
        }
        Ok(())
    }

    /// Removes those of `chains` that nobody holds or leases.
    pub(crate) fn collect_unheld(&self, chains: Vec<Digest>) -> Result<Vec<Freed>, StorageError> {
        if chains.is_empty() {
            return Ok(Vec::new());
        }
        let leases = self.0.leases.clone();
        let freed = self.0.store.write(move |txn| -> Result<_, StorageError> {
            let mut freed = Vec::new();
            for chain in &chains {
                freed.extend(collect(txn, chain, &leases)?);
            }
            Ok(freed)
        })?;
        self.discard(&freed)?;
        Ok(freed)
    }

    /// Deletes what was removed; for a thread of low priority. Returns the number of trees that
    /// went. One caller works, others return at once.
    pub fn reap_trash(&self) -> Result<usize, StorageError> {
        let Ok(_reaping) = self.0.reaping.try_lock() else { return Ok(0) };
        self.0.mounts.reap();
        let dir = self.0.root.open_dir("trash").map_err(StorageError::file("open", "trash"))?;
        trash::reap(&dir, &random_name()?)
            .map_err(StorageError::file("empty", self.0.path.join("trash")))
    }

    /// Waits until something was removed.
    pub fn wait_for_trash(&self) {
        let thrown = self.0.thrown.lock().unwrap_or_else(PoisonError::into_inner);
        let thrown = self.0.thrown_away.wait_while(thrown, |thrown| !*thrown);
        *thrown.unwrap_or_else(PoisonError::into_inner) = false;
    }

    pub(crate) fn ingest(&self) -> Result<Ingest, StorageError> {
        let name = random_name()?;
        let place = format!("ingest/{name}");
        let _claim = self.0.leases.claim(&place);
        mkdirat(&self.0.root, &place, Mode::from_raw_mode(0o700))
            .map_err(StorageError::file("create", &place))?;
        let path = self.0.path.join(place);
        Ok(Ingest { storage: self.clone(), name, path, done: false, _claim })
    }

    /// A file without a name on the store's disk, for data on its way in.
    pub fn spool(&self) -> Result<std::fs::File, StorageError> {
        let name = format!("ingest/{}", random_name()?);
        let _claim = self.0.leases.claim(&name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = openat(&self.0.root, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(StorageError::file("create", &name))?;
        rustix::fs::unlinkat(&self.0.root, &name, AtFlags::empty())
            .map_err(StorageError::file("unlink", &name))?;
        Ok(fd.into())
    }

    fn recover(&self) -> Result<(), StorageError> {
        for name in self.0.names("ingest")? {
            self.0.throw_away(&format!("ingest/{name}"))?;
        }
        let view = self.0.store.begin_read()?;
        // What lost its record to the quarantine is for `system check` to bring back.
        let damaged = self.0.store.damaged()?;
        let is_damaged = |table: &str, key: &str| {
            damaged.iter().any(|record| record.table == table && record.key == key)
        };
        let containers = self.0.names("containers")?;
        for id in &containers {
            let known = CONTAINERS.get(&view, id)?.is_some();
            if !known && !is_damaged(CONTAINERS.name(), id) && !self.records_were_lost() {
                self.0.throw_away(&format!("containers/{id}"))?;
            }
        }
        let mut orphans = Vec::new();
        for hex in self.0.names("layers")? {
            if LAYERS.get(&view, &hex)?.is_none() && !is_damaged(LAYERS.name(), &hex) {
                orphans.push(hex);
            }
        }
        let unheld: Vec<Digest> = LAYERS
            .scan(&view)?
            .into_iter()
            .filter(|(_, record)| record.holders == 0)
            .filter_map(|(hex, _)| Digest::from_hex(&hex).ok())
            .collect();
        if self.records_were_lost() {
            return self.adopt_layers(&orphans);
        }
        for hex in orphans {
            self.0.throw_away(&format!("layers/{hex}"))?;
        }
        for name in self.0.names("mounts")? {
            match LAYERS.get(&view, &name)? {
                Some(_) => self.0.mounts.adopt(&self.0.root, &name),
                None => self.0.mounts.detach(&self.0.root, &name)?,
            }
        }
        self.collect_unheld(unheld)?;
        self.restore_containers(&containers.into_iter().collect())
    }

    /// The metadata file was damaged and is a fresh one: absence of a record says nothing.
    pub fn records_were_lost(&self) -> bool {
        self.0.store.set_aside().is_some()
    }

    /// Makes the records of layers anew from what their directories say.
    fn adopt_layers(&self, orphans: &[String]) -> Result<(), StorageError> {
        let mut records = Vec::new();
        for hex in orphans {
            match self.0.read_committed(hex) {
                Ok(record) => records.push((hex.clone(), record)),
                Err(error) => {
                    tracing::warn!(layer = hex, %error, "layer without a record removed");
                    self.0.throw_away(&format!("layers/{hex}"))?;
                }
            }
        }
        self.0.store.write(move |txn| -> Result<(), StorageError> {
            for (hex, record) in &records {
                LAYERS.put(txn, hex, record)?;
            }
            for (_, record) in &records {
                if let Some(parent) = &record.parent {
                    // A parent that is lost makes the child unusable, not the store.
                    match records::hold(txn, parent) {
                        Ok(()) | Err(StorageError::NoLayer { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        })
    }

    /// The record of a layer as its directory has it, without holders.
    pub(crate) fn read_committed(&self, hex: &str) -> std::io::Result<LayerRecord> {
        self.0.read_committed(hex)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn root(&self) -> &RootDir {
        &self.0.root
    }

    pub(crate) fn names(&self, directory: &str) -> Result<Vec<String>, StorageError> {
        self.0.names(directory)
    }

    pub(crate) fn choice(&self) -> Choice {
        self.0.choice
    }

    fn form(&self) -> Form {
        match self.0.choice {
            Choice::Directories => Form::Directory,
            Choice::Index(_) => Form::Index,
        }
    }

    pub(crate) fn mounts(&self) -> &Mounts {
        &self.0.mounts
    }

    pub(crate) fn unpacker(&self) -> &dyn Unpacker {
        &*self.0.unpacker
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(crate) fn publish(&self) -> MutexGuard<'_, ()> {
        self.0.publish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn throw_away(&self, place: &str) -> Result<(), StorageError> {
        self.0.throw_away(place)
    }
}

impl Inner {
    /// Moves a tree to the trash, which is quick whatever its size. What is gone is gone.
    fn throw_away(&self, place: &str) -> Result<(), StorageError> {
        let trash = format!("trash/{}", random_name()?);
        match renameat(&self.root, place, &self.root, trash) {
            Ok(()) => {
                *self.thrown.lock().unwrap_or_else(PoisonError::into_inner) = true;
                self.thrown_away.notify_all();
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StorageError::file("remove", self.path.join(place))(errno)),
        }
    }

    fn open_readable(&self, name: &str) -> Result<std::os::fd::OwnedFd, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.root, name, flags, Mode::empty())
            .map_err(StorageError::file("open", self.path.join(name)))
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, StorageError> {
        let failed = || StorageError::file("list", self.path.join(directory));
        let dir = self.open_readable(directory)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read_committed(&self, hex: &str) -> std::io::Result<LayerRecord> {
        let place = format!("layers/{hex}/committed");
        let fd = self.root.open_strict(place, OFlags::RDONLY, Mode::empty())?;
        let record: LayerRecord = serde_json::from_reader(std::fs::File::from(fd))?;
        let chain = chain_id(record.parent.as_ref(), &record.diff_id);
        if chain.hex() != hex {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        Ok(record)
    }
}

fn make_root(path: &Path) -> Result<RootDir, StorageError> {
    let failed = || StorageError::file("create", path);
    std::fs::create_dir_all(path)
        .map_err(|error| failed()(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let root = RootDir::open(path).map_err(StorageError::file("open", path))?;
    // Device nodes and setuid programs of images are below: nobody else may come near them.
    rustix::fs::chmod(path, Mode::from_raw_mode(0o700)).map_err(failed())?;
    for name in DIRECTORIES {
        match mkdirat(&root, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed()(errno)),
        }
        let stat = statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
        if !crate::tree::is_directory(&stat) {
            return Err(StorageError::file("use", path.join(name))(Errno::NOTDIR));
        }
    }
    Ok(root)
}

/// Does what a confined unpacker may not, and makes sure that it left only what it should: what is
/// there becomes mounts.
pub(crate) fn finish_unpacked(path: &Path, form: Form) -> Result<(), StorageError> {
    let failed = || StorageError::file("finish", path);
    let layer = RootDir::open(path).map_err(failed())?;
    if form == Form::Index {
        return check_layer(&layer).map_err(|reason| StorageError::Unpacker { reason });
    }
    crate::tree::mark_opaque(&layer).map_err(failed())?;
    let expected = [
        ("diff", FileType::Directory),
        ("recipe", FileType::RegularFile),
        ("replaced", FileType::Directory),
    ];
    for (name, kind) in expected {
        let stat = statat(&layer, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(failed()(Errno::ISNAM));
        }
    }
    Ok(())
}

fn sync_index(layer: &Staged) -> Result<(), StorageError> {
    let path = &layer.ingest.path;
    let failed = || StorageError::file("sync", path);
    let dir = RootDir::open(path).map_err(failed())?;
    for name in ["tar", "toc", "committed", "."] {
        let file = dir.open_strict(name, OFlags::RDONLY, Mode::empty()).map_err(failed())?;
        rustix::fs::fsync(file).map_err(failed())?;
    }
    Ok(())
}

fn write_committed(layer: &Staged) -> Result<(), StorageError> {
    let failed = || StorageError::file("write", layer.ingest.path.join("committed"));
    let dir = RootDir::open(&layer.ingest.path).map_err(failed())?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&dir, "committed", flags, Mode::from_raw_mode(0o600)).map_err(failed())?;
    let json = serde_json::to_vec(&layer.record).expect("digests and numbers always serialize");
    std::fs::File::from(file)
        .write_all(&json)
        .map_err(|error| failed()(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

fn to_layer(chain_id: Digest, record: &LayerRecord) -> Layer {
    Layer {
        chain_id,
        diff_id: record.diff_id,
        parent: record.parent,
        size: record.size,
        tar_size: record.tar_size,
    }
}

pub(crate) fn random_name() -> Result<String, StorageError> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(StorageError::file("read", "random numbers"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Tells a failure of the receiver from one of the layer.
struct NoticingErrors<'output> {
    output: &'output mut dyn Write,
    failed: Option<std::io::Error>,
}

impl Write for NoticingErrors<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.write(bytes).inspect_err(|error| self.failed = Some(error.kind().into()))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}
