//! `docker info`.

use std::fmt::Write;

use api_types::system::Info;
use client::{Error, Request};

use crate::app::{App, DOCKER_VERSION};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::template::{Template, from_json};

/// Docker's exit code for a template that does not parse.
const BAD_TEMPLATE: u8 = 64;

/// `docker info`.
pub(crate) async fn info(app: &App, flags: &Parsed) -> Outcome {
    let format = match flags.text("format") {
        "json" => "{{json .}}",
        format => format,
    };
    if !format.is_empty() {
        return by_template(app, format).await;
    }
    output::print(&client_text(app))?;
    let info: Info = match app.client.get(Request::get("/info")).await {
        Ok(info) => info,
        Err(error) => {
            output::print_line("Server:")?;
            return Err(error.into());
        }
    };
    output::print(&server_text(&info))?;
    for warning in info.warnings.iter().flatten() {
        output::complain(warning);
    }
    Ok(0)
}

/// The daemon's answer with what we add to it, `ClientInfo`.
async fn by_template(app: &App, format: &str) -> Outcome {
    let template = Template::parse(format).map_err(|error| {
        Failure::with_code(format!("template parsing error: {error}"), BAD_TEMPLATE)
    })?;
    let json = app.client.get_bytes(Request::get("/info")).await?;
    let text = String::from_utf8_lossy(&json);
    let members = text.trim().strip_suffix('}').unwrap_or_default();
    let both = format!(
        "{members},\"ClientInfo\":{{\"Debug\":{},\"Version\":\"{DOCKER_VERSION}\",\"Context\":{},\
         \"Plugins\":[],\"Warnings\":null}}}}",
        app.debug,
        serde_json::Value::String(app.context_name())
    );
    let value = from_json(both.as_bytes(), "info")
        .map_err(|source| Failure::Client(Error::Decode { source }))?;
    match template.render(&value) {
        Ok(text) => output::print_line(&text)?,
        Err(error) => {
            output::print("\n")?;
            return Err(Failure::new(error.to_string()));
        }
    }
    Ok(0)
}

fn client_text(app: &App) -> String {
    format!(
        "Client:\n Version:    {DOCKER_VERSION}\n Context:    {}\n Debug Mode: {}\n\n",
        app.context_name(),
        app.debug
    )
}

/// Collects `name: value` lines; empty values are left out where docker does.
struct Lines(String);

impl Lines {
    fn put(&mut self, indent: usize, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{}{name}: {value}", " ".repeat(indent))
            .expect("writing to a String does not fail");
    }

    fn put_if(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.put(1, name, value);
        }
    }

    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    /// A list under a heading, one a line.
    fn list<'a>(&mut self, heading: &str, items: impl IntoIterator<Item = &'a String>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            self.line(&format!(" {heading}:"));
            for item in items {
                self.line(&format!("  {item}"));
            }
        }
    }
}

fn server_text(info: &Info) -> String {
    let mut lines = Lines("Server:\n".to_owned());
    lines.put(1, "Containers", info.containers);
    lines.put(2, "Running", info.containers_running);
    lines.put(2, "Paused", info.containers_paused);
    lines.put(2, "Stopped", info.containers_stopped);
    lines.put(1, "Images", info.images);
    lines.put_if("Server Version", &info.server_version);
    lines.put_if("Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        lines.put(2, name, value);
    }
    lines.put_if("Logging Driver", &info.logging_driver);
    lines.put_if("Cgroup Driver", &info.cgroup_driver);
    lines.put_if("Cgroup Version", &info.cgroup_version);
    plugins(&mut lines, info);
    lines.list("CDI spec directories", &info.cdi_spec_dirs);
    lines.put(1, "Swarm", &info.swarm.local_node_state);
    runtimes(&mut lines, info);
    security(&mut lines, info);
    machine(&mut lines, info);
    registries(&mut lines, info);
    lines.put(1, "Live Restore Enabled", info.live_restore_enabled);
    if !info.default_address_pools.is_empty() {
        lines.line(" Default Address Pools:");
        for pool in &info.default_address_pools {
            lines.line(&format!("   Base: {}, Size: {}", pool.base, pool.size));
        }
    }
    if let Some(firewall) = &info.firewall_backend
        && !firewall.driver.is_empty()
    {
        lines.put(1, "Firewall Backend", &firewall.driver);
        for [name, value] in &firewall.info {
            lines.put(2, name, value);
        }
    }
    lines.line("");
    lines.0
}

