//! Where the daemon is: flags, environment, contexts, default; in docker's order.
//!
//! `-H` wins over `--context`, which wins over `DOCKER_HOST`, then `DOCKER_CONTEXT`, then
//! `currentContext` of `config.json`. Contexts are only read here:
//!
//! ```text
//! <config>/config.json                                   {"currentContext": "name"}
//! <config>/contexts/meta/<sha256 of name>/meta.json      {"Name", "Endpoints": {"docker": ..}}
//! <config>/contexts/tls/<sha256 of name>/docker/{ca,cert,key}.pem
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::Digest as _;

use crate::{Error, Result, Version};

pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// A daemon's address, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix { path: PathBuf, address: String },
    Tcp { authority: String, address: String, tls: Option<TlsFiles> },
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
    #[serde(rename = "HttpHeaders")]
    pub http_headers: BTreeMap<String, String>,
    pub proxies: BTreeMap<String, Proxy>,
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
                return Err(Error::Config { message: format!("{}: {error}", path.display()) });
            }
        };
        serde_json::from_slice(&text)
            .map_err(|error| Error::Config { message: format!("{}: {error}", path.display()) })
    }
}

/// One context, as stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Context {
    pub name: String,
    pub metadata: ContextMetadata,
    pub endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContextMetadata {
    pub description: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContextEndpoint {
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
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
        "default" => {
            let host = flags.hosts.first().or(environment.docker_host.as_ref());
            let host = host.map_or(DEFAULT_HOST, String::as_str);
            endpoint(host, tls_from_flags(flags, environment))
        }
        name => context_endpoint(&environment.config_dir(), name).map_err(|error| Error::Config {
            message: format!("unable to resolve docker endpoint: {error}"),
        }),
    }
}

fn tls_from_flags(flags: &Flags, environment: &Environment) -> Option<TlsFiles> {
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
    let both = (!flags.tls_cert.is_empty() && !flags.tls_key.is_empty())
        || (cert.exists() && key.exists());
    Some(TlsFiles {
        verify,
        ca: file(&flags.tls_ca, "ca.pem"),
        cert: both.then_some(cert),
        key: both.then_some(key),
    })
}

fn context_endpoint(directory: &Path, name: &str) -> Result<Endpoint> {
    let context = load_context(directory, name)?;
    let docker = context.endpoints.get("docker").cloned().unwrap_or_default();
    let tls = directory.join("contexts/tls").join(context_id(name)).join("docker");
    let file = |name: &str| Some(tls.join(name)).filter(|path| path.exists());
    let files = tls.is_dir().then(|| TlsFiles {
        verify: !docker.skip_tls_verify,
        ca: tls.join("ca.pem"),
        cert: file("cert.pem"),
        key: file("key.pem"),
    });
    endpoint(if docker.host.is_empty() { DEFAULT_HOST } else { &docker.host }, files)
}

/// Reads one context's record.
pub fn load_context(directory: &Path, name: &str) -> Result<Context> {
    let path = directory.join("contexts/meta").join(context_id(name)).join("meta.json");
    let not_found = |_missing| Error::Config {
        message: format!(
            "context \"{name}\": context not found: open {}: no such file or directory",
            path.display()
        ),
    };
    let text = std::fs::read(&path).map_err(not_found)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Config { message: format!("{}: {error}", path.display()) })
}

/// Reads every context that can be read, ordered by name.
pub fn list_contexts(directory: &Path) -> Vec<Context> {
    let Ok(entries) = std::fs::read_dir(directory.join("contexts/meta")) else { return Vec::new() };
    let mut contexts: Vec<Context> = entries
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("meta.json")).ok())
        .filter_map(|text| serde_json::from_slice(&text).ok())
        .collect();
    contexts.sort_by(|a, b| a.name.cmp(&b.name));
    contexts
}

/// The name of a context's directories.
pub fn context_id(name: &str) -> String {
    spec::Digest::from_bytes(sha2::Sha256::digest(name.as_bytes()).into()).hex()
}

/// Checks an address and fills in docker's default ports.
pub fn endpoint(host: &str, tls: Option<TlsFiles>) -> Result<Endpoint> {
    let invalid = || Error::Config {
        message: format!("unable to resolve docker endpoint: invalid bind address format: {host}"),
    };
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
            let authority = match authority {
                "" => format!("localhost:{port}"),
                _ if has_port(authority) => authority.to_owned(),
                _ => format!("{authority}:{port}"),
            };
            Ok(Endpoint::Tcp { address: format!("tcp://{authority}"), authority, tls })
        }
        "ssh" => Err(Error::Config {
            message: format!(
                "unable to resolve docker endpoint: {host}: ssh:// is not supported; forward the \
                 socket with 'ssh -L /tmp/docker.sock:/var/run/docker.sock HOST' and use \
                 unix:///tmp/docker.sock"
            ),
        }),
        _ => Err(invalid()),
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
        }
    }

    /// What requests name in `Host`; a socket has no name, so docker's client made one up.
    pub(crate) fn http_host(&self) -> &str {
        match self {
            Self::Unix { .. } => "api.moby.localhost",
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
        check("tcp://:7", "tcp://:7");
        check("ssh://u@h", "unable to resolve docker endpoint: ssh://u@h: ssh:// is not supported");
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
        let directory =
            std::env::temp_dir().join(format!("boxship-contexts-{}", std::process::id()));
        let meta = directory.join("contexts/meta").join(context_id("lab"));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://lab:1"}}}"#,
        )
        .unwrap();
        let found = context_endpoint(&directory, "lab");
        let missing = context_endpoint(&directory, "nope");
        let listed = list_contexts(&directory).len();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found.unwrap().address(), "tcp://lab:1");
        assert!(missing.unwrap_err().to_string().contains("context not found"));
        assert_eq!(listed, 1);
    }
}
