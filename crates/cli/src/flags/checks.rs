//! Checks of single values: each returns what to store, or docker's complaint.

use std::net::IpAddr;
use std::str::FromStr;

use api_types::host_config::{ThrottleDevice, Ulimit, WeightDevice};
use spec::kernel::{IPC_SYSCTLS, ULIMITS};

use super::Kind;
use super::numbers::{parse_int, parse_nano_cpus, parse_uint};
use crate::options;

type Checked<T = String> = Result<T, String>;

/// Checks one value of a flag; most kinds store it as given, some normalise or split it.
pub(super) fn check(kind: Kind, value: &str) -> Checked<Vec<String>> {
    let text = || value.to_owned();
    match kind {
        Kind::Text | Kind::List | Kind::Map => Ok(vec![text()]),
        Kind::Strings => options::csv(value),
        Kind::Filter => filter(value),
        Kind::Pairs => key_values(value),
        Kind::Bool => spec::boolean::parse(value).map(|on| vec![on.to_string()]),
        _ => one(kind, value).map(|stored| vec![stored]),
    }
}

fn one(kind: Kind, value: &str) -> Checked {
    let text = |()| value.to_owned();
    match kind {
        Kind::Int => parse_int(value, 64).map(|_number| ()).map(text),
        Kind::Uint16 => parse_uint(value, 16).map(|_number| ()).map(text),
        Kind::Cpus => parse_nano_cpus(value).map(|_number| ()).map(text),
        Kind::Duration => duration(value).map(text),
        Kind::SwapBytes if value == "-1" => Ok(text(())),
        Kind::Bytes | Kind::SwapBytes => bytes(value).map(text),
        Kind::Env => env(value),
        Kind::Label => label(value).map(text),
        Kind::Attach => attach(value),
        Kind::Address => address(value),
        Kind::DnsSearch => dns_search(value),
        Kind::ExtraHost => extra_host(value),
        Kind::Link => link(value).map(text),
        Kind::DeviceRule => device_rule(value).map(text),
        Kind::Sysctl => sysctl(value).map(text),
        Kind::WeightDevice => parse_device_weight(value).map(|_device| ()).map(text),
        Kind::ThrottleBps => parse_byte_rate(value).map(|_device| ()).map(text),
        Kind::ThrottleIops => parse_rate(value).map(|_device| ()).map(text),
        Kind::Ulimit => parse_ulimit(value).map(|_limit| ()).map(text),
        Kind::Mount => options::parse_mount(value).map(|_mount| ()).map(text),
        Kind::Network => options::parse_network(value).map(|_network| ()).map(text),
        Kind::Gpus => options::parse_gpus(value).map(|_request| ()).map(text),
        _ => Ok(text(())),
    }
}

/// Splits at commas only when there is more than one `=`, as pflag does.
fn key_values(value: &str) -> Checked<Vec<String>> {
    let malformed = |text: &str| format!("{text} must be formatted as key=value");
    match value.matches('=').count() {
        0 => Err(malformed(value)),
        1 => Ok(vec![value.trim_matches('"').to_owned()]),
        _ => {
            let fields = options::csv(value)?;
            match fields.iter().find(|field| !field.contains('=')) {
                Some(field) => Err(malformed(field)),
                None => Ok(fields),
            }
        }
    }
}

fn filter(value: &str) -> Checked<Vec<String>> {
    match value.split_once('=') {
        None if value.is_empty() => Ok(Vec::new()),
        None => Err("bad format of filter (expected name=value)".to_owned()),
        Some((_, wanted)) if wanted.trim().is_empty() => Ok(Vec::new()),
        Some(_) => Ok(vec![value.to_owned()]),
    }
}

fn duration(value: &str) -> Checked<()> {
    if value.parse::<f64>().is_ok_and(|number| number != 0.0) {
        return Err(format!("time: missing unit in duration {value:?}"));
    }
    spec::time::parse_duration(value).map(|_nanos| ()).map_err(|error| error.to_string())
}

fn bytes(value: &str) -> Checked<()> {
    spec::size::parse_bytes(value).map(|_bytes| ()).map_err(|error| error.to_string())
}

