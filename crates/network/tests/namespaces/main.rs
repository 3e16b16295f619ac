//! Networks for real: every test is a host of its own, in network namespaces that it makes.
//! Needs root; touches no namespace but its own, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod containers;
mod daemon;
mod degraded;
mod links;
mod macvlan;
mod ports;
mod reconcile;
mod spoofing;
mod user;
mod world;
