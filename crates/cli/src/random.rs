//! What people type, by chance: parsers fed with random texts, the same ones on every run.
//!
//! Two kinds of properties: nothing panics or runs for ever, whatever the text; and what was written
//! in several spellings is read as the same value. A failure prints the text it failed on.

use crate::commands::COMMANDS;
use crate::flags::{Flag, Kind, Parsed, parse};
use crate::template::{Template, from_json};

const ROUNDS: usize = 20_000;

/// Marsaglia's xorshift: no dependency, and the same numbers everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Up to `most` pieces in a row.
    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_piece| self.pick(pieces)).collect()
    }
}

const TEMPLATE_PIECES: &[&str] = &[
    "{{",
    "}}",
    "{{",
    "}}",
    "{{-",
    "-}}",
    " ",
    " ",
    "\n",
    "text",
    ".",
    ".Name",
    ".Labels",
    ".List",
    ".a.b",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "\"s\"",
    "`r`",
    "'c'",
    "\"",
    "1",
    "-2",
    "3.5",
    "0x1f",
    "true",
    "nil",
    "range",
    "if",
    "else",
    "end",
    "with",
    "define",
    "template",
    "block",
    "break",
    "json",
    "split",
    "join",
    "upper",
    "lower",
    "title",
    "pad",
    "println",
    "printf",
    "\"%s\"",
    "\"%-5d|%v\"",
    "truncate",
    "index",
    "len",
    "eq",
    "ne",
    "lt",
    "and",
    "or",
    "not",
    "slice",
    "html",
    "/*",
    "*/",
    "é",
    "\u{0}",
    "{",
    "}",
];

#[test]
fn templates_of_any_text_end_in_an_answer() {
    let json = br#"{"Name":"web","Labels":{"a":"b"},"List":[1,"x",null,[2.5]],"a":{"b":true}}"#;
    let data = from_json(json, "").unwrap();
    let mut random = Random::new(1);
    let mut rendered = 0;
    for _ in 0..ROUNDS {
        let text = random.text(TEMPLATE_PIECES, 12);
        match Template::parse(&text) {
            Ok(template) => match template.render(&data) {
                Ok(_output) => rendered += 1,
                Err(error) => assert!(error.0.starts_with("template: "), "{text:?}: {error}"),
            },
            Err(error) => assert!(error.0.starts_with("template: "), "{text:?}: {error}"),
        }
    }
    assert!(rendered > ROUNDS / 100, "only {rendered} templates were any good");
}

#[test]
fn one_action_of_any_words_ends_in_an_answer() {
    let data = from_json(br#"{"Name":"web","List":[1,"x"]}"#, "").unwrap();
    let mut random = Random::new(2);
    for _ in 0..ROUNDS {
        let words: Vec<&str> =
            (0..=random.below(5)).map(|_word| random.pick(&TEMPLATE_PIECES[10..])).collect();
        let text = format!("{{{{{}}}}}", words.join(" "));
        if let Ok(template) = Template::parse(&text) {
            let _any_answer = template.render(&data);
        }
    }
}

#[test]
fn deep_templates_are_refused() {
    for piece in ["(", "{{if 1}}", "{{range .}}", "{{if 1}}{{else if 1}}", "{{if 1}}{{else}}"] {
        let text = match piece.starts_with("{{") {
            true => piece.repeat(50_000),
            false => format!("{{{{{}}}}}", piece.repeat(50_000)),
        };
        assert!(Template::parse(&text).is_err(), "{piece}");
    }
    let chain = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}x".repeat(50_000));
    assert!(Template::parse(&chain).is_err());
}

#[test]
fn texts_without_actions_stay_as_they_are() {
    let data = from_json(b"{}", "").unwrap();
    let mut random = Random::new(3);
    for _ in 0..ROUNDS {
        let text = random.text(&["a", " ", "\n", "}}", "{", "\\", "é", "%d", "\t"], 10);
        if !text.contains("{{") {
            assert_eq!(Template::parse(&text).unwrap().render(&data).unwrap(), text);
        }
    }
}

const ARGUMENT_PIECES: &[&str] = &[
    "-",
    "--",
    "=",
    "-a",
    "-it",
    "-q",
    "--all",
    "--format",
    "--filter",
    "--memory",
    "--env",
    "-e",
    "-p",
    "--publish",
    "--mount",
    "--network",
    "--cpus",
    "--ulimit",
    "--label",
    "x",
    "1",
    "0x",
    "9",
    "64m",
    "1.5",
    "a=b",
    "type=bind",
    "80:80",
    "true",
    "false",
    ",",
    ":",
    "/",
    "\"",
    " ",
    "é",
    "",
    "10s",
    "-1",
    "host",
    "[::1]",
    "K=",
];

