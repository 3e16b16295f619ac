//! Credentials of registries: in `auths` of `config.json`, or with a helper program.
//!
//! A helper is `docker-credential-<name>`, named by `credHelpers` for one server or by `credsStore`
//! for all. It gets an action as its argument and the rest on stdin. With a helper, `auths` holds
//! an empty entry for the server. Enter at [`CredentialStore`].

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use crate::config::{self, AuthEntry, ConfigFile};
use crate::{Error, Result, decode_base64};

/// The registry that is meant when none is named.
pub const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// What helpers call the user when the secret is an identity token.
const TOKEN_USER: &str = "<token>";

const NOT_FOUND: &str = "credentials not found in native keychain";

/// Who we are at one registry, as the API takes it.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    #[serde(rename = "serveraddress", skip_serializing_if = "String::is_empty")]
    pub server: String,
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    #[serde(rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    pub registry_token: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of `X-Registry-Auth`.
    pub fn to_header(&self) -> String {
        URL_SAFE.encode(serde_json::to_vec(self).expect("texts are JSON"))
    }

    fn of_entry(entry: &AuthEntry, server: &str) -> Self {
        let pair = decode_base64(&entry.auth).unwrap_or_default();
        let pair = String::from_utf8_lossy(&pair);
        let (username, password) = match pair.split_once(':') {
            Some((username, password)) => (username, password.trim_end_matches('\0')),
            None => (entry.username.as_str(), entry.password.as_str()),
        };
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            email: entry.email.clone(),
            server: server.to_owned(),
            identity_token: entry.identitytoken.clone(),
            registry_token: entry.registrytoken.clone(),
        }
    }

    /// The entry of `auths`, as docker writes it.
    fn to_entry(&self) -> serde_json::Value {
        let pair = format!("{}:{}", self.username, self.password);
        let auth = if pair == ":" { String::new() } else { STANDARD.encode(pair) };
        let members = [
            ("auth", &auth),
            ("email", &self.email),
            ("identitytoken", &self.identity_token),
            ("registrytoken", &self.registry_token),
        ];
        let members = members.into_iter().filter(|(_name, text)| !text.is_empty());
        members
            .map(|(name, text)| (name.to_owned(), serde_json::Value::from(text.as_str())))
            .collect::<config::Members>()
            .into()
    }
}

/// `https://host/v1/` is `host`.
pub fn server_host(address: &str) -> &str {
    let address = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))
        .unwrap_or(address);
    address.split('/').next().unwrap_or_default()
}

/// Where credentials were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// They were there already.
    Unchanged,
    /// In `config.json`, for everyone to read who can read that.
    Plain,
    /// With a helper, or as a token.
    Kept,
}

/// The credentials of one configuration.
#[derive(Debug)]
pub struct CredentialStore<'a> {
    pub directory: &'a Path,
    pub file: &'a ConfigFile,
}

