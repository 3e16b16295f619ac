//! Mount options as users write them, split into what the mount and what the filesystem is told.

use sys::mount::MountAttrFlags;

use super::step::invalid;
use crate::protocol::Failure;

/// A parsed list of tmpfs options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TmpfsOptions<'a> {
    pub(super) attributes: MountAttrFlags,
    /// `size=`, `mode=`, ...: for the filesystem.
    pub(super) filesystem: Vec<(&'a str, Option<&'a str>)>,
}

/// Parses tmpfs options; the last word counts. Without words to the contrary a tmpfs is
/// `nosuid,nodev,noexec`.
pub(super) fn parse_tmpfs(options: &[String]) -> Result<TmpfsOptions<'_>, Failure> {
    let mut parsed = TmpfsOptions {
        attributes: MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        filesystem: Vec::new(),
    };
    for option in options.iter().flat_map(|option| option.split(',')) {
        match mount_flag(option) {
            Some((flag, on)) => parsed.attributes.set(flag, on),
            None => match option.split_once('=') {
                Some((
                    key @ ("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks"),
                    value,
                )) => {
                    parsed.filesystem.push((key, Some(value)));
                }
                _ if is_default(option) => {}
                _ => return Err(invalid(format!("invalid tmpfs option {option:?}"))),
            },
        }
    }
    Ok(parsed)
}

/// Words that ask for what is so anyway: private propagation and no time-keeping oddities.
fn is_default(option: &str) -> bool {
    matches!(option, "" | "defaults" | "rprivate" | "private" | "async" | "relatime")
}

fn mount_flag(option: &str) -> Option<(MountAttrFlags, bool)> {
    Some(match option {
        "ro" => (MountAttrFlags::MOUNT_ATTR_RDONLY, true),
        "rw" => (MountAttrFlags::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, true),
        "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, false),
        "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, true),
        "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, false),
        "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
        "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
        "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, true),
        "atime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, false),
        "nodiratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str, expect: &str) {
        let options = [options.to_owned()];
        let got = match parse_tmpfs(&options) {
            Ok(parsed) => {
                let flags: Vec<&str> =
                    parsed.attributes.iter_names().map(|(name, _)| name).collect();
                let flags = flags.join(" ").replace("MOUNT_ATTR_", "").to_lowercase();
                format!("{flags} {:?}", parsed.filesystem)
            }
            Err(failure) => failure.to_string(),
        };
        assert_eq!(got, expect, "{options:?}");
    }

    #[test]
    fn tmpfs_options() {
        check("", "nosuid nodev noexec []");
        check("rw,exec,size=1m", r#"nosuid nodev [("size", Some("1m"))]"#);
        check("ro,noexec,exec,mode=700", r#"rdonly nosuid nodev [("mode", Some("700"))]"#);
        check("dev,suid,exec,rprivate", " []");
        check("huge=always", r#"invalid tmpfs option "huge=always""#);
        check("size", r#"invalid tmpfs option "size""#);
    }
}