fn plugins(lines: &mut Lines, info: &Info) {
    lines.line(" Plugins:");
    lines.put(2, "Volume", info.plugins.volume.join(" "));
    lines.put(2, "Network", info.plugins.network.join(" "));
    if let Some(authorization) = info.plugins.authorization.as_ref().filter(|list| !list.is_empty())
    {
        lines.put(2, "Authorization", authorization.join(" "));
    }
    lines.put(2, "Log", info.plugins.log.join(" "));
}

fn runtimes(lines: &mut Lines, info: &Info) {
    if !info.runtimes.is_empty() {
        let names: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
        lines.put(1, "Runtimes", names.join(" "));
        lines.put(1, "Default Runtime", &info.default_runtime);
    }
    if info.os_type == "linux" {
        lines.put(1, "Init Binary", &info.init_binary);
        lines.put(1, "containerd version", &info.containerd_commit.id);
        lines.put(1, "runc version", &info.runc_commit.id);
        lines.put(1, "init version", &info.init_commit.id);
    }
}

/// `name=seccomp,profile=builtin` is shown as a name and its options below it.
fn security(lines: &mut Lines, info: &Info) {
    if info.security_options.is_empty() {
        return;
    }
    lines.line(" Security Options:");
    for option in &info.security_options {
        let mut name = "";
        let mut settings = Vec::new();
        for part in option.split(',') {
            match part.split_once('=') {
                Some(("name", value)) => name = value,
                Some(setting) => settings.push(setting),
                None => name = part,
            }
        }
        lines.line(&format!("  {name}"));
        for (key, value) in settings {
            let key = if key == "profile" { "Profile" } else { key };
            lines.put(3, key, value);
        }
    }
}

fn machine(lines: &mut Lines, info: &Info) {
    lines.put_if("Kernel Version", &info.kernel_version);
    lines.put_if("Operating System", &info.operating_system);
    lines.put_if("OSType", &info.os_type);
    lines.put_if("Architecture", &info.architecture);
    lines.put(1, "CPUs", info.n_cpu);
    lines.put(1, "Total Memory", spec::size::human_binary(info.mem_total as f64));
    lines.put_if("Name", &info.name);
    lines.put_if("ID", &info.id);
    lines.put(1, "Docker Root Dir", &info.docker_root_dir);
    lines.put(1, "Debug Mode", info.debug);
    if info.debug {
        lines.put(2, "File Descriptors", info.n_fd);
        lines.put(2, "Goroutines", info.n_goroutines);
        lines.put(2, "System Time", &info.system_time);
        lines.put(2, "EventsListeners", info.n_events_listener);
    }
    lines.put_if("HTTP Proxy", &info.http_proxy);
    lines.put_if("HTTPS Proxy", &info.https_proxy);
    lines.put_if("No Proxy", &info.no_proxy);
    lines.list("Labels", &info.labels);
    lines.put(1, "Experimental", info.experimental_build);
}

fn registries(lines: &mut Lines, info: &Info) {
    let config = &info.registry_config;
    let hosts = config.index_configs.values().filter(|index| !index.secure);
    let insecure: Vec<String> = hosts
        .map(|index| index.name.clone())
        .chain(config.insecure_registry_cidrs.iter().cloned())
        .collect();
    lines.list("Insecure Registries", &insecure);
    lines.list("Registry Mirrors", config.mirrors.iter().flatten());
}