/// Calls the getter that the command would call.
fn read(parsed: &Parsed, flag: &Flag) {
    match flag.kind {
        Kind::Bool => drop(parsed.bool(flag.name)),
        Kind::Int => drop(parsed.int(flag.name)),
        Kind::Bytes | Kind::SwapBytes => drop(parsed.bytes(flag.name)),
        Kind::Duration => drop(parsed.duration(flag.name)),
        Kind::Map | Kind::Pairs => drop(parsed.map(flag.name)),
        Kind::Filter => drop(parsed.filters()),
        _ => drop(parsed.list(flag.name).to_vec()),
    }
}

#[test]
fn arguments_of_any_text_are_read_or_refused() {
    let mut random = Random::new(4);
    for round in 0..ROUNDS {
        let command = COMMANDS[round % COMMANDS.len()];
        let arguments: Vec<String> =
            (0..random.below(6)).map(|_argument| random.text(ARGUMENT_PIECES, 4)).collect();
        let Ok(parsed) = parse(command.flags, command.interspersed, &arguments) else { continue };
        for flag in command.flags.iter().flat_map(|group| group.iter()) {
            if flag.name != "filter" || flag.kind == Kind::Filter {
                read(&parsed, flag);
            }
        }
    }
}

#[test]
fn every_flag_is_the_same_in_every_spelling() {
    let mut random = Random::new(5);
    let values = ["1", "64m", "10s", "a=b", "x", "true", "", "a,b", "80", "k=v,l=w", "-1"];
    for command in COMMANDS {
        for flag in command.flags.iter().flat_map(|group| group.iter()) {
            let value = random.pick(&values);
            let mut spellings = vec![vec![format!("--{}={value}", flag.name)]];
            if flag.kind != Kind::Bool {
                spellings.push(vec![format!("--{}", flag.name), value.to_owned()]);
            }
            if !flag.short.is_empty() {
                spellings.push(vec![format!("-{}={value}", flag.short)]);
            }
            let read = |arguments: &Vec<String>| {
                parse(command.flags, true, arguments)
                    .map(|parsed| parsed.list(flag.name).to_vec())
                    .map_err(|error| error.0)
            };
            let results: Vec<_> = spellings.iter().map(read).collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{spellings:?} {results:?}");
        }
    }
}

#[test]
fn what_is_behind_two_dashes_is_never_a_flag() {
    let mut random = Random::new(6);
    for round in 0..ROUNDS {
        let command = COMMANDS[round % COMMANDS.len()];
        let behind: Vec<String> =
            (0..random.below(4)).map(|_argument| random.text(ARGUMENT_PIECES, 3)).collect();
        let mut arguments = vec!["--".to_owned()];
        arguments.extend(behind.iter().cloned());
        let parsed = parse(command.flags, command.interspersed, &arguments).unwrap();
        assert_eq!(parsed.args, behind);
        assert!(!parsed.any_changed());
    }
}

#[test]
fn sizes_come_back() {
    let mut random = Random::new(7);
    let units =
        [("", 1_i64), ("b", 1), ("k", 1 << 10), ("Kb", 1 << 10), ("m", 1 << 20), ("GiB", 1 << 30)];
    for _ in 0..ROUNDS {
        let (unit, factor) = units[random.below(units.len())];
        let number = i64::try_from(random.next() >> 34).unwrap();
        let text = format!("{number}{unit}");
        assert_eq!(spec::size::parse_bytes(&text).ok(), Some(number * factor), "{text}");
        let text =
            random.text(&["1", "0", ".", "-", "k", "KiB", "b", " ", "e", "é", "9999999999"], 5);
        if let Ok(bytes) = spec::size::parse_bytes(&text) {
            assert!(bytes >= 0, "{text}: {bytes}");
            assert!(!spec::size::human(bytes as f64).is_empty());
        }
    }
}

#[test]
fn durations_add_up() {
    let mut random = Random::new(8);
    for _ in 0..ROUNDS {
        let parts =
            [random.below(1000), random.below(100_000), random.below(100_000), random.below(1000)];
        let [hours, minutes, seconds, millis] = parts.map(|part| i64::try_from(part).unwrap());
        let text = format!("{hours}h{minutes}m{seconds}s{millis}ms");
        let sum = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis;
        assert_eq!(spec::time::parse_duration(&text).unwrap(), sum * 1_000_000, "{text}");
        assert_eq!(spec::time::parse_duration(&format!("-{text}")).unwrap(), -sum * 1_000_000);
        let text =
            random.text(&["1", "0", ".", "-", "+", "h", "ms", "µs", "s", " ", "9999999999"], 6);
        let _read_or_refused = spec::time::parse_duration(&text);
        let _read_or_refused = spec::time::parse_since(&text, std::time::SystemTime::UNIX_EPOCH);
    }
}