/// `K=V`, or `K` for the value in our own environment; a `K` without one removes the image's.
fn env(value: &str) -> Checked {
    let (name, assigned) = value.split_once('=').map_or((value, false), |(name, _)| (name, true));
    if name.is_empty() {
        return Err(format!("invalid environment variable: {value}"));
    }
    if assigned {
        return Ok(value.to_owned());
    }
    Ok(std::env::var(name).map_or_else(|_unset| value.to_owned(), |own| format!("{name}={own}")))
}

fn label(value: &str) -> Checked<()> {
    let name = value.split_once('=').map_or(value, |(name, _)| name);
    if name.is_empty() {
        Err(format!("invalid label '{value}': empty name"))
    } else if name.contains(char::is_whitespace) {
        Err(format!("label '{name}' contains whitespaces"))
    } else {
        Ok(())
    }
}

fn attach(value: &str) -> Checked {
    let lower = value.to_ascii_lowercase();
    if ["stdin", "stdout", "stderr"].contains(&lower.as_str()) {
        Ok(lower)
    } else {
        Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
    }
}

fn address(value: &str) -> Checked {
    IpAddr::from_str(value.trim())
        .map(|address| address.to_string())
        .map_err(|_malformed| format!("IP address is not correctly formatted: {value}"))
}

fn dns_search(value: &str) -> Checked {
    let domain = value.trim();
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let named = domain.strip_suffix('.').unwrap_or(domain);
    let has_letter = domain.bytes().any(|byte| byte.is_ascii_alphabetic());
    if domain == "." || (has_letter && domain.len() < 255 && named.split('.').all(label)) {
        Ok(domain.to_owned())
    } else {
        Err(format!("{value} is not a valid domain"))
    }
}

