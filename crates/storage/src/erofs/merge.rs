//! Laying a layer's tree over those below it.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use sys::RootDir;

use super::model::{Attributes, Body, Id, ROOT, Tree};

/// Lays `above` over `below`. Whiteouts stay, and directories that hide what was below are
/// opaque: there may be more layers further down.
pub(super) fn stack(below: &mut Tree, above: Tree) {
    let shift = below.inodes.len();
    below.inodes.extend(above.inodes.into_iter().map(|mut inode| {
        if let Body::Directory(directory) = &mut inode.body {
            directory.names.values_mut().for_each(|id| *id += shift);
        }
        inode
    }));
    let mut pairs = vec![(ROOT, ROOT + shift)];
    while let Some((old, new)) = pairs.pop() {
        merge_directories(below, old, new, &mut pairs);
    }
}

/// Makes the directory `old` what it is with `new` over it; directories that both have a name for
/// go to `pairs`.
fn merge_directories(tree: &mut Tree, old: Id, new: Id, pairs: &mut Vec<(Id, Id)>) {
    let inode = &mut tree.inodes[new];
    let (attributes, xattrs) = (inode.attributes, std::mem::take(&mut inode.xattrs));
    let Body::Directory(above) = &mut inode.body else { return };
    let above = std::mem::take(above);
    let mut opaque_children = Vec::new();
    let inode = &mut tree.inodes[old];
    inode.xattrs = xattrs;
    if !above.implied {
        inode.attributes = attributes;
    }
    let Body::Directory(directory) = &mut inode.body else { return };
    directory.implied &= above.implied;
    if above.opaque {
        directory.opaque = true;
        directory.names = above.names;
        return;
    }
    let mut shared = Vec::new();
    for (name, id) in above.names {
        if let Some(before) = directory.names.insert(name.clone(), id) {
            shared.push((name, before, id));
        }
    }
    for (name, before, id) in shared {
        match (tree.inodes[before].is_directory(), tree.inodes[id].is_directory()) {
            (true, true) => {
                pairs.push((before, id));
                if let Some(directory) = tree.directory_mut(old) {
                    directory.names.insert(name, before);
                }
            }
            (false, true) => opaque_children.push(id),
            _ => {}
        }
    }
    for id in opaque_children {
        if let Some(directory) = tree.directory_mut(id) {
            directory.opaque = true;
        }
    }
}

/// Gives directories that no layer of the tree describes the attributes of those in the
/// directories further down.
pub(super) fn inherit(tree: &mut Tree, lowers: &[PathBuf]) -> Result<(), (PathBuf, Errno)> {
    let open = |path: &PathBuf| RootDir::open(path).map_err(|errno| (path.clone(), errno));
    let lowers = lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut stack = vec![(PathBuf::new(), ROOT)];
    while let Some((path, id)) = stack.pop() {
        let Some(directory) = tree.directory(id) else { continue };
        let (implied, opaque) = (directory.implied, directory.opaque);
        if !opaque || id == ROOT {
            for (name, child) in &directory.names {
                if tree.inodes[*child].is_directory() {
                    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
                    stack.push((path.join(name), *child));
                }
            }
        }
        if implied && (!opaque || id == ROOT) {
            let found = find(&lowers, &path).map_err(|errno| (path.clone(), errno))?;
            if let Some(attributes) = found {
                tree.inodes[id].attributes = attributes;
            }
        }
    }
    Ok(())
}

fn find(lowers: &[RootDir], path: &Path) -> rustix::io::Result<Option<Attributes>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    for lower in lowers {
        match lower.open_strict(path, flags, Mode::empty()) {
            Ok(below) => return attributes(below).map(Some),
            Err(Errno::NOENT) => {}
            // Something else of that name hides the layers further down.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// The attributes of an open directory.
pub(super) fn attributes(directory: impl AsFd) -> rustix::io::Result<Attributes> {
    let stat = fstat(directory)?;
    Ok(Attributes {
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
    })
}
