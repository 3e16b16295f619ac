//! A host, its containers, and a neighbour on the host's network.
//!
//! ```text
//! neighbour 10.9.0.2 --- lan0 10.9.0.1 host boxship0 --- containers
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use metadata::Store;
use network::{Endpoint, EndpointRequest, NetworkConfig, Networks};
use runtime::interfaces;
use spec::Id;
use sys::netlink::{Batch, Socket, namespace, route};

/// Longer than any answer takes here, shorter than the kernel's resend of a lost packet.
const PATIENCE: Duration = Duration::from_millis(700);

pub(crate) struct Space(OwnedFd);

impl Space {
    pub(crate) fn new() -> Self {
        let space = Self(namespace::create().unwrap());
        space.run(interfaces::bring_up_loopback).unwrap();
        space
    }

    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        namespace::visit(self.0.as_fd(), work).unwrap()
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub(crate) fn route(&self) -> Socket {
        self.run(Socket::route).unwrap()
    }

    pub(crate) fn links(&self) -> Vec<route::Link> {
        route::links(&mut self.route()).unwrap()
    }

    pub(crate) fn listen(&self, ip: IpAddr, port: u16) -> TcpListener {
        self.run(|| TcpListener::bind((ip, port))).unwrap()
    }

    /// Who the server saw, when a byte got there and back.
    pub(crate) fn reach(&self, listener: &TcpListener, to: SocketAddr) -> io::Result<IpAddr> {
        self.reach_within(PATIENCE, listener, to)
    }

    pub(crate) fn reach_within(
        &self,
        patience: Duration,
        listener: &TcpListener,
        to: SocketAddr,
    ) -> io::Result<IpAddr> {
        let mut stream = self.run(|| TcpStream::connect_timeout(&to, patience))?;
        let (mut accepted, peer) = listener.accept()?;
        stream.write_all(b"x")?;
        let mut byte = [0];
        accepted.read_exact(&mut byte)?;
        accepted.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(peer.ip())
    }
}

pub(crate) struct Host {
    pub(crate) space: Space,
    pub(crate) neighbour: Space,
    pub(crate) store: Store,
    _directory: tempfile::TempDir,
}

pub(crate) struct Container {
    pub(crate) space: Space,
    pub(crate) endpoint: Endpoint,
}

impl Container {
    pub(crate) fn ip(&self) -> IpAddr {
        self.endpoint.ips()[0]
    }

    pub(crate) fn listen(&self) -> TcpListener {
        self.space.listen(self.ip(), 80)
    }

    pub(crate) fn port(&self) -> &str {
        &self.endpoint.interface.as_ref().unwrap().host_name
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("metadata.redb")).unwrap();
        let host =
            Self { space: Space::new(), neighbour: Space::new(), store, _directory: directory };
        // New namespaces inherit from the machine's first.
        host.space.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).unwrap();
        host.cable("lan0", &host.neighbour);
        configure(&host.neighbour, "lan0", [10, 9, 0, 2], Some([10, 9, 0, 1]));
        configure(&host.space, "lan0", [10, 9, 0, 1], Some([10, 9, 0, 2]));
        host.settle("lan0", &host.neighbour);
        host
    }

    /// A second way out of the host, to `far` at 10.8.0.2.
    pub(crate) fn add_uplink(&self, far: &Space) {
        self.cable("lan1", far);
        configure(far, "lan1", [10, 8, 0, 2], Some([10, 8, 0, 1]));
        configure(&self.space, "lan1", [10, 8, 0, 1], None);
        // A gateway makes it an uplink, as being physical does a real one.
        let mut socket = self.space.route();
        let index = socket.link_index("lan1").unwrap();
        let mut batch = Batch::new();
        route::add_route(
            &mut batch,
            "uplink",
            index,
            ([10, 7, 0, 0].into(), 16),
            [10, 8, 0, 2].into(),
        );
        socket.transact(&mut batch).unwrap();
        self.settle("lan1", far);
    }

    fn settle(&self, link: &str, far: &Space) {
        for space in [&self.space, far] {
            route::settle(&mut space.route(), link).unwrap();
        }
    }

    /// A link of that name in both.
    fn cable(&self, name: &str, far: &Space) {
        let mut batch = Batch::new();
        route::create_link(&mut batch, "lan", name, |link| {
            link.nested(route::IFLA_LINKINFO, |info| {
                info.text(route::IFLA_INFO_KIND, "veth");
                info.nested(route::IFLA_INFO_DATA, |veth| {
                    let header = route::link_header(0, 0, 0);
                    veth.nested_after(route::VETH_INFO_PEER, &header, |peer| {
                        peer.text(route::IFLA_IFNAME, name);
                        peer.descriptor(route::IFLA_NET_NS_FD, far.fd().as_fd());
                    });
                });
            });
        });
        self.space.route().transact(&mut batch).unwrap();
    }

    pub(crate) fn open(&self, config: NetworkConfig) -> Networks {
        self.try_open(config).unwrap()
    }

    pub(crate) fn try_open(
        &self,
        config: NetworkConfig,
    ) -> Result<Networks, network::NetworkError> {
        self.space.run(|| Networks::open(config, &self.store))
    }

    pub(crate) fn run(&self, networks: &Networks) -> Container {
        self.plug(attach(networks))
    }

    pub(crate) fn plug(&self, endpoint: Endpoint) -> Container {
        let space = Space(namespace::create().unwrap());
        let interface = endpoint.interface.as_ref().unwrap();
        self.space.run(|| interfaces::plug(interface, space.fd().as_fd())).unwrap();
        Container { space, endpoint }
    }

    pub(crate) fn setting(&self, key: &str) -> String {
        let path = format!("/proc/sys/net/{key}");
        self.space.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned()
    }
}

pub(crate) fn configure(space: &Space, link: &str, ip: [u8; 4], gateway: Option<[u8; 4]>) {
    let mut socket = space.route();
    let index = socket.link_index(link).unwrap();
    let mut batch = Batch::new();
    route::add_address(&mut batch, "address", index, ip.into(), 24);
    route::set_up(&mut batch, "up", index);
    if let Some(gateway) = gateway {
        route::add_default_route(&mut batch, "default", index, gateway.into());
    }
    socket.transact(&mut batch).unwrap();
}

pub(crate) fn id() -> Id {
    Id::from_random(sys::random::bytes())
}

/// What a container asks that has no wishes.
pub(crate) fn plain(container: &Id) -> EndpointRequest<'_> {
    EndpointRequest {
        container,
        interface_name: "eth0",
        ipv4: None,
        ipv6: None,
        mac: None,
        names: Vec::new(),
    }
}

pub(crate) fn attach(networks: &Networks) -> Endpoint {
    let container = id();
    let request = plain(&container);
    networks.attach("bridge", &request).unwrap()
}

#[track_caller]
pub(crate) fn assert_silence(result: &io::Result<IpAddr>) {
    let kind = result.as_ref().map_err(io::Error::kind);
    assert_eq!(kind, Err(io::ErrorKind::TimedOut), "dropped, not answered");
}
