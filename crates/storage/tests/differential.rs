//! Random layers through both forms, and through GNU tar with an overlay made by hand.
//! `cargo xtask fuzz-layers [ROUNDS] [SEED]` runs more of them than the suite does.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod support;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use storage::tar::write::plain;
use storage::tar::{Entry, Kind};
use storage::{Layer, Layout};
use support::view::{root, view};
use support::{Lab, Tar, full};

const NAMES: [&str; 9] = ["a", "b", "c", "d.e", "x", "-", ".hidden", "long", "ü"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// splitmix64: the same numbers for the same seed, on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(4);
        (0..depth).map(|_| *self.pick(&NAMES)).collect::<Vec<_>>().join("/")
    }

    /// Attributes of every kind, within what the disk below can keep.
    fn entry(&mut self, path: &str, kind: Kind) -> Entry {
        let mode = if kind == Kind::Symlink { 0o777 } else { self.below(0o10000) as u32 };
        let mut entry = plain(path, kind, mode, 0, 0);
        entry.mtime = (self.below(3_000_000_000).cast_signed() - 1_000_000_000, 0);
        if self.one_in(2) {
            entry.mtime.1 = self.below(1_000_000_000) as u32;
        }
        (entry.uid, entry.gid) = (self.below(3) as u32 * 100_000, self.below(70_000) as u32);
        if matches!(kind, Kind::File | Kind::Directory) {
            for name in ["user.one", "user.two", "user.three"] {
                if self.one_in(6) {
                    let value = vec![self.next() as u8; self.below(200) as usize];
                    entry.xattrs.push((name.as_bytes().to_vec(), value));
                }
            }
        }
        entry
    }

    fn content(&mut self) -> Vec<u8> {
        let size = match self.below(4) {
            0 => self.below(4),
            1 => 510 + self.below(5),
            2 => 4094 + self.below(5),
            _ => self.below(20_000),
        };
        let byte = self.next() as u8;
        vec![byte; size as usize]
    }

    fn put(&mut self, tar: Tar, path: &str, kind: Kind, target: &str) -> Tar {
        let mut entry = self.entry(path, kind);
        match kind {
            Kind::File => {
                let content = self.content();
                entry.size = content.len() as u64;
                return tar.entry(&entry, &content);
            }
            Kind::CharDevice | Kind::BlockDevice => {
                entry.device = (1 + self.below(4095) as u32, self.below(1 << 20) as u32);
            }
            Kind::Symlink | Kind::HardLink => entry.link = target.as_bytes().to_vec(),
            Kind::Directory | Kind::Fifo => {}
        }
        tar.entry(&entry, b"")
    }
}

const NODES: [Kind; 6] =
    [Kind::File, Kind::File, Kind::Symlink, Kind::CharDevice, Kind::BlockDevice, Kind::Fifo];

/// Anything, in any order: names twice, links as parents, whiteouts before and after.
fn wild(dice: &mut Dice) -> Vec<u8> {
    let mut tar = Tar::new();
    // Most long ones are refused for one reason or another.
    let most = if dice.one_in(4) { 40 } else { 12 };
    for _ in 0..dice.below(most) {
        let path = dice.path();
        let other = dice.path();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        tar = match dice.below(12) {
            0..3 => dice.put(tar, &path, Kind::Directory, ""),
            3 => tar.file(&format!("{parent}/.wh.{name}"), ""),
            4 if dice.one_in(3) => tar.file(&format!("{path}/.wh..wh..opq"), ""),
            5 => tar.hard_link(&path, &other),
            6 => {
                let up = "../".repeat(dice.below(5) as usize);
                tar.symlink(&path, &format!("{up}{other}"))
            }
            _ => {
                let kind = *dice.pick(&NODES);
                dice.put(tar, &path, kind, &other)
            }
        };
    }
    tar.end()
}

/// What a builder writes: parents first, each name once. `there` is what the layers have so far.
fn tame(dice: &mut Dice, there: &mut Vec<String>) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut directories = vec![String::new()];
    let mut made: Vec<String> = Vec::new();
    let mut files: Vec<String> = Vec::new();
    for number in 0..dice.below(30) {
        let parent = dice.pick(&directories).clone();
        let name = if dice.one_in(2) {
            (*dice.pick(&NAMES)).to_owned()
        } else {
            format!("{}{number}", dice.pick(&NAMES))
        };
        let path = format!("{parent}{name}");
        let hides = format!("{parent}.wh.{name}");
        if made.contains(&path) || made.contains(&hides) {
            continue;
        }
        match dice.below(8) {
            0..3 => {
                tar = dice.put(tar, &path, Kind::Directory, "");
                directories.push(format!("{path}/"));
                if dice.one_in(6) {
                    tar = tar.file(&format!("{path}/.wh..wh..opq"), "");
                }
                made.push(path);
            }
            3 if there.contains(&path) => {
                tar = tar.file(&hides, "");
                made.push(hides);
                // Neither may come later in this layer.
                made.push(path);
            }
            4 if !files.is_empty() => {
                tar = tar.hard_link(&path, &dice.pick(&files).clone());
                made.push(path);
            }
            _ => {
                let kind = *dice.pick(&NODES);
                tar = dice.put(tar, &path, kind, "somewhere/else");
                files.push(path.clone());
                made.push(path);
            }
        }
    }
    there.extend(made);
    tar.end()
}

