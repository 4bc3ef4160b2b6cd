//! One connection: TCP (RFC 9293) towards the guest, a socket of the host on the other side.
//!
//! The link to the guest loses nothing by itself and keeps the order, so there is no congestion control and nothing is kept
//! that arrives out of order: the guest is told what is missing and sends it again. What was sent to the guest stays in
//! `to_guest` until acknowledged, and goes again when a timer or three equal acknowledgements say so.
//!
//! The socket is read only as far as the guest's window and the ring's limit allow, and the window given to the guest is
//! what `to_host` has room for: a slow end on either side slows the other down and costs a bounded amount of memory.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, SendFlags, Shutdown};

use super::super::link::{Link, Receiver};
use super::ring::Ring;
use super::segment::{ACK, FIN, Options, Outgoing, PSH, RST, SYN, Segment, max_segment};

/// Shift of the windows given to the guest.
const WINDOW_SCALE: u8 = 5;
/// Bytes that may wait for the host's socket.
const RECEIVE_WINDOW: usize = 1 << 20;
/// Bytes that may wait for the guest.
const SEND_LIMIT: usize = 1 << 20;
/// The same while connections together hold too much.
const SCARCE_LIMIT: usize = 16 << 10;
/// Bytes that one connection moves before the others have their turn.
const TURN: usize = 256 << 10;
/// Bytes of payload in one large segment: with its headers below the 64 KiB that an IP packet can have.
const MAX_LARGE: usize = 65_000;

/// First and longest time to wait for an acknowledgement. The guest is near: what takes this long was dropped, and waiting
/// longer would not make it easier for anybody.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const LAST_TIMEOUT: Duration = Duration::from_secs(4);
/// Timeouts in a row after which the guest is taken to be gone; some five minutes.
const MAX_TIMEOUTS: u32 = 75;
/// The same for a connection to the guest that it does not answer; about a minute.
const MAX_SYN_TIMEOUTS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest's SYN is there; the host's `connect` is under way.
    Connecting,
    /// The host has connected; the guest has not acknowledged our SYN.
    SynReceived,
    /// A connection of the host is there; the guest has not answered our SYN.
    SynSent,
    /// Both ends are connected, though either may have finished sending.
    Established,
    /// The guest is to be told that the connection is gone.
    Aborted,
    /// Nothing is left to do.
    Closed,
}

/// What [`Flow::pump`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is nothing more to do for now.
    Idle,
    /// There is more to send, after the others had their turn.
    More,
    /// The guest has no room.
    NoRoom,
    /// The connection has ended.
    Closed,
}

#[derive(Debug)]
pub(super) struct Flow {
    state: State,
    socket: OwnedFd,
    /// The guest's end, and the end that the guest sees.
    guest: SocketAddr,
    remote: SocketAddr,
    /// Waits in the table's list of flows to be pumped.
    pub(super) queued: bool,

    /// The socket may have something to read, or room to write.
    readable: bool,
    writable: bool,

    /// From the guest: the next byte, and what the host's socket has not taken.
    rcv_nxt: u32,
    to_host: Ring,
    /// The guest has sent FIN; the host has been told.
    guest_fin: bool,
    host_shut: bool,
    /// The end of the window as the guest knows it.
    rcv_edge: u32,
    rcv_shift: u8,

    /// To the guest: the first byte not acknowledged, which is the first in `to_guest`; the next to send; the next never sent.
    snd_una: u32,
    snd_nxt: u32,
    snd_max: u32,
    snd_wnd: u32,
    snd_shift: u8,
    max_segment: u16,
    to_guest: Ring,
    /// The host has finished sending.
    host_eof: bool,
    fin_acked: bool,
    equal_acks: u8,

    ack_due: bool,
    probe_due: bool,
    /// When to send again what is not acknowledged.
    pub(super) deadline: Option<Instant>,
    /// When the table will look at the deadline.
    pub(super) alarm: Option<Instant>,
    timeouts: u32,
    /// What the table last counted as [`Self::memory`].
    pub(super) counted: usize,
}

