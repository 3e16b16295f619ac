//! The mounts of merged images: which way this kernel can, making them, finding them again.
//!
//! A mount is attached at `mounts/<chain id>`, in the namespace of the daemon, where overlays of
//! containers find it. Overlay keeps a copy, so a moment after the last one was made the mounts
//! leave the namespace again, and are kept by a descriptor: all containers of an image share one
//! file system and its page cache, and the host's table of mounts is as it was. The directory
//! `mounts` is meanwhile a private mount of its own, so that nothing here appears in other
//! namespaces. What a kill leaves attached is used again; a daemon that ends takes all along, which
//! containers do not notice. Nothing here needs to be durable: what is missing is made again from
//! the tables of contents.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, fstatfs, mkdirat, openat, renameat, statx,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use spec::Digest;
use sys::RootDir;
use sys::mount::{Change, MountAttrFlags, Propagation};
use sys::overlay::Overlay;

use super::image::{self, Options};
use super::model::{Attributes, Body, Data, Directory, Extent, Inode, ROOT, Tree};
use super::{BLOCK, merge, toc};
use crate::error::StorageError;
use crate::unpack::Form;

/// The merged image, in the directory of its topmost layer.
pub(crate) const IMAGE: &str = "root.erofs";
/// The directory of the probe: `image`, `data`, `empty/`, `mount/`.
const PROBE: &str = "probe";
const PRIVATE: Mode = Mode::from_raw_mode(0o700);

/// A way of mounting images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    /// Files as they are: kernel 6.12.
    Files,
    /// Through a loop device for each file.
    Loops,
}

