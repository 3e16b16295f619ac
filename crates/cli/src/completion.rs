//! Shell completion, from the command table: `completion SHELL` prints a script that asks the hidden
//! `__complete WORD...` what the last word may become.
//!
//! An answer is one candidate a line, with its description behind a tab, or the one line `:files`.
//! What an argument is comes from the command's usage: `CONTAINER`, `IMAGE`, `NETWORK`, ...

use std::time::Duration;

use api_types::{container, image, volume};
use client::Request;
use client::contexts::ContextStore;
use serde::Deserialize;

use crate::app::App;
use crate::commands::{COMMANDS, Command, GLOBAL, GROUPS, find};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed, lookup, lookup_short};
use crate::output;

/// A daemon that does not answer must not hang the shell.
const PATIENCE: Duration = Duration::from_secs(1);

static GLOBAL_FLAGS: &[&[Flag]] = &[GLOBAL];

const BASH: &str = r#"# bash completion for PROGRAM; load it with: source <(PROGRAM completion bash)
_PROGRAM_complete() {
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} current prefix candidate
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    # Bash breaks words at colons and equals signs, and replaces what is behind them.
    case $current in
    *[:=]) prefix=$current ;;
    *[:=]*) prefix=${current%"$word"} ;;
    *) prefix= ;;
    esac
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o default 2> /dev/null
            return
        fi
        COMPREPLY+=("${candidate#"$prefix"}")
    done < <("${words[0]}" __complete "${words[@]:1}" 2> /dev/null)
}
complete -F _PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion for PROGRAM; load it with: source <(PROGRAM completion zsh)
_PROGRAM() {
    local -a lines candidates
    local line
    lines=("${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ ${lines[1]} == ":files" ]]; then
        _files
        return
    fi
    for line in "${lines[@]}"; do
        [[ -n $line ]] && candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe 'PROGRAM' candidates
}
compdef _PROGRAM PROGRAM
# Loaded by name, this file is the first call.
if [[ ${funcstack[1]} == _PROGRAM ]]; then
    _PROGRAM
fi
"#;

const FISH: &str = r#"# fish completion for PROGRAM; load it with: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] 2> /dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

/// `completion SHELL`.
pub(crate) fn script(program: &str, arguments: &[&str]) -> Outcome {
    let usage = format!(
        "Usage:  {program} completion SHELL\n\nGenerate the autocompletion script for the specified \
         shell (bash, zsh or fish)\n"
    );
    let script = match arguments {
        ["bash"] => BASH,
        ["zsh"] => ZSH,
        ["fish"] => FISH,
        ["--help" | "-h"] => {
            output::print(&usage)?;
            return Ok(0);
        }
        ["powershell"] => {
            return Err(Failure::new(format!(
                "{program}: completion for powershell is not supported; there is bash, zsh and fish"
            )));
        }
        [other] => {
            return Err(Failure::new(format!("{program}: unknown shell: {other}\n\n{usage}")));
        }
        _ => {
            return Err(Failure::new(format!(
                "{program}: '{program} completion' requires 1 argument\n\n{usage}"
            )));
        }
    };
    output::print(&script.replace("PROGRAM", program))?;
    Ok(0)
}

/// `__complete WORD...`: the last word is the one to complete.
pub(crate) fn complete(program: &'static str, words: &[String]) -> Outcome {
    let (last, before) = words.split_last().map_or(("", words), |(last, rest)| (last, rest));
    let wanted = wanted(before, last);
    let candidates = match wanted {
        Wanted::Files => {
            output::print(":files\n")?;
            return Ok(0);
        }
        Wanted::Fixed(candidates) => candidates,
        Wanted::Names(names) => live(program, before, names),
    };
    let lines: String = candidates
        .iter()
        .filter(|(name, _about)| name.starts_with(last))
        .map(|(name, about)| format!("{name}\t{about}\n"))
        .collect();
    output::print(&lines)?;
    Ok(0)
}

type Candidates = Vec<(String, String)>;

#[derive(Debug, PartialEq)]
enum Wanted {
    Fixed(Candidates),
    Names(&'static [Names]),
    Files,
}

/// Things with names that only the daemon (or the context store) knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Containers,
    Running,
    Images,
    Networks,
    Volumes,
    Contexts,
}

/// Decides from the words before what the last one can be.
fn wanted(before: &[String], last: &str) -> Wanted {
    let (used, pending) = skip_flags(GLOBAL_FLAGS, before, true);
    if let Some(flag) = pending {
        return of_flag("", flag);
    }
    let words: Vec<&str> = before[used..].iter().map(String::as_str).collect();
    let is_group = |word: &str| GROUPS.iter().any(|group| group.name == word);
    let (path, rest) = match words.as_slice() {
        [] if last.starts_with('-') => return Wanted::Fixed(flags(GLOBAL_FLAGS)),
        [] => return Wanted::Fixed(top_level()),
        ["completion"] => return fixed(&["bash", "fish", "zsh"]),
        [group] if is_group(group) => return Wanted::Fixed(in_group(group)),
        [group, command, rest @ ..] if is_group(group) => (format!("{group} {command}"), rest),
        [command, rest @ ..] => ((*command).to_owned(), rest),
    };
    let Some((command, _path)) = find(&path) else { return Wanted::Files };
    let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
    in_command(command, &rest, last)
}

fn in_command(command: &Command, rest: &[String], last: &str) -> Wanted {
    let (mut used, mut arguments) = (0, 0);
    loop {
        let (count, pending) = skip_flags(command.flags, &rest[used..], true);
        if let Some(flag) = pending {
            return of_flag(command.paths[0], flag);
        }
        used += count;
        if used >= rest.len() {
            break;
        }
        arguments += 1;
        used += 1;
        if !command.interspersed {
            arguments += rest.len() - used;
            break;
        }
    }
    if last.starts_with('-') && (command.interspersed || arguments == 0) {
        return Wanted::Fixed(flags(command.flags));
    }
    of_argument(command, arguments)
}

/// Counts the words that are flags and their values; names the flag whose value comes next.
fn skip_flags(
    groups: &'static [&'static [Flag]],
    words: &[String],
    stop_at_argument: bool,
) -> (usize, Option<&'static Flag>) {
    let mut used = 0;
    while let Some(word) = words.get(used) {
        let is_flag = word.starts_with('-') && word.len() > 1;
        if !is_flag && stop_at_argument {
            break;
        }
        used += 1;
        let Some(flag) = takes_next(groups, word) else { continue };
        if used == words.len() {
            return (used, Some(flag));
        }
        used += 1;
    }
    (used, None)
}

