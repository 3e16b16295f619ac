//! What each instruction does to the config.

use spec::oci::{Empty, Healthcheck, RunConfig};
use spec::time::parse_duration;

use super::ChangeError;
use super::words::{Words, expand};

/// Applies one logical line.
pub(super) fn apply(config: &mut RunConfig, line: &str) -> Result<(), ChangeError> {
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest = rest.trim();
    let instruction = word.to_ascii_uppercase();
    match instruction.as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => env(config, rest)?,
        "LABEL" => label(config, rest)?,
        "EXPOSE" => expose(config, rest)?,
        "VOLUME" => volume(config, rest)?,
        "WORKDIR" => workdir(config, rest)?,
        "USER" => config.user = Some(one(config, "USER", rest)?),
        "STOPSIGNAL" => config.stop_signal = Some(stop_signal(config, rest)?),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "ONBUILD" => on_build(config, rest)?,
        _ => return Err(ChangeError::NotAllowed { instruction }),
    }
    Ok(())
}

/// A JSON list is the command itself, anything else a line for the shell.
fn command(rest: &str) -> Option<Vec<String>> {
    if let Some(list) = json_list(rest) {
        return Some(list);
    }
    if rest.is_empty() {
        return None;
    }
    Some(["/bin/sh", "-c", rest].map(str::to_owned).to_vec())
}

fn json_list(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

fn env_of(config: &RunConfig) -> Vec<String> {
    config.env.clone().unwrap_or_default()
}

fn env(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    for (name, value) in pairs(config, "ENV", rest)? {
        let list = config.env.get_or_insert_default();
        let entry = format!("{name}={value}");
        let same_name = |other: &&mut String| {
            other.strip_prefix(&name).is_some_and(|rest| rest.starts_with('='))
        };
        match list.iter_mut().find(same_name) {
            Some(other) => *other = entry,
            None => list.push(entry),
        }
    }
    Ok(())
}

fn label(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    for (name, value) in pairs(config, "LABEL", rest)? {
        config.labels.get_or_insert_default().insert(name, value);
    }
    Ok(())
}

/// `name=value ...`, or the old form `name rest of the line`.
fn pairs(
    config: &RunConfig,
    instruction: &'static str,
    rest: &str,
) -> Result<Vec<(String, String)>, ChangeError> {
    let env = env_of(config);
    let words = Words::split(rest)?;
    let first = words.first().ok_or(ChangeError::NoArgument { instruction })?;
    if !first.contains('=') {
        let (name, value) =
            rest.split_once([' ', '\t']).ok_or(ChangeError::NotTwoArguments { instruction })?;
        return Ok(vec![(expand(name, &env)?, expand(value.trim(), &env)?)]);
    }
    let pair = |word: &str| {
        let (name, value) =
            word.split_once('=').ok_or_else(|| ChangeError::NoEquals { word: word.to_owned() })?;
        if name.is_empty() {
            return Err(ChangeError::BlankName { instruction });
        }
        Ok((expand(name, &env)?, expand(value, &env)?))
    };
    words.iter().map(pair).collect()
}

/// All words, expanded; at least one.
fn list(
    config: &RunConfig,
    instruction: &'static str,
    rest: &str,
) -> Result<Vec<String>, ChangeError> {
    let words = match json_list(rest) {
        Some(list) => list,
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    if words.is_empty() {
        return Err(ChangeError::NoArgument { instruction });
    }
    let env = env_of(config);
    words.iter().map(|word| expand(word, &env)).collect()
}

fn one(config: &RunConfig, instruction: &'static str, rest: &str) -> Result<String, ChangeError> {
    let words = Words::split(rest)?;
    match words.iter().as_slice() {
        [word] => expand(word, &env_of(config)),
        _ => Err(ChangeError::NotOneArgument { instruction }),
    }
}

fn expose(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    for word in list(config, "EXPOSE", rest)? {
        let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(ChangeError::Protocol { proto: protocol });
        }
        // `host:container` says something about the host only when a container is made.
        let ports = ports.rsplit_once(':').map_or(ports, |(_host, ports)| ports);
        let error = || ChangeError::Port { port: ports.to_owned() };
        let number = |text: &str| text.parse::<u16>().map_err(|_range| error());
        let (low, high) = match ports.split_once('-') {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(ports)?, number(ports)?),
        };
        if low > high {
            return Err(error());
        }
        let exposed = config.exposed_ports.get_or_insert_default();
        exposed.extend((low..=high).map(|port| (format!("{port}/{protocol}"), Empty {})));
    }
    Ok(())
}

