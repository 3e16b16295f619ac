//! Where the daemon is: flags, environment, contexts, default; in docker's order.
//!
//! `-H` wins over `--context`, which wins over `DOCKER_HOST`, then `DOCKER_CONTEXT`, then
//! `currentContext` of `config.json`. Contexts themselves are in [`crate::contexts`].

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::contexts::{ContextStore, config_error, write_file};
use crate::ssh::SshTarget;
use crate::{Error, Result, Version};

pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The default when TLS is asked for.
const DEFAULT_TLS_HOST: &str = "tcp://localhost:2376";

/// A daemon's address, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix { path: PathBuf, address: String },
    Tcp { authority: String, address: String, tls: Option<TlsFiles> },
    Ssh(SshTarget),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub verify: bool,
    pub ca: PathBuf,
    /// Certificate and key are used when both exist.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What the global flags said; empty means "not given".
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub hosts: Vec<String>,
    pub context: String,
    pub tls: bool,
    pub tls_verify: bool,
    pub tls_ca: String,
    pub tls_cert: String,
    pub tls_key: String,
}

/// The parts of the environment that matter, read once by the caller.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub home: PathBuf,
    pub docker_config: Option<PathBuf>,
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    pub docker_cert_path: Option<PathBuf>,
    pub docker_tls_verify: bool,
    pub docker_api_version: Option<String>,
}

impl Environment {
    pub fn read() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            home: std::env::home_dir().unwrap_or_default(),
            docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_cert_path: text("DOCKER_CERT_PATH").map(PathBuf::from),
            docker_tls_verify: text("DOCKER_TLS_VERIFY").is_some(),
            docker_api_version: text("DOCKER_API_VERSION"),
        }
    }

    /// The directory of `config.json`.
    pub fn config_dir(&self) -> PathBuf {
        self.docker_config.clone().unwrap_or_else(|| self.home.join(".docker"))
    }

    /// The version the user insists on.
    pub fn pinned_version(&self) -> Option<Version> {
        Version::parse(self.docker_api_version.as_deref()?.trim_start_matches('v'))
    }
}

/// The members of `config.json` that a client needs; the others are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    pub current_context: String,
    pub detach_keys: String,
    pub ps_format: String,
    pub images_format: String,
    pub networks_format: String,
    pub volumes_format: String,
    pub stats_format: String,
    pub auths: BTreeMap<String, AuthEntry>,
    pub creds_store: String,
    pub cred_helpers: BTreeMap<String, String>,
    #[serde(rename = "HttpHeaders")]
    pub http_headers: BTreeMap<String, String>,
    pub proxies: BTreeMap<String, Proxy>,
}

/// What `config.json` holds about one registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AuthEntry {
    /// Base64 of `user:password`.
    pub auth: String,
    pub username: String,
    pub password: String,
    pub email: String,
    pub identitytoken: String,
    pub registrytoken: String,
}

/// Proxies given to new containers, per daemon address or `default`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub ftp_proxy: String,
    pub all_proxy: String,
}

impl ConfigFile {
    /// Reads `config.json`; a missing file is an empty one.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                let reason = config_error("open", &path, &error);
                return Err(Error::Config {
                    message: format!("Error loading config file: {reason}"),
                });
            }
        };
        let unreadable = |reason: String| Error::Config {
            message: format!("Error parsing config file ({}): {reason}", path.display()),
        };
        let file: Self = serde_json::from_slice(&text).map_err(|error| {
            unreadable(if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() })
        })?;
        let auths = file.auths.values().map(|entry| entry.auth.as_str());
        if let Some(auth) = auths.into_iter().find(|auth| crate::decode_base64(auth).is_none()) {
            return Err(unreadable(format!("invalid base64 in auth {auth:?}")));
        }
        Ok(file)
    }
}

/// The members docker writes, in its order; others follow by name.
const MEMBER_ORDER: &[&str] = &[
    "auths",
    "HttpHeaders",
    "psFormat",
    "imagesFormat",
    "networksFormat",
    "pluginsFormat",
    "volumesFormat",
    "statsFormat",
    "detachKeys",
    "credsStore",
    "credHelpers",
    "serviceInspectFormat",
    "servicesFormat",
    "tasksFormat",
    "secretFormat",
    "configFormat",
    "nodesFormat",
    "pruneFilters",
    "proxies",
    "currentContext",
    "cliPluginsExtraDirs",
    "plugins",
    "aliases",
    "features",
];

/// The members of `config.json`, all of them.
pub type Members = serde_json::Map<String, serde_json::Value>;

