//! Drives the real binary for tests: a daemon in mount and network namespaces of its own, with a
//! temporary root, reached over its unix socket. Any number run side by side.
//!
//! [`Daemon::start`] gives one; [`Daemon::finish`] (also on drop) ends it and runs the leak check:
//! no process, cgroup, mount or state directory of the test may remain.
//! Tests wait on events ([`wait_until`] polls kernel state, for what has no event).

pub mod daemon;
pub mod filter;
pub mod http;
pub mod image;
pub mod leaks;
pub mod run;
pub mod terminal;
mod watchdog;

pub use daemon::{Daemon, Options};
pub use http::{Response, Socket};
pub use run::{Output, wait_until};
pub use terminal::Terminal;
