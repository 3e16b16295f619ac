//! Contexts, read only: ls, show, inspect.

use client::config::{Context, list_contexts, load_context};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output::{self, Column, Listing, header_default};
use crate::template::Value;

#[derive(Debug)]
struct ContextRow {
    name: String,
    description: String,
    host: String,
    current: bool,
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
        Column { name: "Error", header: "ERROR", value: |_row| Value::text("") },
        Column { name: "Name", header: "NAME", value: |row| Value::text(row.name.as_str()) },
    ],
    label: None,
};

/// `docker context ls`.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let current = app.context_name();
    let mut rows = vec![ContextRow {
        name: "default".to_owned(),
        description: "Current DOCKER_HOST based configuration".to_owned(),
        host: default_host(app),
        current: current == "default",
    }];
    for context in list_contexts(&app.environment.config_dir()) {
        let host = context.endpoints.get("docker").map(|docker| docker.host.clone());
        rows.push(ContextRow {
            current: current == context.name,
            host: host.unwrap_or_default(),
            description: context.metadata.description,
            name: context.name,
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let default = match flags.bool("quiet") {
        true => "{{.Name}}",
        false => {
            "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t\
             {{.Error}}"
        }
    };
    output::print(&CONTEXTS.render(header_default(flags.text("format"), default), rows)?)?;
    if app.environment.docker_host.is_some() && app.global.hosts.is_empty() {
        output::complain(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a \
             context, either set the global --context flag, or unset DOCKER_HOST environment \
             variable.",
        );
    }
    Ok(0)
}

fn default_host(app: &App) -> String {
    match app.context_name().as_str() {
        "default" => app.client.host().to_owned(),
        _ => client::config::DEFAULT_HOST.to_owned(),
    }
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
    let directory = app.environment.config_dir();
    let (context, storage) = if name == "default" {
        let docker =
            client::config::ContextEndpoint { host: default_host(app), skip_tls_verify: false };
        let context = Context {
            name: name.to_owned(),
            endpoints: [("docker".to_owned(), docker)].into(),
            ..Context::default()
        };
        (context, ("<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned()))
    } else {
        let place = |kind: &str| {
            let path = directory.join("contexts").join(kind).join(client::config::context_id(name));
            path.display().to_string()
        };
        (load_context(&directory, name)?, (place("meta"), place("tls")))
    };
    let quote = |text: &str| {
        let mut out = String::new();
        crate::json::push_string(&mut out, text);
        crate::json::escape_html(&out)
    };
    let metadata = match context.metadata.description.as_str() {
        "" => "{}".to_owned(),
        description => format!("{{\"Description\":{}}}", quote(description)),
    };
    let endpoints: Vec<String> = context
        .endpoints
        .iter()
        .map(|(kind, endpoint)| {
            format!(
                "{}:{{\"Host\":{},\"SkipTLSVerify\":{}}}",
                quote(kind),
                quote(&endpoint.host),
                endpoint.skip_tls_verify
            )
        })
        .collect();
    Ok(format!(
        "{{\"Name\":{},\"Metadata\":{metadata},\"Endpoints\":{{{}}},\"TLSMaterial\":{{}},\
         \"Storage\":{{\"MetadataPath\":{},\"TLSPath\":{}}}}}",
        quote(&context.name),
        endpoints.join(","),
        quote(&storage.0),
        quote(&storage.1)
    ))
}
