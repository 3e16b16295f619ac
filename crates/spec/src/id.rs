//! Identifiers of containers, execs and networks, and the names users give.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// 64 lower-case hexadecimal digits. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(Arc<str>);

impl Id {
    /// Makes an id from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(crate::Digest::from_bytes(bytes).hex().into())
    }

    /// Accepts exactly 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        crate::Digest::from_hex(text).ok().map(|_digest| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, which Docker shows to people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A checked container name, without the leading slash that the API shows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerName(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
pub struct NameError {
    pub name: String,
}

impl ContainerName {
    /// Checks a name as Docker does: a leading slash is allowed and dropped.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let mut bytes = name.bytes();
        let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let tail = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if head && tail && name.len() >= 2 {
            Ok(Self(name.into()))
        } else {
            Err(NameError { name: text.to_owned() })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ContainerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "/web", "a.b-c_d", "0x"] {
            assert!(ContainerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", "a b", "a/b", "ä1", "//ab", "."] {
            assert!(ContainerName::parse(bad).is_err(), "{bad}");
        }
    }
}
