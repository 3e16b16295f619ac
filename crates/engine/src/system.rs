//! What the daemon says about itself and the machine.

use api_types::system::{Info, Version};
use serde::{Deserialize, Serialize};

use crate::errors::{Error, Result};

/// The name of our own runtime in `--runtime` and `/info`; `runc` is accepted for it as well.
pub const DEFAULT_RUNTIME: &str = "boxship";

/// `GET /system/df` (API below 1.52).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    pub layers_size: i64,
    pub images: Vec<api_types::image::Summary>,
    pub containers: Vec<api_types::container::Summary>,
    pub volumes: Vec<api_types::volume::Volume>,
    pub build_cache: Vec<serde_json::Value>,
}

#[derive(Debug)]
pub struct System {}

impl System {
    pub fn version(&self) -> Version {
        Version::default()
    }
    pub fn info(&self) -> Info {
        Info::default()
    }
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        Err(Error::unsupported("system df"))
    }
    /// `POST /auth`.
    pub async fn auth(&self, _registry: &str) -> Result<()> {
        Err(Error::unsupported("logging in to a registry"))
    }
}
