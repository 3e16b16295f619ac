//! Ids, times and ages differ between any two runs; here they become words.

/// Replaces what cannot be the same twice. Where an age was replaced, so is the width it had.
pub(crate) fn text(text: &str) -> String {
    let replaced = ages(&times(&ids(text)));
    if replaced.contains("AGE") { squeeze(&replaced) } else { replaced }
}

/// Runs of 12 or 64 hexadecimal digits.
fn ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..end];
        let hex = word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match end {
            12 | 64 if hex => out.push_str(&format!("ID{end}")),
            _ => out.push_str(word),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// `2026-11-22T01:02:03.456Z`, also with a space.
fn times(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let matches = |bytes: &[u8]| {
        bytes.len() >= SHAPE.len()
            && SHAPE.iter().zip(bytes).all(|(shape, byte)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b' '),
                other => other == byte,
            })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) =
        (0..rest.len()).find(|at| rest.is_char_boundary(*at) && matches(&rest.as_bytes()[*at..]))
    {
        out.push_str(&rest[..start]);
        out.push_str("TIME");
        rest = rest[start + SHAPE.len()..]
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == 'Z');
    }
    out + rest
}

/// `5 seconds`, `About a minute`, `Less than a second`.
fn ages(text: &str) -> String {
    let mut out = text.to_owned();
    for phrase in ["Less than a second", "About a minute", "About an hour"] {
        out = out.replace(phrase, "AGE");
    }
    for unit in ["second", "minute", "hour"] {
        out = ages_in(&out, &format!(" {unit}"));
    }
    out
}

fn ages_in(text: &str, unit: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(unit) {
        let before = &rest[..at];
        let number = before.trim_end_matches(|c: char| c.is_ascii_digit());
        let after = &rest[at + unit.len()..];
        if number.len() == before.len() {
            out.push_str(&rest[..at + unit.len()]);
            rest = after;
        } else {
            out.push_str(number);
            out.push_str("AGE");
            rest = after.strip_prefix('s').unwrap_or(after);
        }
    }
    out + rest
}

fn squeeze(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

/// Addresses that a daemon hands out: `172.x`, MAC addresses, ports after `127.0.0.1:`.
pub(crate) fn addresses(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
        let end = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
        out.push_str(&address(&rest[..end]));
        rest = &rest[end..];
        // The rest of a word of letters is no address.
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out + rest
}

fn address(word: &str) -> String {
    if word.starts_with("172.") {
        return "ADDRESS".to_owned();
    }
    if let Some(port) = word.strip_prefix("127.0.0.1:")
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return "127.0.0.1:PORT".to_owned();
    }
    let bytes = word.split(':');
    if bytes.clone().count() == 6 && bytes.clone().all(|byte| byte.len() == 2) {
        return "MAC".to_owned();
    }
    word.to_owned()
}
