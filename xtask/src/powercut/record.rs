//! A daemon whose disk is written down: qemu-storage-daemon passes what it writes on to a file, and
//! to the log.
//!
//! ```text
//! daemon -> ext4, xfs, btrfs -> loop device -> `exported`, by FUSE -> blklogwrites -> `base`, `log`
//! ```
//!
//! Everything is on a tmpfs: a power cut is made of the log, so nothing else has to be durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;

use testkit::daemon::DiskImage;
use testkit::run::run;
use testkit::{Daemon, Options, wait_until};

use super::Plan;
use super::history::{History, Marks};
use super::log::{Disk, Log};
use super::workload::Client;

/// After the file system, for the marks.
const BEYOND: u64 = 1 << 20;
/// More than is ever written; the log is sparse.
const LOG: u64 = 64 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ext4" => Self::Ext4,
            "xfs" => Self::Xfs,
            "btrfs" => Self::Btrfs,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest that it makes, or that the workload needs.
    fn megabytes(self) -> u64 {
        if self == Self::Xfs { 320 } else { 256 }
    }

    /// The command that makes one. Blocks are not discarded: they are none.
    pub(super) fn mkfs(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => {
                &["mkfs.ext4", "-q", "-m0", "-Enodiscard,lazy_itable_init=0,lazy_journal_init=0"]
            }
            Self::Xfs => &["mkfs.xfs", "-q", "-K"],
            Self::Btrfs => &["mkfs.btrfs", "-q", "-K"],
        }
    }

    pub(super) fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 => "nodiscard",
            // Copies of one file system are mounted side by side.
            Self::Xfs => "nouuid",
            Self::Btrfs => "nodiscard",
        }
    }
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) disk: Disk,
    pub(super) log: Log,
    pub(super) history: History,
}

/// Runs the workload. Panics when the daemon does not do what it is asked.
pub(super) fn record(plan: &Plan, seed: u64) -> Recording {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (base, log) = (directory.path().join("base"), directory.path().join("log"));
    let size = plan.file_system.megabytes() << 20;
    let truncate = |path: &Path, size| File::create(path).and_then(|file| file.set_len(size));
    truncate(&base, size).and_then(|()| truncate(&log, LOG)).expect("room in memory");
    let mkfs = plan.file_system.mkfs();
    run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&base), b"").ok();
    let file = File::options().write(true).open(&base).expect("just made");
    file.set_len(size + BEYOND).expect("room in memory");
    let disk = Disk::read(&base).expect("just made");

    let exported = Exported::start(directory.path(), &base, &log, size + BEYOND);
    let marks = File::options().write(true).open(&exported.path).expect("an exported disk");
    let marks = Marks { disk: marks, place: size, next: AtomicU64::new(0) };
    let options = format!("sizelimit={size},{}", plan.file_system.mount_options());
    let image = DiskImage { path: exported.path.clone(), options };
    let daemon = plan.start(image);
    let busybox = testkit::image::busybox_binary();
    let changes = std::thread::scope(|scope| {
        let clients = ['a', 'b'].map(|name| {
            let client = Client::new(name, &daemon, &marks, seed, &busybox);
            scope.spawn(move || client.work(plan.steps))
        });
        let done = clients.map(|client| client.join().expect("the workload runs"));
        done.into_iter().flatten().collect()
    });
    // What is written from here on comes after the last mark.
    super::workload::remove_all(&daemon.socket_path());
    daemon.finish();
    drop(marks);
    drop(exported);
    let log = Log::open(&log).expect("a log of writes");
    let history = History::new(changes, &log, size).expect("a log with all marks");
    Recording { disk, log, history }
}

/// The running qemu-storage-daemon. Dropped, it is gone, and its mount.
#[derive(Debug)]
struct Exported {
    path: PathBuf,
    child: Child,
}

impl Exported {
    fn start(directory: &Path, base: &Path, log: &Path, size: u64) -> Self {
        let path = directory.join("exported");
        File::create(&path).expect("room in memory");
        let file = |node: &str, path: &Path| {
            format!("file,node-name={node},filename={},locking=off", path.display())
        };
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &file("base", base), "--blockdev", &file("log", log)])
            .args(["--blockdev", "blklogwrites,node-name=logged,file=base,log=log"])
            .arg("--export")
            .arg(format!("fuse,id=fuse,node-name=logged,mountpoint={},writable=on", path.display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon starts");
        let exported = Self { path, child };
        wait_until("the exported disk", || {
            (exported.path.metadata().ok()?.len() == size).then_some(())
        });
        exported
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // The loop device lets go of it a moment after the namespace of the daemon is gone.
        released(&self.path);
        self.child.kill().ok();
        self.child.wait().ok();
        run(Command::new("umount").arg("--lazy").arg(&self.path), b"");
    }
}

/// Waits until no loop device has the file any more.
pub(super) fn released(path: &Path) {
    let name = path.to_string_lossy();
    wait_until("the release of a loop device", || {
        let devices = std::fs::read_dir("/sys/block").ok()?.flatten();
        let mut files = devices.map(|device| {
            std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default()
        });
        (!files.any(|file| file.trim() == name)).then_some(())
    });
}

impl Plan {
    /// A daemon on a disk.
    pub(super) fn start(&self, image: DiskImage) -> Daemon {
        let options = Options {
            args: vec![format!("--storage-opt=layout={}", self.layout)],
            without_images: true,
            image: Some(image),
            ..Options::default()
        };
        Daemon::with(&self.binary.to_string_lossy(), options)
    }
}
