//! Help texts, in docker's layout.

use crate::commands::{COMMANDS, Command, GLOBAL, GROUPS, SECTIONS, find};
use crate::flags::usage::format_flags;
use crate::flags::{Flag, Kind};

/// Help of the program itself.
pub(crate) fn root(program: &str) -> String {
    let common: Vec<(&str, &str)> = SECTIONS
        .iter()
        .filter_map(|name| find(name))
        .map(|(command, path)| (path, command.short()))
        .collect();
    let groups: Vec<(&str, &str)> = GROUPS.iter().map(|group| (group.name, group.about)).collect();
    let mut others = top_level();
    others.retain(|(name, _)| !SECTIONS.contains(name));
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\nGlobal Options:\n{}\n\
         Run '{program} COMMAND --help' for more information on a command.\n\n",
        list(&common),
        list(&groups),
        list(&others),
        global_options(),
    )
}

/// Commands of one word, by name.
fn top_level() -> Vec<(&'static str, &'static str)> {
    let mut commands: Vec<_> = COMMANDS
        .iter()
        .flat_map(|command| command.paths.iter().map(|path| (*path, command.short())))
        .filter(|(path, _)| !path.contains(' '))
        .collect();
    commands.sort_unstable();
    commands
}

fn list(entries: &[(&str, &str)]) -> String {
    entries.iter().map(|(name, about)| format!("  {name:<12}{about}\n")).collect()
}

/// Four defaults depend on where the configuration is.
fn global_options() -> String {
    let home = client::config::Environment::read().config_dir();
    let with_default = |flag: &Flag| -> Option<String> {
        let path = match flag.name {
            "config" => home.clone(),
            "tlscacert" => home.join("ca.pem"),
            "tlscert" => home.join("cert.pem"),
            "tlskey" => home.join("key.pem"),
            _ => return None,
        };
        Some(path.display().to_string())
    };
    let flags: Vec<Flag> = GLOBAL
        .iter()
        .map(|flag| Flag {
            // Leaked once per help text, which ends the program.
            default: with_default(flag).map_or(flag.default, |text| text.leak()),
            name: flag.name,
            short: flag.short,
            kind: flag.kind,
            help: flag.help,
            hidden: flag.hidden,
            deprecated: flag.deprecated,
        })
        .collect();
    format_flags(&flags.iter().collect::<Vec<_>>(), width())
}

/// Help of a group, `docker container`.
pub(crate) fn group(program: &str, name: &str) -> String {
    let about = GROUPS.iter().find(|group| group.name == name).map_or("", |group| group.about);
    let prefix = format!("{name} ");
    let mut commands: Vec<(&str, &str)> = COMMANDS
        .iter()
        .filter_map(|command| {
            let path = command.paths.iter().find_map(|path| path.strip_prefix(prefix.as_str()))?;
            Some((path, command.short()))
        })
        .collect();
    commands.sort_unstable();
    let width = commands.iter().map(|(name, _)| name.len()).max().unwrap_or_default().max(11);
    let lines: String =
        commands.iter().map(|(name, about)| format!("  {name:<width$} {about}\n")).collect();
    format!(
        "Usage:  {program} {name} COMMAND\n\n{about}\n\nCommands:\n{lines}\n\
         Run '{program} {name} COMMAND --help' for more information on a command.\n"
    )
}

/// Help of a command called as `path`.
pub(crate) fn command(program: &str, command: &Command, path: &str) -> String {
    let usage = format!("{program} {path} {}", command.usage);
    let mut out = format!("Usage:  {}\n\n{}\n", usage.trim_end(), command.about);
    if command.paths.len() > 1 {
        let names: Vec<String> =
            command.paths.iter().map(|path| format!("{program} {path}")).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let help = Flag {
        name: "help",
        short: "",
        kind: Kind::Bool,
        default: "",
        help: "Print usage",
        hidden: false,
        deprecated: "",
    };
    let mut flags: Vec<&Flag> = command.flags.iter().flat_map(|group| group.iter()).collect();
    // Commands whose -h is the host name list --help, since -h does not give it.
    if flags.iter().any(|flag| flag.short == "h") {
        flags.push(&help);
    }
    if flags.iter().any(|flag| !flag.hidden) {
        out.push_str(&format!("\nOptions:\n{}", format_flags(&flags, width())));
    }
    out
}

/// One less than the terminal's width, or than 80.
fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(rustix::stdio::stdin())
        .map(|size| usize::from(size.ws_col))
        .unwrap_or(0);
    if columns == 0 { 79 } else { columns - 1 }
}
