//! `docker version`.

use api_types::system::Version;
use client::{Error, Request};
use serde::Serialize;

use crate::app::{App, DOCKER_VERSION};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::template::{Template, from_json};

/// Docker's exit code for a template that does not parse.
const BAD_TEMPLATE: u8 = 64;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Client {
    version: String,
    api_version: String,
    #[serde(rename = "DefaultAPIVersion")]
    default_api_version: String,
    git_commit: String,
    go_version: String,
    os: String,
    arch: String,
    build_time: String,
    context: String,
}

/// `docker version`; without a daemon, what we know of ourselves and its error.
pub(crate) async fn version(app: &App, flags: &Parsed) -> Outcome {
    let format = match flags.text("format") {
        "json" => "{{json .}}",
        format => format,
    };
    let template = match format {
        "" => None,
        text => Some(Template::parse(text).map_err(|error| {
            Failure::with_code(format!("template parsing error: {error}"), BAD_TEMPLATE)
        })?),
    };
    let server = app.client.get_bytes(Request::get("/version")).await;
    let client = client_version(app);
    let text = match template {
        None => plain(&client, server.as_deref().ok())?,
        Some(template) => {
            let own =
                serde_json::to_string(&client).map_err(|error| Failure::new(error.to_string()))?;
            let daemon = match &server {
                Ok(json) => String::from_utf8_lossy(json).into_owned(),
                Err(_unreachable) => "null".to_owned(),
            };
            let both = format!("{{\"Client\":{own},\"Server\":{}}}", daemon.trim());
            let value = from_json(both.as_bytes(), "version")
                .map_err(|source| Failure::Client(Error::Decode { source }))?;
            match template.render(&value) {
                Ok(text) => text + "\n",
                Err(error) => {
                    output::print("\n")?;
                    return Err(named(&error.to_string()));
                }
            }
        }
    };
    output::print(&text)?;
    server.map(|_json| 0).map_err(Failure::Client)
}

/// Docker's template has a name here.
fn named(error: &str) -> Failure {
    let text = error.replacen("template: :", "template: version:", 1);
    Failure::new(text.replacen("executing \"\"", "executing \"version\"", 1))
}

fn client_version(app: &App) -> Client {
    Client {
        version: DOCKER_VERSION.to_owned(),
        api_version: app.client.version().to_string(),
        default_api_version: client::Version::NEWEST.to_string(),
        git_commit: format!("boxship-{}", env!("CARGO_PKG_VERSION")),
        go_version: String::new(),
        os: std::env::consts::OS.to_owned(),
        arch: architecture().to_owned(),
        build_time: String::new(),
        context: app.context_name(),
    }
}

/// Go's name for this architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn plain(client: &Client, server: Option<&[u8]>) -> Outcome<String> {
    let mut out = String::from("Client:\n");
    let mut row = |indent: &str, width: usize, name: &str, value: &str| {
        out.push_str(&format!("{indent}{:<width$}{value}\n", format!("{name}:")));
    };
    row(" ", 19, "Version", &client.version);
    let api = match client.api_version == client.default_api_version {
        true => client.api_version.clone(),
        false => format!("{} (downgraded from {})", client.api_version, client.default_api_version),
    };
    row(" ", 19, "API version", &api);
    if !client.go_version.is_empty() {
        row(" ", 19, "Go version", &client.go_version);
    }
    row(" ", 19, "Git commit", &client.git_commit);
    if !client.build_time.is_empty() {
        row(" ", 19, "Built", &client.build_time);
    }
    row(" ", 19, "OS/Arch", &format!("{}/{}", client.os, client.arch));
    row(" ", 19, "Context", &client.context);
    let Some(server) = server else { return Ok(out) };
    let server: Version = serde_json::from_slice(server)
        .map_err(|source| Failure::Client(Error::Decode { source }))?;
    out.push_str(&server_text(&server));
    Ok(out)
}

fn server_text(server: &Version) -> String {
    let platform = &server.platform.name;
    let mut out = match platform.as_str() {
        "" => "\nServer:\n".to_owned(),
        name => format!("\nServer: {name}\n"),
    };
    for component in &server.components {
        let mut row = |name: &str, value: &str| {
            out.push_str(&format!("  {:<18}{value}\n", format!("{name}:")));
        };
        let detail = |name: &str| component.details.get(name).map_or("", String::as_str);
        if component.name != "Engine" {
            row("Version", &component.version);
            for (name, value) in &component.details {
                row(name, value);
            }
        } else {
            row("Version", &component.version);
            let minimum = detail("MinAPIVersion");
            row("API version", &format!("{} (minimum version {minimum})", detail("ApiVersion")));
            row("Go version", detail("GoVersion"));
            row("Git commit", detail("GitCommit"));
            row("Built", &ansi_c(detail("BuildTime")));
            row("OS/Arch", &format!("{}/{}", detail("Os"), detail("Arch")));
            row("Experimental", detail("Experimental"));
        }
        let at = out.rfind("  Version:").unwrap_or(out.len());
        out.insert_str(at, &format!(" {}:\n", component.name));
    }
    out
}

/// `Tue Sep 15 11:02:57 2026`; what is no RFC 3339 stays.
fn ansi_c(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(
        |_malformed| time.to_owned(),
        |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_listed_one_by_one() {
        let server: Version = serde_json::from_str(
            r#"{"Components":[{"Name":"Engine","Version":"1","Details":{"ApiVersion":"1.51",
            "MinAPIVersion":"1.24","Os":"linux","Arch":"amd64"}},
            {"Name":"runc","Version":"2","Details":{"GitCommit":"x"}}]}"#,
        )
        .unwrap();
        let text = server_text(&server);
        assert!(text.starts_with("\nServer:\n Engine:\n  Version:          1\n"), "{text}");
        assert!(text.contains("  API version:      1.51 (minimum version 1.24)\n"));
        assert!(text.ends_with(" runc:\n  Version:          2\n  GitCommit:        x\n"), "{text}");
    }
}
