//! `docker start` and `docker attach`.

use api_types::container::Inspect;
use client::Request;

use crate::app::{App, container_path};
use crate::attach::{Ended, Resized, Session, follow_size, forward_signals};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::run::{beside, check_terminal, detach_keys, exit_code};

/// `docker attach`.
pub(crate) async fn attach(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    let container: Inspect = app.get(container_path(name, "/json")).await?;
    let refusal = match &container.state {
        state if !state.running => Some("You cannot attach to a stopped container, start it first"),
        state if state.paused => Some("You cannot attach to a paused container, unpause it first"),
        state if state.restarting => {
            Some("You cannot attach to a restarting container, wait until it is running")
        }
        _ => None,
    };
    if let Some(text) = refusal {
        return Err(Failure::new(text));
    }
    let stdin = !flags.bool("no-stdin") && container.config.open_stdin;
    check_terminal(stdin, container.config.tty)?;
    let wait = app.client.send(Request::post(container_path(name, "/wait"))).await?;
    let ended = join(app, flags, &container, stdin, flags.bool("sig-proxy"), None).await?;
    match ended {
        Ended::Detached => Err(Failure::new("read escape sequence")),
        Ended::Finished => exit_code(wait).await,
    }
}

/// Joins our streams to a container's, starting it in between when asked to.
async fn join(
    app: &App,
    flags: &Parsed,
    container: &Inspect,
    stdin: bool,
    sig_proxy: bool,
    start: Option<Request>,
) -> Outcome<Ended> {
    let tty = container.config.tty;
    let keys = flags.given("detach-keys").unwrap_or(&app.config.detach_keys);
    let attach = Request::post(format!("/containers/{}/attach", container.id))
        .query_if(!keys.is_empty(), "detachKeys", keys)
        .query("stderr", "1")
        .query_if(stdin, "stdin", "1")
        .query("stdout", "1")
        .query("stream", "1");
    let proxy = sig_proxy && !tty;
    let session = Session {
        stdin,
        output: true,
        tty,
        detach_keys: detach_keys(app, flags)?,
        signals_end_it: !proxy,
    };
    let signals = proxy.then(|| forward_signals(app, &container.id));
    let run = Box::pin(async {
        let connection = app.client.hijack(attach).await?;
        match start {
            Some(start) => app.client.call(start).await?,
            // Who comes later is to see the screen as it is.
            None if tty => Resized::Container(container.id.clone()).redraw(app).await,
            None => {}
        }
        let resize = tty.then(|| follow_size(app, Resized::Container(container.id.clone())));
        beside(session.join(connection), None::<std::future::Pending<()>>, resize).await
    });
    beside(run, signals, None::<std::future::Pending<()>>).await
}

/// `docker start`.
pub(crate) async fn start(app: &App, flags: &Parsed) -> Outcome {
    if flags.bool("attach") || flags.bool("interactive") {
        return start_attached(app, flags).await;
    }
    let mut failed = Vec::new();
    for name in &flags.args {
        match app.client.call(start_request(flags, name)).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => {
                output::complain(&error.to_string());
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

fn start_request(flags: &Parsed, name: &str) -> Request {
    let (checkpoint, directory) = (flags.text("checkpoint"), flags.text("checkpoint-dir"));
    Request::post(container_path(name, "/start"))
        .query_if(!checkpoint.is_empty(), "checkpoint", checkpoint)
        .query_if(!directory.is_empty(), "checkpoint-dir", directory)
}

async fn start_attached(app: &App, flags: &Parsed) -> Outcome {
    let [name] = flags.args.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let container: Inspect = app.get(container_path(name, "/json")).await?;
    let stdin = flags.bool("interactive") && container.config.open_stdin;
    check_terminal(stdin, container.config.tty)?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait =
        Request::post(format!("/containers/{}/wait", container.id)).query("condition", condition);
    let wait = app.client.send(wait).await?;
    let request = start_request(flags, &container.id);
    match join(app, flags, &container, stdin, true, Some(request)).await? {
        Ended::Detached => Ok(0),
        Ended::Finished => exit_code(wait).await,
    }
}
