//! Ports of the host that lead into the guest.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::config::{Forward, HOST_V4, HOST_V6, Protocol, is_local};
use super::link::Link;
use super::poller::{Poller, Token};
use super::tcp::Tcp;

/// Connections that the host may have made and the guest not yet been told of.
const BACKLOG: i32 = 1024;
/// Peers of one UDP port at a time.
const MAX_PEERS: usize = 1024;
/// Connections or datagrams taken from one port before others have their turn.
const TURN: usize = 64;
/// How long to wait when the host has no file descriptors left.
const RETRY: Duration = Duration::from_millis(100);

/// How the guest sees a peer of the host's: those on the host's loopback, and those whose address would be on the guest's own
/// network, are the host itself.
pub(super) fn seen_as(peer: SocketAddr, guest: IpAddr) -> SocketAddr {
    let ip = peer.ip();
    let foreign = ip.is_loopback() || ip.is_unspecified() || is_local(ip) || ip.is_ipv4() != guest.is_ipv4();
    let host = if guest.is_ipv4() { IpAddr::from(HOST_V4) } else { IpAddr::from(HOST_V6) };
    SocketAddr::new(if foreign { host } else { ip }, peer.port())
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    forward: Forward,
    /// There may be something to take.
    ready: bool,
    /// UDP: peers as the guest sees them, as they are, and when they were last heard of.
    peers: HashMap<SocketAddr, (SocketAddr, Instant)>,
}

/// All forwards.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    ports: Vec<Port>,
    /// When to try again to accept.
    retry: Option<Instant>,
}

impl Forwards {
    /// Opens a port of the host.
    pub(super) fn add(&mut self, mut forward: Forward, poller: &Poller) -> Result<(), Errno> {
        let family = if forward.host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let id = self.ports.len() as u64;
        let (kind, token) = match forward.protocol {
            Protocol::Tcp => (SocketType::STREAM, Token::TcpForward(id)),
            Protocol::Udp => (SocketType::DGRAM, Token::UdpForward(id)),
        };
        let socket = net::socket_with(family, kind, flags, None)?;
        if forward.host.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if forward.protocol == Protocol::Tcp {
            // Connections of a run before may linger; two runs at a time are refused all the same.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        net::bind(&socket, &forward.host)?;
        if forward.protocol == Protocol::Tcp {
            net::listen(&socket, BACKLOG)?;
        }
        forward.host = SocketAddr::try_from(net::getsockname(&socket)?)?;
        poller.add(&socket, token)?;
        self.ports.push(Port { socket, forward, ready: false, peers: HashMap::new() });
        Ok(())
    }

    /// What there is, with the ports that the host chose.
    pub(super) fn list(&self) -> Vec<Forward> {
        self.ports.iter().map(|port| port.forward).collect()
    }

    /// Forgets peers, not ports.
    pub(super) fn reset(&mut self) {
        self.ports.iter_mut().for_each(|port| port.peers.clear());
    }

    /// The host has something for a port.
    pub(super) fn host_event(&mut self, id: u64) {
        if let Some(port) = self.ports.get_mut(id as usize) {
            port.ready = true;
        }
    }

    /// Whether a port has something and nothing but the guest is in its way.
    pub(super) fn is_ready(&self) -> bool {
        self.retry.is_none() && self.ports.iter().any(|port| port.ready)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    /// Takes what has come to the ports.
    pub(super) fn pump(
        &mut self,
        tcp: &mut Tcp,
        link: &mut Link,
        poller: &Poller,
        scratch: &mut [u8],
        now: Instant,
    ) {
        if self.retry.is_some_and(|retry| retry > now) {
            return;
        }
        self.retry = None;
        for port in self.ports.iter_mut().filter(|port| port.ready) {
            match port.forward.protocol {
                Protocol::Tcp => {
                    if port.accept(tcp, poller).is_err() {
                        self.retry = Some(now + RETRY);
                    }
                }
                Protocol::Udp => port.receive(link, scratch, now),
            }
        }
    }

    /// A datagram of the guest's that answers a peer of a forwarded port; `false` if it is something else.
    pub(super) fn answer(&mut self, guest: SocketAddr, remote: SocketAddr, payload: &[u8]) -> bool {
        for port in &self.ports {
            if (port.forward.protocol, port.forward.guest) == (Protocol::Udp, guest)
                && let Some((peer, _)) = port.peers.get(&remote)
            {
                let _ = net::sendto(&port.socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, peer);
                return true;
            }
        }
        false
    }
}

impl Port {
    /// Takes connections. `Err`: the host has no resources, or there are too many connections already.
    fn accept(&mut self, tcp: &mut Tcp, poller: &Poller) -> Result<(), Errno> {
        for _ in 0..TURN {
            if !tcp.has_room() {
                return Err(Errno::NOBUFS);
            }
            match net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    let Some(Ok(peer)) = peer.map(SocketAddr::try_from) else { continue };
                    let guest = self.forward.guest;
                    tcp.accepted(socket, guest, seen_as(peer, guest.ip()), poller);
                }
                Err(Errno::AGAIN) => {
                    self.ready = false;
                    return Ok(());
                }
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    return Err(error);
                }
                // The peer has gone already.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes datagrams.
    fn receive(&mut self, link: &mut Link, scratch: &mut [u8], now: Instant) {
        for _ in 0..TURN {
            if link.is_crowded() {
                return;
            }
            match net::recvfrom(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, len, Some(peer))) => {
                    let Ok(peer) = SocketAddr::try_from(peer) else { continue };
                    let guest = self.forward.guest;
                    let remote = seen_as(peer, guest.ip());
                    if self.peers.len() >= MAX_PEERS
                        && !self.peers.contains_key(&remote)
                        && let Some(oldest) =
                            self.peers.iter().min_by_key(|(_, (_, used))| *used).map(|(remote, _)| *remote)
                    {
                        self.peers.remove(&oldest);
                    }
                    self.peers.insert(remote, (peer, now));
                    let len = len.min(scratch.len());
                    link.send_udp((remote.ip(), remote.port()), (guest.ip(), guest.port()), &scratch[..len]);
                }
                Err(Errno::AGAIN) => {
                    self.ready = false;
                    return;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}
