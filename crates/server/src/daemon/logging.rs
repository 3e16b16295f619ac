//! The daemon's own log, on stderr, in the forms dockerd's has: `time="..." level=info msg="..."`
//! and one JSON object a line.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::config::LogConfig;

/// Changes the level while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct LevelHandle(reload::Handle<LevelFilter, Registry>);

/// Starts the log. Once per process.
pub(crate) fn start(config: LogConfig) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(config.level));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Lines { json: config.json });
    let started = tracing_subscriber::registry().with(filter).with(layer).try_init();
    if let Err(error) = started {
        // Another log is in place, which then gets this too.
        tracing::debug!(%error, "log not started");
    }
    LevelHandle(handle)
}

impl LevelHandle {
    pub(crate) fn set(&self, level: Level) {
        if let Err(error) = self.0.modify(|filter| *filter = LevelFilter::from_level(level)) {
            tracing::warn!(%error, "log level not changed");
        }
    }
}

struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = spec::time::rfc3339_nano_padded(SystemTime::now());
        let level = level_name(*event.metadata().level());
        let line = if self.json {
            json_line(&time, level, fields)
        } else {
            text_line(&time, level, &fields)
        };
        writeln!(writer, "{line}")
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            name => self.others.push((name, text)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, crate::answer::text_with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

fn text_line(time: &str, level: &str, fields: &Fields) -> String {
    let mut line = format!("time=\"{time}\" level={level} msg={:?}", fields.message);
    for (name, value) in &fields.others {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c);
        let written = if !value.is_empty() && value.chars().all(plain) {
            write!(line, " {name}={value}")
        } else {
            write!(line, " {name}={value:?}")
        };
        written.expect("a String takes any text");
    }
    line
}

fn json_line(time: &str, level: &str, fields: Fields) -> String {
    let mut object = Map::new();
    for (name, value) in fields.others {
        object.insert(name.to_owned(), value.into());
    }
    object.insert("time".to_owned(), time.into());
    object.insert("level".to_owned(), level.into());
    object.insert("msg".to_owned(), fields.message.into());
    Value::from(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockerds() {
        let fields = || Fields {
            message: "say \"hi\"".to_owned(),
            others: vec![("id", "ab/c".to_owned()), ("error", "not there".to_owned())],
        };
        assert_eq!(
            text_line("T", "info", &fields()),
            r#"time="T" level=info msg="say \"hi\"" id=ab/c error="not there""#
        );
        assert_eq!(
            json_line("T", "info", fields()),
            r#"{"error":"not there","id":"ab/c","level":"info","msg":"say \"hi\"","time":"T"}"#
        );
    }
}
