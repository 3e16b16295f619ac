//! The version of the API that a request asks for by its path: `/v1.44/containers/json`.
//!
//! Versions differ in members of answers, hardly in routes. What a version changes is asked for
//! by name (`version.has(ApiVersion::new(1, 42))`) at the one place that differs.

use std::fmt;

/// `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u32,
    minor: u32,
}

/// The oldest version served: fig 1.0 and docker-py 0.5 of 2014 speak it.
pub(crate) const MINIMUM: ApiVersion = ApiVersion::new(1, 12);
/// The newest, which unversioned paths mean.
pub(crate) const MAXIMUM: ApiVersion = ApiVersion::new(1, 51);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error(
        "client version {asked} is too old. Minimum supported API version is {MINIMUM}, please upgrade your client to a newer version"
    )]
    TooOld { asked: String },
    #[error("client version {asked} is too new. Maximum supported API version is {MAXIMUM}")]
    TooNew { asked: String },
    /// dockerd ignores what follows the second number.
    #[error("client version {asked} is invalid: expected major.minor")]
    Malformed { asked: String },
}

impl spec::Kinded for VersionError {
    fn kind(&self) -> spec::ErrorKind {
        spec::ErrorKind::InvalidArgument
    }
}

impl ApiVersion {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads digits and dots; `None` for anything else, which is then no version but a path.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(number);
        let major = numbers.next()??;
        let minor = numbers.next().unwrap_or(Some(0))?;
        // What is not a number all through is a path, not a version.
        numbers.all(|number| number.is_some()).then_some(Self { major, minor })
    }

    /// Refuses what this daemon does not serve. `asked` is the client's own spelling.
    pub fn check(self, asked: &str) -> Result<Self, VersionError> {
        if asked.split('.').count() > 2 {
            return Err(VersionError::Malformed { asked: asked.to_owned() });
        }
        if self < MINIMUM {
            return Err(VersionError::TooOld { asked: asked.to_owned() });
        }
        if self > MAXIMUM {
            return Err(VersionError::TooNew { asked: asked.to_owned() });
        }
        Ok(self)
    }

    /// True when the client knows what came with 1.`minor`.
    pub const fn has(self, minor: u32) -> bool {
        self.major > 1 || self.minor >= minor
    }
}

/// Numbers too large to count are merely too new.
fn number(digits: &str) -> Option<u32> {
    let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits_only.then(|| digits.parse().unwrap_or(u32::MAX))
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Debug for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits `/v1.44/version` into the version as written and `/version`.
pub(crate) fn split_path(path: &str) -> Option<(&str, ApiVersion, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let version = ApiVersion::parse(&rest[..end])?;
    Some((&rest[..end], version, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_as_dockerd_splits_them() {
        let check = |path, expect: Option<(&str, &str)>| {
            let split = split_path(path).map(|(_, version, rest)| (version.to_string(), rest));
            let expect = expect.map(|(version, rest)| (version.to_owned(), rest));
            assert_eq!(split, expect, "{path}");
        };
        check("/v1.44/version", Some(("1.44", "/version")));
        check("/v1.44.5/version", Some(("1.44", "/version")));
        check("/v01.044/version", Some(("1.44", "/version")));
        check("/v1/version", Some(("1.0", "/version")));
        check("/vx/version", None);
        check("/v1.x/version", None);
        check("/v1./version", None);
        check("/v/version", None);
        check("/v1.44", None);
        check("/version", None);
        check("/volumes/v1.44/x", None);
    }

    #[test]
    fn the_range_is_refused_in_dockers_words() {
        let check = |asked: &str, expect: &str| {
            let error = ApiVersion::parse(asked).unwrap().check(asked).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(
            "1.1",
            "client version 1.1 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version",
        );
        check("1.44.5", "client version 1.44.5 is invalid: expected major.minor");
        check("9.99", "client version 9.99 is too new. Maximum supported API version is 1.51");
        check(
            "99999999999.1",
            "client version 99999999999.1 is too new. Maximum supported API version is 1.51",
        );
        assert!(ApiVersion::new(1, 12).check("1.12").is_ok());
        assert!(ApiVersion::new(1, 9) < ApiVersion::new(1, 10));
    }
}
