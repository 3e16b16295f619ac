//! Settings from the command line and `daemon.json`, merged: a key may be given in one of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use super::directives::{DIRECTIVES, Directive, Fixed, Kind, Offer, by_key};
use super::values;

pub(crate) const DEFAULT_FILE: &str = "/etc/boxship/daemon.json";

/// What was given, by the setting's name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, Value>,
    /// What came by flags; a reload reads the file again beside these.
    flags: BTreeMap<&'static str, Value>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Help and version come this way as well; clap knows how to print each.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("invalid argument {value:?} for {flag:?} flag: {reason}")]
    Argument { value: String, flag: String, reason: String },
    #[error("the flag --{flag} is not supported by boxship yet")]
    UnsupportedFlag { flag: &'static str },
    #[error("the flag --{flag} is supported with the value {value} only")]
    FixedFlag { flag: &'static str, value: String },
    #[error("unable to configure the Docker daemon with file {}: {reason}", path.display())]
    File { path: PathBuf, reason: FileError },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("open {}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    #[error("invalid JSON: {0}")]
    Json(String),
    #[error("the following directives don't match any configuration option: {0}")]
    Unknown(String),
    #[error("the following directives are not supported by boxship yet: {0}")]
    Unsupported(String),
    #[error("the directive {key} is supported with the value {value} only")]
    Fixed { key: &'static str, value: String },
    #[error(
        "the following directives are specified both as a flag and in the configuration file: {0}"
    )]
    Conflict(String),
}

impl Settings {
    /// Reads the command line (without the program's name) and the file it names.
    pub(crate) fn load(arguments: Vec<OsString>) -> Result<Self, SettingsError> {
        let matches = command().try_get_matches_from(arguments)?;
        let flags = read_flags(&matches)?;
        Self { values: BTreeMap::new(), flags }.with_file()
    }

    /// The same flags beside the file as it is now.
    pub(crate) fn reload(&self) -> Result<Self, SettingsError> {
        Self { values: BTreeMap::new(), flags: self.flags.clone() }.with_file()
    }

    fn with_file(mut self) -> Result<Self, SettingsError> {
        let named = self.flags.get("config-file").and_then(Value::as_str).map(PathBuf::from);
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let failed = |reason| SettingsError::File { path: path.clone(), reason };
        let file = match std::fs::read(&path) {
            Ok(bytes) => parse_file(&bytes).map_err(failed)?,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            Err(error) => {
                let reason = errno_text(&error);
                return Err(failed(FileError::Open { path: path.clone(), reason }));
            }
        };
        check_conflicts(&self.flags, &file).map_err(failed)?;
        self.values = file;
        for (name, value) in &self.flags {
            // Runtimes may come from both.
            match (self.values.get_mut(name), value) {
                (Some(Value::Object(all)), Value::Object(more)) => all.extend(more.clone()),
                _ => drop(self.values.insert(name, value.clone())),
            }
        }
        Ok(self)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        debug_assert!(DIRECTIVES.iter().any(|directive| directive.name() == name), "{name}");
        self.values.get(name)
    }

    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.value(name)?.as_i64()
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str().filter(|text| !text.is_empty())
    }

    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        let list = self.value(name)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    pub(crate) fn map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let map = self.value(name)?.as_object()?;
        let pair =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        Some(map.iter().filter_map(pair).collect())
    }
}

/// Go's spelling of an error of the operating system.
fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn command() -> Command {
    let command = Command::new("boxship daemon")
        .no_binary_name(true)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .about("A self-sufficient runtime for containers.")
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version information"),
        );
    let offered = DIRECTIVES.iter().filter(|directive| !directive.flag.is_empty());
    offered.fold(command, |command, directive| command.arg(argument(directive)))
}

/// All values are taken as text, for all are read in one place and refused in dockerd's words.
fn argument(directive: &'static Directive) -> Arg {
    let argument = Arg::new(directive.name())
        .long(directive.flag)
        .action(ArgAction::Append)
        .hide(directive.offer != Offer::Yes)
        .help(directive.help);
    let argument = match directive.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    match directive.kind {
        Kind::Switch => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_default_value(true),
        _ => argument.num_args(1).allow_hyphen_values(true),
    }
}

