//! The small init of `--init`: a freestanding program (`docker-init/main.rs`) that this crate
//! carries inside.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, Result, write};

/// The program's ELF file.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docker-init"));

/// What it is called, as in a container of Docker.
pub const PATH: &str = "/sbin/docker-init";

/// Makes an executable memory file of the program, which nobody can change any more.
pub fn sealed() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and make every memory file executable.
    let file = match memfd_create("docker-init", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("docker-init", flags),
        made => made,
    }?;
    if write(&file, IMAGE)? != IMAGE.len() {
        return Err(Errno::IO);
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}
