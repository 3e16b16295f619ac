//! Links: what a container on the default bridge is told of others, and where it may reach them.
//!
//! A link is kept with the container that has it ([`Link`]). What follows from it is made at the
//! start: lines in `/etc/hosts`, environment variables, and with `--icc=false` the target's exposed
//! ports. Lines and ports are kept true while it runs ([`Shared::follow_links`]): what goes is taken
//! back, what comes again is there again. Variables are those of the start, and an exec's its own.
//!
//! On a user's network a link is a name, for the resolver to answer; it stays in the endpoint's
//! settings as it came.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api_types::host_config::HostConfig;
use serde::{Deserialize, Serialize};
use spec::Id;
use tokio::sync::watch;

use super::record::Definition;
use super::snapshot::{Container, Snapshot};
use super::start::NetworkFiles;
use super::task::{ContainerCommand, Task};
use super::validate::modes::{self, Mode};
use super::{Containers, Shared, ports};
use crate::errors::{ContainerError, Result, StartError, ValidationError};

/// The network that links are for.
const NETWORK: &str = "bridge";

/// What a container knows another by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub target: Id,
    /// The target's when the link was made: once the target is gone, another of this name may take
    /// its place.
    pub name: String,
    pub alias: String,
}

/// A link whose target is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    alias: String,
    /// `/web/db`
    path: String,
    target: Id,
    /// The target's names in the hosts file, in order.
    names: String,
    ips: Vec<IpAddr>,
    ports: Vec<String>,
    env: Vec<String>,
}

/// `name`, `name:alias`, or as inspect shows it: `/name:/parent/alias`.
pub(crate) fn parse(link: &str) -> Result<(&str, &str), ValidationError> {
    let bad = || ValidationError::Link { link: link.to_owned() };
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    if link.is_empty() {
        return Err(ValidationError::EmptyLink);
    }
    let alias = match name.starts_with('/') {
        true => alias.rsplit('/').next().unwrap_or_default(),
        false => alias,
    };
    // It becomes a word of a file, and a part of a name. Docker drops an empty one.
    let misplaced = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '#');
    if alias.is_empty() || alias.contains(misplaced) {
        return Err(bad());
    }
    Ok((name.strip_prefix('/').unwrap_or(name), alias))
}

/// Takes the links out of a request that is checked otherwise, and finds their targets.
pub(super) fn take(
    shared: &Shared,
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for asked in host_config.links.take().unwrap_or_default() {
        let (name, alias) = parse(&asked)?;
        let target = find(shared, name)?;
        let name = target.snapshot().definition.name.to_string();
        let link = Link { target: target.id.clone(), name, alias: alias.to_owned() };
        match links.iter().find(|before| before.alias == link.alias) {
            None => links.push(link),
            Some(before) if before.target == link.target => {}
            // Docker lets the first one have the name, and says nothing.
            Some(before) => warnings
                .push(format!("The link {asked} is left out: {alias} is /{} already", before.name)),
        }
    }
    Ok(links)
}

/// The container itself, or the one whose network it shares.
fn find(shared: &Shared, reference: &str) -> Result<Arc<Container>> {
    let unknown =
        |cause: String| ValidationError::LinkTarget { reference: reference.to_owned(), cause };
    if reference.is_empty() {
        return Err(unknown("invalid name or ID supplied: \"\"".to_owned()).into());
    }
    let find = |name: &str| shared.registry.find(name).map_err(|e| unknown(e.to_string()));
    let mut target = find(reference)?;
    // As many as there may be containers in a row.
    for _ in 0..shared.registry.all().len() {
        let snapshot = target.snapshot();
        match modes::container(&snapshot.definition.host_config.network_mode) {
            Some(Mode::Container(other)) => target = find(other)?,
            _ => break,
        }
    }
    if target.snapshot().definition.host_config.network_mode == "host" {
        return Err(ValidationError::Conflict(modes::HOST_AND_LINKS).into());
    }
    Ok(target)
}

impl Link {
    fn target(&self, shared: &Shared) -> Option<Arc<Container>> {
        let registry = &shared.registry;
        registry.get(&self.target).or_else(|| registry.find_by_name(&self.name))
    }

