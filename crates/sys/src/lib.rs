//! The kernel, spelled safely. The only crate of the workspace that may contain `unsafe`, and
//! only around single calls that rustix does not wrap.
//!
//! [`path`] is where every path that a container, image, archive or user can influence is opened.

#![allow(unsafe_code)]

pub mod bpf;
pub mod caps;
pub mod descriptors;
pub mod docker_init;
pub mod erofs;
pub mod landlock;
pub mod malloc;
pub mod mount;
pub mod netlink;
pub mod overlay;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod random;
pub mod seccomp;
pub mod socket;

pub use path::RootDir;
