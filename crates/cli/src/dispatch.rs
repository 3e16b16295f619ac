//! From arguments to a command, and the one `match` over what commands do.

use std::future::Future;
use std::pin::Pin;

use crate::app::{App, DOCKER_VERSION};
use crate::commands::{Action, COMMANDS, Command, GLOBAL, GROUPS, UNSUPPORTED, find};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed, parse};
use crate::{
    account, completion, container, context, help, hint, image, inspect, manual, network, output,
    run, system, terminal, volume,
};

/// Docker's exit code for flags it does not understand.
const BAD_FLAGS: u8 = 125;

const SHORT_HELP: &str = "Flag shorthand -h has been deprecated, use --help";

static GLOBAL_FLAGS: &[&[Flag]] = &[GLOBAL];

pub(crate) fn run(program: &'static str, arguments: &[String]) -> Outcome {
    let usage = format!("{program} [OPTIONS] COMMAND [ARG...]");
    let global = parse(GLOBAL_FLAGS, false, arguments)
        .map_err(|error| bad_flags(&error.0, &usage, program))?;
    check_log_level(global.text("log-level"))?;
    if global.bool("version") {
        return print_version(program);
    }
    let words: Vec<&str> = global.args.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Help that nobody asked for goes to stderr.
        [] => complain_help(&help::root(program)),
        ["help", rest @ ..] => help_for(program, rest),
        ["completion", rest @ ..] => completion::script(program, rest),
        ["__complete", ..] => completion::complete(program, &global.args[1..]),
        ["__man", directory] => manual::write(program, directory),
        ["__flags"] => print_help(flag_table()),
        words if global.help => help_for(program, words),
        words => by_words(program, &global, words),
    }
}

/// We log nothing; a level that docker does not know is a mistake all the same.
fn check_log_level(level: &str) -> Outcome<()> {
    const LEVELS: &[&str] =
        &["", "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"];
    if LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::new(format!("Unable to parse logging level: {level}")))
}

fn print_version(program: &str) -> Outcome {
    output::print_line(&version_line(program))?;
    Ok(0)
}

fn version_line(program: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    match program {
        "docker" => format!("Docker version {DOCKER_VERSION}, build boxship-{own}"),
        _ => format!("Boxship version {own}, build docker-{DOCKER_VERSION}"),
    }
}

fn print_help(text: String) -> Outcome {
    output::print(&text)?;
    Ok(0)
}

fn complain_help(text: &str) -> Outcome {
    output::complain(text);
    Ok(0)
}

fn help_for(program: &'static str, words: &[&str]) -> Outcome {
    match words {
        [] => print_help(help::root(program)),
        [group] if is_group(group) => print_help(help::group(program, group)),
        _ => match locate(words) {
            Some((command, path, _)) => print_help(help::command(program, command, path)),
            None => Err(Failure::new(format!("unknown help topic: {}", words.join(" ")))),
        },
    }
}

fn is_group(word: &str) -> bool {
    GROUPS.iter().any(|group| group.name == word)
}

/// The command that the first one or two words name, its spelling, and how many words it took.
fn locate(words: &[&str]) -> Option<(&'static Command, &'static str, usize)> {
    let count = if is_group(words.first()?) { 2 } else { 1 };
    let (command, path) = find(&words.get(..count)?.join(" "))?;
    Some((command, path, count))
}

fn by_words(program: &'static str, global: &Parsed, words: &[&str]) -> Outcome {
    if let Some((command, path, count)) = locate(words) {
        return by_command(program, global, command, path, &global.args[count..]);
    }
    match words {
        [group] if is_group(group) => complain_help(&help::group(program, group)),
        [group, ..] if is_group(group) => unknown_in_group(program, group, &global.args[1..]),
        [word, ..] if UNSUPPORTED.contains(word) => Err(unsupported(program, word)),
        [word, ..] => unknown_command(program, word, &global.args[1..]),
        [] => complain_help(&help::root(program)),
    }
}

/// Flags behind a word that is no command are the program's own.
fn unknown_command(program: &str, word: &str, rest: &[String]) -> Outcome {
    let usage = format!("{program} [OPTIONS] COMMAND [ARG...]");
    let parsed =
        parse(GLOBAL_FLAGS, true, rest).map_err(|error| bad_flags(&error.0, &usage, program))?;
    if parsed.help {
        return asked_help(&parsed, help::root(program));
    }
    if parsed.bool("version") {
        return print_version(program);
    }
    Err(unknown(program, word))
}

fn asked_help(parsed: &Parsed, text: String) -> Outcome {
    if parsed.short_help {
        output::print_line(SHORT_HELP)?;
    }
    print_help(text)
}

