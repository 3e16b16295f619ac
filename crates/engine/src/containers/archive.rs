//! Files in and out of a container: `docker cp`.
//!
//! What a container has at a path may change between two looks at it, and the container may be the
//! one who changes it. So its root is pinned once, as the container sees it: for one that runs from
//! its mount namespace, for one that does not by mounting root and volumes in a namespace that
//! nobody else is in. Every path is resolved below that root by the kernel (openat2), and what was
//! found is used through its descriptor. The kernel's own file systems (`/proc`, `/sys`) are not
//! there, as in Docker. Trees in memory (`--tmpfs`) are there while the container runs.
//!
//! The container is neither started nor removed while its files are open here ([`Opened`] holds a
//! lock that both take): the writable layer is mounted once at a time.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use api_types::container::PathStat;
use runtime::init::Still;
use runtime::spec::{Mount, MountSource, Propagation, RecursiveReadonly, Rootfs};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags, StatxFlags, fstat, fstatvfs,
    readlinkat, statat, statx,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spec::{Digest, Id};
use storage::Lowers;
use sys::RootDir;
use tokio::sync::OwnedRwLockReadGuard;
use tokio::sync::OwnedRwLockWriteGuard;

use super::mounts::{self, Source};
use super::record::Definition;
use super::snapshot::{Container, Snapshot};
use super::start::NetworkFiles;
use super::{Containers, Shared, run_blocking};
use crate::errors::{ArchiveError, Error, Result, StartError};

/// How long the end of a process may take to become known.
const SETTLE: Duration = Duration::from_millis(10);
const SETTLES: usize = 200;

#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to the container's user.
    pub copy_uid_gid: bool,
}

/// A path of a container, found and pinned, ready to be sent.
#[derive(Debug)]
pub struct Archive {
    pub stat: PathStat,
    found: Found,
    _files: Opened,
}

/// A container's files, pinned.
#[derive(Debug)]
struct Opened {
    still: Still,
    _lock: Lock,
    _volumes: Option<AttachedVolumes>,
}

