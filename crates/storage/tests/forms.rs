//! Every layer gives the same tree, whichever form it has; forms live side by side.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use storage::tar::write::plain;
use storage::tar::{Entry, Kind};
use storage::{Layer, Layout, StorageError};
use support::view::{root, view};
use support::{Lab, Tar, full, has_erofs, mounts_files, tree};

/// Applies the layers, bottom first; the last one, or the error.
fn apply(lab: &Lab, tars: &[Vec<u8>]) -> Result<Layer, StorageError> {
    let mut top: Option<Layer> = None;
    for tar in tars {
        top = Some(lab.apply(top.as_ref(), tar)?);
    }
    Ok(top.unwrap())
}

/// Both forms give the same tree, or the same error; returns it.
fn check(tars: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let show = |layout| {
        let lab = Lab::with_layout(layout);
        let shown = apply(&lab, tars).map(|top| root(&lab, &top)).map_err(|error| full(&error));
        fsck(&lab);
        shown
    };
    let directories = show(Layout::Directories);
    let index = if has_erofs() { show(Layout::Erofs) } else { directories.clone() };
    if let (Ok(one), Ok(other)) = (&directories, &index) {
        for (one, other) in one.iter().zip(other) {
            assert_eq!(one, other);
        }
    }
    assert_eq!(directories, index);
    directories
}

/// With `FSCK_EROFS` naming Debian 13's program, it looks at every image as well.
fn fsck(lab: &Lab) {
    let Ok(program) = std::env::var("FSCK_EROFS") else { return };
    for chain in lab.names("layers") {
        let layer = lab.dir.path().join("storage/layers").join(&chain);
        let image = layer.join("root.erofs");
        if !image.exists() {
            continue;
        }
        let chain = spec::Digest::from_hex(&chain).unwrap();
        let layers = lab.storage.layers(&chain).unwrap();
        // An opaque root ends the list of devices early.
        let superblock = fs::read(&image).unwrap().split_off(1024);
        let devices = usize::from(u16::from_le_bytes([superblock[86], superblock[87]]));
        let mut command = Command::new(&program);
        for layer in &layers[layers.len() - devices..] {
            let layers = lab.dir.path().join("storage/layers");
            let tar = layers.join(layer.chain_id.hex()).join("tar");
            command.arg(format!("--device={}", tar.display()));
        }
        let output = command.arg(&image).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {text}", image.display());
    }
}

