//! JSON as text: re-indented or squeezed without changing order, numbers or escapes.
//!
//! `inspect` shows what the daemon sent, so nothing is parsed into types and printed again.

/// Indents valid JSON by four spaces a level, as Go's `json.Indent` does.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut tokens = Tokens { rest: json }.peekable();
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" => {
                out.push_str(token);
                if matches!(tokens.peek(), Some(&("}" | "]"))) {
                    out.push_str(tokens.next().expect("it was peeked"));
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            "}" | "]" => {
                depth -= 1;
                new_line(&mut out, depth);
                out.push_str(token);
            }
            "," => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ":" => out.push_str(": "),
            _ => out.push_str(token),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("    ");
    }
}

/// Drops the white space between tokens.
pub(crate) fn compact(json: &str) -> String {
    Tokens { rest: json }.collect()
}

/// Appends a string as Go's encoder writes it with HTML escapes off.
pub(crate) fn push_string(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{2028}' || c == '\u{2029}' => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a String does not fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Escapes `<`, `>` and `&`, as Go's encoder does unless told otherwise.
pub(crate) fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The tokens of valid JSON: punctuation, whole strings, bare words and numbers.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_ascii_start();
        let length = match self.rest.as_bytes().first()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => string_length(self.rest.as_bytes()),
            _ => self
                .rest
                .find(|c: char| "{}[],:\"".contains(c) || c.is_ascii_whitespace())
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_changes_and_content_does_not() {
        let text = r#"{"b":[1, 2.50,{}],"a":"x,{\"y\\","n":null,"e":[]}"#;
        assert_eq!(
            indent(text),
            "{\n    \"b\": [\n        1,\n        2.50,\n        {}\n    ],\n    \"a\": \
             \"x,{\\\"y\\\\\",\n    \"n\": null,\n    \"e\": []\n}"
        );
        assert_eq!(compact(&indent(text)), text.replace(", ", ","));
        assert_eq!(indent("[]"), "[]");
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let mut out = String::new();
        push_string(&mut out, "a\"\\\n<\u{1}\u{2028}é");
        assert_eq!(out, "\"a\\\"\\\\\\n<\\u0001\\u2028é\"");
    }
}