impl CredentialStore<'_> {
    /// The credentials for a server; empty ones when there are none.
    pub fn get(&self, server: &str) -> Result<Credentials> {
        match self.helper(server) {
            Some(helper) => ask(&helper, server),
            None => Ok(self.in_file(server)),
        }
    }

    pub fn store(&self, credentials: &Credentials) -> Result<Stored> {
        let server = &credentials.server;
        let Some(helper) = self.helper(server) else {
            let known = self.file.auths.get(server);
            if known.is_some_and(|entry| Credentials::of_entry(entry, server) == *credentials) {
                return Ok(Stored::Unchanged);
            }
            self.write_entry(server, credentials.to_entry())?;
            let plain = !credentials.password.is_empty();
            return Ok(if plain { Stored::Plain } else { Stored::Kept });
        };
        tell(&helper, credentials)?;
        let rest = Credentials { email: credentials.email.clone(), ..Credentials::default() };
        self.write_entry(server, rest.to_entry())?;
        Ok(Stored::Kept)
    }

    /// Forgets a server; one that is not known is forgotten already.
    pub fn erase(&self, server: &str) -> Result<()> {
        if let Some(helper) = self.helper(server) {
            call(&helper, "erase", server.as_bytes())
                .map_err(|reason| failed("erasing credentials", &reason))?;
        }
        if !self.file.auths.contains_key(server) {
            return Ok(());
        }
        config::edit(self.directory, |members| {
            if let Some(auths) = members.get_mut("auths").and_then(|auths| auths.as_object_mut()) {
                auths.remove(server);
            }
        })
    }

    fn in_file(&self, server: &str) -> Credentials {
        let auths = &self.file.auths;
        let found = auths.get(server).or_else(|| {
            let same = |(address, _): &(&String, &AuthEntry)| server_host(address) == server;
            auths.iter().find(same).map(|(_address, entry)| entry)
        });
        found.map(|entry| Credentials::of_entry(entry, server)).unwrap_or_default()
    }

    /// The program that keeps the credentials of a server; `None` for `config.json`.
    fn helper(&self, server: &str) -> Option<String> {
        let named = self.file.cred_helpers.get(server).unwrap_or(&self.file.creds_store);
        let name = match named.as_str() {
            "" => self.installed_helper()?.to_owned(),
            name => name.to_owned(),
        };
        Some(format!("docker-credential-{name}"))
    }

    /// Docker's choice on Linux, for a configuration that holds no credentials yet.
    fn installed_helper(&self) -> Option<&'static str> {
        let ConfigFile { auths, cred_helpers, .. } = self.file;
        if !auths.is_empty() || !cred_helpers.is_empty() {
            return None;
        }
        let name = if is_installed("pass") { "pass" } else { "secretservice" };
        is_installed(&format!("docker-credential-{name}")).then_some(name)
    }

    fn write_entry(&self, server: &str, entry: serde_json::Value) -> Result<()> {
        let detected = match self.file.creds_store.as_str() {
            "" => self.installed_helper(),
            _named => None,
        };
        config::edit(self.directory, |members| {
            if let Some(name) = detected {
                members.insert("credsStore".to_owned(), name.into());
            }
            let auths = members.entry("auths").or_insert_with(|| config::Members::new().into());
            if let Some(auths) = auths.as_object_mut() {
                auths.insert(server.to_owned(), entry);
            }
        })
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HelperAnswer {
    username: String,
    secret: String,
}

fn ask(helper: &str, server: &str) -> Result<Credentials> {
    let answer = match call(helper, "get", server.as_bytes()) {
        Ok(answer) => answer,
        Err(HelperError { output, .. }) if output == NOT_FOUND => {
            return Ok(Credentials::default());
        }
        Err(reason) => return Err(failed("getting credentials", &reason)),
    };
    let HelperAnswer { username, secret } =
        serde_json::from_slice(&answer).map_err(|source| Error::Config {
            message: format!("error getting credentials: {helper} answers no JSON: {source}"),
        })?;
    let server = server.to_owned();
    Ok(if username == TOKEN_USER {
        Credentials { identity_token: secret, server, ..Credentials::default() }
    } else {
        Credentials { username, password: secret, server, ..Credentials::default() }
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HelperEntry<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

fn tell(helper: &str, credentials: &Credentials) -> Result<()> {
    let (username, secret) = match credentials.identity_token.as_str() {
        "" => (credentials.username.as_str(), credentials.password.as_str()),
        token => (TOKEN_USER, token),
    };
    let entry = HelperEntry { server: &credentials.server, username, secret };
    let text = serde_json::to_string(&entry).expect("texts are JSON");
    call(helper, "store", (config::escape_html(&text) + "\n").as_bytes())
        .map_err(|reason| failed("storing credentials", &reason))?;
    Ok(())
}

struct HelperError {
    reason: String,
    output: String,
}

fn failed(attempt: &str, error: &HelperError) -> Error {
    let HelperError { reason, output } = error;
    Error::Config { message: format!("error {attempt} - err: {reason}, out: `{output}`") }
}

/// Runs a helper and returns what it printed.
fn call(helper: &str, action: &str, input: &[u8]) -> std::result::Result<Vec<u8>, HelperError> {
    let not_run = |error: io::Error| HelperError {
        reason: match error.kind() {
            io::ErrorKind::NotFound => {
                format!("exec: {helper:?}: executable file not found in $PATH")
            }
            _ => format!("{helper}: {error}"),
        },
        output: String::new(),
    };
    let mut child = Command::new(helper)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    let mut stdin = child.stdin.take().expect("it was piped");
    // A helper that does not read has its reasons, and says them below.
    let _unread = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().map_err(not_run)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let reason = match output.status.code() {
        Some(code) => format!("exit status {code}"),
        None => output.status.to_string(),
    };
    let output = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(HelperError { reason, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host() {
        assert_eq!(server_host("https://reg.io/v1/"), "reg.io");
        assert_eq!(server_host("http://reg.io:5000"), "reg.io:5000");
        assert_eq!(server_host("reg.io/foo"), "reg.io");
    }

    #[test]
    fn credentials_come_back_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let load = || ConfigFile::load(directory.path()).unwrap();
        let credentials = Credentials {
            username: "me".into(),
            password: "a:b".into(),
            server: "reg.io".into(),
            ..Credentials::default()
        };
        let mut file = load();
        // A helper that is installed here is none of the test's.
        file.auths.insert("other".into(), AuthEntry::default());
        let store = CredentialStore { directory: directory.path(), file: &file };
        assert_eq!(store.store(&credentials).unwrap(), Stored::Plain);
        let file = load();
        let store = CredentialStore { directory: directory.path(), file: &file };
        assert_eq!(store.get("reg.io").unwrap(), credentials);
        assert_eq!(store.get("nope.io").unwrap(), Credentials::default());
        assert_eq!(store.store(&credentials).unwrap(), Stored::Unchanged);
        store.erase("reg.io").unwrap();
        assert!(load().auths.is_empty());
        assert_eq!(
            credentials.to_header(),
            URL_SAFE.encode(r#"{"username":"me","password":"a:b","serveraddress":"reg.io"}"#)
        );
        assert!(!format!("{credentials:?}").contains("a:b"));
    }
}
