//! Percent-decoding and the query string, read as Go's `net/url` reads them, since clients were
//! written against that.

use std::borrow::Cow;

use spec::{ErrorKind, Filters, Kinded};

/// The parameters of a request in the order they came; a key may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("invalid URL escape {sequence:?}")]
    Escape { sequence: String },
    #[error("invalid semicolon separator in query")]
    Semicolon,
    #[error("invalid query: {key} is not valid UTF-8")]
    Encoding { key: String },
    /// dockerd has Go's words for these too, and answers some of them with 500; they are the
    /// client's fault, so the answer is 400.
    #[error("strconv.Atoi: parsing {value:?}: {}", if *.overflow { "value out of range" } else { "invalid syntax" })]
    Integer { value: String, overflow: bool },
}

impl Kinded for QueryError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(QueryError::Semicolon);
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode_form(key)?, decode_form(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value under `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value under `key`, unless it is empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A few words mean false, everything else true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(is_true)
    }

    /// As [`Query::flag`], with what holds when the key is absent.
    pub fn flag_or(&self, key: &str, absent: bool) -> bool {
        self.get(key).map_or(absent, is_true)
    }

    pub fn integer(&self, key: &str) -> Result<Option<i64>, QueryError> {
        let Some(value) = self.text(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|error: std::num::ParseIntError| QueryError::Integer {
            value: value.to_owned(),
            overflow: matches!(
                error.kind(),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            ),
        })
    }

    pub fn filters(&self) -> Result<Filters, spec::filters::FilterError> {
        Filters::parse(self.get("filters").unwrap_or_default())
    }
}

fn is_true(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// Decodes a part of a query: `+` is a space.
fn decode_form(text: &str) -> Result<String, QueryError> {
    decode(&text.replace('+', " "))
}

/// Decodes `%41`. A path component may well hold a decoded slash.
pub(crate) fn decode(text: &str) -> Result<String, QueryError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let byte = tail.get(..2).and_then(hex_byte);
        bytes.push(byte.ok_or_else(|| QueryError::Escape {
            sequence: String::from_utf8_lossy(&rest[..rest.len().min(3)]).into_owned(),
        })?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_not_utf8| QueryError::Encoding { key: text.to_owned() })
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(digits[0])? * 16 + digit(digits[1])?;
    u8::try_from(value).ok()
}

/// Removes empty, `.` and `..` segments; borrowed when there are none. A final slash stays.
pub(crate) fn clean_path(path: &str) -> Cow<'_, str> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let untidy = |segment: &str| matches!(segment, "" | "." | "..");
    let trailing = inner.ends_with('/');
    let body = inner.strip_suffix('/').unwrap_or(inner);
    if path.starts_with('/') && (inner.is_empty() || !body.split('/').any(untidy)) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in inner.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let slash = if trailing && !kept.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{slash}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_decode() {
        let query = Query::parse("name=a%2Fb+c&t=5&t=6&all&label=x%3Dy=z&").unwrap();
        assert_eq!(query.get("name"), Some("a/b c"));
        assert_eq!(query.all("t").collect::<Vec<_>>(), ["5", "6"]);
        assert_eq!(query.get("all"), Some(""));
        assert_eq!(query.get("label"), Some("x=y=z"));
        assert_eq!(query.integer("t"), Ok(Some(5)));
        assert_eq!(query.integer("none"), Ok(None));
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |text, expect: &str| {
            assert_eq!(Query::parse(text).unwrap_err().to_string(), expect, "{text}");
        };
        check("all=%zz", r#"invalid URL escape "%zz""#);
        check("all=%4", r#"invalid URL escape "%4""#);
        check("a=1;b=2", "invalid semicolon separator in query");
        check("x=%ff", "invalid query: %ff is not valid UTF-8");
        let query = Query::parse("t=x&u=99999999999999999999").unwrap();
        assert_eq!(
            query.integer("t").unwrap_err().to_string(),
            r#"strconv.Atoi: parsing "x": invalid syntax"#
        );
        assert_eq!(
            query.integer("u").unwrap_err().to_string(),
            r#"strconv.Atoi: parsing "99999999999999999999": value out of range"#
        );
    }

    #[test]
    fn booleans_are_dockers() {
        for text in ["a=", "a=0", "a=no", "a=False", "a=none", "a", "b=1"] {
            assert!(!Query::parse(text).unwrap().flag("a"), "{text}");
        }
        for text in ["a=1", "a=true", "a=yes", "a=2", "a=off"] {
            assert!(Query::parse(text).unwrap().flag("a"), "{text}");
        }
        assert!(Query::parse("").unwrap().flag_or("a", true));
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        let check = |path: &str, expect: &str| assert_eq!(clean_path(path), expect);
        check("/containers/json", "/containers/json");
        check("/networks/", "/networks/");
        check("/", "/");
        check("//containers/json", "/containers/json");
        check("/containers/../json", "/json");
        check("/../..", "/");
        check("/a/./b//", "/a/b/");
        check("", "/");
    }
}
