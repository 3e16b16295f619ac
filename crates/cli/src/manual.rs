//! Manual pages, from the same table as help: the hidden `__man DIRECTORY` writes them all.

use std::path::Path;

use crate::commands::{COMMANDS, Command, GLOBAL, GROUPS};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind};
use crate::options::open_error;

/// Writes `<program>.1` and a page for every command.
pub(crate) fn write(program: &str, directory: &str) -> Outcome {
    let mut pages = vec![(program.to_owned(), root(program))];
    for command in COMMANDS {
        let name = format!("{program}-{}", command.paths[0].replace(' ', "-"));
        pages.push((name, page(program, command)));
    }
    for (name, text) in pages {
        let path = Path::new(directory).join(format!("{name}.1"));
        std::fs::write(&path, text)
            .map_err(|error| Failure::new(open_error(&path.display().to_string(), &error)))?;
    }
    Ok(0)
}

fn head(program: &str, name: &str, about: &str) -> String {
    format!(
        ".TH {} 1 \"\" \"{program} {}\" \"User Commands\"\n.SH NAME\n{} \\- {}\n",
        escape(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION"),
        escape(name),
        escape(about.trim_end_matches('.')),
    )
}

fn root(program: &str) -> String {
    let mut out = head(program, program, "A self-sufficient runtime for containers");
    out.push_str(&format!(".SH SYNOPSIS\n.B {program}\n[OPTIONS] COMMAND [ARG...]\n.SH OPTIONS\n"));
    GLOBAL.iter().for_each(|flag| out.push_str(&option(flag)));
    out.push_str(".SH COMMANDS\n");
    for group in GROUPS {
        out.push_str(&format!(".TP\n.B {}\n{}\n", group.name, escape(group.about)));
    }
    for command in COMMANDS {
        let page = command.paths[0].replace(' ', "-");
        let about = escape(command.short());
        out.push_str(&format!(".TP\n.BR {}-{} (1)\n{about}\n", escape(program), escape(&page)));
    }
    out
}

fn page(program: &str, command: &Command) -> String {
    let name = format!("{program}-{}", command.paths[0].replace(' ', "-"));
    let mut out = head(program, &name, command.short());
    out.push_str(".SH SYNOPSIS\n");
    for path in command.paths {
        out.push_str(&format!(".B {program} {path}\n{}\n.br\n", escape(command.usage)));
    }
    out.push_str(&format!(".SH DESCRIPTION\n.nf\n{}\n.fi\n", escape(command.about)));
    let mut flags: Vec<&Flag> = command.flags.iter().flat_map(|group| group.iter()).collect();
    flags.retain(|flag| !flag.hidden);
    flags.sort_by_key(|flag| flag.name);
    if !flags.is_empty() {
        out.push_str(".SH OPTIONS\n");
        flags.iter().for_each(|flag| out.push_str(&option(flag)));
    }
    out.push_str(&format!(".SH SEE ALSO\n.BR {} (1)\n", escape(program)));
    out
}

fn option(flag: &Flag) -> String {
    let short = if flag.short.is_empty() { String::new() } else { format!("-{}, ", flag.short) };
    let kind = match flag.kind {
        Kind::Bool => String::new(),
        kind => format!("={}", kind.name()),
    };
    let default = match flag.default {
        "" => String::new(),
        default => format!(" (default {default})"),
    };
    let name = escape(&format!("{short}--{}{kind}", flag.name));
    let help = escape(&format!("{}{default}", flag.help)).replace('\n', "\n.br\n");
    format!(".TP\n.B {name}\n{help}\n")
}

/// Backslashes, dashes, and lines that would be requests.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let directory = tempfile::tempdir().unwrap();
        write("boxship", &directory.path().display().to_string()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), COMMANDS.len() + 1);
        let page =
            std::fs::read_to_string(directory.path().join("boxship-container-ls.1")).unwrap();
        assert!(page.contains(".B boxship ps\n[OPTIONS]\n"), "{page}");
        assert!(page.contains(".B \\-n, \\-\\-last=int\n"), "{page}");
        assert_eq!(escape(".x\n-\\"), "\\&.x\n\\-\\e");
    }
}