fn read_flags(matches: &ArgMatches) -> Result<BTreeMap<&'static str, Value>, SettingsError> {
    let mut flags = BTreeMap::new();
    for directive in DIRECTIVES.iter().filter(|directive| !directive.flag.is_empty()) {
        let Some(given) = matches.get_many::<String>(directive.name()) else { continue };
        let given: Vec<String> = given.cloned().collect();
        let value = values::from_flag(directive.kind, &given)
            .and_then(|value| check_value(directive, &value).map(|()| value))
            .map_err(|invalid| SettingsError::Argument {
                value: invalid.value,
                flag: match directive.short {
                    Some(short) => format!("-{short}, --{}", directive.flag),
                    None => format!("--{}", directive.flag),
                },
                reason: invalid.reason,
            })?;
        check_flag_offer(directive, &value)?;
        flags.insert(directive.name(), value);
    }
    Ok(flags)
}

fn check_flag_offer(directive: &'static Directive, value: &Value) -> Result<(), SettingsError> {
    match directive.offer {
        Offer::Yes => Ok(()),
        Offer::No => Err(SettingsError::UnsupportedFlag { flag: directive.flag }),
        Offer::Only(fixed) if fixed.is(value) => Ok(()),
        Offer::Only(fixed) => {
            Err(SettingsError::FixedFlag { flag: directive.flag, value: fixed.to_string() })
        }
    }
}

impl Fixed {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Switch(fixed) => value.as_bool() == Some(fixed),
            Self::Text(fixed) => value.as_str() == Some(fixed),
        }
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// What a kind cannot tell: labels are pairs.
fn check_value(directive: &Directive, value: &Value) -> Result<(), values::Invalid> {
    if directive.key != "labels" {
        return Ok(());
    }
    let labels = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    for label in labels {
        if !label.contains('=') {
            let reason = format!("bad attribute format: {label}");
            return Err(values::Invalid { value: label.to_owned(), reason });
        }
    }
    Ok(())
}

/// Reads `daemon.json`.
fn parse_file(bytes: &[u8]) -> Result<BTreeMap<&'static str, Value>, FileError> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(BTreeMap::new());
    }
    let json: Value = serde_json::from_slice(text).map_err(|error| {
        let eof = error.is_eof().then(|| "unexpected end of JSON input".to_owned());
        FileError::Json(eof.unwrap_or_else(|| error.to_string()))
    })?;
    let Value::Object(members) = json else {
        return Err(FileError::Json("the file is no object".to_owned()));
    };
    let unknown: Vec<&str> =
        members.keys().map(String::as_str).filter(|key| by_key(key).is_none()).collect();
    if !unknown.is_empty() {
        return Err(FileError::Unknown(unknown.join(", ")));
    }
    let mut values = BTreeMap::new();
    let mut unsupported = Vec::new();
    for (key, value) in members {
        let directive = by_key(&key).expect("unknown keys were refused above");
        // As in Go, `null` leaves a setting alone.
        if value.is_null() {
            continue;
        }
        if directive.offer == Offer::No {
            unsupported.push(key);
            continue;
        }
        let value = values::check_file(directive.kind, &format!("Config.{key}"), value)
            .map_err(FileError::Json)?;
        check_value(directive, &value).map_err(|invalid| FileError::Json(invalid.reason))?;
        if let Offer::Only(fixed) = directive.offer
            && !fixed.is(&value)
        {
            return Err(FileError::Fixed { key: directive.key, value: fixed.to_string() });
        }
        values.insert(directive.key, value);
    }
    if unsupported.is_empty() {
        Ok(values)
    } else {
        Err(FileError::Unsupported(unsupported.join(", ")))
    }
}

fn check_conflicts(
    flags: &BTreeMap<&'static str, Value>,
    file: &BTreeMap<&'static str, Value>,
) -> Result<(), FileError> {
    let mut conflicts: Vec<(&str, String)> = Vec::new();
    for directive in DIRECTIVES.iter().filter(|directive| directive.key != "runtimes") {
        let name = directive.name();
        if let (Some(flag), Some(file)) = (flags.get(name), file.get(name)) {
            let (flag, file) = (values::go_text(flag), values::go_text(file));
            let text = format!("{name}: (from flag: {flag}, from file: {file})");
            conflicts.push((directive.flag, text));
        }
    }
    conflicts.sort();
    if conflicts.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = conflicts.into_iter().map(|(_, text)| text).collect();
    Err(FileError::Conflict(texts.join(", ")))
}

