//! `POST /boxship/check`: an endpoint of our own, which verifies and repairs the store.

use serde::{Deserialize, Serialize};

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckReport {
    pub problems: Vec<Problem>,
    pub images: u64,
    pub layers: u64,
    /// Of layers, read to their end.
    pub bytes: u64,
    pub containers: u64,
    pub volumes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Problem {
    /// `layer`, `image`, `name`, `blob`, `container`, `volume`, `record`, `file` or `mount`.
    pub kind: String,
    /// Its id, name or path.
    pub name: String,
    pub reason: String,
    /// What was done about it; empty when nothing was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Nothing is left to do.
    pub solved: bool,
    /// Images that cannot be used before they are loaded or pulled again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
}
