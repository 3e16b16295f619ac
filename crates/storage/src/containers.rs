//! Writable layers of containers: `containers/<id>/upper` and `work`.
//!
//! Making one is three `mkdir`s, a rename and a record; removing one is a rename and a record. The
//! record (`container_layers`) is what counts: a directory without one is removed at the next start.
//! The making is not synced, as nothing is in it yet: a record whose directory a power cut took gets
//! a fresh, empty one at the next start. What is there is whole, for it was renamed into place.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use metadata::{StoreError, View, WriteTxn};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, statat,
};
use rustix::io::Errno;
use spec::Digest;
use sys::RootDir;

use crate::erofs::InUse;
use crate::error::StorageError;
use crate::layout::Lowers;
use crate::records::{self, CONTAINERS, Claim, ContainerRecord, Freed, Leases};
use crate::storage::Storage;

/// What to give overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayDirs {
    /// Top first; empty for a container without an image.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// Keeps `lower` where it is.
    pub(crate) _in_use: InUse,
}

impl OverlayDirs {
    pub(crate) fn new(lower: Lowers, container: &Path) -> Self {
        let (upper, work) = (container.join("upper"), container.join("work"));
        Self { lower: lower.paths, upper, work, _in_use: lower.in_use }
    }
}

/// The record of a container's layer, for the transaction that makes the container. The
/// directories come from [`Storage::prepare_container`], before or after. `mounted` are images that
/// the container has besides its own.
pub fn add_container(
    txn: &mut WriteTxn<'_>,
    id: &str,
    chain: Option<&Digest>,
    mounted: &[Digest],
) -> Result<(), StorageError> {
    for chain in chain.into_iter().chain(mounted) {
        records::hold(txn, chain)?;
    }
    let record = ContainerRecord { chain: chain.copied(), mounted: mounted.to_vec() };
    CONTAINERS.put(txn, id, &record)?;
    Ok(())
}

/// Takes the record away, in the transaction that removes the container. What it returns goes to
/// [`Storage::discard_container`] after the commit.
pub fn drop_container(
    txn: &mut WriteTxn<'_>,
    id: &str,
    leases: &Leases,
) -> Result<Vec<Freed>, StoreError> {
    let record = CONTAINERS.get(txn, id)?;
    CONTAINERS.remove(txn, id);
    let mut freed = Vec::new();
    if let Some(record) = record {
        for chain in record.chain.iter().chain(&record.mounted) {
            freed.extend(records::release(txn, chain, leases)?);
        }
    }
    Ok(freed)
}

/// The containers that have a layer.
pub fn container_ids(view: &impl View) -> Result<Vec<String>, StoreError> {
    Ok(CONTAINERS.scan(view)?.into_iter().map(|(id, _)| id).collect())
}

impl Storage {
    /// Makes the writable layer of a container on top of `chain`, record included.
    pub fn create_container(&self, id: &str, chain: Option<&Digest>) -> Result<(), StorageError> {
        let _claim = self.claim_container(id);
        self.prepare_container(id, chain)?;
        let (id, chain) = (id.to_owned(), chain.copied());
        self.store().write(move |txn| add_container(txn, &id, chain.as_ref(), &[]))
    }

    /// Says that somebody makes or removes a container: its files and its record are not in line.
    pub fn claim_container(&self, id: &str) -> Claim {
        self.leases().claim(format!("containers/{id}"))
    }

    /// Whether nobody makes or removes the container, and there is none.
    pub fn is_no_container(&self, id: &str) -> Result<bool, StorageError> {
        let look = || self.store().get(CONTAINERS, id);
        let found = self.leases().at_rest(&format!("containers/{id}"), look).transpose()?;
        Ok(matches!(found, Some(None)))
    }

