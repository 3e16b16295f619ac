//! What can go wrong, in Docker's words where clients see them.

use std::net::IpAddr;

use runtime::protocol::errno_text;
use rustix::io::Errno;
use spec::{ErrorKind, Id, Kinded};
use sys::netlink::NetlinkError;

use crate::features::Module;
use crate::ports::Published;
use crate::subnet::Subnet;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{object}: {source}: {}", source.errno)]
    Kernel { object: String, source: NetlinkError },
    #[error("write {path}")]
    Setting { path: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] metadata::StoreError),
    #[error("network {name} not found")]
    NotFound { name: String },
    #[error("operation is not permitted on predefined {name} network ")]
    Predefined { name: String },
    #[error("network with name {name} already exists")]
    Exists { name: String },
    #[error("{name} is a pre-defined network and cannot be removed")]
    CannotRemove { name: String },
    #[error("invalid name: name is empty")]
    NoName,
    #[error("{feature} is not supported yet")]
    Unsupported { feature: String },
    #[error("plugin {name:?} not found")]
    NoPlugin { name: String },
    #[error("only one instance of {driver:?} network is allowed")]
    OneInstance { driver: String },
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again."
    )]
    NotAManager,
    #[error("invalid network config:\n{}", reasons.join("\n"))]
    Invalid { reasons: Vec<String> },
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlap,
    #[error("failed to parse {option} value: {value} ({reason})")]
    Option { option: String, value: String, reason: String },
    /// As the driver says it.
    #[error("{reason}")]
    Driver { reason: String },
    #[error("bridge driver doesn't support multiple subnets")]
    SeveralSubnets,
    #[error("invalid bridge name {name:?}")]
    LinkName { name: String },
    #[error(
        "cannot create network {id} ({bridge}): conflicts with network {other} ({bridge}): \
         networks have same bridge name"
    )]
    SameBridge { id: Id, other: Id, bridge: String },
    /// The containers and their endpoints that are in the way.
    #[error("network {name} has active endpoints")]
    ActiveEndpoints { name: String, endpoints: Vec<(Id, Id)> },
    #[error("no configured subnet or ip-range contain the IP address {ip}")]
    NoSubnetContains { ip: IpAddr },
    #[error(
        "user specified IP address is supported only when connecting to networks with user \
         configured subnets"
    )]
    AddressNotAsked,
    #[error("invalid subnet {text:?}")]
    InvalidSubnet { text: String },
    #[error("the default bridge is disabled (--bridge=none)")]
    NoBridge,
    #[error(
        "all predefined address pools have been fully subnetted; \
         the default bridge needs a free one (--bip, --default-address-pool)"
    )]
    PoolsExhausted,
    #[error("no available IPv{family} addresses on this network's address pools: {name}")]
    AddressesExhausted { name: String, family: u8 },
    #[error("Address already in use")]
    AddressInUse { ip: IpAddr },
    #[error("invalid address {ip}: It does not belong to any of this network's subnets")]
    AddressOutside { ip: IpAddr },
    #[error(
        "invalid endpoint settings:\n\
         user specified IP address is supported on user defined networks only"
    )]
    AddressOnDefault,
    #[error("fixed address range {range} is not part of the bridge's network {subnet}")]
    RangeOutside { range: Subnet, subnet: Subnet },
    #[error("endpoint of container {container} already exists in network {network}")]
    EndpointExists { container: Id, network: String },
    #[error("no free name for a network interface")]
    NoInterfaceName,
    #[error("unknown protocol")]
    UnknownProtocol,
    /// Another container's, if it is known whose.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortAllocated { ip: IpAddr, port: u16, owner: Option<Id> },
    #[error("failed to bind host port for {port}: {}", errno_text(errno.raw_os_error()))]
    PortBind { port: Published, errno: Errno },
    #[error("all ports are allocated")]
    PortsExhausted,
    #[error(
        "publishing a port on {host} needs an address of that family in the container's network \
         (there is no userland proxy)"
    )]
    NoAddressToPublish { host: IpAddr },
    #[error("publishing ports needs the packet filter, which --iptables=false forbids")]
    NoFirewall,
    #[error("{feature} needs the kernel module {}, which this kernel does not have", module.name())]
    MissingModule { feature: &'static str, module: Module },
    #[error(
        "links without inter-container communication need the packet filter, which --iptables=false forbids"
    )]
    NoLinks,
    #[error("keep the ports' sockets")]
    PortSockets(#[source] std::io::Error),
}

impl NetworkError {
    /// Bridge networks need it.
    pub(crate) fn no_module(module: Module) -> Self {
        Self::MissingModule { feature: "a bridge network", module }
    }

    /// For `map_err`: names what the refused message was about.
    pub(crate) fn kernel(object: &str) -> impl FnOnce(NetlinkError) -> Self {
        move |source| Self::Kernel { object: object.to_owned(), source }
    }
}

impl Kinded for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Kernel { .. }
            | Self::Setting { .. }
            | Self::NoInterfaceName
            | Self::PoolsExhausted
            | Self::UnknownProtocol
            | Self::Driver { .. }
            | Self::PortAllocated { .. }
            | Self::PortBind { .. }
            | Self::PortsExhausted
            | Self::PortSockets(_)
            | Self::AddressesExhausted { .. } => ErrorKind::Internal,
            Self::Store(error) => error.kind(),
            Self::NotFound { .. } | Self::NoPlugin { .. } => ErrorKind::NotFound,
            Self::Predefined { .. }
            | Self::CannotRemove { .. }
            | Self::OneInstance { .. }
            | Self::NotAManager
            | Self::PoolOverlap
            | Self::SeveralSubnets
            | Self::SameBridge { .. }
            | Self::ActiveEndpoints { .. }
            | Self::AddressInUse { .. }
            | Self::EndpointExists { .. } => ErrorKind::Forbidden,
            Self::Exists { .. } => ErrorKind::Conflict,
            Self::Unsupported { .. }
            | Self::NoAddressToPublish { .. }
            | Self::NoFirewall
            | Self::MissingModule { .. }
            | Self::NoLinks => ErrorKind::NotImplemented,
            Self::NoBridge
            | Self::NoName
            | Self::Invalid { .. }
            | Self::Option { .. }
            | Self::LinkName { .. }
            | Self::NoSubnetContains { .. }
            | Self::AddressNotAsked
            | Self::InvalidSubnet { .. }
            | Self::AddressOutside { .. }
            | Self::AddressOnDefault
            | Self::RangeOutside { .. } => ErrorKind::InvalidArgument,
        }
    }
}
