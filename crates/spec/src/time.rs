//! Times and durations in the forms Docker's API and CLI use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, Unit};

/// The text Go prints for a time that was never set.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("time: invalid duration {text:?}")]
    Duration { text: String },
    #[error("invalid timestamp {text:?}")]
    Timestamp { text: String },
}

/// Prints RFC 3339 with nanoseconds, trailing zeros cut, as Go's `RFC3339Nano`.
pub fn rfc3339_nano(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_out_of_range| ZERO.to_owned(), |time| time.to_string())
}

/// Prints RFC 3339 with exactly nine digits, as `docker logs -t`.
pub fn rfc3339_nano_padded(time: SystemTime) -> String {
    Timestamp::try_from(time)
        .map_or_else(|_out_of_range| ZERO.to_owned(), |time| format!("{time:.9}"))
}

/// Parses RFC 3339.
pub fn parse_rfc3339(text: &str) -> Result<SystemTime, TimeError> {
    let error = || TimeError::Timestamp { text: text.to_owned() };
    Ok(text.parse::<Timestamp>().map_err(|_malformed| error())?.into())
}

/// Parses what `since` and `until` take: unix seconds with an optional fraction, RFC 3339 with or
/// without time, zone or fraction (UTC is assumed), or a Go duration counted back from `now`.
pub fn parse_since(text: &str, now: SystemTime) -> Result<SystemTime, TimeError> {
    let error = || TimeError::Timestamp { text: text.to_owned() };
    if let Some(unix) = parse_unix(text) {
        return Ok(unix);
    }
    if let Ok(duration) = parse_duration(text) {
        let back = Duration::from_nanos(duration.unsigned_abs());
        let time = if duration >= 0 { now.checked_sub(back) } else { now.checked_add(back) };
        return time.ok_or_else(error);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.into());
    }
    let local = text.parse::<jiff::civil::DateTime>().map_err(|_malformed| error())?;
    let zoned = local.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_range| error())?;
    Ok(zoned.timestamp().into())
}

/// Seconds since the epoch with an optional fraction of up to nine digits.
fn parse_unix(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    if negative {
        return UNIX_EPOCH.checked_sub(Duration::new(seconds.unsigned_abs(), nanos));
    }
    UNIX_EPOCH.checked_add(Duration::new(seconds.unsigned_abs(), nanos))
}

/// Parses Go's duration syntax (`1h15m30.918s`, `-1.5h`, `300ms`) into nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, TimeError> {
    let error = || TimeError::Duration { text: text.to_owned() };
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|end| *end > 0)
            .ok_or_else(error)?;
        let number: f64 = rest[..end].parse().map_err(|_not_a_number| error())?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += number
            * match &rest[..unit_end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 6e10,
                "h" => 3.6e12,
                _ => return Err(error()),
            };
        rest = &rest[unit_end..];
    }
    if nanos >= 9.2e18 {
        return Err(error());
    }
    Ok((sign * nanos) as i64)
}

/// Says how long ago in Docker's words: `Less than a second`, `About a minute`, `3 weeks`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (duration.as_secs_f64() / 3600.0).round() as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", (duration.as_secs_f64() / 3600.0 / 24.0 / 365.0) as u64),
    }
}

/// Cuts a time to whole seconds.
pub fn truncate_to_second(time: SystemTime) -> SystemTime {
    Timestamp::try_from(time)
        .and_then(|time| {
            time.round(
                jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc),
            )
        })
        .map_or(time, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("1h15m30.918s", 4_530_918_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("300ms", 300_000_000),
            ("0", 0),
            ("10us", 10_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for bad in ["", "1", "h", "1d", "-", "1s2"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn since_takes_every_form() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let check = |text, expect: f64| {
            let time = parse_since(text, now).unwrap().duration_since(UNIX_EPOCH).unwrap();
            assert!((time.as_secs_f64() - expect).abs() < 1e-6, "{text}");
        };
        check("1", 1.0);
        check("1.5", 1.5);
        check("10m", 1_000_000_000.0 - 600.0);
        check("2013-01-02T00:00:42Z", 1_357_084_842.0);
        check("2013-01-02T00:00:42", 1_357_084_842.0);
        check("2013-01-02", 1_357_084_800.0);
        check("2013-01-02T00:00:42.999999999+01:00", 1_357_081_242.999_999_999);
        assert!(parse_since("yesterday", now).is_err());
    }

    #[test]
    fn times_print_as_go_prints_them() {
        let time = UNIX_EPOCH + Duration::new(1, 500_000_000);
        assert_eq!(rfc3339_nano(time), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339_nano_padded(time), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(rfc3339_nano(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nano(truncate_to_second(time)), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn human_durations_are_dockers() {
        let check = |seconds, text: &str| {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        };
        check(0, "Less than a second");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(3599, "59 minutes");
        check(3600, "About an hour");
        check(86_400 * 3, "3 days");
        check(86_400 * 21, "3 weeks");
        check(86_400 * 100, "3 months");
        check(86_400 * 800, "2 years");
    }
}
