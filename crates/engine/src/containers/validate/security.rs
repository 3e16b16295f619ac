//! Capabilities, security options, sysctls, device rules: what widens or narrows a container.

use std::collections::BTreeMap;

use api_types::host_config::HostConfig;
use runtime::spec::{Capabilities, DeviceKind, DeviceRule, Seccomp};

use runtime::seccomp::CAPABILITIES;
use spec::kernel::IPC_SYSCTLS;

use crate::errors::ValidationError;
use crate::sysinfo::SysInfo;

/// The fourteen that Docker gives to every container.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What `SecurityOpt` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub no_new_privileges: Option<bool>,
    /// `unconfined`, `builtin` or the text of a profile.
    pub seccomp: Option<String>,
    pub apparmor: Option<String>,
    /// `/proc` and `/sys` without masks.
    pub unmasked: bool,
    pub writable_cgroups: bool,
}

pub(in crate::containers) fn check(
    host_config: &HostConfig,
    sysinfo: &SysInfo,
) -> Result<(), ValidationError> {
    capabilities(host_config)?;
    let options = SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?;
    if let Some(name) = options.apparmor
        && !sysinfo.apparmor
        && !matches!(name.as_str(), "" | "unconfined")
        // Docker ignores the profile when the kernel has no AppArmor; a promise that is not kept.
        && !name.starts_with("docker-default")
    {
        return Err(ValidationError::AppArmor { name });
    }
    if let Some(profile) = &options.seccomp
        && !matches!(profile.as_str(), "unconfined" | "builtin")
    {
        runtime::seccomp::compile(profile, &Capabilities::default())
            .map_err(|error| ValidationError::Seccomp { reason: error.reason })?;
    }
    for device in host_config.resources.devices.iter().flatten() {
        let mode = &device.cgroup_permissions;
        if mode.len() > 3 || !mode.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(ValidationError::DeviceMode { mode: mode.clone() });
        }
    }
    for rule in host_config.resources.device_cgroup_rules.iter().flatten() {
        device_rule(rule)?;
    }
    sysctls(host_config)
}

impl SecurityOptions {
    pub(crate) fn parse(options: &[String]) -> Result<Self, ValidationError> {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &str) -> Result<(), ValidationError> {
        let error = |code| ValidationError::SecurityOpt { code, option: option.to_owned() };
        if option == "no-new-privileges" {
            self.no_new_privileges = Some(true);
            return Ok(());
        }
        // `name:value` is the form of Docker 1.10 and before.
        let (name, value) =
            option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(|| error(1))?;
        let boolean = || spec::boolean::parse(value).map_err(|_syntax| error(2));
        match name {
            // SELinux and the like: nothing to label here.
            "label" => {}
            "apparmor" => self.apparmor = Some(value.to_owned()),
            "seccomp" => self.seccomp = Some(value.to_owned()),
            "no-new-privileges" => self.no_new_privileges = Some(boolean()?),
            "writable-cgroups" => self.writable_cgroups = boolean()?,
            "systempaths" if value == "unconfined" => self.unmasked = true,
            _ => return Err(error(2)),
        }
        Ok(())
    }

    /// The profile for the process, by what was asked for, the daemon's default, and privilege.
    pub(crate) fn seccomp(&self, privileged: bool, default: &crate::SeccompDefault) -> Seccomp {
        match (self.seccomp.as_deref(), default) {
            _ if privileged => Seccomp::Unconfined,
            (Some("unconfined"), _) => Seccomp::Unconfined,
            (Some("builtin"), _) => Seccomp::Default,
            (Some(profile), _) => Seccomp::Profile(profile.to_owned()),
            (None, crate::SeccompDefault::Builtin) => Seccomp::Default,
            (None, crate::SeccompDefault::Unconfined) => Seccomp::Unconfined,
            (None, crate::SeccompDefault::Profile(text)) => Seccomp::Profile(text.clone()),
        }
    }
}

/// The capabilities of a container's first process.
pub(crate) fn capabilities(host_config: &HostConfig) -> Result<Capabilities, ValidationError> {
    let add = host_config.cap_add.as_deref().unwrap_or_default();
    let drop = host_config.cap_drop.as_deref().unwrap_or_default();
    let (add_all, add) = parse_set("CapAdd", add)?;
    let (drop_all, drop) = parse_set("CapDrop", drop)?;
    let mut mask = match (host_config.privileged, add_all, drop_all) {
        (true, _, _) => return Ok(full()),
        (_, true, _) => every() & !drop,
        (_, _, true) => add,
        _ => (default_mask() & !drop) | add,
    };
    mask &= supported();
    Ok(with(mask))
}

/// Every capability this kernel has: what `--privileged` gives.
pub(crate) fn full() -> Capabilities {
    with(every())
}

fn with(mask: u64) -> Capabilities {
    // Nothing inheritable or ambient: CVE-2022-24769.
    Capabilities { bounding: mask, effective: mask, permitted: mask, inheritable: 0, ambient: 0 }
}

fn every() -> u64 {
    supported() & ((1 << CAPABILITIES.len()) - 1)
}

/// Capabilities the running kernel knows of.
fn supported() -> u64 {
    use std::sync::OnceLock;
    static LAST: OnceLock<u32> = OnceLock::new();
    let last = LAST.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        text.trim().parse().unwrap_or(40)
    });
    (1u64 << (last.min(&62) + 1)) - 1
}

fn default_mask() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |mask, bit| mask | bit)
}

fn bit(name: &str) -> Option<u64> {
    CAPABILITIES.iter().position(|known| *known == name).map(|at| 1 << at)
}

