//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the guest's pings, and telling it what cannot be reached.
//!
//! A ping to this network is answered here. Others go out through the host's unprivileged ping sockets
//! (`net.ipv4.ping_group_range`); where the host forbids those, the guest is told that pings are prohibited.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::config::{HOST_V4, HOST_V6};
use super::link::Link;
use super::poller::{Poller, Token};
use super::wire::{self, Packet, protocol};

/// Message types of the two versions.
mod kind {
    pub(super) const ECHO_REPLY: u8 = 0;
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const ECHO: u8 = 8;
    pub(super) const UNREACHABLE_V6: u8 = 1;
    pub(super) const ECHO_V6: u8 = 128;
    pub(super) const ECHO_REPLY_V6: u8 = 129;
}

/// Pings of different senders and targets at a time.
const MAX_FLOWS: usize = 128;
/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Type, code, checksum, identifier and sequence number.
const HEADER: usize = 8;
/// Bytes of a packet that an error quotes.
const QUOTED: usize = 512;

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    Network,
    Host,
    Port,
    Prohibited,
}

impl Unreachable {
    fn code(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Network, _) => 0,
            (Self::Host, false) => 1,
            (Self::Port, false) => 3,
            (Self::Prohibited, false) => 13,
            (Self::Prohibited, true) => 1,
            (Self::Host, true) => 3,
            (Self::Port, true) => 4,
        }
    }
}

/// How the guest is told of an error of the host's; `None` if its peer refused.
pub(super) fn why(error: Errno) -> Option<Unreachable> {
    match error {
        Errno::NETUNREACH | Errno::NETDOWN | Errno::AFNOSUPPORT => Some(Unreachable::Network),
        Errno::HOSTUNREACH | Errno::HOSTDOWN | Errno::TIMEDOUT | Errno::ADDRNOTAVAIL => {
            Some(Unreachable::Host)
        }
        Errno::ACCESS | Errno::PERM => Some(Unreachable::Prohibited),
        _ => None,
    }
}

/// A packet with the given payload, whatever its size.
pub(super) fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            [&wire::ipv4_header(src, dst, protocol, payload.len(), 0), payload].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            [&wire::ipv6_header(src, dst, protocol, payload.len(), wire::HOPS), payload].concat()
        }
        _ => Vec::new(),
    }
}

/// Tells the guest that its packet, which is `whole`, could not be brought to `remote`.
pub(super) fn unreachable(link: &mut Link, guest: IpAddr, remote: IpAddr, whole: &[u8], why: Unreachable) {
    let v6 = guest.is_ipv6();
    // A port is missed by the host that has it, anything else by the router.
    let src = match (why, v6) {
        (Unreachable::Port, _) => remote,
        (_, false) => HOST_V4.into(),
        (_, true) => HOST_V6.into(),
    };
    let kind = if v6 { kind::UNREACHABLE_V6 } else { kind::UNREACHABLE };
    let mut message = vec![kind, why.code(v6), 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&whole[..whole.len().min(QUOTED)]);
    link.send_icmp(src, guest, message);
}

/// Sends the answer to an echo request.
fn echo_reply(link: &mut Link, from: IpAddr, to: IpAddr, request: &[u8]) {
    let mut message = request.to_vec();
    message[0] = if from.is_ipv4() { kind::ECHO_REPLY } else { kind::ECHO_REPLY_V6 };
    message[2..4].fill(0);
    link.send_icmp(from, to, message);
}

#[derive(Debug)]
struct Flow {
    socket: OwnedFd,
    guest: IpAddr,
    target: IpAddr,
    /// As the guest chose it; the host's socket has its own.
    identifier: [u8; 2],
    used: Instant,
}

/// The guest's pings.
#[derive(Debug, Default)]
pub(super) struct Ping {
    flows: HashMap<u64, Flow>,
    last_id: u64,
    ready: VecDeque<u64>,
    /// The user has been told that the host has no ping sockets for us.
    complained: bool,
}

/// Where a ping goes.
pub(super) enum Target {
    /// It is answered here.
    Here,
    /// To the host's network.
    Out,
    /// Nowhere.
    Unreachable(Unreachable),
}

