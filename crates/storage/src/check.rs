//! `system check`: holds what is on the disk against the records, and puts right what can be.
//!
//! One thing is looked at after the other, and nobody waits longer than for one of them: records
//! are read in one picture, a layer is leased while its files are read, and whether files without
//! a record are garbage is decided while nobody is at work on them ([`Leases::at_rest`]). So what
//! a running load, commit or removal has half done is never taken for a fault.
//!
//! Repairing never deletes a layer that somebody needs: a damaged one is moved to `quarantine/`
//! and its record says that it is lost. Loading its image brings it back.

mod counts;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use metadata::View as _;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, renameat, statat, syncfs, unlinkat};
use rustix::io::Errno;
use spec::Digest;

pub use counts::{Holders, Lineage};

use crate::erofs::{IMAGE, check_layer};
use crate::error::StorageError;
use crate::recipe;
use crate::records::{CONTAINERS, ContainerRecord, LAYERS, LayerRecord, layer_place};
use crate::storage::{Storage, random_name};
use crate::tree::errno;
use crate::unpack::Form;

#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Look whether files are there in their sizes, without reading them.
    pub quick: bool,
    pub repair: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing it is, and which one: `layer`, `sha256:...`.
    pub kind: &'static str,
    pub name: String,
    pub reason: String,
    /// What was done about it.
    pub remedy: Option<String>,
    /// Nothing is left to do.
    pub solved: bool,
    /// Images that cannot be used.
    pub needed_by: Vec<String>,
}

impl Problem {
    pub fn new(kind: &'static str, name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, name: name.into(), reason: reason.into(), ..Self::default() }
    }

    /// All is well after this.
    #[must_use]
    pub fn solved(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self.solved = true;
        self
    }

    /// As [`Problem::solved`], where it was asked for.
    #[must_use]
    pub fn solved_if(self, repaired: bool, remedy: &str) -> Self {
        if repaired { self.solved(remedy) } else { self }
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub problems: Vec<Problem>,
    pub images: u64,
    pub layers: u64,
    /// Read to the end.
    pub bytes: u64,
    pub containers: u64,
    pub volumes: u64,
}

/// What the files of a layer say.
enum Verdict {
    Whole {
        read: u64,
    },
    Damaged(String),
    /// Nothing can be said: the fault may be ours, or pass.
    Unknown(String),
}

impl Storage {
    /// Reads every layer, one by one.
    pub fn check_layers(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        for (hex, _) in self.store().scan(LAYERS)? {
            let Ok(chain) = Digest::from_hex(&hex) else {
                let problem = Problem::new("layer", hex, "the key of its record is no digest");
                report.problems.push(problem);
                continue;
            };
            let mut lease = self.lease();
            lease.add(chain);
            // Removed meanwhile.
            let Some(record) = self.settled(&chain)? else { continue };
            report.layers += 1;
            if record.lost {
                let reason = "its files are lost or were set aside";
                report.problems.push(Problem::new("layer", chain.to_string(), reason));
                continue;
            }
            match self.verify(&chain, &record, options.quick) {
                Verdict::Whole { read } => report.bytes += read,
                Verdict::Damaged(reason) => {
                    let mut problem = Problem::new("layer", chain.to_string(), reason);
                    if options.repair {
                        problem.remedy = Some(self.set_aside(&chain)?);
                    }
                    report.problems.push(problem);
                    continue;
                }
                Verdict::Unknown(reason) => {
                    report.problems.push(Problem::new("layer", chain.to_string(), reason));
                    continue;
                }
            }
            if record.form == Form::Index && !options.quick && self.image_is_wrong(&chain) {
                let reason = "its index is not what its tables of contents make";
                let problem = Problem::new("layer", chain.to_string(), reason);
                if options.repair {
                    self.drop_image(&hex)?;
                }
                let remedy = "removed; it is made again when it is needed";
                report.problems.push(problem.solved_if(options.repair, remedy));
            }
        }
        Ok(())
    }