/// Whether `ALL` is among the names, and the others as a mask.
fn parse_set(field: &'static str, names: &[String]) -> Result<(bool, u64), ValidationError> {
    let (mut all, mut mask) = (false, 0);
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            all = true;
            continue;
        }
        let unknown = || ValidationError::Capability { field, name: format!("CAP_{bare}") };
        mask |= bit(bare).ok_or_else(unknown)?;
    }
    Ok((all, mask))
}

/// Parses `c 1:3 rwm`.
pub(crate) fn device_rule(rule: &str) -> Result<DeviceRule, ValidationError> {
    parse_device_rule(rule).ok_or_else(|| ValidationError::DeviceRule { rule: rule.to_owned() })
}

fn parse_device_rule(rule: &str) -> Option<DeviceRule> {
    let mut words = rule.split(' ');
    let kind = match words.next()? {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        "a" => DeviceKind::All,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    let legal =
        (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte));
    if words.next().is_some() || !legal {
        return None;
    }
    let number = |text: &str| match text {
        "*" => Some(None),
        _ => text.parse().ok().map(Some),
    };
    Some(DeviceRule {
        allow: true,
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

/// The sysctls that belong to the container's own namespaces, and no others: a key outside this
/// list would change the host (CVE-2022-0811).
fn sysctls(host_config: &HostConfig) -> Result<(), ValidationError> {
    let empty = BTreeMap::new();
    for key in host_config.sysctls.as_ref().unwrap_or(&empty).keys() {
        let owned = || key.clone();
        let plain = key.split(['.', '/']).all(|part| {
            !part.is_empty()
                && part != ".."
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:@".contains(&byte))
        });
        if !plain {
            return Err(ValidationError::SysctlNotNamespaced { key: owned() });
        }
        // `net/ipv4/conf/eth0.1/...` is the other spelling of the separator.
        let dotted = key.replace('/', ".");
        let dotted = dotted.as_str();
        if IPC_SYSCTLS.contains(&dotted) || dotted.starts_with("fs.mqueue.") {
            if host_config.ipc_mode == "host" {
                return Err(ValidationError::SysctlHostIpc { key: owned() });
            }
        } else if dotted.starts_with("net.") {
            if host_config.network_mode == "host" {
                return Err(ValidationError::SysctlHostNetwork { key: owned() });
            }
        } else if dotted == "kernel.hostname" {
            return Err(ValidationError::SysctlConflict { key: owned(), field: "hostname" });
        } else if dotted != "kernel.domainname" || host_config.uts_mode == "host" {
            return Err(ValidationError::SysctlNotNamespaced { key: owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> u64 {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let host_config =
            HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() };
        capabilities(&host_config).unwrap().bounding
    }

    #[test]
    fn capabilities_add_up() {
        assert_eq!(mask(&[], &[]), 0xa804_25fb);
        assert_eq!(mask(&[], &["all"]), 0);
        assert_eq!(mask(&["cap_chown"], &["ALL"]), 1);
        assert_eq!(mask(&["SYS_ADMIN"], &["CHOWN"]), 0xa804_25fb & !1 | 1 << 21);
        assert_eq!(mask(&["ALL"], &["SYS_ADMIN"]), every() & !(1 << 21));
    }

    #[test]
    fn security_options_parse_in_both_spellings() {
        let parse = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            SecurityOptions::parse(&options)
        };
        let options = parse(&["no-new-privileges", "seccomp:unconfined", "label=disable"]).unwrap();
        assert_eq!(options.no_new_privileges, Some(true));
        assert_eq!(options.seccomp.as_deref(), Some("unconfined"));
        for (option, text) in [
            ("foo", "invalid --security-opt 1: \"foo\""),
            ("no-new-privileges:maybe", "invalid --security-opt 2: \"no-new-privileges:maybe\""),
            ("foo=bar", "invalid --security-opt 2: \"foo=bar\""),
        ] {
            assert_eq!(parse(&[option]).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn device_rules_parse() {
        assert!(device_rule("c 1:3 rwm").is_ok());
        assert_eq!(device_rule("b *:* r").unwrap().major, None);
        for bad in ["foo", "c *:* x", "c 1 rwm", "c 1:3", "c 1:3 rwm x"] {
            let text = device_rule(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid device cgroup rule format: '{bad}'"));
        }
    }

    fn sysctl(key: &str, change: impl FnOnce(&mut HostConfig)) -> String {
        let mut host_config = HostConfig {
            sysctls: Some(BTreeMap::from([(key.to_owned(), "1".to_owned())])),
            ..HostConfig::default()
        };
        change(&mut host_config);
        sysctls(&host_config).map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn only_namespaced_sysctls_pass() {
        let host_net = |config: &mut HostConfig| config.network_mode = "host".to_owned();
        let host_ipc = |config: &mut HostConfig| config.ipc_mode = "host".to_owned();
        let not = |key| format!("sysctl {key:?} is not in a separate kernel namespace");
        assert_eq!(sysctl("net.ipv4.ip_forward", |_| {}), "ok");
        assert_eq!(sysctl("kernel.shm_rmid_forced", |_| {}), "ok");
        for key in [
            "kernel.core_pattern",
            "kernel.x+",
            "net.ipv4/../../kernel/core_pattern",
            "net..x",
            "vm.swappiness",
        ] {
            assert_eq!(sysctl(key, |_| {}), not(key));
        }
        assert_eq!(
            sysctl("net.ipv4.ip_forward", host_net),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
        );
        assert_eq!(
            sysctl("kernel.msgmax", host_ipc),
            "sysctl \"kernel.msgmax\" is not allowed in the hosts ipc namespace"
        );
        assert_eq!(
            sysctl("kernel.hostname", |_| {}),
            "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" \
             field"
        );
    }
}
