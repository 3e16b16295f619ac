//! The services behind the API: containers, images, events, system.
//!
//! [`Engine`] is a plain struct of services, each made with the handles it uses; there is no
//! object that knows everything. A container has one owner, its task (`containers::task`), which
//! takes a closed set of commands and publishes an immutable snapshot; listing and inspecting read
//! snapshots and wait for nothing. What runs is known to the supervisor process ([`supervisor`]),
//! which outlives the daemon; what was asked for is in the metadata store.
//!
//! Enter at [`Engine::start`], then read `containers/mod.rs`.

mod config;
pub mod containers;
pub mod errors;
mod events;
pub mod images;
mod names;
pub mod support;
mod supervisor;
pub mod system;

use std::sync::Arc;

pub use config::{
    BridgeConfig, DnsConfig, EngineConfig, LogDefaults, Reload, SeccompDefault, Versions,
};
pub use containers::Containers;
pub use errors::{Error, Result};
pub use events::{Events, Subscription};
pub use images::Images;
pub use system::System;

/// Everything the API serves.
#[derive(Debug, Clone)]
pub struct Engine {
    pub containers: Arc<Containers>,
    pub images: Arc<Images>,
    pub events: Arc<Events>,
    pub system: Arc<System>,
}

impl Engine {
    pub async fn start(_config: EngineConfig) -> Result<Self> {
        Err(Error::unsupported("start"))
    }

    /// Takes over what SIGHUP may change.
    pub fn reload(&self, _change: Reload) {}

    /// Ends what must end with the daemon: with live-restore nothing but the tasks, without it
    /// the containers too.
    pub async fn shutdown(&self) {}
}
