//! Flags as help shows them: names left, text right, wrapped as pflag wraps.

use super::{Flag, Kind};

/// Formats the visible flags, ordered by name, in lines of at most `width` (0 for no limit).
pub(crate) fn format_flags(flags: &[&Flag], width: usize) -> String {
    let mut visible: Vec<&Flag> = flags.iter().copied().filter(|flag| !flag.hidden).collect();
    visible.sort_by_key(|flag| flag.name);
    let heads: Vec<String> = visible.iter().map(|flag| head(flag)).collect();
    let column = heads.iter().map(String::len).max().unwrap_or_default() + 3;
    let mut out = String::new();
    for (flag, head) in visible.iter().zip(&heads) {
        let text = wrap(&text(flag), column, width);
        out.push_str(&format!("{head:column$}{text}\n"));
    }
    out
}

fn head(flag: &Flag) -> String {
    let name = match flag.short {
        "" => format!("      --{}", flag.name),
        short => format!("  -{short}, --{}", flag.name),
    };
    match flag.kind {
        Kind::Bool => name,
        kind => format!("{name} {}", kind.name()),
    }
}

fn text(flag: &Flag) -> String {
    match (flag.default, flag.kind) {
        ("", Kind::Duration) => format!("{} (default 0s)", flag.help),
        ("", _) => flag.help.to_owned(),
        (default, Kind::Text) => format!("{} (default \"{default}\")", flag.help),
        (default, _) => format!("{} (default {default})", flag.help),
    }
}

/// How far a line may run over to spare a short last word a line of its own.
const SLOP: usize = 5;

/// Breaks `text` at spaces so that it fits between `indent` and `width`.
fn wrap(text: &str, indent: usize, width: usize) -> String {
    let pad = |indent: usize| format!("\n{}", " ".repeat(indent));
    if width == 0 {
        return text.replace('\n', &pad(indent));
    }
    let (mut indent, mut out) = (indent, String::new());
    if width.saturating_sub(indent) < 24 {
        indent = 16;
        out.push_str(&pad(indent));
    }
    let room = width.saturating_sub(indent);
    if room < 24 {
        return text.replace('\n', &out);
    }
    let (first, mut rest) = break_line(text, room - SLOP);
    out.push_str(&first.replace('\n', &pad(indent)));
    while !rest.is_empty() {
        let line;
        (line, rest) = break_line(rest, room - SLOP);
        out.push_str(&pad(indent));
        out.push_str(&line.replace('\n', &pad(indent)));
    }
    out
}

/// Takes one line of at most `room` bytes off the front (a newline in it ends it early).
fn break_line(text: &str, room: usize) -> (&str, &str) {
    if room + SLOP > text.len() {
        return (text, "");
    }
    let mut end = room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let Some(space) = text[..end].rfind([' ', '\t', '\n']).filter(|at| *at > 0) else {
        return (text, "");
    };
    let newline = text[..end].rfind('\n').filter(|at| *at > 0 && *at < space);
    let at = newline.unwrap_or(space);
    (&text[..at], &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::flag;

    #[test]
    fn help_is_laid_out_as_pflag_does() {
        let last = flag(
            "last",
            "n",
            Kind::Int,
            "-1",
            "Show n last created containers (includes all states)",
        );
        let format = flag("format", "", Kind::Text, "", "Format:\n'a':   b\n'c':   d");
        let hidden = flag("x", "", Kind::Bool, "", "").hidden();
        assert_eq!(
            format_flags(&[&last, &format, &hidden], 60),
            "      --format string   Format:\n\
             \u{20}                       'a':   b\n\
             \u{20}                       'c':   d\n\
             \u{20} -n, --last int        Show n last created containers\n\
             \u{20}                       (includes all states) (default -1)\n"
        );
    }
}
