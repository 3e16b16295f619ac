//! `cargo xtask compat [--check] [--binary PATH]`: writes docs/compatibility.md.
//!
//! What Docker has comes from docs/inventory (data, counted once); what we have comes from the
//! code itself: the table of routes, the tables of supported settings, and the flags that the
//! binary prints. Nobody keeps a list of what works by hand, so that no list can lie. `--check`
//! writes nothing and fails when the file is stale.

mod differences;
mod endpoints;
mod rust;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sources::{Flags, Row, Support};

const DOCUMENT: &str = "docs/compatibility.md";
const ROUTES: &str = "crates/server/src/routes/mod.rs";
const SETTINGS: &str = "crates/engine/src/support.rs";
const CLI: &str = "docker 28.2.2";

/// Endpoints that the inventory spells otherwise than the table of routes.
const SPELLED: &[(&str, &str)] = &[("GET /images/(format)", "GET /images/viz")];
/// Answered before any route is looked for.
const PREFLIGHT: &str = "OPTIONS /{anyroute}";

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let root = crate::root();
    let fresh = document(&root, options.binary.as_deref())?;
    let path = root.join(DOCUMENT);
    if options.check {
        let stored = fs::read_to_string(&path).unwrap_or_default();
        return if stored == fresh {
            Ok(())
        } else {
            Err(format!("{DOCUMENT} is stale; run `cargo xtask compat`"))
        };
    }
    fs::write(&path, fresh).map_err(|error| format!("{}: {error}", path.display()))
}

#[derive(Debug, Default)]
struct Options {
    check: bool,
    binary: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--check" => options.check = true,
                "--binary" => {
                    options.binary = Some(args.next().ok_or("--binary needs a path")?.clone());
                }
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        Ok(options)
    }
}

