//! Where our command line differs from docker's: the lines of the differential suite that have a
//! reason, and what no line of it can show.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const SUITE: &str = "crates/cli/tests/differential";

/// Files, and against what their lines run.
const FILES: &[(&str, &str)] = &[
    ("help.txt", "a daemon"),
    ("daemon.txt", "a daemon"),
    ("mistakes.txt", "a daemon"),
    ("changes.txt", "a daemon"),
    ("contexts.txt", "shared configuration files, four times"),
    ("accounts.txt", "a recorded daemon and shared credentials, four times"),
    ("create.txt", "a recorder of requests"),
    ("refused.txt", "nothing"),
];

const ELSEWHERE: &[(&str, &str)] = &[
    (
        "`no such container: wbe` on a terminal",
        "a hint follows: did you mean web? Scripts see Docker's text alone",
    ),
    (
        "`docker cp`, `save`, `load`, `import`, `export` on a terminal",
        "progress is shown by all of them; docker shows it for `cp` and `load`",
    ),
    (
        "`docker run --detach-keys nosuch`",
        "refused before a container is made; docker makes it, says only that the upgrade failed, and leaves it",
    ),
    (
        "`-H ssh://host/path`",
        "the path is quoted for the remote shell; ssh keeps the terminal and may ask for a password",
    ),
    ("`ps --format '{{slice .ID 0 5}}'`", "works; docker tries the format on an empty row first"),
    (
        "Ctrl-C at `docker exec`, at a confirmation, at the password of `docker login`",
        "the exit code is 130; docker's is 0",
    ),
    (
        "a volume plugin that does not answer",
        "is waited for less: lists 4 s (Docker 15 s), questions 10 s, work 120 s; one that names no directory at a mount fails the start",
    ),
    (
        "`cp` to `/proc` of a running container",
        "refused; Docker writes beneath the mount, where nobody finds it",
    ),
    ("`cp` to a tmpfs of a running container", "arrives; Docker writes beneath it"),
    (
        "an archive that ends early",
        "`unexpected end of the archive at byte 4`; Docker: `unexpected EOF`",
    ),
    (
        "messages of docker 28.5 that 28.2 had otherwise",
        "28.2.2 is followed: `Invalid proto`, `-H` given twice, `diff ''`",
    ),
];

/// What Docker does not have.
const ADDITIONS: &[(&str, &str)] = &[
    (
        "`boxship system check [--quick] [--repair] [--format json] [-q]`",
        "holds images, layers, containers and volumes on the disk against the records; ends with 0 \
         when nothing was found, with 1 when something was or is left. `--repair` removes what \
         nobody has, corrects counts, and moves damaged layers to `storage/quarantine`; loading \
         their images brings them back",
    ),
    (
        "`POST /boxship/check?quick=1&repair=1`",
        "the same, below any version of the API: `{\"Problems\":[{\"Kind\",\"Name\",\"Reason\",\
         \"Remedy\",\"Solved\",\"NeededBy\":[]}],\"Images\",\"Layers\",\"Bytes\",\"Containers\",\
         \"Volumes\"}`; 409 while another check runs",
    ),
    (
        "`boxship system prune -a --keep-last N`, `boxship image prune -a --keep-last N`",
        "the N newest images of each repository stay, used or not; the filter `keep-last` of \
         `POST /images/prune`, together with `dangling=false`",
    ),
];

pub(super) fn section(root: &Path) -> Result<String, String> {
    let mut counts = String::new();
    let mut reasons = String::new();
    for (name, place) in FILES {
        let path = root.join(SUITE).join(name);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut count = 0;
        let mut reason = None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(text) = line.strip_prefix("% ") {
                reason = Some(text);
                continue;
            }
            count += 1;
            if let Some(reason) = reason.take() {
                row(&mut reasons, line, reason);
            }
        }
        writeln!(counts, "| {name} | {count} | {place} |").expect("to memory");
    }
    let mut elsewhere = String::new();
    for (what, reason) in ELSEWHERE {
        writeln!(elsewhere, "| {what} | {reason} |").expect("to memory");
    }
    let mut additions = String::new();
    for (what, meaning) in ADDITIONS {
        writeln!(additions, "| {what} | {meaning} |").expect("to memory");
    }
    Ok(format!(
        "\n## Command lines that differ\n\n\
         `cargo xtask differential` runs docker 28.2.2 and Boxship with the same command lines and\n\
         compares stdout, stderr and exit code, after filtering ids, times and addresses. Against\n\
         Boxship's daemon and against Docker Engine 28.5.2, no line differs but these.\n\n\
         | file | command lines | run against |\n|---|---|---|\n{counts}\n\
         | command line | why it may differ |\n|---|---|\n{reasons}\n\
         | elsewhere | how it differs |\n|---|---|\n{elsewhere}\n\
         ## What Docker does not have\n\n\
         | addition | what it does |\n|---|---|\n{additions}"
    ))
}

fn row(out: &mut String, line: &str, reason: &str) {
    writeln!(out, "| `docker {line}` | {reason} |").expect("to memory");
}
