//! Writes the kernel's initramfs format: cpio "newc", uncompressed (the kernel unpacks that
//! fastest, which counts under emulation).

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    pub(super) fn directory(&mut self, path: &str) {
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
        }
    }

    /// Makes the directories above `path`.
    pub(super) fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.directory(&path[..at]);
        }
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    pub(super) fn device(&mut self, path: &str, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, number, &[]);
    }

    pub(super) fn text(&mut self, path: &str, mode: u32, text: &str) {
        self.entry(path, FILE | mode, (0, 0), text.as_bytes());
    }

    /// Copies a file of this machine, as an executable one.
    pub(super) fn host_file(&mut self, path: &str, source: &Path) -> Result<(), String> {
        let content =
            std::fs::read(source).map_err(|error| format!("{}: {error}", source.display()))?;
        self.entry(path, FILE | 0o755, (0, 0), &content);
        Ok(())
    }

    /// Copies a program or library of this machine to where it is here. `/lib` and its like are
    /// links to directories below `/usr`.
    pub(super) fn same_path(&mut self, source: &Path) -> Result<(), String> {
        let place = source.strip_prefix("/").unwrap_or(source).to_string_lossy();
        let merged = ["bin/", "lib/", "lib64/", "sbin/"].iter().any(|top| place.starts_with(top));
        let place = if merged { format!("usr/{place}") } else { place.into_owned() };
        self.parents(&place);
        self.host_file(&place, source)
    }

    /// Header (13 fields of 8 hexadecimal digits), name and content, each padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(content.len()).expect("no test program has 4 GiB");
        let name = u32::try_from(path.len()).expect("names are short") + 1;
        let (major, minor) = device;
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let mut archive = Archive::default();
        archive.parents("a/b");
        archive.parents("a/c");
        archive.text("a/b", 0o644, "hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let (directory, rest) = text.split_at(112);
        assert!(directory.starts_with("07070100000001000041ed"), "{directory}");
        assert_eq!(rest.find("hello"), Some(112 + 4), "{rest}");
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 3);
    }
}
