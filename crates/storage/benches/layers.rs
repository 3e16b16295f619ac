//! `cargo bench -p storage --bench layers [-- TAR]`: what layers cost in either form, measured in
//! turns on the same disk (`TMPDIR` chooses it). TAR is a plain layer; without one, 12,000 files of
//! 25 KiB on average are made up.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a command line program")]

use std::path::Path;
use std::time::Instant;

use metadata::Store;
use spec::Digest;
use storage::tar::Kind;
use storage::tar::write::{Writer, plain};
use storage::{Layer, Layout, Options, Storage};

const ROUNDS: usize = 7;
const FORMS: [Layout; 2] = [Layout::Directories, Layout::Erofs];

struct Lab {
    storage: Storage,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new(layout: Layout) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("metadata.redb")).unwrap();
        let options = Options { layout, ..Options::default() };
        let storage = Storage::open_with(dir.path().join("storage"), store, options).unwrap();
        Self { storage, _dir: dir }
    }

    fn apply(&self, parent: Option<&Layer>, tar: &[u8]) -> Layer {
        let mut lease = self.storage.lease();
        let parent = parent.map(|layer| layer.chain_id);
        let layer = self.storage.apply_layer(&mut lease, parent.as_ref(), &mut &*tar, None);
        let layer = layer.unwrap();
        let chain = layer.chain_id;
        self.storage.store().write(move |txn| storage::hold(txn, &chain)).unwrap();
        layer
    }

    fn remove(&self, layer: &Layer) {
        let (chain, leases) = (layer.chain_id, self.storage.leases().clone());
        let freed = self.storage.store().write(move |txn| storage::release(txn, &chain, &leases));
        let freed: Vec<_> = freed.unwrap();
        self.storage.discard(&freed).unwrap();
    }
}

fn main() {
    println!("{:<50} {:>12} {:>12}   ratio", "median of 7", "directories", "one file");
    images();
    let tar = match std::env::args().skip(1).find(|arg| !arg.starts_with('-')) {
        Some(path) => std::fs::read(path).unwrap(),
        None => made_up(),
    };
    println!("one layer of {} MB", tar.len() >> 20);
    let mut taken = Rows::default();
    let mut forms = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Whoever comes first meets a quieter disk; so take turns at that, too.
        for at in [round % 2, 1 - round % 2] {
            let lab = Lab::new(FORMS[at]);
            let begun = Instant::now();
            let layer = lab.apply(None, &tar);
            taken.add("take in, durable", at, begun);
            let begun = Instant::now();
            lab.storage.lowers(&layer.chain_id).unwrap();
            taken.add("first look-up of the root (mount)", at, begun);
            let begun = Instant::now();
            let lowers = lab.storage.lowers(&layer.chain_id).unwrap();
            taken.add("the next one", at, begun);
            read_all(&lowers.paths[0]);
            let begun = Instant::now();
            read_all(&lowers.paths[0]);
            taken.add("read all files, warm", at, begun);
            let begun = Instant::now();
            lab.storage.write_tar(&layer.chain_id, &mut std::io::sink()).unwrap();
            taken.add("write the tar (save), warm", at, begun);
            let begun = Instant::now();
            lab.remove(&layer);
            taken.add("remove, until it is gone for its user", at, begun);
            let begun = Instant::now();
            lab.storage.reap_trash().unwrap();
            taken.add("remove, the files", at, begun);
            forms[at].push(lab);
        }
    }
    drop(forms);
    taken.print();
}

/// The first container of an image of one layer and of forty.
fn images() {
    let mut rows = Rows::default();
    let layer = |number: usize, files: usize| {
        let mut writer = Writer::new(Vec::new());
        for file in 0..files {
            let name = format!("dir-{}/file-{number}-{file}", file % 50);
            writer.file(&name, 1, b"content").unwrap();
        }
        writer.finish().unwrap();
        writer.output
    };
    let one = [layer(0, 4000)];
    let forty: Vec<_> = (0..40).map(|number| layer(number, 100)).collect();
    for round in 0..ROUNDS {
        for at in [round % 2, 1 - round % 2] {
            for (tars, first, next) in [
                (&one[..], "first root of an image of 1 layer", "next root, 1 layer"),
                (&forty, "first root of an image of 40 layers", "next root, 40 layers"),
            ] {
                let lab = Lab::new(FORMS[at]);
                let mut top: Option<Layer> = None;
                for tar in tars {
                    top = Some(lab.apply(top.as_ref(), tar));
                }
                let chain = top.unwrap().chain_id;
                rows.add_root(first, at, &lab, "a", &chain);
                rows.add_root(next, at, &lab, "b", &chain);
            }
        }
    }
    rows.print();
}

#[derive(Default)]
struct Rows(Vec<(&'static str, [Vec<f64>; 2])>);

impl Rows {
    fn add(&mut self, name: &'static str, form: usize, begun: Instant) {
        let spent = begun.elapsed().as_secs_f64() * 1000.0;
        let at = self.0.iter().position(|(row, _)| *row == name).unwrap_or_else(|| {
            self.0.push((name, [Vec::new(), Vec::new()]));
            self.0.len() - 1
        });
        self.0[at].1[form].push(spent);
    }

    /// Makes a container's directories and mounts its root, as a start does.
    fn add_root(&mut self, name: &'static str, form: usize, lab: &Lab, id: &str, chain: &Digest) {
        let begun = Instant::now();
        lab.storage.prepare_container(id, Some(chain)).unwrap();
        let root = lab.storage.prepared_root(id, Some(chain)).unwrap();
        self.add(name, form, begun);
        drop(root);
    }

    fn print(self) {
        for (name, mut samples) in self.0 {
            let [directories, index] = samples.each_mut().map(|list| {
                list.sort_by(f64::total_cmp);
                list[list.len() / 2]
            });
            let ratio = index / directories;
            println!("{name:<50} {directories:>9.2} ms {index:>9.2} ms   {ratio:.3}");
        }
    }
}

fn read_all(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            read_all(&entry.path());
        } else if kind.is_file() {
            std::hint::black_box(std::fs::read(entry.path()).unwrap());
        }
    }
}

fn made_up() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut seed = 1u64;
    for file in 0..12_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(file);
        let size = (seed >> 33) % 50_000;
        let name = format!("usr/lib/part-{}/file-{file}", file % 400);
        let entry = plain(&name, Kind::File, 0o644, 1, size);
        writer.header(&entry).unwrap();
        let bytes = seed.to_le_bytes();
        writer.output.extend(bytes.iter().cycle().take(size as usize));
        writer.pad(size).unwrap();
    }
    writer.finish().unwrap();
    writer.output
}