impl Rung {
    fn mount(self, image: &File, data: &[File]) -> rustix::io::Result<OwnedFd> {
        let data: Vec<_> = data.iter().map(AsFd::as_fd).collect();
        match self {
            Self::Files => sys::erofs::mount_files(image, &data),
            Self::Loops => sys::erofs::mount_loops(image, &data),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Mounts {
    path: PathBuf,
    /// The ways to try, in order.
    rungs: Vec<Rung>,
    rung: OnceLock<Result<Rung, String>>,
    /// Held while one is being mounted.
    mounted: Mutex<Mounted>,
    attached: Condvar,
    /// One more for everybody who needs mounts at their places.
    in_use: InUse,
    /// Mounts that were taken away, kept from ending: the kernel then lets go of every cached page,
    /// and whoever closes the last descriptor waits.
    ending: Mutex<Vec<OwnedFd>>,
}

#[derive(Debug, Default)]
struct Mounted {
    images: HashMap<Digest, Place>,
    /// When somebody asked for one last; none when all have been put aside since.
    asked: Option<Instant>,
}

#[derive(Debug)]
enum Place {
    Attached,
    Aside(OwnedFd),
}

/// While it lives, mounts of images stay where they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InUse(Arc<()>);

/// How long mounts that nobody uses stay for the next container: longer than the time between two
/// of a script, too short for anybody to see them.
const IDLE: Duration = Duration::from_millis(20);

/// Layers that one image is made of, and what it goes on.
#[derive(Debug)]
pub(crate) struct Run {
    /// Bottom first, one at least.
    pub(crate) layers: Vec<Digest>,
    /// Directories of the layers further down, top first.
    pub(crate) lowers: Vec<PathBuf>,
    /// Where the lowest layer hides all below it: what that is, top first. Its root may still be
    /// the one that the layer's is like.
    pub(crate) hidden: Vec<(Digest, Form)>,
}

impl Run {
    fn top(&self) -> &Digest {
        self.layers.last().expect("a run has layers")
    }
}

impl Mounts {
    /// For the store at `path`, trying the ways given in their order.
    pub(crate) fn new(path: &Path, rungs: &[Rung]) -> Self {
        Self {
            path: path.to_owned(),
            rungs: rungs.to_vec(),
            rung: OnceLock::new(),
            mounted: Mutex::default(),
            attached: Condvar::new(),
            in_use: InUse::default(),
            ending: Mutex::default(),
        }
    }

    /// The way this kernel can, found out by doing it; or why there is none.
    pub(crate) fn rung(&self, root: &RootDir) -> Result<Rung, String> {
        self.rung.get_or_init(|| self.probe(root)).clone()
    }

    pub(crate) fn place(&self, chain: &Digest) -> PathBuf {
        self.path.join("mounts").join(chain.hex())
    }

    pub(crate) fn use_them(&self) -> InUse {
        self.in_use.clone()
    }

    fn mounted(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts what `run` makes, unless that is done already; says where. It is there as long as
    /// the caller [uses](Mounts::use_them) it.
    pub(crate) fn ensure(&self, root: &RootDir, run: &Run) -> Result<PathBuf, StorageError> {
        let top = run.top();
        let place = self.place(top);
        let mut mounted = self.mounted();
        if mounted.asked.replace(Instant::now()).is_none() {
            self.attached.notify_all();
        }
        if let Some(Place::Attached) = mounted.images.get(top) {
            return Ok(place);
        }
        let rung = self.rung(root).map_err(|reason| StorageError::NoErofs { reason })?;
        let failed = |attempt| StorageError::file(attempt, place.clone());
        own_directory(root, "mounts").map_err(failed("prepare"))?;
        let target = make_target(root, &top.hex()).map_err(failed("create"))?;
        if !is_image(&target).map_err(failed("look at"))? {
            let mount = match mounted.images.remove(top) {
                Some(Place::Aside(mount)) => mount,
                _ => {
                    let image = Image::open_or_build(root, run)?;
                    rung.mount(&image.file, &image.data).map_err(failed("mount"))?
                }
            };
            sys::mount::attach(mount, target).map_err(failed("attach"))?;
        }
        mounted.images.insert(*top, Place::Attached);
        Ok(place)
    }

    /// Takes over what a killed daemon left attached.
    pub(crate) fn adopt(&self, root: &RootDir, name: &str) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let place = root.open_strict(format!("mounts/{name}"), flags, Mode::empty());
        let Ok(chain) = Digest::from_hex(name) else { return };
        if place.and_then(|place| is_image(&place)).unwrap_or(false) {
            let mut mounted = self.mounted();
            mounted.images.insert(chain, Place::Attached);
            mounted.asked = Some(Instant::now());
        }
    }

    /// Waits until there are mounts that nobody has used for a moment, and takes them out of the
    /// namespace.
    pub(crate) fn put_aside_when_idle(&self, root: &RootDir) {
        let waited = self.attached.wait_while(self.mounted(), |mounted| mounted.asked.is_none());
        let mut mounted = waited.unwrap_or_else(PoisonError::into_inner);
        while self.is_used() || mounted.asked.is_some_and(|asked| asked.elapsed() < IDLE) {
            let waited = self.attached.wait_timeout(mounted, IDLE);
            mounted = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        mounted.asked = None;
        for (chain, image) in &mut mounted.images {
            if let Place::Attached = image {
                match self.copy_of(root, chain) {
                    Ok(mount) => *image = Place::Aside(mount),
                    Err(errno) => {
                        // The next container mounts it anew.
                        tracing::debug!(%chain, %errno, "keep the mount of an image");
                    }
                }
            }
        }
        mounted.images.retain(|_, image| matches!(image, Place::Aside(_)));
        self.leave_namespace();
    }

    fn is_used(&self) -> bool {
        Arc::strong_count(&self.in_use.0) > 1
    }

    fn copy_of(&self, root: &RootDir, chain: &Digest) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let place = root.open_strict(format!("mounts/{}", chain.hex()), flags, Mode::empty())?;
        sys::mount::clone_tree(place, false)
    }

    /// Makes the image of `run`, for a later [`Mounts::ensure`] to find.
    pub(crate) fn build(&self, root: &RootDir, run: &Run) -> Result<(), StorageError> {
        Image::open_or_build(root, run).map(drop)
    }

    /// Takes the mount of a layer away that is about to be removed. Whoever uses it keeps it.
    pub(crate) fn detach(&self, root: &RootDir, name: &str) -> Result<(), StorageError> {
        let known = Digest::from_hex(name).ok().and_then(|chain| {
            let place = self.mounted().images.remove(&chain)?;
            match place {
                Place::Aside(mount) => Some(mount),
                Place::Attached => None,
            }
        });
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let attached = root.open_strict(format!("mounts/{name}"), flags, Mode::empty()).ok();
        let ending = known.into_iter().chain(attached);
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).extend(ending);
        let place = self.path.join("mounts").join(name);
        match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(StorageError::file("unmount", place)(errno)),
        }
        match unlinkat(root, format!("mounts/{name}"), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StorageError::file("remove", place)(errno)),
        }
    }