impl Ping {
    pub(super) fn reset(&mut self) {
        *self = Self { last_id: self.last_id, complained: self.complained, ..Self::default() };
    }

    /// An ICMP packet of the guest's that is an echo request; anything else is ignored.
    pub(super) fn packet(
        &mut self,
        packet: &Packet<'_>,
        target: Target,
        now: Instant,
        link: &mut Link,
        poller: &Poller,
    ) {
        let message = packet.payload;
        let echo = match packet.protocol {
            protocol::ICMP => kind::ECHO,
            _ => kind::ECHO_V6,
        };
        if message.len() < HEADER || message[0] != echo || message[1] != 0 {
            return;
        }
        let result = match target {
            Target::Here => {
                echo_reply(link, packet.dst, packet.src, message);
                return;
            }
            Target::Unreachable(why) => Err(Some(why)),
            Target::Out => self.send(packet, now, poller).map_err(why),
        };
        if let Err(why) = result {
            let why = why.unwrap_or(Unreachable::Host);
            unreachable(link, packet.src, packet.dst, packet.whole, why);
        }
    }

    fn send(&mut self, packet: &Packet<'_>, now: Instant, poller: &Poller) -> Result<(), Errno> {
        let identifier = [packet.payload[4], packet.payload[5]];
        let same =
            |flow: &Flow| (flow.guest, flow.target, flow.identifier) == (packet.src, packet.dst, identifier);
        let id = match self.flows.iter().find(|(_, flow)| same(flow)) {
            Some((id, _)) => *id,
            None => self.open(packet, identifier, now, poller)?,
        };
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        flow.used = now;
        let target = SocketAddr::new(packet.dst, 0);
        match net::sendto(&flow.socket, packet.payload, SendFlags::DONTWAIT, &target) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn open(
        &mut self,
        packet: &Packet<'_>,
        identifier: [u8; 2],
        now: Instant,
        poller: &Poller,
    ) -> Result<u64, Errno> {
        let (family, protocol) = match packet.dst {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::DGRAM, flags, Some(protocol)).inspect_err(|error| {
            if matches!(*error, Errno::ACCESS | Errno::PERM) && !std::mem::replace(&mut self.complained, true) {
                log::warn!(
                    "network: the guest cannot ping beyond 10.0.2.2, because this host gives its users no ping sockets; \
                     to allow them: sysctl net.ipv4.ping_group_range='0 2147483647'"
                );
            }
        })?;
        if self.flows.len() >= MAX_FLOWS
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(id, _)| *id)
        {
            self.flows.remove(&oldest);
        }
        self.last_id += 1;
        poller.add(&socket, Token::Ping(self.last_id))?;
        let (guest, target) = (packet.src, packet.dst);
        self.flows.insert(self.last_id, Flow { socket, guest, target, identifier, used: now });
        Ok(self.last_id)
    }

    /// The host has something for one of the pings.
    pub(super) fn host_event(&mut self, id: u64) {
        if self.flows.contains_key(&id) && !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    /// Passes answers on.
    pub(super) fn pump(&mut self, link: &mut Link) {
        let mut message = [0; 4096];
        while !link.is_crowded()
            && let Some(id) = self.ready.pop_front()
        {
            let Some(flow) = self.flows.get(&id) else { continue };
            let Ok((_, len)) = net::recv(&flow.socket, &mut message[..], RecvFlags::DONTWAIT) else {
                continue;
            };
            self.ready.push_back(id);
            let answer = &mut message[..len.min(4096)];
            let reply = if flow.guest.is_ipv4() { kind::ECHO_REPLY } else { kind::ECHO_REPLY_V6 };
            if answer.len() >= HEADER && answer[0] == reply {
                answer[4..6].copy_from_slice(&flow.identifier);
                echo_reply(link, flow.target, flow.guest, answer);
            }
        }
    }

    /// When the next ping is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.flows.values().map(|flow| flow.used + PATIENCE).min()
    }

    /// Gives up on what has not been answered.
    pub(super) fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| now.saturating_duration_since(flow.used) < PATIENCE);
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}
