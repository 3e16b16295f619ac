//! From arguments to [`Parsed`], as pflag reads them.
//!
//! `--name value`, `--name=value`, `-nvalue`, `-n value`, `-n=value`, `-abc` for several switches;
//! switches take a value only after `=`. `--` ends the flags. A command that is not interspersed
//! takes everything from its first argument on as arguments.

use super::checks::check;
use super::{Flag, Kind, Parsed, lookup, lookup_short};

/// The sentence printed above the usage line; docker's exit code for it is 125.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ParseError(pub String);

pub(crate) fn parse(
    flags: &'static [&'static [Flag]],
    interspersed: bool,
    arguments: &[String],
) -> Result<Parsed, ParseError> {
    let parsed = Parsed {
        flags,
        values: Vec::new(),
        args: Vec::new(),
        help: false,
        short_help: false,
        notes: Vec::new(),
    };
    let mut parser = Parser { parsed, rest: arguments };
    parser.run(interspersed)?;
    Ok(parser.parsed)
}

struct Parser<'a> {
    parsed: Parsed,
    rest: &'a [String],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn run(&mut self, interspersed: bool) -> Result<(), ParseError> {
        while let Some(argument) = self.next() {
            if argument == "--" {
                self.take_the_rest();
            } else if let Some(long) = argument.strip_prefix("--") {
                self.long(argument, long)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                self.shorts(argument)?;
            } else {
                self.parsed.args.push(argument.to_owned());
                if !interspersed {
                    self.take_the_rest();
                }
            }
        }
        Ok(())
    }

    fn take_the_rest(&mut self) {
        self.parsed.args.extend(self.rest.iter().cloned());
        self.rest = &[];
    }

    fn long(&mut self, argument: &str, long: &str) -> Result<(), ParseError> {
        if long.starts_with(['-', '=']) {
            return Err(ParseError(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let Some(flag) = lookup(self.parsed.flags, name) else {
            if name == "help" {
                self.parsed.help = true;
                return Ok(());
            }
            return Err(ParseError(format!("unknown flag: --{name}")));
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true",
            None => self
                .next()
                .ok_or_else(|| ParseError(format!("flag needs an argument: --{name}")))?,
        };
        self.set(flag, value)
    }

    fn shorts(&mut self, argument: &str) -> Result<(), ParseError> {
        let mut letters = &argument[1..];
        while let Some(letter) = letters.chars().next() {
            let after = &letters[letter.len_utf8()..];
            let Some(flag) = lookup_short(self.parsed.flags, letter) else {
                if letter == 'h' {
                    self.parsed.help = true;
                    self.parsed.short_help = true;
                    letters = after;
                    continue;
                }
                return Err(ParseError(format!(
                    "unknown shorthand flag: {letter:?} in -{letters}"
                )));
            };
            if let Some(value) = after.strip_prefix('=') {
                return self.set(flag, value);
            }
            if flag.kind == Kind::Bool {
                self.set(flag, "true")?;
                letters = after;
                continue;
            }
            let value = if after.is_empty() {
                self.next().ok_or_else(|| {
                    ParseError(format!("flag needs an argument: {letter:?} in -{letters}"))
                })?
            } else {
                after
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), ParseError> {
        let values = check(flag.kind, value).map_err(|reason| {
            ParseError(format!(
                "invalid argument {value:?} for \"{}\" flag: {reason}",
                flag.label()
            ))
        })?;
        if !flag.deprecated.is_empty() {
            let note = format!("Flag --{} has been deprecated, {}", flag.name, flag.deprecated);
            self.parsed.notes.push(note);
        }
        match self.parsed.values.iter_mut().find(|(name, _)| *name == flag.name) {
            Some((_, list)) => list.extend(values),
            None => self.parsed.values.push((flag.name, values)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::flag;

    static FLAGS: &[&[Flag]] = &[&[
        flag("all", "a", Kind::Bool, "", ""),
        flag("last", "n", Kind::Int, "-1", ""),
        flag("env", "e", Kind::List, "", ""),
        flag("tty", "t", Kind::Bool, "", ""),
        flag("sig-proxy", "", Kind::Bool, "true", ""),
    ]];

    fn run(interspersed: bool, line: &str) -> Result<Parsed, ParseError> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(FLAGS, interspersed, &arguments)
    }

    fn check_args(line: &str, expect: &[&str]) {
        assert_eq!(run(false, line).unwrap().args, expect, "{line}");
    }

    fn check_error(line: &str, expect: &str) {
        assert_eq!(run(true, line).unwrap_err().0, expect, "{line}");
    }

    #[test]
    fn every_spelling_means_the_same() {
        for line in ["-n 5", "-n5", "-n=5", "--last 5", "--last=5", "-atn5", "-a -n 7 -n 5"] {
            assert_eq!(run(true, line).unwrap().int("last"), 5, "{line}");
        }
        assert_eq!(run(true, "x").unwrap().int("last"), -1);
        assert_eq!(run(true, "-e a -e=b -ec --env=d").unwrap().list("env"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn switches_take_values_after_an_equals_sign_only() {
        let parsed = run(true, "-a=false --tty=1 --sig-proxy=f x").unwrap();
        assert!(!parsed.bool("all") && parsed.bool("tty") && !parsed.bool("sig-proxy"));
        assert_eq!(parsed.args, ["x"]);
        assert!(run(true, "x").unwrap().bool("sig-proxy"));
        assert!(parsed.changed("all") && !parsed.changed("env"));
    }

    #[test]
    fn the_commands_own_flags_are_left_alone() {
        check_args("-a image -n 5 --foo", &["image", "-n", "5", "--foo"]);
        check_args("-- -a", &["-a"]);
        check_args("- -a", &["-", "-a"]);
        assert_eq!(run(true, "x -a y -- -t").unwrap().args, ["x", "y", "-t"]);
    }

    #[test]
    fn mistakes_are_named_as_pflag_names_them() {
        check_error("--foo", "unknown flag: --foo");
        check_error("-az", "unknown shorthand flag: 'z' in -z");
        check_error("-dfoo", "unknown shorthand flag: 'd' in -dfoo");
        check_error("--last", "flag needs an argument: --last");
        check_error("-an", "flag needs an argument: 'n' in -n");
        check_error("---", "bad flag syntax: ---");
        check_error("--=x", "bad flag syntax: --=x");
        check_error(
            "-n x",
            "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": \
             invalid syntax",
        );
        check_error(
            "-a=maybe",
            "invalid argument \"maybe\" for \"-a, --all\" flag: strconv.ParseBool: parsing \
             \"maybe\": invalid syntax",
        );
    }
}
