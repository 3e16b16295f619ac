//! `docker login` and `logout`, and the credentials that other commands send along.

use std::io::{Read, stdin};

use client::credentials::{CredentialStore, Credentials, INDEX_SERVER, Stored, server_host};
use client::{Error, Request};
use serde::Deserialize;

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::{output, terminal};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AuthAnswer {
    status: String,
    identity_token: String,
}

/// The name of Docker Hub in image references.
const HUB: &str = "docker.io";

/// `docker login`.
pub(crate) async fn login(app: &App, flags: &Parsed) -> Outcome {
    let password = password(flags)?;
    app.check_endpoint()?;
    let given = flags.args.first().map_or("", String::as_str);
    let server = if matches!(given, "" | HUB) { INDEX_SERVER } else { server_host(given) };
    let mut directory = None;
    let store = store(app, &mut directory);
    let username = flags.text("username");
    if username.is_empty() && password.is_empty() {
        // A helper that fails is no reason not to ask.
        let known = store.get(server).unwrap_or_default();
        if !known.username.is_empty() && !known.password.is_empty() {
            match with_stored(app, known).await {
                Ok(accepted) => return accept(&store, accepted),
                Err(error) if error.status() == Some(401) => {
                    output::complain("Stored credentials invalid or expired");
                }
                Err(error) => output::complain(&format!("Login did not succeed, error: {error}")),
            }
        }
    }
    let (username, password) = match (username, password) {
        (username, password) if !username.is_empty() && !password.is_empty() => {
            (username.to_owned(), password)
        }
        (username, password) => ask(server, username, password).await?,
    };
    let wanted =
        Credentials { username, password, server: server.to_owned(), ..Credentials::default() };
    accept(&store, authenticate(app, wanted).await?)
}

fn store<'a>(app: &'a App, directory: &'a mut Option<std::path::PathBuf>) -> CredentialStore<'a> {
    let directory = directory.insert(app.environment.config_dir());
    CredentialStore { directory, file: &app.config }
}

/// The password of `-p` or of stdin; empty when neither is given.
fn password(flags: &Parsed) -> Outcome<String> {
    let refuse = |text: &str| Err(Failure::new(text));
    let (username, from_stdin) = (flags.text("username"), flags.bool("password-stdin"));
    if flags.changed("password") && from_stdin {
        return refuse("conflicting options: cannot specify both --password and --password-stdin");
    }
    if flags.changed("username") && username.is_empty() {
        return refuse("username is empty");
    }
    if flags.changed("password") {
        if flags.text("password").is_empty() {
            return refuse("password is empty");
        }
        output::complain(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
        );
        return Ok(flags.text("password").to_owned());
    }
    if !from_stdin {
        return Ok(String::new());
    }
    if username.is_empty() {
        return refuse("the --password-stdin option requires --username to be set");
    }
    let mut text = String::new();
    stdin().lock().read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

async fn with_stored(app: &App, known: Credentials) -> Result<Credentials, Error> {
    output::complain(&format!(
        "Authenticating with existing credentials... [Username: {}]\n\n Info -> To login with a \
         different account, run 'docker logout' followed by 'docker login'\n\n\n",
        known.username
    ));
    authenticate(app, known).await
}

/// Asks the daemon. A registry that answers with a token has its token stored, not the password.
async fn authenticate(app: &App, wanted: Credentials) -> Result<Credentials, Error> {
    let answer: AuthAnswer = app.client.post(Request::post("/auth"), &wanted).await?;
    Ok(match answer.identity_token {
        token if token.is_empty() => wanted,
        token => Credentials { password: String::new(), identity_token: token, ..wanted },
    })
}

fn accept(store: &CredentialStore<'_>, credentials: Credentials) -> Outcome {
    let stored = store
        .store(&credentials)
        .map_err(|error| Failure::new(format!("Error saving credentials: {error}")))?;
    if stored == Stored::Plain {
        output::complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential \
             helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n\n",
            store.directory.join("config.json").display()
        ));
    }
    output::print_line("Login Succeeded")?;
    Ok(0)
}

/// Asks a person for what is missing.
async fn ask(server: &str, username: &str, password: String) -> Outcome<(String, String)> {
    if !terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let username = if username.is_empty() {
        if server == INDEX_SERVER {
            output::print(
                "Log in with your Docker ID or email address to push and pull images from Docker \
                 Hub. If you don't have a Docker ID, head over to https://hub.docker.com/ to \
                 create one.\nYou can log in with your password or a Personal Access Token (PAT). \
                 Using a limited-scope PAT grants better security and is required for \
                 organizations using SSO. Learn more at \
                 https://docs.docker.com/go/access-tokens/\n\n",
            )?;
        }
        output::print("Username: ")?;
        terminal::read_line().await?
    } else {
        username.to_owned()
    };
    if username.is_empty() {
        return Err(Failure::new("Error: Non-null Username Required"));
    }
    let password = if password.is_empty() {
        output::print("Password: ")?;
        let password = terminal::read_secret().await;
        output::print("\n")?;
        password?
    } else {
        password
    };
    if password.is_empty() {
        return Err(Failure::new("Error: Password Required"));
    }
    Ok((username, password))
}

/// `docker logout`: under every spelling that old versions stored the server by.
pub(crate) async fn logout(app: &App, flags: &Parsed) -> Outcome {
    let given = flags.args.first().map_or("", String::as_str);
    let (shown, servers) = match given {
        "" => (INDEX_SERVER, vec![INDEX_SERVER.to_owned()]),
        given => {
            let host = server_host(given);
            let urls = [format!("http://{host}"), format!("https://{host}")];
            (host, [given.to_owned(), host.to_owned()].into_iter().chain(urls).collect())
        }
    };
    output::print_line(&format!("Removing login credentials for {shown}"))?;
    let mut directory = None;
    let store = store(app, &mut directory);
    let failures: Vec<String> = servers
        .iter()
        .filter_map(|server| store.erase(server).err().map(|error| format!("{server}: {error}")))
        .collect();
    if failures.len() == servers.len() {
        output::complain("WARNING: could not erase credentials:");
        output::complain(&failures.join("\n"));
    }
    Ok(0)
}

/// The value of `X-Registry-Auth` for a registry named in an image reference: `e30=`, which is
/// `{}`, when there are no credentials.
pub(crate) fn registry_auth(app: &App, domain: &str) -> String {
    let server = if domain == HUB { INDEX_SERVER } else { domain };
    let mut directory = None;
    // Without its credentials the registry says itself what is missing.
    store(app, &mut directory).get(server).unwrap_or_default().to_header()
}
