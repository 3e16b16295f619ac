//! Networks.

use super::{Action, Arity, Command, INSPECT_FORMAT, TABLE_FORMAT};
use crate::flags::Kind::{Bool, Filter, Int, Label, Link, Map, Strings, Text};
use crate::flags::flag;

pub(crate) static CONNECT: Command = Command {
    paths: &["network connect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[&[
        flag("alias", "", Strings, "", "Add network-scoped alias for the container"),
        flag("driver-opt", "", Strings, "", "driver options for the network"),
        flag(
            "gw-priority",
            "",
            Int,
            "",
            "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
        ),
        flag("ip", "", Text, "", "IPv4 address (e.g., \"172.30.100.104\")"),
        flag("ip6", "", Text, "", "IPv6 address (e.g., \"2001:db8::33\")"),
        flag("link", "", Link, "", "Add link to another container"),
        flag("link-local-ip", "", Strings, "", "Add a link-local address for the container"),
    ]],
    action: Action::NetworkConnect,
};

pub(crate) static CREATE: Command = Command {
    paths: &["network create"],
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    arity: Arity::Exactly(1),
    interspersed: true,
    flags: &[&[
        flag("attachable", "", Bool, "", "Enable manual container attachment"),
        flag(
            "aux-address",
            "",
            Map,
            "map[]",
            "Auxiliary IPv4 or IPv6 addresses used by Network driver",
        ),
        flag("config-from", "", Text, "", "The network from which to copy the configuration"),
        flag("config-only", "", Bool, "", "Create a configuration only network"),
        flag("driver", "d", Text, "bridge", "Driver to manage the Network"),
        flag("gateway", "", Strings, "", "IPv4 or IPv6 Gateway for the master subnet"),
        flag("ingress", "", Bool, "", "Create swarm routing-mesh network"),
        flag("internal", "", Bool, "", "Restrict external access to the network"),
        flag("ip-range", "", Strings, "", "Allocate container ip from a sub-range"),
        flag("ipam-driver", "", Text, "default", "IP Address Management Driver"),
        flag("ipam-opt", "", Map, "map[]", "Set IPAM driver specific options"),
        flag("ipv4", "", Bool, "true", "Enable or disable IPv4 address assignment"),
        flag("ipv6", "", Bool, "", "Enable or disable IPv6 address assignment"),
        flag("label", "", Label, "", "Set metadata on a network"),
        flag("opt", "o", Map, "map[]", "Set driver specific options"),
        flag("scope", "", Text, "", "Control the network's scope"),
        flag("subnet", "", Strings, "", "Subnet in CIDR format that represents a network segment"),
    ]],
    action: Action::NetworkCreate,
};

pub(crate) static DISCONNECT: Command = Command {
    paths: &["network disconnect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    arity: Arity::Exactly(2),
    interspersed: true,
    flags: &[&[flag("force", "f", Bool, "", "Force the container to disconnect from a network")]],
    action: Action::NetworkDisconnect,
};

pub(crate) static INSPECT: Command = Command {
    paths: &["network inspect"],
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[
        flag("format", "f", Text, "", INSPECT_FORMAT),
        flag("verbose", "v", Bool, "", "Verbose output for diagnostics"),
    ]],
    action: Action::NetworkInspect,
};

pub(crate) static LS: Command = Command {
    paths: &["network ls", "network list"],
    usage: "[OPTIONS]",
    about: "List networks",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("filter", "f", Filter, "", "Provide filter values (e.g. \"driver=bridge\")"),
        flag("format", "", Text, "", TABLE_FORMAT),
        flag("no-trunc", "", Bool, "", "Do not truncate the output"),
        flag("quiet", "q", Bool, "", "Only display network IDs"),
    ]],
    action: Action::NetworkLs,
};

pub(crate) static PRUNE: Command = Command {
    paths: &["network prune"],
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    arity: Arity::Exactly(0),
    interspersed: true,
    flags: &[&[
        flag("filter", "", Filter, "", "Provide filter values (e.g. \"until=<timestamp>\")"),
        flag("force", "f", Bool, "", "Do not prompt for confirmation"),
    ]],
    action: Action::NetworkPrune,
};

pub(crate) static RM: Command = Command {
    paths: &["network rm", "network remove"],
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    arity: Arity::AtLeast(1),
    interspersed: true,
    flags: &[&[flag("force", "f", Bool, "", "Do not error if the network does not exist")]],
    action: Action::NetworkRm,
};
