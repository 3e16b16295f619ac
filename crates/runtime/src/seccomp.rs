//! Seccomp profiles to BPF: Docker's JSON form and our built-in default, compiled to a compact
//! (range and binary search) filter and cached.
//!
//! ```text
//! profile   the JSON form; which of its rules hold for this machine and these capabilities
//! syscalls  names and numbers
//! compile   rules to a decision for every number; decisions to instructions
//! emit      the assembler
//! ```
//!
//! The default is Docker's own (`default.json`, facts of moby/profiles commit 02e898b: v0.2.3 with
//! socket families listed one by one, as "more than 40" lets AF_ALG with upper bits set through),
//! so that what runs under Docker runs here and what is refused there is refused with the same
//! errno.

mod compile;
mod emit;
mod oci;
mod profile;
mod syscalls;

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::spec::Capabilities;
pub(crate) use oci::{capability_names, oci_profile};
pub use profile::CAPABILITIES;
use profile::{Context, Profile};

const DEFAULT: &str = include_str!("seccomp/default.json");

/// A filter ready to load: instructions as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub instructions: Vec<[u8; 8]>,
    pub flags: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Decoding seccomp profile failed: {reason}")]
pub struct ProfileError {
    pub reason: String,
}

thread_local! {
    /// Compiled defaults by bounding set. There are few different ones on a machine.
    static COMPILED: RefCell<BTreeMap<u64, Filter>> = const { RefCell::new(BTreeMap::new()) };
}

/// Compiles the built-in default for a process with these capabilities. Call it before the fork:
/// what it compiled (in 0.8 ms) is kept for the thread's next call with the same bounding set.
pub fn default_filter(capabilities: &Capabilities) -> Filter {
    COMPILED.with_borrow_mut(|compiled| {
        let filter = compiled.entry(capabilities.bounding).or_insert_with(|| {
            compile(DEFAULT, capabilities).expect("a test compiles the built-in profile")
        });
        filter.clone()
    })
}

/// Compiles a profile in Docker's JSON form. Which rules hold depends on the bounding set, as in
/// Docker. Unknown system calls are passed over, unknown members too.
pub fn compile(profile: &str, capabilities: &Capabilities) -> Result<Filter, ProfileError> {
    let context = Context { capabilities: capabilities.bounding, kernel: kernel_version() };
    let policy = Profile::parse(profile)?.select(&context)?;
    Ok(Filter { instructions: compile::instructions(&policy)?, flags: policy.flags })
}

/// Major and minor version of the running kernel.
fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    profile::parse_kernel(&release).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests;
