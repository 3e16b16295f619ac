//! Option values that live in files: environment, labels, seccomp profiles.

use std::path::{Component, Path, PathBuf};

/// Reads `--env-file` files; a bare name is passed on only when our environment has it.
pub(crate) fn read_env_files(paths: &[String]) -> Result<Vec<String>, String> {
    let own = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    read_all(paths, &own)
}

/// Reads `--label-file` files; docker leaves bare names out.
pub(crate) fn read_label_files(paths: &[String]) -> Result<Vec<String>, String> {
    read_all(paths, &|_name| None)
}

fn read_all(
    paths: &[String],
    bare: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for path in paths {
        let text = read(path)?;
        lines.extend(
            parse_lines(&text, bare)
                .map_err(|reason| format!("invalid env file ({path}): {reason}"))?,
        );
    }
    Ok(lines)
}

fn read(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| open_error(path, &error))?;
    String::from_utf8(bytes).map_err(|_binary| format!("invalid utf8 bytes in {path}"))
}

/// Go's text for a file that cannot be opened.
pub(crate) fn open_error(path: &str, error: &std::io::Error) -> String {
    format!("open {path}: {}", errno_text(error))
}

/// Go prints errno texts in lower case and without Rust's `(os error 2)`.
pub(crate) fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().collect::<String>() + letters.as_str()
    })
}

fn parse_lines(text: &str, bare: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, assigned) = line.split_once('=').map_or((line, false), |(name, _)| (name, true));
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        lines.extend(if assigned { Some(line.to_owned()) } else { bare(name) });
    }
    Ok(lines)
}

/// Replaces the path of a seccomp profile by its contents, which is what the API takes.
pub(crate) fn inline_seccomp(option: &str) -> Result<String, String> {
    let Some(path) = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"))
    else {
        return Ok(option.to_owned());
    };
    if ["unconfined", "builtin"].contains(&path) {
        return Ok(option.to_owned());
    }
    let failed = |reason: String| format!("opening seccomp profile ({path}) failed: {reason}");
    let text = std::fs::read(path).map_err(|error| failed(open_error(path, &error)))?;
    let profile = std::str::from_utf8(&text).map_err(|_binary| failed("not UTF-8".to_owned()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(profile)
        .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
    Ok(format!("seccomp={}", crate::json::compact(profile)))
}

/// Makes a path absolute and clean without looking at the disk.
pub(crate) fn absolute_path(path: &str) -> String {
    let start = std::env::current_dir().unwrap_or_else(|_unknown| PathBuf::from("/"));
    let mut out = PathBuf::new();
    for component in start.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(Path::new(other.as_os_str())),
        }
    }
    out.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_one_pair_a_line() {
        let text = "\u{feff}# note\n\n  A=1 \nB=x=y\nBARE\n";
        let own = |name: &str| (name == "BARE").then(|| "BARE=own".to_owned());
        assert_eq!(parse_lines(text, &own).unwrap(), ["A=1 ", "B=x=y", "BARE=own"]);
        assert_eq!(parse_lines("X\n", &|_| None).unwrap(), Vec::<String>::new());
        assert_eq!(
            parse_lines("A B=1\n", &own).unwrap_err(),
            "variable 'A B' contains whitespaces"
        );
        assert_eq!(parse_lines("=1\n", &own).unwrap_err(), "no variable name on line '=1'");
    }

    #[test]
    fn missing_files_read_as_go_says_it() {
        assert_eq!(
            read_env_files(&["/nope".to_owned()]).unwrap_err(),
            "open /nope: no such file or directory"
        );
        assert_eq!(
            inline_seccomp("seccomp=/nope").unwrap_err(),
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory"
        );
        assert_eq!(inline_seccomp("label=disable").unwrap(), "label=disable");
    }
}
