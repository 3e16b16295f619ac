//! Image references: `[domain/]path[:tag][@digest]`, in Docker's short and full spellings.

use std::fmt;

use crate::Digest;

/// A normalised reference: the domain is always present, `library/` is filled in for Docker Hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    Uppercase { name: String },
    #[error("repository name must not be longer than 255 characters")]
    TooLong,
    #[error("cannot specify 64-byte hexadecimal strings")]
    HexName,
}

impl crate::Kinded for ReferenceError {
    fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::InvalidArgument
    }
}

const HUB: &str = "docker.io";

impl Reference {
    /// Parses a reference as the docker CLI does; neither tag nor digest is filled in.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::HexName);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_bad| ReferenceError::Format)?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { name: path });
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// Fills in `latest` when neither a tag nor a digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The repository in full: `docker.io/library/busybox`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain == HUB {
            self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned()
        } else {
            self.full_name()
        }
    }

    /// The whole reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.full_name()))
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((head, rest))
            if head.contains(['.', ':'])
                || head == "localhost"
                || head.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (if head == "index.docker.io" { HUB } else { head }, rest)
        }
        _ => (HUB, name),
    };
    if domain == HUB && !path.contains('/') {
        (domain.to_owned(), format!("library/{path}"))
    } else {
        (domain.to_owned(), path.to_owned())
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Host name labels (or a bracketed IPv6 address) and an optional port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'));
    (bracketed || host.split('.').all(label))
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case runs joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut at = 0;
    loop {
        let run = bytes[at..].iter().take_while(|byte| alphanumeric(**byte)).count();
        if run == 0 {
            return false;
        }
        at += run;
        let separator = bytes[at..].iter().take_while(|byte| !alphanumeric(**byte)).count();
        match &bytes[at..at + separator] {
            b"" => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        at += separator;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match Reference::parse(text) {
            Ok(reference) => reference.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn references_normalise_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        check("alpine", "docker.io/library/alpine");
        check("alpine:3", "docker.io/library/alpine:3");
        check("user/repo", "docker.io/user/repo");
        check("index.docker.io/busybox", "docker.io/library/busybox");
        check("localhost/a", "localhost/a");
        check("localhost:5000/a/b:t", "localhost:5000/a/b:t");
        check("[::1]:5000/a", "[::1]:5000/a");
        check(&format!("a@{digest}"), &format!("docker.io/library/a@{digest}"));
        check("a__b--c.d", "docker.io/library/a__b--c.d");
        check(
            "Alpine",
            "invalid reference format: repository name (library/Alpine) must be lowercase",
        );
        check("", "invalid reference format");
        check("a..b", "invalid reference format");
        check("a:b:c", "invalid reference format");
        check("-a", "invalid reference format");
        check("a:", "invalid reference format");
        check("a@sha256:12", "invalid reference format");
        check(&"0".repeat(64), "cannot specify 64-byte hexadecimal strings");
    }

    #[test]
    fn familiar_forms_drop_what_is_implied() {
        let familiar = |text| Reference::parse(text).unwrap().or_latest().familiar();
        assert_eq!(familiar("docker.io/library/busybox"), "busybox:latest");
        assert_eq!(familiar("docker.io/user/app:1"), "user/app:1");
        assert_eq!(familiar("localhost:5000/x"), "localhost:5000/x:latest");
    }
}
