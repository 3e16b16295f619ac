//! The JSON of Docker's Engine API, one file per resource: the only place where it is spelled.
//!
//! Plain data, shared by daemon and clients. Three Go habits are kept because clients see them:
//! a list or map that may be `null` is an `Option` that is always written; a member with
//! `omitempty` is skipped when empty; all else is always written. Reading is lenient: missing
//! members take their defaults, unknown ones are ignored, and `server` drops members whose value
//! is `null` from request bodies before they reach these types.
//!
//! Source: Docker API 1.51, checked against the answers of Engine 28.5.

pub mod check;
pub mod container;
pub mod event;
pub mod exec;
pub mod host_config;
pub mod image;
pub mod network;
pub mod plugin;
pub mod stats;
pub mod stream;
pub mod system;
pub mod volume;

use serde::{Deserialize, Serialize};

/// The body of every error answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    pub message: String,
}

/// The answer of `POST .../create` for execs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdResponse {
    pub id: String,
}

/// `skip_serializing_if` for Go's `omitempty` on any plain value.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
