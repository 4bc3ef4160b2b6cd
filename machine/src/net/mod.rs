//! A network for the guest that needs no rights on the host, as QEMU's `user` network.
//!
//! ```text
//!   guest 10.0.2.15, fec0::/64            this network                      host
//!   ┌────────────┐  Ethernet  ┌──────────────────────────────────┐  sockets
//!   │ virtio-net ├────────────┤ 10.0.2.2  fec0::2  the host      ├────────── 127.0.0.1, ::1
//!   └────────────┘            │ 10.0.2.3  fec0::3  name server   ├────────── nameservers of resolv.conf
//!                             │ any other address                ├────────── that address
//!                             └──────────────────────────────────┘
//! ```
//!
//! [`UserNet`] is the whole of it: it takes frames from the guest ([`UserNet::transmit`]) and gives it frames
//! ([`UserNet::receive`]), and lives on the network device's thread, which sleeps in a [`Poller`]. What belongs to one protocol
//! is in the file of its name. Nothing waits for the host: sockets do not block, and what the guest cannot take yet stays in
//! them. Every table and buffer has a bound, whatever the guest sends.

mod arp;
mod config;
mod dhcp;
mod dhcpv6;
mod dns;
mod errors;
mod forward;
mod fragment;
mod icmp;
mod link;
mod ndp;
mod poller;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

pub use config::{
    DNS_V4, DNS_V6, Forward, GUEST_V4, HOST_V4, HOST_V6, NetOptions, ParseNetError, Protocol, UserOptions,
};
pub use link::{Offloads, Receiver, Segmentation, Unfinished};
pub use poller::Poller;
pub use wire::Mac;

use dhcp::Dhcp;
use dns::Resolver;
use forward::Forwards;
use fragment::Fragments;
use icmp::{Ping, Unreachable};
use link::Link;
use poller::Token;
use tcp::Tcp;
use udp::Udp;
use wire::{Ethernet, Packet, ethertype, protocol};