#[test]
fn filters_come_back() {
    let mut random = Random::new(9);
    for _ in 0..ROUNDS {
        let mut filters = spec::Filters::default();
        for _ in 0..random.below(4) {
            let name = random.pick(&["label", "name", "status", "é"]);
            filters.add(name, &random.text(&["a", "=", "\"", "\\", "é", "\u{1}", "<"], 4));
        }
        assert_eq!(spec::Filters::parse(&filters.to_json()).unwrap(), filters);
        let json = random.text(&["{", "}", "[", "]", "\"a\"", ":", ",", "true", "null", "1"], 9);
        let _read_or_refused = spec::Filters::parse(&json);
    }
}

const OPTION_PIECES: &[&str] = &[
    "/",
    ":",
    ",",
    "=",
    "-",
    "[",
    "]",
    "\"",
    "'",
    " ",
    "é",
    "",
    "a",
    "x=y",
    "type=",
    "bind",
    "volume",
    "tmpfs",
    "src=",
    "dst=/x",
    "readonly",
    "ro",
    "rw",
    "z",
    "80",
    "80-90",
    "65536",
    "127.0.0.1",
    "::1",
    "[::1]",
    "/tcp",
    "udp",
    "/dev/null",
    "rwm",
    "name=",
    "alias=",
    "ip=",
    "10.0.0.2",
    "driver-opt=",
    "device=",
    "all",
    "count=",
    "0",
    "-1",
    "99999999999999999999",
    "capabilities=",
    "C:",
    "c",
    "linux",
    "amd64",
    "v8",
    "(",
    ")",
    "*",
];

/// The little languages inside values.
#[test]
fn option_values_of_any_text_are_read_or_refused() {
    use crate::options::*;
    type Parser = fn(&str) -> bool;
    let mut random = Random::new(10);
    let parsers: &[(&str, Parser)] = &[
        ("device", |text| parse_device(text).is_ok()),
        ("expose", |text| parse_expose(text).is_ok()),
        ("gpus", |text| parse_gpus(text).is_ok()),
        ("mount", |text| parse_mount(text).is_ok()),
        ("network", |text| parse_network(text).is_ok()),
        ("platform", |text| parse_platform(text).is_ok()),
        ("publish", |text| parse_publish(text).is_ok()),
        ("volume", |text| parse_volume(text).is_ok()),
    ];
    for (name, parse) in parsers {
        let good = (0..ROUNDS).filter(|_round| parse(&random.text(OPTION_PIECES, 6))).count();
        assert!((1..ROUNDS).contains(&good), "{good} texts were good as {name}");
    }
}

/// A value, as deep as `depth`, and its JSON.
fn json_text(random: &mut Random, depth: usize) -> String {
    let texts =
        ["\"\"", "\"a\"", "\"\\\"\\n\\u00e9<&>\"", "null", "true", "false", "0", "-7", "2.5"];
    match random.below(if depth == 0 { 1 } else { 3 }) {
        0 => random.pick(&texts).to_owned(),
        1 => {
            let items: Vec<_> =
                (0..random.below(4)).map(|_item| json_text(random, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let member = |at| format!("\"k{at}\":{}", json_text(random, depth - 1));
            let members: Vec<_> = (0..4).map(member).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// What a template writes as JSON is what it was given.
#[test]
fn json_comes_back_through_templates() {
    let template = Template::parse("{{json .}}").unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let mut random = Random::new(11);
    for _ in 0..ROUNDS / 10 {
        let text = json_text(&mut random, 4);
        let shown = template.render(&from_json(text.as_bytes(), "").unwrap()).unwrap();
        assert_eq!(value(&shown), value(&text), "{text}");
    }
}

/// However a table is filled, each cell of a column begins at the same place.
#[test]
fn columns_stand_below_each_other() {
    let mut random = Random::new(12);
    for _ in 0..ROUNDS / 10 {
        let columns = 2 + random.below(4);
        let cell = |random: &mut Random| random.text(&["a", "bb", "é", "c d", "中"], 8);
        let rows: Vec<Vec<String>> = (0..=random.below(5))
            .map(|_row| (0..columns).map(|_column| cell(&mut random)).collect())
            .collect();
        let text: String = rows.iter().map(|row| format!("{}\n", row.join("\t"))).collect();
        let laid_out = crate::output::layout(&text);
        let mut starts = vec![0; columns];
        for column in 1..columns {
            let widest = rows.iter().map(|row| row[column - 1].chars().count()).max().unwrap();
            starts[column] = starts[column - 1] + (widest + 3).max(10);
        }
        for (line, row) in laid_out.lines().zip(&rows) {
            for (start, cell) in starts.iter().zip(row) {
                let shown: String = line.chars().skip(*start).collect();
                assert!(shown.starts_with(cell.as_str()), "{laid_out}{cell:?} at {start}");
            }
        }
    }
}
