//! Archives to order, stores in temporary directories, and trees as text.
#![allow(dead_code, clippy::print_stdout, clippy::unwrap_used)]

pub(crate) mod view;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use metadata::Store;
use storage::tar::write::{Writer, plain};
use storage::tar::{Entry, Kind};
use storage::{Layer, Layout, Limits, Options, Storage, StorageError};

/// A tar being put together.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, entry: &Entry, data: &[u8]) -> Self {
        let mut writer = Writer::new(&mut self.0);
        writer.header(entry).unwrap();
        writer.output.extend_from_slice(data);
        writer.pad(data.len() as u64).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        let entry = plain(path, Kind::File, 0o644, 1, data.len() as u64);
        self.entry(&entry, data.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(&plain(path, Kind::Directory, 0o755, 1, 0), b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(Kind::Symlink, path, target)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(Kind::HardLink, path, target)
    }

    pub(crate) fn link(self, kind: Kind, path: &str, target: &str) -> Self {
        let mut entry = plain(path, kind, 0o777, 1, 0);
        entry.link = target.as_bytes().to_vec();
        self.entry(&entry, b"")
    }

    pub(crate) fn device(self, kind: Kind, path: &str, device: (u32, u32)) -> Self {
        let mut entry = plain(path, kind, 0o600, 1, 0);
        entry.device = device;
        self.entry(&entry, b"")
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        Writer::new(&mut self.0).finish().unwrap();
        self.0
    }
}

/// A store of its own, gone with the value.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) storage: Storage,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) layout: Layout,
}

/// The forms that layers can have here. Tests of what a layer is run through all.
pub(crate) fn layouts() -> Vec<Layout> {
    if has_erofs() { vec![Layout::Directories, Layout::Erofs] } else { vec![Layout::Directories] }
}

/// Whether this kernel mounts images; it must from 6.12 on.
pub(crate) fn has_erofs() -> bool {
    let Err(error) = Lab::try_with_layout(Layout::Erofs) else { return true };
    println!("{}", full(&error));
    assert!(!mounts_files());
    false
}

/// Whether this kernel is one that mounts files as EROFS.
pub(crate) fn mounts_files() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version >= (6, 12)
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Layout::Directories, Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::with(Layout::Directories, limits)
    }

    pub(crate) fn with_layout(layout: Layout) -> Self {
        Self::with(layout, Limits::default())
    }

    pub(crate) fn with(layout: Layout, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = open_with(dir.path(), Options { layout, limits, ..Options::default() });
        Self { storage, dir, layout }
    }

    pub(crate) fn try_with_layout(layout: Layout) -> Result<Self, StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("metadata.redb")).unwrap();
        let options = Options { layout, ..Options::default() };
        let storage = Storage::open_with(dir.path().join("storage"), store, options)?;
        Ok(Self { storage, dir, layout })
    }

    /// Closes the store and opens it with another form for new layers.
    pub(crate) fn change(self, layout: Layout) -> Self {
        let Self { storage, dir, .. } = self;
        drop(storage);
        let storage = open_with(dir.path(), Options { layout, ..Options::default() });
        Self { storage, dir, layout }
    }

    /// Closes the store as a crash would and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let layout = self.layout;
        self.change(layout)
    }

    /// Applies a layer that stays, since a container is put on it.
    pub(crate) fn apply(&self, parent: Option<&Layer>, tar: &[u8]) -> Result<Layer, StorageError> {
        let mut lease = self.storage.lease();
        let parent = parent.map(|layer| layer.chain_id);
        let mut stream = tar;
        let layer = self.storage.apply_layer(&mut lease, parent.as_ref(), &mut stream, None)?;
        let chain = layer.chain_id;
        self.storage.store().write(move |txn| storage::hold(txn, &chain)).unwrap();
        Ok(layer)
    }

    pub(crate) fn diff(&self, layer: &Layer) -> PathBuf {
        self.dir.path().join("storage/layers").join(layer.chain_id.hex()).join("diff")
    }

    /// With something below it an index shows its whiteouts.
    fn bottom(&self) -> Option<Layer> {
        self.storage.all_layers().unwrap().into_iter().find(|layer| layer.parent.is_none())
    }

    /// A store with one empty layer, to show others on.
    pub(crate) fn on_directory(layout: Layout, limits: Limits) -> Self {
        if layout == Layout::Directories {
            return Self::with(layout, limits);
        }
        let lab = Self::new();
        lab.apply(None, &Tar::new().end()).unwrap();
        let Self { storage, dir, .. } = lab;
        drop(storage);
        let storage = open_with(dir.path(), Options { layout, limits, ..Options::default() });
        Self { storage, dir, layout }
    }

    /// What a container gets to see of the layer.
    pub(crate) fn root(&self, layer: &Layer) -> PathBuf {
        self.storage.lowers(&layer.chain_id).unwrap().paths.remove(0)
    }

    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path().join("storage").join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Applies a layer and shows its tree, or the error; whatever happened, the ingest directory
    /// must be empty and the canary beside the store untouched.
    pub(crate) fn show(&self, tar: &[u8]) -> Vec<String> {
        let canary = self.dir.path().join("canary");
        fs::write(&canary, "alive").unwrap();
        let outcome = self.apply(self.bottom().as_ref(), tar);
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
        assert_eq!(self.names("ingest"), [""; 0]);
        match outcome {
            Ok(layer) => {
                let mut back = Vec::new();
                self.storage.write_tar(&layer.chain_id, &mut back).unwrap();
                assert_eq!(storage::sha256(&back), layer.diff_id);
                tree(&self.root(&layer))
            }
            Err(error) => vec![full(&error)],
        }
    }
}

pub(crate) fn open(dir: &Path) -> Storage {
    open_with(dir, Options::default())
}

pub(crate) fn open_with(dir: &Path, options: Options) -> Storage {
    let store = Store::open(dir.join("metadata.redb")).unwrap();
    Storage::open_with(dir.join("storage"), store, options).unwrap()
}

/// An error with its causes.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full(source)),
        None => error.to_string(),
    }
}

/// One line per path: type, mode, name, and what it holds.
pub(crate) fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, Path::new(""), &mut lines);
    lines
}

fn walk(root: &Path, at: &Path, lines: &mut Vec<String>) {
    let mut names: Vec<_> =
        fs::read_dir(root.join(at)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = at.join(&name);
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let kind = metadata.file_type();
        let mode = metadata.permissions().mode() & 0o7777;
        let shown = path.display();
        lines.push(if kind.is_dir() {
            let mark = if is_opaque(&full) { " opaque" } else { "" };
            format!("d {mode:o} {shown}{mark}")
        } else if kind.is_symlink() {
            format!("l {shown} -> {}", fs::read_link(&full).unwrap().display())
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            format!("w {shown}")
        } else if kind.is_file() {
            let text = fs::read(&full).unwrap();
            format!("f {mode:o} {shown} {:?}", String::from_utf8_lossy(&text))
        } else {
            format!("n {mode:o} {shown} {:x}", metadata.rdev())
        });
        if kind.is_dir() {
            walk(root, &path, lines);
        }
    }
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value).is_ok()
}
