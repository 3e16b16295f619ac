//! `docker exec`.

use api_types::IdResponse;
use api_types::exec::{CreateRequest, Inspect, StartRequest};
use client::Request;

use crate::app::{App, container_path};
use crate::attach::{Ended, Resized, Session, follow_size};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::files;
use crate::run::{beside, check_terminal, detach_keys};
use crate::terminal;

/// `docker exec`.
pub(crate) async fn exec(app: &App, flags: &Parsed) -> Outcome {
    let (name, command) = flags.args.split_first().expect("the table requires two arguments");
    let mut request = create_request(flags, command)?;
    request.detach_keys = flags.given("detach-keys").unwrap_or(&app.config.detach_keys).to_owned();
    // A container that is not there is reported before a terminal that is not.
    app.client.call(Request::get(container_path(name, "/json"))).await?;
    if !request.detach {
        check_terminal(request.attach_stdin, request.tty)?;
    }
    if request.tty {
        let (rows, columns) = terminal::size();
        request.console_size = (rows > 0).then_some([rows, columns]);
    }
    let create = Request::post(container_path(name, "/exec"));
    let created: IdResponse = app.client.post(create, &request).await?;
    let start = StartRequest {
        detach: request.detach,
        tty: request.tty,
        console_size: request.console_size,
    };
    let path = format!("/exec/{}/start", created.id);
    if request.detach {
        app.client.call(Request::post(path).json(&start)?).await?;
        return Ok(0);
    }
    let connection = app.client.hijack(Request::post(path).json(&start)?).await?;
    let session = Session {
        stdin: request.attach_stdin,
        output: true,
        tty: request.tty,
        // The daemon has refused keys that do not parse.
        detach_keys: detach_keys(app, flags)?,
        signals_end_it: true,
    };
    let resize = request.tty.then(|| follow_size(app, Resized::Exec(created.id.clone())));
    let ended = beside(session.join(connection), None::<std::future::Pending<()>>, resize).await?;
    if ended == Ended::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    exit_code(app, &created.id).await
}

fn create_request(flags: &Parsed, command: &[String]) -> Outcome<CreateRequest> {
    let detach = flags.bool("detach");
    let mut env = files::read_env_files(flags.list("env-file"))?;
    env.extend_from_slice(flags.list("env"));
    Ok(CreateRequest {
        user: flags.text("user").to_owned(),
        privileged: flags.bool("privileged"),
        tty: flags.bool("tty"),
        console_size: None,
        attach_stdin: !detach && flags.bool("interactive"),
        attach_stderr: !detach,
        attach_stdout: !detach,
        detach,
        detach_keys: String::new(),
        env: Some(env).filter(|env| !env.is_empty()),
        working_dir: flags.text("workdir").to_owned(),
        cmd: Some(command.to_vec()),
    })
}

async fn exit_code(app: &App, id: &str) -> Outcome {
    let exec: Inspect = app.get(format!("/exec/{id}/json")).await?;
    match exec.exit_code {
        Some(code) => Ok(u8::try_from(code & 0xff).unwrap_or(1)),
        // Detached: the process runs on.
        None if exec.running => Ok(0),
        None => Err(Failure::new("the exec ended without an exit code")),
    }
}