/// Where the host names its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// Why there can be no user network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A port that cannot be opened.
    #[error("cannot listen on {} {} of the host ({}); choose another port, or 0 for any", .0.protocol, .0.host, .1)]
    Forward(Forward, #[source] Errno),
    /// The host has no resources left.
    #[error("the host has no event queue for the network")]
    Host(#[from] Errno),
}

/// Where something that the guest sends goes.
enum Route {
    /// To this network itself.
    Here(SocketAddr),
    /// To that address of the host's network.
    Out(SocketAddr),
    Unreachable(Unreachable),
    /// Nobody is told of anything.
    Ignore,
}

/// A user network with one guest.
#[derive(Debug)]
pub struct UserNet {
    restrict: bool,
    ipv6: bool,
    poller: Arc<Poller>,
    link: Link,
    dhcp: Dhcp,
    resolver: Resolver,
    fragments: Fragments,
    tcp: Tcp,
    udp: Udp,
    ping: Ping,
    forwards: Forwards,
    /// For one datagram.
    scratch: Vec<u8>,
}

impl UserNet {
    /// A network as it is asked for.
    ///
    /// # Errors
    /// When a port that is to be forwarded is taken.
    pub fn new(options: &UserOptions) -> Result<Self, NetError> {
        Self::with_resolver(options, Resolver::new(RESOLV_CONF.into(), dns::PORT))
    }

    fn with_resolver(options: &UserOptions, resolver: Resolver) -> Result<Self, NetError> {
        let poller = Arc::new(Poller::new()?);
        let mut forwards = Forwards::default();
        for forward in &options.forwards {
            forwards.add(*forward, &poller).map_err(|error| NetError::Forward(*forward, error))?;
        }
        Ok(Self {
            restrict: options.restrict,
            ipv6: !options.ipv4_only,
            poller,
            link: Link::new(options.mac),
            dhcp: Dhcp::default(),
            resolver,
            fragments: Fragments::default(),
            tcp: Tcp::default(),
            udp: Udp::default(),
            ping: Ping::default(),
            forwards,
            scratch: vec![0; MAX_DATAGRAM],
        })
    }

    /// Where the network's thread sleeps.
    pub fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// The forwards, with the ports that the host chose.
    pub fn forwards(&self) -> Vec<Forward> {
        self.forwards.list()
    }

    /// What the guest's driver can do.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.link.offloads = offloads;
    }

    /// Ends everything that goes on; ports of the host stay open.
    pub fn reset(&mut self) {
        self.link.reset();
        self.fragments = Fragments::default();
        self.tcp.reset();
        self.udp.reset();
        self.ping.reset();
        self.forwards.reset();
        self.poller.set_deadline(None);
    }

    /// A frame from the guest. `finished`: its checksums are filled in, and have to be right.
    pub fn transmit(&mut self, frame: &[u8], finished: bool, now: Instant) {
        let Some(frame) = Ethernet::parse(frame) else { return };
        if frame.dst != link::HOST_MAC && frame.dst[0] & 1 == 0 {
            return;
        }
        let packet = match frame.kind {
            ethertype::ARP => return arp::packet(&mut self.link, frame.payload),
            ethertype::IPV4 => Packet::parse_v4(frame.payload),
            ethertype::IPV6 if self.ipv6 => Packet::parse_v6(frame.payload),
            _ => return,
        };
        let Some(packet) = packet else { return };
        if config::is_local(packet.src) && !packet.src.is_multicast() {
            self.link.learn(packet.src, frame.src);
        }
        match packet.fragment {
            None => self.packet(&packet, finished, now),
            Some(fragment) => {
                if let Some(payload) = self.fragments.add(&packet, fragment) {
                    self.packet(&Packet { payload: &payload, fragment: None, ..packet }, finished, now);
                }
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, finished: bool, now: Instant) {
        match packet.protocol {
            protocol::TCP => self.tcp_packet(packet, finished, now),
            protocol::UDP => self.udp_packet(packet, finished, now),
            protocol::ICMP | protocol::ICMPV6 => {
                if packet.dst.is_ipv6() && ndp::packet(&mut self.link, packet, self.restrict) {
                    return;
                }
                let target = match self.route(SocketAddr::new(packet.dst, 0), 0, now) {
                    Route::Here(_) => icmp::Target::Here,
                    Route::Out(_) => icmp::Target::Out,
                    Route::Unreachable(why) => icmp::Target::Unreachable(why),
                    Route::Ignore => return,
                };
                if packet.dst.is_ipv4() == (packet.protocol == protocol::ICMP) {
                    self.ping.packet(packet, target, now, &mut self.link, &self.poller);
                }
            }
            _ => {}
        }
    }

    /// Where something for `remote` goes; `tries` is how often the like has been sent without an answer.
    fn route(&mut self, remote: SocketAddr, tries: usize, now: Instant) -> Route {
        let host = match remote.ip() {
            IpAddr::V4(ip) if ip == HOST_V4 => Some(IpAddr::from(std::net::Ipv4Addr::LOCALHOST)),
            IpAddr::V6(ip) if ip == HOST_V6 || ip == config::ROUTER_V6 => {
                Some(IpAddr::from(std::net::Ipv6Addr::LOCALHOST))
            }
            _ => None,
        };
        if let Some(host) = host {
            return Route::Here(SocketAddr::new(host, remote.port()));
        }
        if remote.ip() == IpAddr::from(DNS_V4) || remote.ip() == IpAddr::from(DNS_V6) {
            return match remote.port() {
                dns::PORT => Route::Here(self.resolver.server(tries, now)),
                // A ping.
                0 => Route::Here(remote),
                _ => Route::Unreachable(Unreachable::Port),
            };
        }
        let nowhere = match remote.ip() {
            IpAddr::V4(ip) => {
                ip.is_broadcast()
                    || ip.is_multicast()
                    || ip.octets()[0] == 0
                    || ip.is_loopback()
                    || config::is_local(remote.ip()) && ip.octets()[3] == 255
            }
            // An address that stands for one of IPv4 would lead around the rules for that.
            IpAddr::V6(ip) => {
                ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || ip.to_ipv4().is_some()
            }
        };
        if nowhere {
            Route::Ignore
        } else if config::is_local(remote.ip()) {
            Route::Unreachable(Unreachable::Host)
        } else if self.restrict {
            Route::Unreachable(Unreachable::Prohibited)
        } else {
            Route::Out(remote)
        }
    }

    fn tcp_packet(&mut self, packet: &Packet<'_>, finished: bool, now: Instant) {
        let port = packet.payload.get(2..4).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
        let target = match self.route(SocketAddr::new(packet.dst, port), 0, now) {
            Route::Here(_) | Route::Out(_) if port == 0 => tcp::Target::Refused,
            Route::Here(_) if self.restrict => tcp::Target::Refused,
            Route::Here(target) | Route::Out(target) => tcp::Target::To(target),
            Route::Unreachable(Unreachable::Port) => tcp::Target::Refused,
            Route::Unreachable(why) => tcp::Target::Unreachable(why),
            Route::Ignore => return,
        };
        self.tcp.packet(packet, finished, now, &mut self.link, &self.poller, target);
    }

    fn udp_packet(&mut self, packet: &Packet<'_>, finished: bool, now: Instant) {
        let Some(datagram) = wire::Udp::parse(packet.payload) else { return };
        // IPv4 knows datagrams without a checksum.
        let summed = packet.dst.is_ipv6() || packet.payload[6..8] != [0, 0];
        if finished && summed && !packet.checksum_holds() {
            return;
        }
        if packet.dst.is_ipv4() && datagram.dst == dhcp::SERVER_PORT {
            if datagram.src == dhcp::CLIENT_PORT {
                self.dhcp.request(&mut self.link, datagram.payload, self.restrict);
            }
            return;
        }
        if packet.dst.is_ipv6() && datagram.dst == dhcpv6::SERVER_PORT {
            if !self.restrict
                && let Some(reply) = dhcpv6::answer(datagram.payload)
            {
                let (from, to) = (config::ROUTER_V6.into(), packet.src);
                self.link.send_udp((from, datagram.dst), (to, datagram.src), &reply);
            }
            return;
        }
        let guest = SocketAddr::new(packet.src, datagram.src);
        let remote = SocketAddr::new(packet.dst, datagram.dst);
        if self.forwards.answer(guest, remote, datagram.payload) {
            return;
        }
        if guest.port() == 0 || remote.port() == 0 || guest.ip().is_unspecified() {
            return;
        }
        let tries = self.udp.queries(guest);
        let result = match self.route(remote, tries, now) {
            Route::Here(_) if self.restrict => Err(Unreachable::Prohibited),
            Route::Here(target) | Route::Out(target) => {
                self.udp.send(guest, remote, target, datagram.payload, now, &self.poller)
            }
            Route::Unreachable(why) => Err(why),
            Route::Ignore => return,
        };
        if let Err(why) = result {
            icmp::unreachable(&mut self.link, packet.src, packet.dst, packet.whole, why);
        }
    }

    /// Gives the guest what there is for it, as far as it has room. Returns whether there is more that only needs another
    /// call; if there is not, the guest's room, the host or the clock decide when to call again.
    pub fn receive(&mut self, guest: &mut dyn Receiver, now: Instant) -> bool {
        let readable = EventFlags::IN | EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
        let writable = EventFlags::OUT | EventFlags::HUP | EventFlags::ERR;
        for (token, flags) in self.poller.take_events() {
            match token {
                Token::Wake => {}
                Token::Tcp(id) => {
                    let (readable, writable) = (flags.intersects(readable), flags.intersects(writable));
                    self.tcp.host_event(id, readable, writable, &mut self.link);
                }
                Token::Udp(id) if flags.intersects(readable) => {
                    self.udp.host_event(id, flags.contains(EventFlags::ERR));
                }
                Token::Ping(id) if flags.intersects(readable) => self.ping.host_event(id),
                Token::TcpForward(id) | Token::UdpForward(id) if flags.intersects(readable) => {
                    self.forwards.host_event(id);
                }
                _ => {}
            }
        }
        self.tcp.check_alarms(now);
        self.udp.expire(now);
        self.ping.expire(now);

        // What has arrived goes before what is still to be fetched.
        let mut room = self.link.flush(guest);
        if room {
            let Self { forwards, tcp, udp, ping, link, poller, scratch, .. } = self;
            forwards.pump(tcp, link, poller, scratch, now);
            udp.pump(link, scratch, now);
            ping.pump(link);
            room = link.flush(guest) && tcp.pump(link, guest, now) && link.flush(guest);
        }
        let deadlines =
            [self.tcp.deadline(), self.udp.deadline(), self.ping.deadline(), self.forwards.deadline()];
        self.poller.set_deadline(deadlines.into_iter().flatten().min());
        let ready =
            self.tcp.is_ready() || self.udp.is_ready() || self.ping.is_ready() || self.forwards.is_ready();
        room && ready
    }
}
