//! Networks of containers: bridges, addresses, firewall, and the files that name hosts.
//!
//! Synchronous; every kernel change is a netlink message (no `ip`, `nft` or `iptables` program).
//! What the kernel holds for a daemon whose bridge is `boxship0`:
//!
//! ```text
//! link boxship0                 alias "boxship:boxship0:bridge", a fixed MAC, the gateway's address
//! link br-<12 hex>              alias "boxship:boxship0:network:<id>": a user's network
//! link veth<7 hex>              alias "boxship:boxship0:<container id>", port of the bridge;
//!                               made by `runtime::interfaces::plug`, dies with the container
//! link eth0.10, dm-<12 hex>     alias as a user's network: a parent that a macvlan network made
//! table inet   boxship_boxship0 what is routed: masquerade, published ports, who may reach containers
//! table bridge boxship_boxship0 what is bridged: nobody speaks with another's address
//! ```
//!
//! Another daemon, or another firewall tool, has other names; nothing else is ever touched.
//! Memory is the truth about addresses: it is rebuilt at start from the endpoints of running
//! containers ([`Networks::reconcile`]). Only what networks are is on disk.
//!
//! Start reading at [`Networks`]. [`firewall`] draws the rules, [`ipam`] hands out addresses,
//! [`ports`] the host's ports, `links` what `--icc=false` lets pass, [`features`] knows what a
//! kernel may lack, `reconcile` mends what somebody changed, `names` knows who is called what and
//! [`dns`] says it, [`files`] writes `resolv.conf`, `hosts` and `hostname`.
//!
//! To add a network driver: a plan of links and rules beside [`bridge`] and `macvlan`, and its name
//! in `networks` and `user`; nothing else knows drivers.

pub mod bridge;
mod bridge_network;
pub mod config;
mod conntrack;
pub mod dns;
mod endpoint;
mod error;
pub mod features;
pub mod files;
pub mod firewall;
mod info;
pub mod ipam;
mod links;
mod macvlan;
mod names;
mod networks;
mod pools;
pub mod ports;
mod reconcile;
mod records;
mod state;
pub mod subnet;
mod user;
mod wall;

pub use config::{AddressPool, NetworkConfig};
pub use endpoint::{Endpoint, EndpointRequest, EndpointSummary};
pub use error::NetworkError;
pub use info::{NetworkInfo, PoolInfo};
pub use links::{Link, LinkRules, OpenPort};
pub use networks::Networks;
pub use ports::{PortRequest, Protocol, Published};
pub use subnet::Subnet;
pub use user::{NetworkRequest, PoolRequest};