    /// `/db`; what it was if it is gone.
    fn target_name(&self, shared: &Shared) -> String {
        match self.target(shared) {
            Some(target) => format!("/{}", target.snapshot().definition.name),
            None => format!("/{}", self.name),
        }
    }
}

impl Definition {
    pub(super) fn link(&self, alias: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.alias == alias)
    }

    /// The name that a link gives its target.
    fn link_path(&self, link: &Link) -> String {
        format!("/{}/{}", self.name, link.alias)
    }
}

/// `HostConfig.Links` as inspect shows it: `/db:/web/alias`.
pub(super) fn shown(shared: &Shared, definition: &Definition) -> Option<Vec<String>> {
    let links = definition
        .links
        .iter()
        .map(|link| format!("{}:{}", link.target_name(shared), definition.link_path(link)));
    Some(links.collect()).filter(|links: &Vec<_>| !links.is_empty())
}

/// All names of all containers that are linked to: whose, and which.
pub(super) fn names(shared: &Shared) -> Vec<(Id, String)> {
    let mut names = Vec::new();
    for container in shared.registry.linking() {
        let snapshot = container.snapshot();
        for link in &snapshot.definition.links {
            if let Some(target) = link.target(shared) {
                names.push((target.id.clone(), snapshot.definition.link_path(link)));
            }
        }
    }
    names
}

/// What a container that starts is linked to; all of it must run.
pub(super) fn for_start(shared: &Shared, definition: &Definition) -> Result<Vec<Linked>> {
    if !applies(definition) {
        return Ok(Vec::new());
    }
    let linked = definition.links.iter().map(|link| {
        let target = link.target(shared).map(|target| target.snapshot());
        let running = target.filter(|target| target.progress.is_alive());
        let Some(target) = running else {
            let (target, path) = (link.target_name(shared), definition.link_path(link));
            return Err(StartError::LinkStopped { target, path }.into());
        };
        let linked = linked(definition, link, &target);
        linked.ok_or_else(|| StartError::LinkElsewhere { id: target.id().clone() }.into())
    });
    linked.collect()
}

/// What is there of it now.
pub(super) fn present(shared: &Shared, definition: &Definition) -> Vec<Linked> {
    if !applies(definition) {
        return Vec::new();
    }
    let linked = definition.links.iter().filter_map(|link| {
        let target = link.target(shared)?.snapshot();
        linked(definition, link, &target).filter(|_| target.progress.is_alive())
    });
    linked.collect()
}

/// Links are of no effect without the default network, as in Docker.
fn applies(definition: &Definition) -> bool {
    !definition.links.is_empty()
        && definition.endpoints.contains_key(NETWORK)
        && !definition.config.network_disabled
}

fn linked(definition: &Definition, link: &Link, target: &Snapshot) -> Option<Linked> {
    let mut endpoints = target.progress.endpoints.iter();
    let endpoint = endpoints.find(|endpoint| endpoint.network_name == NETWORK)?;
    let config = &target.definition.config;
    let own_name = target.definition.name.as_str();
    let mut names = format!("{} {}", link.alias, config.hostname);
    if link.alias != own_name {
        names = format!("{names} {own_name}");
    }
    Some(Linked {
        alias: link.alias.clone(),
        path: definition.link_path(link),
        target: target.id().clone(),
        names,
        ips: endpoint.ips(),
        ports: ports::exposed(&target.definition).collect(),
        env: config.env.clone().unwrap_or_default(),
    })
}

impl Linked {
    /// Its lines in the hosts file.
    pub(super) fn hosts(&self) -> impl Iterator<Item = network::files::ExtraHost> + '_ {
        self.ips.iter().map(|ip| network::files::ExtraHost {
            name: self.names.clone(),
            address: ip.to_string(),
        })
    }

    /// The ports that the firewall is to open.
    fn opens(&self) -> network::Link {
        let ports = self.ports.iter().filter_map(|port| {
            let (number, protocol) = port.split_once('/')?;
            Some((protocol.parse().ok()?, number.parse().ok()?))
        });
        network::Link { to: self.target.clone(), ports: ports.collect() }
    }
}

