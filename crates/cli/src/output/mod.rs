//! What commands print: whole texts to stdout and stderr, tables, and lists by template.

mod listing;
mod table;

use std::io;

use rustix::fd::AsFd;

pub(crate) use listing::{Column, Listing, header_default};
pub(crate) use table::{layout, layout_with};

/// Writes all of `bytes` to stdout. Commands hand over large texts, so there is no buffer here.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    write_all(rustix::stdio::stdout(), bytes)
}

/// Writes a text to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    write(text.as_bytes())
}

/// Writes a text and a newline to stdout.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a text and a newline to stderr. That nobody reads stderr is no reason to fail.
pub(crate) fn complain(text: &str) {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let _nobody_reads = write_all(rustix::stdio::stderr(), format!("{text}{newline}").as_bytes());
}

/// Writes all of `bytes` to a descriptor.
pub(crate) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(&fd)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Our descriptors may be non-blocking, when whoever started us made them so.
fn wait_writable(fd: &impl AsFd) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Cuts a text to `length` characters, the last of them an ellipsis.
pub(crate) fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// `5 minutes ago`, from unix seconds.
pub(crate) fn ago(seconds: i64) -> String {
    format!("{} ago", since(seconds))
}

/// `5 minutes`, from unix seconds.
pub(crate) fn since(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let elapsed = u64::try_from(now.saturating_sub(seconds)).unwrap_or(0);
    spec::time::human_duration(std::time::Duration::from_secs(elapsed))
}

/// `2024-01-01T00:00:00Z` in the local zone.
pub(crate) fn rfc3339(seconds: i64) -> String {
    strftime(seconds, "%Y-%m-%dT%H:%M:%S%:z").replace("+00:00", "Z")
}

/// `2024-01-01 00:00:00 +0000 UTC`: Go's default for times, in the local zone.
pub(crate) fn local_time(seconds: i64) -> String {
    strftime(seconds, "%Y-%m-%d %H:%M:%S %z %Z")
}

/// `5 minutes ago`, from RFC 3339.
pub(crate) fn ago_of(text: &str) -> String {
    text.parse::<jiff::Timestamp>()
        .map_or_else(|_malformed| text.to_owned(), |time| ago(time.as_second()))
}

/// RFC 3339 with nine digits in the local zone, from nanoseconds.
pub(crate) fn rfc3339_nano(nanoseconds: i128) -> String {
    jiff::Timestamp::from_nanosecond(nanoseconds).map_or_else(
        |_out_of_range| spec::time::ZERO.to_owned(),
        |time| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string().replace("+00:00", "Z")
        },
    )
}

/// Go's default for times, `2026-11-22 00:42:11.699835154 +0000 UTC`, from RFC 3339.
pub(crate) fn time_in_go(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(
        |_malformed| text.to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
    )
}

fn strftime(seconds: i64, format: &str) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_out_of_range| spec::time::ZERO.to_owned(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abc", 3), "abc");
        assert_eq!(ellipsis("äöüß", 3), "äö…");
    }
}
