//! Each case is an archive and what the reader makes of it, in one line per member.

use super::write::{Writer, plain};
use super::*;

fn show(archive: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reader = Reader::new(archive, ());
    loop {
        match reader.next_entry() {
            Ok(None) => return lines,
            Err(error) => {
                lines.push(error.to_string());
                return lines;
            }
            Ok(Some(entry)) => {
                let mut data = Vec::new();
                while let bytes @ [_, ..] = reader.data().unwrap() {
                    data.extend_from_slice(bytes);
                    let length = bytes.len();
                    reader.consume(length);
                }
                lines.push(format!(
                    "{:?} {} {:o} {}:{} {:?} {}{}",
                    entry.kind,
                    String::from_utf8_lossy(&entry.path),
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.mtime,
                    entry.size,
                    if data.is_empty() {
                        String::new()
                    } else {
                        format!(" {:?} {:?}", String::from_utf8_lossy(&data), entry.sparse)
                    },
                ));
            }
        }
    }
}

fn check(archive: &[u8], expect: &[&str]) {
    assert_eq!(show(archive), expect);
}

/// A ustar header with some bytes replaced and the checksum made right.
fn header(type_flag: u8, name: &str, size: &str, patch: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    patch(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn padded(text: &str) -> Vec<u8> {
    let mut data = text.as_bytes().to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn pax(records: &str) -> Vec<u8> {
    let size = format!("{:o}", records.len());
    [header(b'x', "p", &size, |_| {}), padded(records)].concat()
}

#[test]
fn what_the_writer_writes_the_reader_reads() {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    writer.directory("blobs/", 5).unwrap();
    writer.file("a", 7, b"hello").unwrap();
    let mut odd = plain(&"x/".repeat(200), Kind::Directory, 0o1777, -3, 0);
    odd.mtime = (-3, 250_000_000);
    odd.uid = 4_000_000_000;
    writer.header(&odd).unwrap();
    let split = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    writer.file(&split, 0, b"").unwrap();
    writer.finish().unwrap();
    check(
        &archive,
        &[
            "Directory blobs/ 755 0:0 (5, 0) 0",
            "File a 644 0:0 (7, 0) 5 \"hello\" None",
            &format!("Directory {} 1777 4000000000:0 (-3, 250000000) 0", "x/".repeat(200)),
            &format!("File {split} 644 0:0 (0, 0) 0"),
        ],
    );
}

#[test]
fn long_names_beat_pax_and_pax_beats_the_header() {
    let long = format!("{}/long", "n".repeat(150));
    let gnu = [header(b'L', "@", &format!("{:o}", long.len() + 1), |_| {}), padded(&long)].concat();
    let file = header(b'0', "short", "0", |_| {});
    check(
        &[gnu, pax("10 path=x\n"), file.clone()].concat(),
        &[&format!("File {long} 644 0:0 (0, 0) 0")],
    );
    check(&[pax("10 path=y\n"), file].concat(), &["File y 644 0:0 (0, 0) 0"]);
}

#[test]
fn pax_size_is_the_size() {
    let archive = [pax("9 size=3\n"), header(b'0', "f", "1", |_| {}), padded("abc")].concat();
    check(&archive, &["File f 644 0:0 (0, 0) 3 \"abc\" None"]);
}

#[test]
fn sizes_that_are_negative_or_too_large_are_refused() {
    let negative = header(b'0', "f", "", |block| block[124..136].fill(0xff));
    check(&negative, &["invalid tar header at byte 0: negative size"]);
    let huge = header(b'0', "f", "", |block| {
        block[124] = 0x80;
        block[125..136].fill(0xff);
    });
    check(&huge, &["invalid tar header at byte 0: number out of range"]);
    let text = header(b'0', "f", "12x", |_| {});
    check(&text, &["invalid tar header at byte 0: number is not octal"]);
    check(
        &[pax("28 size=9999999999999999999\n"), header(b'0', "f", "1", |_| {})].concat(),
        &["invalid tar header at byte 1024: bad size"],
    );
}

#[test]
fn base_256_sizes_are_read() {
    let file = header(b'0', "f", "", |block| {
        block[124] = 0x80;
        block[135] = 2;
    });
    check(&[file, padded("ab")].concat(), &["File f 644 0:0 (0, 0) 2 \"ab\" None"]);
}

#[test]
fn broken_streams_are_refused() {
    let file = header(b'0', "f", "3", |_| {});
    check(&file[..100], &["unexpected end of the archive at byte 100"]);
    let mut bad = file.clone();
    bad[0] ^= 1;
    check(&bad, &["invalid tar header at byte 0: wrong checksum"]);
    let long = header(b'x', "f", "77777777", |_| {});
    check(&long, &["invalid tar header at byte 512: special member too long"]);
    check(
        &[vec![0; 512], file].concat(),
        &["invalid tar header at byte 1024: data after a zero block"],
    );
    check(
        &header(b'M', "f", "0", |_| {}),
        &["invalid tar header at byte 0: unhandled member type"],
    );
    check(&[], &[]);
}

#[test]
fn links_have_no_data_whatever_they_say() {
    let link = header(b'2', "l", "7", |block| block[157] = b'x');
    let next = header(b'0', "f", "0", |_| {});
    check(&[link, next].concat(), &["Symlink l 644 0:0 (0, 0) 0", "File f 644 0:0 (0, 0) 0"]);
}

#[test]
fn sparse_maps_of_every_kind() {
    let expect = "File s 644 0:0 (0, 0) 9 \"abc\" \
                  Some([Fragment { offset: 1, length: 2 }, Fragment { offset: 8, length: 1 }])";
    let gnu = header(b'S', "s", "3", |block| {
        block[386..389].copy_from_slice(b"001");
        block[398..401].copy_from_slice(b"002");
        block[410..413].copy_from_slice(b"010");
        block[422..425].copy_from_slice(b"001");
        block[483..486].copy_from_slice(b"011");
    });
    check(&[gnu, padded("abc")].concat(), &[expect]);
    let file = header(b'0', "GNUSparse.0/s", "3", |_| {});
    let map = "22 GNU.sparse.size=9\n\x20";
    let map = map.trim_end_matches(' ');
    let one = format!("{map}30 GNU.sparse.map=1,2,8,1\n21 GNU.sparse.name=s\n");
    let one = fix_lengths(&one);
    check(&[pax(&one), file.clone(), padded("abc")].concat(), &[expect]);
    let zero = fix_lengths(
        "0 GNU.sparse.size=9\n0 GNU.sparse.numblocks=2\n0 GNU.sparse.offset=1\n\
         0 GNU.sparse.numbytes=2\n0 GNU.sparse.offset=8\n0 GNU.sparse.numbytes=1\n0 path=s\n",
    );
    check(&[pax(&zero), file, padded("abc")].concat(), &[expect]);
    let in_data = fix_lengths(
        "0 GNU.sparse.major=1\n0 GNU.sparse.minor=0\n0 GNU.sparse.name=s\n\
         0 GNU.sparse.realsize=9\n",
    );
    let file = header(b'0', "GNUSparse.0/s", "1003", |_| {});
    let map = padded("2\n1\n2\n8\n1\n");
    check(&[pax(&in_data), file, map, padded("abc")].concat(), &[expect]);
}

/// Puts the right length in front of each record.
fn fix_lengths(records: &str) -> String {
    let fix = |record: &str| {
        let body = record.split_once(' ').unwrap().1;
        (1..).map(|n| format!("{n} {body}\n")).find(|it| it.starts_with(&format!("{} ", it.len())))
    };
    records.lines().map(|record| fix(record).unwrap()).collect()
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let file = header(b'0', "s", "3", |_| {});
    for (map, reason) in [
        ("0,9223372036854775807,5,3", "sparse map out of order"),
        ("9223372036854775807,9223372036854775807,1,2", "sparse map out of order"),
        ("5,2,1,1", "sparse map out of order"),
        ("0,2", "sparse map does not match the data"),
        ("8,3", "sparse map beyond the end of the file"),
        ("1", "bad sparse map"),
    ] {
        let records = fix_lengths(&format!("0 GNU.sparse.size=9\n0 GNU.sparse.map={map}\n"));
        check(
            &[pax(&records), file.clone(), padded("abc")].concat(),
            &[&format!("invalid tar header at byte 1024: {reason}")],
        );
    }
}