/// Reads `config.json`, changes it, and writes it as docker does. Members nobody here knows are
/// kept; a file that cannot be read is left alone.
pub fn edit(directory: &Path, change: impl FnOnce(&mut Members)) -> Result<()> {
    // Where the file is a link, what it points to is replaced.
    let path = directory.join("config.json");
    let path = path.canonicalize().unwrap_or(path);
    let (mut members, mode) = match std::fs::read(&path) {
        Ok(text) => (parse_members(&path, &text)?, mode_of(&path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Members::new(), 0o600),
        Err(error) => return Err(config_error("open", &path, &error)),
    };
    change(&mut members);
    members.entry("auths").or_insert_with(|| Members::new().into());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| config_error("mkdir", directory, &error))?;
    write_file(&path, render(&members).as_bytes(), mode)
}

fn parse_members(path: &Path, text: &[u8]) -> Result<Members> {
    serde_json::from_slice(text)
        .map_err(|error| Error::Config { message: format!("{}: {error}", path.display()) })
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0o600, |status| status.permissions().mode() & 0o777)
}

fn render(members: &Members) -> String {
    let mut names: Vec<&String> = members.keys().collect();
    let place = |name: &str| MEMBER_ORDER.iter().position(|known| *known == name);
    names.sort_by_key(|name| (place(name).unwrap_or(MEMBER_ORDER.len()), *name));
    let entries: Vec<String> = names
        .iter()
        .map(|name| {
            let text = indented(&members[name.as_str()]).replace('\n', "\n\t");
            format!("\t{}: {text}", serde_json::Value::from(name.as_str()))
        })
        .collect();
    escape_html(&format!("{{\n{}\n}}", entries.join(",\n")))
}

fn indented(value: &serde_json::Value) -> String {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("a JSON value is JSON");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Sets or (when empty) removes `currentContext`.
pub fn set_current_context(members: &mut Members, name: &str) {
    if name.is_empty() {
        members.remove("currentContext");
    } else {
        members.insert("currentContext".to_owned(), name.into());
    }
}

/// Writes `<`, `>`, `&` and two line separators in JSON as Go does; they are found in texts only.
pub(crate) fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Returns the name of the context in force, `default` when the host decides.
pub fn context_name(flags: &Flags, environment: &Environment, file: &ConfigFile) -> String {
    let chosen = if !flags.hosts.is_empty() {
        ""
    } else if !flags.context.is_empty() {
        &flags.context
    } else if environment.docker_host.is_some() {
        ""
    } else {
        environment.docker_context.as_deref().unwrap_or(&file.current_context)
    };
    if chosen.is_empty() { "default".to_owned() } else { chosen.to_owned() }
}

/// Decides the endpoint.
pub fn resolve(flags: &Flags, environment: &Environment, file: &ConfigFile) -> Result<Endpoint> {
    if !flags.hosts.is_empty() && !flags.context.is_empty() {
        return Err(Error::Config {
            message: "conflicting options: cannot specify both --host and --context".to_owned(),
        });
    }
    if flags.hosts.len() > 1 {
        return Err(Error::Config {
            message: "unable to resolve docker endpoint: Specify only one -H".to_owned(),
        });
    }
    match context_name(flags, environment, file).as_str() {
        "default" => default_endpoint(flags, environment),
        name => {
            context_endpoint(&environment.config_dir(), name).map_err(|error| unresolved(&error))
        }
    }
}

/// The endpoint of the context `default`: what flags and environment say.
pub fn default_endpoint(flags: &Flags, environment: &Environment) -> Result<Endpoint> {
    let host = flags.hosts.first().or(environment.docker_host.as_ref());
    let tls = tls_from_flags(flags, environment);
    if let Some(files) = &tls {
        files.check()?;
    }
    let default = if tls.is_some() { DEFAULT_TLS_HOST } else { DEFAULT_HOST };
    endpoint(host.map_or(default, String::as_str), tls)
}

/// The TLS files that flags and environment name; `None` when TLS is off.
pub fn tls_from_flags(flags: &Flags, environment: &Environment) -> Option<TlsFiles> {
    let verify = flags.tls_verify || environment.docker_tls_verify;
    if !flags.tls && !verify {
        return None;
    }
    let directory =
        environment.docker_cert_path.clone().unwrap_or_else(|| environment.config_dir());
    let file = |flag: &str, name: &str| {
        if flag.is_empty() { directory.join(name) } else { PathBuf::from(flag) }
    };
    let (cert, key) = (file(&flags.tls_cert, "cert.pem"), file(&flags.tls_key, "key.pem"));
    // Those that nobody named may be absent.
    let used = |flag: &str, path: PathBuf| (!flag.is_empty() || path.exists()).then_some(path);
    Some(TlsFiles {
        verify,
        ca: file(&flags.tls_ca, "ca.pem"),
        cert: used(&flags.tls_cert, cert),
        key: used(&flags.tls_key, key),
    })
}

impl TlsFiles {
    /// Reads the files, whatever the address turns out to be: docker does, and says so first.
    fn check(&self) -> Result<()> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| unresolved(&config_error("open", path, &error)))
        };
        let optional = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let (ca, cert, key) = (read(&self.ca)?, optional(&self.cert)?, optional(&self.key)?);
        crate::check_material(Some(&ca), cert.as_deref(), key.as_deref())
    }
}