    /// Lets mounts end that were taken away; for a thread of low priority.
    pub(crate) fn reap(&self) {
        let ending =
            std::mem::take(&mut *self.ending.lock().unwrap_or_else(PoisonError::into_inner));
        drop(ending);
    }

    fn probe(&self, root: &RootDir) -> Result<Rung, String> {
        let mut reasons = Vec::new();
        for rung in &self.rungs {
            match self.try_rung(root, *rung) {
                Ok(()) => return Ok(*rung),
                Err(reason) => reasons.push(format!("{rung:?}: {reason}").to_lowercase()),
            }
        }
        Err(if reasons.is_empty() { "not asked for".to_owned() } else { reasons.join("; ") })
    }

    /// Mounts an image with a file in a second file, and reads that as a container would.
    fn try_rung(&self, root: &RootDir, rung: Rung) -> Result<(), String> {
        // What a killed daemon left.
        self.end_probe();
        let outcome = self.try_in(root, rung);
        self.end_probe();
        outcome
    }

    fn end_probe(&self) {
        let place = self.path.join(PROBE);
        match unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => tracing::debug!(%errno, "the probe's mounts stay"),
        }
    }

    /// Writes nothing that an earlier start has written: on a full disk, too, it has to be known
    /// what the kernel can.
    fn try_in(&self, root: &RootDir, rung: Rung) -> Result<(), String> {
        let failed = |attempt: &'static str| move |errno: Errno| format!("{attempt}: {errno}");
        for directory in ["", "/empty", "/mount"] {
            match mkdirat(root, format!("{PROBE}{directory}"), PRIVATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("create")(errno)),
            }
        }
        let content: Vec<u8> = (0..5000u32).map(|at| (at % 251) as u8).collect();
        let mut data = vec![0; PROBE_BLOCKS as usize * BLOCK as usize];
        data[BLOCK as usize..][..content.len()].copy_from_slice(&content);
        // Read-only, as the kernel opens them.
        let image = kept(root, "image", &probe_image(content.len() as u64));
        let image = image.map_err(|why| why.to_string())?;
        let data = kept(root, "data", &data).map_err(|why| why.to_string())?;
        let mount = rung.mount(&image, &[data]).map_err(failed("mount"))?;
        own_directory(root, PROBE).map_err(failed("prepare"))?;
        let place = format!("{PROBE}/mount");
        let target = root.open_strict(&place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let target = target.map_err(failed("open"))?;
        sys::mount::attach(mount, target).map_err(failed("attach"))?;
        let (upper, lower) = (self.path.join(place), self.path.join(PROBE).join("empty"));
        // Without a writable part, for which overlay would make a directory.
        let overlay = Overlay { lower: vec![&upper, &lower], upper: None, volatile: false };
        let merged = crate::export::mount(&overlay, MountAttrFlags::MOUNT_ATTR_RDONLY);
        let merged = merged.map_err(failed("mount an overlay"))?;
        let file = openat(&merged, "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut read = Vec::new();
        File::from(file.map_err(failed("open"))?)
            .read_to_end(&mut read)
            .map_err(|why| why.to_string())?;
        if read == content { Ok(()) } else { Err("what was read is not what is there".to_owned()) }
    }
}

/// Makes a directory below the root a private mount, once: what is mounted in it appears in no
/// other namespace.
fn own_directory(root: &RootDir, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(root, name, flags, Mode::empty())?;
    let stat = statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(());
    }
    let mount = sys::mount::clone_tree(&directory, false)?;
    sys::mount::attach(mount, &directory)?;
    let mounted = openat(root, name, flags, Mode::empty())?;
    let private = Change {
        set: MountAttrFlags::empty(),
        propagation: Some(Propagation::Private),
        recursive: false,
    };
    sys::mount::change(mounted, &private)
}

