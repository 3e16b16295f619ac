//! Layers from coming in to going away: golden trees, exact tars, crashes, counting.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use storage::tar::Kind;
use storage::tar::write::plain;
use storage::{ChangeKind, StorageError};
use support::{Lab, Tar, full, tree};

fn sample() -> Tar {
    let mut owned = plain("etc/shadow", Kind::File, 0o640, 1_600_000_000, 4);
    (owned.uid, owned.gid) = (1000, 42);
    owned.xattrs.push((b"user.note".to_vec(), b"a\0b".to_vec()));
    let mut root = plain("./", Kind::Directory, 0o751, 5, 0);
    root.mtime = (5, 250);
    Tar::new()
        .entry(&root, b"")
        .dir("./etc/")
        .entry(&owned, b"root")
        .file("bin/sh", &"#!".repeat(40_000))
        .hard_link("bin/ash", "bin/sh")
        .symlink("sbin", "bin")
        .device(Kind::Fifo, "run/fifo", (0, 0))
        .entry(&plain("tmp", Kind::Directory, 0o1777, 7, 0), b"")
}

#[test]
fn a_layer_is_what_its_tar_says() {
    let lab = Lab::new();
    let layer = lab.apply(None, &sample().end()).unwrap();
    let diff = lab.diff(&layer);
    let mut lines = tree(&diff);
    lines.iter_mut().for_each(|line| line.truncate(30));
    assert_eq!(
        lines,
        [
            "d 755 bin",
            "f 644 bin/ash \"#!#!#!#!#!#!#!#",
            "f 644 bin/sh \"#!#!#!#!#!#!#!#!",
            "d 755 etc",
            "f 640 etc/shadow \"root\"",
            "d 755 run",
            "n 600 run/fifo 0",
            "l sbin -> bin",
            "d 1777 tmp",
        ]
    );
    let shadow = fs::metadata(diff.join("etc/shadow")).unwrap();
    assert_eq!((shadow.uid(), shadow.gid(), shadow.mtime()), (1000, 42, 1_600_000_000));
    let root = fs::metadata(&diff).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime(), root.mtime_nsec()), (0o751, 5, 250));
    assert_eq!(fs::metadata(diff.join("tmp")).unwrap().mtime(), 7);
    assert_eq!(fs::metadata(diff.join("etc")).unwrap().mtime(), 1);
    let ids = |name| fs::metadata(diff.join(name)).unwrap().ino();
    assert_eq!(ids("bin/ash"), ids("bin/sh"));
    assert_eq!(layer.size, 4 + 80_000 + 3);
    assert_eq!(layer.tar_size, sample().end().len() as u64);
}

#[test]
fn the_tar_comes_back_bit_for_bit() {
    let lab = Lab::new();
    let tar = sample().file("bin/sh", "replaced").end();
    // What follows the end mark is part of the tar as well.
    let tar = [tar, vec![7; 3000]].concat();
    let layer = lab.apply(None, &tar).unwrap();
    let mut back = Vec::new();
    lab.storage.write_tar(&layer.chain_id, &mut back).unwrap();
    assert!(back == tar);
    assert_eq!(layer.diff_id, storage::sha256(&tar));
}

#[test]
fn a_changed_layer_is_noticed() {
    let lab = Lab::new();
    let layer = lab.apply(None, &sample().end()).unwrap();
    fs::write(lab.diff(&layer).join("etc/shadow"), "evil").unwrap();
    let error = lab.storage.write_tar(&layer.chain_id, &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, StorageError::DataLoss { chain, .. } if *chain == layer.chain_id));
    fs::remove_file(lab.diff(&layer).join("etc/shadow")).unwrap();
    let error = lab.storage.write_tar(&layer.chain_id, &mut Vec::new()).unwrap_err();
    assert!(full(&error).contains("No such file"), "{error}");
}