pub(super) fn opened(linked: &[Linked]) -> Vec<network::Link> {
    linked.iter().map(Linked::opens).collect()
}

/// The variables that tell of links, as Docker always named them.
pub(super) fn environment(linked: &[Linked]) -> Vec<String> {
    linked.iter().flat_map(Linked::environment).collect()
}

impl Linked {
    fn environment(&self) -> Vec<String> {
        let prefix = self.alias.replace('-', "_").to_uppercase();
        let mut env = self.port_variables(&prefix);
        env.push(format!("{prefix}_NAME={}", self.path));
        for variable in &self.env {
            // Every image has these; they mean nothing to another container.
            match variable.split_once('=') {
                Some(("HOME" | "PATH", _)) | None => {}
                Some((name, value)) => env.push(format!("{prefix}_ENV_{name}={value}")),
            }
        }
        env
    }

    fn port_variables(&self, prefix: &str) -> Vec<String> {
        let Some(ip) = self.ips.iter().find(|ip| ip.is_ipv4()).or_else(|| self.ips.first()) else {
            return Vec::new();
        };
        let mut exposed: Vec<(&str, u16)> = self
            .ports
            .iter()
            .filter_map(|port| port.split_once('/'))
            .filter_map(|(number, protocol)| Some((protocol, number.parse().ok()?)))
            .collect();
        // The first TCP port is the one that counts.
        exposed.sort_by_key(|&(protocol, number)| (protocol != "tcp", protocol, number));
        exposed.dedup();
        let url = |(protocol, number): (&str, u16)| format!("{protocol}://{ip}:{number}");
        let variable = |(protocol, number): (&str, u16)| {
            format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase())
        };
        let follows = |one: &(&str, u16), next: &(&str, u16)| {
            one.0 == next.0 && one.1.checked_add(1) == Some(next.1)
        };
        let mut env = Vec::new();
        env.extend(exposed.first().map(|port| format!("{prefix}_PORT={}", url(*port))));
        for range in exposed.chunk_by(follows) {
            for port in range {
                let name = variable(*port);
                env.extend([
                    format!("{name}={}", url(*port)),
                    format!("{name}_ADDR={ip}"),
                    format!("{name}_PORT={}", port.1),
                    format!("{name}_PROTO={}", port.0),
                ]);
            }
            if let [first, .., last] = range {
                let name = variable(*first);
                env.extend([
                    format!("{name}_START={}", url(*first)),
                    format!("{name}_PORT_START={}", first.1),
                    format!("{name}_END={}", url(*last)),
                    format!("{name}_PORT_END={}", last.1),
                ]);
            }
        }
        env
    }
}

impl Shared {
    /// Makes the hosts files and open ports of running containers true that are linked to this one,
    /// after it came, went or moved. Costs nothing without links.
    pub(super) fn follow_links(&self, target: &Id) {
        for container in self.registry.linking() {
            let snapshot = container.snapshot();
            let links = &snapshot.definition.links;
            let is_target =
                |link: &Link| link.target(self).is_some_and(|found| found.id == *target);
            if links.iter().any(|link| link.target == *target || is_target(link)) {
                self.refresh_links(&container);
            }
        }
    }

    /// The same for one that has links.
    pub(super) fn refresh_links(&self, container: &Container) {
        let snapshot = container.snapshot();
        let aliases = snapshot.definition.links.iter().map(|link| link.alias.clone());
        self.rewrite_links(container, &aliases.collect::<Vec<_>>());
    }

    /// Replaces what its hosts file says of these links.
    fn rewrite_links(&self, container: &Container, aliases: &[String]) {
        let hosts = self.lock_hosts();
        // Under the lock: the newest picture is written last.
        let snapshot = container.snapshot();
        if !snapshot.progress.is_alive() {
            return;
        }
        let linked = present(self, &snapshot.definition);
        if let Err(error) = self.networks.relink(&container.id, opened(&linked)) {
            tracing::warn!(container = %container.id, %error, "open the ports of links");
        }
        let path = NetworkFiles::in_directory(&self.directory(&container.id)).hosts;
        let edited = std::fs::read_to_string(&path).and_then(|text| {
            let new = rewrite(&text, &linked, aliases);
            // In place: the container has this very file mounted.
            if new == text { Ok(()) } else { std::fs::write(&path, new) }
        });
        drop(hosts);
        if let Err(error) = edited {
            tracing::warn!(container = %container.id, %error, "write the hosts file");
        }
    }
}

