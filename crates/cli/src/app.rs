//! What every command needs: who we are, what the user configured, and the daemon.

use client::config::{self, ConfigFile, Environment};
use client::{Client, Endpoint, Request};
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;

/// Reported where docker reports its own version. Tools compare it with Docker's releases, so it is
/// the release whose command line this one follows.
pub(crate) const DOCKER_VERSION: &str = "28.5.2";

#[derive(Debug)]
pub(crate) struct App {
    pub program: &'static str,
    pub environment: Environment,
    pub global: config::Flags,
    pub debug: bool,
    pub config: ConfigFile,
    pub client: Client,
    /// Why the endpoint that the user chose cannot be used. Commands that need no daemon go on.
    endpoint_problem: Option<String>,
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    pub(crate) fn new(program: &'static str, global: &Parsed) -> Outcome<Self> {
        let mut environment = Environment::read();
        if let Some(directory) = global.given("config") {
            environment.docker_config = Some(directory.into());
        }
        let flags = global_flags(global);
        let config = read_config(&environment);
        let (endpoint, endpoint_problem) = endpoint(&flags, &environment, &config)?;
        let user_agent = format!("Docker-Client/{DOCKER_VERSION} ({})", std::env::consts::OS);
        let client = Client::new(endpoint, environment.pinned_version(), &user_agent)
            .with_headers(&config.http_headers)?;
        let debug = global.bool("debug");
        Ok(Self { program, environment, global: flags, debug, config, client, endpoint_problem })
    }

    /// Refuses to talk to a daemon whose address cannot be resolved.
    pub(crate) fn check_endpoint(&self) -> Outcome<()> {
        self.endpoint_problem.as_ref().map_or(Ok(()), |text| Err(Failure::new(text.as_str())))
    }

    /// The name of the context in force.
    pub(crate) fn context_name(&self) -> String {
        config::context_name(&self.global, &self.environment, &self.config)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Outcome<T> {
        Ok(self.client.get(Request::get(path)).await?)
    }
}

/// Resolves the endpoint; where that fails, stands in the default one and says why.
fn endpoint(
    flags: &config::Flags,
    environment: &Environment,
    file: &ConfigFile,
) -> Outcome<(Endpoint, Option<String>)> {
    let error = match config::resolve(flags, environment, file) {
        Ok(endpoint) => return Ok((endpoint, None)),
        Err(error) => error.to_string(),
    };
    if error.starts_with("conflicting options") {
        return Err(Failure::new(error));
    }
    let default = config::endpoint(config::DEFAULT_HOST, None)?;
    Ok((default, Some(format!("Failed to initialize: {error}"))))
}

/// A broken `config.json` is reported and otherwise ignored, as docker does.
fn read_config(environment: &Environment) -> ConfigFile {
    ConfigFile::load(&environment.config_dir()).unwrap_or_else(|error| {
        crate::output::complain(&format!("WARNING: {error}"));
        ConfigFile::default()
    })
}

fn global_flags(global: &Parsed) -> config::Flags {
    let text = |name| global.given(name).unwrap_or_default().to_owned();
    config::Flags {
        hosts: global.list("host").to_vec(),
        context: text("context"),
        tls: global.bool("tls"),
        tls_verify: global.bool("tlsverify"),
        tls_ca: text("tlscacert"),
        tls_cert: text("tlscert"),
        tls_key: text("tlskey"),
    }
}

/// `/containers/{name}{rest}` with the name escaped.
pub(crate) fn container_path(name: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", Request::segment(name))
}
