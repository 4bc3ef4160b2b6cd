//! UDP between guest and host. Each port of the guest's has a socket of the host for each IP version it talks to, and gets
//! what comes to that socket from anywhere, as many protocols (TFTP) need.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::errors;
use super::forward;
use super::icmp::{self, Unreachable};
use super::link::Link;
use super::poller::{Poller, Token};
use super::wire;

/// Ports of the guest's at a time; the one unused for longest goes when there is one more.
const MAX_FLOWS: usize = 1024;
/// How long a port that nobody uses keeps its socket.
const PATIENCE: Duration = Duration::from_secs(120);
/// Peers of one port whose address the guest knows by another name.
const MAX_ALIASES: usize = 16;
/// Datagrams taken from one socket before the others have their turn.
const TURN: usize = 32;

#[derive(Debug)]
struct Flow {
    socket: OwnedFd,
    key: (SocketAddr, bool),
    /// Peers as the host knows them and as the guest does, where these differ; the last used come first.
    aliases: VecDeque<(SocketAddr, SocketAddr)>,
    used: Instant,
    queued: bool,
    /// The host knows of datagrams that did not arrive.
    failed: bool,
    /// Queries to name servers since the last answer.
    queries: usize,
}

impl Flow {
    /// The guest's name for a peer.
    fn as_guest_knows(&self, peer: SocketAddr) -> SocketAddr {
        let alias = self.aliases.iter().find(|(host, _)| *host == peer).map(|(_, remote)| *remote);
        alias.unwrap_or_else(|| forward::seen_as(peer, self.key.0.ip()))
    }

    /// Tells the guest of datagrams that did not arrive.
    fn tell_failures(&mut self, link: &mut Link, scratch: &mut [u8], left: &mut usize) {
        while self.failed && *left > 0 && !link.is_crowded() {
            *left -= 1;
            let Some((peer, len)) = errors::next(&self.socket, scratch) else {
                self.failed = false;
                return;
            };
            let (guest, remote) = (self.key.0, self.as_guest_knows(peer));
            if guest.is_ipv4() == remote.is_ipv4() {
                let (src, dst) = ((guest.ip(), guest.port()), (remote.ip(), remote.port()));
                let datagram = wire::Udp::build(src, dst, &scratch[..len]);
                let whole = icmp::packet(guest.ip(), remote.ip(), wire::protocol::UDP, &datagram);
                icmp::unreachable(link, guest.ip(), remote.ip(), &whole, Unreachable::Port);
            }
        }
    }
}

/// All ports of the guest's that are in use.
#[derive(Debug, Default)]
pub(super) struct Udp {
    flows: HashMap<u64, Flow>,
    /// By the guest's end, and whether the peers are IPv6.
    ids: HashMap<(SocketAddr, bool), u64>,
    last_id: u64,
    ready: VecDeque<u64>,
    /// When to look for what nobody uses any more.
    sweep: Option<Instant>,
}

impl Udp {
    pub(super) fn reset(&mut self) {
        *self = Self { last_id: self.last_id, ..Self::default() };
    }

    /// How many queries of this port have found no answer yet.
    pub(super) fn queries(&self, guest: SocketAddr) -> usize {
        let id = [false, true].iter().find_map(|v6| self.ids.get(&(guest, *v6)));
        id.and_then(|id| self.flows.get(id)).map_or(0, |flow| flow.queries)
    }

    /// Sends a datagram from the guest's `guest` to `target`, which the guest knows as `remote`. `Err` says how to
    /// refuse it.
    pub(super) fn send(
        &mut self,
        guest: SocketAddr,
        remote: SocketAddr,
        target: SocketAddr,
        payload: &[u8],
        now: Instant,
        poller: &Poller,
    ) -> Result<(), Unreachable> {
        let why = |error| icmp::why(error).unwrap_or(Unreachable::Port);
        let key = (guest, target.is_ipv6());
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => self.open(key, now, poller).map_err(why)?,
        };
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        flow.used = now;
        flow.queries += 1;
        if remote != target && flow.aliases.front() != Some(&(target, remote)) {
            flow.aliases.retain(|(host, _)| *host != target);
            flow.aliases.truncate(MAX_ALIASES - 1);
            flow.aliases.push_front((target, remote));
        }
        let send = || net::sendto(&flow.socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &target);
        // The first error may be that of an earlier datagram, which the guest is told of in its turn.
        match send().or_else(|_| send()) {
            // What the host has no room for is lost, as on any network; so is what is too large for it.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE | Errno::INTR) => Ok(()),
            Err(error) => Err(why(error)),
        }
    }

    fn open(&mut self, key: (SocketAddr, bool), now: Instant, poller: &Poller) -> Result<u64, Errno> {
        let (family, any) = match key.1 {
            false => (AddressFamily::INET, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            true => (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        if self.flows.len() >= MAX_FLOWS
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(id, _)| *id)
        {
            self.remove(oldest);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
        net::bind(&socket, &any)?;
        errors::keep(&socket, key.1)?;
        self.last_id += 1;
        poller.add(&socket, Token::Udp(self.last_id))?;
        let flow = Flow {
            socket,
            key,
            aliases: VecDeque::new(),
            used: now,
            queued: false,
            failed: false,
            queries: 0,
        };
        self.flows.insert(self.last_id, flow);
        self.ids.insert(key, self.last_id);
        self.sweep.get_or_insert(now + PATIENCE);
        Ok(self.last_id)
    }

    fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.ids.remove(&flow.key);
        }
    }

    /// The host has something for one of the ports.
    pub(super) fn host_event(&mut self, id: u64, failed: bool) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.failed |= failed;
            if !std::mem::replace(&mut flow.queued, true) {
                self.ready.push_back(id);
            }
        }
    }

    /// Passes datagrams on to the guest, as long as the link is not crowded.
    pub(super) fn pump(&mut self, link: &mut Link, scratch: &mut [u8], now: Instant) {
        while !link.is_crowded()
            && let Some(id) = self.ready.pop_front()
        {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let mut left = TURN;
            flow.tell_failures(link, scratch, &mut left);
            while left > 0 && !link.is_crowded() {
                let (len, from) = match net::recvfrom(&flow.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                    Ok((_, len, Some(from))) => (len.min(scratch.len()), from),
                    Ok(_) | Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => break,
                    // An error that belongs to an earlier datagram.
                    Err(_) => {
                        left -= 1;
                        continue;
                    }
                };
                left -= 1;
                let Ok(from) = SocketAddr::try_from(from) else { continue };
                (flow.used, flow.queries) = (now, 0);
                let (guest, remote) = (flow.key.0, flow.as_guest_knows(from));
                link.send_udp((remote.ip(), remote.port()), (guest.ip(), guest.port()), &scratch[..len]);
            }
            // The host tells of the next arrival only when all before it has been taken.
            let more = left == 0 || link.is_crowded();
            flow.queued = more;
            if more {
                self.ready.push_back(id);
            }
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sweep
    }

    /// Closes what nobody has used for long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.sweep.is_none_or(|sweep| sweep > now) {
            return;
        }
        self.flows.retain(|_, flow| now.saturating_duration_since(flow.used) < PATIENCE);
        self.ids.retain(|_, id| self.flows.contains_key(id));
        self.sweep = self.flows.values().map(|flow| flow.used + PATIENCE).min();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}
