//! Contexts on disk, in docker's format, so that both command lines share them.
//!
//! ```text
//! <config>/contexts/meta/<sha256 of name>/meta.json      {"Name", "Metadata", "Endpoints"}
//! <config>/contexts/tls/<sha256 of name>/<endpoint>/     ca.pem, cert.pem, key.pem; mode 0700
//! ```
//! Members of `meta.json` that are not known here are kept. TLS files are written before
//! `meta.json`: a crash in between leaves TLS files without a context, which the next create of
//! that name replaces. Enter at [`ContextStore`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{Error, Result};

/// The only endpoint that Docker still knows.
const DOCKER: &str = "docker";

/// One context, as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Context {
    pub name: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub endpoints: BTreeMap<String, serde_json::Value>,
}

/// The Docker endpoint of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContextEndpoint {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
}

/// Certificates and keys by file name.
pub type TlsMaterial = BTreeMap<String, Vec<u8>>;

impl Context {
    pub fn description(&self) -> &str {
        self.metadata.get("Description").and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// Sets the description; an empty one is left out of the file.
    pub fn set_description(&mut self, text: &str) {
        if text.is_empty() {
            self.metadata.remove("Description");
        } else {
            self.metadata.insert("Description".to_owned(), text.into());
        }
    }

    /// The Docker endpoint, when there is one that can be read.
    pub fn docker(&self) -> Option<ContextEndpoint> {
        serde_json::from_value(self.endpoints.get(DOCKER)?.clone()).ok()
    }

    pub fn set_docker(&mut self, endpoint: &ContextEndpoint) {
        let value = serde_json::to_value(endpoint).expect("a text and a bool are JSON");
        self.endpoints.insert(DOCKER.to_owned(), value);
    }

    /// The bytes of `meta.json`, as Go writes them.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string(self).expect("texts and JSON values are JSON");
        crate::config::escape_html(&text)
    }

    /// Reads `meta.json`; errors are worded as Go's.
    pub fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => error.to_string(),
        })
    }
}

/// Refuses names that docker refuses.
pub fn check_name(name: &str) -> Result<()> {
    let refuse = |message: String| Err(Error::Config { message });
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    match name.as_bytes() {
        [] => refuse("context name cannot be empty".to_owned()),
        b"default" => refuse("\"default\" is a reserved context name".to_owned()),
        [first, rest @ ..]
            if first.is_ascii_alphanumeric()
                && !rest.is_empty()
                && rest.iter().all(|byte| valid(*byte)) =>
        {
            Ok(())
        }
        _ => refuse(format!(
            "context name {name:?} is invalid, names are validated against regexp \
             \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )),
    }
}

/// The name of a context's directories.
pub fn context_id(name: &str) -> String {
    spec::Digest::from_bytes(sha2::Sha256::digest(name.as_bytes()).into()).hex()
}

/// The contexts below one configuration directory.
#[derive(Debug, Clone)]
pub struct ContextStore {
    root: PathBuf,
}

impl ContextStore {
    pub fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("contexts") }
    }

    pub fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(context_id(name))
    }

    pub fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(context_id(name))
    }

    pub fn load(&self, name: &str) -> Result<Context> {
        let path = self.meta_directory(name).join("meta.json");
        let text = fs::read(&path).map_err(|error| Error::Config {
            message: match error.kind() {
                ErrorKind::NotFound => format!(
                    "context {name:?}: context not found: {}",
                    describe("open", &path, &error)
                ),
                _ => describe("open", &path, &error),
            },
        })?;
        parse_file(&path, &text)
    }

    pub fn exists(&self, name: &str) -> bool {
        self.meta_directory(name).join("meta.json").exists()
    }

    /// Every context, in no order. One that cannot be read is an error, as it is docker's.
    pub fn list(&self) -> Result<Vec<Context>> {
        let entries = match fs::read_dir(self.root.join("meta")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(config_error("open", &self.root.join("meta"), &error)),
        };
        let mut contexts = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path().join("meta.json");
            match fs::read(&path) {
                Ok(text) => contexts.push(parse_file(&path, &text).map_err(|error| {
                    Error::Config { message: format!("failed to read metadata: {error}") }
                })?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(config_error("open", &path, &error)),
            }
        }
        Ok(contexts)
    }

    /// Writes a context and replaces the TLS files of all its endpoints.
    pub fn create(&self, context: &Context, tls: &BTreeMap<String, TlsMaterial>) -> Result<()> {
        remove_tree(&self.tls_directory(&context.name))?;
        for (endpoint, material) in tls {
            self.set_tls(&context.name, endpoint, material)?;
        }
        self.save(context)
    }

    /// Writes a context and replaces the TLS files of its Docker endpoint.
    pub fn replace_docker(&self, context: &Context, material: &TlsMaterial) -> Result<()> {
        self.set_tls(&context.name, DOCKER, material)?;
        self.save(context)
    }

    /// Writes `meta.json`; readers see the old file or the new one.
    pub fn save(&self, context: &Context) -> Result<()> {
        let directory = self.meta_directory(&context.name);
        make_directory(&directory, 0o755)?;
        write_file(&directory.join("meta.json"), context.to_json().as_bytes(), 0o644)
    }

    fn set_tls(&self, name: &str, endpoint: &str, material: &TlsMaterial) -> Result<()> {
        let directory = self.tls_directory(name).join(endpoint);
        remove_tree(&directory)?;
        if material.is_empty() {
            return Ok(());
        }
        make_directory(&directory, 0o700)?;
        for (file, bytes) in material {
            write_file(&directory.join(file), bytes, 0o600)?;
        }
        Ok(())
    }

    /// Removes a context; one that is not there is removed already.
    pub fn remove(&self, name: &str) -> Result<()> {
        remove_tree(&self.meta_directory(name))?;
        remove_tree(&self.tls_directory(name))
    }

    /// The TLS files of every endpoint of a context.
    pub fn tls(&self, name: &str) -> Result<BTreeMap<String, TlsMaterial>> {
        let directory = self.tls_directory(name);
        let mut all = BTreeMap::new();
        for endpoint in names_in(&directory)? {
            let mut material = TlsMaterial::new();
            for file in names_in(&directory.join(&endpoint))? {
                let path = directory.join(&endpoint).join(&file);
                let bytes = fs::read(&path).map_err(|error| config_error("open", &path, &error))?;
                material.insert(file, bytes);
            }
            all.insert(endpoint, material);
        }
        Ok(all)
    }

    /// The names of the TLS files of every endpoint of a context.
    pub fn tls_names(&self, name: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let directory = self.tls_directory(name);
        names_in(&directory)?
            .into_iter()
            .map(|endpoint| {
                let files = names_in(&directory.join(&endpoint))?;
                Ok((endpoint, files))
            })
            .collect()
    }
}

