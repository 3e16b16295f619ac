//! What keeps the network as it should be while the daemon runs: rules that somebody flushed come
//! back within a second, all else that was changed within half a minute, and endpoints whose
//! containers are gone are given back.

use std::sync::Arc;
use std::time::Duration;

use crate::containers::registry::Registry;
use crate::containers::run_blocking;

/// One netlink question each; it answers from memory when nothing was touched.
const FIREWALL_EVERY: Duration = Duration::from_millis(500);
const CHECKS_AFTER: u64 = 60;

pub(crate) async fn keep(networks: Arc<network::Networks>, registry: Arc<Registry>) {
    let mut ticks = tokio::time::interval(FIREWALL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 1_u64.. {
        ticks.tick().await;
        if let Err(error) = networks.ensure_firewall() {
            tracing::warn!(%error, "restore the firewall");
        }
        if tick % CHECKS_AFTER == 0 {
            let (networks, registry) = (Arc::clone(&networks), Arc::clone(&registry));
            let checked = run_blocking(move || {
                release_dead(&networks, &registry);
                Ok(networks.check())
            });
            for error in checked.await.into_iter().flatten() {
                tracing::warn!(%error, "check the network");
            }
        }
    }
}

/// Gives back the places in networks of containers that do not run, however they ended. One that
/// is about to start is let alone: its files are locked then. Returns whether there were any.
pub(crate) fn release_dead(networks: &network::Networks, registry: &Registry) -> bool {
    let mut found = false;
    for network in networks.list() {
        for endpoint in &network.endpoints {
            let container = registry.get(&endpoint.container);
            let still = container.as_ref().map(|container| Arc::clone(&container.files));
            let still = still.map(tokio::sync::RwLock::try_read_owned).transpose();
            if still.is_err() || container.is_some_and(|container| container.may_run()) {
                continue;
            }
            found = true;
            let id = &endpoint.container;
            tracing::warn!(container = %id, network = network.name, "leave for one that is gone");
            if let Err(error) = networks.detach(network.id.as_str(), id) {
                tracing::warn!(container = %id, %error, "leave the network");
            }
        }
    }
    found
}
