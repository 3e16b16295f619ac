//! `docker inspect`. Everything comes from the snapshot; only `size` asks the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::container::{GraphDriver, Inspect, NetworkSettings, State};
use api_types::host_config::HostConfig;
use api_types::network::EndpointSettings;
use network::Endpoint;

use super::record::{Phase, time_text};
use super::snapshot::Snapshot;
use super::start::NetworkFiles;
use super::{Containers, Shared, run_blocking, validate};
use crate::errors::Result;

impl Containers {
    pub async fn inspect(&self, reference: &str, size: bool) -> Result<Inspect> {
        let container = self.shared.registry.find(reference)?;
        let snapshot = container.snapshot();
        let mut inspect = describe(&self.shared, &snapshot);
        if size {
            let shared = Arc::clone(&self.shared);
            let (own, whole) = run_blocking(move || {
                let definition = &snapshot.definition;
                Ok(super::list::sizes(&shared, definition.id.as_str(), &definition.image_id))
            })
            .await?;
            inspect.size_rw = Some(own);
            inspect.size_root_fs = Some(whole);
        }
        Ok(inspect)
    }
}

fn describe(shared: &Shared, snapshot: &Snapshot) -> Inspect {
    let definition = &snapshot.definition;
    let mut command = definition.command_line().into_iter();
    let directory = shared.directory(&definition.id);
    let files = NetworkFiles::in_directory(&directory);
    // Docker has these paths once the container was started.
    let begun = snapshot.progress.generation > 0;
    let path = |path: &std::path::Path| match begun {
        true => path.display().to_string(),
        false => String::new(),
    };
    let log = validate::logging::log_path(
        &definition.host_config.log_config.kind,
        &directory,
        definition.id.as_str(),
    );
    Inspect {
        id: definition.id.to_string(),
        created: time_text(definition.created_nanos),
        path: command.next().unwrap_or_default(),
        args: command.collect(),
        state: state(snapshot),
        image: definition.image_id.clone(),
        resolv_conf_path: path(&files.resolv_conf),
        hostname_path: path(&files.hostname),
        hosts_path: path(&files.hosts),
        log_path: log
            .filter(|_| definition.host_config.log_config.kind == "json-file")
            .map(|log| path(&log))
            .unwrap_or_default(),
        name: format!("/{}", definition.name),
        restart_count: i64::from(snapshot.progress.restart_count),
        driver: crate::system::STORAGE_DRIVER.to_owned(),
        platform: definition.platform.clone(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: String::new(),
        exec_ids: shared.execs.of_container(&definition.id),
        host_config: HostConfig {
            links: super::links::shown(shared, definition),
            ..definition.host_config.clone()
        },
        graph_driver: graph_driver(shared, snapshot),
        size_rw: None,
        size_root_fs: None,
        mounts: definition.shown_mounts(&shared.volumes),
        config: definition.config.clone(),
        network_settings: network_settings(shared, snapshot),
    }
}

fn state(snapshot: &Snapshot) -> State {
    let progress = &snapshot.progress;
    State {
        status: snapshot.status().to_owned(),
        running: progress.is_running(),
        paused: progress.paused,
        restarting: progress.phase == Phase::Restarting,
        oom_killed: progress.oom_killed,
        dead: progress.phase == Phase::Dead,
        pid: progress.pid,
        exit_code: progress.exit_code,
        error: progress.error.clone(),
        started_at: time_text(progress.started_nanos),
        finished_at: time_text(progress.finished_nanos),
        health: snapshot.health.as_deref().cloned(),
    }
}

fn graph_driver(shared: &Shared, snapshot: &Snapshot) -> GraphDriver {
    let id = snapshot.definition.id.as_str();
    let data = match shared.storage.rootfs_names(id) {
        Ok(dirs) => {
            let lower: Vec<_> = dirs.lower.iter().map(|path| path.display().to_string()).collect();
            let merged = dirs.upper.with_file_name("merged");
            Some(BTreeMap::from([
                ("ID".to_owned(), id.to_owned()),
                ("LowerDir".to_owned(), lower.join(":")),
                ("MergedDir".to_owned(), merged.display().to_string()),
                ("UpperDir".to_owned(), dirs.upper.display().to_string()),
                ("WorkDir".to_owned(), dirs.work.display().to_string()),
            ]))
        }
        Err(error) => {
            tracing::debug!(container = id, %error, "describe the root");
            None
        }
    };
    GraphDriver { data, name: crate::system::STORAGE_DRIVER.to_owned() }
}

fn network_settings(shared: &Shared, snapshot: &Snapshot) -> NetworkSettings {
    let networks = networks(snapshot);
    let mut settings = NetworkSettings { networks, ..NetworkSettings::default() };
    if !snapshot.progress.is_alive() {
        if let Some(first) = settings.networks.values().next() {
            settings.mac_address.clone_from(&first.mac_address);
        }
        return settings;
    }
    let progress = &snapshot.progress;
    settings.sandbox_id = snapshot.definition.id.to_string();
    settings.sandbox_key = format!("/proc/{}/ns/net", progress.pid);
    if progress.endpoints.iter().any(|endpoint| endpoint.interface.is_some()) {
        settings.ports = super::ports::map(snapshot);
        settings.bridge = shared.config().bridge.bridge.clone().unwrap_or_default();
    }
    let mut default = progress.endpoints.iter().filter(|end| end.network_name == "bridge");
    if let Some(endpoint) = default.next() {
        let own = running_endpoint(endpoint, EndpointSettings::default());
        settings.endpoint_id = own.endpoint_id;
        settings.gateway = own.gateway;
        settings.ip_address = own.ip_address;
        settings.ip_prefix_len = own.ip_prefix_len;
        settings.ipv6_gateway = own.ipv6_gateway;
        settings.global_ipv6_address = own.global_ipv6_address;
        settings.global_ipv6_prefix_len = own.global_ipv6_prefix_len;
        settings.mac_address = own.mac_address;
    }
    settings
}

/// The networks by name: as requested, and while the container runs with what it got.
pub(super) fn networks(snapshot: &Snapshot) -> BTreeMap<String, EndpointSettings> {
    let definition = &snapshot.definition;
    let endpoints = snapshot.progress.endpoints.iter().filter(|_| snapshot.progress.is_alive());
    let requested = definition.endpoints.iter();
    requested
        .map(|(name, settings)| {
            let endpoint = endpoints.clone().find(|endpoint| endpoint.network_name == *name);
            let mut settings = match endpoint {
                Some(endpoint) => running_endpoint(endpoint, settings.clone()),
                None => settings.clone(),
            };
            settings.dns_names = Some(definition.dns_names(name)).filter(|names| !names.is_empty());
            (name.clone(), settings)
        })
        .collect()
}

fn running_endpoint(endpoint: &Endpoint, settings: EndpointSettings) -> EndpointSettings {
    let text = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let prefix =
        |subnet: Option<&network::Subnet>| subnet.map_or(0, |subnet| i64::from(subnet.prefix()));
    EndpointSettings {
        mac_address: endpoint.mac_text(),
        network_id: endpoint.network_id.to_string(),
        endpoint_id: endpoint.endpoint_id.to_string(),
        gateway: text(endpoint.gateway_v4),
        ip_address: text(endpoint.ipv4.map(|own| own.ip())),
        ip_prefix_len: prefix(endpoint.ipv4.as_ref()),
        ipv6_gateway: text(endpoint.gateway_v6.filter(|_| endpoint.ipv6.is_some())),
        global_ipv6_address: text(endpoint.ipv6.map(|own| own.ip())),
        global_ipv6_prefix_len: prefix(endpoint.ipv6.as_ref()),
        ..settings
    }
}
