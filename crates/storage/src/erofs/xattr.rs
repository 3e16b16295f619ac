//! Extended attributes: what the kernel would make of setting one, without a file.

use rustix::io::{Errno, Result};

use super::acl::{self, Acl};
use super::model::{Body, Inode};
use crate::names;

const CAPABILITY: &[u8] = b"security.capability";

/// The names that EROFS stores as a number and a rest.
const PREFIXES: [(u8, &[u8]); 5] =
    [(1, b"user."), (2, acl::ACCESS), (3, acl::DEFAULT), (4, b"trusted."), (6, b"security.")];

/// The longest value: its length has 16 bits.
pub(super) const LONGEST_VALUE: usize = u16::MAX as usize;
/// All of an inode's, with what describes them: a number of 16 bits counts units of four bytes.
pub(super) const LARGEST_SET: usize = 4 * (u16::MAX as usize - 1);
const HEADER: usize = 12;

/// Sets an attribute from an archive, as setxattr would; what the kind of file cannot have is left
/// out.
pub(super) fn set(inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
    if !names::keeps_xattr(name) {
        return Ok(());
    }
    if name.len() > 255 {
        return Err(Errno::RANGE);
    }
    if value.len() > LONGEST_VALUE {
        return Err(Errno::TOOBIG);
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        return set_acl(inode, name, value);
    }
    if name.starts_with(b"system.") {
        return Ok(());
    }
    if name.starts_with(b"user.") {
        if name == b"user." {
            return Err(Errno::INVAL);
        }
        if !matches!(inode.body, Body::File(_) | Body::Directory(_)) {
            return Ok(());
        }
    }
    if name == CAPABILITY {
        check_capability(value)?;
    }
    insert(inode, name, value)
}

fn insert(inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
    inode.xattrs.insert(name.into(), value.into());
    if stored_size(inode) > LARGEST_SET { Err(Errno::NOSPC) } else { Ok(()) }
}

fn set_acl(inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
    if matches!(inode.body, Body::Symlink(_)) {
        return Ok(());
    }
    // An empty value takes the list away, like a list without entries.
    let acl = match value {
        [] => None,
        value => match Acl::parse(value) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other?,
        },
    };
    if name == acl::DEFAULT {
        return match acl {
            Some(_) if !inode.is_directory() => Err(Errno::ACCESS),
            Some(acl) => insert(inode, name, &acl.to_value()),
            None => {
                inode.xattrs.remove(name);
                Ok(())
            }
        };
    }
    let Some(acl) = acl else {
        inode.xattrs.remove(name);
        return Ok(());
    };
    inode.attributes.mode = inode.attributes.mode & 0o7000 | acl.mode();
    if acl.is_plain() {
        inode.xattrs.remove(name);
        return Ok(());
    }
    insert(inode, name, &acl.to_value())
}

/// chmod, which an access list follows.
pub(super) fn set_mode(inode: &mut Inode, mode: u16) {
    inode.attributes.mode = mode;
    if let Some(list) = inode.xattrs.get_mut(acl::ACCESS)
        && let Ok(Some(mut acl)) = Acl::parse(list)
    {
        acl.set_mode(mode & 0o777);
        *list = acl.to_value().into();
    }
}

/// linux/capability.h: revision 2 has 20 bytes, revision 3 has the owner's id besides.
fn check_capability(value: &[u8]) -> Result<()> {
    const REVISION: u32 = 0xff00_0000;
    let revision = value.first_chunk::<4>().map(|magic| u32::from_le_bytes(*magic) & REVISION);
    match (revision, value.len()) {
        (Some(0x0200_0000), 20) | (Some(0x0300_0000), 24) => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// The attributes as EROFS has them after an inode; nothing when there are none. A name without a
/// known prefix cannot come here.
pub(super) fn store<'a>(list: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut stored = Vec::new();
    for (name, value) in list {
        let Some((index, prefix)) = PREFIXES.iter().find(|(_, start)| name.starts_with(start))
        else {
            continue;
        };
        if stored.is_empty() {
            stored.resize(HEADER, 0);
        }
        let rest = &name[prefix.len()..];
        let length = u16::try_from(value.len()).expect("longer values are refused");
        stored.push(u8::try_from(rest.len()).expect("longer names are refused"));
        stored.push(*index);
        stored.extend(length.to_le_bytes());
        stored.extend(rest);
        stored.extend(value);
        stored.resize(stored.len().next_multiple_of(4), 0);
    }
    stored
}

fn stored_size(inode: &Inode) -> usize {
    let stored = inode.xattrs.iter().map(|(name, value)| 4 + name.len() + value.len() + 3);
    HEADER + stored.sum::<usize>()
}
