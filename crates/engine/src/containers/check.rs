//! The containers' part of `system check`: their records, and the directories of their files.

use std::collections::BTreeSet;

use metadata::StoreError;
use storage::{CheckOptions, CheckReport, Problem};

use super::Containers;
use super::record::{DEFINITIONS, STATES};
use crate::errors::{Error, Result};

impl Containers {
    pub(crate) fn check(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        self.check_records(options, report)?;
        let shared = &self.shared;
        let entries = std::fs::read_dir(&shared.containers);
        for entry in entries.map_err(Error::io("list the directories of containers"))? {
            let entry = entry.map_err(Error::io("list the directories of containers"))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            // An id is never given twice: what belongs to nobody now never will.
            if !shared.storage.is_no_container(&id)? {
                continue;
            }
            let path = entry.path();
            if options.repair {
                let failed = Error::io(format!("remove {}", path.display()));
                std::fs::remove_dir_all(&path).map_err(failed)?;
            }
            let problem = Problem::new("file", path.display().to_string(), "no container has it");
            report.problems.push(problem.solved_if(options.repair, "removed"));
        }
        Ok(())
    }

    /// A container has three records, which come and go in one commit.
    fn check_records(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        let shared = &self.shared;
        let view = shared.store.begin_read()?;
        let ids = |keys: Vec<String>| keys.into_iter().collect::<BTreeSet<_>>();
        let defined = ids(DEFINITIONS.scan(&view)?.into_iter().map(|(id, _)| id).collect());
        let layers = ids(storage::container_ids(&view)?);
        let states = ids(STATES.scan(&view)?.into_iter().map(|(id, _)| id).collect());
        drop(view);
        for id in defined.difference(&layers) {
            let reason = "the record of its layer is missing: remove the container";
            report.problems.push(Problem::new("container", id, reason));
        }
        for id in layers.difference(&defined) {
            let problem = Problem::new("record", format!("container_layers {id}"), "no container");
            if options.repair {
                // What it wrote may be all that is left of a container whose record was damaged.
                shared.storage.quarantine(&format!("containers/{id}"), id)?;
                shared.storage.remove_container(id)?;
            }
            let remedy = "removed; what it wrote is set aside in quarantine";
            report.problems.push(problem.solved_if(options.repair, remedy));
        }
        for id in states.difference(&defined) {
            if options.repair {
                let id = id.clone();
                shared.store.write(move |txn| {
                    STATES.remove(txn, &id);
                    Ok::<(), StoreError>(())
                })?;
            }
            let problem = Problem::new("record", format!("container_states {id}"), "no container");
            report.problems.push(problem.solved_if(options.repair, "removed"));
        }
        Ok(())
    }
}