#[derive(Debug)]
enum Lock {
    /// It runs; others may copy too.
    Shared(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    /// It does not; its root is mounted for one.
    Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

/// Volumes of a container that does not run.
#[derive(Debug)]
struct AttachedVolumes {
    shared: Arc<Shared>,
    id: Id,
    names: Vec<String>,
}

impl Drop for AttachedVolumes {
    fn drop(&mut self) {
        self.shared.volumes.detach(&self.id, &self.names);
    }
}

#[derive(Debug)]
enum Found {
    /// Whatever is there, a link too.
    Entry { parent: OwnedFd, name: OsString },
    /// A directory, asked for with a slash or a dot at the end.
    Directory { dir: OwnedFd, shown: Vec<u8> },
}

impl Containers {
    /// `HEAD /containers/{id}/archive`
    pub async fn stat_path(&self, reference: &str, path: &str) -> Result<PathStat> {
        Ok(self.find_path(reference, path).await?.stat)
    }

    /// `GET /containers/{id}/archive`, up to the first byte.
    pub async fn open_archive(&self, reference: &str, path: &str) -> Result<Archive> {
        let archive = self.find_path(reference, path).await?;
        let snapshot = self.shared.registry.find(reference)?.snapshot();
        snapshot.emit(&self.shared.events, "archive-path", []);
        Ok(archive)
    }

    /// `PUT /containers/{id}/archive`
    pub async fn put_archive(
        &self,
        reference: &str,
        path: &str,
        options: PutOptions,
        mut input: Box<dyn Read + Send>,
    ) -> Result<()> {
        let (container, files) = self.open_files(reference, path).await?;
        let (reference, path) = (reference.to_owned(), path.to_owned());
        let snapshot = container.snapshot();
        let definition = Arc::clone(&snapshot.definition);
        run_blocking(move || {
            let root = &files.still.root;
            let target = find_directory(root, &path, &reference)?;
            check_writable(root, &target, &definition)?;
            let user = definition.config.user.as_str();
            let owner = match options.copy_uid_gid && !user.is_empty() {
                true => {
                    Some(runtime::init::owner_of(root, user).map_err(StartError::from_failure)?)
                }
                false => None,
            };
            let options = storage::ExtractOptions {
                keep_kinds: options.no_overwrite_dir_non_dir,
                owner,
                shown: mounts::clean(&format!("/{path}")),
            };
            Ok(storage::extract(&target, &mut *input, &options)?)
        })
        .await?;
        snapshot.emit(&self.shared.events, "extract-to-dir", []);
        Ok(())
    }

    async fn find_path(&self, reference: &str, path: &str) -> Result<Archive> {
        let (_, files) = self.open_files(reference, path).await?;
        let (reference, path) = (reference.to_owned(), path.to_owned());
        run_blocking(move || {
            let (found, stat) = find(&files.still.root, &path, &reference)?;
            Ok(Archive { stat, found, _files: files })
        })
        .await
    }

    async fn open_files(&self, reference: &str, path: &str) -> Result<(Arc<Container>, Opened)> {
        if path.is_empty() {
            return Err(ArchiveError::NoPath.into());
        }
        let container = self.shared.registry.find(reference)?;
        let files = open_files(&self.shared, &container).await?;
        Ok((container, files))
    }
}

impl Archive {
    /// Writes the tar. Ends early, with an error, when `output` does.
    pub async fn write(self, mut output: Box<dyn Write + Send>) -> Result<()> {
        run_blocking(move || {
            let written = match &self.found {
                Found::Entry { parent, name } => {
                    storage::write_entry(parent, name, name.as_bytes(), &mut *output)
                }
                Found::Directory { dir, shown } => {
                    storage::write_directory(dir, shown, &mut *output)
                }
            };
            written.map_err(Error::io("write the archive"))
        })
        .await
    }
}

async fn open_files(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<Opened> {
    for _ in 0..SETTLES {
        let lock = Arc::clone(&container.files).read_owned().await;
        if container.snapshot().progress.is_alive() {
            match enter(container.snapshot()).await? {
                Some(still) => {
                    return Ok(Opened { still, _lock: Lock::Shared(lock), _volumes: None });
                }
                // It ended, which nobody has told its owner yet.
                None => drop(lock),
            }
            tokio::time::sleep(SETTLE).await;
            continue;
        }
        drop(lock);
        let lock = Arc::clone(&container.files).write_owned().await;
        let snapshot = container.snapshot();
        if !snapshot.progress.is_alive() {
            let shared = Arc::clone(shared);
            return run_blocking(move || assemble(shared, &snapshot, lock)).await;
        }
    }
    Err(ArchiveError::Restless { id: container.id.clone() }.into())
}

/// Runs on a thread of its own, which may leave its namespaces.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(work);
    thread.map_err(Error::io("start a thread"))?.join().map_err(|_panic| Error::ShuttingDown)
}

/// The files of a container that runs; none when it has just ended.
async fn enter(snapshot: Arc<Snapshot>) -> Result<Option<Still>> {
    run_blocking(move || {
        let number = snapshot.progress.pid;
        let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            opened => {
                opened.map_err(|errno| Error::io("open the container's process")(errno.into()))?
            }
        };
        // The number may be another process's by now. The descriptor is one process's for good:
        // if that is still alive when it is entered, this was its control group.
        let groups = std::fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap_or_default();
        if !groups.contains(snapshot.id().as_str()) {
            return Ok(None);
        }
        match on_thread(move || runtime::init::enter_running(process))? {
            Ok(still) => Ok(Some(still)),
            Err(runtime::protocol::Failure::System { errno: libc::ESRCH, .. }) => Ok(None),
            Err(failure) => Err(StartError::from_failure(failure).into()),
        }
    })
    .await
}

/// Mounts the files of a container that does not run.
fn assemble(
    shared: Arc<Shared>,
    snapshot: &Snapshot,
    lock: OwnedRwLockWriteGuard<()>,
) -> Result<Opened> {
    let definition = &snapshot.definition;
    let dirs = shared.storage.rootfs(definition.id.as_str())?;
    let names = definition.volume_names();
    shared.volumes.attach(&definition.id, &definition.mounts)?;
    let volumes = AttachedVolumes { shared: Arc::clone(&shared), id: definition.id.clone(), names };
    let rootfs =
        Rootfs::Overlay { lower: dirs.lower, upper: dirs.upper, work: dirs.work, volatile: false };
    let mut mounts = still_mounts(&shared, definition);
    // They keep the layers in their places until all is mounted.
    let images = super::start::mounted_images(&shared, definition)?;
    mounts.extend(still_images(&shared, definition, &images)?);
    let assembled = on_thread(move || runtime::init::assemble_still(&rootfs, &mounts))?;
    let still = assembled.map_err(StartError::from_failure)?;
    Ok(Opened { still, _lock: Lock::Alone(lock), _volumes: Some(volumes) })
}

/// Volumes, binds and the network files, as far as they are there. What a tmpfs held is gone.
fn still_mounts(shared: &Shared, definition: &Definition) -> Vec<Mount> {
    let files = NetworkFiles::in_directory(&shared.directory(&definition.id));
    let files = [
        ("/etc/resolv.conf", files.resolv_conf),
        ("/etc/hostname", files.hostname),
        ("/etc/hosts", files.hosts),
    ];
    let bind = |target: &str, path: std::path::PathBuf, readonly: bool| Mount {
        target: target.to_owned(),
        source: MountSource::Bind {
            path,
            recursive: true,
            propagation: Propagation::RPrivate,
            within: None,
        },
        readonly,
        recursive_readonly: match readonly {
            true => RecursiveReadonly::IfPossible,
            false => RecursiveReadonly::No,
        },
    };
    let replaced = |target: &str| definition.mounts.iter().any(|mount| mount.target == target);
    let own = files.into_iter().filter(|(target, path)| !replaced(target) && path.exists());
    let mut all: Vec<_> = own.map(|(target, path)| bind(target, path, false)).collect();
    for mount in &definition.mounts {
        let (path, inside) = match &mount.source {
            Source::Bind { path, create, .. } => {
                // As at a start; one that cannot be made is left out below.
                if *create && let Err(error) = std::fs::create_dir_all(path) {
                    tracing::debug!(%error, "create the bind source {path}");
                }
                (Path::new(path).to_owned(), "")
            }
            Source::Volume { name, subpath, driver, .. } => {
                (shared.volumes.source(&definition.id, name, driver), subpath.as_str())
            }
            Source::Tmpfs { .. } | Source::Image { .. } => continue,
        };
        if !path.exists() {
            continue;
        }
        let mut one = bind(&mount.target, path.clone(), mount.readonly);
        if let (MountSource::Bind { path: source, within, .. }, false) =
            (&mut one.source, inside.is_empty())
        {
            *source = inside.into();
            *within = Some(path);
        }
        all.push(one);
    }
    all
}

fn still_images(
    shared: &Shared,
    definition: &Definition,
    images: &[(Digest, Lowers)],
) -> Result<Vec<Mount>> {
    let directory = shared.directory(&definition.id);
    let mut all = Vec::new();
    for mount in &definition.mounts {
        let Source::Image { subpath, .. } = &mount.source else { continue };
        all.push(Mount {
            target: mount.target.clone(),
            source: super::plan::image_source(mount, subpath, images, &directory)?,
            readonly: true,
            recursive_readonly: RecursiveReadonly::No,
        });
    }
    Ok(all)
}

/// A path as Docker takes it: lexically clean, with what a slash or a dot at its end asks for.
struct Asked {
    clean: String,
    directory: bool,
    dot: bool,
}

impl Asked {
    fn parse(path: &str) -> Self {
        let dot = path == "." || path.ends_with("/.");
        let clean = mounts::clean(&format!("/{path}"));
        Self { directory: dot || path.ends_with('/') || clean == "/", clean, dot }
    }

