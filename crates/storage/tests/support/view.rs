//! Everything that can be seen of a tree, to hold one against another.
#![allow(dead_code)]

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use storage::{Layer, sha256};

use super::Lab;

/// What a container on `chain` would see.
pub(crate) fn root(lab: &Lab, chain: &Layer) -> Vec<String> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let id = format!("view{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    lab.storage.prepare_container(&id, Some(&chain.chain_id)).unwrap();
    let root = lab.storage.prepared_root(&id, Some(&chain.chain_id)).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()));
    let lines = view(&path);
    drop(root);
    lab.storage.discard_container(&id, &[]).unwrap();
    lines
}

/// One line per path, links of the same inode by the name of the first.
pub(crate) fn view(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut stack = vec![PathBuf::new()];
    let mut inodes: HashMap<(u64, u64), PathBuf> = HashMap::new();
    while let Some(path) = stack.pop() {
        // The root itself is a link below /proc.
        let place = if path == Path::new("") { root.join(".") } else { root.join(&path) };
        // Overlay lists a whiteout that has nothing to hide, in a directory of one layer alone,
        // and then does not find it.
        let Ok(metadata) = fs::symlink_metadata(&place) else { continue };
        let kind = metadata.file_type();
        let mut line = format!(
            "{} {:o} {}:{} {}",
            path.display(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            time(&metadata),
        );
        if kind.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            stack.extend(names.iter().rev().map(|name| path.join(name)));
        } else if kind.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&place).unwrap().display());
        } else if kind.is_file() {
            let content = fs::read(&place).unwrap();
            assert_eq!(content.len() as u64, metadata.len(), "{}", path.display());
            line += &format!(" {} {}", metadata.len(), &sha256(&content).hex()[..12]);
        } else {
            line += &format!(" {:x}", metadata.rdev());
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            // A name that is hidden still counts where each layer is a directory.
            let first =
                inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
            if *first != path {
                line += &format!(" = {}", first.display());
            }
        }
        for (name, value) in xattrs(&place) {
            line += &format!(" {name}={}", &sha256(&value).hex()[..8]);
        }
        lines.push(line);
    }
    lines
}

/// Directories that no layer describes are as old as the unpacking.
fn time(metadata: &fs::Metadata) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    if (now - metadata.mtime()).abs() < 1000 {
        return "now".to_owned();
    }
    format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec())
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let name = std::ffi::OsStr::from_bytes(name);
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(length);
        (name.to_string_lossy().into_owned(), value)
    };
    let mut found: Vec<_> = names.map(read).collect();
    found.retain(|(name, _)| !name.starts_with("trusted.overlay."));
    found.sort();
    found
}
