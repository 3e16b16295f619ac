//! Keeps web pages away from TCP listeners.
//!
//! A page can make its visitor's browser send requests to 127.0.0.1:2375, and read the answers if
//! its own name is made to resolve there (DNS rebinding). Both show: the browser adds `Origin` or
//! `Sec-Fetch-Site`, and the name in `Host` is not one of the daemon's.
//!
//! Websocket libraries add an `Origin` too, and mean the daemon by it.

use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Foreign {
    #[error("requests from web pages are refused")]
    WebPage,
    #[error("the Host header {host:?} is no name of this daemon")]
    Host { host: String },
}

/// Accepts addresses, `localhost` and the daemon's own names, from programs.
pub(crate) fn check(host: &str, is_web_page: bool, names: &[String]) -> Result<(), Foreign> {
    if is_web_page {
        return Err(Foreign::WebPage);
    }
    let name = host_name(host);
    let own = name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name));
    if own { Ok(()) } else { Err(Foreign::Host { host: host.to_owned() }) }
}

/// Whether the one who asks is the page of another site. `Sec-Fetch-Site` is not a page's to
/// choose, and there are no pages of ours.
pub(crate) fn is_web_page(host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> bool {
    let foreign = |origin: &str| {
        let authority = origin.split_once("://").map(|(_scheme, authority)| authority);
        authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(host))
    };
    origin.is_some_and(foreign) || fetch_site.is_some_and(|site| site != "none")
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
    fn only_the_daemons_own_origin_passes() {
        let host = "127.0.0.1:2375";
        assert!(!is_web_page(host, None, None));
        assert!(!is_web_page(host, None, Some("none")));
        assert!(!is_web_page("LOCALHOST:1", Some("http://localhost:1"), None));
        for origin in ["http://127.0.0.1:2375", "https://127.0.0.1:2375", "ws://127.0.0.1:2375"] {
            assert!(!is_web_page(host, Some(origin), None), "{origin}");
        }
        let foreign = [
            "http://evil.example",
            "http://127.0.0.1",
            "http://127.0.0.1:23750",
            "http://127.0.0.1:2375.evil.example",
            "http://127.0.0.1:2375/",
            "http://evil@127.0.0.1:2375",
            "127.0.0.1:2375",
            "null",
            "",
        ];
        for origin in foreign {
            assert!(is_web_page(host, Some(origin), None), "{origin}");
        }
        assert!(is_web_page(host, Some("http://127.0.0.1:2375"), Some("same-origin")));
        assert!(is_web_page(host, None, Some("cross-site")));
        assert!(is_web_page("", Some("null"), None));
    }

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
