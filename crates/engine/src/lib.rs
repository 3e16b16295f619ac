//! The services behind the API: containers, images, networks, events, system.
//!
//! [`Engine`] is a plain struct of services, each made with the handles it uses; there is no
//! object that knows everything. A container has one owner, its task (`containers::task`), which
//! takes a closed set of commands and publishes an immutable snapshot; listing and inspecting read
//! snapshots and wait for nothing. What runs is known to the supervisor process ([`supervisor`]),
//! which outlives the daemon; what was asked for is in the metadata store.
//!
//! ```text
//! <data-root>/metadata.redb      records (crate metadata)
//! <data-root>/exits.log          exit codes, written by the supervisor
//! <data-root>/storage/           layers and writable layers (crate storage)
//! <data-root>/containers/<id>/   hostname, hosts, resolv.conf, the log
//! <data-root>/volumes/<name>/_data   (see `volumes`)
//! <data-root>/engine-id
//! <exec-root>/                   the supervisor's
//! ```
//!
//! Enter at [`Engine::start`], then read `containers/mod.rs`.

mod check;
mod config;
pub mod containers;
pub mod errors;
mod events;
pub mod images;
mod keeper;
mod names;
mod networks;
mod reaper;
mod resolver;
mod signal;
mod supervisor;
pub mod support;
mod sysinfo;
pub mod system;
pub mod volumes;
mod watched;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metadata::Store;

pub use config::{DnsConfig, EngineConfig, LogDefaults, Reload, SeccompDefault, Versions};
pub use containers::Containers;
pub use errors::{Error, Result};
pub use events::{Events, Subscription};
pub use images::Images;
pub use network::{AddressPool, NetworkConfig, Subnet};
pub use networks::Networks;
pub use system::System;
pub use volumes::Volumes;

use containers::registry::Registry;
use containers::run_blocking;
use sysinfo::SysInfo;

/// Everything the API serves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub containers: Arc<Containers>,
    pub images: Arc<Images>,
    pub networks: Arc<Networks>,
    pub volumes: Arc<Volumes>,
    pub events: Arc<Events>,
    pub system: Arc<System>,
    config: Arc<ArcSwap<EngineConfig>>,
}

/// What is opened from the disk before anything runs.
struct Opened {
    store: Store,
    storage: storage::Storage,
    images: image::Images,
    networks: network::Networks,
    id: String,
}

impl Engine {
    /// Opens the records, finds or starts the supervisor, and takes over what runs. Containers
    /// whose policy wants them up are started in the background.
    pub async fn start(config: EngineConfig) -> Result<Self> {
        if !config.userns_remap.is_empty() {
            return Err(Error::unsupported("remapping user namespaces (userns-remap)"));
        }
        reaper::start().map_err(Error::io("become a subreaper"))?;
        let opening = config.clone();
        let opened = run_blocking(move || open(&opening)).await?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        let events = Arc::new(Events::default());
        let registry = Arc::new(Registry::default());
        let sysinfo = Arc::new(SysInfo::detect());
        let networks = Arc::new(opened.networks);
        let images =
            Arc::new(Images::new(opened.images, Arc::clone(&events), Arc::clone(&registry)));
        let opening = {
            let (path, store) = (config.load().data_root.join("volumes"), opened.store.clone());
            let (registry, events) = (Arc::clone(&registry), Arc::clone(&events));
            run_blocking(move || Volumes::open(path, store, registry, events))
        };
        let volumes = Arc::new(opening.await?);
        let parts = containers::Parts {
            config: Arc::clone(&config),
            events: Arc::clone(&events),
            store: opened.store,
            storage: opened.storage.clone(),
            images: Arc::clone(&images),
            networks: Arc::clone(&networks),
            sysinfo: Arc::clone(&sysinfo),
            registry: Arc::clone(&registry),
            volumes: Arc::clone(&volumes),
        };
        let containers = Arc::new(Containers::open(parts).await?);
        let parts = system::Parts {
            config: Arc::clone(&config),
            sysinfo,
            registry: Arc::clone(&registry),
            images: Arc::clone(&images),
            containers: Arc::clone(&containers),
            events: Arc::clone(&events),
            networks: Arc::clone(&networks),
            volumes: Arc::clone(&volumes),
            storage: opened.storage,
            id: opened.id,
        };
        let system = Arc::new(System::new(parts));
        let booting = Arc::clone(&containers);
        tokio::spawn(async move { booting.start_at_boot().await });
        tokio::spawn(keeper::keep(Arc::clone(&networks), Arc::clone(&registry)));
        let networks = Arc::new(Networks::new(networks, registry, Arc::clone(&events)));
        Ok(Self { containers, images, networks, volumes, events, system, config })
    }

