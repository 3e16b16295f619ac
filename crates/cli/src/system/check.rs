//! `boxship system check`, which docker does not have.

use api_types::check::{CheckReport, Problem};
use client::Request;

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::progress::while_waiting;

/// Verifies the daemon's store, and with `--repair` repairs it. Ends with 1 when something was
/// found, or is left after the repair.
pub(crate) async fn check(app: &App, flags: &Parsed) -> Outcome {
    let json = match flags.text("format") {
        "" => false,
        "json" => true,
        other => return Err(Failure::new(format!("invalid format {other:?}: must be json"))),
    };
    let repair = flags.bool("repair");
    let request = Request::post("/boxship/check")
        .query_if(flags.bool("quick"), "quick", "1")
        .query_if(repair, "repair", "1");
    let report: CheckReport = while_waiting("Checking the store", app.client.get(request)).await?;
    if json {
        let text = serde_json::to_string(&report);
        output::print_line(&text.map_err(|error| Failure::new(error.to_string()))?)?;
    } else {
        output::print(
            &report.problems.iter().map(|problem| show(problem, repair)).collect::<String>(),
        )?;
        if !flags.bool("quiet") {
            output::print_line(&summary(&report))?;
        }
    }
    Ok(u8::from(report.problems.iter().any(|problem| !problem.solved)))
}

fn show(problem: &Problem, repair: bool) -> String {
    let Problem { kind, name, reason, remedy, needed_by, .. } = problem;
    let mut text = format!("{kind} {name}: {reason}\n");
    if !needed_by.is_empty() {
        let images = needed_by.join(", ");
        text.push_str(&match repair {
            true => format!("  load or pull again: {images}\n"),
            false => format!("  needed by {images}: repair, then load or pull again\n"),
        });
    }
    if !remedy.is_empty() {
        text.push_str(&format!("  {remedy}\n"));
    }
    text
}

fn summary(report: &CheckReport) -> String {
    let count = |number: u64, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let found = report.problems.len() as u64;
    let solved = report.problems.iter().filter(|problem| problem.solved).count();
    let outcome = match (found, solved) {
        (0, _) => "no problems".to_owned(),
        (_, 0) => count(found, "problem"),
        _ => format!("{}, {solved} repaired", count(found, "problem")),
    };
    let read = match report.bytes {
        0 => String::new(),
        bytes => format!(" ({})", spec::size::human(bytes as f64)),
    };
    format!(
        "Checked {}, {}{read}, {}, {}: {outcome}",
        count(report.images, "image"),
        count(report.layers, "layer"),
        count(report.containers, "container"),
        count(report.volumes, "volume"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_to_do() {
        let problem = Problem {
            kind: "layer".to_owned(),
            name: "sha256:1".to_owned(),
            reason: "its tar has 1 bytes, not 2".to_owned(),
            remedy: "set aside as /q".to_owned(),
            solved: false,
            needed_by: vec!["a:1".to_owned(), "b:1".to_owned()],
        };
        let text = "layer sha256:1: its tar has 1 bytes, not 2\n  load or pull again: a:1, b:1\n  \
            set aside as /q\n";
        assert_eq!(show(&problem, true), text);
        let advice = "  needed by a:1, b:1: repair, then load or pull again\n";
        assert!(show(&problem, false).contains(advice));
        let report = CheckReport { layers: 1, bytes: 2000, ..CheckReport::default() };
        assert_eq!(
            summary(&report),
            "Checked 0 images, 1 layer (2kB), 0 containers, 0 volumes: no problems"
        );
        let problems = vec![problem.clone(), Problem { solved: true, ..problem }];
        let report = CheckReport { problems, ..CheckReport::default() };
        assert_eq!(
            summary(&report),
            "Checked 0 images, 0 layers, 0 containers, 0 volumes: 2 problems, 1 repaired"
        );
    }
}