fn owned(path: &str, kind: Kind, mode: u32, size: usize) -> Entry {
    let mut entry = plain(path, kind, mode, 1_234_567_890, size as u64);
    (entry.uid, entry.gid) = (1000, 2000);
    entry
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// All that a layer can have.
fn rich() -> Vec<u8> {
    let mut tar = Tar::new().entry(&owned("./", Kind::Directory, 0o751, 0), b"");
    for (name, time) in
        [("old", (-86_400, 5)), ("new", (4_000_000_000, 999_999_999)), ("z", (0, 0))]
    {
        let mut entry = plain(&format!("times/{name}"), Kind::File, 0o644, 0, 1);
        entry.mtime = time;
        tar = tar.entry(&entry, b"t");
        entry.path = format!("times/{name}.d").into_bytes();
        (entry.kind, entry.size) = (Kind::Directory, 0);
        tar = tar.entry(&entry, b"");
    }
    for size in [0, 1, 511, 512, 513, 4095, 4096, 4097, 70_000] {
        let content: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
        tar = tar.entry(&owned(&format!("sizes/{size}"), Kind::File, 0o600, size), &content);
    }
    for mode in [0o0, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777] {
        tar = tar.entry(&owned(&format!("modes/{mode:o}"), Kind::File, mode, 1), b"m");
    }
    tar = tar.entry(&owned("sticky", Kind::Directory, 0o1777, 0), b"");
    tar = tar.entry(&owned("setgid", Kind::Directory, 0o2775, 0), b"").file("setgid/in/deep", "x");
    for length in [1, 100, 254, 255] {
        tar = tar.file(&format!("names/{}", "n".repeat(length)), "n").file(
            &format!("names/{}{}", "ü".repeat(length / 2), if length % 2 == 1 { "x" } else { "" }),
            "u",
        );
    }
    tar = tar.file("names/-", "before the dot").file("names/...", "after it").file("names/!", "");
    let deep = "d".repeat(99);
    tar = tar.file(&format!("{}/leaf", vec![deep; 38].join("/")), "deep");
    for length in [1, 60, 255, 383, 384, 385, 447, 448, 449, 511, 512, 513, 4095] {
        tar = tar.symlink(&format!("links/{length}"), &"l".repeat(length));
    }
    tar = tar.symlink("links/up", "../../..").symlink("links/abs", "/etc/passwd");
    for number in 0..500 {
        tar = tar.file(&format!("many/file-{number}"), "x").dir(&format!("many/dir-{number}"));
    }
    tar = tar
        .device(Kind::CharDevice, "dev/null", (1, 3))
        .device(Kind::BlockDevice, "dev/big", (0xfff, 0xf_ffff))
        .device(Kind::BlockDevice, "dev/zero", (0, 0))
        .device(Kind::Fifo, "dev/fifo", (0, 0))
        .hard_link("dev/same", "dev/null")
        .file("hard/one", "linked")
        .hard_link("hard/two", "hard/one")
        .hard_link("elsewhere", "hard/two")
        .symlink("hard/link", "one")
        .hard_link("hard/same-link", "hard/link");
    tar = attributes(tar);
    tar.end()
}

fn attributes(mut tar: Tar) -> Tar {
    let capability = [&[1u8, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    let list = acl(&[(1, 7, 0), (2, 5, 12), (4, 5, 0), (16, 5, 0), (32, 1, 0)]);
    let equal_to_mode = acl(&[(1, 6, 0), (4, 0, 0), (32, 4, 0)]);
    type Xattrs<'a> = &'a [(&'a str, &'a [u8])];
    let sets: [(&str, Xattrs<'_>); 7] = [
        ("one", &[("user.a", b"b")]),
        ("empty", &[("user.a", b""), ("user.b", b"\0\xff")]),
        ("several", &[("user.one", b"1"), ("user.two", &[7; 300]), ("user.three", b"3")]),
        ("long", &[("user.long", &[8; 3000])]),
        ("capable", &[("security.capability", &capability), ("user.x", b"y")]),
        ("acl", &[("system.posix_acl_access", &list), ("trusted.gone", b"x")]),
        ("plain-acl", &[("system.posix_acl_access", &equal_to_mode)]),
    ];
    for (name, set) in sets {
        for kind in [Kind::File, Kind::Directory] {
            if kind == Kind::Directory && name == "capable" {
                continue;
            }
            let letter = if kind == Kind::File { "f" } else { "d" };
            let mut entry = owned(&format!("xattr/{name}.{letter}"), kind, 0o640, 0);
            if kind == Kind::File {
                entry.size = 2;
            }
            for (name, value) in set {
                entry.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
            }
            tar = tar.entry(&entry, if kind == Kind::File { b"xx" } else { b"" });
        }
    }
    let mut link = plain("xattr/link", Kind::Symlink, 0o777, 1, 0);
    link.link = b"one.f".to_vec();
    link.xattrs.push((b"user.a".to_vec(), b"not on a link".to_vec()));
    let mut fifo = plain("xattr/fifo", Kind::Fifo, 0o600, 1, 0);
    fifo.xattrs = link.xattrs.clone();
    tar.entry(&link, b"").entry(&fifo, b"")
}

#[test]
fn one_rich_layer() {
    let lines = check(&[rich()]).unwrap();
    assert!(lines.len() > 1100, "{}", lines.len());
    for part in [
        "modes/4755 104755 1000:2000",
        "system.posix_acl_access=",
        " -86400.000000005",
        " = dev/null",
        "ffffffff",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}");
    }
}

#[test]
fn layers_over_layers() {
    let empty = Tar::new().end();
    let second = Tar::new()
        .file("many/.wh.file-1", "")
        .file("many/.wh.dir-2", "")
        .file("many/.wh.none", "")
        .file("many/file-3", "replaced")
        .file("many/dir-4", "a file now")
        .file("times/.wh..wh..opq", "")
        .file("times/only", "this")
        .file(".wh.names", "")
        .file("hard/two", "alone")
        .file("sticky/implied", "x")
        .file("xattr/one.d/implied", "the directory loses its attributes")
        .end();
    let third = Tar::new()
        .dir("names")
        .file("names/back", "")
        .file("many/file-1", "back")
        .dir("many/dir-4")
        .file("many/dir-4/in", "a directory again")
        .entry(&owned("sizes", Kind::Directory, 0o700, 0), b"")
        .entry(&owned("./", Kind::Directory, 0o755, 0), b"")
        .file(".wh.hard", "")
        .end();
    check(&[rich(), second.clone()]).unwrap();
    check(&[rich(), empty.clone(), second.clone(), third.clone(), empty.clone()]).unwrap();
    let opaque = Tar::new().file(".wh..wh..opq", "").file("a/b", "all that is left").end();
    let lines = check(&[rich(), second, opaque.clone(), empty.clone()]).unwrap();
    assert_eq!(lines.len(), 3);
    check(std::slice::from_ref(&empty)).unwrap();
    check(&[Vec::new(), empty, opaque, third]).unwrap();
}

#[test]
fn forty_layers() {
    let layer = |number: u32| {
        Tar::new()
            .file(&format!("each/{number}"), &"x".repeat(number as usize * 7))
            .file(&format!("each/.wh.{}", number / 2), "")
            .file("all", &number.to_string())
            .end()
    };
    let tars: Vec<_> = (0..40).map(layer).collect();
    let lines = check(&tars).unwrap();
    assert_eq!(lines.iter().filter(|line| line.starts_with("each/")).count(), 20);
}

/// GNU tar writes them in three ways; holes stay holes on the disk.
#[test]
fn sparse_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, pieces: &[(u64, &[u8])], size| {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        for (at, bytes) in pieces {
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, *at).unwrap();
        }
        file.set_len(size).unwrap();
    };
    write("middle", &[(1 << 20, b"middle")], 3 << 20);
    write("ends", &[(0, b"start"), ((40 << 20) - 3, b"end")], 40 << 20);
    write("odd", &[(4096 * 3, &[1; 5000]), (123_456, &[2; 1])], 123_457);
    write("nothing", &[], 9_999_999);
    for format in
        [&["--format=gnu"][..], &["--format=posix"], &["--format=posix", "--sparse-version=0.1"]]
    {
        let output = Command::new("tar")
            .arg("-cS")
            .args(format)
            .arg("-C")
            .arg(dir.path())
            .args(["middle", "ends", "odd", "nothing"])
            .output()
            .unwrap();
        assert!(output.stdout.len() < 200_000, "tar saw no hole");
        check(std::slice::from_ref(&output.stdout)).unwrap();
        let lab = Lab::with_layout(Layout::Erofs);
        let layer = lab.apply(None, &output.stdout).unwrap();
        let tar = lab.dir.path().join("storage/layers").join(layer.chain_id.hex()).join("tar");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(tar).unwrap());
        assert!(blocks < 1000, "{blocks}");
        let mut back = Vec::new();
        lab.storage.write_tar(&layer.chain_id, &mut back).unwrap();
        assert!(back == output.stdout, "{format:?}");
    }
}

