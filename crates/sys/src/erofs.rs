//! EROFS images as detached mounts: out of files (kernel 6.12), or through loop devices.
//!
//! The kernel parses what it is given: only images that we wrote ourselves may come here.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use crate::mount::{Context, MountAttrFlags};

/// `f_type` of a mounted image.
pub const MAGIC: i64 = 0xe0f5_e1e2;

/// Mounts the image in a file whose data is in others, in the order of its table of devices.
/// `EINVAL`, `ENOTBLK` and `EOPNOTSUPP` say that this kernel does not mount files.
pub fn mount_files(image: impl AsFd, data: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let data: Vec<_> = data.iter().map(|fd| path(*fd)).collect();
    mount(&path(image.as_fd()), &data)
}

/// The same through a loop device for each file. The devices go with the mount.
pub fn mount_loops(image: impl AsFd, data: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    let image = Loop::attach(image.as_fd())?;
    let data = data.iter().map(|fd| Loop::attach(*fd)).collect::<Result<Vec<_>>>()?;
    let paths: Vec<_> = data.iter().map(|device| device.path.clone()).collect();
    mount(&image.path, &paths)
}

fn mount(image: &str, data: &[String]) -> Result<OwnedFd> {
    let context = Context::open("erofs", image)?;
    // Said to the file system as well: it would open a device for writing otherwise.
    context.set("ro", None)?;
    data.iter().try_for_each(|path| context.set_path("device", Path::new(path)))?;
    let inert = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    context.mount(inert)
}

/// A loop device that lasts as long as somebody has it open, a mount included.
struct Loop {
    path: String,
    _open: OwnedFd,
}

// linux/loop.h
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Loop {
    fn attach(file: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = openat(CWD, "/dev/loop-control", flags, Mode::empty())?;
        // Others look for a free one at the same time.
        for _ in 0..64 {
            match Self::attach_free(&control, file) {
                Err(Errno::BUSY) => {}
                other => return other,
            }
        }
        Err(Errno::BUSY)
    }

    fn attach_free(control: &OwnedFd, file: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: the request takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(last_errno());
        }
        let path = format!("/dev/loop{number}");
        let device = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let config = LoopConfig {
            fd: file.as_raw_fd().cast_unsigned(),
            block_size: 512,
            info: LoopInfo {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: READ_ONLY | AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: `config` has the layout of the kernel's `loop_config`, which is only read.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        if done < 0 {
            return Err(last_errno());
        }
        Ok(Self { path, _open: device })
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Starts writing a stretch of a file to the disk, without waiting for it.
pub fn start_writing(file: &File, offset: u64, length: u64) -> Result<()> {
    let (offset, length) = (offset.cast_signed(), length.cast_signed());
    // SAFETY: the call has no pointers.
    let done = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
