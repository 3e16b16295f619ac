//! `system check`: the parts of it, one after the other.

use std::sync::{Arc, TryLockError};

use api_types::check::{CheckReport, Problem};
use storage::CheckOptions;

use crate::errors::{Error, Result};
use crate::system::System;

impl System {
    /// Verifies the store, and with `repair` puts right what can be. One at a time.
    pub async fn check(&self, quick: bool, repair: bool) -> Result<CheckReport> {
        let options = CheckOptions { quick, repair };
        let (images, containers) = (Arc::clone(&self.images), Arc::clone(&self.containers));
        let (volumes, checking) = (Arc::clone(&self.volumes), Arc::clone(&self.checking));
        let report = crate::run_blocking(move || {
            let _one = match checking.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(Error::CheckRuns),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Ok(one) => one,
            };
            let mut report = storage::CheckReport::default();
            images.store().check(options, &mut report)?;
            containers.check(options, &mut report)?;
            volumes.check(options, &mut report)?;
            // Last: until then it says of files without a record that they had one.
            images.store().storage().check_quarantine(options, &mut report)?;
            Ok(report)
        });
        let report = report.await?;
        for problem in &report.problems {
            let (kind, name, reason) = (problem.kind, &problem.name, &problem.reason);
            tracing::warn!(kind, name, reason, remedy = problem.remedy, "system check");
        }
        Ok(describe(report))
    }
}

fn describe(report: storage::CheckReport) -> CheckReport {
    let problem = |problem: storage::Problem| Problem {
        kind: problem.kind.to_owned(),
        name: problem.name,
        reason: problem.reason,
        remedy: problem.remedy.unwrap_or_default(),
        solved: problem.solved,
        needed_by: problem.needed_by,
    };
    CheckReport {
        problems: report.problems.into_iter().map(problem).collect(),
        images: report.images,
        layers: report.layers,
        bytes: report.bytes,
        containers: report.containers,
        volumes: report.volumes,
    }
}
