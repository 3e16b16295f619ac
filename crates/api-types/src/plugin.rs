//! What the daemon and a volume plugin say to each other: one JSON object in each direction, over
//! HTTP. An answer that has `Err` filled is a refusal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// The one request for every method: what a method does not know is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Request {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Create has them, null when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opts: Option<Option<BTreeMap<String, String>>>,
    /// Mount and Unmount: who mounts.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// `Plugin.Activate`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Activated {
    pub implements: Vec<String>,
}

/// The one answer for every method of a volume driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answer {
    pub err: String,
    pub mountpoint: String,
    pub volume: Option<Volume>,
    pub volumes: Vec<Volume>,
    pub capabilities: Capabilities,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    pub name: String,
    pub mountpoint: String,
    pub created_at: String,
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Capabilities {
    pub scope: String,
}

/// A `.json` file that says where a plugin listens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpecFile {
    pub name: String,
    pub addr: String,
    #[serde(rename = "TLSConfig")]
    pub tls_config: Option<serde_json::Value>,
}
