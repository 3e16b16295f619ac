//! `run` and `create`.
//!
//! The order of calls is docker's: create (pulling when the image is missing), attach, wait, start.
//! Attach and wait are open before start, so that neither output nor exit code can be missed.

mod config;
mod image;
mod networks;
mod resources;

use std::future::Future;

use api_types::container::{CreateRequest, WaitResponse};
use client::{Hijacked, Request, Response};

use crate::app::{App, container_path};
use crate::attach::{DetachKeys, Ended, Resized, Session, follow_size, forward_signals};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::{output, terminal};

pub(crate) use config::restart_policy;
pub(crate) use resources::update_resources;

/// Docker itself failed, the command cannot be executed, the command was not found.
const FAILED: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// `docker create`: prints the id.
pub(crate) async fn create(app: &App, flags: &Parsed) -> Outcome {
    let request = prepare(app, flags, "create")?;
    let id = image::create_container(app, flags, &request).await?;
    output::print_line(&id)?;
    Ok(0)
}

/// `docker run`.
pub(crate) async fn run(app: &App, flags: &Parsed) -> Outcome {
    let mut request = prepare(app, flags, "run")?;
    let failed = |failure: Failure| failure.of_run(app.program, "run", FAILED);
    let not_created = |failure: Failure| {
        let code = code_of(&failure.to_string());
        failure.of_run(app.program, "run", code)
    };
    if flags.bool("detach") {
        if !flags.list("attach").is_empty() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        detach(&mut request);
    } else {
        check_terminal(request.config.attach_stdin, request.config.tty)?;
        let keys = detach_keys(app, flags).map_err(|text| failed(text.into()))?;
        if request.config.tty {
            let (rows, columns) = terminal::size();
            request.host_config.console_size = [rows, columns];
        }
        return attached(app, flags, &request, keys).await;
    }
    let id = image::create_container(app, flags, &request).await.map_err(not_created)?;
    output::print_line(&id)?;
    let wait = open_wait(app, &id, request.host_config.auto_remove).await.map_err(failed)?;
    let started = start(app, &id).await;
    if started.is_err() && request.host_config.auto_remove {
        removed(wait).await;
    }
    started.map(|()| 0)
}

/// A detached container has no streams of ours.
fn detach(request: &mut CreateRequest) {
    let config = &mut request.config;
    config.attach_stdin = false;
    config.attach_stdout = false;
    config.attach_stderr = false;
    config.stdin_once = false;
}

fn prepare(app: &App, flags: &Parsed, command: &str) -> Outcome<CreateRequest> {
    if let Some(flag) = WINDOWS_FLAGS.iter().find(|flag| flags.changed(flag)) {
        return Err(Failure::new(format!(
            "\"--{flag}\" is only supported on a Docker daemon running on windows, but the Docker \
             daemon is running on linux"
        )));
    }
    let prepared = image::check_pull_policy(flags)
        .and_then(|()| refuse_unsupported(flags))
        .and_then(|()| config::create_request(flags));
    let mut request =
        prepared.map_err(|text| Failure::new(text).of_run(app.program, command, FAILED))?;
    add_proxies(app, &mut request);
    Ok(request)
}

/// Docker takes these for Windows daemons only, which we never talk to.
const WINDOWS_FLAGS: &[&str] = &["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"];

/// Flags that are understood and cannot be honoured.
fn refuse_unsupported(flags: &Parsed) -> Result<(), String> {
    if flags.changed("disable-content-trust") && !flags.bool("disable-content-trust") {
        return Err("--disable-content-trust=false: content trust is not supported".to_owned());
    }
    if flags.changed("kernel-memory") {
        output::complain("WARNING: --kernel-memory is deprecated and has no effect");
    }
    if flags.bool("use-api-socket") {
        return Err("--use-api-socket is not supported".to_owned());
    }
    Ok(())
}

/// Proxies of `config.json` become environment variables, unless `-e` sets them.
fn add_proxies(app: &App, request: &mut CreateRequest) {
    let proxies = &app.config.proxies;
    let Some(proxy) = proxies.get(app.client.host()).or_else(|| proxies.get("default")) else {
        return;
    };
    let env = request.config.env.get_or_insert_default();
    let set: Vec<String> =
        env.iter().map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
    let variables = [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ];
    for (name, value) in variables {
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            if !value.is_empty() && !set.contains(&name) {
                env.push(format!("{name}={value}"));
            }
        }
    }
    if env.is_empty() {
        request.config.env = None;
    }
}

