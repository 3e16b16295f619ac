//! Which devices a container may open: rules brought to a form that the v1 controller and a v2
//! BPF program enforce alike.
//!
//! Rules are read in order and a later one overrides an earlier one, starting from "deny all".
//! What comes out is one answer for everything and a list of exceptions. The v1 controller cannot
//! say "all of these but not that one", so such a list of rules is refused on both versions.

use std::fmt::Write as _;

use sys::bpf::{Device, DeviceFilter};

use crate::protocol::Failure;
use crate::spec::{DeviceKind, DeviceRule};

/// A set of accesses: `r`, `w` and `m` as bits, as the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access(u8);

const ACCESS_BITS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

impl Access {
    const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        let bit =
            |letter| ACCESS_BITS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
        let bits = text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?))?;
        (bits != 0).then_some(Self(bits))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Char,
    Block,
}

/// Device numbers; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Devices {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
}

impl Devices {
    fn contains(&self, other: &Self) -> bool {
        let covers = |wide: Option<u32>, narrow| wide.is_none() || wide == narrow;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }
}

/// What [`normalize`] makes of a list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    allow_all: bool,
    /// What is different from `allow_all`; each set of numbers once.
    exceptions: Vec<(Devices, Access)>,
}

pub(super) fn normalize(rules: &[DeviceRule]) -> Result<Rules, Failure> {
    let mut result = Rules { allow_all: false, exceptions: Vec::new() };
    for rule in rules {
        let invalid = |why: &str| Failure::Invalid { text: format!("device rule {rule:?}: {why}") };
        let access =
            Access::parse(&rule.access).ok_or_else(|| invalid("access is not of r, w, m"))?;
        let kinds: &[Kind] = match rule.kind {
            DeviceKind::Char => &[Kind::Char],
            DeviceKind::Block => &[Kind::Block],
            DeviceKind::All => &[Kind::Char, Kind::Block],
            DeviceKind::Fifo => return Err(invalid("a FIFO is not a device")),
        };
        if kinds.len() == 2 && rule.major.is_none() && rule.minor.is_none() && access == Access::ALL
        {
            result = Rules { allow_all: rule.allow, exceptions: Vec::new() };
            continue;
        }
        for kind in kinds {
            let devices = Devices { kind: *kind, major: rule.major, minor: rule.minor };
            if rule.allow == result.allow_all {
                result.take_back(devices, access).map_err(invalid)?;
            } else {
                result.except(devices, access);
            }
        }
    }
    Ok(result)
}

impl Rules {
    fn except(&mut self, devices: Devices, access: Access) {
        match self.exceptions.iter_mut().find(|(known, _)| *known == devices) {
            Some((_, known)) => known.0 |= access.0,
            None => self.exceptions.push((devices, access)),
        }
    }

    fn take_back(&mut self, devices: Devices, access: Access) -> Result<(), &'static str> {
        let makes_hole = |(known, bits): &(Devices, Access)| {
            known.contains(&devices) && *known != devices && bits.0 & access.0 != 0
        };
        if self.exceptions.iter().any(makes_hole) {
            return Err(
                "makes an exception to an earlier, wider rule, which cgroups cannot express",
            );
        }
        for (known, bits) in &mut self.exceptions {
            if devices.contains(known) {
                bits.0 &= !access.0;
            }
        }
        self.exceptions.retain(|(_, bits)| bits.0 != 0);
        Ok(())
    }

    /// Lines to write to `devices.allow` and `devices.deny` of a fresh group, whose parent allows
    /// everything: the file's name and the line.
    pub(super) fn v1_lines(&self) -> (Option<&'static str>, &'static str, Vec<String>) {
        let (first, rest) = if self.allow_all {
            (None, "devices.deny")
        } else {
            (Some("devices.deny"), "devices.allow")
        };
        (first, rest, self.exceptions.iter().map(v1_line).collect())
    }

    /// The same for a v2 group; `None` when everything is allowed.
    pub(super) fn v2_filter(&self) -> Option<DeviceFilter> {
        if self.allow_all && self.exceptions.is_empty() {
            return None;
        }
        let exceptions = self.exceptions.iter().map(|(devices, access)| Device {
            block: devices.kind == Kind::Block,
            major: devices.major,
            minor: devices.minor,
            access: access.0,
        });
        Some(DeviceFilter { allow_all: self.allow_all, exceptions: exceptions.collect() })
    }
}

fn v1_line((devices, access): &(Devices, Access)) -> String {
    let mut line = String::from(match devices.kind {
        Kind::Char => "c ",
        Kind::Block => "b ",
    });
    let mut number = |number: Option<u32>, end: char| {
        match number {
            Some(number) => write!(line, "{number}{end}"),
            None => write!(line, "*{end}"),
        }
        .expect("writing to a String does not fail");
    };
    number(devices.major, ':');
    number(devices.minor, ' ');
    line.extend(
        ACCESS_BITS.iter().filter(|(_, bit)| access.0 & bit != 0).map(|(letter, _)| letter),
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `+c 1:3 rwm` or `-a *:* rwm`.
    fn rule(text: &str) -> DeviceRule {
        let (sign, rest) = text.split_at(1);
        let mut parts = rest.split([' ', ':']);
        let kind = match parts.next().unwrap() {
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            "a" => DeviceKind::All,
            _ => DeviceKind::Fifo,
        };
        let mut number = || parts.next().unwrap().parse().ok();
        let (major, minor) = (number(), number());
        DeviceRule { allow: sign == "+", kind, major, minor, access: parts.next().unwrap().into() }
    }

    #[track_caller]
    fn check(rules: &[&str], expect: &str) {
        let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
        let text = match normalize(&rules) {
            Ok(rules) => {
                let (first, file, lines) = rules.v1_lines();
                let first = first.map(|file| format!("{file} a; ")).unwrap_or_default();
                format!("{first}{file} {}", lines.join(", "))
            }
            Err(failure) => failure.to_string().rsplit(": ").next().unwrap().to_owned(),
        };
        assert_eq!(text, expect);
    }

    #[test]
    fn normal_form() {
        check(&[], "devices.deny a; devices.allow ");
        check(
            &["+c *:* m", "+b *:* m", "+c 1:3 rwm", "+c 136:* rwm"],
            "devices.deny a; devices.allow c *:* m, b *:* m, c 1:3 rwm, c 136:* rwm",
        );
        check(&["-a *:* rwm", "+a *:* rwm"], "devices.deny ");
        check(&["+a *:* rwm", "-c 1:11 rw"], "devices.deny c 1:11 rw");
        check(&["+a *:* rwm", "-c 1:11 rwm", "+c 1:* w"], "devices.deny c 1:11 rm");
        check(&["+c 1:3 r", "+c 1:3 w"], "devices.deny a; devices.allow c 1:3 rw");
        check(&["+c 1:3 rwm", "-c 1:* rw"], "devices.deny a; devices.allow c 1:3 m");
        check(&["+a 7:* r"], "devices.deny a; devices.allow c 7:* r, b 7:* r");
        check(&["+c 1:3 rwm", "-a *:* rwm"], "devices.deny a; devices.allow ");
    }

    #[test]
    fn refused() {
        let hole = "makes an exception to an earlier, wider rule, which cgroups cannot express";
        check(&["+c *:* rwm", "-c 1:3 r"], hole);
        check(&["+c *:* m", "-c 1:3 r"], "devices.deny a; devices.allow c *:* m");
        check(&["+c 1:3 rx"], "access is not of r, w, m");
        check(&["+p 1:3 r"], "a FIFO is not a device");
    }
}
