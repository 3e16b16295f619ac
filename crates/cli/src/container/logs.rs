//! `docker logs`.

use api_types::container::Inspect;
use client::Request;

use crate::app::{App, container_path};
use crate::attach::Demux;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::output;

/// `docker logs`.
pub(crate) async fn logs(app: &App, flags: &Parsed) -> Outcome {
    let container: Inspect = app.get(container_path(&flags.args[0], "/json")).await?;
    let (since, until) = (since(flags, "since")?, since(flags, "until")?);
    let tail = flags.text("tail");
    let request = Request::get(format!("/containers/{}/logs", container.id))
        .query_if(flags.bool("details"), "details", "1")
        .query_if(flags.bool("follow"), "follow", "1")
        .query_if(!since.is_empty(), "since", &since)
        .query("stderr", "1")
        .query("stdout", "1")
        .query("tail", tail)
        .query_if(flags.bool("timestamps"), "timestamps", "1")
        .query_if(!until.is_empty(), "until", &until);
    let mut response = app.client.send(request).await?;
    let mut demux = Demux::default();
    while let Some(chunk) = response.chunk().await? {
        if container.config.tty {
            output::write(&chunk)?;
        } else {
            demux.feed(&chunk).await?;
        }
    }
    Ok(0)
}

fn since(flags: &Parsed, flag: &str) -> Outcome<String> {
    time(flags.text(flag))
        .map_err(|reason| Failure::new(format!("invalid value for {flag:?}: {reason}")))
}

/// A time as the API takes it: seconds and nanoseconds since the epoch. Durations count back from
/// our clock; times without a zone are in ours.
pub(crate) fn time(text: &str) -> Outcome<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let now = std::time::SystemTime::now();
    let civil = text.parse::<jiff::civil::DateTime>().ok().filter(|_time| !has_zone(text));
    let time = match civil {
        Some(civil) => civil
            .to_zoned(jiff::tz::TimeZone::system())
            .map(|zoned| zoned.timestamp().into())
            .map_err(|error| error.to_string()),
        None => spec::time::parse_since(text, now).map_err(|error| error.to_string()),
    };
    let time = time.map_err(|_reason| {
        Failure::new(format!("failed to parse value as time or duration: {text:?}"))
    })?;
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

fn has_zone(text: &str) -> bool {
    let clock = text.split_once(['T', ' ']).map_or("", |(_, clock)| clock);
    clock.ends_with(['Z', 'z']) || clock.contains(['+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_unix_seconds() {
        assert_eq!(time("").unwrap(), "");
        assert_eq!(time("1").unwrap(), "1.000000000");
        assert_eq!(time("2013-01-02T00:00:42.5Z").unwrap(), "1357084842.500000000");
        assert!(time("yesterday").is_err());
    }
}