    fn verify(&self, chain: &Digest, record: &LayerRecord, quick: bool) -> Verdict {
        let outcome = match (record.form, quick) {
            (Form::Directory, true) => self.measured(chain, record),
            (Form::Index, true) => Ok(None),
            (_, false) => self.digested(chain, record),
        };
        let outcome = match outcome {
            Ok(None) if record.form == Form::Index => self.table_fits(chain, record, quick),
            outcome => outcome,
        };
        match outcome {
            Ok(None) => Verdict::Whole { read: if quick { 0 } else { record.tar_size } },
            Ok(Some(reason)) => Verdict::Damaged(reason),
            Err(error) if is_passing(&error) => Verdict::Unknown(format!("not read: {error}")),
            Err(error) => Verdict::Damaged(error.to_string()),
        }
    }

    fn measured(&self, chain: &Digest, record: &LayerRecord) -> io::Result<Option<String>> {
        let length = recipe::measure(&self.root().open_dir(layer_place(chain))?)?;
        let expected = record.tar_size;
        let wrong = || format!("its files make {length} bytes, not {expected}");
        Ok((length != expected).then(wrong))
    }

    fn digested(&self, chain: &Digest, record: &LayerRecord) -> io::Result<Option<String>> {
        let digest = self.tar_of(chain, record, &mut io::sink())?;
        let expected = record.diff_id;
        Ok((digest != expected).then(|| format!("its files make {digest}, not {expected}")))
    }

    /// What belongs to a tar that is kept as it came.
    fn table_fits(
        &self,
        chain: &Digest,
        record: &LayerRecord,
        quick: bool,
    ) -> io::Result<Option<String>> {
        let layer = self.root().open_dir(layer_place(chain))?;
        let length = statat(&layer, "tar", AtFlags::SYMLINK_NOFOLLOW)?.st_size.cast_unsigned();
        if length < record.tar_size {
            return Ok(Some(format!("its tar has {length} bytes, not {}", record.tar_size)));
        }
        if let Err(reason) = check_layer(&layer) {
            return Ok(Some(format!("its table of contents: {reason}")));
        }
        if !quick {
            // Layers of before this was written down say nothing.
            let copies = crate::erofs::copies(&layer, record.tar_size)?;
            if record.copies.is_some() && copies != record.copies {
                return Ok(Some("what it has behind its tar was changed".to_owned()));
            }
        }
        Ok(None)
    }

    /// Moves what is left of a layer out of the way and writes down that it is lost. A crash in
    /// between leaves a record without files, which the next check finds.
    fn set_aside(&self, chain: &Digest) -> Result<String, StorageError> {
        let hex = chain.hex();
        let _publish = self.publish();
        for above in self.above(chain)? {
            self.drop_image(&above)?;
        }
        let place = self.quarantine(&layer_place(chain), &hex)?;
        self.store().write(move |txn| -> Result<(), StorageError> {
            if let Some(record) = LAYERS.get(txn, &hex)? {
                LAYERS.put(txn, &hex, &LayerRecord { lost: true, ..record })?;
            }
            Ok(())
        })?;
        Ok(match place {
            Some(place) => format!("set aside as {}", place.display()),
            None => "noted as lost".to_owned(),
        })
    }

    /// A layer and all that are on top of it.
    fn above(&self, chain: &Digest) -> Result<Vec<String>, StorageError> {
        let records = self.store().scan(LAYERS)?;
        let mut above = vec![chain.hex()];
        let mut seen = 0;
        while let Some(hex) = above.get(seen).cloned() {
            seen += 1;
            let on_it = records.iter().filter(|(_, record)| {
                record.parent.as_ref().is_some_and(|parent| parent.hex() == hex)
            });
            above.extend(on_it.map(|(hex, _)| hex.clone()));
        }
        Ok(above)
    }

    /// Takes the merged image of a layer away; whoever uses it keeps it.
    fn drop_image(&self, hex: &str) -> Result<(), StorageError> {
        self.mounts().detach(self.root(), hex)?;
        let place = format!("layers/{hex}/{IMAGE}");
        match unlinkat(self.root(), &place, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(StorageError::file("remove", self.path().join(place))(errno)),
        }
    }

