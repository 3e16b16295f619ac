//! Rules that neither rustc nor clippy knows: edges between crates, `unsafe` only in `sys`, module
//! heads, licences. Long files are printed, not refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may depend on. ARCHITECTURE.md holds the same table for people;
/// [`documented`] compares the two.
const EDGES: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("sys", &[]),
    ("api-types", &["spec"]),
    ("metadata", &["spec"]),
    ("runtime", &["spec", "sys"]),
    ("client", &["api-types", "spec"]),
    ("storage", &["spec", "sys", "metadata"]),
    ("network", &["spec", "sys", "metadata", "runtime"]),
    ("image", &["spec", "sys", "metadata", "storage"]),
    ("cli", &["api-types", "client", "spec"]),
    ("engine", &["api-types", "image", "metadata", "network", "runtime", "spec", "storage", "sys"]),
    ("server", &["api-types", "engine", "spec", "sys"]),
    ("boxship", &["cli", "runtime", "server", "storage"]),
    ("testkit", &["spec"]),
    ("xtask", &["testkit"]),
];

const LONG_FILE: usize = 1000;

pub(crate) fn run(_args: &[String]) -> Result<(), String> {
    let root = crate::root();
    let mut problems = Vec::new();
    for (name, allowed) in EDGES {
        let directory =
            if *name == "xtask" { root.join(name) } else { root.join("crates").join(name) };
        edges(&directory, name, allowed, &mut problems)?;
        sources(&directory, name, &mut problems)?;
    }
    documented(&root, &mut problems)?;
    if problems.is_empty() { Ok(()) } else { Err(format!("\n{}", problems.join("\n"))) }
}

fn edges(
    directory: &Path,
    name: &str,
    allowed: &[&str],
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let manifest = read(&directory.join("Cargo.toml"))?;
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if ours.contains(dependency) && !allowed.contains(&dependency) {
                problems.push(format!("{name} may not depend on {dependency}"));
            }
        }
    }
    if !manifest.contains("[lints]\nworkspace = true") {
        problems.push(format!("{name} does not take the workspace's lints"));
    }
    Ok(())
}

fn sources(directory: &Path, name: &str, problems: &mut Vec<String>) -> Result<(), String> {
    for path in rust_files(directory)? {
        let text = read(&path)?;
        let shown = path.display();
        if !text.starts_with("//!") && !text.starts_with("#!") {
            problems.push(format!("{shown}: no `//!` head that says what it owns"));
        }
        if !["sys", "xtask"].contains(&name)
            && text.lines().any(|line| line.contains("allow(unsafe_code"))
        {
            problems.push(format!("{shown}: unsafe belongs in sys"));
        }
        for word in ["#[ignore", "todo!(", "unimplemented!("] {
            if name != "xtask" && text.contains(word) {
                problems.push(format!("{shown}: {word}"));
            }
        }
        let lines = text.lines().count();
        if lines > LONG_FILE {
            println!("long: {shown} has {lines} lines");
        }
    }
    Ok(())
}

/// Every crate has a row in ARCHITECTURE.md that names its edges.
fn documented(root: &Path, problems: &mut Vec<String>) -> Result<(), String> {
    let text = read(&root.join("ARCHITECTURE.md"))?;
    for (name, allowed) in EDGES {
        let edges = if allowed.is_empty() { "-".to_owned() } else { allowed.join(" ") };
        if !text.lines().any(|line| {
            line.starts_with(&format!("| `{name}` |")) && line.ends_with(&format!("| {edges} |"))
        }) {
            problems.push(format!("ARCHITECTURE.md: no row for `{name}` ending in | {edges} |"));
        }
    }
    Ok(())
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![directory.join("src"), directory.join("tests"), directory.join("benches")];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", directory.display()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
