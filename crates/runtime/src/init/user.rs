//! Who a program runs as: `user[:group]` looked up in the container's own `passwd` and `group`.
//!
//! The rules are Docker's. A number is an id and never a name; it is taken as written and never
//! wrapped. Both files come from an image and may be anything, so they are read line by line, with
//! a bound on a line and on the whole, and only if they are regular files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use sys::RootDir;

use crate::protocol::Failure;

const FILE_MAX: u64 = 16 << 20;
const LINE_MAX: u64 = 1 << 20;
const ID_MAX: i64 = i32::MAX as i64;

/// A user with everything `setuid` and its kin need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group first (CVE-2022-36109), then those of the files and the asked-for ones.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The ids of `user` below `root`, for files that are to be theirs.
pub fn owner_of(root: &RootDir, user: &str) -> Result<(u32, u32), Failure> {
    look_up(root, user, &[]).map(|found| (found.uid, found.gid))
}

/// Looks `user` and `additional` groups up below `root`.
pub(crate) fn look_up(
    root: &RootDir,
    user: &str,
    additional: &[String],
) -> Result<Identity, Failure> {
    let passwd = open_bounded(root, "/etc/passwd")?;
    let group = open_bounded(root, "/etc/group")?;
    resolve(user, additional, passwd, group)
}

