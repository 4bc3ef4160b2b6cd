//! TCP connections between guest and host: finding the one that a segment belongs to, and giving each its turn.

mod flow;
mod ring;
mod segment;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::icmp::{self, Unreachable};
use super::link::{Link, Receiver};
use super::poller::{Poller, Token};
use super::wire::{Packet, protocol};
use flow::{Flow, Pumped};
use segment::{ACK, RST, SYN, Segment};

/// Connections at a time.
const MAX_FLOWS: usize = 4096;
/// Bytes of memory in all connections from which on each gets little.
const PLENTY: usize = 64 << 20;
/// Connections pumped before the thread looks at the guest again.
const TURNS: usize = 64;

/// Where a connection of the guest leads.
pub(super) enum Target {
    /// To this address of the host's network.
    To(SocketAddr),
    /// Nowhere: the guest gets a reset.
    Refused,
    /// Nowhere: the guest is told why.
    Unreachable(Unreachable),
}

/// All connections.
#[derive(Debug)]
pub(super) struct Tcp {
    flows: HashMap<u64, Flow>,
    /// By the guest's end and the one that the guest sees.
    ids: HashMap<(SocketAddr, SocketAddr), u64>,
    last_id: u64,
    /// Connections to be pumped, each once.
    ready: VecDeque<u64>,
    /// When to look at which connection's deadline.
    alarms: BTreeSet<(Instant, u64)>,
    memory: usize,
    start: Instant,
    secret: RandomState,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            ready: VecDeque::new(),
            alarms: BTreeSet::new(),
            memory: 0,
            start: Instant::now(),
            secret: RandomState::new(),
        }
    }
}

impl Tcp {
    /// Ends all connections.
    pub(super) fn reset(&mut self) {
        self.flows.values_mut().for_each(Flow::abort);
        // The guest may remember connections longer than its device does.
        let (start, secret) = (self.start, self.secret.clone());
        *self = Self { last_id: self.last_id, start, secret, ..Self::default() };
    }

    /// Whether another connection is possible.
    pub(super) fn has_room(&self) -> bool {
        self.flows.len() < MAX_FLOWS
    }