fn document(root: &Path, binary: Option<&str>) -> Result<String, String> {
    let inventory = |name: &str| {
        let path = root.join("docs/inventory").join(name);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(sources::tsv(&text))
    };
    let source = |name: &str| {
        fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let routes = sources::routes(&source(ROUTES)?).map_err(|e| format!("{ROUTES}: {e}"))?;
    let settings = sources::settings(&source(SETTINGS)?).map_err(|e| format!("{SETTINGS}: {e}"))?;
    let flags = sources::flags(root, binary)?;
    let engine = inventory("engine.tsv")?;
    let sections = [
        endpoint_section(&inventory("api.tsv")?, &routes)?,
        commands(&inventory("cli.tsv")?, &flags, &routes)?,
        fields("HostConfig", &engine, &settings)?,
        fields("Config", &engine, &settings)?,
    ];
    Ok(assemble(&sections) + &differences::section(root)?)
}

/// A part of the document and its figures.
struct Section {
    title: String,
    counts: Counts,
    body: String,
}

#[derive(Default)]
struct Counts {
    works: usize,
    partly: usize,
    refused: usize,
    recorded: usize,
}

impl Counts {
    fn add(&mut self, support: Support) {
        match support {
            Support::Works => self.works += 1,
            Support::Partly => self.partly += 1,
            Support::Refused => self.refused += 1,
            Support::Recorded => self.recorded += 1,
        }
    }
}

fn assemble(sections: &[Section]) -> String {
    let mut text = "<!-- Made by `cargo xtask compat`; changes by hand are lost. -->\n\
        # Compatibility with Docker\n\n\
        Measured against Docker's API 1.56, the docker command line 28.2.2 and the engine's\n\
        settings, as counted in [inventory](inventory). *Works*: as Docker does it. *Partly*: the\n\
        note says what is missing. *Refused*: an error names it; nothing is silently ignored.\n\
        *Recorded*: kept and shown, and without effect on Linux in Docker too.\n\n\
        | | works | partly | refused | recorded |\n|---|---|---|---|---|\n"
        .to_owned();
    for Section { title, counts, .. } in sections {
        let Counts { works, partly, refused, recorded } = counts;
        line(&mut text, &format!("| {title} | {works} | {partly} | {refused} | {recorded} |"));
    }
    for Section { title, body, .. } in sections {
        write!(text, "\n## {title}\n{body}").expect("to memory");
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn endpoint_section(inventory: &[Row], routes: &[sources::Route]) -> Result<Section, String> {
    let mut counts = Counts::default();
    let mut groups: BTreeMap<&str, String> = BTreeMap::new();
    for row in inventory {
        let name = format!("{} {}", row.get("method"), row.get("path"));
        let spelled = SPELLED.iter().find(|(theirs, _)| *theirs == name);
        let wanted = spelled.map_or(name.as_str(), |(_, ours)| ours);
        let route = routes.iter().find(|route| route.name == wanted);
        let (support, note) = match route {
            Some(route) => (route.support, route.note.as_str()),
            None if name == PREFLIGHT => (Support::Works, "answered for any path"),
            None => return Err(format!("{ROUTES} has no row for {name}")),
        };
        counts.add(support);
        let table = groups.entry(row.get("group")).or_default();
        let since = row.get("introduced_api");
        line(table, &format!("| `{name}` | {since} | {} | {note} |", support.word()));
    }
    let mut body = String::new();
    for (group, rows) in groups {
        let head = "| endpoint | since API | | note |\n|---|---|---|---|\n";
        write!(body, "\n### {group}\n{head}{rows}").expect("to memory");
    }
    Ok(Section { title: "API endpoints".to_owned(), counts, body })
}

fn commands(
    inventory: &[Row],
    flags: &Flags,
    routes: &[sources::Route],
) -> Result<Section, String> {
    let mut counts = Counts::default();
    let mut rows = String::new();
    let mut seen = Vec::new();
    let ours = inventory.iter().filter(|row| row.get("component") == CLI);
    for row in ours.filter(|row| row.get("kind") == "command") {
        let (name, aliases) = (row.get("command"), row.get("aliases"));
        let is_group = row.get("usage").ends_with(" COMMAND") && name != "docker";
        if is_group || (!aliases.is_empty() && seen.contains(&aliases)) {
            continue;
        }
        seen.push(aliases);
        let (support, note) = match flags.get(name) {
            None => (Support::Refused, "not yet".to_owned()),
            Some(known) => {
                let (daemon, mut notes) = by_daemon(name, routes)?;
                let lacking = lacking(name, aliases, known, inventory, flags);
                let support = match daemon {
                    Support::Works if !lacking.is_empty() => Support::Partly,
                    daemon => daemon,
                };
                notes.extend(lacking);
                (support, notes.join("; "))
            }
        };
        counts.add(support);
        line(&mut rows, &format!("| `{name}` | {} | {note} |", support.word()));
    }
    let body = format!(
        "\nA command works when it takes every flag of Docker's and the daemon serves what it \
         asks for;\nwhat a container can be given is in the tables of fields.\n\n\
         | command | | note |\n|---|---|---|\n{rows}"
    );
    Ok(Section { title: "Commands".to_owned(), counts, body })
}

/// How far the endpoint that a command needs is served.
fn by_daemon(name: &str, routes: &[sources::Route]) -> Result<(Support, Vec<String>), String> {
    let endpoint = endpoints::of(name)
        .ok_or_else(|| format!("xtask/src/compat/endpoints.rs says nothing of {name}"))?;
    if endpoint.is_empty() {
        return Ok((Support::Works, Vec::new()));
    }
    let route = routes.iter().find(|route| route.name == endpoint);
    let route = route.ok_or_else(|| format!("{ROUTES} has no row for {endpoint}"))?;
    let note = match route.note.as_str() {
        "" => Vec::new(),
        note => vec![format!("daemon: {note}")],
    };
    Ok((route.support, note))
}

/// The flags and spellings of Docker's command that ours does not know.
fn lacking(
    name: &str,
    aliases: &str,
    known: &BTreeSet<String>,
    inventory: &[Row],
    flags: &Flags,
) -> Vec<String> {
    let wanted: Vec<&str> = inventory
        .iter()
        .filter(|row| row.get("component") == CLI && row.get("command") == name)
        .filter(|row| row.get("kind") == "flag")
        .map(|row| row.get("flag"))
        .collect();
    let missing: Vec<&str> = wanted.iter().copied().filter(|flag| !known.contains(*flag)).collect();
    let spellings: Vec<&str> = aliases
        .split(", ")
        .filter(|alias| !alias.is_empty() && !flags.contains_key(*alias))
        .collect();
    let mut notes = Vec::new();
    if !missing.is_empty() {
        let have = wanted.len() - missing.len();
        notes.push(format!("{have} of {} flags; not yet {}", wanted.len(), code(&missing)));
    }
    if !spellings.is_empty() {
        notes.push(format!("not as {}", code(&spellings)));
    }
    notes
}

fn code(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ")
}

fn fields(
    object: &str,
    inventory: &[Row],
    settings: &BTreeMap<String, sources::Setting>,
) -> Result<Section, String> {
    let mut counts = Counts::default();
    let mut rows = String::new();
    let category = format!("{object} field");
    for row in inventory.iter().filter(|row| row.get("category") == category) {
        let field = row.get("item");
        let setting = settings
            .get(&format!("{object}.{field}"))
            .ok_or_else(|| format!("{SETTINGS} says nothing of {object}.{field}"))?;
        counts.add(setting.support);
        let word = setting.support.word();
        line(&mut rows, &format!("| `{field}` | {word} | {} |", setting.note));
    }
    let body = format!("\n| field | | note |\n|---|---|---|\n{rows}");
    Ok(Section { title: format!("{object} fields"), counts, body })
}
