//! Where the facts come from: tab-separated inventories, tables in the code, the binary's flags.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::rust;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    Works,
    Partly,
    Refused,
    /// Kept and shown; nothing on Linux depends on it.
    Recorded,
}

impl Support {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Partly => "partly",
            Self::Refused => "refused",
            Self::Recorded => "recorded",
        }
    }
}

/// A line of an inventory, by the names in its first line.
#[derive(Debug)]
pub(crate) struct Row(BTreeMap<String, String>);

impl Row {
    /// Empty for a column that is not there.
    pub(crate) fn get(&self, column: &str) -> &str {
        self.0.get(column).map(String::as_str).unwrap_or_default()
    }
}

pub(crate) fn tsv(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let row = |line: &str| {
        let cells = columns.iter().zip(line.split('\t'));
        Row(cells.map(|(name, cell)| ((*name).to_owned(), cell.to_owned())).collect())
    };
    lines.map(row).collect()
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `GET /containers/json`
    pub name: String,
    pub support: Support,
    pub note: String,
}

/// Reads the table of routes: rows `works!("GET", "/path", handler)`, perhaps with
/// `.partly("what is missing")`; `refused("GET", "/path", "thing")`; `swarm("GET", "/path")`.
pub(crate) fn routes(source: &str) -> Result<Vec<Route>, String> {
    let tokens = rust::tokens(source)?;
    let table = rust::table(&tokens, "ROUTES").ok_or("no table ROUTES")?;
    rust::rows(table).into_iter().map(route).collect()
}

fn route(row: &[rust::Token]) -> Result<Route, String> {
    let texts = rust::texts(row);
    let (method, path, last) = match texts[..] {
        [method, path] => (method, path, ""),
        [method, path, last] => (method, path, last),
        _ => return Err(format!("a row with {} texts: {texts:?}", texts.len())),
    };
    let Some(rust::Token::Word(kind)) = row.first() else {
        return Err(format!("a row of no known kind: {method} {path}"));
    };
    let (support, note) = match kind.as_str() {
        "works" if rust::has_word(row, "partly") => (Support::Partly, last.to_owned()),
        "works" => (Support::Works, String::new()),
        "refused" => (Support::Refused, format!("501: {last}")),
        "swarm" => (Support::Refused, "503: this node is in no swarm".to_owned()),
        _ => return Err(format!("a row of an unknown kind, {kind}: {method} {path}")),
    };
    Ok(Route { name: format!("{method} {path}"), support, note })
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub support: Support,
    pub note: String,
}

/// Reads the tables of settings: rows with a field's name, one of `Works`, `Partly`, `Refused`,
/// `Recorded`, and perhaps a note. Keys are `HostConfig.Memory` and `Config.Env`.
pub(crate) fn settings(source: &str) -> Result<BTreeMap<String, Setting>, String> {
    let tokens = rust::tokens(source)?;
    let mut found = BTreeMap::new();
    for (table, object) in [("HOST_CONFIG_SUPPORT", "HostConfig"), ("CONFIG_SUPPORT", "Config")] {
        let rows = rust::table(&tokens, table).ok_or_else(|| format!("no table {table}"))?;
        for row in rust::rows(rows) {
            let (field, setting) = setting(row)?;
            found.insert(format!("{object}.{field}"), setting);
        }
    }
    Ok(found)
}

fn setting(row: &[rust::Token]) -> Result<(String, Setting), String> {
    let texts = rust::texts(row);
    let field = *texts.first().ok_or("a row without a name")?;
    let kinds = [Support::Works, Support::Partly, Support::Refused, Support::Recorded];
    let support = kinds
        .into_iter()
        .find(|support| rust::has_word(row, &format!("{support:?}")))
        .ok_or_else(|| format!("the row of {field} says not how far it works"))?;
    let note = texts.get(1).copied().unwrap_or_default().to_owned();
    Ok((field.to_owned(), Setting { support, note }))
}

/// The flags of each command, by its spelling.
pub(crate) type Flags = BTreeMap<String, BTreeSet<String>>;

/// Asks the binary, built first unless its path is given.
pub(crate) fn flags(root: &Path, binary: Option<&str>) -> Result<Flags, String> {
    let mut command = match binary {
        Some(path) => Command::new(path),
        None => {
            let cargo = std::env::var("CARGO").unwrap_or_else(|_unset| "cargo".to_owned());
            let mut command = Command::new(cargo);
            command.args(["run", "--quiet", "-p", "boxship", "--"]);
            command
        }
    };
    let output = command.arg("__flags").current_dir(root).output();
    let output = output.map_err(|error| format!("boxship __flags: {error}"))?;
    if !output.status.success() {
        return Err(format!("boxship __flags: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(parse_flags(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines of `docker run<TAB>--name<TAB>string`; one without a flag names a command.
fn parse_flags(text: &str) -> Flags {
    let mut flags = Flags::new();
    for line in text.lines() {
        let mut cells = line.split('\t');
        let command = flags.entry(cells.next().unwrap_or_default().to_owned()).or_default();
        command.extend(cells.next().filter(|flag| !flag.is_empty()).map(str::to_owned));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_route(row: &str, support: Support, note: &str) {
        let found = routes(&format!("static ROUTES: &[Route] = &[{row}];")).unwrap();
        let note = note.to_owned();
        assert_eq!(found, [Route { name: "GET /a/{id}".to_owned(), support, note }]);
    }

    #[test]
    fn routes_say_what_they_are() {
        check_route("works!(\"GET\", \"/a/{id}\", a::b),", Support::Works, "");
        check_route(
            "works!(\"GET\", \"/a/{id}\", a::b)\n.partly(\"no, not all\").takes_connection(),",
            Support::Partly,
            "no, not all",
        );
        check_route("refused(\"GET\", \"/a/{id}\", \"a thing\")", Support::Refused, "501: a thing");
        assert!(routes("static ROUTES: &[Route] = &[other(\"GET\", \"/a\")];").is_err());
        assert!(routes("static OTHER: u8 = 1;").is_err());
    }

    #[test]
    fn settings_say_what_they_are() {
        let source = "const HOST_CONFIG_SUPPORT: &[(&str, Support, &str)] = &[\n\
                      (\"Memory\", Support::Works, \"\"), (\"Links\", Support::Refused, \"why\")];\n\
                      const CONFIG_SUPPORT: &[Row] = &[row(\"Env\", Support::Partly, \"note\")];";
        let found = settings(source).unwrap();
        assert_eq!(found["HostConfig.Memory"].support, Support::Works);
        assert_eq!(found["HostConfig.Links"].note, "why");
        assert_eq!(found["Config.Env"].support, Support::Partly);
    }

    #[test]
    fn flags_belong_to_commands() {
        let flags = parse_flags("docker\t--debug\tbool\ndocker ps\t\t\ndocker ps\t--all\tbool\n");
        assert!(flags["docker"].contains("--debug"));
        assert_eq!(flags["docker ps"].len(), 1);
    }
}
