//! Frames that no honest guest sends. Seeded, so that a failure can be repeated.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use super::super::config::{GUEST_V4, HOST_V4, is_local};
use super::super::icmp;
use super::super::link::HOST_MAC;
use super::super::wire::{Checksum, Ethernet, Packet, Udp, be16, ethertype, protocol};
use super::guest::*;

const FRAMES: u32 = 10_000;

/// xorshift
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

/// Well-formed packets of every kind that the network looks into.
fn seeds(port: u16) -> Vec<(u16, Vec<u8>)> {
    let (guest, host): (IpAddr, IpAddr) = (GUEST_V4.into(), HOST_V4.into());
    let (guest6, host6): (IpAddr, IpAddr) = ("fec0::15".parse().unwrap(), "fec0::2".parse().unwrap());
    let tcp = |flags: u8| {
        let mut bytes = vec![0x10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7 << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
        bytes.extend_from_slice(b"some data");
        bytes
    };
    let mut dhcp = vec![1, 1, 6, 0, 1, 2, 3, 4];
    dhcp.resize(236, 0);
    dhcp.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 50, 4, 10, 0, 2, 15, 61, 2, 1, 2, 255]);
    let echo = [8, 0, 0, 0, 1, 2, 0, 1, b'x'];
    let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe, 0xc0], &[0; 13], &[2]].concat();
    let packet = |src: IpAddr, dst, protocol, payload: &[u8]| {
        let kind = if src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        (kind, icmp::packet(src, dst, protocol, payload))
    };
    let extended =
        [&[protocol::UDP, 0, 1, 4, 0, 0, 0, 0][..], &Udp::build((guest6, 5), (host6, port), b"x")].concat();
    let mut fragment = packet(guest, host, protocol::UDP, &Udp::build((guest, 5), (host, port), &[0; 64]));
    fragment.1[6] = 0x20;
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST_MAC, &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat();
    let broadcast = Ipv4Addr::BROADCAST.into();
    vec![
        (ethertype::ARP, arp),
        packet(guest, host, protocol::TCP, &tcp(SYN)),
        packet(guest, host, protocol::TCP, &tcp(ACK)),
        packet(guest, host, protocol::TCP, &tcp(FIN | ACK)),
        packet(guest6, host6, protocol::TCP, &tcp(SYN)),
        packet(guest6, host6, protocol::TCP, &tcp(ACK)),
        packet(guest, host, protocol::UDP, &Udp::build((guest, 5), (host, port), b"datagram")),
        packet(guest, broadcast, protocol::UDP, &Udp::build((guest, 68), (broadcast, 67), &dhcp)),
        packet(
            guest6,
            host6,
            protocol::UDP,
            &Udp::build((guest6, 546), (host6, 547), &[11, 1, 2, 3, 0, 1, 0, 2, 1, 2]),
        ),
        packet(guest, host, protocol::ICMP, &echo),
        packet(guest6, host6, protocol::ICMPV6, &solicit),
        packet(guest6, host6, protocol::ICMPV6, &[133, 0, 0, 0, 0, 0, 0, 0]),
        packet(guest6, host6, protocol::HOP_BY_HOP, &extended),
        packet(
            guest6,
            host6,
            protocol::FRAGMENT,
            &[&[protocol::UDP, 0, 0, 1, 0, 0, 0, 9][..], &[0; 64]].concat(),
        ),
        fragment,
    ]
}

/// Whether the test may send this: to servers of its own, or to where nobody is.
fn is_harmless(frame: &[u8], port: u16) -> bool {
    let Some(ethernet) = Ethernet::parse(frame) else { return true };
    let packet = match ethernet.kind {
        ethertype::IPV4 => Packet::parse_v4(ethernet.payload),
        ethertype::IPV6 => Packet::parse_v6(ethernet.payload),
        _ => None,
    };
    let Some(packet) = packet else { return true };
    let first = packet.fragment.is_none_or(|fragment| fragment.offset < 8);
    match packet.protocol {
        protocol::TCP | protocol::UDP if is_local(packet.dst) => {
            !first || [port, 67, 547].contains(&be16(packet.payload, 2))
        }
        _ => {
            is_local(packet.dst) || packet.dst.is_multicast() || packet.dst == IpAddr::V4(Ipv4Addr::BROADCAST)
        }
    }
}

fn mutate(random: &mut Random, (kind, packet): &(u16, Vec<u8>)) -> Vec<u8> {
    let mut bytes = packet.clone();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0..=2 => bytes[at] = random.next() as u8,
            3 => bytes[at] ^= 1 << random.below(8),
            4 => bytes.truncate(at.max(1)),
            5 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            6 => bytes.extend((0..random.below(2000)).map(|n| n as u8)),
            _ => {
                let (from, len) = (random.below(bytes.len()), random.below(40));
                let piece: Vec<u8> = bytes[from..].iter().take(len).copied().collect();
                let at = at.min(bytes.len());
                bytes.splice(at..at, piece);
            }
        }
    }
    // A wrong header checksum would hide what is behind it.
    if *kind == ethertype::IPV4 && random.below(8) != 0 {
        let header = usize::from(bytes[0] & 0xf) * 4;
        if random.below(4) != 0 && bytes.len() >= 4 {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
        }
        if header >= 20 && header <= bytes.len() {
            bytes[10..12].fill(0);
            let sum = Checksum::of(&bytes[..header]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let mut frame = Ethernet::header(HOST_MAC, GUEST_MAC, *kind).to_vec();
    if random.below(50) == 0 {
        let at = random.below(frame.len());
        frame[at] = random.next() as u8;
    }
    frame.extend_from_slice(&bytes);
    if random.below(50) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    frame
}

#[test]
fn malformed_frames_do_no_harm() {
    for seed in [1, 0x9e37_79b9_7f4a_7c15] {
        let mut random = Random(seed);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The same number for both protocols, if it is free.
        let datagrams = UdpSocket::bind(("127.0.0.1", port));
        let seeds = seeds(port);
        let mut guest = Guest::new("").offloads();
        let mut sent = 0;
        while sent < FRAMES {
            let seed = random.below(seeds.len());
            let frame = mutate(&mut random, &seeds[seed]);
            if !is_harmless(&frame, port) {
                continue;
            }
            sent += 1;
            let finished = random.below(8) == 0;
            guest.net.transmit(&frame, finished, guest.now);
            if random.below(16) == 0 {
                guest.now += Duration::from_millis(random.below(3000) as u64);
                guest.turn();
                // The guest's memory, not the network's.
                guest.port.frames.clear();
            }
            assert!(
                guest.net.tcp.memory() <= 128 << 20
                    && guest.net.udp.len() <= 1024
                    && guest.net.tcp.len() <= 4096
            );
            assert!(guest.net.fragments.bytes() <= 2 << 20);
        }
        guest.turn();
        guest.port.frames.clear();
        // And it still works.
        let mut connection = Connection::open(&mut guest, "10.0.2.99:4999", &format!("10.0.2.2:{port}"));
        connection.write(&mut guest, b"fine");
        drop((listener, datagrams));
    }
}