    /// What it is called in the answer.
    fn name(&self) -> String {
        if self.dot {
            return ".".to_owned();
        }
        match self.clean.rsplit_once('/') {
            Some((_, "")) | None => "/".to_owned(),
            Some((_, name)) => name.to_owned(),
        }
    }

    fn failed(&self, path: &str, reference: &str) -> impl FnOnce(Errno) -> Error {
        let (path, reference) = (path.to_owned(), reference.to_owned());
        move |errno| match errno {
            Errno::NOENT => ArchiveError::NotFound { path, reference }.into(),
            errno => {
                let reason = runtime::protocol::errno_text(errno.raw_os_error());
                ArchiveError::Look { path, reason }.into()
            }
        }
    }
}

/// Finds what is at `path`. The last component is not followed unless a slash comes after it.
fn find(root: &RootDir, path: &str, reference: &str) -> Result<(Found, PathStat)> {
    let asked = Asked::parse(path);
    let failed = || asked.failed(path, reference);
    if asked.directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let above = Path::new(&asked.clean).parent().unwrap_or_else(|| Path::new("/"));
        let above = root.open_in(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        above.and_then(|above| hide_kernels_own(&above)).map_err(failed())?;
        let dir = root.open_in(&asked.clean, flags, Mode::empty()).map_err(failed())?;
        let stat = describe(asked.name(), &fstat(&dir).map_err(failed())?, String::new());
        let shown = match asked.name() {
            name if name == "/" => Vec::new(),
            name => name.into_bytes(),
        };
        return Ok((Found::Directory { dir, shown }, stat));
    }
    let clean = Path::new(&asked.clean);
    let parent = clean.parent().unwrap_or_else(|| Path::new("/"));
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = root.open_in(parent, flags, Mode::empty()).map_err(failed())?;
    hide_kernels_own(&parent).map_err(failed())?;
    let name = OsString::from(asked.name());
    let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
    let link = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => link_target(root, clean, &parent, &name),
        _ => String::new(),
    };
    Ok((Found::Entry { parent, name }, describe(asked.name(), &stat, link)))
}