fn parse_file(path: &Path, text: &[u8]) -> Result<Context> {
    Context::parse(text).map_err(|reason| Error::Config {
        message: format!("parsing {}: {reason}", path.display()),
    })
}

/// The names in a directory, ordered; none when there is no directory.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(config_error("open", directory, &error)),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The directories above are made with the same mode, as Go's `MkdirAll` does.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| config_error("mkdir", path, &error))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(config_error("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Writes beside the file and renames. Crash in between: a `.tmp-*` file that nobody reads.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".tmp-{name}{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&beside)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| {
        // What is reported is why the write failed; the leftover is harmless.
        let _leftover = fs::remove_file(&beside);
        config_error("open", path, &error)
    })
}

pub(crate) fn config_error(operation: &str, path: &Path, error: &io::Error) -> Error {
    Error::Config { message: describe(operation, path, error) }
}

/// Go's text of a failed system call: `open /x: no such file or directory`.
fn describe(operation: &str, path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    let first: String = letters.next().map(|c| c.to_lowercase().collect()).unwrap_or_default();
    format!("{operation} {}: {first}{}", path.display(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        let check = |name: &str, ok: bool| assert_eq!(check_name(name).is_ok(), ok, "{name}");
        check("ab", true);
        check("a..b", true);
        check("9+_-", true);
        check("a", false);
        check("", false);
        check("default", false);
        check("a/b", false);
        check("-a", false);
        check("é1", false);
    }

    #[test]
    fn contexts_come_back_as_they_were_stored() {
        let directory = tempfile::tempdir().unwrap();
        let store = ContextStore::new(directory.path());
        let mut context = Context::parse(
            br#"{"Name":"lab","Metadata":{"Other":1},"Endpoints":{"kubernetes":{"A":{"b":[1]}}}}"#,
        )
        .unwrap();
        context.set_description("<x>");
        context.set_docker(&ContextEndpoint { host: "tcp://h:1".into(), skip_tls_verify: true });
        let material = TlsMaterial::from([("ca.pem".to_owned(), b"CA".to_vec())]);
        store.create(&context, &[("docker".to_owned(), material.clone())].into()).unwrap();
        assert_eq!(store.load("lab").unwrap(), context);
        assert_eq!(store.list().unwrap(), [context.clone()]);
        assert_eq!(store.tls("lab").unwrap()["docker"], material);
        let text = fs::read_to_string(store.meta_directory("lab").join("meta.json")).unwrap();
        assert_eq!(
            text,
            "{\"Name\":\"lab\",\"Metadata\":{\"Description\":\"\\u003cx\\u003e\",\"Other\":1},\
             \"Endpoints\":{\"docker\":{\"Host\":\"tcp://h:1\",\"SkipTLSVerify\":true},\
             \"kubernetes\":{\"A\":{\"b\":[1]}}}}"
        );
        store.replace_docker(&context, &TlsMaterial::new()).unwrap();
        assert!(store.tls("lab").unwrap().is_empty());
        store.remove("lab").unwrap();
        store.remove("lab").unwrap();
        assert!(store.load("lab").unwrap_err().to_string().contains("context not found: open "));
    }

    #[test]
    fn a_broken_context_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = ContextStore::new(directory.path());
        fs::create_dir_all(store.meta_directory("x1")).unwrap();
        fs::write(store.meta_directory("x1").join("meta.json"), "{").unwrap();
        let text = store.list().unwrap_err().to_string();
        assert!(text.starts_with("failed to read metadata: parsing "), "{text}");
        assert!(text.ends_with("meta.json: unexpected end of JSON input"), "{text}");
    }
}
