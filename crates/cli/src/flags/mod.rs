//! Command-line flags with pflag's habits, driven by tables.
//!
//! A [`Flag`] is one row of a command's table; [`parse()`] turns arguments into [`Parsed`], checking
//! every value as it is read, so that commands see only good ones; [`usage`] prints the same rows
//! as help. Nothing here knows a command.

mod checks;
mod numbers;
mod parse;
pub(crate) mod usage;

pub(crate) use checks::{parse_byte_rate, parse_device_weight, parse_rate, parse_ulimit};
pub(crate) use numbers::{parse_int, parse_nano_cpus, parse_uint};
pub(crate) use parse::parse;

/// What a flag's value must look like. List kinds may be given repeatedly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    Int,
    Uint16,
    Cpus,
    Duration,
    Bytes,
    /// Bytes, or -1 for "unlimited".
    SwapBytes,
    List,
    /// Like a list, and commas separate as well.
    Strings,
    Map,
    /// `a=b,c=d`: pflag's stringToString.
    Pairs,
    Filter,
    Env,
    Label,
    Attach,
    Address,
    DnsSearch,
    ExtraHost,
    Link,
    DeviceRule,
    Sysctl,
    WeightDevice,
    ThrottleBps,
    ThrottleIops,
    Ulimit,
    Mount,
    Network,
    Gpus,
}

impl Kind {
    /// The word help shows after the flag.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Text => "string",
            Self::Int => "int",
            Self::Uint16 => "uint16",
            Self::Cpus => "decimal",
            Self::Duration => "duration",
            Self::Bytes | Self::SwapBytes => "bytes",
            Self::Map | Self::Sysctl => "map",
            Self::Pairs => "stringToString",
            Self::Filter => "filter",
            Self::Strings => "strings",
            Self::Ulimit => "ulimit",
            Self::Mount => "mount",
            Self::Network => "network",
            Self::Gpus => "gpu-request",
            Self::List
            | Self::Env
            | Self::Label
            | Self::Attach
            | Self::Address
            | Self::DnsSearch
            | Self::ExtraHost
            | Self::Link
            | Self::DeviceRule
            | Self::WeightDevice
            | Self::ThrottleBps
            | Self::ThrottleIops => "list",
        }
    }
}

/// One row of a command's table.
#[derive(Debug)]
pub(crate) struct Flag {
    pub name: &'static str,
    /// One letter, or empty.
    pub short: &'static str,
    pub kind: Kind,
    /// As help shows it; for text and numbers also the value.
    pub default: &'static str,
    pub help: &'static str,
    /// Accepted, not shown: old spellings.
    pub hidden: bool,
    /// What to use instead, where the flag is on its way out.
    pub deprecated: &'static str,
}

/// Makes a row; a function rather than a literal so that tables stay one line a flag.
pub(crate) const fn flag(
    name: &'static str,
    short: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short, kind, default, help, hidden: false, deprecated: "" }
}

impl Flag {
    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Hidden, and whoever uses it is told.
    pub(crate) const fn deprecated(mut self, instead: &'static str) -> Self {
        self.deprecated = instead;
        self.hidden()
    }

    /// `-n, --last` or `--last`, as errors name it.
    pub(crate) fn label(&self) -> String {
        if self.short.is_empty() {
            format!("--{}", self.name)
        } else {
            format!("-{}, --{}", self.short, self.name)
        }
    }
}

/// The outcome of parsing: every flag's values in the order given, and the other arguments.
#[derive(Debug)]
pub(crate) struct Parsed {
    flags: &'static [&'static [Flag]],
    values: Vec<(&'static str, Vec<String>)>,
    pub args: Vec<String>,
    pub help: bool,
    /// Help was asked for as `-h`, which docker discourages.
    pub short_help: bool,
    /// Sentences about flags that were used and should not have been.
    pub notes: Vec<String>,
}

impl Parsed {
    fn find(&self, name: &str) -> &'static Flag {
        lookup(self.flags, name).expect("a command reads only flags of its own table")
    }

    fn last(&self, name: &str) -> &str {
        self.list(name).last().map_or_else(|| self.find(name).default, String::as_str)
    }

    /// True when the user gave the flag, with whatever value.
    pub(crate) fn changed(&self, name: &str) -> bool {
        self.values.iter().any(|(flag, _)| *flag == name)
    }

    /// True when the user gave any flag.
    pub(crate) fn any_changed(&self) -> bool {
        !self.values.is_empty()
    }

    /// True when the command has this flag at all; `run` and `create` share their code.
    pub(crate) fn has(&self, name: &str) -> bool {
        lookup(self.flags, name).is_some()
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        self.last(name) == "true"
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.last(name)
    }

    /// The text, when the user gave the flag.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.list(name).last().map(String::as_str)
    }

    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.last(name) {
            "" => 0,
            text => parse_int(text, 64).expect("parse() checked the number"),
        }
    }

    /// Bytes of a size flag; 0 when not given.
    pub(crate) fn bytes(&self, name: &str) -> i64 {
        match self.given(name) {
            None => 0,
            Some("-1") => -1,
            Some(text) => spec::size::parse_bytes(text).expect("parse() checked the size"),
        }
    }

    /// Nanoseconds of a duration flag; 0 when not given.
    pub(crate) fn duration(&self, name: &str) -> i64 {
        self.given(name).map_or(0, |text| {
            spec::time::parse_duration(text).expect("parse() checked the duration")
        })
    }

    pub(crate) fn list(&self, name: &str) -> &[String] {
        debug_assert!(self.has(name), "no flag --{name}");
        let values = self.values.iter().find(|(flag, _)| *flag == name);
        values.map_or(&[], |(_, values)| values.as_slice())
    }

    /// The list, `None` when empty: Go's nil slice.
    pub(crate) fn list_or_null(&self, name: &str) -> Option<Vec<String>> {
        Some(self.list(name).to_vec()).filter(|list| !list.is_empty())
    }

    /// `key=value` pairs; a bare key has an empty value, and the last of equal keys wins.
    pub(crate) fn map(&self, name: &str) -> std::collections::BTreeMap<String, String> {
        pairs(self.list(name))
    }

    /// The filters of `--filter`, with the names lower-cased as docker does.
    pub(crate) fn filters(&self) -> spec::Filters {
        let mut filters = spec::Filters::default();
        for text in self.list("filter") {
            if let Some((name, value)) = text.split_once('=') {
                filters.add(&name.trim().to_ascii_lowercase(), value.trim());
            }
        }
        filters
    }
}

/// Splits `key=value` texts.
pub(crate) fn pairs(texts: &[String]) -> std::collections::BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

pub(crate) fn lookup(groups: &'static [&'static [Flag]], name: &str) -> Option<&'static Flag> {
    groups.iter().flat_map(|group| group.iter()).find(|flag| flag.name == name)
}

pub(crate) fn lookup_short(
    groups: &'static [&'static [Flag]],
    short: char,
) -> Option<&'static Flag> {
    groups
        .iter()
        .flat_map(|group| group.iter())
        .find(|flag| flag.short.starts_with(short) && !flag.short.is_empty())
}
