//! `docker events`.

use api_types::event::Event;
use client::{Error, Request};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;
use crate::template::{Template, from_json};

/// Docker's exit code for a format that does not work.
const BAD_FORMAT: u8 = 64;

/// `docker events`: until the stream ends or our reader goes away.
pub(crate) async fn events(app: &App, flags: &Parsed) -> Outcome {
    let format = flags.text("format");
    let template = match format {
        "" => None,
        "json" => Some("{{json .}}"),
        template => Some(template),
    };
    let template = template.map(Template::parse).transpose().map_err(|error| bad_format(&error))?;
    let (since, until) = (time(flags.text("since"))?, time(flags.text("until"))?);
    let filters = flags.filters();
    let request = Request::get("/events")
        .query_if(filters != spec::Filters::default(), "filters", &filters.to_json())
        .query_if(!since.is_empty(), "since", &since)
        .query_if(!until.is_empty(), "until", &until);
    let mut response = app.client.send(request).await?;
    let mut pending = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        pending.extend_from_slice(&chunk);
        let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = pending.drain(..whole).collect();
        let mut text = String::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            text.push_str(&show(line, template.as_ref())?);
            text.push('\n');
        }
        output::print(&text)?;
    }
    Ok(0)
}

fn bad_format(error: &crate::template::TemplateError) -> Failure {
    Failure::with_code(format!("Error parsing format: {error}"), BAD_FORMAT)
}

/// Unix times pass as they are; the daemon reads them itself.
fn time(text: &str) -> Outcome<String> {
    if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    crate::container::time(text)
}

fn show(line: &[u8], template: Option<&Template>) -> Outcome<String> {
    let decode = |source| Failure::Client(Error::Decode { source });
    if let Some(template) = template {
        let value = from_json(line, "event").map_err(decode)?;
        return template.render(&value).map_err(|error| bad_format(&error));
    }
    let event: Event = serde_json::from_slice(line).map_err(decode)?;
    Ok(plain(&event))
}

/// `TIME TYPE ACTION ID (key=value, key=value)`
fn plain(event: &Event) -> String {
    let time = match event.time_nano {
        0 => output::rfc3339_nano(i128::from(event.time) * 1_000_000_000),
        nanos => output::rfc3339_nano(i128::from(nanos)),
    };
    let mut text = format!("{time} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let attributes: Vec<String> =
            event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_line() {
        let line = br#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":
            {"name":"x","image":"y"}},"time":1,"timeNano":1500000000}"#;
        let text = show(line, None).unwrap();
        assert!(text.ends_with(" container start abc (image=y, name=x)"), "{text}");
        let template = Template::parse("{{.Type}} {{.Actor.Attributes.name}}").unwrap();
        assert_eq!(show(line, Some(&template)).unwrap(), "container x");
    }
}