fn unresolved(reason: &dyn std::fmt::Display) -> Error {
    Error::Config { message: format!("unable to resolve docker endpoint: {reason}") }
}

fn context_endpoint(directory: &Path, name: &str) -> Result<Endpoint> {
    let store = ContextStore::new(directory);
    let docker = store.load(name)?.docker().unwrap_or_default();
    let tls = store.tls_directory(name).join("docker");
    let file = |name: &str| Some(tls.join(name)).filter(|path| path.exists());
    let files = tls.is_dir().then(|| TlsFiles {
        verify: !docker.skip_tls_verify,
        ca: tls.join("ca.pem"),
        cert: file("cert.pem"),
        key: file("key.pem"),
    });
    endpoint(if docker.host.is_empty() { DEFAULT_HOST } else { &docker.host }, files)
}

/// Checks an address and fills in docker's default ports.
pub fn endpoint(host: &str, tls: Option<TlsFiles>) -> Result<Endpoint> {
    let invalid = || unresolved(&format!("invalid bind address format: {host}"));
    let (scheme, rest) = match host.split_once("://") {
        Some(parts) => parts,
        None => ("tcp", host),
    };
    match scheme {
        "unix" => {
            let path = if rest.is_empty() { "/var/run/docker.sock" } else { rest };
            Ok(Endpoint::Unix { path: path.into(), address: format!("unix://{path}") })
        }
        "tcp" | "http" | "https" => {
            let authority = rest.split('/').next().unwrap_or_default();
            let tls = if scheme == "http" { None } else { tls };
            let port = if tls.is_some() { 2376 } else { 2375 };
            check_authority(authority)
                .map_err(|reason| unresolved(&format!("parse \"{scheme}://{rest}\": {reason}")))?;
            let authority = match authority {
                "" => format!("localhost:{port}"),
                _ if authority.parse::<Ipv6Addr>().is_ok() => format!("[{authority}]:{port}"),
                _ if authority.starts_with(':') => format!("localhost{authority}"),
                _ if has_port(authority) => authority.to_owned(),
                _ => format!("{authority}:{port}"),
            };
            Ok(Endpoint::Tcp { address: format!("tcp://{authority}"), authority, tls })
        }
        "ssh" => match SshTarget::parse(host) {
            Ok(target) => Ok(Endpoint::Ssh(target)),
            Err(reason) => Err(Error::Config {
                message: format!("ssh host connection is not valid: {reason}"),
            }),
        },
        _ => Err(invalid()),
    }
}

/// What Go says of an address that is none.
fn check_authority(authority: &str) -> std::result::Result<(), String> {
    if let Some(space) = authority.chars().find(|c| c.is_whitespace()) {
        return Err(format!("invalid character {:?} in host name", space.to_string()));
    }
    let tail = match authority.strip_prefix('[') {
        Some(rest) => {
            let (_address, tail) = rest.split_once(']').ok_or("missing ']' in host")?;
            tail
        }
        None => authority.rfind(':').map_or("", |colon| &authority[colon..]),
    };
    match tail.strip_prefix(':') {
        None if tail.is_empty() => Ok(()),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(format!("invalid port {tail:?} after host")),
    }
}

