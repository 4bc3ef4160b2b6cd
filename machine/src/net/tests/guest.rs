//! A guest: its Ethernet port, and enough of TCP to hold a conversation.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::dns::Resolver;
use super::super::link::{HOST_MAC, Receiver};
use super::super::wire::{Checksum, ETHERNET_HEADER, Ethernet, Packet, Udp, be16, be32, ethertype, protocol};
use super::super::{Mac, UserNet, UserOptions, icmp};
use super::super::{Offloads, Unfinished};

pub(super) const GUEST_MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub(super) const GUEST: &str = "10.0.2.15";
pub(super) const GUEST_V6: &str = "fec0::15";

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// Long enough for anything on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the network is told that a turn of [`Guest::until`] takes, and how long that rests for it.
const TURN: Duration = Duration::from_micros(200);

/// Frames that have been received.
#[derive(Default)]
pub(super) struct Port {
    pub(super) frames: Vec<(Vec<u8>, Unfinished)>,
    /// Takes no more than this many at a time.
    pub(super) room: usize,
}

impl Receiver for Port {
    fn deliver(&mut self, frame: &[&[u8]], unfinished: &Unfinished) -> bool {
        if self.frames.len() >= self.room {
            return false;
        }
        self.frames.push((frame.concat(), *unfinished));
        true
    }
}

pub(super) struct Guest {
    pub(super) net: UserNet,
    pub(super) port: Port,
    /// The time that the network is told. It is the tests' own, for what is due does not depend on when the host runs them.
    pub(super) now: Instant,
}

/// An IP packet that has been received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) payload: Vec<u8>,
}

impl Guest {
    pub(super) fn new(options: &str) -> Self {
        Self::with_resolver(options, Resolver::new("/nonexistent".into(), 53))
    }

    pub(super) fn with_resolver(options: &str, resolver: Resolver) -> Self {
        let mut parsed = UserOptions::default();
        options.split(',').filter(|option| !option.is_empty()).for_each(|option| parsed.set(option).unwrap());
        let net = UserNet::with_resolver(&parsed, resolver).unwrap();
        Self { net, port: Port { frames: Vec::new(), room: 1 << 20 }, now: Instant::now() }
    }

    pub(super) fn offloads(mut self) -> Self {
        self.net.set_offloads(Offloads { checksum: true, tso4: true, tso6: true });
        self
    }

    pub(super) fn send(&mut self, kind: u16, payload: &[u8]) {
        let frame = [&Ethernet::header(HOST_MAC, GUEST_MAC, kind)[..], payload].concat();
        self.net.transmit(&frame, true, self.now);
    }

    pub(super) fn send_ip(&mut self, src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) {
        let kind = if src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let mut packet = icmp::packet(src, dst, protocol, payload);
        if src.is_ipv6() && protocol == protocol::ICMPV6 {
            packet[7] = 255;
        }
        self.send(kind, &packet);
    }

    pub(super) fn send_udp(&mut self, src: &str, dst: &str, payload: &[u8]) {
        let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let bytes = Udp::build((src.ip(), src.port()), (dst.ip(), dst.port()), payload);
        self.send_ip(src.ip(), dst.ip(), protocol::UDP, &bytes);
    }

    /// Runs the network until it has nothing more to do at once.
    pub(super) fn turn(&mut self) {
        while self.net.receive(&mut self.port, self.now) {}
    }

    /// Runs the network until `done` gives something.
    pub(super) fn until<R>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<R>) -> R {
        let end = Instant::now() + LIMIT;
        loop {
            self.turn();
            if let Some(result) = done(self) {
                return result;
            }
            assert!(Instant::now() < end, "waited in vain for {what}");
            // Other threads of the test do their part meanwhile.
            std::thread::sleep(TURN);
            self.now += TURN;
        }
    }

    /// The next IP packet that was received, with all of its checksums right or left to the guest.
    pub(super) fn packet(&mut self) -> Option<Received> {
        while !self.port.frames.is_empty() {
            let (frame, unfinished) = self.port.frames.remove(0);
            let ethernet = Ethernet::parse(&frame).unwrap();
            assert_eq!(ethernet.src, HOST_MAC);
            let packet = match ethernet.kind {
                ethertype::IPV4 => Packet::parse_v4(ethernet.payload),
                ethertype::IPV6 => Packet::parse_v6(ethernet.payload),
                _ => continue,
            };
            let packet = packet.expect("a malformed packet was sent to the guest");
            assert_eq!(packet.fragment, None);
            if unfinished.segmentation.is_none() {
                assert!(frame.len() <= ETHERNET_HEADER + 1500, "too large: {}", frame.len());
            }
            match (packet.protocol, unfinished.checksum) {
                (protocol::ICMP, _) => assert_eq!(Checksum::of(packet.payload), 0),
                (_, None) => assert!(packet.checksum_holds(), "{packet:?}"),
                (_, Some((start, offset))) => {
                    assert_eq!((packet.protocol, offset), (protocol::TCP, 16));
                    let mut frame = frame.clone();
                    let (start, at) = (usize::from(start), usize::from(start + offset));
                    let sum = Checksum::of(&frame[start..]).to_be_bytes();
                    frame[at..at + 2].copy_from_slice(&sum);
                    let bytes = &frame[ETHERNET_HEADER..];
                    let packet = Packet::parse_v4(bytes).or_else(|| Packet::parse_v6(bytes)).unwrap();
                    assert!(packet.checksum_holds());
                }
            }
            return Some(Received {
                src: packet.src,
                dst: packet.dst,
                protocol: packet.protocol,
                payload: packet.payload.to_vec(),
            });
        }
        None
    }

    /// Waits for a packet of a protocol, and drops others.
    pub(super) fn expect(&mut self, protocol: u8) -> Received {
        self.until("a packet", |guest| {
            std::iter::from_fn(|| guest.packet()).find(|packet| packet.protocol == protocol)
        })
    }

    /// Waits for a datagram: who sent it, the port it is for, and what it says.
    pub(super) fn expect_udp(&mut self) -> (SocketAddr, u16, Vec<u8>) {
        let packet = self.expect(protocol::UDP);
        let udp = Udp::parse(&packet.payload).unwrap();
        (SocketAddr::new(packet.src, udp.src), udp.dst, udp.payload.to_vec())
    }
}

