//! Contexts: `docker context ...`, in docker's files.
//!
//! Listing and showing is here, changing in [`change`], archives in [`transfer`], and what
//! `--docker` says in [`endpoint`]. The files themselves are [`client::contexts`]'s.

mod change;
mod endpoint;
mod transfer;
mod zip;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use client::config;
use client::contexts::{Context, ContextEndpoint, ContextStore, TlsMaterial};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::open_error;
use crate::output::{self, Column, Listing, header_default};
use crate::template::Value;

pub(crate) use change::{create, rm, update, use_context};
pub(crate) use transfer::{export, import};

const DEFAULT: &str = "default";
const DEFAULT_DESCRIPTION: &str = "Current DOCKER_HOST based configuration";

fn store(app: &App) -> ContextStore {
    ContextStore::new(&app.environment.config_dir())
}

/// The context that is no file: what flags and environment say.
fn default_context(app: &App) -> Outcome<Context> {
    let host = default_host(app)?;
    let skip_tls_verify = default_tls(app).is_some_and(|files| !files.verify);
    let mut context = Context { name: DEFAULT.to_owned(), ..Context::default() };
    context.set_docker(&ContextEndpoint { host, skip_tls_verify });
    Ok(context)
}

fn default_host(app: &App) -> Outcome<String> {
    if let [_, _, ..] = app.global.hosts.as_slice() {
        return Err(Failure::new("Specify only one -H"));
    }
    match config::default_endpoint(&app.global, &app.environment) {
        Ok(endpoint) => Ok(endpoint.address().to_owned()),
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("unable to resolve docker endpoint: ").unwrap_or(&text);
            Err(Failure::new(text))
        }
    }
}

fn default_tls(app: &App) -> Option<client::TlsFiles> {
    config::tls_from_flags(&app.global, &app.environment)
}

fn default_material(app: &App) -> Outcome<BTreeMap<String, TlsMaterial>> {
    let Some(files) = default_tls(app) else { return Ok(BTreeMap::new()) };
    let named = [("ca.pem", Some(files.ca)), ("cert.pem", files.cert), ("key.pem", files.key)];
    let mut material = TlsMaterial::new();
    for (name, path) in named {
        let Some(path) = path else { continue };
        let bytes = std::fs::read(&path)
            .map_err(|error| Failure::new(open_error(&path.display().to_string(), &error)))?;
        material.insert(name.to_owned(), bytes);
    }
    Ok([("docker".to_owned(), material)].into())
}

/// A context and its TLS files, `default` included.
fn load(app: &App, name: &str) -> Outcome<(Context, BTreeMap<String, TlsMaterial>)> {
    if name == DEFAULT {
        return Ok((default_context(app)?, default_material(app)?));
    }
    let store = store(app);
    Ok((store.load(name)?, store.tls(name)?))
}

/// Numbers in names count as numbers: `v9` comes before `v10`, and `x1` before `x01`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let ([first_a, ..], [first_b, ..]) = (rest_a, rest_b) {
        let ordering = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (digits_a, digits_b) = (split_digits(&mut rest_a), split_digits(&mut rest_b));
            let (value_a, value_b) = (without_zeros(digits_a), without_zeros(digits_b));
            let values = value_a.len().cmp(&value_b.len()).then_with(|| value_a.cmp(value_b));
            values.then_with(|| digits_a.len().cmp(&digits_b.len()))
        } else {
            (rest_a, rest_b) = (&rest_a[1..], &rest_b[1..]);
            first_a.cmp(first_b)
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    rest_a.len().cmp(&rest_b.len())
}

fn split_digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    digits
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}

#[derive(Debug, Default)]
struct ContextRow {
    name: String,
    description: String,
    host: String,
    current: bool,
    error: String,
}