/// A file of the probe, written unless it is there as it should be; opened for reading. A crash
/// leaves a part of it, which the next probe takes for what it is.
fn kept(root: &RootDir, name: &str, bytes: &[u8]) -> std::io::Result<File> {
    let place = format!("{PROBE}/{name}");
    let open = || root.open_strict(&place, OFlags::RDONLY, Mode::empty()).map(File::from);
    let mut found = Vec::new();
    let there = open().is_ok_and(|file| {
        file.take(bytes.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == bytes
    });
    if !there {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
        File::from(root.open_strict(&place, flags, Mode::from_raw_mode(0o600))?)
            .write_all(bytes)?;
    }
    Ok(open()?)
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.unmount();
    }
}

impl Mounts {
    /// Takes all mounts away; they come back when they are asked for.
    pub(crate) fn unmount(&self) {
        let mut mounted = self.mounted();
        mounted.images.clear();
        self.leave_namespace();
    }

    fn leave_namespace(&self) {
        let directory = self.path.join("mounts");
        match unmount(&directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There were none.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
            Err(errno) => tracing::debug!(%errno, "mounts of images left behind"),
        }
    }
}

const PROBE_BLOCKS: u64 = 16;

/// `file`, whose content is in the data file from block 1 on.
fn probe_image(size: u64) -> Vec<u8> {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    let mut tree = Tree::new(Inode::directory(attributes, Directory::default()));
    let body = Body::File(Data { size, device: 0, extent: Extent::Whole(1) });
    let id =
        tree.add(Inode { attributes, xattrs: std::collections::BTreeMap::new(), links: 1, body });
    if let Some(root) = tree.directory_mut(ROOT) {
        root.names.insert((*b"file").into(), id);
    }
    let options = Options { devices: &[PROBE_BLOCKS as u32], is_overlay: false, uuid: [0; 16] };
    image::write(&tree, &options).expect("it has one file")
}

/// An image and its data files, opened.
struct Image {
    file: File,
    data: Vec<File>,
}

impl Image {
    fn open_or_build(root: &RootDir, run: &Run) -> Result<Self, StorageError> {
        let data = Self::data(root, run)?;
        let file = match self::open(root, run.top(), IMAGE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                build(root, run, &data)?;
                self::open(root, run.top(), IMAGE)
            }
            other => other,
        };
        Ok(Self { file: file.map_err(damaged(run.top()))?, data })
    }

    fn data(root: &RootDir, run: &Run) -> Result<Vec<File>, StorageError> {
        let open = |chain: &Digest| open(root, chain, "tar").map_err(damaged(chain));
        run.layers.iter().map(open).collect()
    }
}

/// Writes the image of `run`: under another name, synced, renamed. A crash leaves the other name,
/// which the next attempt takes.
fn build(root: &RootDir, run: &Run, data: &[File]) -> Result<(), StorageError> {
    let bytes = compose(root, run, data)?;
    publish(root, run.top(), &bytes).map_err(damaged(run.top()))
}

/// Whether the image of `run` is there and is another than its layers make.
pub(crate) fn image_is_wrong(root: &RootDir, run: &Run) -> Result<bool, StorageError> {
    let mut found = Vec::new();
    match open(root, run.top(), IMAGE).and_then(|mut image| image.read_to_end(&mut found)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(damaged(run.top()))?,
    };
    let data = Image::data(root, run)?;
    Ok(compose(root, run, &data)? != found)
}

fn compose(root: &RootDir, run: &Run, data: &[File]) -> Result<Vec<u8>, StorageError> {
    let mut merged: Option<Tree> = None;
    let mut devices = Vec::new();
    for (number, (chain, tar)) in run.layers.iter().zip(data).enumerate() {
        let damaged = damaged(chain);
        let length = tar.metadata().map_err(&damaged)?.len();
        let mut tree = read_table(root, chain, length)?;
        let number = u16::try_from(number).map_err(|_range| damaged(Errno::TOOBIG.into()))?;
        for inode in &mut tree.inodes {
            if let Body::File(data) = &mut inode.body {
                data.device = number;
            }
        }
        devices.push((length / BLOCK) as u32);
        match &mut merged {
            None => merged = Some(tree),
            Some(below) => merge::stack(below, tree),
        }
    }
    let mut tree = merged.expect("a run has layers");
    merge::inherit(&mut tree, &run.lowers)
        .map_err(|(path, errno)| StorageError::file("look up", path)(errno))?;
    inherit_root(root, &mut tree, &run.hidden)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&run.top().as_bytes()[..16]);
    let options = Options { devices: &devices, is_overlay: !run.lowers.is_empty(), uuid };
    image::write(&tree, &options).map_err(|_too_large| damaged(run.top())(Errno::FBIG.into()))
}

