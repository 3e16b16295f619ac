//! Capabilities as bit masks over the kernel's numbers.

use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

pub const SYS_ADMIN: u64 = CapabilitySet::SYS_ADMIN.bits();

/// The sets of the calling process that `capset` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// Removes everything but `keep` from the bounding set, for good. Needs `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> Result<()> {
    for number in 0..u64::BITS {
        let capability = 1u64 << number;
        if keep & capability != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(capability)) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub fn set(sets: Sets) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    set_capabilities(None, sets)
}

/// Makes the ambient set exactly `wanted`, which must be permitted and inheritable.
pub fn set_ambient(wanted: u64) -> Result<()> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        let capability = 1u64 << number;
        if wanted & capability != 0 {
            let capability = CapabilitySet::from_bits_retain(capability);
            configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

/// What the calling process is permitted, and so can hand on.
pub fn permitted() -> Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}