fn apply(lab: &Lab, tars: &[Vec<u8>]) -> Result<Layer, String> {
    let mut top: Option<Layer> = None;
    for tar in tars {
        let layer = lab.apply(top.as_ref(), tar).map_err(|error| full(&error))?;
        let mut back = Vec::new();
        lab.storage.write_tar(&layer.chain_id, &mut back).unwrap();
        assert!(back == *tar);
        top = Some(layer);
    }
    Ok(top.unwrap())
}

/// Both forms, with new stores now and then: removing what is there costs more than adding.
struct Labs([Lab; 2]);

impl Labs {
    fn new() -> Self {
        Self([Layout::Directories, Layout::Erofs].map(Lab::with_layout))
    }

    fn check(&self, tars: &[Vec<u8>], what: &str) -> Result<Vec<String>, String> {
        let [directories, index] =
            self.0.each_ref().map(|lab| apply(lab, tars).map(|top| root(lab, &top)));
        if directories != index {
            let place = std::env::temp_dir().join("boxship-differential");
            fs::create_dir_all(&place).unwrap();
            for (number, tar) in tars.iter().enumerate() {
                fs::write(place.join(format!("{number}.tar")), tar).unwrap();
            }
        }
        if let (Ok(one), Ok(other)) = (&directories, &index) {
            for (one, other) in one.iter().zip(other) {
                assert_eq!(one, other, "{what}");
            }
        }
        assert_eq!(directories, index, "{what}");
        directories
    }
}

#[test]
fn wild_layers_mean_the_same_in_both_forms() {
    let (rounds, seed) = (number("BOXSHIP_FUZZ", 60), number("BOXSHIP_FUZZ_SEED", 1));
    let mut accepted = 0;
    let mut labs = Labs::new();
    for round in 0..rounds {
        if round % 50 == 49 {
            labs = Labs::new();
        }
        let dice = &mut Dice(seed + round);
        let tars: Vec<_> = (0..=dice.below(3)).map(|_| wild(dice)).collect();
        accepted += u64::from(labs.check(&tars, &format!("seed {}", seed + round)).is_ok());
    }
    println!("{accepted} of {rounds} were layers");
    assert!(accepted > rounds / 20);
}

#[test]
fn tame_layers_are_what_gnu_tar_makes_of_them() {
    let (rounds, seed) = (number("BOXSHIP_FUZZ", 25), number("BOXSHIP_FUZZ_SEED", 1));
    let labs = Labs::new();
    for round in 0..rounds {
        let dice = &mut Dice(!(seed + round));
        let mut there = Vec::new();
        let tars: Vec<_> = (0..2 + dice.below(3)).map(|_| tame(dice, &mut there)).collect();
        let what = format!("seed {}", seed + round);
        let ours = labs.check(&tars, &what).unwrap();
        let theirs = gnu(&tars);
        // The root has no entry: it is as old as the unpacking, or as its directory.
        for (ours, theirs) in ours.iter().zip(&theirs).skip(1) {
            assert_eq!(ours, theirs, "{what}");
        }
        assert_eq!(ours.len(), theirs.len(), "{what}");
    }
}

/// Extracts with GNU tar, spells whiteouts as overlay does, mounts, looks.
fn gnu(tars: &[Vec<u8>]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut lowers: Vec<PathBuf> = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let layer = dir.path().join(number.to_string());
        fs::create_dir(&layer).unwrap();
        let archive = dir.path().join(format!("{number}.tar"));
        fs::write(&archive, tar).unwrap();
        let output = Command::new("tar")
            .args([
                "-x",
                "-p",
                "--delay-directory-restore",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "-f",
            ])
            .arg(&archive)
            .arg("-C")
            .arg(&layer)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        spell_whiteouts(&layer);
        lowers.insert(0, layer);
    }
    let bottom = dir.path().join("bottom");
    fs::create_dir(&bottom).unwrap();
    lowers.push(bottom);
    let merged = dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    std::thread::scope(|scope| scope.spawn(|| seen_through(&lowers, &merged)).join().unwrap())
}

fn spell_whiteouts(directory: &Path) {
    let metadata = fs::metadata(directory).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == ".wh..wh..opq" {
            fs::remove_file(entry.path()).unwrap();
            setxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            fs::remove_file(entry.path()).unwrap();
            let place = directory.join(hidden);
            mknodat(CWD, place, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        } else if entry.file_type().unwrap().is_dir() {
            spell_whiteouts(&entry.path());
        }
    }
    let times = fs::FileTimes::new().set_modified(metadata.modified().unwrap());
    fs::File::open(directory).unwrap().set_times(times).unwrap();
}

/// In a mount namespace of this thread, which ends with it.
fn seen_through(lowers: &[PathBuf], merged: &Path) -> Vec<String> {
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
    let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
    sys::process::unshare(flags).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let names: Vec<_> = lowers.iter().map(|path| path.display().to_string()).collect();
    let options = CString::new(format!("lowerdir={}", names.join(":"))).unwrap();
    let options = options.as_c_str();
    rustix::mount::mount("overlay", merged, "overlay", MountFlags::RDONLY, options).unwrap();
    let lines = view(merged);
    rustix::mount::unmount(merged, UnmountFlags::DETACH).unwrap();
    lines
}
