//! Dockerfile instructions that change an image's config: `--change` of import and commit.
//!
//! Pure: text in, config out. Only instructions that need no build are accepted; one change may
//! hold several lines. The words (variables, quotes) are read by `words`.

mod instructions;
mod words;

use spec::oci::RunConfig;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("{instruction} is not a valid change command")]
    NotAllowed { instruction: String },
    #[error("{instruction} requires at least one argument")]
    NoArgument { instruction: &'static str },
    #[error("{instruction} requires exactly one argument")]
    NotOneArgument { instruction: &'static str },
    #[error("{instruction} must have two arguments")]
    NotTwoArguments { instruction: &'static str },
    #[error("{instruction} names can not be blank")]
    BlankName { instruction: &'static str },
    #[error("Syntax error - can't find = in {word:?}. Must be of the form: name=value")]
    NoEquals { word: String },
    #[error("unexpected end of statement while looking for matching {quote}")]
    OpenQuote { quote: &'static str },
    #[error("failed to process {word:?}: {reason}")]
    Substitution { word: String, reason: &'static str },
    #[error("Invalid containerPort: {port}")]
    Port { port: String },
    #[error("Invalid proto: {proto}")]
    Protocol { proto: String },
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("invalid signal: {signal}")]
    Signal { signal: String },
    #[error("Unknown type {word:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType { word: String },
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    #[error("Unknown flag: {flag}")]
    Flag { flag: String },
    #[error("invalid value {value:?} of {flag}")]
    FlagValue { flag: &'static str, value: String },
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnBuildChain,
    #[error("{instruction} isn't allowed as an ONBUILD trigger")]
    OnBuildTrigger { instruction: String },
    #[error("file with no instructions")]
    NoInstructions,
    #[error("a change must not contain a zero byte")]
    ZeroByte,
}

/// Applies changes in order. After an error the config is in an undefined state.
pub fn apply<S: AsRef<str>>(config: &mut RunConfig, changes: &[S]) -> Result<(), ChangeError> {
    let mut count = 0;
    for change in changes {
        let change = change.as_ref();
        if change.contains('\0') {
            return Err(ChangeError::ZeroByte);
        }
        for line in logical_lines(change) {
            instructions::apply(config, &line)?;
            count += 1;
        }
    }
    if count == 0 && !changes.is_empty() { Err(ChangeError::NoInstructions) } else { Ok(()) }
}

/// Joins continued lines; drops empty lines and comments, also between continued ones.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.trim().is_empty() {
        lines.push(open);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: &str, expect: &str) {
        let mut config = RunConfig::default();
        let got = match apply(&mut config, &[change]) {
            Ok(()) => serde_json::to_string(&config).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{change}");
    }

    #[test]
    fn l05_only_config_instructions_are_accepted() {
        for name in ["FROM", "RUN", "ADD", "COPY", "ARG", "SHELL", "MAINTAINER", "FOO"] {
            check(&format!("{name} x"), &format!("{name} is not a valid change command"));
        }
        check("from", "FROM is not a valid change command");
        check("CMD a\nRUN x", "RUN is not a valid change command");
        check("CMD a\r\nFROM x", "FROM is not a valid change command");
        check("CMD a\\\nRUN x", r#"{"Cmd":["/bin/sh","-c","aRUN x"]}"#);
        check("CMD a\0b", "a change must not contain a zero byte");
        check("", "file with no instructions");
        check("# comment\n\n", "file with no instructions");
        check("# comment\nUSER a", r#"{"User":"a"}"#);
    }

    #[test]
    fn commands_are_lists_or_shell_lines() {
        check("CMD echo  hi", r#"{"Cmd":["/bin/sh","-c","echo  hi"]}"#);
        check(r#"CMD ["a","b c"]"#, r#"{"Cmd":["a","b c"]}"#);
        check(r#"ENTRYPOINT ["a"]"#, r#"{"Entrypoint":["a"]}"#);
        check("entrypoint a", r#"{"Entrypoint":["/bin/sh","-c","a"]}"#);
        check("CMD [not json", r#"{"Cmd":["/bin/sh","-c","[not json"]}"#);
        check(r#"ONBUILD RUN x"#, r#"{"OnBuild":["RUN x"]}"#);
        check("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
        check("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger");
        check("ONBUILD", "ONBUILD requires at least one argument");
    }

    #[test]
    fn variables_and_labels() {
        check("ENV a=b c=\"d e\" f=g\\ h", r#"{"Env":["a=b","c=d e","f=g h"]}"#);
        check("ENV a b  c", r#"{"Env":["a=b  c"]}"#);
        check("ENV a=1\nENV b=$a${a}\\$a a=2", r#"{"Env":["a=2","b=11$a"]}"#);
        check("ENV a=${x:-y}${x:+z} b='$a'", r#"{"Env":["a=y","b=$a"]}"#);
        check("ENV", "ENV requires at least one argument");
        check("ENV a", "ENV must have two arguments");
        check("ENV =b", "ENV names can not be blank");
        check("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value");
        check(r#"LABEL "x y"=z a=b"#, r#"{"Labels":{"a":"b","x y":"z"}}"#);
        check("ENV a=\"b", "unexpected end of statement while looking for matching double-quote");
    }

    #[test]
    fn ports_volumes_and_the_rest() {
        check("EXPOSE 80 53/udp", r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{}}}"#);
        check(
            "EXPOSE 8000-8002",
            r#"{"ExposedPorts":{"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}}"#,
        );
        check("EXPOSE abc", "Invalid containerPort: abc");
        check("EXPOSE 80/abc", "Invalid proto: abc");
        check("EXPOSE 70000", "Invalid containerPort: 70000");
        check("VOLUME /a /b", r#"{"Volumes":{"/a":{},"/b":{}}}"#);
        check(r#"VOLUME ["/a b"]"#, r#"{"Volumes":{"/a b":{}}}"#);
        check("VOLUME ", "VOLUME requires at least one argument");
        check("WORKDIR a\nWORKDIR b/../c", r#"{"WorkingDir":"/a/c"}"#);
        check("WORKDIR /x/", r#"{"WorkingDir":"/x"}"#);
        check("USER a:b", r#"{"User":"a:b"}"#);
        check("USER a b", "USER requires exactly one argument");
        check("STOPSIGNAL SIGTERM", r#"{"StopSignal":"SIGTERM"}"#);
        check("STOPSIGNAL x", "invalid signal: x");
    }

    #[test]
    fn healthchecks() {
        check("HEALTHCHECK NONE", r#"{"Healthcheck":{"Test":["NONE"]}}"#);
        check(
            "HEALTHCHECK --interval=5s --retries=2 CMD curl x",
            r#"{"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":2}}"#,
        );
        check(r#"HEALTHCHECK CMD ["a"]"#, r#"{"Healthcheck":{"Test":["CMD","a"]}}"#);
        check("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)");
        check("HEALTHCHECK --x=1 CMD a", "Unknown flag: x");
        check("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
        check("HEALTHCHECK --interval=x CMD a", "invalid value \"x\" of interval");
    }
}
