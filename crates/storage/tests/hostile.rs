//! Layers made to escape, exhaust or confuse. Names are those of `cases/security.tsv`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use storage::tar::Kind;
use storage::tar::write::plain;
use storage::{Layout, Limits, Ratio};
use support::{Lab, Tar, full, layouts};

fn check(tar: Tar, expect: &[&str]) {
    let tar = tar.end();
    for layout in layouts() {
        let lab = Lab::on_directory(layout, Limits::default());
        assert_eq!(lab.show(&tar), expect, "{layout:?}");
    }
}

#[test]
fn u01_names_that_climb() {
    check(
        Tar::new().file("../../canary", "gone"),
        &["layer entry \"../../canary\": name leads out of the layer"],
    );
    check(
        Tar::new().file("a/../../canary", "gone"),
        &["layer entry \"a/../../canary\": name leads out of the layer"],
    );
    check(Tar::new().file("a/../b", "in"), &["f 644 b \"in\""]);
    check(Tar::new().file("/abs", "in"), &["f 644 abs \"in\""]);
    check(
        Tar::new().hard_link("h", "../../../canary"),
        &["layer entry \"h\": name leads out of the layer"],
    );
}

#[test]
fn u03_symlink_then_write() {
    layouts().into_iter().for_each(u03_symlink_then_write_in);
}

fn u03_symlink_then_write_in(layout: Layout) {
    let lab = Lab::on_directory(layout, Limits::default());
    let outside = lab.dir.path().display().to_string();
    let shown = lab.show(&Tar::new().symlink("l", &outside).file("l/canary", "gone").end());
    assert_eq!(
        shown,
        ["create the directory of \"l/canary\" of a layer: Not a directory (os error 20)"]
    );
    // The same link is fine when its target is inside.
    check(
        Tar::new()
            .dir("d")
            .symlink("l", "/d")
            .file("l/a", "x")
            .symlink("up", "../../d")
            .file("up/b", "y"),
        &["d 755 d", "f 644 d/a \"x\"", "f 644 d/b \"y\"", "l l -> /d", "l up -> ../../d"],
    );
    // A link in the last place is replaced, not followed.
    check(
        Tar::new().file("t", "old").symlink("l", "t").file("l", "new"),
        &["f 644 l \"new\"", "f 644 t \"old\""],
    );
}

#[test]
fn u04_chains_and_loops_of_links() {
    let chain = (0..60)
        .fold(Tar::new().dir("d0"), |tar, n| tar.symlink(&format!("d{}", n + 1), &format!("d{n}")));
    check(
        chain.file("d60/x", ""),
        &["open the directory of \"d60/x\" of a layer: \
           Too many levels of symbolic links (os error 40)"],
    );
    check(
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", ""),
        &["open the directory of \"a/x\" of a layer: \
           Too many levels of symbolic links (os error 40)"],
    );
}

#[test]
fn u06_hard_link_then_overwrite() {
    layouts().into_iter().for_each(u06_hard_link_then_overwrite_in);
}

fn u06_hard_link_then_overwrite_in(layout: Layout) {
    let lab = Lab::on_directory(layout, Limits::default());
    let outside = lab.dir.path().display().to_string();
    let tar = Tar::new().symlink("l", &outside).hard_link("h", "l/canary").file("h", "gone");
    assert_eq!(
        lab.show(&tar.end()),
        ["link \"h\" of a layer: No such file or directory (os error 2)"]
    );
    // Inside the layer the other name keeps its content.
    check(
        Tar::new().file("secret", "keep").hard_link("h", "secret").file("h", "new"),
        &["f 644 h \"new\"", "f 644 secret \"keep\""],
    );
}

#[test]
fn u07_whiteout_names() {
    layouts().into_iter().for_each(u07_whiteout_names_in);
}