/// What follows a file's end in its last page is zero, whatever the archive has there.
#[test]
fn padding_that_is_not_zero_is_not_shown() {
    if !has_erofs() {
        return;
    }
    use std::io::Read;
    let mut tar = Tar::new().file("f", "text").file("g", "other").end();
    tar[512 + 4..1024].fill(b'X');
    let lines = check(std::slice::from_ref(&tar)).unwrap();
    assert_eq!(lines.len(), 3);
    let lab = Lab::with_layout(Layout::Erofs);
    let layer = lab.apply(None, &tar).unwrap();
    let file = lab.storage.lowers(&layer.chain_id).unwrap().paths[0].join("f");
    // A program that maps the file, without the means to do it here.
    let script = "import mmap,os,sys,ctypes\n\
        fd=os.open(sys.argv[1],os.O_RDONLY)\n\
        libc=ctypes.CDLL(None)\n\
        libc.mmap.restype=ctypes.c_void_p\n\
        libc.mmap.argtypes=[ctypes.c_void_p,ctypes.c_size_t]+[ctypes.c_int]*3+[ctypes.c_long]\n\
        at=libc.mmap(None,4096,1,2,fd,0)\n\
        sys.stdout.buffer.write(ctypes.string_at(at,4096))";
    let output = Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 4096);
    assert!(output.stdout.starts_with(b"text\0\0\0\0"));
    assert!(output.stdout[4..].iter().all(|byte| *byte == 0));
    let mut back = Vec::new();
    lab.storage.write_tar(&layer.chain_id, &mut back).unwrap();
    assert!(back == tar);
    fs::File::open(file).unwrap().read_to_end(&mut back).unwrap();
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    let refused = |name: &str, value: &[u8], kind, why: &str| {
        let mut entry = plain("e", kind, 0o644, 1, 0);
        entry.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
        let error = check(&[Tar::new().entry(&entry, b"").end()]).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused("security.capability", b"junk", Kind::File, "Invalid argument");
    refused("system.posix_acl_access", b"\x02\0\0\0junk", Kind::File, "Invalid argument");
    let list = acl(&[(1, 7, 0), (4, 5, 0), (32, 1, 0)]);
    refused("system.posix_acl_default", &list, Kind::File, "Permission denied");
    refused("user.", b"", Kind::File, "Invalid argument");
    refused(&format!("user.{}", "n".repeat(300)), b"", Kind::File, "out of range");
    check(&[Tar::new().symlink("l", "").end()]).unwrap_err();
    check(&[Tar::new().symlink("l", &"x".repeat(4096)).end()]).unwrap_err();
    for device in [(4096, 0), (0, 1 << 20)] {
        check(&[Tar::new().device(Kind::CharDevice, "c", device).end()]).unwrap_err();
    }
    let mut nobody = plain("e", Kind::File, 0o644, 1, 0);
    nobody.uid = u32::MAX;
    check(&[Tar::new().entry(&nobody, b"").end()]).unwrap_err();
}