/// The flag of a word, when its value is the next word.
fn takes_next(groups: &'static [&'static [Flag]], word: &str) -> Option<&'static Flag> {
    let flag = match word.strip_prefix("--") {
        Some(name) => lookup(groups, name),
        // Of `-itv` only the last can take the next word.
        None => word.chars().last().and_then(|letter| lookup_short(groups, letter)),
    };
    flag.filter(|flag| flag.kind != Kind::Bool)
}

fn fixed(words: &[&str]) -> Wanted {
    Wanted::Fixed(words.iter().map(|word| ((*word).to_owned(), String::new())).collect())
}

/// What the value of a flag can be.
fn of_flag(path: &str, flag: &Flag) -> Wanted {
    match (path, flag.name) {
        ("", "context") | ("context create", "from") => Wanted::Names(&[Names::Contexts]),
        ("", "log-level") => fixed(&["debug", "info", "warn", "error", "fatal"]),
        (_, "network" | "net") => Wanted::Names(&[Names::Networks]),
        (_, "volumes-from" | "link") => Wanted::Names(&[Names::Containers]),
        (_, "restart") => fixed(&["always", "no", "on-failure", "unless-stopped"]),
        (_, "pull") => fixed(&["always", "missing", "never"]),
        (_, "format") => fixed(&["json"]),
        _ => Wanted::Files,
    }
}

