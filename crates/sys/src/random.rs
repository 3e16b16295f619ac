//! Random bytes from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// Returns `N` bytes from the kernel's generator.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut buffer = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut buffer[filled..], GetRandomFlags::empty())
            .expect("getrandom fails only before the kernel has any entropy");
    }
    buffer
}
