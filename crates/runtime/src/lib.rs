//! Containers as processes: the supervisor that parents them, the init stage that becomes them,
//! cgroups, seccomp, stdio and log files.
//!
//! No threads and no async runtime in here: the supervisor is one thread with one epoll, so that
//! ordinary code may run after fork. The daemon talks to it through [`protocol`].
//! Start reading at [`spec`], then [`supervisor`], then `init`.

pub mod cgroup;
pub mod connection;
pub mod exits;
pub mod init;
pub mod interfaces;
pub mod log;
pub mod protocol;
pub mod resolver;
pub mod seccomp;
pub mod spec;
pub mod supervisor;
mod wire;