/// Where a link leads, as a path from the container's root; for one that dangles as far as can be
/// told from its text.
fn link_target(root: &RootDir, link: &Path, parent: &OwnedFd, name: &OsString) -> String {
    if let Ok(target) = root.open_in(link, OFlags::PATH, Mode::empty()) {
        let shown = std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd()));
        if let Some(shown) = shown.ok().filter(|shown| shown.is_absolute()) {
            return shown.to_string_lossy().into_owned();
        }
    }
    let text = readlinkat(parent, name, Vec::new()).unwrap_or_default();
    let above = link.parent().unwrap_or_else(|| Path::new("/"));
    mounts::clean(&above.join(&*text.to_string_lossy()).to_string_lossy())
}

/// Opens the directory that an archive goes into.
fn find_directory(root: &RootDir, path: &str, reference: &str) -> Result<RootDir> {
    let asked = Asked::parse(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let opened = root.open_in(&asked.clean, flags, Mode::empty());
    let dir = match opened {
        Err(Errno::NOTDIR) if !asked.directory => {
            return Err(ArchiveError::NotADirectory.into());
        }
        opened => opened.map_err(asked.failed(path, reference))?,
    };
    hide_kernels_own(&dir).map_err(asked.failed(path, reference))?;
    Ok(RootDir::from_fd(dir))
}

/// What the kernel shows of itself is not there.
fn hide_kernels_own(file: &OwnedFd) -> Result<(), Errno> {
    if storage::is_kernels_own(file)? { Err(Errno::NOENT) } else { Ok(()) }
}

/// What the container may not write, `cp` does not either.
fn check_writable(root: &RootDir, target: &RootDir, definition: &Definition) -> Result<()> {
    let failed = |errno: Errno| Error::io("look at the mount")(errno.into());
    let mount = |file: &RootDir| {
        let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        found.map(|found| found.stx_mnt_id)
    };
    let in_root = mount(root).map_err(failed)? == mount(target).map_err(failed)?;
    if in_root && definition.host_config.readonly_rootfs {
        return Err(ArchiveError::ReadonlyRoot.into());
    }
    let flags = fstatvfs(target).map_err(failed)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Err(ArchiveError::ReadonlyMount.into());
    }
    Ok(())
}

fn describe(name: String, stat: &Stat, link_target: String) -> PathStat {
    let since = Duration::new(
        u64::try_from(stat.st_mtime).unwrap_or(0),
        u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    );
    PathStat {
        name,
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: spec::time::rfc3339_nano(UNIX_EPOCH + since),
        link_target,
    }
}

/// The bits of Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go);
    kind | mode & 0o777 | special.sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o040_755), 2_147_484_141);
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o010_644), 33_554_852);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o020_666), 1 << 26 | 1 << 21 | 0o666);
    }

    #[test]
    fn paths_are_found_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        std::fs::write(dir.path().join("d/f"), "hi").unwrap();
        std::os::unix::fs::symlink("/d", dir.path().join("dl")).unwrap();
        std::os::unix::fs::symlink("nope", dir.path().join("dang")).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let check = |path: &str, expect: &str| {
            let got = match find(&root, path, "ctr") {
                Ok((_, stat)) => format!("{} {:#x}", stat.name, stat.mode >> 27),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expect, "{path}");
        };
        check("/", "/ 0x10");
        check(".", ". 0x10");
        check("d", "d 0x10");
        check("/d/", "d 0x10");
        check("/d/.", ". 0x10");
        check("/d/../../d", "d 0x10");
        check("/d/f", "f 0x0");
        check("/dl", "dl 0x1");
        check("/dl/", "dl 0x10");
        check("/dl/f", "f 0x0");
        check("/dang", "dang 0x1");
        check("/dang/", "Could not find the file /dang/ in container ctr");
        check("/nope/x", "Could not find the file /nope/x in container ctr");
        check("/d/f/", "lstat /d/f/: not a directory");
        check("/d/f/x", "lstat /d/f/x: not a directory");
        let stat = |path| find(&root, path, "ctr").unwrap().1;
        assert_eq!(stat("/dang").link_target, "/nope");
        let directory = |path| find_directory(&root, path, "ctr").map(drop);
        let text = |path| directory(path).unwrap_err().to_string();
        directory("/dl").unwrap();
        assert_eq!(text("/d/f"), "extraction point is not a directory");
        assert_eq!(text("/d/f/"), "lstat /d/f/: not a directory");
        assert_eq!(text("/dang"), "Could not find the file /dang in container ctr");
    }
}