/// What the argument with this number can be, by the command's usage.
fn of_argument(command: &Command, number: usize) -> Wanted {
    const RUNNING: &[&str] = &["attach", "exec", "kill", "pause", "port", "stop", "top"];
    let mut words = command.usage.split_whitespace().filter(|word| *word != "[OPTIONS]");
    let mut word = "";
    for _ in 0..=number {
        match words.next() {
            Some(next) => word = next,
            // `CONTAINER [CONTAINER...]` goes on for ever.
            None if word.contains("...") => {}
            None => return fixed(&[]),
        }
    }
    let name = word.trim_matches(['[', ']', '.']);
    let short = command.paths.last().copied().unwrap_or_default();
    match name {
        "CONTAINER" if RUNNING.contains(&short) => Wanted::Names(&[Names::Running]),
        "CONTAINER" => Wanted::Names(&[Names::Containers]),
        "NETWORK" => Wanted::Names(&[Names::Networks]),
        "VOLUME" if command.paths[0] != "volume create" => Wanted::Names(&[Names::Volumes]),
        "CONTEXT"
            if command.paths[0] != "context create" && command.paths[0] != "context import" =>
        {
            Wanted::Names(&[Names::Contexts])
        }
        "NAME|ID" => Wanted::Names(&[Names::Containers, Names::Images]),
        name if name.contains("IMAGE") || name.starts_with("NAME[") => {
            Wanted::Names(&[Names::Images])
        }
        _ => Wanted::Files,
    }
}

fn top_level() -> Candidates {
    let groups = GROUPS.iter().map(|group| (group.name.to_owned(), group.about.to_owned()));
    let commands = COMMANDS.iter().flat_map(|command| {
        let short = command.short();
        let paths = command.paths.iter().filter(|path| !path.contains(' '));
        paths.map(move |path| ((*path).to_owned(), short.to_owned()))
    });
    let mut all: Candidates = groups.chain(commands).collect();
    all.sort_unstable();
    all
}

fn in_group(group: &str) -> Candidates {
    let mut all: Candidates = COMMANDS
        .iter()
        .filter_map(|command| {
            let mut paths = command.paths.iter();
            let name = paths
                .find_map(|path| path.strip_prefix(group)?.strip_prefix(' '))
                .map(str::to_owned)?;
            Some((name, command.short().to_owned()))
        })
        .collect();
    all.sort_unstable();
    all
}