/// The file a reload reads, for the log.
pub(crate) fn file_of(settings: &Settings) -> &Path {
    Path::new(settings.text("config-file").unwrap_or(DEFAULT_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, arguments: &[&str]) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.json");
        let mut all: Vec<OsString> = arguments.iter().map(Into::into).collect();
        if let Some(file) = file {
            std::fs::write(&path, file).unwrap();
            all.extend(["--config-file".into(), path.clone().into()]);
        }
        Settings::load(all).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "F"))
    }

    fn refused(file: Option<&str>, arguments: &[&str], expect: &str) {
        let error = load(file, arguments).unwrap_err();
        let expect = match file {
            Some(_) => format!("unable to configure the Docker daemon with file F: {expect}"),
            None => expect.to_owned(),
        };
        assert_eq!(error, expect);
    }

    #[test]
    fn files_are_refused_in_dockerds_words() {
        refused(
            Some(r#"{"foo":1,"bar":{}}"#),
            &[],
            "the following directives don't match any configuration option: bar, foo",
        );
        refused(Some("{"), &[], "invalid JSON: unexpected end of JSON input");
        refused(
            Some(r#"{"debug":"x"}"#),
            &[],
            "invalid JSON: json: cannot unmarshal string into Go struct field Config.debug of type bool",
        );
        refused(
            Some(r#"{"labels":["a=b"],"debug":true}"#),
            &["-D", "--label", "x=y"],
            "the following directives are specified both as a flag and in the configuration \
             file: debug: (from flag: true, from file: true), labels: (from flag: [x=y], from \
             file: [a=b])",
        );
        refused(
            Some(r#"{"userland-proxy":true}"#),
            &[],
            "the directive userland-proxy is supported with the value false only",
        );
        refused(
            Some(r#"{"features":{"buildkit":true},"metrics-addr":"x"}"#),
            &[],
            "the following directives are not supported by boxship yet: features, metrics-addr",
        );
        let error = load(None, &["--config-file", "/nonexistent"]).unwrap_err();
        assert_eq!(
            error,
            "unable to configure the Docker daemon with file /nonexistent: open /nonexistent: no \
             such file or directory"
        );
    }

    #[test]
    fn flags_are_refused_by_name() {
        refused(
            None,
            &["--shutdown-timeout", "x"],
            "invalid argument \"x\" for \"--shutdown-timeout\" flag: strconv.ParseInt: parsing \
             \"x\": invalid syntax",
        );
        refused(
            None,
            &["--label", "x"],
            "invalid argument \"x\" for \"--label\" flag: bad attribute format: x",
        );
        refused(
            None,
            &["--metrics-addr", "x"],
            "the flag --metrics-addr is not supported by boxship yet",
        );
        refused(
            None,
            &["-s", "btrfs"],
            "the flag --storage-driver is supported with the value overlay2 only",
        );
        assert!(load(None, &["--bogus"]).unwrap_err().contains("unexpected argument '--bogus'"));
        assert!(load(None, &["extra"]).unwrap_err().contains("unexpected argument 'extra'"));
    }

    #[test]
    fn flags_and_file_add_up() {
        let settings = load(
            Some(r#"{"debug":true,"dns":["1.1.1.1"],"init":null,"runtimes":{"a":{"path":"/a"}}}"#),
            &[
                "--icc=false",
                "--add-runtime",
                "b=/b",
                "-H",
                "unix:///a",
                "-H",
                "unix:///b",
                "-s=overlay2",
            ],
        )
        .unwrap();
        assert_eq!(settings.switch("debug"), Some(true));
        assert_eq!(settings.switch("icc"), Some(false));
        assert_eq!(settings.switch("init"), None);
        assert_eq!(settings.list("hosts").unwrap(), ["unix:///a", "unix:///b"]);
        assert_eq!(settings.value("runtimes").unwrap().as_object().unwrap().len(), 2);
        assert_eq!(load(Some(" "), &[]).unwrap().switch("debug"), None);
    }
}
