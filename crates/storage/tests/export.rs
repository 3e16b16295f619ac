//! A container's root and its changes as tars.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use support::{Lab, Tar, tree};

/// A container that changed a file, made one with two names, deleted one, and emptied a directory
/// to fill it anew, as overlay records it.
fn changed(lab: &Lab) -> PathBuf {
    let tar =
        Tar::new().dir("d").file("d/gone", "1").file("d/kept", "1").dir("o").file("o/old", "1");
    let base = lab.apply(None, &tar.end()).unwrap();
    lab.storage.create_container("c", Some(&base.chain_id)).unwrap();
    let upper = lab.storage.rootfs("c").unwrap().upper;
    fs::create_dir(upper.join("d")).unwrap();
    mknodat(CWD, upper.join("d/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    fs::write(upper.join("d/kept"), "2").unwrap();
    fs::write(upper.join("new"), "n".repeat(1000)).unwrap();
    fs::hard_link(upper.join("new"), upper.join("same")).unwrap();
    std::os::unix::fs::symlink("/etc", upper.join("link")).unwrap();
    fs::create_dir(upper.join("o")).unwrap();
    setxattr(upper.join("o"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    setxattr(upper.join("new"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    fs::write(upper.join("o/fresh"), "3").unwrap();
    upper
}

#[test]
fn an_export_is_the_merged_root() {
    let lab = Lab::new();
    changed(&lab);
    let mut tar = Vec::new();
    lab.storage.export("c", &mut tar).unwrap();
    let root = lab.diff(&lab.apply(None, &tar).unwrap());
    let lines: Vec<_> =
        tree(&root).iter().map(|line| line[..line.len().min(18)].to_owned()).collect();
    assert_eq!(
        lines,
        [
            "d 755 d",
            "f 644 d/kept \"2\"",
            "l link -> /etc",
            "f 644 new \"nnnnnnn",
            "d 755 o",
            "f 644 o/fresh \"3\"",
            "f 644 same \"nnnnnn",
        ]
    );
    let inode = |name| std::os::unix::fs::MetadataExt::ino(&fs::metadata(root.join(name)).unwrap());
    assert_eq!(inode("new"), inode("same"));
    let mut note = [0; 16];
    let length = rustix::fs::getxattr(root.join("new"), "user.note", &mut note).unwrap();
    assert_eq!(&note[..length], b"kept");
}

#[test]
fn changes_become_a_layer_that_does_the_same() {
    let lab = Lab::new();
    changed(&lab);
    let mut tar = Vec::new();
    lab.storage.write_changes("c", &mut tar).unwrap();
    let names = |mut archive: storage::tar::Reader<&[u8]>| {
        let mut names = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        names
    };
    assert_eq!(
        names(storage::tar::Reader::new(&tar[..], ())),
        ["d/", "d/.wh.gone", "d/kept", "link", "new", "o/", "o/.wh..wh..opq", "o/fresh", "same"]
    );
    let mut before = Vec::new();
    lab.storage.export("c", &mut before).unwrap();
    let chain = lab.storage.container_chain("c").unwrap().unwrap();
    let base = lab.storage.layer(&chain).unwrap().unwrap();
    let layer = lab.apply(Some(&base), &tar).unwrap();
    lab.storage.create_container("copy", Some(&layer.chain_id)).unwrap();
    let mut after = Vec::new();
    lab.storage.export("copy", &mut after).unwrap();
    assert!(before == after, "the committed image shows another tree");
}
