//! The volumes' part of `system check`: records and directories, and who wants which.
//!
//! One volume is judged at a time, under the lock of the table: whoever makes or removes one has
//! it in the table from before the first change to after the last.

use metadata::StoreError;
use rustix::fs::Mode;
use storage::{CheckOptions, CheckReport, Problem};

use super::{DIRECTORY, Entry, Phase, Record, VOLUMES, Volumes};
use crate::containers::now_nanos;
use crate::errors::Result;

impl Volumes {
    pub(crate) fn check(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        self.check_wanted(options, report)?;
        let names: Vec<_> = self.entries().keys().cloned().collect();
        for name in names {
            report.volumes += 1;
            report.problems.extend(self.check_one(&name, options.repair)?);
        }
        for place in [".making", ".removing"] {
            for name in self.list_directory(place)? {
                report.problems.extend(self.check_leftover(place, &name, options.repair)?);
            }
        }
        self.check_strangers(options, report)
    }

    /// The volumes that containers refer to.
    fn check_wanted(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        for (name, users) in self.references() {
            let mut entries = self.entries();
            if entries.contains_key(&name) {
                continue;
            }
            let reason = format!("container {} wants it, and there is none", users[0].short());
            if options.repair {
                let record = Record { created_nanos: now_nanos(), ..Record::default() };
                self.write_record(&name, &record)?;
                self.ensure_directory(&name)?;
                entries.insert(name.clone(), Entry::ready(record));
            }
            let problem = Problem::new("volume", name, reason);
            report.problems.push(problem.solved_if(options.repair, "made, empty"));
        }
        Ok(())
    }

    fn check_one(&self, name: &str, repair: bool) -> Result<Option<Problem>> {
        let entries = self.entries();
        let ready = entries.get(name).filter(|entry| entry.phase == Phase::Ready);
        let Some(entry) = ready else { return Ok(None) };
        let is_there = match entry.has_options() {
            // Perhaps mounted from a machine that does not answer: not to be touched.
            true => self.stat(name).is_ok(),
            false => {
                let data = format!("{name}/_data");
                self.root.open_strict(data, DIRECTORY, Mode::empty()).is_ok()
            }
        };
        let (reason, remedy) = if !is_there {
            ("its directory is missing", "made, empty")
        } else if self.store.get(VOLUMES, name)?.is_none() {
            ("its record is missing", "written")
        } else {
            return Ok(None);
        };
        if repair {
            self.ensure_directory(name)?;
            self.write_record(name, &entry.record)?;
        }
        Ok(Some(Problem::new("volume", name, reason).solved_if(repair, remedy)))
    }

    fn check_leftover(&self, place: &str, name: &str, repair: bool) -> Result<Option<Problem>> {
        let entries = self.entries();
        let path = format!("{place}/{name}");
        if entries.contains_key(name) || self.stat(&path).is_err() {
            return Ok(None);
        }
        if repair {
            self.throw_away(&path)?;
        }
        let path = self.path.join(path).display().to_string();
        Ok(Some(Problem::new("file", path, "no volume has it").solved_if(repair, "removed")))
    }

    /// Directories in the place of volumes. Nothing there is deleted for want of a record.
    fn check_strangers(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        let unknown = |name: &String| {
            let entries = self.entries();
            !entries.contains_key(name) && self.stat(name).is_ok()
        };
        let mut strangers = self.list_directory("")?;
        strangers.retain(unknown);
        if options.repair && !strangers.is_empty() {
            self.adopt_directories()?;
        }
        for name in strangers {
            let adopted = self.entries().contains_key(&name);
            let path = self.path.join(name).display().to_string();
            let problem = Problem::new("file", path, "a directory without the record of a volume");
            report.problems.push(problem.solved_if(adopted, "a volume again"));
        }
        Ok(())
    }

    fn write_record(&self, name: &str, record: &Record) -> Result<(), StoreError> {
        let (name, record) = (name.to_owned(), record.clone());
        self.store.write(move |txn| VOLUMES.put(txn, &name, &record))
    }
}