    /// Moves something below the root to `quarantine/`; says where it is now, if it was there.
    pub fn quarantine(&self, place: &str, name: &str) -> Result<Option<PathBuf>, StorageError> {
        let aside = format!("{}/{name}-{}", self.quarantine_directory()?, &random_name()?[..8]);
        match renameat(self.root(), place, self.root(), &aside) {
            Ok(()) => Ok(Some(self.path().join(aside))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StorageError::file("set aside", self.path().join(place))(errno)),
        }
    }

    fn quarantine_directory(&self) -> Result<&'static str, StorageError> {
        const NAME: &str = "quarantine";
        match mkdirat(self.root(), NAME, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(NAME),
            Err(errno) => Err(StorageError::file("create", self.path().join(NAME))(errno)),
        }
    }

    /// Records that did not parse, which the store put aside. Repaired, they are files.
    pub fn check_quarantine(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        for damaged in self.store().damaged()? {
            let name = format!("{} {}", damaged.table, damaged.key);
            let mut problem = Problem::new("record", name, damaged.reason.clone());
            if options.repair {
                let name = format!("record-{}-{}", damaged.table, &random_name()?[..8]);
                let place = format!("{}/{name}", self.quarantine_directory()?);
                let path = self.path().join(&place);
                let written = self.write_new(&place, &damaged.bytes);
                written.map_err(|error| StorageError::file("write", &path)(errno(error)))?;
                self.store().forget_damaged(&damaged)?;
                problem = problem.solved(format!("set aside as {}", path.display()));
            }
            report.problems.push(problem);
        }
        Ok(())
    }

    /// Writes a file that is not there yet, durably.
    fn write_new(&self, place: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let mut file = File::from(self.root().open_strict(place, flags, Mode::from(0o600))?);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(syncfs(file)?)
    }

    /// Files without a record, and mounts of what is not there.
    pub fn check_leaks(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        let damaged = self.store().damaged()?;
        let set_aside = |table: &str, key: &str| {
            damaged.iter().any(|record| record.table == table && record.key == key)
        };
        for (directory, kind) in
            [("layers", "layer"), ("containers", "container"), ("ingest", "upload")]
        {
            for name in self.names(directory)? {
                let place = format!("{directory}/{name}");
                let table = if directory == "layers" { LAYERS.name() } else { CONTAINERS.name() };
                let keep = set_aside(table, &name);
                let judge = || self.judge(directory, &name, options.repair, keep);
                let is_leak = self.leases().at_rest(&place, judge).unwrap_or(Ok(false))?;
                if is_leak {
                    let path = self.path().join(place).display().to_string();
                    let problem = Problem::new("file", path, format!("no {kind} has it"));
                    let remedy = if keep { "set aside in quarantine" } else { "removed" };
                    report.problems.push(problem.solved_if(options.repair, remedy));
                }
            }
        }
        self.check_mounts(options, report)
    }

    /// Whether what is at a place where nobody works is garbage. Its record may only have been
    /// damaged: then it is to be kept.
    fn judge(
        &self,
        directory: &str,
        name: &str,
        repair: bool,
        keep: bool,
    ) -> Result<bool, StorageError> {
        let place = format!("{directory}/{name}");
        match statat(self.root(), &place, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => {
                return Err(StorageError::file("look up", self.path().join(place))(errno));
            }
            Ok(_) => {}
        }
        let view = self.store().begin_read()?;
        let has_record = match directory {
            "layers" => LAYERS.get(&view, name)?.is_some(),
            "containers" => CONTAINERS.get(&view, name)?.is_some(),
            _ => false,
        };
        match (has_record, repair, keep) {
            (false, true, false) => self.throw_away(&place)?,
            (false, true, true) => drop(self.quarantine(&place, name)?),
            _ => {}
        }
        Ok(!has_record)
    }

