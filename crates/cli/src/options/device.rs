//! `--device /dev/x[:/dev/y][:rwm]` and CDI names, `vendor.com/class=name`.

use api_types::host_config::DeviceMapping;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Mapping(DeviceMapping),
    Cdi(String),
}

pub(crate) fn parse_device(text: &str) -> Result<Device, String> {
    if is_cdi(text) {
        return Ok(Device::Cdi(text.to_owned()));
    }
    let (source, target, permissions) = match text.split(':').collect::<Vec<_>>().as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [_, _, mode] if !is_mode(mode) => return Err(format!("bad mode specified: {mode}")),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(format!("bad format for path: {text}")),
    };
    for path in [source, target] {
        if !path.starts_with('/') {
            return Err(format!("{path} is not an absolute path"));
        }
    }
    Ok(Device::Mapping(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    }))
}

/// Each of r, w, m at most once.
fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| b"rwm".contains(&byte))
        && b"rwm".iter().all(|wanted| text.bytes().filter(|byte| byte == wanted).count() <= 1)
}

fn is_cdi(text: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    match text.split_once('/') {
        Some((vendor, rest)) => rest
            .split_once('=')
            .is_some_and(|(class, name)| word(vendor) && word(class) && word(name)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match parse_device(text) {
            Ok(Device::Cdi(name)) => format!("cdi {name}"),
            Ok(Device::Mapping(device)) => format!(
                "{} {} {}",
                device.path_on_host, device.path_in_container, device.cgroup_permissions
            ),
            Err(error) => error,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn devices_have_a_path_a_target_and_a_mode() {
        check("/dev/a", "/dev/a /dev/a rwm");
        check("/dev/a:r", "/dev/a /dev/a r");
        check("/dev/a:/dev/b", "/dev/a /dev/b rwm");
        check("/dev/a:/dev/b:rw", "/dev/a /dev/b rw");
        check("vendor.com/gpu=all", "cdi vendor.com/gpu=all");
        check("/dev/a:/dev/b:z", "bad mode specified: z");
        check("foo", "foo is not an absolute path");
        check("/a:/b:c:d", "bad format for path: /a:/b:c:d");
    }
}