/// A container with a terminal needs one of ours.
pub(crate) fn check_terminal(stdin: bool, tty: bool) -> Outcome<()> {
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

/// `--detach-keys`, else those of `config.json`, else docker's.
pub(crate) fn detach_keys(app: &App, flags: &Parsed) -> Result<DetachKeys, String> {
    DetachKeys::parse(flags.given("detach-keys").unwrap_or(&app.config.detach_keys))
}

async fn attached(
    app: &App,
    flags: &Parsed,
    request: &CreateRequest,
    detach_keys: DetachKeys,
) -> Outcome {
    let failed = |failure: Failure| failure.of_run(app.program, "run", FAILED);
    let not_created = |failure: Failure| {
        let code = code_of(&failure.to_string());
        failure.of_run(app.program, "run", code)
    };
    let config = &request.config;
    let id = image::create_container(app, flags, request).await.map_err(not_created)?;
    let signals = flags.bool("sig-proxy").then(|| forward_signals(app, &id));
    let output = config.attach_stdout || config.attach_stderr;
    let stdin = config.attach_stdin && config.open_stdin;
    let session =
        Session { stdin, output, tty: config.tty, detach_keys, signals_end_it: signals.is_none() };
    let run = Box::pin(async {
        let connection = match stdin || output {
            true => Some(open_attach(app, flags, request, &id).await.map_err(failed)?),
            false => None,
        };
        let wait = open_wait(app, &id, request.host_config.auto_remove).await.map_err(failed)?;
        if let Err(failure) = start(app, &id).await {
            if request.host_config.auto_remove {
                removed(wait).await;
            }
            return Err(failure);
        }
        let Some(connection) = connection else { return exit_code(wait).await };
        match session.join(connection).await? {
            Ended::Detached => Ok(0),
            Ended::Finished => exit_code(wait).await,
        }
    });
    let resize = config.tty.then(|| follow_size_once_started(app, &id));
    beside(run, signals, resize).await
}

async fn follow_size_once_started(app: &App, id: &str) {
    follow_size(app, Resized::Container(id.to_owned())).await;
}

/// Runs `main` with two companions that are dropped when it ends.
pub(crate) async fn beside<T>(
    main: impl Future<Output = T>,
    signals: Option<impl Future<Output = ()>>,
    resize: Option<impl Future<Output = ()>>,
) -> T {
    let companion = async {
        let signals = async {
            if let Some(signals) = signals {
                signals.await;
            }
        };
        let resize = async {
            if let Some(resize) = resize {
                resize.await;
            }
        };
        tokio::join!(signals, resize);
        std::future::pending::<()>().await;
    };
    // Boxed: together they are large, and callers await this inside futures of their own.
    let (main, companion) = (Box::pin(main), Box::pin(companion));
    tokio::select! {
        biased;
        outcome = main => outcome,
        () = companion => unreachable!("companions never end"),
    }
}

async fn open_attach(
    app: &App,
    flags: &Parsed,
    request: &CreateRequest,
    id: &str,
) -> Outcome<Hijacked> {
    let config = &request.config;
    let keys = flags.given("detach-keys").unwrap_or(&app.config.detach_keys);
    let attach = Request::post(format!("/containers/{id}/attach"))
        .query_if(!keys.is_empty(), "detachKeys", keys)
        .query_if(config.attach_stderr, "stderr", "1")
        .query_if(config.attach_stdin, "stdin", "1")
        .query_if(config.attach_stdout, "stdout", "1")
        .query("stream", "1");
    Ok(app.client.hijack(attach).await?)
}

/// The daemon answers the head at once and the body at the exit.
async fn open_wait(app: &App, id: &str, removed: bool) -> Outcome<Response> {
    let condition = if removed { "removed" } else { "next-exit" };
    let wait = Request::post(format!("/containers/{id}/wait")).query("condition", condition);
    Ok(app.client.send(wait).await?)
}

/// Waits until a container that did not start is removed, too; its exit code means nothing.
async fn removed(wait: Response) {
    let _not_a_result = wait.bytes().await;
}

/// The container's exit code, when the wait ends.
pub(crate) async fn exit_code(wait: Response) -> Outcome {
    let status: WaitResponse = wait.json().await?;
    match status.error {
        Some(error) if !error.message.is_empty() => {
            output::complain(&format!("Error waiting for container: {}", error.message));
            Ok(FAILED)
        }
        _ => Ok(u8::try_from(status.status_code & 0xff).unwrap_or(FAILED)),
    }
}

/// Starts; a failure's exit code says whose fault it is.
async fn start(app: &App, id: &str) -> Outcome<()> {
    match app.client.call(Request::post(container_path(id, "/start"))).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let code = code_of(&error.to_string());
            Err(Failure::Client(error).of_run(app.program, "run", code))
        }
    }
}

/// The exit code of a container that did not start, which docker reads off the error's text.
fn code_of(text: &str) -> u8 {
    let has = |part: &str| text.contains(part);
    match () {
        () if has("executable file not found")
            || has("no such file or directory")
            || has("system cannot find the file specified") =>
        {
            NOT_FOUND
        }
        () if has("permission denied") || has("is a directory") => CANNOT_EXECUTE,
        () => FAILED,
    }
}
