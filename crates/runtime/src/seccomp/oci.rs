//! A profile as an OCI runtime wants it: with every condition decided, in the form of
//! `linux.seccomp` of its `config.json`.

use serde_json::{Value, json};

use super::profile::{Action, CAPABILITIES, Condition, Context, Operator, Profile, Rule};
use super::syscalls::Arch;
use super::{DEFAULT, ProfileError, kernel_version};
use crate::spec::Capabilities;

/// Converts a profile in Docker's JSON form; `None` is the built-in default.
pub(crate) fn oci_profile(
    profile: Option<&str>,
    capabilities: &Capabilities,
) -> Result<Value, ProfileError> {
    let context = Context { capabilities: capabilities.bounding, kernel: kernel_version() };
    let policy = Profile::parse(profile.unwrap_or(DEFAULT))?.select(&context)?;
    let (action, errno) = action(policy.default)?;
    let rules = policy.rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let mut converted = json!({
        "defaultAction": action,
        "architectures": policy.arches.iter().copied().map(architecture).collect::<Vec<_>>(),
        "syscalls": rules,
    });
    if let Some(errno) = errno {
        converted["defaultErrnoRet"] = errno.into();
    }
    Ok(converted)
}

/// `CAP_CHOWN` and so on, of the bits that are set.
pub(crate) fn capability_names(mask: u64) -> Vec<String> {
    let named = CAPABILITIES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
    named.map(|(_, name)| format!("CAP_{name}")).collect()
}

fn rule(rule: &Rule) -> Result<Value, ProfileError> {
    let (action, errno) = action(rule.action)?;
    let mut converted = json!({
        "names": rule.names,
        "action": action,
        "args": rule.conditions.iter().map(condition).collect::<Vec<_>>(),
    });
    if let Some(errno) = errno {
        converted["errnoRet"] = errno.into();
    }
    Ok(converted)
}

fn condition(condition: &Condition) -> Value {
    let operator = match condition.operator {
        Operator::NotEqual => "SCMP_CMP_NE",
        Operator::Less => "SCMP_CMP_LT",
        Operator::LessOrEqual => "SCMP_CMP_LE",
        Operator::Equal => "SCMP_CMP_EQ",
        Operator::GreaterOrEqual => "SCMP_CMP_GE",
        Operator::Greater => "SCMP_CMP_GT",
        Operator::MaskedEqual => "SCMP_CMP_MASKED_EQ",
    };
    json!({
        "index": condition.index,
        "value": condition.value,
        "valueTwo": condition.second,
        "op": operator,
    })
}

/// The action's name and what goes with it.
fn action(action: Action) -> Result<(&'static str, Option<u32>), ProfileError> {
    let data = Some(action.0 & 0xffff);
    Ok(match action.0 & 0xffff_0000 {
        0 => ("SCMP_ACT_KILL_THREAD", None),
        0x8000_0000 => ("SCMP_ACT_KILL_PROCESS", None),
        0x0003_0000 => ("SCMP_ACT_TRAP", None),
        0x0005_0000 => ("SCMP_ACT_ERRNO", data),
        0x7ff0_0000 => ("SCMP_ACT_TRACE", data),
        0x7ffc_0000 => ("SCMP_ACT_LOG", None),
        0x7fff_0000 => ("SCMP_ACT_ALLOW", None),
        other => {
            let reason = format!("seccomp action {other:#x} has no name");
            return Err(ProfileError { reason });
        }
    })
}

const fn architecture(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "SCMP_ARCH_X86_64",
        Arch::I386 => "SCMP_ARCH_X86",
        Arch::X32 => "SCMP_ARCH_X32",
        Arch::Aarch64 => "SCMP_ARCH_AARCH64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_converted_with_conditions() {
        let profile = oci_profile(None, &Capabilities::default()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = profile["syscalls"].as_array().unwrap();
        let has = |name: &str| {
            rules.iter().any(|rule| rule["names"].as_array().unwrap().contains(&name.into()))
        };
        assert!(has("read") && has("clone") && !has("reboot"));
        assert_eq!(capability_names(0b101), ["CAP_CHOWN", "CAP_DAC_READ_SEARCH"]);
    }
}