fn unknown(program: &str, word: &str) -> Failure {
    let text = format!(
        "{program}: unknown command: {program} {word}\n\nRun '{program} --help' for more information"
    );
    let known = COMMANDS.iter().flat_map(|command| command.paths.iter().copied());
    let known = known.filter(|path| !path.contains(' '));
    match hint::closest(word, known.chain(GROUPS.iter().map(|group| group.name))) {
        Some(name) if terminal::stderr_is_terminal() => {
            Failure::new(format!("{text}\n\n{}", hint::sentence(name)))
        }
        _ => Failure::new(text),
    }
}

/// A group has no flags of its own but the one for help.
fn unknown_in_group(program: &str, group: &str, rest: &[String]) -> Outcome {
    let name = format!("{program} {group}");
    let path = format!("{group} {}", rest[0]);
    if UNSUPPORTED.contains(&path.as_str()) {
        return Err(unsupported(program, &path));
    }
    let parsed = parse(&[], true, rest).map_err(|error| bad_flags(&error.0, &name, &name))?;
    match parsed.args.first() {
        _ if parsed.help => asked_help(&parsed, help::group(program, group)),
        None => complain_help(&help::group(program, group)),
        Some(word) => Err(Failure::new(format!(
            "{program}: unknown command: {name} {word}\n\nUsage:  {name}\n\nRun '{name} --help' \
             for more information"
        ))),
    }
}

fn unsupported(program: &str, path: &str) -> Failure {
    Failure::new(format!("{program}: '{program} {path}' is not supported yet"))
}

fn bad_flags(message: &str, usage: &str, command: &str) -> Failure {
    Failure::with_code(
        format!("{message}\n\nUsage:  {usage}\n\nRun '{command} --help' for more information"),
        BAD_FLAGS,
    )
}

fn by_command(
    program: &'static str,
    global: &Parsed,
    command: &'static Command,
    path: &'static str,
    arguments: &[String],
) -> Outcome {
    let name = format!("{program} {path}");
    let usage = format!("{name} {}", command.usage);
    let parsed = parse(command.flags, command.interspersed, arguments)
        .map_err(|error| bad_flags(&error.0, usage.trim_end(), &name))?;
    if parsed.help {
        return asked_help(&parsed, help::command(program, command, path));
    }
    for note in &parsed.notes {
        output::print_line(note)?;
    }
    if let Some(complaint) = command.arity.complaint(parsed.args.len()) {
        let see = match command.arity {
            crate::commands::Arity::AtLeast(_) => "See",
            // Docker's own misprint.
            crate::commands::Arity::AtMost(_) => "SRun",
            _ => "Run",
        };
        return Err(Failure::new(format!(
            "{program}: '{name}' {complaint}\n\nUsage:  {}\n\n{see} '{name} --help' for more \
             information",
            usage.trim_end()
        )));
    }
    let app = App::new(program, global)?;
    if !command.action.is_local() {
        app.check_endpoint()?;
    }
    execute(command.action, &app, &parsed)
}

/// Builds the runtime, runs the command on it, and drops it without waiting for stuck reads.
fn execute(action: Action, app: &App, flags: &Parsed) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let outcome = tokio::select! {
            biased;
            outcome = start(action, app, flags) => outcome,
            () = terminal::reader_gone(), if action.is_endless() => {
                Err(Failure::Output(std::io::ErrorKind::BrokenPipe.into()))
            }
        };
        match outcome {
            Err(failure) if terminal::stderr_is_terminal() => {
                // The error is shown before the daemon is asked for names: that may take a while.
                let text = failure.to_string();
                let code = failure.report();
                if let Some(hint) = hint::for_missing(app, &text).await {
                    output::complain(&hint);
                }
                Err(Failure::Silent(code))
            }
            outcome => outcome,
        }
    });
    runtime.shutdown_background();
    outcome
}

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

