//! Access control lists as the kernel treats them when they are set: checked, folded into the mode
//! where that says the same, and changed together with the mode.

use rustix::io::{Errno, Result};

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

// linux/posix_acl.h, posix_acl_xattr.h
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// `None` for a list without entries, which takes the list away.
    pub(super) fn parse(value: &[u8]) -> Result<Option<Self>> {
        let Some((version, entries)) = value.split_first_chunk::<4>() else {
            return Err(Errno::INVAL);
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.len() % 8 != 0 {
            return Err(Errno::INVAL);
        }
        let entry = |bytes: &[u8]| Entry {
            tag: u16::from_le_bytes([bytes[0], bytes[1]]),
            permissions: u16::from_le_bytes([bytes[2], bytes[3]]),
            id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        let acl = Self(entries.chunks_exact(8).map(entry).collect());
        acl.check()?;
        Ok(Some(acl))
    }

    /// The owner, named users, the group, named groups, the mask, the others: in this order.
    fn check(&self) -> Result<()> {
        const ORDER: [u16; 6] = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        let mut at = 0;
        let mut named = false;
        let mut seen = [0usize; 6];
        for entry in &self.0 {
            let place = ORDER.iter().position(|tag| *tag == entry.tag).ok_or(Errno::INVAL)?;
            let is_named = matches!(entry.tag, USER | GROUP);
            if place < at || entry.permissions & !7 != 0 || is_named && entry.id == u32::MAX {
                return Err(Errno::INVAL);
            }
            (at, named) = (place, named | is_named);
            seen[place] += 1;
        }
        let once = |place: usize| seen[place] == 1;
        let mask = seen[4] == 1 || seen[4] == 0 && !named;
        if once(0) && once(2) && once(5) && mask { Ok(()) } else { Err(Errno::INVAL) }
    }

    /// The nine bits that say the same to those who only know modes.
    pub(super) fn mode(&self) -> u16 {
        let mut mode = 0;
        let mut group = 0;
        let mut mask = None;
        for entry in &self.0 {
            match entry.tag {
                USER_OBJ => mode |= entry.permissions << 6,
                GROUP_OBJ => group = entry.permissions,
                MASK => mask = Some(entry.permissions),
                OTHER => mode |= entry.permissions,
                _ => {}
            }
        }
        mode | mask.unwrap_or(group) << 3
    }

    /// Whether the mode says all of it.
    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// What chmod does to it.
    pub(super) fn set_mode(&mut self, mode: u16) {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => entry.permissions = mode >> 6 & 7,
                GROUP_OBJ if !masked => entry.permissions = mode >> 3 & 7,
                MASK => entry.permissions = mode >> 3 & 7,
                OTHER => entry.permissions = mode & 7,
                _ => {}
            }
        }
    }

    pub(super) fn to_value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.permissions.to_le_bytes());
            // As the kernel shows it for those without a name.
            let id = if matches!(entry.tag, USER | GROUP) { entry.id } else { u32::MAX };
            value.extend(id.to_le_bytes());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let fails = |entries: &[_]| assert!(Acl::parse(&value(entries)).is_err(), "{entries:?}");
        fails(&[(USER_OBJ, 7, 0)]);
        fails(&[(USER_OBJ, 7, 0), (OTHER, 7, 0), (GROUP_OBJ, 7, 0)]);
        fails(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 7, 0), (OTHER, 7, 0)]);
        fails(&[(USER_OBJ, 7, 0), (USER, 7, 1), (GROUP_OBJ, 7, 0), (OTHER, 7, 0)]);
        fails(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0), (OTHER, 7, 0), (3, 0, 0)]);
        assert!(Acl::parse(b"").is_err());
        assert!(Acl::parse(&[1, 0, 0, 0]).is_err());
        assert!(Acl::parse(&value(&[])).unwrap().is_none());
    }

    #[test]
    fn modes_come_and_go() {
        let list =
            [(USER_OBJ, 7, 0), (USER, 5, 12), (GROUP_OBJ, 5, 0), (MASK, 4, 0), (OTHER, 1, 0)];
        let mut acl = Acl::parse(&value(&list)).unwrap().unwrap();
        assert_eq!((acl.mode(), acl.is_plain()), (0o741, false));
        acl.set_mode(0o620);
        assert_eq!(acl.mode(), 0o620);
        let plain = [(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 4, 0)];
        let acl = Acl::parse(&value(&plain)).unwrap().unwrap();
        assert_eq!((acl.mode(), acl.is_plain()), (0o644, true));
    }
}