/// The hosts file with the lines of these links replaced, where they were or at the end.
fn rewrite(text: &str, linked: &[Linked], aliases: &[String]) -> String {
    let is_link = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Address, alias, host name, and mostly the container's name: no other line is like it.
        matches!(words[..], [ip, alias, _] | [ip, alias, _, _]
            if ip.parse::<IpAddr>().is_ok() && aliases.iter().any(|known| known == alias))
    };
    let new = linked.iter().flat_map(Linked::hosts);
    let new = new.map(|host| format!("{}\t{}", host.address, host.name));
    let lines: Vec<_> = text.lines().collect();
    let place = lines.iter().position(is_link).unwrap_or(lines.len());
    let kept = |lines: &[&str]| -> Vec<String> {
        lines.iter().filter(|line| !is_link(line)).map(|line| (*line).to_owned()).collect()
    };
    let all = [kept(&lines[..place]), new.collect(), kept(&lines[place..])].concat();
    all.iter().map(|line| format!("{line}\n")).collect()
}

/// With the daemon all start at once, but what is linked to goes first. Two that wait for each other
/// (each replaced a target of the other's) do so for this long.
const TARGETS_PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the start of each target that is to be started was tried.
pub(super) async fn wait_for_targets(
    container: &Container,
    tried: &HashMap<Id, watch::Receiver<bool>>,
) {
    let snapshot = container.snapshot();
    let links = snapshot.definition.links.iter();
    let waits = links
        .filter_map(|link| tried.get(&link.target).cloned())
        .map(|mut tried| async move { tried.wait_for(|tried| *tried).await.is_ok() });
    let waits = futures_util::future::join_all(waits);
    if tokio::time::timeout(TARGETS_PATIENCE, waits).await.is_err() {
        tracing::warn!(container = %container.id, "start before what it is linked to");
    }
}

impl Containers {
    /// `docker rm --link /web/db`: the target does not notice.
    pub(super) async fn remove_link(&self, reference: &str) -> Result<()> {
        let registry = &self.shared.registry;
        let path = reference.strip_prefix('/').unwrap_or(reference);
        let unknown = || super::registry::no_such(path);
        let Some((parent, alias)) = path.split_once('/') else {
            registry.find(reference)?;
            return Err(ContainerError::DefaultLinkName.into());
        };
        let parent = registry.find_by_name(parent).ok_or_else(unknown)?;
        if parent.snapshot().definition.link(alias).is_none() {
            return Err(unknown());
        }
        let alias = alias.to_owned();
        parent.ask(|reply| ContainerCommand::Unlink { alias, reply }).await
    }
}

