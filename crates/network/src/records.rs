//! What is kept of networks on disk: who they are. Everything else is rebuilt.

use metadata::{Store, Table};
use serde::{Deserialize, Serialize};
use spec::Id;

use crate::error::NetworkError;

/// What is kept of a network across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub id: Id,
    pub name: String,
    pub driver: String,
    pub created_nanos: i64,
}

/// Key: the network's id.
const NETWORKS: Table<NetworkRecord> = Table::new("networks");
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

fn now_nanos() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok()).unwrap_or_default()
}