    /// Whether there is something to do at once.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When there is something to do by the clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.alarms.first().map(|(alarm, _)| *alarm)
    }

    /// A packet from the guest, which leads to `target` if it begins a connection. `finished`: its checksum is filled in and
    /// has to be right.
    pub(super) fn packet(
        &mut self,
        packet: &Packet<'_>,
        finished: bool,
        now: Instant,
        link: &mut Link,
        poller: &Poller,
        target: Target,
    ) {
        let Some(segment) = Segment::parse(packet) else { return };
        if finished && !packet.checksum_holds() {
            return;
        }
        let id = match self.ids.get(&(segment.src, segment.dst)) {
            Some(id) => *id,
            None if segment.flags & (SYN | ACK | RST) == SYN && segment.src.port() != 0 => {
                match self.open(&segment, poller, target) {
                    Ok(()) => {}
                    Err(None) => segment::refuse(link, &segment),
                    Err(Some(why)) => icmp::unreachable(link, packet.src, packet.dst, packet.whole, why),
                }
                return;
            }
            None => return segment::refuse(link, &segment),
        };
        if let Some(flow) = self.flows.get_mut(&id) {
            if !flow.guest_segment(&segment, now) {
                segment::refuse(link, &segment);
            }
            self.enqueue(id);
        }
    }

    /// Starts a connection that the guest asks for. `Err` says how to refuse it.
    fn open(
        &mut self,
        syn: &Segment<'_>,
        poller: &Poller,
        target: Target,
    ) -> Result<(), Option<Unreachable>> {
        let target = match target {
            Target::To(target) => target,
            Target::Refused => return Err(None),
            Target::Unreachable(why) => return Err(Some(why)),
        };
        if !self.has_room() {
            return Err(None);
        }
        let why = |error: Errno| icmp::why(error);
        let socket = connect(target).map_err(why)?;
        let isn = self.isn(syn.src, syn.dst);
        let id = self.insert(Flow::from_guest(socket, syn, isn));
        self.watch(id, poller).map_err(why)
    }

    /// A connection to a forwarded port, which the guest sees coming from `remote`.
    pub(super) fn accepted(
        &mut self,
        socket: OwnedFd,
        guest: SocketAddr,
        mut remote: SocketAddr,
        poller: &Poller,
    ) {
        // Two peers of the host may look the same to the guest.
        while remote.port() == 0 || self.ids.contains_key(&(guest, remote)) {
            let next = remote.port().checked_add(1).unwrap_or(1024);
            remote.set_port(next);
        }
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let isn = self.isn(guest, remote);
        let id = self.insert(Flow::from_host(socket, guest, remote, isn));
        if self.watch(id, poller).is_ok() {
            self.enqueue(id);
        }
    }

    /// An initial sequence number (RFC 9293 section 3.4.1): for the same two ends they grow by the clock, so that the guest can
    /// tell a new connection from an old one.
    fn isn(&self, guest: SocketAddr, remote: SocketAddr) -> u32 {
        let clock = (self.start.elapsed().as_micros() / 4) as u32;
        (self.secret.hash_one((guest, remote)) as u32).wrapping_add(clock)
    }

    fn insert(&mut self, flow: Flow) -> u64 {
        self.last_id += 1;
        self.ids.insert(flow.ends(), self.last_id);
        self.flows.insert(self.last_id, flow);
        self.last_id
    }

    /// Has the host tell of the flow's socket.
    fn watch(&mut self, id: u64, poller: &Poller) -> Result<(), Errno> {
        let Some(flow) = self.flows.get(&id) else { return Ok(()) };
        let result = poller.add(flow.socket(), Token::Tcp(id));
        if result.is_err() {
            self.remove(id);
        }
        result
    }

    fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.ids.remove(&flow.ends());
            self.memory -= flow.counted;
            if let Some(alarm) = flow.alarm {
                self.alarms.remove(&(alarm, id));
            }
        }
    }

    fn enqueue(&mut self, id: u64) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// The host has news of a connection's socket.
    pub(super) fn host_event(&mut self, id: u64, readable: bool, writable: bool, link: &mut Link) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Err(error) = flow.host_event(readable, writable) {
            let (guest, remote) = flow.ends();
            match icmp::why(error) {
                None => flow.refused(),
                Some(why) => {
                    let seq = flow.guest_syn();
                    self.remove(id);
                    // As much of the SYN as an error quotes: the guest looks at addresses, ports and number.
                    let mut quoted = Vec::new();
                    quoted.extend_from_slice(&guest.port().to_be_bytes());
                    quoted.extend_from_slice(&remote.port().to_be_bytes());
                    quoted.extend_from_slice(&seq.to_be_bytes());
                    quoted.resize(segment::HEADER, 0);
                    let whole = icmp::packet(guest.ip(), remote.ip(), protocol::TCP, &quoted);
                    icmp::unreachable(link, guest.ip(), remote.ip(), &whole, why);
                    return;
                }
            }
        }
        self.enqueue(id);
    }

    /// Looks at the deadlines that may have passed.
    pub(super) fn check_alarms(&mut self, now: Instant) {
        while let Some((alarm, id)) = self.alarms.first().copied()
            && alarm <= now
        {
            self.alarms.pop_first();
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.alarm = None;
            if flow.deadline.is_some_and(|deadline| deadline <= now) {
                flow.timeout(now);
                self.enqueue(id);
            } else {
                self.set_alarm(id);
            }
        }
    }

    /// Sees to it that somebody looks at the flow's deadline, which is mostly put off before it comes.
    fn set_alarm(&mut self, id: u64) {
        if let Some(flow) = self.flows.get_mut(&id)
            && let Some(deadline) = flow.deadline
            && flow.alarm.is_none_or(|alarm| deadline < alarm)
        {
            if let Some(alarm) = flow.alarm.replace(deadline) {
                self.alarms.remove(&(alarm, id));
            }
            self.alarms.insert((deadline, id));
        }
    }

    /// Gives connections their turn; `false` if the guest has no room.
    pub(super) fn pump(&mut self, link: &Link, guest: &mut dyn Receiver, now: Instant) -> bool {
        for _ in 0..TURNS {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.queued = false;
            let result = flow.pump(link, guest, self.memory > PLENTY, now);
            let memory = flow.memory();
            self.memory = self.memory - flow.counted + memory;
            flow.counted = memory;
            match result {
                Pumped::Idle => self.set_alarm(id),
                Pumped::More => {
                    self.set_alarm(id);
                    self.enqueue(id);
                }
                Pumped::Closed => self.remove(id),
                Pumped::NoRoom => {
                    flow.queued = true;
                    self.set_alarm(id);
                    self.ready.push_front(id);
                    return false;
                }
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.memory
    }
}

/// A socket that is connecting.
fn connect(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    // The guest's TCP has decided when to send.
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