fn u07_whiteout_names_in(layout: Layout) {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        check(
            Tar::new().file(name, ""),
            &[&format!("layer entry \"{name}\": whiteout of no name")],
        );
    }
    check(
        Tar::new().file(".wh.a/b", ""),
        &["layer entry \".wh.a/b\": a whiteout cannot be a directory"],
    );
    let lab = Lab::on_directory(layout, Limits::default());
    let outside = lab.dir.path().display().to_string();
    let shown = lab.show(&Tar::new().symlink("l", &outside).file("l/.wh..wh..opq", "").end());
    assert!(shown[0].contains("Not a directory"), "{shown:?}");
    let shown = lab.show(&Tar::new().symlink("l", &outside).file("l/.wh.canary", "").end());
    assert!(shown[0].contains("Not a directory"), "{shown:?}");
    check(
        Tar::new().dir("d").symlink("l", "d").file("l/.wh..wh..opq", ""),
        &["d 755 d opaque", "l l -> d"],
    );
    check(Tar::new().dir(".wh..wh.plnk").file(".wh..wh.aufs", ""), &[]);
}

#[test]
fn u08_whiteouts_mean_the_same_in_any_order() {
    let expect = &["d 755 d opaque", "f 644 d/x \"x\""];
    check(Tar::new().dir("d").file("d/x", "x").file("d/.wh..wh..opq", ""), expect);
    check(Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/x", "x"), expect);
    check(Tar::new().file("d/.wh..wh..opq", "").dir("d").file("d/x", "x"), expect);
    check(
        Tar::new().file("d/.wh..wh..opq", "").file("d/x", "x").file("d/.wh..wh..opq", ""),
        expect,
    );
    // A directory that the layer also whites out hides the one below.
    check(Tar::new().file(".wh.d", "").file("d/x", "x"), expect);
    check(Tar::new().file(".wh.d", "").dir("d").file("d/x", "x"), expect);
    check(Tar::new().dir("d").file("d/x", "x").file(".wh.d", ""), expect);
    // A file that the layer has wins over its whiteout.
    check(Tar::new().file("f", "new").file(".wh.f", ""), &["f 644 f \"new\""]);
    check(Tar::new().file(".wh.f", "").file("f", "new"), &["f 644 f \"new\""]);
    check(Tar::new().file(".wh.f", "").file(".wh.f", ""), &["w f"]);
}

#[test]
fn u10_the_root_must_be_a_directory() {
    let refused =
        |name: &str| format!("layer entry \"{name}\": the root of a layer must be a directory");
    for name in [".", "/", "./", "a/.."] {
        check(Tar::new().symlink(name, "/etc"), &[&refused(name)]);
        check(Tar::new().device(Kind::CharDevice, name, (1, 3)), &[&refused(name)]);
        check(Tar::new().hard_link(name, "a"), &[&refused(name)]);
    }
    check(Tar::new().file(".", "x"), &[&refused(".")]);
    check(Tar::new().hard_link("h", "./"), &["layer entry \"h\": hard link to the root"]);
}

#[test]
fn u11_u13_devices_and_setuid_lie_behind_a_private_directory() {
    layouts().into_iter().for_each(u11_u13_devices_and_setuid_lie_behind_a_private_directory_in);
}

fn u11_u13_devices_and_setuid_lie_behind_a_private_directory_in(layout: Layout) {
    let lab = Lab::on_directory(layout, Limits::default());
    let mut setuid = plain("su", Kind::File, 0o4755, 1, 1);
    setuid.uid = 0;
    let tar = Tar::new()
        .device(Kind::CharDevice, "mem", (1, 1))
        .device(Kind::BlockDevice, "disk", (254, 0))
        .entry(&setuid, b"x");
    assert_eq!(lab.show(&tar.end()), ["n 600 disk fe00", "n 600 mem 101", "f 4755 su \"x\""]);
    let root = lab.dir.path().join("storage");
    for dir in ["", "layers", "containers", "ingest", "trash", "content", "mounts"] {
        let mode = std::fs::metadata(root.join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{dir}");
    }
    // Another user cannot get at them.
    let top = lab.storage.all_layers().unwrap().into_iter().max_by_key(|layer| layer.size).unwrap();
    let path = lab.storage.lowers(&top.chain_id).unwrap().paths[0].join("su");
    assert!(path.exists());
    let status = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .arg(path)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
}

#[test]
fn u14_bombs_stop_early_and_leave_nothing() {
    layouts().into_iter().for_each(u14_bombs_stop_early_and_leave_nothing_in);
}

fn u14_bombs_stop_early_and_leave_nothing_in(layout: Layout) {
    let lab = Lab::on_directory(
        layout,
        Limits { ratio: Ratio { most: 1000, floor: 64 << 20 }, ..Limits::default() },
    );
    // 100 GiB of zeros, compressed on the fly; a file says that it has the first four.
    let head = Tar::new().entry(&plain("z", Kind::File, 0o644, 1, 4 << 30), b"").end();
    let zeros = std::io::repeat(0).take(100 << 30);
    let plain_tar = std::io::Cursor::new(head[..512].to_vec()).chain(zeros);
    let mut bomb = zstd::stream::read::Encoder::new(plain_tar, 1).unwrap();
    let (before, before_layers) = (rss(), lab.names("layers").len());
    let mut lease = lab.storage.lease();
    let error = lab.storage.apply_layer(&mut lease, None, &mut bomb, None).unwrap_err();
    assert_eq!(full(&error), "layer expands more than 1000 times: refused as a decompression bomb");
    assert!(rss() < before + (64 << 20), "{} to {}", before, rss());
    drop(lease);
    assert_eq!(lab.names("ingest"), [""; 0]);
    assert_eq!(lab.names("layers").len(), before_layers);
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn u14_limits_hold_for_size_and_number() {
    layouts().into_iter().for_each(u14_limits_hold_for_size_and_number_in);
}

fn u14_limits_hold_for_size_and_number_in(layout: Layout) {
    let lab = Lab::on_directory(layout, Limits { bytes: 1 << 20, entries: 3, ..Limits::default() });
    let big = Tar::new().file("f", &"x".repeat(2 << 20)).end();
    assert_eq!(lab.show(&big), ["layer is larger than 1048576 bytes"]);
    let many = Tar::new().dir("1").dir("2").dir("3").dir("4").end();
    assert_eq!(lab.show(&many), ["layer has more than 3 entries"]);
    // A sparse file counts with its holes.
    let sparse = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n32 GNU.sparse.realsize=99999999\n";
    let header = plain("pax", Kind::File, 0o644, 0, sparse.len() as u64);
    let mut tar = Tar::new().entry(&header, sparse.as_bytes()).end();
    tar.truncate(tar.len() - 1024);
    tar[156] = b'x';
    fix_checksum(&mut tar[..512]);
    let map = format!("{:\0<512}", "0\n");
    let tar = Tar::new().raw(&tar).file("s", &map).end();
    assert_eq!(lab.show(&tar), ["layer is larger than 1048576 bytes"]);
}

fn fix_checksum(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[test]
fn u16_duplicate_names_the_last_one_wins_and_the_tar_comes_back() {
    check(Tar::new().file("f", "first").file("f", "second").file("f", ""), &["f 644 f \"\""]);
    check(
        Tar::new().file("d/a", "1").file("d/b/c", "2").file("d", "3").dir("d").file("d/a", "4"),
        &["d 755 d", "f 644 d/a \"4\""],
    );
    check(
        Tar::new().file("f", "x").hard_link("g", "f").file("f", "y").symlink("g", "f"),
        &["f 644 f \"y\"", "l g -> f"],
    );
    check(
        Tar::new().dir("d").symlink("l", "d").file("l/f", "1").dir("l").file("l/f", "2"),
        &["d 755 d", "f 644 d/f \"1\"", "d 755 l", "f 644 l/f \"2\""],
    );
}

#[test]
fn u16_names_with_zero_bytes_are_refused() {
    let text = "12 path=a\0b\n";
    let header = plain("pax", Kind::File, 0o644, 0, text.len() as u64);
    let mut tar = Tar::new().entry(&header, text.as_bytes()).end();
    tar.truncate(1024);
    tar[156] = b'x';
    fix_checksum(&mut tar[..512]);
    check(
        Tar::new().raw(&tar).file("f", ""),
        &["invalid tar header at byte 0: zero byte in a pax record"],
    );
}

#[test]
fn u16_names_longer_than_the_kernel_allows() {
    layouts().into_iter().for_each(u16_names_longer_than_the_kernel_allows_in);
}

fn u16_names_longer_than_the_kernel_allows_in(layout: Layout) {
    let shown = Lab::on_directory(layout, Limits::default())
        .show(&Tar::new().file(&"n".repeat(300), "").end());
    assert!(shown[0].ends_with("File name too long (os error 36)"), "{shown:?}");
    let shown = Lab::on_directory(layout, Limits::default())
        .show(&Tar::new().file(&"d/".repeat(3000), "").end());
    assert!(shown[0].ends_with("File name too long (os error 36)"), "{shown:?}");
}

#[test]
fn u16_overlay_attributes_of_an_archive_are_not_set() {
    layouts().into_iter().for_each(u16_overlay_attributes_of_an_archive_are_not_set_in);
}

fn u16_overlay_attributes_of_an_archive_are_not_set_in(layout: Layout) {
    let lab = Lab::on_directory(layout, Limits::default());
    let mut dir = plain("d", Kind::Directory, 0o755, 1, 0);
    for name in ["trusted.overlay.redirect", "user.overlay.opaque", "user.kept"] {
        dir.xattrs.push((name.as_bytes().to_vec(), b"y".to_vec()));
    }
    let layer = lab.apply(None, &Tar::new().entry(&dir, b"").end()).unwrap();
    let mut names = [0u8; 256];
    let length = rustix::fs::listxattr(lab.root(&layer).join("d"), &mut names).unwrap();
    assert_eq!(&names[..length], b"user.kept\0");
}

/// The other form has no directory to exchange: what an archive names is never a name in the store.
#[test]
fn u17_one_file_layers_have_no_directories_to_exchange() {
    if !layouts().contains(&Layout::Erofs) {
        return;
    }
    let lab = Lab::on_directory(Layout::Erofs, Limits::default());
    let tar = Tar::new().dir("d").symlink("e", "/").dir("d/sub").file("d/sub/f", "x");
    let layer = lab.apply(None, &tar.end()).unwrap();
    let kept = lab.dir.path().join("storage/layers").join(layer.chain_id.hex());
    let mut names: Vec<_> = std::fs::read_dir(&kept)
        .unwrap()
        .map(|entry| entry.unwrap())
        .inspect(|entry| assert!(entry.file_type().unwrap().is_file(), "{entry:?}"))
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["committed", "root.erofs", "tar", "toc"]);
}

/// One thread keeps exchanging a directory of the layer for a link to the outside while entries
/// are written below it.
#[test]
fn u17_directories_exchanged_while_unpacking() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let lab = Lab::new();
    let outside = lab.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let stop = AtomicBool::new(false);
    let ingest = lab.dir.path().join("storage/ingest");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir(&ingest).unwrap().flatten() {
                    let dir = entry.path().join("diff/d");
                    let aside = entry.path().join("aside");
                    if std::fs::rename(&dir, &aside).is_ok() {
                        drop(std::os::unix::fs::symlink(&outside, &dir));
                        drop(std::fs::remove_file(&dir));
                        drop(std::fs::rename(&aside, &dir));
                    }
                }
            }
        });
        for _ in 0..20 {
            let tar = (0..200).fold(Tar::new().dir("d").dir("e"), |tar, n| {
                tar.file(&format!("d/{n}"), "x").file(&format!("e/{n}"), "x")
            });
            // Whether it works or fails, nothing may appear outside.
            drop(lab.apply(None, &tar.end()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn u18_whiteouts_as_devices_and_with_data() {
    check(Tar::new().device(Kind::CharDevice, "x", (0, 0)), &["w x"]);
    check(
        Tar::new().file(".wh.x", "data that nobody reads").file("y", "1"),
        &["w x", "f 644 y \"1\""],
    );
    check(
        Tar::new().device(Kind::CharDevice, "x", (0, 0)).hard_link("y", "x"),
        &["layer entry \"y\": hard link to something that cannot have two names"],
    );
}