    /// Makes the directories of a container. The root is like that of the image's top layer.
    pub fn prepare_container(&self, id: &str, chain: Option<&Digest>) -> Result<(), StorageError> {
        check_id(id)?;
        let mut making = self.ingest()?;
        let failed = |attempt| StorageError::file(attempt, making.path());
        let private = Mode::from_raw_mode(0o700);
        let dir = self.root().open_dir(making.place()).map_err(failed("open"))?;
        mkdirat(&dir, "work", private).map_err(failed("create"))?;
        mkdirat(&dir, "upper", private).map_err(failed("create"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = openat(&dir, "upper", flags, Mode::empty()).map_err(failed("open"))?;
        let (mode, owner) = match chain {
            Some(chain) => {
                let top = self.lowers(chain)?;
                let top = &top.paths[0];
                let top = RootDir::open(top).map_err(StorageError::file("open", top))?;
                let stat = fstat(&top).map_err(failed("read the root of"))?;
                (stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid))
            }
            None => (0o755, (0, 0)),
        };
        fchown(&upper, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
            .map_err(failed("set the owner of"))?;
        fchmod(&upper, Mode::from_raw_mode(mode)).map_err(failed("set the mode of"))?;
        making.put(&format!("containers/{id}"))
    }

    /// Makes the directories that a power cut took. A container that cannot have one shows it when
    /// it is started.
    pub(crate) fn restore_containers(&self, there: &HashSet<String>) -> Result<(), StorageError> {
        for (id, record) in self.store().scan(CONTAINERS)? {
            if there.contains(&id) {
                continue;
            }
            match self.prepare_container(&id, record.chain.as_ref()) {
                Ok(()) => tracing::info!(container = id, "writable layer made again"),
                Err(error) => {
                    tracing::warn!(container = id, %error, "writable layer not made again");
                }
            }
        }
        Ok(())
    }

    /// The directories that would be mounted, for show: nothing is mounted or made.
    pub fn rootfs_names(&self, id: &str) -> Result<OverlayDirs, StorageError> {
        let place = self.path().join("containers").join(id);
        let lower = match self.container(id)?.chain {
            Some(chain) => self.lower_names(&chain)?,
            None => Lowers::default(),
        };
        Ok(OverlayDirs::new(lower, &place))
    }

    pub(crate) fn chain_lowers(&self, chain: Option<&Digest>) -> Result<Lowers, StorageError> {
        chain.map_or(Ok(Lowers::default()), |chain| self.lowers(chain))
    }

    /// The directories to mount. Those that a power cut took are made again, empty.
    pub fn rootfs(&self, id: &str) -> Result<OverlayDirs, StorageError> {
        let record = self.container(id)?;
        let place = self.path().join("containers").join(id);
        let upper = place.join("upper");
        match statat(self.root(), format!("containers/{id}/upper"), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                self.throw_away(&format!("containers/{id}"))?;
                self.prepare_container(id, record.chain.as_ref())?;
            }
            Err(errno) => return Err(StorageError::file("look up", upper)(errno)),
        }
        let lower = self.chain_lowers(record.chain.as_ref())?;
        Ok(OverlayDirs::new(lower, &place))
    }

    /// The image layers a container is on; none for an empty one.
    pub fn container_chain(&self, id: &str) -> Result<Option<Digest>, StorageError> {
        Ok(self.container(id)?.chain)
    }

    /// Removes a container's layer, record included. Quick: the files go later, with the trash.
    pub fn remove_container(&self, id: &str) -> Result<(), StorageError> {
        check_id(id)?;
        let _claim = self.claim_container(id);
        let (name, leases) = (id.to_owned(), self.leases().clone());
        let freed = self.store().write(move |txn| drop_container(txn, &name, &leases))?;
        self.discard_container(id, &freed)
    }

    /// Moves what belonged to a removed container to the trash.
    pub fn discard_container(&self, id: &str, freed: &[Freed]) -> Result<(), StorageError> {
        check_id(id)?;
        self.throw_away(&format!("containers/{id}"))?;
        self.discard(freed)
    }

    /// Bytes in files of the writable layer, each inode once: Docker's `SizeRw`.
    pub fn size(&self, id: &str) -> Result<u64, StorageError> {
        self.container(id)?;
        let dir = self.open_container(id)?;
        let upper = dir
            .open_dir("upper")
            .map_err(StorageError::file("open", self.path().join("containers").join(id)))?;
        tree_size(&upper).map_err(StorageError::file("measure", self.path().join(id)))
    }

    pub(crate) fn open_container(&self, id: &str) -> Result<RootDir, StorageError> {
        check_id(id)?;
        let place = format!("containers/{id}");
        self.root().open_dir(&place).map_err(StorageError::file("open", self.path().join(place)))
    }

    pub(crate) fn container(&self, id: &str) -> Result<ContainerRecord, StorageError> {
        let record = self.store().get(CONTAINERS, id)?;
        record.ok_or_else(|| StorageError::NoContainer { id: id.to_owned() })
    }
}

/// An id is a file name here. Callers pass ids of 64 digits; build steps have names of their own.
fn check_id(id: &str) -> Result<(), StorageError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
        return Err(StorageError::NoContainer { id: id.to_owned() });
    }
    Ok(())
}

/// Sums up a tree that its container may be changing; what vanishes meanwhile is not counted.
pub fn tree_size(top: &RootDir) -> rustix::io::Result<u64> {
    let mut size = 0;
    let mut seen = HashSet::new();
    let mut stack = vec![PathBuf::new()];
    while let Some(path) = stack.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match top.open_strict(&path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other?,
        };
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                stack.push(path.join(crate::changes::os_name(entry.file_name())));
            } else if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
                size += stat.st_size.cast_unsigned();
            }
        }
    }
    Ok(size)
}
