//! Log drivers and their options, turned into what the supervisor writes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api_types::host_config::LogConfig;
use runtime::spec::{LogFile, LogSpec};

use crate::errors::{Error, Result, ValidationError};

/// 20 MiB times five, unless the user says otherwise: a log never fills the disk.
const MAX_SIZE: u64 = 20 << 20;
const MAX_FILES: u32 = 5;

const COMMON: &[&str] = &["mode", "max-buffer-size"];
const FILE: &[&str] = &[
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "cache-disabled",
    "cache-max-file",
    "cache-max-size",
    "cache-compress",
];
/// Docker's other drivers, which are known and not there yet.
const LATER: &[&str] = &[
    "syslog",
    "journald",
    "gelf",
    "fluentd",
    "awslogs",
    "splunk",
    "etwlogs",
    "gcplogs",
    "logentries",
];

/// What an option set means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileOptions {
    pub max_size: Option<u64>,
    pub max_files: u32,
    pub compress: bool,
}

pub(in crate::containers) fn check(config: &LogConfig) -> Result<()> {
    let driver = config.kind.as_str();
    match driver {
        "json-file" | "local" | "none" => {}
        _ if LATER.contains(&driver) => {
            return Err(Error::unsupported(format!("the {driver} log driver")));
        }
        _ => return Err(ValidationError::LogDriver { driver: driver.to_owned() }.into()),
    }
    let known = |name: &&str| driver == "none" || COMMON.contains(name) || FILE.contains(name);
    if let Some(option) = config.config.keys().find(|name| !known(&name.as_str())) {
        let (driver, option) = (driver.to_owned(), option.clone());
        return Err(ValidationError::LogOption { driver, option }.into());
    }
    delivery_mode(&config.config)?;
    if let Some(used) = ["labels-regex", "env-regex", "tag"]
        .into_iter()
        .find(|name| config.config.get(*name).is_some_and(|value| !value.is_empty()))
    {
        return Err(Error::unsupported(format!("the log option {used}")));
    }
    options(config)?;
    Ok(())
}

fn delivery_mode(options: &BTreeMap<String, String>) -> Result<(), ValidationError> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(ValidationError::LogMode { mode: mode.to_owned() });
    }
    match options.get("max-buffer-size") {
        Some(_) if mode != "non-blocking" => Err(ValidationError::LogBuffer),
        Some(size) => parse_size(size).map(drop),
        None => Ok(()),
    }
}

fn parse_size(text: &str) -> Result<u64, ValidationError> {
    spec::size::parse_bytes(text)
        .map(i64::unsigned_abs)
        .map_err(|error| ValidationError::LogValue { reason: error.to_string() })
}

/// Reads the options of the drivers that write files.
pub(crate) fn options(config: &LogConfig) -> Result<FileOptions, ValidationError> {
    let error = |reason: String| ValidationError::LogValue { reason };
    let get = |name| config.config.get(name).map(String::as_str);
    let max_size = match get("max-size") {
        None => Some(MAX_SIZE),
        // Docker's default: the log grows without end.
        Some("-1") => None,
        Some(text) => Some(parse_size(text)?),
    };
    let max_files = match get("max-file") {
        None => MAX_FILES,
        Some(text) => text
            .parse()
            .map_err(|_bad| error(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))?,
    };
    if max_files < 1 {
        return Err(error("max-file cannot be less than 1".to_owned()));
    }
    let compress = match get("compress") {
        // The local driver compresses unless told otherwise.
        None => config.kind == "local",
        Some(text) => spec::boolean::parse(text).map_err(error)?,
    };
    Ok(FileOptions { max_size, max_files, compress })
}

/// What the supervisor is told to write. `path` is for [`log_path`]'s result.
pub(crate) fn spec(
    config: &LogConfig,
    path: PathBuf,
    labels: &BTreeMap<String, String>,
    env: &[String],
) -> Result<LogSpec, ValidationError> {
    let FileOptions { max_size, max_files, compress } = options(config)?;
    let attrs = attributes(config, labels, env);
    let file = LogFile { path, max_size, max_files, compress, attrs };
    Ok(match config.kind.as_str() {
        "none" => LogSpec::None,
        "local" => LogSpec::Local(file),
        _ => LogSpec::JsonFile(file),
    })
}

/// The labels and variables that the options name.
fn attributes(
    config: &LogConfig,
    labels: &BTreeMap<String, String>,
    env: &[String],
) -> BTreeMap<String, String> {
    let names = |option: &str| config.config.get(option).map_or("", String::as_str).split(',');
    let labels = names("labels")
        .filter_map(|name| labels.get(name).map(|value| (name.to_owned(), value.clone())));
    let wanted: Vec<&str> = names("env").collect();
    let env = env.iter().filter_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        wanted.contains(&name).then(|| (name.to_owned(), value.to_owned()))
    });
    labels.chain(env).collect()
}

/// Where the log of a container is, below its directory; `None` when it has no file of its own.
pub(crate) fn log_path(driver: &str, directory: &std::path::Path, id: &str) -> Option<PathBuf> {
    match driver {
        "json-file" => Some(directory.join(format!("{id}-json.log"))),
        "local" => Some(directory.join("local-logs/container.log")),
        _ => None,
    }
}