fn has_port(authority: &str) -> bool {
    let tail = authority.rsplit_once(']').map_or(authority, |(_address, tail)| tail);
    tail.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

impl Endpoint {
    /// The address as docker prints it.
    pub fn address(&self) -> &str {
        match self {
            Self::Unix { address, .. } | Self::Tcp { address, .. } => address,
            Self::Ssh(target) => &target.address,
        }
    }

    /// What requests name in `Host`; a socket has no name, so docker's client made one up.
    pub(crate) fn http_host(&self) -> &str {
        match self {
            Self::Unix { .. } | Self::Ssh(_) => "api.moby.localhost",
            Self::Tcp { authority, .. } => authority,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expect: &str) {
        let got = match endpoint(host, None) {
            Ok(endpoint) => endpoint.address().to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(got.starts_with(expect), "{host}: {got}");
    }

    #[test]
    fn addresses_follow_dockers_forms() {
        check("unix:///run/x.sock", "unix:///run/x.sock");
        check("unix://", "unix:///var/run/docker.sock");
        check("tcp://h", "tcp://h:2375");
        check("tcp://[::1]", "tcp://[::1]:2375");
        check("10.0.0.1:99", "tcp://10.0.0.1:99");
        check("tcp://:7", "tcp://localhost:7");
        check("tcp://::1", "tcp://[::1]:2375");
        check("tcp://[::1]:7", "tcp://[::1]:7");
        let bad = |host: &str, reason: &str| {
            check(host, &format!("unable to resolve docker endpoint: parse {host:?}: {reason}"));
        };
        bad("tcp://x:y:z", "invalid port \":z\" after host");
        bad("tcp://1.2.3.4:-1", "invalid port \":-1\" after host");
        bad("tcp://[::1:80", "missing ']' in host");
        bad("tcp://[::1]x", "invalid port \"x\" after host");
        bad("tcp://a b:1", "invalid character \" \" in host name");
        check("ssh://u@h", "ssh://u@h");
        check("ssh://", "ssh host connection is not valid: invalid SSH URL: hostname is empty");
        check("foo://x", "unable to resolve docker endpoint: invalid bind address format: foo://x");
    }

    #[test]
    fn the_host_header_names_the_daemon() {
        let host = |address: &str| endpoint(address, None).unwrap().http_host().to_owned();
        assert_eq!(host("unix:///run/x.sock"), "api.moby.localhost");
        assert_eq!(host("tcp://10.0.0.1"), "10.0.0.1:2375");
    }

    #[test]
    fn the_nearest_setting_wins() {
        let mut flags = Flags::default();
        let mut environment = Environment::default();
        let mut file = ConfigFile::default();
        let name = |flags: &Flags, environment: &Environment, file: &ConfigFile| {
            context_name(flags, environment, file)
        };
        assert_eq!(name(&flags, &environment, &file), "default");
        file.current_context = "file".to_owned();
        assert_eq!(name(&flags, &environment, &file), "file");
        environment.docker_context = Some("env".to_owned());
        assert_eq!(name(&flags, &environment, &file), "env");
        environment.docker_host = Some("unix:///x".to_owned());
        assert_eq!(name(&flags, &environment, &file), "default");
        flags.context = "flag".to_owned();
        assert_eq!(name(&flags, &environment, &file), "flag");
        flags.hosts = vec!["unix:///y".to_owned()];
        assert!(resolve(&flags, &environment, &file).is_err());
    }

    #[test]
    fn contexts_are_read_from_their_hashed_directory() {
        let directory = tempfile::tempdir().unwrap();
        let meta = ContextStore::new(directory.path()).meta_directory("lab");
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://lab:1"}}}"#,
        )
        .unwrap();
        let found = context_endpoint(directory.path(), "lab");
        let missing = context_endpoint(directory.path(), "nope");
        assert_eq!(found.unwrap().address(), "tcp://lab:1");
        assert!(missing.unwrap_err().to_string().contains("context not found"));
    }

    #[test]
    fn edits_keep_what_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(directory.path().join("config.json")).unwrap();
        edit(directory.path(), |file| set_current_context(file, "lab")).unwrap();
        assert_eq!(read(), "{\n\t\"auths\": {},\n\t\"currentContext\": \"lab\"\n}");
        std::fs::write(
            directory.path().join("config.json"),
            r#"{"zz":{"b":[]},"currentContext":"lab","psFormat":"<x>"}"#,
        )
        .unwrap();
        edit(directory.path(), |file| set_current_context(file, "")).unwrap();
        assert_eq!(
            read(),
            "{\n\t\"auths\": {},\n\t\"psFormat\": \"\\u003cx\\u003e\",\n\t\"zz\": {\n\t\t\"b\": []\n\t}\n}"
        );
        std::fs::write(directory.path().join("config.json"), "{").unwrap();
        assert!(edit(directory.path(), |file| set_current_context(file, "")).is_err());
        assert_eq!(read(), "{");
    }
}