fn start<'a>(action: Action, app: &'a App, flags: &'a Parsed) -> Running<'a> {
    match action {
        Action::ContainerAttach => Box::pin(container::attach(app, flags)),
        Action::ContainerCommit => Box::pin(container::commit(app, flags)),
        Action::ContainerCp => Box::pin(container::cp(app, flags)),
        Action::ContainerCreate => Box::pin(run::create(app, flags)),
        Action::ContainerDiff => Box::pin(container::diff(app, flags)),
        Action::ContainerExec => Box::pin(container::exec(app, flags)),
        Action::ContainerExport => Box::pin(container::export(app, flags)),
        Action::ContainerInspect => Box::pin(inspect::containers(app, flags)),
        Action::ContainerKill => Box::pin(container::kill(app, flags)),
        Action::ContainerLogs => Box::pin(container::logs(app, flags)),
        Action::ContainerLs => Box::pin(container::ls(app, flags)),
        Action::ContainerPause => Box::pin(container::pause(app, flags)),
        Action::ContainerPort => Box::pin(container::port(app, flags)),
        Action::ContainerPrune => Box::pin(container::prune(app, flags)),
        Action::ContainerRename => Box::pin(container::rename(app, flags)),
        Action::ContainerRestart => Box::pin(container::restart(app, flags)),
        Action::ContainerRm => Box::pin(container::rm(app, flags)),
        Action::ContainerRun => Box::pin(run::run(app, flags)),
        Action::ContainerStart => Box::pin(container::start(app, flags)),
        Action::ContainerStats => Box::pin(container::stats(app, flags)),
        Action::ContainerStop => Box::pin(container::stop(app, flags)),
        Action::ContainerTop => Box::pin(container::top(app, flags)),
        Action::ContainerUnpause => Box::pin(container::unpause(app, flags)),
        Action::ContainerUpdate => Box::pin(container::update(app, flags)),
        Action::ContainerWait => Box::pin(container::wait(app, flags)),
        Action::ContextCreate => Box::pin(context::create(app, flags)),
        Action::ContextExport => Box::pin(context::export(app, flags)),
        Action::ContextImport => Box::pin(context::import(app, flags)),
        Action::ContextInspect => Box::pin(context::inspect(app, flags)),
        Action::ContextLs => Box::pin(context::ls(app, flags)),
        Action::ContextRm => Box::pin(context::rm(app, flags)),
        Action::ContextShow => Box::pin(context::show(app)),
        Action::ContextUpdate => Box::pin(context::update(app, flags)),
        Action::ContextUse => Box::pin(context::use_context(app, flags)),
        Action::Events => Box::pin(system::events(app, flags)),
        Action::ImageHistory => Box::pin(image::history(app, flags)),
        Action::ImageImport => Box::pin(image::import(app, flags)),
        Action::ImageInspect => Box::pin(inspect::images(app, flags)),
        Action::ImageLoad => Box::pin(image::load(app, flags)),
        Action::ImageLs => Box::pin(image::ls(app, flags)),
        Action::ImagePrune => Box::pin(image::prune(app, flags)),
        Action::ImagePull => Box::pin(image::pull(app, flags)),
        Action::ImagePush => Box::pin(image::push(app, flags)),
        Action::ImageRm => Box::pin(image::rm(app, flags)),
        Action::ImageSave => Box::pin(image::save(app, flags)),
        Action::ImageTag => Box::pin(image::tag(app, flags)),
        Action::Info => Box::pin(system::info(app, flags)),
        Action::Inspect => Box::pin(inspect::anything(app, flags)),
        Action::Login => Box::pin(account::login(app, flags)),
        Action::Logout => Box::pin(account::logout(app, flags)),
        Action::NetworkConnect => Box::pin(network::connect(app, flags)),
        Action::NetworkCreate => Box::pin(network::create(app, flags)),
        Action::NetworkDisconnect => Box::pin(network::disconnect(app, flags)),
        Action::NetworkInspect => Box::pin(inspect::networks(app, flags)),
        Action::NetworkLs => Box::pin(network::ls(app, flags)),
        Action::NetworkPrune => Box::pin(network::prune(app, flags)),
        Action::NetworkRm => Box::pin(network::rm(app, flags)),
        Action::Search => Box::pin(system::search(app, flags)),
        Action::SystemDialStdio => Box::pin(system::dial_stdio(app, flags)),
        Action::SystemCheck => Box::pin(system::check(app, flags)),
        Action::SystemDf => Box::pin(system::df(app, flags)),
        Action::SystemPrune => Box::pin(system::prune(app, flags)),
        Action::Version => Box::pin(system::version(app, flags)),
        Action::VolumeCreate => Box::pin(volume::create(app, flags)),
        Action::VolumeInspect => Box::pin(inspect::volumes(app, flags)),
        Action::VolumeLs => Box::pin(volume::ls(app, flags)),
        Action::VolumePrune => Box::pin(volume::prune(app, flags)),
        Action::VolumeRm => Box::pin(volume::rm(app, flags)),
    }
}

/// `command<TAB>flag<TAB>type`, for `cargo xtask compat`.
fn flag_table() -> String {
    let mut lines = vec![];
    let row = |path: &str, flag: &Flag| format!("{path}\t--{}\t{}\n", flag.name, flag.kind.name());
    lines.extend(GLOBAL.iter().map(|flag| row("docker", flag)));
    for command in COMMANDS {
        for path in command.paths {
            let flags = command.flags.iter().flat_map(|group| group.iter());
            lines.push(format!("docker {path}\t\t\n"));
            lines.extend(flags.map(|flag| row(&format!("docker {path}"), flag)));
        }
    }
    lines.concat()
}
