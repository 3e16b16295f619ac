//! What `--docker host=...,ca=...` says.

use std::collections::BTreeMap;

use client::contexts::{ContextEndpoint, TlsMaterial};

use super::{default_context, store};
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::options::open_error;

const KEYS: &[&str] = &["ca", "cert", "from", "host", "key", "skip-tls-verify"];

/// The endpoint and its TLS files. `from` copies an endpoint without its TLS files, as docker does.
pub(super) fn parse(
    app: &App,
    wanted: &BTreeMap<String, String>,
) -> Outcome<(ContextEndpoint, TlsMaterial)> {
    read(app, wanted).map_err(|failure| {
        Failure::new(format!("unable to create docker endpoint config: {failure}"))
    })
}

fn read(app: &App, wanted: &BTreeMap<String, String>) -> Outcome<(ContextEndpoint, TlsMaterial)> {
    let unknown: Vec<String> = wanted
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("unrecognized config key: {key}"))
        .collect();
    if !unknown.is_empty() {
        return Err(Failure::new(unknown.join("\n")));
    }
    if let Some(name) = wanted.get("from") {
        return Ok((copy(app, name)?, TlsMaterial::new()));
    }
    let material = read_files(wanted)?;
    let skip_tls_verify = match wanted.get("skip-tls-verify") {
        Some(text) => spec::boolean::parse(text).map_err(|reason| {
            let reason = reason.strip_prefix("strconv.ParseBool: ").unwrap_or(&reason);
            format!("skip-tls-verify: {reason}")
        })?,
        None => false,
    };
    let host = wanted.get("host").cloned().unwrap_or_default();
    check_ssh(&host).map_err(|reason| {
        format!("invalid docker endpoint options: ssh host connection is not valid: {reason}")
    })?;
    let part = |name: &str| material.get(name).map(Vec::as_slice);
    client::check_material(part("ca.pem"), part("cert.pem"), part("key.pem"))
        .map_err(|error| format!("invalid docker endpoint options: {error}"))?;
    check_host(&host)
        .map_err(|reason| format!("unable to apply docker endpoint options: {reason}"))?;
    Ok((ContextEndpoint { host, skip_tls_verify }, material))
}

fn copy(app: &App, name: &str) -> Outcome<ContextEndpoint> {
    let context = match name {
        super::DEFAULT => default_context(app)?,
        name => store(app).load(name)?,
    };
    context
        .docker()
        .ok_or_else(|| Failure::new(format!("unable to get endpoint from context {name:?}")))
}

fn read_files(wanted: &BTreeMap<String, String>) -> Outcome<TlsMaterial> {
    let mut material = TlsMaterial::new();
    for (key, file) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
        let Some(path) = wanted.get(key).filter(|path| !path.is_empty()) else { continue };
        let bytes = std::fs::read(path).map_err(|error| open_error(path, &error))?;
        material.insert(file.to_owned(), bytes);
    }
    Ok(material)
}

/// Any scheme will do, as long as something follows it.
fn check_host(host: &str) -> Result<(), String> {
    match host.split_once("://") {
        _ if host.is_empty() => Ok(()),
        Some(("npipe", _)) => Err("protocol not available".to_owned()),
        Some((_scheme, rest)) if !rest.is_empty() => Ok(()),
        _ => Err(format!("unable to parse docker host `{host}`")),
    }
}

fn check_ssh(host: &str) -> Result<(), String> {
    if !host.starts_with("ssh://") {
        return Ok(());
    }
    client::SshTarget::parse(host).map(|_target| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_need_a_scheme_and_something_behind_it() {
        let check = |host: &str, expect: Result<(), &str>| {
            assert_eq!(check_host(host), expect.map_err(str::to_owned), "{host}");
        };
        check("", Ok(()));
        check("foo://x", Ok(()));
        check("foo", Err("unable to parse docker host `foo`"));
        check("tcp://", Err("unable to parse docker host `tcp://`"));
        check("npipe:////x", Err("protocol not available"));
    }

    #[test]
    fn ssh_addresses_have_no_secrets() {
        let check = |host: &str, expect: Result<(), &str>| {
            assert_eq!(check_ssh(host), expect.map_err(str::to_owned), "{host}");
        };
        check("ssh://u@h:22/p", Ok(()));
        check("ssh://", Err("invalid SSH URL: hostname is empty"));
        check("ssh://u:p@h", Err("invalid SSH URL: plain-text password is not supported"));
        check("ssh://h?x=1", Err("invalid SSH URL: query parameters are not allowed: \"x=1\""));
    }
}