static CONTEXTS: Listing<ContextRow> = Listing {
    type_name: "*formatter.clientContextContext",
    columns: &[
        Column { name: "Current", header: "", value: |row| Value::Bool(row.current) },
        Column {
            name: "Description",
            header: "DESCRIPTION",
            value: |row| Value::text(output::ellipsis(&row.description, 60)),
        },
        Column {
            name: "DockerEndpoint",
            header: "DOCKER ENDPOINT",
            value: |row| Value::text(row.host.as_str()),
        },
        Column {
            name: "Error",
            header: "ERROR",
            value: |row| Value::text(output::ellipsis(&row.error, 45)),
        },
        Column { name: "Name", header: "NAME", value: |row| Value::text(row.name.as_str()) },
    ],
    label: None,
};

/// `docker context ls`.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let format = if flags.bool("quiet") {
        "{{.Name}}"
    } else {
        header_default(
            flags.text("format"),
            "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t\
             {{.Error}}",
        )
    };
    let text = CONTEXTS.render(format, rows(app)?)?;
    output::print(&text)?;
    if app.environment.docker_host.is_some() {
        output::complain(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a \
             context, either set the global --context flag, or unset DOCKER_HOST environment \
             variable.",
        );
    }
    Ok(0)
}

fn rows(app: &App) -> Outcome<Vec<ContextRow>> {
    let current = app.context_name();
    let mut rows = vec![ContextRow {
        name: DEFAULT.to_owned(),
        description: DEFAULT_DESCRIPTION.to_owned(),
        host: default_host(app)?,
        ..ContextRow::default()
    }];
    let store = store(app);
    rows.extend(store.list()?.into_iter().map(|context| ContextRow {
        host: context.docker().unwrap_or_default().host,
        description: context.description().to_owned(),
        name: context.name,
        ..ContextRow::default()
    }));
    if !rows.iter().any(|row| row.name == current) {
        let error = store.load(&current).err().map(|error| error.to_string()).unwrap_or_default();
        rows.push(ContextRow { name: current.clone(), error, ..ContextRow::default() });
    }
    for row in &mut rows {
        row.current = row.name == current;
    }
    rows.sort_by(|a, b| natural_order(&a.name, &b.name));
    Ok(rows)
}

/// `docker context show`.
pub(crate) async fn show(app: &App) -> Outcome {
    output::print_line(&app.context_name())?;
    Ok(0)
}

/// `docker context inspect`.
pub(crate) async fn inspect(app: &App, flags: &Parsed) -> Outcome {
    let names = match flags.args.as_slice() {
        [] => vec![app.context_name()],
        names => names.to_vec(),
    };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match describe(app, &name) {
            Ok(text) => found.push(text.into_bytes()),
            Err(failure) => failures.push(failure),
        }
    }
    crate::inspect::show(flags.text("format"), &found, "context")?;
    Failure::all(&failures)
}

fn describe(app: &App, name: &str) -> Outcome<String> {
    let store = store(app);
    let (context, tls, places) = if name == DEFAULT {
        let names = default_material(app)?
            .into_iter()
            .map(|(endpoint, files)| (endpoint, files.into_keys().collect()))
            .collect();
        (default_context(app)?, names, ["<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned()])
    } else {
        let places = [store.meta_directory(name), store.tls_directory(name)];
        let places = places.map(|path| path.display().to_string());
        (store.load(name)?, store.tls_names(name)?, places)
    };
    let listing = serde_json::json!(tls).to_string();
    let [metadata_path, tls_path] = places.map(|path| {
        let mut quoted = String::new();
        crate::json::push_string(&mut quoted, &path);
        quoted
    });
    let context = context.to_json();
    let members = context.strip_suffix('}').unwrap_or(&context);
    let text = format!(
        "{members},\"TLSMaterial\":{listing},\"Storage\":{{\"MetadataPath\":{metadata_path},\
         \"TLSPath\":{tls_path}}}}}"
    );
    Ok(crate::json::escape_html(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_naturally() {
        let mut names = ["x01", "v10", "bb", "x1", "v9", "V8", "default", "v9a"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["V8", "bb", "default", "v9", "v9a", "v10", "x1", "x01"]);
    }
}
