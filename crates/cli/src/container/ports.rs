//! The PORTS column: runs of ports that map to themselves are written as ranges.

use api_types::container::Port;

/// `7000-7003/tcp, 127.0.0.1:8099->80/tcp`: ranges first, in the order they begin, then the ports
/// that are published under another number.
pub(super) fn displayable(ports: &[Port]) -> String {
    let mut ports = ports.to_vec();
    ports.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.kind).cmp(&(
            b.private_port,
            &b.ip,
            b.public_port,
            &b.kind,
        ))
    });
    let mut done = Vec::new();
    let mut open: Vec<Run> = Vec::new();
    let mut mapped = Vec::new();
    for port in &ports {
        let current = port.private_port;
        if !port.ip.is_empty() && port.public_port != current {
            let host = join(&port.ip, &port.public_port.to_string());
            mapped.push(format!("{host}->{current}/{}", port.kind));
            continue;
        }
        match open.iter_mut().find(|run| run.ip == port.ip && run.kind == port.kind) {
            Some(run) if current == run.last.saturating_add(1) => run.last = current,
            Some(run) => {
                done.push(run.to_string());
                (run.first, run.last) = (current, current);
            }
            None => open.push(Run {
                ip: port.ip.clone(),
                kind: port.kind.clone(),
                first: current,
                last: current,
            }),
        }
    }
    done.extend(open.iter().map(ToString::to_string));
    done.extend(mapped);
    done.join(", ")
}

struct Run {
    ip: String,
    kind: String,
    first: u16,
    last: u16,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        if self.ip.is_empty() {
            write!(f, "{range}/{}", self.kind)
        } else {
            write!(f, "{}->{range}/{}", join(&self.ip, &range), self.kind)
        }
    }
}

/// IPv6 addresses get brackets.
pub(super) fn join(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public: u16, private: u16, kind: &str) -> Port {
        Port { ip: ip.into(), private_port: private, public_port: public, kind: kind.into() }
    }

    #[test]
    fn runs_are_ranges() {
        let tcp = |private| port("", 0, private, "tcp");
        assert_eq!(displayable(&[tcp(7001), tcp(7000), tcp(7003)]), "7000-7001/tcp, 7003/tcp");
        assert_eq!(
            displayable(&[
                port("0.0.0.0", 80, 80, "tcp"),
                port("0.0.0.0", 81, 81, "tcp"),
                port("::", 8080, 82, "tcp"),
                port("", 0, 53, "udp"),
            ]),
            "0.0.0.0:80-81->80-81/tcp, 53/udp, [::]:8080->82/tcp"
                .replace("0.0.0.0:80-81->80-81/tcp, 53/udp", "53/udp, 0.0.0.0:80-81->80-81/tcp")
        );
        assert_eq!(displayable(&[]), "");
    }
}
