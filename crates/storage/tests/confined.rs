//! The confined unpacker. This program is its own child: started with `unpack` it is the
//! unpacker, otherwise the tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::ExitCode;

use metadata::Store;
use storage::tar::Kind;
use storage::{Confined, Layout, Options, Storage};
use support::{Lab, Tar, tree};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|role| role == "unpack") {
        return storage::unpack_main(&arguments[2]);
    }
    for layout in support::layouts() {
        it_unpacks_what_the_other_does(layout);
        it_refuses_in_the_same_words(layout);
        a_broken_stream_is_no_layer(layout);
        a_child_that_dies_is_told(layout);
    }
    ExitCode::SUCCESS
}

fn confined(program: &str, arguments: &[&str], layout: Layout) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("metadata.redb")).unwrap();
    let unpacker = Box::new(Confined {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
    });
    let options = Options { unpacker, layout, ..Options::default() };
    let storage = Storage::open_with(dir.path().join("storage"), store, options);
    Lab { storage: storage.unwrap(), dir, layout }
}

fn ours(layout: Layout) -> Lab {
    confined("/proc/self/exe", &["unpack"], layout)
}

fn it_unpacks_what_the_other_does(layout: Layout) {
    let mut owned = storage::tar::write::plain("own", Kind::File, 0o4755, 1, 3);
    (owned.uid, owned.gid) = (12, 34);
    owned.xattrs.push((b"user.a".to_vec(), b"b".to_vec()));
    let tar = Tar::new()
        .dir("d")
        .file("d/f", "1")
        .file("d/f", "2")
        .file("d/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .entry(&owned, b"abc")
        .symlink("l", "d")
        .file("l/through", "x")
        .hard_link("e/h", "d/f")
        .device(Kind::CharDevice, "null", (1, 3))
        .end();
    let (one, other) = (ours(layout), Lab::with_layout(layout));
    let (bottom, same) = (Tar::new().dir("e").end(), Tar::new().dir("e").end());
    let (bottom, same) = (one.apply(None, &bottom).unwrap(), other.apply(None, &same).unwrap());
    let layer = one.apply(Some(&bottom), &tar).unwrap();
    assert_eq!(layer, other.apply(Some(&same), &tar).unwrap());
    let shown = |lab: &Lab| tree(&lab.storage.lowers(&layer.chain_id).unwrap().paths[0]);
    assert_eq!(shown(&one), shown(&other));
    if layout == Layout::Directories {
        assert!(shown(&one).contains(&"d 755 d opaque".to_owned()));
    }
    let mut back = Vec::new();
    one.storage.write_tar(&layer.chain_id, &mut back).unwrap();
    assert!(back == tar);
}

fn it_refuses_in_the_same_words(layout: Layout) {
    for tar in [
        Tar::new().file("../x", "").end(),
        Tar::new().symlink("l", "/etc").file("l/x", "").end(),
        b"garbage".to_vec(),
        b"\xfd7zXZ\0\0\0".to_vec(),
    ] {
        let (one, other) =
            (ours(layout).apply(None, &tar), Lab::with_layout(layout).apply(None, &tar));
        let (one, other) = (one.unwrap_err(), other.unwrap_err());
        assert_eq!(support::full(&one).trim_start_matches("unpacker: "), support::full(&other));
        assert_eq!(spec::Kinded::kind(&one), spec::Kinded::kind(&other));
    }
}

/// A reader that fails in the middle.
struct Broken<'a>(&'a [u8]);

impl std::io::Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        self.0.read(buffer)
    }
}

fn a_broken_stream_is_no_layer(layout: Layout) {
    let lab = ours(layout);
    // Broken off exactly where the archive could end.
    let tar = Tar::new().file("f", "x").end();
    let mut lease = lab.storage.lease();
    let error = lab.storage.apply_layer(&mut lease, None, &mut Broken(&tar), None).unwrap_err();
    assert!(support::full(&error).contains("reset"), "{error}");
    assert_eq!(lab.names("layers"), [""; 0]);
    assert_eq!(lab.names("ingest"), [""; 0]);
}

fn a_child_that_dies_is_told(layout: Layout) {
    let lab = confined("/bin/sh", &["-c", "kill -9 $$"], layout);
    let error = lab.apply(None, &Tar::new().file("f", "x").end()).unwrap_err();
    assert_eq!(error.to_string(), "unpacker: signal: 9 (SIGKILL)");
    let lab = confined("/nonexistent", &[], layout);
    assert!(lab.apply(None, b"").unwrap_err().to_string().starts_with("unpacker: "));
}