#[test]
fn sparse_files_have_holes_and_their_tar_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hole");
    let file = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"middle", 1 << 20).unwrap();
    file.set_len(3 << 20).unwrap();
    for format in ["gnu", "posix"] {
        let output = std::process::Command::new("tar")
            .args(["-cS", "--format", format, "-C"])
            .arg(dir.path())
            .args(["hole"])
            .output()
            .unwrap();
        assert!(output.stdout.len() < 100_000, "tar saw no hole");
        let lab = Lab::new();
        let layer = lab.apply(None, &output.stdout).unwrap();
        assert!(fs::read(lab.diff(&layer).join("hole")).unwrap() == fs::read(&path).unwrap());
        assert!(fs::metadata(lab.diff(&layer).join("hole")).unwrap().blocks() < 1000);
        assert_eq!(layer.size, 3 << 20);
        let mut back = Vec::new();
        lab.storage.write_tar(&layer.chain_id, &mut back).unwrap();
        assert!(back == output.stdout, "{format}");
    }
}

#[test]
fn directories_only_implied_are_like_those_below() {
    let lab = Lab::new();
    let mut tmp = plain("tmp", Kind::Directory, 0o1777, 9, 0);
    tmp.uid = 12;
    let bottom = Tar::new().entry(&tmp, b"").end();
    let bottom = lab.apply(None, &bottom).unwrap();
    let top = lab.apply(Some(&bottom), &Tar::new().file("tmp/a/b", "").end()).unwrap();
    let tmp = fs::metadata(lab.diff(&top).join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid(), tmp.mtime()), (0o1777, 12, 9));
    assert_eq!(fs::metadata(lab.diff(&top).join("tmp/a")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn an_opaque_root_ends_the_list_of_lowers() {
    let lab = Lab::new();
    let bottom = lab.apply(None, &Tar::new().file("old", "").end()).unwrap();
    let middle = Tar::new().file(".wh..wh..opq", "").file("new", "").end();
    let middle = lab.apply(Some(&bottom), &middle).unwrap();
    let top = lab.apply(Some(&middle), &Tar::new().file("more", "").end()).unwrap();
    let lowers = lab.storage.lowers(&top.chain_id).unwrap();
    assert_eq!(lowers.paths, [lab.diff(&top), lab.diff(&middle)]);
}

#[test]
fn a_layer_with_another_digest_than_expected_is_refused() {
    let lab = Lab::new();
    let wrong = storage::sha256(b"wrong");
    let tar = sample().end();
    let mut lease = lab.storage.lease();
    let error =
        lab.storage.apply_layer(&mut lease, None, &mut tar.as_slice(), Some(&wrong)).unwrap_err();
    assert!(matches!(error, StorageError::WrongLayer { expected, .. } if expected == wrong));
    assert_eq!(lab.names("ingest"), [""; 0]);
    assert_eq!(lab.names("layers"), [""; 0]);
}

#[test]
fn compressed_layers_have_the_same_diff_id() {
    use std::io::Write;
    let lab = Lab::new();
    let tar = sample().end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let one = lab.apply(None, &gzip.finish().unwrap()).unwrap();
    let other = lab.apply(None, &zstd::encode_all(&*tar, 1).unwrap()).unwrap();
    assert_eq!(one, other);
    assert_eq!(one.diff_id, storage::sha256(&tar));
}

/// Steps of adding a layer, the process gone after each: the store opens, has all of it or
/// nothing, and no garbage.
#[test]
fn crashes_leave_all_or_nothing() {
    // While unpacking: an ingest directory.
    let lab = Lab::new();
    fs::create_dir_all(lab.dir.path().join("storage/ingest/half/diff/deep")).unwrap();
    // After the rename, before the record: a layer nobody knows.
    let stray = lab.dir.path().join("storage/layers").join("0".repeat(64));
    fs::create_dir_all(stray.join("diff")).unwrap();
    // A container directory without a record.
    fs::create_dir_all(lab.dir.path().join("storage/containers/c/upper")).unwrap();
    fs::write(lab.dir.path().join("storage/content/sha256/tmp-1"), "half").unwrap();
    let lab = lab.reopen();
    for directory in ["ingest", "layers", "containers", "content/sha256"] {
        assert_eq!(lab.names(directory), [""; 0], "{directory}");
    }
    assert_eq!(lab.names("trash").len(), 3);
    assert_eq!(lab.storage.reap_trash().unwrap(), 3);
    assert_eq!(lab.names("trash"), [""; 0]);
    // After the record, before anybody holds the layer.
    let mut lease = lab.storage.lease();
    let tar = sample().end();
    let layer = lab.storage.apply_layer(&mut lease, None, &mut tar.as_slice(), None).unwrap();
    std::mem::forget(lease);
    assert!(lab.storage.layer(&layer.chain_id).unwrap().is_some());
    let dir = lab.dir;
    // The forgotten lease keeps a handle open, so the "crashed" store is looked at by copy.
    let copy = tempfile::tempdir().unwrap();
    drop(lab.storage);
    let status = std::process::Command::new("cp")
        .args(["-a", "--"])
        .args([dir.path().join("storage"), dir.path().join("metadata.redb")])
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());
    let reopened = support::open(copy.path());
    assert_eq!(reopened.all_layers().unwrap(), []);
    assert_eq!(fs::read_dir(copy.path().join("storage/layers")).unwrap().count(), 0);
}

#[test]
fn lost_metadata_does_not_lose_layers() {
    support::layouts().into_iter().for_each(lost_metadata_does_not_lose_layers_in);
}

fn lost_metadata_does_not_lose_layers_in(layout: storage::Layout) {
    let lab = Lab::with_layout(layout);
    let bottom = lab.apply(None, &sample().end()).unwrap();
    let top = lab.apply(Some(&bottom), &Tar::new().file("x", "").end()).unwrap();
    let Lab { storage, dir, .. } = lab;
    drop(storage);
    fs::write(dir.path().join("metadata.redb"), "damaged").unwrap();
    let storage = support::open(dir.path());
    assert!(storage.records_were_lost());
    let layers = storage.layers(&top.chain_id).unwrap();
    assert_eq!(layers, [bottom, top]);
    let shown = storage.lowers(&layers[1].chain_id).unwrap();
    assert!(shown.paths.iter().any(|lower| lower.join("etc/shadow").exists()));
}

#[test]
fn layers_go_with_their_last_holder() {
    let lab = Lab::new();
    let bottom = lab.apply(None, &sample().end()).unwrap();
    let top = lab.apply(Some(&bottom), &Tar::new().file("x", "").end()).unwrap();
    lab.storage.create_container("one", Some(&top.chain_id)).unwrap();
    let release = |layer: &storage::Layer| {
        let (chain, leases) = (layer.chain_id, lab.storage.leases().clone());
        let freed = lab.storage.store().write(move |txn| storage::release(txn, &chain, &leases));
        let freed: Vec<_> = freed.unwrap();
        lab.storage.discard(&freed).unwrap();
        freed.len()
    };
    // The images' holds go; the container still holds the top, the top the bottom.
    assert_eq!(release(&top), 0);
    assert_eq!(release(&bottom), 0);
    assert_eq!(lab.names("layers").len(), 2);
    let lab = lab.reopen();
    assert_eq!(lab.names("layers").len(), 2);
    lab.storage.remove_container("one").unwrap();
    assert_eq!(lab.names("layers"), [""; 0]);
    assert_eq!(lab.names("containers"), [""; 0]);
    assert_eq!(lab.storage.all_layers().unwrap(), []);
    assert!(lab.storage.create_container("two", Some(&top.chain_id)).is_err());
}

#[test]
fn leased_layers_stay_until_the_lease_ends() {
    let lab = Lab::new();
    let mut lease = lab.storage.lease();
    let tar = sample().end();
    let layer = lab.storage.apply_layer(&mut lease, None, &mut tar.as_slice(), None).unwrap();
    lab.storage.create_container("c", Some(&layer.chain_id)).unwrap();
    lab.storage.remove_container("c").unwrap();
    assert_eq!(lab.names("layers").len(), 1);
    let second = {
        let mut other = lab.storage.lease();
        lab.storage.keep(&mut other, &layer.chain_id).unwrap();
        drop(lease);
        assert_eq!(lab.names("layers").len(), 1);
        other
    };
    drop(second);
    assert_eq!(lab.names("layers"), [""; 0]);
}

#[test]
fn trees_deeper_than_a_path_can_be_are_deleted() {
    let lab = Lab::new();
    let trash = lab.dir.path().join("storage/trash");
    // Below one directory another, 5000 times: made from the inside out by renaming.
    let name = "d".repeat(40);
    fs::create_dir(trash.join("x")).unwrap();
    fs::write(trash.join("x/file"), "").unwrap();
    for _ in 0..300 {
        fs::create_dir(trash.join("y")).unwrap();
        fs::rename(trash.join("x"), trash.join("y").join(&name)).unwrap();
        fs::rename(trash.join("y"), trash.join("x")).unwrap();
    }
    assert_eq!(lab.storage.reap_trash().unwrap(), 1);
    assert_eq!(lab.names("trash"), [""; 0]);
}

#[test]
fn containers_have_the_root_of_their_image_and_survive_a_lost_directory() {
    let lab = Lab::new();
    let layer = lab.apply(None, &sample().end()).unwrap();
    lab.storage.create_container("c", Some(&layer.chain_id)).unwrap();
    let dirs = lab.storage.rootfs("c").unwrap();
    assert_eq!(dirs.lower, [lab.diff(&layer)]);
    assert_eq!(fs::metadata(&dirs.upper).unwrap().mode() & 0o7777, 0o751);
    fs::write(dirs.upper.join("new"), "12345").unwrap();
    fs::hard_link(dirs.upper.join("new"), dirs.upper.join("again")).unwrap();
    assert_eq!(lab.storage.size("c").unwrap(), 5);
    fs::remove_dir_all(dirs.upper.parent().unwrap()).unwrap();
    let lab = lab.reopen();
    // There before anybody starts it.
    assert_eq!(lab.storage.size("c").unwrap(), 0);
    let again = lab.storage.rootfs("c").unwrap();
    assert!(again.upper.exists() && again.work.exists());
    assert_eq!(fs::metadata(&again.upper).unwrap().mode() & 0o7777, 0o751);
    fs::remove_dir_all(again.upper.parent().unwrap()).unwrap();
    assert!(lab.storage.rootfs("c").unwrap().upper.exists());
    for bad in ["", "..", "a/b", "none"] {
        assert!(lab.storage.rootfs(bad).is_err(), "{bad}");
    }
    assert!(lab.storage.create_container("../x", None).is_err());
}

/// Through a real overlay mount, in a mount namespace of this thread.
#[test]
fn changes_are_those_docker_diff_shows() {
    let lab = Lab::new();
    let bottom = Tar::new()
        .dir("etc")
        .file("etc/passwd", "p")
        .file("etc/group", "g")
        .dir("var/lib")
        .file("var/lib/x", "x")
        .dir("gone/deep")
        .file("gone/deep/y", "y")
        .file("swap", "s")
        .file("opened", "o")
        .dir("again")
        .file("again/old", "o");
    let layer = lab.apply(None, &bottom.end()).unwrap();
    lab.storage.create_container("c", Some(&layer.chain_id)).unwrap();
    let dirs = lab.storage.rootfs("c").unwrap();
    let merged = lab.dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
            // Only this thread's mount namespace changes; it ends with the thread.
            sys::process::unshare(flags).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE
                | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                dirs.lower[0].display(),
                dirs.upper.display(),
                dirs.work.display()
            );
            let options = std::ffi::CString::new(options).unwrap();
            let none = rustix::mount::MountFlags::empty();
            rustix::mount::mount("overlay", &merged, "overlay", none, options.as_c_str()).unwrap();
            fs::write(merged.join("etc/passwd"), "changed").unwrap();
            fs::write(merged.join("etc/new"), "n").unwrap();
            fs::remove_file(merged.join("etc/group")).unwrap();
            fs::write(merged.join("var/lib/x"), "longer").unwrap();
            fs::remove_dir_all(merged.join("gone")).unwrap();
            fs::remove_file(merged.join("swap")).unwrap();
            fs::create_dir(merged.join("swap")).unwrap();
            fs::write(merged.join("swap/in"), "").unwrap();
            fs::remove_dir_all(merged.join("again")).unwrap();
            fs::create_dir(merged.join("again")).unwrap();
            fs::create_dir_all(merged.join("fresh/dir")).unwrap();
            // Copied up, not changed.
            drop(fs::File::options().append(true).open(merged.join("opened")).unwrap());
            rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).unwrap();
        });
    });
    let shown: Vec<_> = lab
        .storage
        .changes("c")
        .unwrap()
        .into_iter()
        .map(|change| {
            let letter = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{letter} {}", change.path.display())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "C /again",
            "D /again/old",
            "C /etc",
            "D /etc/group",
            "A /etc/new",
            "C /etc/passwd",
            "A /fresh",
            "A /fresh/dir",
            "D /gone",
            "C /swap",
            "A /swap/in",
            "C /var",
            "C /var/lib",
            "C /var/lib/x",
        ]
    );
}
