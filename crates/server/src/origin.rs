//! Keeps web pages away from TCP listeners.
//!
//! A page can make its visitor's browser send requests to 127.0.0.1:2375, and read the answers if
//! its own name is made to resolve there (DNS rebinding). Both show: the browser adds `Origin` or
//! `Sec-Fetch-Site`, and the name in `Host` is not one of the daemon's.

use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Foreign {
    #[error("requests from web pages are refused")]
    WebPage,
    #[error("the Host header {host:?} is no name of this daemon")]
    Host { host: String },
}

/// Accepts addresses, `localhost` and the daemon's own names.
pub(crate) fn check(host: &str, from_browser: bool, names: &[String]) -> Result<(), Foreign> {
    if from_browser {
        return Err(Foreign::WebPage);
    }
    let name = host_name(host);
    let own = name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name));
    if own { Ok(()) } else { Err(Foreign::Host { host: host.to_owned() }) }
}

/// The host without its port or an address's brackets.
fn host_name(host: &str) -> &str {
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    match host.rsplit_once(':') {
        Some((name, _port)) if !name.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_pass() {
        let names = ["build-1".to_owned()];
        for host in ["127.0.0.1:2375", "[::1]:2375", "::1", "LOCALHOST", "build-1:2376", "10.0.0.1"]
        {
            assert_eq!(check(host, false, &names), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:2375", "", "127.0.0.1.evil.example:80"] {
            let refused = Foreign::Host { host: host.to_owned() };
            assert_eq!(check(host, false, &names), Err(refused), "{host}");
        }
        assert_eq!(check("localhost", true, &names), Err(Foreign::WebPage));
    }
}