/// The guest's end of a connection.
pub(super) struct Connection {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The next number to send, and what the other side has acknowledged.
    pub(super) seq: u32,
    pub(super) acked: u32,
    /// The next number expected.
    pub(super) next: u32,
    /// Given to the other side, and by it; not scaled and scaled.
    pub(super) window: u16,
    pub(super) peer_window: u32,
    peer_shift: u8,
    pub(super) data: Vec<u8>,
    pub(super) flags: u8,
    pub(super) segments: usize,
    /// The largest payload that came.
    pub(super) largest: usize,
}

pub(super) const SHIFT: u8 = 3;

impl Connection {
    pub(super) fn new(local: &str, remote: &str) -> Self {
        Self {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            seq: 1000,
            acked: 1000,
            next: 0,
            window: u16::MAX,
            peer_window: 0,
            peer_shift: 0,
            data: Vec::new(),
            flags: 0,
            segments: 0,
            largest: 0,
        }
    }

    pub(super) fn send(&mut self, guest: &mut Guest, flags: u8, payload: &[u8]) {
        let options: &[u8] = if flags & SYN != 0 { &[2, 4, 5, 0xb4, 1, 3, 3, SHIFT] } else { &[] };
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.local.port().to_be_bytes());
        bytes.extend_from_slice(&self.remote.port().to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&[((20 + options.len() as u8) / 4) << 4, flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(options);
        bytes.extend_from_slice(payload);
        let (src, dst) = (self.local.ip(), self.remote.ip());
        let sum = Checksum::pseudo(src, dst, protocol::TCP, bytes.len()).add(&bytes).finish();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        guest.send_ip(src, dst, protocol::TCP, &bytes);
        self.seq = self.seq.wrapping_add(payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    /// Takes what has come for this connection; returns whether anything has.
    pub(super) fn take(&mut self, guest: &mut Guest) -> bool {
        let mut any = false;
        while let Some(packet) = guest.packet() {
            let bytes = &packet.payload;
            if packet.protocol != protocol::TCP
                || (packet.src, be16(bytes, 0), be16(bytes, 2))
                    != (self.remote.ip(), self.remote.port(), self.local.port())
            {
                continue;
            }
            any = true;
            self.segments += 1;
            let (seq, ack, flags) = (be32(bytes, 4), be32(bytes, 8), bytes[13]);
            self.flags |= flags;
            let header = usize::from(bytes[12] >> 4) * 4;
            let payload = &bytes[header..];
            if flags & RST != 0 {
                continue;
            }
            if flags & SYN != 0 {
                self.next = seq.wrapping_add(1);
                self.peer_shift = bytes[header - 1];
                assert_eq!(bytes[20..23], [2, 4, 5]);
            }
            if flags & ACK != 0 {
                self.acked = ack;
            }
            self.peer_window =
                u32::from(be16(bytes, 14)) << if flags & SYN != 0 { 0 } else { self.peer_shift };
            let old = self.next.wrapping_sub(seq) as usize;
            if flags & SYN == 0 && old <= payload.len() {
                self.largest = self.largest.max(payload.len());
                self.data.extend_from_slice(&payload[old..]);
                self.next = self.next.wrapping_add((payload.len() - old) as u32);
                if flags & FIN != 0 {
                    self.next = self.next.wrapping_add(1);
                }
            }
        }
        any
    }

    /// Opens the connection.
    pub(super) fn open(guest: &mut Guest, local: &str, remote: &str) -> Self {
        let mut connection = Self::new(local, remote);
        connection.send(guest, SYN, &[]);
        guest.until("an answer to SYN", |guest| {
            connection.take(guest);
            (connection.flags & (SYN | RST) != 0).then_some(())
        });
        assert_eq!(connection.flags, SYN | ACK, "refused");
        connection.send(guest, ACK, &[]);
        connection
    }

    /// Sends data as fast as it is acknowledged.
    pub(super) fn write(&mut self, guest: &mut Guest, data: &[u8]) {
        let start = self.seq;
        let mut sent = 0;
        while sent < data.len() {
            let open = self.acked.wrapping_add(self.peer_window).wrapping_sub(self.seq) as usize;
            let piece = (data.len() - sent).min(open).min(1400);
            if piece > 0 {
                self.send(guest, ACK, &data[sent..sent + piece]);
                sent += piece;
            } else {
                guest.until("a window", |guest| self.take(guest).then_some(()));
            }
        }
        guest.until("an acknowledgement", |guest| {
            self.take(guest);
            (self.acked == start.wrapping_add(data.len() as u32)).then_some(())
        });
    }

    /// Receives and acknowledges until `done`.
    pub(super) fn read_until(&mut self, guest: &mut Guest, what: &str, done: impl Fn(&Self) -> bool) {
        guest.until(what, |guest| {
            let before = self.next;
            self.take(guest);
            if self.next != before {
                self.send(guest, ACK, &[]);
            }
            done(self).then_some(())
        });
    }
}