/// Layers of both forms in one chain, and every store opened with the other form.
#[test]
fn forms_live_side_by_side() {
    if !has_erofs() {
        return;
    }
    let layers = [
        Tar::new().file("a/one", "1").file("a/gone", "1").file("d/x", "x").dir("keep").end(),
        Tar::new().file("a/.wh.gone", "").file("a/two", "2").file(".wh.d", "").end(),
        Tar::new()
            .entry(&owned("d/sub", Kind::Directory, 0o700, 0), b"")
            .file("a/three", "3")
            .end(),
        Tar::new().file("a/.wh.one", "").file("keep/implied/here", "4").end(),
        Tar::new().file("a/.wh..wh..opq", "").file("a/last", "5").end(),
    ];
    let plain_lab = Lab::new();
    let mut expect = Vec::new();
    let mut top = None;
    for tar in &layers {
        let layer = plain_lab.apply(top.as_ref(), tar).unwrap();
        expect.push(root(&plain_lab, &layer));
        top = Some(layer);
    }
    // Bit n of the pattern says which form layer n has.
    for pattern in [0b00001, 0b11110, 0b10101, 0b01010, 0b00110, 0b11001u32] {
        let mut lab = Lab::new();
        let mut chain: Vec<Layer> = Vec::new();
        for (number, tar) in layers.iter().enumerate() {
            let index = pattern >> number & 1 == 1;
            lab = lab.change(if index { Layout::Erofs } else { Layout::Directories });
            chain.push(lab.apply(chain.last(), tar).unwrap());
        }
        for layout in [Layout::Directories, Layout::Erofs] {
            lab = lab.change(layout);
            for (layer, expect) in chain.iter().zip(&expect) {
                assert_eq!(root(&lab, layer), *expect, "{pattern:b}");
            }
        }
    }
}

/// On a kernel that cannot mount images any more, tars are unpacked.
#[test]
fn indexes_become_directories_where_nothing_else_works() {
    if !has_erofs() {
        return;
    }
    let lab = Lab::with_layout(Layout::Erofs);
    let tars = [rich(), Tar::new().file("many/.wh.file-1", "").file("more", "x").end()];
    let top = apply(&lab, &tars).unwrap();
    let expect = root(&lab, &top);
    let lab = lab.change(Layout::Directories);
    std::thread::scope(|scope| {
        let without_mounts = || {
            let kept = sys::caps::permitted().unwrap() & !sys::caps::SYS_ADMIN;
            let sets = sys::caps::Sets { effective: kept, permitted: kept, inheritable: 0 };
            sys::caps::set(sets).unwrap();
            let error = Lab::try_with_layout(Layout::Erofs).unwrap_err();
            assert!(error.to_string().starts_with("this kernel cannot mount layers as EROFS: "));
            let auto = Lab::with_layout(Layout::Auto);
            assert_eq!(auto.storage.layout(), "directories");
            lab.storage.lowers(&top.chain_id).unwrap()
        };
        let lowers = scope.spawn(without_mounts).join().unwrap();
        assert_eq!(lowers.paths.len(), 2);
        assert!(lowers.paths.iter().all(|path| path.ends_with("diff")));
        assert!(tree(&lowers.paths[1]).len() > 1000);
    });
    assert_eq!(root(&lab, &top), expect);
}

#[test]
fn both_ways_of_mounting_give_the_same() {
    let expect = check(&[rich()]).unwrap();
    if !has_erofs() {
        return;
    }
    for (layout, name) in
        [(Layout::ErofsFiles, "EROFS, file-backed"), (Layout::ErofsLoops, "EROFS, loop devices")]
    {
        if layout == Layout::ErofsFiles && !mounts_files() {
            Lab::try_with_layout(layout).unwrap_err();
            continue;
        }
        let lab = Lab::with_layout(layout);
        assert_eq!(lab.storage.layout(), name);
        let layer = lab.apply(None, &rich()).unwrap();
        assert_eq!(root(&lab, &layer), expect);
    }
}