/// Opens a database, or something empty where there is none.
fn open_bounded(root: &RootDir, path: &str) -> Result<Box<dyn BufRead>, Failure> {
    let refused = |why: &str| Failure::User { text: format!("{path} of the image {why}") };
    // Looked at before it is opened for reading, as opening a device or a FIFO has effects.
    let kind = match root.open_in(path, OFlags::PATH, Mode::empty()) {
        Ok(found) => fstat(&found).map_err(|errno| refused(&format!("cannot be read: {errno}")))?,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Box::new(io::empty())),
        Err(errno) => return Err(refused(&format!("cannot be opened: {errno}"))),
    };
    if FileType::from_raw_mode(kind.st_mode) != FileType::RegularFile {
        return Err(refused("is not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = root
        .open_in(path, flags, Mode::empty())
        .map_err(|errno| refused(&format!("cannot be opened: {errno}")))?;
    // /proc/kmsg and its like call themselves regular files.
    let in_proc = fstatfs(&opened).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    let stat = fstat(&opened).map_err(|errno| refused(&format!("cannot be read: {errno}")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || in_proc {
        return Err(refused("is not a regular file"));
    }
    if stat.st_size as u64 > FILE_MAX {
        return Err(refused(&format!("is larger than {FILE_MAX} bytes")));
    }
    // The file may grow while it is read.
    Ok(Box::new(BufReader::with_capacity(4096, File::from(opened).take(FILE_MAX))))
}

/// One line of `passwd`.
struct PasswdEntry {
    name: String,
    uid: i64,
    gid: i64,
    home: String,
}

/// One line of `group`.
struct GroupEntry {
    name: String,
    gid: i64,
    members: String,
}

fn resolve(
    user: &str,
    additional: &[String],
    passwd: impl BufRead,
    group: impl BufRead,
) -> Result<Identity, Failure> {
    let mut parts = user.split(':');
    let user_part = parts.next().unwrap_or_default();
    let group_part = parts.next().unwrap_or_default();
    let number = parse_id(user_part);

    let entry = find_user(passwd, user_part, number)?;
    let (uid, mut gid, home, member) = match entry {
        Some(entry) => (entry.uid, entry.gid, entry.home, Some(entry.name)),
        None if user_part.is_empty() => (0, 0, String::new(), None),
        None => match number {
            Some(uid) => (uid, 0, String::new(), None),
            None => return Err(no_user(user_part)),
        },
    };
    let wanted = WantedGroups { primary: group_part, member, additional };
    let found = wanted.find(group)?;
    if !group_part.is_empty() {
        gid = match found.primary.or_else(|| parse_id(group_part)) {
            Some(gid) => gid,
            None => return Err(no_group(group_part)),
        };
    }
    let mut groups = vec![gid];
    for &group in found.member_of.iter().chain(&found.additional) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(Identity {
        uid: in_range(uid)?,
        gid: in_range(gid)?,
        groups: groups.into_iter().map(in_range).collect::<Result<_, _>>()?,
        home: if home.is_empty() { "/".to_owned() } else { home },
    })
}

fn find_user(
    passwd: impl BufRead,
    name: &str,
    number: Option<i64>,
) -> Result<Option<PasswdEntry>, Failure> {
    let mut found = None;
    for_each_line(passwd, "/etc/passwd", |line| {
        let Some(entry) = parse_passwd(line) else { return true };
        let matches = match number {
            _ if name.is_empty() => entry.uid == 0,
            Some(number) => entry.uid == number,
            None => entry.name == name,
        };
        if matches {
            found = Some(entry);
        }
        !matches
    })?;
    Ok(found)
}

/// The questions that one pass over `group` answers.
struct WantedGroups<'a> {
    /// Name or number after the colon; empty for none.
    primary: &'a str,
    /// Whose memberships count; only without a `primary`.
    member: Option<String>,
    additional: &'a [String],
}

#[derive(Default)]
struct FoundGroups {
    primary: Option<i64>,
    member_of: Vec<i64>,
    additional: Vec<i64>,
}

impl WantedGroups<'_> {
    fn find(&self, group: impl BufRead) -> Result<FoundGroups, Failure> {
        let mut found = FoundGroups::default();
        let mut additional: Vec<Option<i64>> = vec![None; self.additional.len()];
        let primary_number = parse_id(self.primary);
        for_each_line(group, "/etc/group", |line| {
            let Some(entry) = parse_group(line) else { return true };
            let is = |wanted: &str, number: Option<i64>| match number {
                Some(number) => entry.gid == number,
                None => entry.name == wanted,
            };
            if self.primary.is_empty() {
                let member = self.member.as_deref();
                if member.is_some_and(|member| entry.members.split(',').any(|m| m == member)) {
                    found.member_of.push(entry.gid);
                }
            } else if found.primary.is_none() && is(self.primary, primary_number) {
                found.primary = Some(entry.gid);
            }
            for (slot, wanted) in additional.iter_mut().zip(self.additional) {
                if slot.is_none() && is(wanted, parse_id(wanted)) {
                    *slot = Some(entry.gid);
                }
            }
            true
        })?;
        for (slot, wanted) in additional.into_iter().zip(self.additional) {
            found
                .additional
                .push(slot.or_else(|| parse_id(wanted)).ok_or_else(|| no_group(wanted))?);
        }
        Ok(found)
    }
}

/// A number as `atoi` takes it. More digits than any id has are a name.
fn parse_id(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn in_range(id: i64) -> Result<u32, Failure> {
    if (0..=ID_MAX).contains(&id) {
        return Ok(id as u32);
    }
    Err(Failure::User { text: format!("uids and gids must be in range 0-{ID_MAX}") })
}

fn no_user(name: &str) -> Failure {
    let text = format!("unable to find user {name}: no matching entries in passwd file");
    Failure::User { text }
}

fn no_group(name: &str) -> Failure {
    let text = format!("unable to find group {name}: no matching entries in group file");
    Failure::User { text }
}

/// `name:password:uid:gid:comment:home:shell`. A line without proper numbers is nobody, not root.
fn parse_passwd(line: &str) -> Option<PasswdEntry> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let _password = fields.next()?;
    let uid = parse_id(fields.next()?)?;
    let gid = parse_id(fields.next()?)?;
    let home = fields.nth(1).unwrap_or_default().to_owned();
    Some(PasswdEntry { name, uid, gid, home })
}

/// `name:password:gid:member,member`
fn parse_group(line: &str) -> Option<GroupEntry> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let _password = fields.next()?;
    let gid = parse_id(fields.next()?)?;
    let members = fields.next().unwrap_or_default().to_owned();
    Some(GroupEntry { name, gid, members })
}

/// Calls `visit` with each line until it answers false. Memory: one line.
fn for_each_line(
    mut file: impl BufRead,
    name: &str,
    mut visit: impl FnMut(&str) -> bool,
) -> Result<(), Failure> {
    let failed = |why: String| Failure::User { text: format!("{name} of the image {why}") };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|error| failed(format!("cannot be read: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == LINE_MAX && line.last() != Some(&b'\n') {
            return Err(failed(format!("has a line of more than {LINE_MAX} bytes")));
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') && !visit(text) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
# comment
root:x:0:0:root:/root:/bin/sh
1000:x:0:0:a name that looks like a number:/evil:/bin/sh
broken:x:abc:0::/:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
nohome:x:7:7
huge:x:4294967296:0::/:/bin/sh
";
    const GROUP: &str = "\
root:x:0:root
staff:x:50:app,root
www:x:33:app
5:x:77:
app:x:1001:
";

    fn check(user: &str, additional: &[&str], expect: &str) {
        let additional: Vec<String> = additional.iter().map(ToString::to_string).collect();
        let got = match resolve(user, &additional, PASSWD.as_bytes(), GROUP.as_bytes()) {
            Ok(found) => {
                format!("{}:{} {:?} {}", found.uid, found.gid, found.groups, found.home)
            }
            Err(failure) => failure.to_string(),
        };
        assert_eq!(got, expect, "{user} {additional:?}");
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", &[], "0:0 [0, 50] /root");
        check("root", &[], "0:0 [0, 50] /root");
        check("00", &[], "0:0 [0, 50] /root");
        check("app", &[], "1000:1001 [1001, 50, 33] /home/app");
        check("1000", &[], "1000:1001 [1001, 50, 33] /home/app");
        check("app:www", &[], "1000:33 [33] /home/app");
        check("app:33", &[], "1000:33 [33] /home/app");
        check("app:12345", &[], "1000:12345 [12345] /home/app");
        check("555", &[], "555:0 [0] /");
        check("555:www", &["staff", "9", "5"], "555:33 [33, 50, 9, 5] /");
        check("nohome", &[], "7:7 [7] /");
        check(":www", &[], "0:33 [33] /root");
        check(":", &[], "0:0 [0, 50] /root");
        check("app:www:x", &[], "1000:33 [33] /home/app");
    }

    #[test]
    fn what_is_not_a_user_is_refused() {
        const RANGE: &str = "uids and gids must be in range 0-2147483647";
        check("4294967296", &[], RANGE);
        check("4294967297", &[], RANGE);
        check("2147483648", &[], RANGE);
        check("-1", &[], RANGE);
        check("huge", &[], RANGE);
        check("0:4294967296", &[], RANGE);
        check("0", &["-1"], RANGE);
        let no_user =
            |name| format!("unable to find user {name}: no matching entries in passwd file");
        check("nobody", &[], &no_user("nobody"));
        check("1000 ", &[], &no_user("1000 "));
        check("broken", &[], &no_user("broken"));
        check("0x0", &[], &no_user("0x0"));
        check("99999999999999999999", &[], &no_user("99999999999999999999"));
        check("app:none", &[], "unable to find group none: no matching entries in group file");
        check("", &["none"], "unable to find group none: no matching entries in group file");
    }

    #[test]
    fn a_file_without_line_ends_is_refused() {
        let zeros = io::repeat(0).take(LINE_MAX * 4);
        let failure = resolve("app", &[], BufReader::new(zeros), io::empty()).unwrap_err();
        let text = "/etc/passwd of the image has a line of more than 1048576 bytes";
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn strange_files_are_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = RootDir::open(directory.path()).unwrap();
        let passwd = etc.join("passwd");
        let text = |root: &RootDir| look_up(root, "app", &[]).unwrap_err().to_string();

        std::fs::create_dir(&passwd).unwrap();
        assert_eq!(text(&root), "/etc/passwd of the image is not a regular file");
        std::fs::remove_dir(&passwd).unwrap();

        rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, Mode::RWXU).unwrap();
        assert_eq!(text(&root), "/etc/passwd of the image is not a regular file");
        std::fs::remove_file(&passwd).unwrap();

        File::create(&passwd).unwrap().set_len(2 << 30).unwrap();
        assert_eq!(text(&root), "/etc/passwd of the image is larger than 16777216 bytes");
        std::fs::remove_file(&passwd).unwrap();

        // The link leads to the image's own (absent) /proc/kmsg.
        std::os::unix::fs::symlink("/proc/kmsg", &passwd).unwrap();
        assert_eq!(text(&root), "unable to find user app: no matching entries in passwd file");
    }
}
