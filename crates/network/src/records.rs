//! What is kept of networks on disk: what they are. Who is in them is rebuilt.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metadata::{Store, Table};
use serde::{Deserialize, Serialize};
use spec::Id;

use crate::error::NetworkError;
use crate::subnet::Subnet;

/// What is kept of a network across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub id: Id,
    pub name: String,
    pub driver: String,
    pub created_nanos: i64,
    /// Of a user's network; the default ones follow the daemon's settings.
    #[serde(default)]
    pub user: Option<UserNetwork>,
}

/// A network as it was asked for, with what was chosen for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserNetwork {
    #[serde(default = "enabled")]
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    /// In the order of the request, then what was chosen.
    pub pools: Vec<PoolRecord>,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolRecord {
    pub subnet: Subnet,
    pub ip_range: Option<Subnet>,
    pub gateway: IpAddr,
    /// Docker shows no gateway that was chosen in a subnet that was asked for.
    pub gateway_shown: bool,
    /// The subnet was the user's: addresses in it may be too.
    pub asked: bool,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Networks without IPv4 came later than the first records.
fn enabled() -> bool {
    true
}

/// Key: the network's id.
pub(crate) const NETWORKS: Table<NetworkRecord> = Table::new("networks");
pub(crate) const DEFAULT_NETWORKS: [(&str, &str); 3] =
    [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// Reads the records, adding those of the default networks that are missing.
pub(crate) fn load(store: &Store) -> Result<Vec<NetworkRecord>, NetworkError> {
    store.adopt(NETWORKS)?;
    let mut records: Vec<_> = store.scan(NETWORKS)?.into_iter().map(|(_, record)| record).collect();
    let missing: Vec<_> = DEFAULT_NETWORKS
        .iter()
        .filter(|(name, _)| !records.iter().any(|record| record.name == *name))
        .map(|&(name, driver)| NetworkRecord {
            id: Id::from_random(sys::random::bytes()),
            name: name.to_owned(),
            driver: driver.to_owned(),
            created_nanos: now_nanos(),
            user: None,
        })
        .collect();
    if !missing.is_empty() {
        records.extend(missing.iter().cloned());
        store.write(move |txn| {
            missing.iter().try_for_each(|record| NETWORKS.put(txn, record.id.as_str(), record))
        })?;
    }
    records.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(records)
}

pub(crate) fn now_nanos() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok()).unwrap_or_default()
}