/// The root of a layer that says nothing of it is like the one below, even where it hides
/// everything in that.
fn inherit_root(
    root: &RootDir,
    tree: &mut Tree,
    hidden: &[(Digest, Form)],
) -> Result<(), StorageError> {
    for (chain, form) in hidden {
        if !tree.directory(ROOT).is_some_and(|directory| directory.implied) {
            break;
        }
        match form {
            Form::Directory => {
                let path = PathBuf::from(format!("layers/{}/diff", chain.hex()));
                let diff = root.open_strict(&path, OFlags::PATH, Mode::empty());
                let attributes = diff.and_then(merge::attributes);
                tree.inodes[ROOT].attributes =
                    attributes.map_err(StorageError::file("look up", path))?;
                break;
            }
            Form::Index => {
                let tar = open(root, chain, "tar").and_then(|tar| tar.metadata());
                let below = read_table(root, chain, tar.map_err(damaged(chain))?.len())?;
                tree.inodes[ROOT].attributes = below.inodes[ROOT].attributes;
                let implied = below.directory(ROOT).is_some_and(|directory| directory.implied);
                if let Some(directory) = tree.directory_mut(ROOT) {
                    directory.implied = implied;
                }
            }
        }
    }
    Ok(())
}

fn publish(root: &RootDir, top: &Digest, bytes: &[u8]) -> std::io::Result<()> {
    let layer = root.open_dir(format!("layers/{}", top.hex()))?;
    let partial = format!("{IMAGE}.partial");
    let flags =
        OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&layer, &partial, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(renameat(&layer, partial, &layer, IMAGE)?)
}

/// Reads a layer's table of contents with all checks.
fn read_table(root: &RootDir, chain: &Digest, tar_length: u64) -> Result<Tree, StorageError> {
    let mut bytes = Vec::new();
    open(root, chain, "toc")
        .and_then(|table| table.take(2 * toc::MAX_WEIGHT).read_to_end(&mut bytes))
        .map_err(damaged(chain))?;
    toc::read(&bytes, tar_length)
        .map_err(|reason| StorageError::DataLoss { chain: *chain, reason: reason.to_owned() })
}

/// Looks over what an unpacker left in the directory `layer`.
pub(crate) fn check_layer(layer: &RootDir) -> Result<(), String> {
    let open = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(layer.open_strict(name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::ISNAM.into()) }
    };
    let text = |error: std::io::Error| error.to_string();
    let length = open("tar").and_then(|tar| tar.metadata()).map_err(text)?.len();
    let mut bytes = Vec::new();
    open("toc")
        .and_then(|table| table.take(2 * toc::MAX_WEIGHT).read_to_end(&mut bytes))
        .map_err(text)?;
    toc::read(&bytes, length).map(drop).map_err(str::to_owned)
}

/// What the directory `layer` has in its `tar` behind the tar itself; nothing is the usual.
pub(crate) fn copies(layer: &RootDir, tar_size: u64) -> std::io::Result<Option<Digest>> {
    let mut tar = File::from(layer.open_strict("tar", OFlags::RDONLY, Mode::empty())?);
    if tar.metadata()?.len() <= tar_size {
        return Ok(None);
    }
    tar.seek(SeekFrom::Start(tar_size))?;
    crate::recipe::digest_of(&mut tar).map(Some)
}

fn open(root: &RootDir, chain: &Digest, name: &str) -> std::io::Result<File> {
    let place = format!("layers/{}/{name}", chain.hex());
    Ok(root.open_strict(place, OFlags::RDONLY, Mode::empty()).map(File::from)?)
}

fn damaged(chain: &Digest) -> impl Fn(std::io::Error) -> StorageError {
    let chain = *chain;
    move |error| StorageError::DataLoss { chain, reason: error.to_string() }
}

fn make_target(root: &RootDir, name: &str) -> rustix::io::Result<OwnedFd> {
    let target = format!("mounts/{name}");
    match mkdirat(root, &target, PRIVATE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    root.open_strict(target, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

fn is_image(directory: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(fstatfs(directory)?.f_type as i64 == sys::erofs::MAGIC)
}