fn flags(groups: &'static [&'static [Flag]]) -> Candidates {
    let visible = groups.iter().flat_map(|group| group.iter()).filter(|flag| !flag.hidden);
    let mut all: Candidates = visible
        .map(|flag| {
            let about = flag.help.lines().next().unwrap_or_default();
            (format!("--{}", flag.name), about.to_owned())
        })
        .collect();
    all.push(("--help".to_owned(), "Print usage".to_owned()));
    all.sort_unstable();
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

/// Asks; whatever fails offers nothing.
fn live(program: &'static str, before: &[String], names: &[Names]) -> Candidates {
    let ask = || -> Outcome<Candidates> {
        let global: Parsed = crate::flags::parse(GLOBAL_FLAGS, false, before)
            .map_err(|error| Failure::new(error.to_string()))?;
        let app = App::new(program, &global)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = runtime.block_on(async {
            let mut all = Candidates::new();
            for kind in names {
                match tokio::time::timeout(PATIENCE, names_of(&app, *kind)).await {
                    Ok(found) => all.extend(found?),
                    Err(_too_slow) => break,
                }
            }
            Ok(all)
        });
        runtime.shutdown_background();
        all
    };
    ask().unwrap_or_default()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NamedNetwork {
    name: String,
    driver: String,
}

async fn names_of(app: &App, kind: Names) -> Outcome<Candidates> {
    if kind == Names::Contexts {
        let contexts = ContextStore::new(&app.environment.config_dir()).list()?;
        let mut all: Candidates = contexts
            .into_iter()
            .map(|context| (context.name.clone(), context.description().to_owned()))
            .collect();
        all.push(("default".to_owned(), String::new()));
        all.sort_unstable();
        return Ok(all);
    }
    app.check_endpoint()?;
    Ok(match kind {
        Names::Containers | Names::Running => {
            container_names(app, kind == Names::Containers).await?
        }
        Names::Images => {
            let names = image_names(app).await?;
            names.into_iter().map(|name| (name, String::new())).collect()
        }
        Names::Networks => {
            let networks: Vec<NamedNetwork> = app.get("/networks").await?;
            networks.into_iter().map(|network| (network.name, network.driver)).collect()
        }
        Names::Volumes => {
            let list: volume::ListResponse = app.get("/volumes").await?;
            list.volumes.into_iter().map(|volume| (volume.name, volume.driver)).collect()
        }
        Names::Contexts => Vec::new(),
    })
}

/// Names of containers, with their images.
pub(crate) async fn container_names(app: &App, all: bool) -> Outcome<Candidates> {
    let request = Request::get("/containers/json").query_if(all, "all", "1");
    let containers: Vec<container::Listed> = app.client.get(request).await?;
    let named = containers.into_iter().flat_map(|container| {
        let about = container.image;
        let own = container.names.into_iter().map(|name| name.trim_start_matches('/').to_owned());
        own.filter(|name| !name.contains('/')).map(move |name| (name, about.clone()))
    });
    Ok(named.collect())
}

/// Names of images: `busybox:latest`, and `busybox` too.
pub(crate) async fn image_names(app: &App) -> Outcome<Vec<String>> {
    let images: Vec<image::Summary> = app.get("/images/json").await?;
    let mut names: Vec<String> = images
        .into_iter()
        .flat_map(|image| image.repo_tags)
        .filter(|tag| tag != "<none>:<none>")
        .flat_map(|tag| {
            let bare = tag.strip_suffix(":latest").map(str::to_owned);
            bare.into_iter().chain([tag])
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        wanted(before, last)
    }

    fn check_names(line: &str, expect: &'static [Names]) {
        assert_eq!(at(line), Wanted::Names(expect), "{line}");
    }

    fn check_fixed(line: &str, some: &str) {
        let Wanted::Fixed(candidates) = at(line) else { panic!("{line}: {:?}", at(line)) };
        assert!(candidates.iter().any(|(name, _)| name == some), "{line}: {candidates:?}");
    }

    #[test]
    fn commands_and_flags_come_from_the_table() {
        check_fixed("", "ps");
        check_fixed("", "container");
        check_fixed("-", "--host");
        check_fixed("-H unix:///x p", "ps");
        check_fixed("container ", "ls");
        check_fixed("--debug container l", "logs");
        check_fixed("run --", "--rm");
        check_fixed("run --restart ", "unless-stopped");
        check_fixed("completion ", "fish");
    }

    #[test]
    fn arguments_are_what_the_usage_says() {
        check_names("stop ", &[Names::Running]);
        check_names("rm -f a ", &[Names::Containers]);
        check_names("container exec -it ", &[Names::Running]);
        check_names("run --name x -it ", &[Names::Images]);
        check_names("run --network ", &[Names::Networks]);
        check_names("network rm ", &[Names::Networks]);
        check_names("network connect a ", &[Names::Containers]);
        check_names("volume rm ", &[Names::Volumes]);
        check_names("rmi ", &[Names::Images]);
        check_names("tag ", &[Names::Images]);
        check_names("context use ", &[Names::Contexts]);
        check_names("-c ", &[Names::Contexts]);
        check_names("inspect ", &[Names::Containers, Names::Images]);
        assert_eq!(at("run busybox "), Wanted::Files);
        assert_eq!(at("run busybox --"), Wanted::Files);
        assert_eq!(at("load -i "), Wanted::Files);
        assert_eq!(at("nonsense "), Wanted::Files);
        assert_eq!(at("context show "), fixed(&[]));
    }
}
