//! The firewall with its plan: what it is to say of bridges, and the elements of who is there.
//!
//! Rules are complete before the first container may come; an endpoint's elements are added before
//! its link and removed after it.

use rustix::io::Errno;

use crate::bridge;
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::features::{self, Missing, Module};
use crate::firewall::{BridgeRules, Firewall, Member, Plan};
use crate::links::LinkRules;
use crate::ports::Published;

#[derive(Debug)]
pub(crate) struct Wall {
    /// The tables' and the aliases' name.
    instance: String,
    /// None with `--iptables=false --ip6tables=false`, and where the kernel has no such thing.
    pub firewall: Option<Firewall>,
    pub plan: Plan,
    wanted: bool,
}

impl Wall {
    /// Opens the way to the tables. Without rules to make, what an earlier run left is removed, if
    /// the kernel has such a thing.
    pub(crate) fn open(instance: &str, config: &NetworkConfig) -> Result<Self, NetworkError> {
        let opened = Firewall::open(instance);
        let wanted = config.iptables || config.ip6tables;
        let firewall = if wanted {
            match opened {
                Err(error) if features::is_unknown(error.errno) => None,
                other => {
                    let firewall = other.map_err(NetworkError::kernel(instance))?;
                    Some(firewall.without(&config.do_without))
                }
            }
        } else {
            if let Err(error) = opened.and_then(|mut firewall| firewall.remove()) {
                tracing::debug!(%error, instance, "remove the rules of an earlier run");
            }
            None
        };
        let plan = Plan {
            bridges: Vec::new(),
            uplinks: Vec::new(),
            ipv4: config.iptables,
            ipv6: config.ip6tables,
            links: LinkRules::default(),
        };
        Ok(Self { instance: instance.to_owned(), firewall, plan, wanted })
    }

    /// What rules would be made of and the kernel does not have.
    pub(crate) fn missing(&self) -> Missing {
        match &self.firewall {
            Some(firewall) => firewall.missing().clone(),
            None if self.wanted => Missing::new(&[Module::NfTables]),
            None => Missing::default(),
        }
    }

    /// Whether ports can be published.
    pub(crate) fn check_ports(&self) -> Result<(), NetworkError> {
        if !self.wanted {
            return Err(NetworkError::NoFirewall);
        }
        match self.missing().for_ports() {
            Some(module) => {
                Err(NetworkError::MissingModule { feature: "publishing ports", module })
            }
            None => Ok(()),
        }
    }

    /// Looks whether what was missing is there by now, and if so writes everything anew.
    pub(crate) fn look_again(
        &mut self,
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        if firewall.missing().iter().next().is_none() {
            return Ok(());
        }
        let changed = firewall.look_again().map_err(NetworkError::kernel(&self.instance))?;
        if changed { self.replace(&members()) } else { Ok(()) }
    }

    /// Adds or replaces what is said of a bridge.
    pub(crate) fn set(&mut self, rules: BridgeRules) {
        self.unset(&rules.name);
        self.plan.bridges.push(rules);
    }

    pub(crate) fn unset(&mut self, bridge: &str) {
        self.plan.bridges.retain(|rules| rules.name != bridge);
    }

    /// Writes everything anew, at once.
    pub(crate) fn replace(&mut self, members: &[Member]) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        firewall.replace(&self.plan, members).map_err(NetworkError::kernel(&self.instance))
    }

    /// Adds the elements of a new member. `others` are all that are there already.
    pub(crate) fn admit(
        &mut self,
        member: Member,
        others: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        match firewall.add_member(&member) {
            Ok(()) => Ok(()),
            // Somebody flushed the tables: all anew.
            Err(error) if error.errno == Errno::NOENT => {
                let mut members = others();
                members.push(member);
                self.replace(&members)
            }
            Err(error) => Err(NetworkError::kernel(&member.port)(error)),
        }
    }

    pub(crate) fn forget(
        &mut self,
        member: &Member,
        remaining: &[Member],
    ) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        let shared = remaining.iter().any(|other| other.mac == member.mac);
        // Elements that another endpoint needs too, or that somebody removed: all anew.
        if shared || firewall.remove_member(member).is_err() {
            return self.replace(remaining);
        }
        Ok(())
    }

    /// Opens ports. `members` are all, the one with these ports included.
    pub(crate) fn publish(
        &mut self,
        ports: &[Published],
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        self.check_ports()?;
        let firewall = self.firewall.as_mut().ok_or(NetworkError::NoFirewall)?;
        match firewall.publish(ports) {
            Err(error) if error.errno == Errno::NOENT => self.replace(&members()),
            opened => opened.map_err(NetworkError::kernel(&self.instance)),
        }
    }

    /// Makes the doors and open ports of links be these. `members` are all that are there.
    pub(crate) fn set_links(
        &mut self,
        links: LinkRules,
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        let before = std::mem::replace(&mut self.plan.links, links);
        let (gone, new) = (before.without(&self.plan.links), self.plan.links.without(&before));
        let Some(firewall) = self.firewall.as_mut().filter(|_| gone != new) else { return Ok(()) };
        match firewall.change_links(&gone, &new) {
            // Somebody flushed the tables: all anew.
            Err(error) if error.errno == Errno::NOENT => self.replace(&members()),
            changed => changed.map_err(NetworkError::kernel(&self.instance)),
        }
    }

    /// Turns on what routing for containers takes; before, the rules see to it that the host does
    /// not route between networks that were apart.
    pub(crate) fn let_route(
        &mut self,
        config: &NetworkConfig,
        ipv6: bool,
        uplinks: impl FnOnce() -> Result<Vec<String>, NetworkError>,
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        if !config.ip_forward {
            return self.replace(&members());
        }
        if self.missing().has(Module::NfTables) {
            // Nothing would keep the host from routing between others.
            return Ok(());
        }
        let mut keys = vec!["ipv4/ip_forward"];
        if ipv6 {
            keys.push("ipv6/conf/all/forwarding");
        }
        keys.retain(|key| bridge::read_setting(key) == Some(0));
        let guarded = self.firewall.as_mut().map_or(Ok(false), Firewall::guards_uplinks);
        let guarded = guarded.map_err(NetworkError::kernel(&self.instance))?;
        if !config.ip_forward_no_drop && (guarded || !keys.is_empty()) {
            self.plan.uplinks = uplinks()?;
        }
        self.replace(&members())?;
        if self.missing().has(Module::NfTables) {
            return Ok(());
        }
        keys.iter().try_for_each(|key| bridge::write_setting(key, "1"))
    }
}