fn volume(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    for path in list(config, "VOLUME", rest)? {
        if path.trim().is_empty() {
            return Err(ChangeError::EmptyVolume);
        }
        config.volumes.get_or_insert_default().insert(path, Empty {});
    }
    Ok(())
}

/// Relative paths go on from the directory so far.
fn workdir(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    if rest.is_empty() {
        return Err(ChangeError::NotOneArgument { instruction: "WORKDIR" });
    }
    let wanted = expand(rest, &env_of(config))?;
    let mut parts: Vec<&str> = Vec::new();
    let before = config.working_dir.clone().unwrap_or_default();
    let base = if wanted.starts_with('/') { "" } else { before.as_str() };
    for part in base.split('/').chain(wanted.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    config.working_dir = Some(format!("/{}", parts.join("/")));
    Ok(())
}

fn stop_signal(config: &RunConfig, rest: &str) -> Result<String, ChangeError> {
    const NAMES: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF \
                         PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 \
                         VTALRM WINCH XCPU XFSZ";
    let signal = one(config, "STOPSIGNAL", rest)?;
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = name
        .strip_prefix("RTMIN")
        .or_else(|| name.strip_prefix("RTMAX"))
        .is_some_and(|rest| rest.is_empty() || rest.parse::<i8>().is_ok());
    let known = name.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
        || NAMES.split_whitespace().any(|known| known == name)
        || real_time;
    if known { Ok(signal) } else { Err(ChangeError::Signal { signal }) }
}

fn healthcheck(rest: &str) -> Result<Healthcheck, ChangeError> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once([' ', '\t']).unwrap_or((flag, ""));
        healthcheck_flag(&mut check, flag)?;
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let command = command.trim();
    check.test = Some(match kind.to_ascii_uppercase().as_str() {
        "" => return Err(ChangeError::NoArgument { instruction: "HEALTHCHECK" }),
        "NONE" if command.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(ChangeError::HealthcheckNone),
        "CMD" if command.is_empty() => return Err(ChangeError::HealthcheckCommand),
        "CMD" => match json_list(command) {
            Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(ChangeError::HealthcheckType { word: kind.to_owned() }),
    });
    Ok(check)
}

fn healthcheck_flag(check: &mut Healthcheck, flag: &str) -> Result<(), ChangeError> {
    let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
    let duration = |flag: &'static str| {
        let nanos = parse_duration(value).ok().filter(|nanos| *nanos >= 0);
        nanos.ok_or_else(|| ChangeError::FlagValue { flag, value: value.to_owned() })
    };
    match name {
        "interval" => check.interval = duration("interval")?,
        "timeout" => check.timeout = duration("timeout")?,
        "start-period" => check.start_period = duration("start-period")?,
        "start-interval" => check.start_interval = duration("start-interval")?,
        "retries" => {
            let retries = value.parse().ok().filter(|retries| *retries >= 0);
            check.retries = retries.ok_or_else(|| ChangeError::FlagValue {
                flag: "retries",
                value: value.to_owned(),
            })?;
        }
        _ => return Err(ChangeError::Flag { flag: name.to_owned() }),
    }
    Ok(())
}

fn on_build(config: &mut RunConfig, rest: &str) -> Result<(), ChangeError> {
    let word = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match word.as_str() {
        "" => return Err(ChangeError::NoArgument { instruction: "ONBUILD" }),
        "ONBUILD" => return Err(ChangeError::OnBuildChain),
        "FROM" | "MAINTAINER" => return Err(ChangeError::OnBuildTrigger { instruction: word }),
        _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
    }
    Ok(())
}
