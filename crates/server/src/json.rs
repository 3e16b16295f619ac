//! Request bodies: JSON read with the meaning that Go's `encoding/json` gives it.
//!
//! Every client of Docker was written against that reader, so: member names match in any case,
//! `null` leaves a member as it was, the last of two equal names wins, unknown members are
//! ignored. Stricter than Go in one place: two spellings of one name in the same object
//! (`HostConfig`, `hostconfig`) are refused, because filters in front of a daemon have been
//! deceived by them (CVE-2024-41110 and its kin). Enter at [`parse`], then [`decode`].

mod value;

use api_types::container::{Config, CreateRequest, UpdateRequest};
use api_types::host_config::{HostConfig, Resources};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use spec::{ErrorKind, Kinded};

use value::GoValue;

/// More elements than any honest request has; they would take many times the body's memory.
const MAX_ELEMENTS: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    #[error("invalid JSON: {detail}")]
    Syntax { detail: String },
    #[error("unexpected content after JSON")]
    Trailing,
    #[error("config cannot be empty in order to create a container")]
    NoConfig,
    #[error("invalid JSON: more than {MAX_ELEMENTS} elements")]
    TooMany,
    #[error("invalid JSON: member {member:?} is given twice in different case")]
    Ambiguous { member: String },
    #[error("invalid JSON: json: cannot unmarshal {found} into Go {} of type {wanted}", place(.path))]
    Mismatch { found: String, path: String, wanted: String },
    #[error("invalid JSON: {detail} ({})", place(.path))]
    Invalid { detail: String, path: String },
}

impl Kinded for JsonError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

fn place(path: &str) -> String {
    if path.is_empty() { "value".to_owned() } else { format!("struct field {path}") }
}

/// Reads one JSON value and nothing after it but white space.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Empty);
    }
    if count_elements(bytes) > MAX_ELEMENTS {
        return Err(JsonError::TooMany);
    }
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(JsonError::Syntax { detail: syntax_text(bytes, &error) }),
        None => return Err(JsonError::Empty),
    };
    let rest = &bytes[values.byte_offset()..];
    if rest.iter().all(u8::is_ascii_whitespace) { Ok(value) } else { Err(JsonError::Trailing) }
}

pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    T::deserialize(GoValue(value))
}

/// Decodes the body of `POST /containers/create`: `Config` with two members more.
pub(crate) fn decode_create(value: Value) -> Result<CreateRequest, JsonError> {
    let mut members = object(value, "container.CreateRequest")?;
    let host_config = take(&mut members, "HostConfig")?;
    let networking_config = take(&mut members, "NetworkingConfig")?;
    let fields = value::fields_of::<Config>();
    let is_config = |key: &String| fields.iter().any(|field| field.eq_ignore_ascii_case(key));
    let has_config = members.keys().any(is_config);
    let request = CreateRequest {
        config: decode(Value::Object(members))?,
        host_config: decode_host_config(host_config).map_err(|error| error.inside("HostConfig"))?,
        networking_config: decode(networking_config)
            .map_err(|error| error.inside("NetworkingConfig"))?,
    };
    if has_config { Ok(request) } else { Err(JsonError::NoConfig) }
}

/// Decodes the body of `POST /containers/{id}/update`: `Resources` with one member more.
pub(crate) fn decode_update(value: Value) -> Result<UpdateRequest, JsonError> {
    let mut members = object(value, "container.UpdateConfig")?;
    let restart_policy = take(&mut members, "RestartPolicy")?;
    Ok(UpdateRequest {
        resources: decode(Value::Object(members))?,
        restart_policy: decode(restart_policy).map_err(|error| error.inside("RestartPolicy"))?,
    })
}

