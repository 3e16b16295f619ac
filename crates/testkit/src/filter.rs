//! Takes out of a transcript what differs from run to run: ids, times, addresses.

/// Replaces 64- and 12-digit hexadecimal ids, RFC 3339 times and `X seconds ago` by placeholders.
pub fn volatile(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        } else {
            out.push_str(placeholder(&rest[..word]));
            rest = &rest[word..];
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":.+-_".contains(c)
}

fn placeholder(word: &str) -> &str {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let digest = word.strip_prefix("sha256:").unwrap_or(word);
    let time = word.len() >= 20
        && word.as_bytes()[4] == b'-'
        && word.as_bytes()[10] == b'T'
        && word.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    match digest.len() {
        64 if hex(digest) => "<id>",
        12 if hex(digest) && digest.bytes().any(|b| b.is_ascii_digit()) => "<short-id>",
        _ if time => "<time>",
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_become_placeholders() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(volatile(&format!("a {id} b")), "a <id> b");
        assert_eq!(volatile(&format!("sha256:{id}")), "<id>");
        assert_eq!(volatile("0123456789ab up"), "<short-id> up");
        assert_eq!(volatile("\"2026-11-22T00:59:47.18726318Z\""), "\"<time>\"");
        assert_eq!(volatile("facade busybox:latest"), "facade busybox:latest");
    }
}