/// Nothing of an image is ever read from a damaged table, tar or record.
#[test]
fn damage_is_noticed() {
    if !has_erofs() {
        return;
    }
    for (file, at) in [("toc", 40), ("toc", 5)] {
        let lab = Lab::with_layout(Layout::Erofs);
        let layer = lab.apply(None, &rich()).unwrap();
        let place = lab.dir.path().join("storage/layers").join(layer.chain_id.hex());
        fs::remove_file(place.join("root.erofs")).unwrap();
        let mut bytes = fs::read(place.join(file)).unwrap();
        bytes[at] ^= 1;
        fs::write(place.join(file), bytes).unwrap();
        let error = lab.storage.lowers(&layer.chain_id).unwrap_err();
        assert!(matches!(error, StorageError::DataLoss { .. }), "{error}");
    }
    let lab = Lab::with_layout(Layout::Erofs);
    let layer = lab.apply(None, &rich()).unwrap();
    let place = lab.dir.path().join("storage/layers").join(layer.chain_id.hex());
    let tar = fs::File::options().write(true).open(place.join("tar")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&tar, b"evil", 2000).unwrap();
    let error = lab.storage.write_tar(&layer.chain_id, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, StorageError::DataLoss { .. }), "{error}");
}

#[test]
fn images_are_made_again_and_go_with_their_layer() {
    if !has_erofs() {
        return;
    }
    let lab = Lab::with_layout(Layout::Erofs);
    let tars = [rich(), Tar::new().file("x", "").end()];
    let top = apply(&lab, &tars).unwrap();
    let lowers = lab.storage.lowers(&top.chain_id).unwrap();
    assert_eq!(lowers, lab.storage.lower_names(&top.chain_id).unwrap());
    assert_eq!(lab.names("mounts"), [top.chain_id.hex()]);
    let expect = view(&lowers.paths[0]);
    let place = lab.dir.path().join("storage/layers").join(top.chain_id.hex());
    let lab = lab.reopen();
    fs::remove_file(place.join("root.erofs")).unwrap();
    assert_eq!(view(&lab.storage.lowers(&top.chain_id).unwrap().paths[0]), expect);
    assert!(place.join("root.erofs").exists());
    remove(&lab, &top);
    assert_eq!(lab.names("mounts"), [""; 0]);
    assert_eq!(lab.names("layers").len(), 1);
    assert!(!Path::new("/proc/mounts").exists() || !mounted(&lab, &top));
}

fn remove(lab: &Lab, layer: &Layer) {
    let (chain, leases) = (layer.chain_id, lab.storage.leases().clone());
    let freed = lab.storage.store().write(move |txn| storage::release(txn, &chain, &leases));
    lab.storage.discard(&freed.unwrap()).unwrap();
}

fn mounted(lab: &Lab, layer: &Layer) -> bool {
    let place = lab.dir.path().join("storage/mounts").join(layer.chain_id.hex());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(&place.display().to_string())
}

/// Between uses the host's table of mounts is as if there were no images, and yet it is the same
/// file system that comes back.
#[test]
fn mounts_are_in_their_place_while_they_are_used() {
    if !has_erofs() {
        return;
    }
    let lab = Lab::with_layout(Layout::Erofs);
    let layer = apply(&lab, &[rich()]).unwrap();
    let device = |place: &Path| fs::metadata(place).unwrap().dev();
    let lowers = lab.storage.lowers(&layer.chain_id).unwrap();
    let (place, expect) = (lowers.paths[0].clone(), view(&lowers.paths[0]));
    let before = device(&place);
    std::thread::scope(|scope| {
        let aside = scope.spawn(|| lab.storage.put_mounts_aside_when_idle());
        // Longer than anybody would wait for the next container.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!aside.is_finished() && mounted(&lab, &layer));
        drop(lowers);
        aside.join().unwrap();
    });
    assert!(!mounted(&lab, &layer));
    assert_ne!(device(&place), before);
    for _ in 0..2 {
        let again = lab.storage.lowers(&layer.chain_id).unwrap();
        assert_eq!((again.paths[0].as_path(), device(&place)), (place.as_path(), before));
        assert_eq!(view(&place), expect);
        drop(again);
        lab.storage.put_mounts_aside_when_idle();
        assert!(!mounted(&lab, &layer));
    }
    // Removed while it is nowhere to be seen.
    remove(&lab, &layer);
    assert_eq!(lab.names("mounts"), [""; 0]);
}