impl Task {
    pub(super) async fn unlink(&mut self, alias: &str) -> Result<()> {
        let mut definition = Definition::clone(&self.state.definition);
        definition.links.retain(|link| link.alias != alias);
        self.redefine(definition).await?;
        let mut aliases: Vec<_> =
            self.state.definition.links.iter().map(|link| link.alias.clone()).collect();
        aliases.push(alias.to_owned());
        self.shared.rewrite_links(&self.container, &aliases);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(alias: &str, ports: &[&str], env: &[&str]) -> Linked {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Linked {
            alias: alias.to_owned(),
            path: format!("/web/{alias}"),
            target: Id::from_random([7; 32]),
            names: format!("{alias} host db"),
            ips: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            ports: list(ports),
            env: list(env),
        }
    }

    /// As dockerd 28.5 has them, but for the place of what tells of a range.
    #[test]
    fn variables_are_dockers() {
        let ports = ["3306/tcp", "53/udp", "7000/tcp", "7001/tcp", "7001/udp"];
        let variables = ["HOME=/x", "PATH=/bin", "USER=drupal", "EMPTY=", "NOTHING"];
        let env = environment(&[linked("my-db", &ports, &variables)]);
        let expect = "MY_DB_PORT=tcp://10.0.0.2:3306
            MY_DB_PORT_3306_TCP=tcp://10.0.0.2:3306
            MY_DB_PORT_3306_TCP_ADDR=10.0.0.2
            MY_DB_PORT_3306_TCP_PORT=3306
            MY_DB_PORT_3306_TCP_PROTO=tcp
            MY_DB_PORT_7000_TCP=tcp://10.0.0.2:7000
            MY_DB_PORT_7000_TCP_ADDR=10.0.0.2
            MY_DB_PORT_7000_TCP_PORT=7000
            MY_DB_PORT_7000_TCP_PROTO=tcp
            MY_DB_PORT_7001_TCP=tcp://10.0.0.2:7001
            MY_DB_PORT_7001_TCP_ADDR=10.0.0.2
            MY_DB_PORT_7001_TCP_PORT=7001
            MY_DB_PORT_7001_TCP_PROTO=tcp
            MY_DB_PORT_7000_TCP_START=tcp://10.0.0.2:7000
            MY_DB_PORT_7000_TCP_PORT_START=7000
            MY_DB_PORT_7000_TCP_END=tcp://10.0.0.2:7001
            MY_DB_PORT_7000_TCP_PORT_END=7001
            MY_DB_PORT_53_UDP=udp://10.0.0.2:53
            MY_DB_PORT_53_UDP_ADDR=10.0.0.2
            MY_DB_PORT_53_UDP_PORT=53
            MY_DB_PORT_53_UDP_PROTO=udp
            MY_DB_PORT_7001_UDP=udp://10.0.0.2:7001
            MY_DB_PORT_7001_UDP_ADDR=10.0.0.2
            MY_DB_PORT_7001_UDP_PORT=7001
            MY_DB_PORT_7001_UDP_PROTO=udp
            MY_DB_NAME=/web/my-db
            MY_DB_ENV_USER=drupal
            MY_DB_ENV_EMPTY=";
        assert_eq!(env, expect.lines().map(str::trim).collect::<Vec<_>>());
        let bare = environment(&[linked("t-w.o", &[], &[])]);
        assert_eq!(bare, ["T_W.O_NAME=/web/t-w.o"]);
    }

    #[test]
    fn links_are_read_in_dockers_forms() {
        let check = |link, expect| assert_eq!(parse(link).unwrap(), expect, "{link}");
        check("db", ("db", "db"));
        check("/db", ("db", "db"));
        check("db:my-db.x", ("db", "my-db.x"));
        check("/db:/other/alias", ("db", "alias"));
        check(":x", ("", "x"));
        let bad = |link: &str| parse(link).unwrap_err().to_string();
        assert_eq!(bad(""), "empty string specified for links");
        for link in ["a:b:c", "db:", "db:x y", "db:x\n10.0.0.1", "db:a/b", "db:#"] {
            assert_eq!(bad(link), format!("bad format for links: {link}"));
        }
    }

    #[test]
    fn lines_of_links_are_replaced_in_their_place() {
        let text = "127.0.0.1\tlocalhost\n1.2.3.4\tdb\n10.0.0.9\tdb host db\n10.0.0.9\tother \
                    host db\n10.0.0.3\tweb\n# db is ours db\n";
        let aliases = ["db".to_owned(), "other".to_owned()];
        let alone = "127.0.0.1\tlocalhost\n1.2.3.4\tdb\n10.0.0.3\tweb\n# db is ours db\n";
        assert_eq!(rewrite(text, &[], &aliases), alone);
        let there = rewrite(text, &[linked("db", &[], &[])], &aliases);
        let lines = "10.0.0.2\tdb host db\nfd00::2\tdb host db\n";
        assert_eq!(
            there,
            format!("127.0.0.1\tlocalhost\n1.2.3.4\tdb\n{lines}10.0.0.3\tweb\n# db is ours db\n")
        );
        assert_eq!(rewrite(alone, &[linked("db", &[], &[])], &aliases), format!("{alone}{lines}"));
    }
}