    /// Takes over what SIGHUP may change.
    pub fn reload(&self, change: Reload) {
        let mut config = EngineConfig::clone(&self.config.load());
        config.apply(change);
        self.config.store(Arc::new(config));
        let attributes = [("name".to_owned(), self.system.info().name)];
        self.events.emit("daemon", "reload", "", attributes.into());
    }

    /// Ends what must end with the daemon: with live-restore nothing but restarts under way,
    /// without it the containers too.
    pub async fn shutdown(&self) {
        self.containers.shutdown().await;
        self.images.unmount().await;
    }
}

/// The slow, blocking part of the start.
fn open(config: &EngineConfig) -> Result<Opened> {
    make_private(&config.data_root)?;
    make_private(&config.exec_root)?;
    let store = Store::open(config.data_root.join("metadata.redb"))?;
    if let Some(path) = store.set_aside() {
        tracing::error!(path = %path.display(), "the records were damaged and were set aside");
    }
    // Layers come from strangers: a confined process of our own program unpacks them.
    let unpacker = images::OwnUnpacker(storage::Confined {
        program: config.supervisor.clone(),
        arguments: vec!["unpack".into()],
    });
    let storage = storage::Storage::open_with(
        config.data_root.join("storage"),
        store.clone(),
        storage::Options {
            unpacker: Box::new(unpacker),
            layout: config.storage_layout,
            ..storage::Options::default()
        },
    )?;
    let images = image::Images::open(storage.clone())?;
    let mut bridge = config.bridge.clone();
    if bridge.host_nameservers.is_empty() {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        bridge.host_nameservers = network::files::nameserver_addresses(&text);
    }
    let networks = network::Networks::open(bridge, &store)?;
    for record in store.damaged()? {
        let (table, key) = (record.table, record.key);
        tracing::error!(table, key, reason = record.reason, "a damaged record was put aside");
    }
    let trash = storage.clone();
    // Files of what was removed, or left over by a crash: of no hurry.
    std::thread::Builder::new()
        .name("trash".to_owned())
        .spawn(move || {
            loop {
                if let Err(error) = trash.reap_trash() {
                    tracing::warn!(%error, "empty the trash");
                }
                trash.wait_for_trash();
                // Whoever removes one thing is often about to remove or start another.
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        })
        .map_err(Error::io("start a thread"))?;
    let mounts = storage.clone();
    std::thread::Builder::new()
        .name("mounts".to_owned())
        .spawn(move || {
            loop {
                mounts.put_mounts_aside_when_idle();
            }
        })
        .map_err(Error::io("start a thread"))?;
    let id = engine_id(&config.data_root)?;
    Ok(Opened { store, storage, images, networks, id })
}

/// Containers' users must pass through to their volumes, but not look around; neither in a
/// directory that somebody else made.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    const MODE: u32 = 0o711;
    let made = std::fs::DirBuilder::new().recursive(true).mode(MODE).create(path);
    made.and_then(|()| {
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
        let narrowed = std::fs::Permissions::from_mode(mode & MODE);
        // A sticky directory is everybody's, like /tmp: not ours to close.
        let keep = mode & !MODE == 0 || mode & 0o1000 != 0;
        if keep { Ok(()) } else { std::fs::set_permissions(path, narrowed) }
    })
    .map_err(Error::io(format!("create {}", path.display())))
}

/// A name for this engine that stays, in Docker's form of a UUID.
fn engine_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        _ => {}
    }
    let mut bytes: [u8; 16] = sys::random::bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let id =
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    std::fs::write(&path, &id).map_err(Error::io(format!("write {}", path.display())))?;
    Ok(id)
}