/// Decodes `HostConfig`. serde hands the members of the flattened [`Resources`] on without their
/// types, where no name could be matched and no `null` understood; so they are taken out first.
pub(crate) fn decode_host_config(value: Value) -> Result<HostConfig, JsonError> {
    let mut members = object(value, "container.HostConfig")?;
    let mut resources = Map::new();
    for name in value::fields_of::<Resources>() {
        let member = take(&mut members, name)?;
        resources.insert((*name).to_owned(), member);
    }
    let mut own = Map::new();
    for name in HOST_CONFIG {
        match take(&mut members, name)? {
            Value::Null => {}
            member => drop(own.insert((*name).to_owned(), member)),
        }
    }
    let mut host_config: HostConfig = decode(Value::Object(own))?;
    host_config.resources = decode(Value::Object(resources))?;
    Ok(host_config)
}

/// The members of [`HostConfig`] besides those of [`Resources`].
const HOST_CONFIG: &[&str] = &[
    "Binds",
    "ContainerIDFile",
    "LogConfig",
    "NetworkMode",
    "PortBindings",
    "RestartPolicy",
    "AutoRemove",
    "VolumeDriver",
    "VolumesFrom",
    "ConsoleSize",
    "Annotations",
    "CapAdd",
    "CapDrop",
    "CgroupnsMode",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IpcMode",
    "Cgroup",
    "Links",
    "OomScoreAdj",
    "PidMode",
    "Privileged",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "SecurityOpt",
    "StorageOpt",
    "Tmpfs",
    "UTSMode",
    "UsernsMode",
    "ShmSize",
    "Sysctls",
    "Runtime",
    "Isolation",
    "Mounts",
    "MaskedPaths",
    "ReadonlyPaths",
    "Init",
];

/// The members of an object; none of `null`.
pub(crate) fn object(value: Value, wanted: &str) -> Result<Map<String, Value>, JsonError> {
    match value {
        Value::Object(members) => Ok(members),
        Value::Null => Ok(Map::new()),
        other => Err(value::mismatch(&other, wanted)),
    }
}

/// Removes the member of this name in any case; `null` when there is none.
pub(crate) fn take(members: &mut Map<String, Value>, name: &str) -> Result<Value, JsonError> {
    let mut matching = members.keys().filter(|key| key.eq_ignore_ascii_case(name));
    let Some(key) = matching.next().cloned() else { return Ok(Value::Null) };
    if matching.next().is_some() {
        return Err(JsonError::Ambiguous { member: name.to_owned() });
    }
    Ok(members.remove(&key).unwrap_or_default())
}

impl JsonError {
    /// The same error, seen from the object that holds the value as member `name`.
    fn inside(mut self, name: &str) -> Self {
        if let Self::Mismatch { path, .. } | Self::Invalid { path, .. } = &mut self {
            path.insert_str(0, name);
            path.insert(0, '.');
        }
        self
    }
}

/// Counts the commas and colons outside strings; at most one element follows each.
fn count_elements(bytes: &[u8]) -> usize {
    let mut count = 0;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Go's words for a syntax error, as far as serde_json tells enough.
fn syntax_text(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let expected = match text {
        "expected value" | "expected ident" => "looking for beginning of value",
        "key must be a string" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "invalid escape" => "in string escape code",
        _ => return text.to_owned(),
    };
    match character_at(bytes, error.line(), error.column()) {
        Some(character) => format!("invalid character '{}' {expected}", quoted(character)),
        None => text.to_owned(),
    }
}

/// As Go quotes a character.
fn quoted(character: char) -> String {
    match character {
        '\'' | '\\' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{0}'..='\u{1f}' | '\u{7f}' => format!("\\x{:02x}", u32::from(character)),
        '\u{feff}' | char::REPLACEMENT_CHARACTER => format!("\\u{:04x}", u32::from(character)),
        _ => character.to_string(),
    }
}

fn character_at(bytes: &[u8], line: usize, column: usize) -> Option<char> {
    let line = bytes.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    let from = line.get(column.checked_sub(1)?..)?;
    String::from_utf8_lossy(&from[..from.len().min(4)]).chars().next()
}

#[cfg(test)]
mod tests;