/// `name:ip` or `name=ip`, brackets around the address allowed; sent as `name:ip`.
fn extra_host(value: &str) -> Checked {
    let parts = value.split_once('=').or_else(|| value.split_once(':'));
    let Some((name, address)) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {value:?}"));
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && IpAddr::from_str(bare).is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

fn link(value: &str) -> Checked<()> {
    match value.split(':').count() {
        _ if value.is_empty() => Err("empty string specified for links".to_owned()),
        1 | 2 => Ok(()),
        _ => Err(format!("bad format for links: {value}")),
    }
}

/// `c 1:3 rwm`, a `*` for any number.
fn device_rule(value: &str) -> Checked<()> {
    let number = |part: &str| {
        part == "*" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let valid = match value.split(' ').collect::<Vec<_>>().as_slice() {
        [kind, numbers, access] => {
            ["a", "b", "c"].contains(kind)
                && numbers.split_once(':').is_some_and(|(a, b)| number(a) && number(b))
                && (1..=3).contains(&access.len())
                && access.bytes().all(|byte| b"rwm".contains(&byte))
        }
        _ => false,
    };
    if valid { Ok(()) } else { Err(format!("invalid device cgroup format '{value}'")) }
}

/// True for the settings that a container has of its own.
fn is_whitelisted_sysctl(name: &str) -> bool {
    IPC_SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
}

fn sysctl(value: &str) -> Checked<()> {
    match value.split_once('=') {
        Some((name, _)) if is_whitelisted_sysctl(name) => Ok(()),
        _ => Err(format!("sysctl '{value}' is not allowed")),
    }
}

fn device_value(text: &str) -> Checked<(&str, &str)> {
    let Some((path, value)) = text.split_once(':') else {
        return Err(format!("bad format: {text}"));
    };
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

pub(crate) fn parse_device_weight(text: &str) -> Checked<WeightDevice> {
    let (path, weight) = device_value(text)?;
    match weight.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => {
            Ok(WeightDevice { path: path.to_owned(), weight })
        }
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

pub(crate) fn parse_byte_rate(text: &str) -> Checked<ThrottleDevice> {
    let (path, rate) = device_value(text)?;
    match spec::size::parse_bytes(rate).ok().and_then(|rate| u64::try_from(rate).ok()) {
        Some(rate) => Ok(ThrottleDevice { path: path.to_owned(), rate }),
        None => Err(format!(
            "invalid rate for device: {text}. The correct format is \
             <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional \
             and can be kb, mb, or gb"
        )),
    }
}

pub(crate) fn parse_rate(text: &str) -> Checked<ThrottleDevice> {
    let (path, rate) = device_value(text)?;
    match rate.parse() {
        Ok(rate) => Ok(ThrottleDevice { path: path.to_owned(), rate }),
        Err(_not_a_number) => Err(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )),
    }
}

/// `name=soft[:hard]`; -1 is "unlimited".
pub(crate) fn parse_ulimit(text: &str) -> Checked<Ulimit> {
    let Some((name, limits)) = text.split_once('=') else {
        return Err(format!("invalid ulimit argument: {text}"));
    };
    // Docker's client knows no limit of the address space.
    if name == "as" || !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    if parts.len() > 2 {
        return Err(format!(
            "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        ));
    }
    let soft = parse_int(parts[0], 64)?;
    let hard = parts.get(1).map_or(Ok(soft), |hard| parse_int(hard, 64))?;
    if hard != -1 && (soft == -1 || soft > hard) {
        let shown = if soft == -1 { "-1 (unlimited)".to_owned() } else { soft.to_string() };
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"
        ));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_value(kind: Kind, value: &str, expect: &str) {
        let got = match check(kind, value) {
            Ok(stored) => stored.join("|"),
            Err(error) => error,
        };
        assert_eq!(got, expect, "{kind:?} {value}");
    }

    #[test]
    fn values_are_checked_in_dockers_words() {
        check_value(Kind::Cpus, "x", "failed to parse x as a rational number");
        check_value(Kind::Bytes, "xx", "invalid size: 'xx'");
        check_value(Kind::SwapBytes, "-1", "-1");
        check_value(Kind::Bytes, "-1", "invalid size: '-1'");
        check_value(Kind::Duration, "5", "time: missing unit in duration \"5\"");
        check_value(Kind::Duration, "x", "time: invalid duration \"x\"");
        check_value(Kind::Filter, "x", "bad format of filter (expected name=value)");
        check_value(Kind::Filter, "name=", "");
        check_value(Kind::Env, "=x", "invalid environment variable: =x");
        check_value(Kind::Env, "SURELY_NOT_SET", "SURELY_NOT_SET");
        check_value(Kind::Label, "=x", "invalid label '=x': empty name");
        check_value(Kind::Label, "a b=c", "label 'a b' contains whitespaces");
        check_value(Kind::Attach, "STDIN", "stdin");
        check_value(Kind::Address, "x", "IP address is not correctly formatted: x");
        check_value(Kind::DnsSearch, ".", ".");
        check_value(Kind::DnsSearch, "a b", "a b is not a valid domain");
        check_value(Kind::ExtraHost, "h=[::1]", "h:::1");
        check_value(Kind::ExtraHost, "h:host-gateway", "h:host-gateway");
        check_value(Kind::ExtraHost, "x:y", "invalid IP address in add-host: \"y\"");
        check_value(Kind::Link, "a:b:c", "bad format for links: a:b:c");
        check_value(Kind::DeviceRule, "c 1:* rmw", "c 1:* rmw");
        check_value(Kind::DeviceRule, "d 1:1 r", "invalid device cgroup format 'd 1:1 r'");
        check_value(Kind::Sysctl, "net.a", "sysctl 'net.a' is not allowed");
        check_value(Kind::Ulimit, "bad=1", "invalid ulimit type: bad");
        check_value(
            Kind::Ulimit,
            "nofile=10:5",
            "ulimit soft limit must be less than or equal to hard limit: 10 > 5",
        );
        check_value(Kind::WeightDevice, "/dev/sda:5", "invalid weight for device: /dev/sda:5");
        check_value(Kind::ThrottleIops, "sda:1", "bad format for device path: sda:1");
    }

    #[test]
    fn ulimits_have_one_or_two_numbers() {
        let limit = parse_ulimit("nofile=5").unwrap();
        assert_eq!((limit.soft, limit.hard), (5, 5));
        let limit = parse_ulimit("core=0:-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (0, -1));
    }
}
