//! `--platform linux/arm64/v8`, as containerd reads it.

use spec::oci::Platform;

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Reads a platform; the error says what is wrong with it, quoting it.
pub(crate) fn parse_platform(text: &str) -> Result<Platform, String> {
    parse(text).map_err(|reason| format!("{reason}: invalid argument"))
}

fn parse(text: &str) -> Result<Platform, String> {
    if text.contains('*') {
        return Err(format!("{text:?}: wildcards not yet supported"));
    }
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    let system = system(parts[0]).ok_or_else(|| {
        format!(
            "{:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must \
             match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\"",
            parts[0]
        )
    })?;
    for part in &parts[1..] {
        if part.is_empty() || !part.bytes().all(|byte| is_word(byte) || byte == b'.') {
            return Err(format!(
                "{part:?} is an invalid component of {text:?}: platform specifier component must \
                 match \"^[A-Za-z0-9_.-]+$\""
            ));
        }
    }
    let system = match system.to_ascii_lowercase() {
        mac if mac == "macos" => "darwin".to_owned(),
        other => other,
    };
    match parts.as_slice() {
        [_] if SYSTEMS.contains(&system.as_str()) => Ok(platform(&system, this_machine(), "")),
        [architecture] => match normal(architecture, "") {
            (known, variant) if ARCHITECTURES.contains(&known.as_str()) => {
                Ok(platform("linux", &known, &variant))
            }
            _ => Err(format!("{text:?}: unknown operating system or architecture")),
        },
        [_, architecture, rest @ ..] if rest.len() < 2 => {
            let (architecture, variant) = normal(architecture, rest.first().unwrap_or(&""));
            Ok(platform(&system, &architecture, &variant))
        }
        _ => Err(format!("{text:?}: cannot parse platform specifier")),
    }
}

fn platform(os: &str, architecture: &str, variant: &str) -> Platform {
    let (os, architecture) = (os.to_owned(), architecture.to_owned());
    Platform { os, architecture, variant: variant.to_owned(), ..Platform::default() }
}

fn this_machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// One word for each architecture, and no variant that goes without saying.
fn normal(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("arm64", "8") => ("arm64", "v8"),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "7") => ("arm", "v7"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The system of `windows(10.0)`; `None` for what is written otherwise.
fn system(part: &str) -> Option<&str> {
    let (name, version) = match part.strip_suffix(')') {
        Some(rest) => rest.split_once('(')?,
        None => (part, ""),
    };
    let good = !name.is_empty()
        && name.bytes().all(is_word)
        && version.bytes().all(|byte| is_word(byte) || byte == b'.');
    good.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_systems_architectures_or_both() {
        let check = |text: &str, os: &str, architecture: &str, variant: &str| {
            assert_eq!(parse_platform(text), Ok(platform(os, architecture, variant)), "{text}");
        };
        check("LINUX", "linux", this_machine(), "");
        check("macos/arm64", "darwin", "arm64", "");
        check("x86_64", "linux", "amd64", "");
        check("linux/arm64/v8", "linux", "arm64", "v8");
        check("linux/arm/7", "linux", "arm", "v7");
        check("windows(10.0.1)/amd64", "windows", "amd64", "");
    }

    #[test]
    fn refusals_are_containerds() {
        let check = |text: &str, reason: &str| {
            assert_eq!(parse_platform(text), Err(format!("{reason}: invalid argument")));
        };
        check("nosuch", "\"nosuch\": unknown operating system or architecture");
        check("*/x", "\"*/x\": wildcards not yet supported");
        check("linux/a/b/c", "\"linux/a/b/c\": cannot parse platform specifier");
        check(
            "linux/",
            "\"\" is an invalid component of \"linux/\": platform specifier component must match \
             \"^[A-Za-z0-9_.-]+$\"",
        );
        check(
            "a b",
            "\"a b\" is an invalid OS component of \"a b\": OSAndVersion specifier component must \
             match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\"",
        );
    }
}