    fn check_mounts(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        let mut strays: Vec<PathBuf> = Vec::new();
        for name in self.names("mounts")? {
            strays.push(Path::new("mounts").join(name));
        }
        for point in mount_points(self.path()) {
            let own = point.as_os_str().is_empty() || point == Path::new("mounts");
            if !own && !point.starts_with("probe") && !strays.contains(&point) {
                strays.push(point);
            }
        }
        for point in strays {
            let hex = point.strip_prefix("mounts").ok().and_then(Path::to_str);
            let judge = || -> Result<bool, StorageError> {
                let known = match hex {
                    Some(hex) => self.store().begin_read()?.bytes(LAYERS.name(), hex)?.is_some(),
                    None => false,
                };
                if !known && options.repair {
                    match hex {
                        Some(hex) => self.mounts().detach(self.root(), hex)?,
                        None => self.unmount_stray(&point)?,
                    }
                }
                Ok(!known)
            };
            let place = format!("layers/{}", hex.unwrap_or_default());
            if self.leases().at_rest(&place, judge).unwrap_or(Ok(false))? {
                let path = self.path().join(&point).display().to_string();
                let problem = Problem::new("mount", path, "no layer has it");
                report.problems.push(problem.solved_if(options.repair, "unmounted"));
            }
        }
        Ok(())
    }

    fn unmount_stray(&self, point: &Path) -> Result<(), StorageError> {
        use rustix::mount::{UnmountFlags, unmount};
        let path = self.path().join(point);
        match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(StorageError::file("unmount", path)(errno)),
        }
    }

    /// The writable layers of containers.
    pub fn check_containers(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        for (id, _) in self.store().scan(CONTAINERS)? {
            let judge = || -> Result<Option<(ContainerRecord, bool, bool)>, StorageError> {
                let Some(record) = self.store().get(CONTAINERS, &id)? else { return Ok(None) };
                let there = |name: &str| {
                    let place = format!("containers/{id}/{name}");
                    statat(self.root(), place, AtFlags::SYMLINK_NOFOLLOW).is_ok()
                };
                Ok(Some((record, there("upper"), there("work"))))
            };
            let found = self.leases().at_rest(&format!("containers/{id}"), judge).transpose()?;
            let Some((record, upper, work)) = found.flatten() else { continue };
            report.containers += 1;
            if upper && work {
                continue;
            }
            let what = if upper { "its work directory" } else { "what it wrote" };
            let mut problem = Problem::new("container", &id, format!("{what} is missing"));
            if options.repair {
                problem = match self.remake_container(&id, &record, upper) {
                    Ok(()) => problem.solved("made again, empty"),
                    Err(error) => Problem { remedy: Some(error.to_string()), ..problem },
                };
            }
            report.problems.push(problem);
        }
        Ok(())
    }

    fn remake_container(
        &self,
        id: &str,
        record: &ContainerRecord,
        upper: bool,
    ) -> Result<(), StorageError> {
        if !upper {
            self.throw_away(&format!("containers/{id}"))?;
            return self.prepare_container(id, record.chain.as_ref());
        }
        let place = format!("containers/{id}/work");
        let made = mkdirat(self.root(), &place, Mode::from_raw_mode(0o700));
        made.map_err(StorageError::file("create", self.path().join(place)))
    }
}

/// Whether an error says nothing of the files.
fn is_passing(error: &io::Error) -> bool {
    const PASSING: [Errno; 6] =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM, Errno::INTR];
    Errno::from_io_error(error).is_some_and(|errno| PASSING.contains(&errno))
}

/// The mounts that this process sees at or below a directory, from there.
fn mount_points(directory: &Path) -> Vec<PathBuf> {
    let Ok(directory) = std::fs::canonicalize(directory) else { return Vec::new() };
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points
        .filter_map(|point| Some(Path::new(&point).strip_prefix(&directory).ok()?.into()))
        .collect()
}

/// The table spells four characters in octal.
fn unescape(text: &str) -> String {
    let plain = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    plain.replace("\\134", "\\")
}