/// Whether sequence number `a` comes before `b`.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Flow {
    fn new(state: State, socket: OwnedFd, guest: SocketAddr, remote: SocketAddr, isn: u32) -> Self {
        Self {
            state,
            socket,
            guest,
            remote,
            queued: false,
            readable: false,
            writable: false,
            rcv_nxt: 0,
            to_host: Ring::default(),
            guest_fin: false,
            host_shut: false,
            rcv_edge: 0,
            rcv_shift: 0,
            snd_una: isn,
            snd_nxt: isn,
            snd_max: isn,
            snd_wnd: 0,
            snd_shift: 0,
            max_segment: 536,
            to_guest: Ring::default(),
            host_eof: false,
            fin_acked: false,
            equal_acks: 0,
            ack_due: false,
            probe_due: false,
            deadline: None,
            alarm: None,
            timeouts: 0,
            counted: 0,
        }
    }

    /// A connection that the guest has asked for with `syn`, and whose `socket` is connecting.
    pub(super) fn from_guest(socket: OwnedFd, syn: &Segment<'_>, isn: u32) -> Self {
        let mut flow = Self::new(State::Connecting, socket, syn.src, syn.dst, isn);
        flow.take_syn(syn);
        flow
    }

    /// A connection that the host has accepted and the guest is to be asked for.
    pub(super) fn from_host(socket: OwnedFd, guest: SocketAddr, remote: SocketAddr, isn: u32) -> Self {
        Self::new(State::SynSent, socket, guest, remote, isn)
    }

    /// Both ends, the guest's first.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.guest, self.remote)
    }

    /// The sequence number of the guest's SYN, while nothing has followed it.
    pub(super) fn guest_syn(&self) -> u32 {
        self.rcv_nxt.wrapping_sub(1)
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory(&self) -> usize {
        self.to_guest.capacity() + self.to_host.capacity()
    }

    /// Ends the connection without ceremony; the host's peer gets a reset.
    pub(super) fn abort(&mut self) {
        let _ = net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        self.state = State::Closed;
    }

    /// The same, and the guest is told.
    fn reset_guest(&mut self) {
        let _ = net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        self.state = State::Aborted;
    }

    /// The host could not connect: the guest gets a reset.
    pub(super) fn refused(&mut self) {
        self.state = State::Aborted;
    }

    fn take_syn(&mut self, syn: &Segment<'_>) {
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.rcv_edge = self.rcv_nxt;
        if let Some(shift) = syn.options.window_scale {
            (self.snd_shift, self.rcv_shift) = (shift, WINDOW_SCALE);
        }
        // RFC 9293 section 3.7.1: 536 if nothing is said; a silly size is not taken for an order.
        let size = syn.options.max_segment.unwrap_or(536).max(64);
        self.max_segment = size.min(max_segment(self.guest.ip()));
        self.snd_wnd = u32::from(syn.window);
    }

    /// The host's socket has something to say. `Err` is why it could not connect.
    pub(super) fn host_event(&mut self, readable: bool, writable: bool) -> Result<(), Errno> {
        self.readable |= readable;
        self.writable |= writable;
        if self.state == State::SynSent && !matches!(net::sockopt::socket_error(&self.socket), Ok(Ok(()))) {
            // The client has gone; a guest that answers its SYN yet is told that nobody is there.
            self.abort();
        }
        if self.state == State::Connecting && writable {
            match net::sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => self.state = State::SynReceived,
                // The guest hears of it as if it had asked the host itself.
                Ok(Err(error)) | Err(error) => {
                    self.refused();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// A segment from the guest; `false` if it belongs to an earlier connection, and is to be refused.
    pub(super) fn guest_segment(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        match self.state {
            State::Connecting => {
                if segment.has(RST) {
                    self.abort();
                }
            }
            State::SynSent => return self.answer_to_syn(segment),
            State::SynReceived | State::Established => self.connected(segment, now),
            State::Aborted | State::Closed => {}
        }
        true
    }

    /// RFC 9293 section 3.10.7.3.
    fn answer_to_syn(&mut self, segment: &Segment<'_>) -> bool {
        let acknowledged = segment.has(ACK) && segment.ack == self.snd_max && self.snd_max != self.snd_una;
        if segment.has(RST) {
            if acknowledged {
                self.abort();
            }
        } else if acknowledged && segment.has(SYN) {
            self.take_syn(segment);
            self.snd_una = segment.ack;
            self.snd_nxt = segment.ack;
            self.state = State::Established;
            self.ack_due = true;
            self.settle();
        } else if segment.has(ACK) && !acknowledged {
            // The guest still waits in TIME-WAIT for a connection of the same two ends, which the reset ends.
            self.snd_nxt = self.snd_una;
            return false;
        }
        true
    }

    /// RFC 9293 section 3.10.7.4.
    fn connected(&mut self, segment: &Segment<'_>, now: Instant) {
        let offset = segment.seq.wrapping_sub(self.rcv_nxt);
        if segment.has(RST) {
            // RFC 5961: only the exact next number is believed, others within the window are challenged.
            if offset == 0 {
                self.abort();
            } else if offset < RECEIVE_WINDOW as u32 {
                self.ack_due = true;
            }
            return;
        }
        if segment.has(SYN) || !segment.has(ACK) {
            self.ack_due = true;
            if segment.has(SYN) && segment.has(ACK) && self.state == State::Established {
                // A guest whose listener was overrun dropped our first segments, and asks for them before the clock does.
                self.snd_nxt = self.snd_una;
            }
            return;
        }
        if !self.acknowledge(segment, now) {
            return;
        }
        self.take_data(segment);
    }

    /// Takes acknowledgement and window; `false` if the segment is to be ignored.
    fn acknowledge(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        let ack = segment.ack;
        if before(self.snd_max, ack) || before(ack, self.snd_una.wrapping_sub(1 << 20)) {
            self.ack_due = true;
            return false;
        }
        if self.state == State::SynReceived {
            if ack == self.snd_una {
                return false;
            }
            self.state = State::Established;
            // The SYN itself.
            self.snd_una = self.snd_una.wrapping_add(1);
            self.settle();
        }
        let window = u32::from(segment.window) << self.snd_shift;
        if before(self.snd_una, ack) {
            let count = ack.wrapping_sub(self.snd_una) as usize;
            // Only our FIN comes after the last byte.
            self.fin_acked |= count > self.to_guest.len();
            self.to_guest.consume(count);
            self.snd_una = ack;
            if before(self.snd_nxt, ack) {
                self.snd_nxt = ack;
            }
            self.equal_acks = 0;
            self.timeouts = 0;
            self.deadline = (self.snd_una != self.snd_max).then(|| now + FIRST_TIMEOUT);
        } else if ack == self.snd_una
            && segment.payload.is_empty()
            && !segment.has(FIN)
            && window == self.snd_wnd
            && self.snd_una != self.snd_max
        {
            self.equal_acks = self.equal_acks.saturating_add(1);
            if self.equal_acks == 3 {
                self.snd_nxt = self.snd_una;
            }
        }
        if !before(ack, self.snd_una) {
            self.snd_wnd = window;
        }
        true
    }

    /// Gives what is new in a segment to the host.
    fn take_data(&mut self, segment: &Segment<'_>) {
        if segment.len() == 0 {
            // A keep-alive asks with a number that has passed.
            self.ack_due |= before(segment.seq, self.rcv_nxt);
            return;
        }
        self.ack_due = true;
        let old = self.rcv_nxt.wrapping_sub(segment.seq) as usize;
        // What comes early is not kept, and what has been taken is not taken again.
        if before(self.rcv_nxt, segment.seq) || self.guest_fin || old > segment.payload.len() {
            return;
        }
        let fresh = &segment.payload[old..];
        let room = RECEIVE_WINDOW - self.to_host.len();
        let fits = &fresh[..fresh.len().min(room)];
        let mut sent = 0;
        if self.to_host.is_empty() {
            while sent < fits.len() {
                match net::send(&self.socket, &fits[sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(count) => sent += count,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        self.writable = false;
                        break;
                    }
                    Err(_) => return self.reset_guest(),
                }
            }
        }
        self.to_host.extend(&fits[sent..]);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(fits.len() as u32);
        if segment.has(FIN) && fits.len() == fresh.len() {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.guest_fin = true;
        }
    }

    /// Nothing is outstanding any more.
    fn settle(&mut self) {
        self.deadline = None;
        self.timeouts = 0;
        self.equal_acks = 0;
    }

    /// Its deadline has passed.
    pub(super) fn timeout(&mut self, now: Instant) {
        self.timeouts += 1;
        self.deadline = Some(now + LAST_TIMEOUT.min(FIRST_TIMEOUT * (1 << self.timeouts.min(8))));
        match self.state {
            State::SynSent if self.timeouts > MAX_SYN_TIMEOUTS => self.abort(),
            State::SynReceived | State::Established if self.timeouts > MAX_TIMEOUTS => self.reset_guest(),
            State::Established if self.snd_una == self.snd_max => {
                // Only the guest's closed window is in the way. A guest that answers probes is alive.
                self.timeouts = self.timeouts.min(MAX_TIMEOUTS - 1);
                self.probe_due = true;
            }
            _ => self.snd_nxt = self.snd_una,
        }
    }

    fn window(&self) -> usize {
        RECEIVE_WINDOW - self.to_host.len()
    }

    /// A segment with `flags` at `seq`.
    fn outgoing<'a>(&self, seq: u32, flags: u8, payload: [&'a [u8]; 2]) -> Outgoing<'a> {
        let shift = if flags & SYN != 0 { 0 } else { self.rcv_shift };
        let window = (self.window() >> shift).min(usize::from(u16::MAX)) as u16;
        let options = if flags & SYN == 0 {
            Options::default()
        } else {
            // In an answer, scaling is offered only if the guest did.
            let offer = self.state == State::SynSent || self.rcv_shift != 0;
            Options {
                max_segment: Some(max_segment(self.guest.ip())),
                window_scale: offer.then_some(WINDOW_SCALE),
            }
        };
        Outgoing {
            src: self.remote,
            dst: self.guest,
            seq,
            ack: if flags & ACK != 0 { self.rcv_nxt } else { 0 },
            flags,
            window,
            options,
            payload,
            max_segment: self.max_segment,
        }
    }

    /// Sends what `outgoing` says; what it acknowledges need not be acknowledged again.
    fn send(&mut self, outgoing: Outgoing<'_>, link: &Link, guest: &mut dyn Receiver) -> bool {
        let delivered = outgoing.deliver(link, guest);
        if delivered && outgoing.flags & ACK != 0 {
            self.acknowledged(outgoing.ack, outgoing.window);
        }
        delivered
    }

    /// The guest has been told of all that came up to `ack`, and of a `window` from there.
    fn acknowledged(&mut self, ack: u32, window: u16) {
        self.ack_due = false;
        self.rcv_edge = ack.wrapping_add(u32::from(window) << self.rcv_shift);
    }

    /// Moves what can be moved, in both directions. `scarce`: connections hold much memory together.
    pub(super) fn pump(
        &mut self,
        link: &Link,
        guest: &mut dyn Receiver,
        scarce: bool,
        now: Instant,
    ) -> Pumped {
        let result = match self.state {
            State::Connecting => Pumped::Idle,
            State::SynReceived => self.pump_syn(SYN | ACK, link, guest, now),
            State::SynSent => self.pump_syn(SYN, link, guest, now),
            State::Established => self.pump_data(link, guest, scarce, now),
            State::Aborted => {
                let reset = self.outgoing(self.snd_max, RST | ACK, [&[], &[]]);
                if self.send(reset, link, guest) {
                    self.state = State::Closed;
                    Pumped::Closed
                } else {
                    Pumped::NoRoom
                }
            }
            State::Closed => Pumped::Closed,
        };
        if self.state == State::Closed { Pumped::Closed } else { result }
    }

    fn pump_syn(&mut self, flags: u8, link: &Link, guest: &mut dyn Receiver, now: Instant) -> Pumped {
        // Sent, and neither timed out nor asked for again.
        if self.snd_nxt != self.snd_una && !self.ack_due {
            return Pumped::Idle;
        }
        let syn = self.outgoing(self.snd_una, flags, [&[], &[]]);
        if !self.send(syn, link, guest) {
            return Pumped::NoRoom;
        }
        self.ack_due = false;
        self.snd_nxt = self.snd_una.wrapping_add(1);
        self.snd_max = self.snd_nxt;
        self.deadline.get_or_insert(now + FIRST_TIMEOUT);
        Pumped::Idle
    }

    fn pump_data(&mut self, link: &Link, guest: &mut dyn Receiver, scarce: bool, now: Instant) -> Pumped {
        if self.drain_to_host().is_err() || self.fill_from_host(scarce).is_err() {
            self.reset_guest();
            return Pumped::More;
        }
        let sent = self.send_data(link, guest, now);
        if sent == Pumped::NoRoom {
            return sent;
        }
        // Tell of a window that was as good as closed and is open again.
        let known = self.rcv_edge.wrapping_sub(self.rcv_nxt) as usize;
        if known < RECEIVE_WINDOW / 4 && self.window() >= RECEIVE_WINDOW / 2 && !self.guest_fin {
            self.ack_due = true;
        }
        if self.ack_due {
            let ack = self.outgoing(self.snd_nxt, ACK, [&[], &[]]);
            if !self.send(ack, link, guest) {
                return Pumped::NoRoom;
            }
        }
        if self.probe_due {
            // A number that has been acknowledged makes the guest say where it is.
            let probe = self.outgoing(self.snd_una.wrapping_sub(1), ACK, [&[], &[]]);
            if !self.send(probe, link, guest) {
                return Pumped::NoRoom;
            }
            self.probe_due = false;
        }
        if self.snd_una == self.snd_max && self.has_unsent() {
            self.deadline.get_or_insert(now + FIRST_TIMEOUT);
        }
        if self.host_shut && self.fin_acked {
            self.state = State::Closed;
            return Pumped::Closed;
        }
        if scarce {
            self.to_guest.release();
            self.to_host.release();
        }
        if self.readable && !self.host_eof && self.to_guest.len() < self.send_limit(scarce) {
            return Pumped::More;
        }
        sent
    }

    /// Bytes of the host's that may be here at a time.
    fn send_limit(&self, scarce: bool) -> usize {
        let limit = if scarce { SCARCE_LIMIT } else { SEND_LIMIT };
        // There is no use in reading far beyond what the guest takes.
        limit.min((self.snd_wnd as usize).max(SCARCE_LIMIT) * 2)
    }

    /// Gives the host's socket what waits for it, and then the guest's FIN.
    fn drain_to_host(&mut self) -> Result<(), Errno> {
        while self.writable && !self.to_host.is_empty() {
            match self.to_host.write_to(&self.socket) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        if self.guest_fin && self.to_host.is_empty() && !self.host_shut {
            self.host_shut = true;
            match net::shutdown(&self.socket, Shutdown::Write) {
                // The host's peer was faster.
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fill_from_host(&mut self, scarce: bool) -> Result<(), Errno> {
        let limit = self.send_limit(scarce);
        let mut budget = TURN;
        while budget > 0 && self.readable && !self.host_eof && self.to_guest.len() < limit {
            match self.to_guest.read_from(&self.socket, limit) {
                Ok(0) => self.host_eof = true,
                Ok(count) => budget = budget.saturating_sub(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The sequence number after the last byte of `to_guest`, where FIN goes.
    fn end(&self) -> u32 {
        self.snd_una.wrapping_add(self.to_guest.len() as u32)
    }

    /// Whether there is something to send that the guest has not been sent.
    fn has_unsent(&self) -> bool {
        let end = if self.host_eof && !self.fin_acked { self.end().wrapping_add(1) } else { self.end() };
        before(self.snd_nxt, end)
    }

    /// Sends what the guest's window allows, a few segments at a time. [`Pumped::More`]: it allows more.
    fn send_data(&mut self, link: &Link, guest: &mut dyn Receiver, now: Instant) -> Pumped {
        let tso = if self.guest.is_ipv6() { link.offloads.tso6 } else { link.offloads.tso4 };
        let size = usize::from(self.max_segment);
        let largest = if tso && link.offloads.checksum { MAX_LARGE / size * size } else { size };
        let mut budget = TURN;
        while self.has_unsent() {
            let sent = self.snd_nxt.wrapping_sub(self.snd_una) as usize;
            let have = self.to_guest.len().saturating_sub(sent);
            let count = have.min((self.snd_wnd as usize).saturating_sub(sent)).min(largest);
            let fin = self.host_eof && count == have;
            // RFC 9293 section 3.8.6.2.1: no silly segments while others are under way.
            if !fin && (count == 0 || count < size && count < have && sent > 0) {
                break;
            }
            if budget == 0 {
                return Pumped::More;
            }
            let mut flags = ACK;
            if count == have && count > 0 {
                flags |= PSH;
            }
            if fin {
                flags |= FIN;
            }
            let payload = self.to_guest.slices(sent, count);
            let outgoing = self.outgoing(self.snd_nxt, flags, payload);
            if !outgoing.deliver(link, guest) {
                return Pumped::NoRoom;
            }
            let (ack, window) = (outgoing.ack, outgoing.window);
            self.acknowledged(ack, window);
            self.snd_nxt = self.snd_nxt.wrapping_add(count as u32 + u32::from(fin));
            if before(self.snd_max, self.snd_nxt) {
                self.snd_max = self.snd_nxt;
            }
            self.deadline.get_or_insert(now + FIRST_TIMEOUT);
            budget = budget.saturating_sub(count.max(1));
        }
        Pumped::Idle
    }
}
