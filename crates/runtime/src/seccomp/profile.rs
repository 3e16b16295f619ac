//! Docker's JSON form of a profile, and which of its rules hold here.

use serde::Deserialize;

use super::ProfileError;
use super::syscalls::Arch;

/// What decides which conditional rules hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) capabilities: u64,
    pub(super) kernel: (u32, u32),
}

/// The answer to a call, as the filter returns it (`SECCOMP_RET_*` with its data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);

    pub(super) const fn errno(errno: u16) -> Self {
        Self(0x0005_0000 | errno as u32)
    }

    /// Whether a call that nobody thought of gets through, or to a tracer who will know.
    pub(super) const fn is_permissive(self) -> bool {
        const TRACE: u32 = 0x7ff0_0000;
        const LOG: u32 = 0x7ffc_0000;
        matches!(self.0 & 0xffff_0000, TRACE | LOG) || self.0 == Self::ALLOW.0
    }

    fn parse(name: &str, errno: Option<u16>) -> Result<Self, ProfileError> {
        let data = u32::from(errno.unwrap_or(libc::EPERM.unsigned_abs() as u16));
        Ok(Self(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
            "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
            "SCMP_ACT_TRAP" => 0x0003_0000,
            "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
            "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
            "SCMP_ACT_LOG" => 0x7ffc_0000,
            "SCMP_ACT_ALLOW" => Self::ALLOW.0,
            "SCMP_ACT_NOTIFY" => {
                return Err(invalid("SCMP_ACT_NOTIFY needs a listener, which is not supported"));
            }
            other => {
                return Err(invalid(format!("string {other} is not a valid action for seccomp")));
            }
        }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// The argument's bits in `value` are `second`.
    MaskedEqual,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u32,
    pub(super) operator: Operator,
    pub(super) value: u64,
    pub(super) second: u64,
}

impl Condition {
    pub(super) const fn holds(&self, argument: u64) -> bool {
        match self.operator {
            Operator::NotEqual => argument != self.value,
            Operator::Less => argument < self.value,
            Operator::LessOrEqual => argument <= self.value,
            Operator::Equal => argument == self.value,
            Operator::GreaterOrEqual => argument >= self.value,
            Operator::Greater => argument > self.value,
            Operator::MaskedEqual => argument & self.value == self.second & self.value,
        }
    }
}

/// One answer for some calls when all conditions hold; without conditions, always.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// A profile with everything decided.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) default: Action,
    /// What calls get whose number is above every number in the rules: ENOSYS, so that a C
    /// library tries an older call instead of taking EPERM for an answer (as runc does).
    pub(super) unknown: Action,
    pub(super) flags: u32,
    /// The native one first.
    pub(super) arches: Vec<Arch>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMapping>>,
    flags: Option<Vec<String>>,
    listener_path: String,
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ArchMapping {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRule {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<RawCondition>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawCondition {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    pub(super) fn parse(json: &str) -> Result<Self, ProfileError> {
        let profile: Option<Self> = serde_json::from_str(json).map_err(|error| {
            // The commonest mistake in Docker's words.
            if error.is_eof() { invalid("unexpected end of JSON input") } else { invalid(error) }
        })?;
        let profile = profile.unwrap_or_default();
        let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if given(&profile.architectures)
            && profile.arch_map.as_ref().is_some_and(|map| !map.is_empty())
        {
            return Err(invalid(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, \
                 use either 'architectures' or 'archMap'",
            ));
        }
        if !profile.listener_path.is_empty() {
            return Err(invalid("listenerPath is not supported"));
        }
        Ok(profile)
    }

    /// Decides everything that depends on where the filter will be loaded.
    pub(super) fn select(&self, context: &Context) -> Result<Policy, ProfileError> {
        let raw_rules = self.syscalls.as_deref().unwrap_or_default();
        // As runc: a profile that says nothing forbids nothing.
        if self.default_action.is_empty() && raw_rules.is_empty() {
            return Ok(Policy {
                default: Action::ALLOW,
                unknown: Action::ALLOW,
                flags: self.flags()?,
                arches: vec![Arch::NATIVE],
                rules: Vec::new(),
            });
        }
        let default = Action::parse(&self.default_action, self.default_errno_ret)?;
        let unknown =
            if default.is_permissive() { default } else { Action::errno(libc::ENOSYS as u16) };
        let mut rules = Vec::new();
        for raw in raw_rules {
            raw.append(context, default, &mut rules)?;
        }
        Ok(Policy { default, unknown, flags: self.flags()?, arches: self.arches()?, rules })
    }

    fn flags(&self) -> Result<u32, ProfileError> {
        let Some(names) = &self.flags else { return Ok(sys::seccomp::FLAG_SPEC_ALLOW) };
        names.iter().try_fold(0, |flags, name| {
            Ok(flags
                | match name.as_str() {
                    "SECCOMP_FILTER_FLAG_TSYNC" => sys::seccomp::FLAG_TSYNC,
                    "SECCOMP_FILTER_FLAG_LOG" => sys::seccomp::FLAG_LOG,
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => sys::seccomp::FLAG_SPEC_ALLOW,
                    other => return Err(invalid(format!("seccomp flag {other} is not known"))),
                })
        })
    }

    fn arches(&self) -> Result<Vec<Arch>, ProfileError> {
        let mut arches = vec![Arch::NATIVE];
        let mut add = |name: &str| -> Result<(), ProfileError> {
            arches.extend(parse_arch(name)?.filter(|arch| !arches.contains(arch)));
            Ok(())
        };
        for name in self.architectures.iter().flatten() {
            add(name)?;
        }
        for mapping in self.arch_map.iter().flatten() {
            if parse_arch(&mapping.architecture)? == Some(Arch::NATIVE) {
                mapping.sub_architectures.iter().flatten().try_for_each(|name| add(name))?;
            }
        }
        Ok(arches)
    }
}

/// `None` for an architecture whose calls cannot occur on this machine.
fn parse_arch(name: &str) -> Result<Option<Arch>, ProfileError> {
    const ELSEWHERE: [&str; 19] = [
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_SH",
        "SCMP_ARCH_SHEB",
    ];
    let on_x86 = matches!(Arch::NATIVE, Arch::X86_64);
    Ok(match name {
        "SCMP_ARCH_X86_64" => on_x86.then_some(Arch::X86_64),
        "SCMP_ARCH_X86" => on_x86.then_some(Arch::I386),
        "SCMP_ARCH_X32" => on_x86.then_some(Arch::X32),
        "SCMP_ARCH_AARCH64" => (!on_x86).then_some(Arch::Aarch64),
        other if ELSEWHERE.contains(&other) => None,
        other => return Err(invalid(format!("string {other} is not a valid arch for seccomp"))),
    })
}

impl RawRule {
    fn append(
        &self,
        context: &Context,
        default: Action,
        rules: &mut Vec<Rule>,
    ) -> Result<(), ProfileError> {
        let names = self.names()?;
        let action = Action::parse(&self.action, self.errno_ret)?;
        let conditions = self.conditions()?;
        let included =
            self.includes.as_ref().map_or(Ok(true), |filter| filter.all_hold(context))?;
        let excluded =
            self.excludes.as_ref().map_or(Ok(false), |filter| filter.any_holds(context))?;
        if !included || excluded || action == default {
            return Ok(());
        }
        let mut indices: Vec<_> = conditions.iter().map(|condition| condition.index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            // As runc: several tests of one argument are alternatives.
            rules.extend(conditions.into_iter().map(|condition| Rule {
                names: names.clone(),
                conditions: vec![condition],
                action,
            }));
        } else {
            rules.push(Rule { names, conditions, action });
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, ProfileError> {
        match (self.name.as_str(), self.names.as_deref().unwrap_or_default()) {
            ("", names) => Ok(names.to_vec()),
            (name, []) => Ok(vec![name.to_owned()]),
            _ => Err(invalid(
                "both 'name' and 'names' are specified in the seccomp profile, \
                 use either 'name' or 'names'",
            )),
        }
    }

    fn conditions(&self) -> Result<Vec<Condition>, ProfileError> {
        let parse = |raw: &RawCondition| {
            let operator = match raw.op.as_str() {
                "SCMP_CMP_NE" => Operator::NotEqual,
                "SCMP_CMP_LT" => Operator::Less,
                "SCMP_CMP_LE" => Operator::LessOrEqual,
                "SCMP_CMP_EQ" => Operator::Equal,
                "SCMP_CMP_GE" => Operator::GreaterOrEqual,
                "SCMP_CMP_GT" => Operator::Greater,
                "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
                other => {
                    return Err(invalid(format!(
                        "string {other} is not a valid operator for seccomp"
                    )));
                }
            };
            if raw.index > 5 {
                return Err(invalid(format!("argument index {} is not 0 to 5", raw.index)));
            }
            Ok(Condition { index: raw.index, operator, value: raw.value, second: raw.value_two })
        };
        self.args.iter().flatten().map(parse).collect()
    }
}

impl Filter {
    /// For `includes`: all of each list that is given.
    fn all_hold(&self, context: &Context) -> Result<bool, ProfileError> {
        let arches = self.arches.as_deref().unwrap_or_default();
        let native = arches.is_empty() || arches.iter().any(|arch| arch == go_arch());
        let capable = self.caps.iter().flatten().all(|name| has_capability(name, context));
        Ok(native && capable && self.new_enough(context)?.unwrap_or(true))
    }

    /// For `excludes`: any of any list.
    fn any_holds(&self, context: &Context) -> Result<bool, ProfileError> {
        let native = self.arches.iter().flatten().any(|arch| arch == go_arch());
        let capable = self.caps.iter().flatten().any(|name| has_capability(name, context));
        Ok(native || capable || self.new_enough(context)?.unwrap_or(false))
    }

    fn new_enough(&self, context: &Context) -> Result<Option<bool>, ProfileError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let wanted = parse_kernel(text)
            .ok_or_else(|| invalid(format!("invalid kernel version: {text:?}")))?;
        Ok(Some(context.kernel >= wanted))
    }
}

/// Profiles name architectures in `includes` as Go does.
const fn go_arch() -> &'static str {
    match Arch::NATIVE {
        Arch::Aarch64 => "arm64",
        _ => "amd64",
    }
}

/// The names without `CAP_`, in the kernel's numbering (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability that nobody has heard of is one that the process does not have.
fn has_capability(name: &str, context: &Context) -> bool {
    name.strip_prefix("CAP_")
        .and_then(|name| CAPABILITIES.iter().position(|known| *known == name))
        .is_some_and(|number| context.capabilities >> number & 1 == 1)
}

/// Parses the start of `6.18.44-fc`.
pub(super) fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn invalid(reason: impl ToString) -> ProfileError {
    ProfileError { reason: reason.to_string() }
}
