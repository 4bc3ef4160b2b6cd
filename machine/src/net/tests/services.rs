use std::net::{IpAddr, Ipv4Addr};

use super::super::config::{DNS_V4, GUEST_V4, HOST_V4, ROUTER_V6};
use super::super::link::HOST_MAC;
use super::super::wire::{Checksum, be32, ethertype, protocol};
use super::guest::*;

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &GUEST_MAC, &sender, &[0; 6], &target].concat()
}

#[test]
fn arp_is_answered_for_the_networks_own_addresses_only() {
    let mut guest = Guest::new("");
    for own in [HOST_V4, DNS_V4] {
        guest.send(ethertype::ARP, &arp(1, GUEST_V4.octets(), own.octets()));
        guest.turn();
        let (frame, _) = guest.port.frames.remove(0);
        assert_eq!((&frame[..6], &frame[6..12]), (&GUEST_MAC[..], &HOST_MAC[..]));
        let want = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &HOST_MAC, &own.octets(), &GUEST_MAC, &GUEST_V4.octets()];
        assert_eq!(frame[14..], want.concat());
    }
    guest.send(ethertype::ARP, &arp(1, GUEST_V4.octets(), GUEST_V4.octets()));
    guest.send(ethertype::ARP, &arp(1, [0; 4], [10, 0, 2, 99]));
    guest.send(ethertype::ARP, &arp(2, GUEST_V4.octets(), HOST_V4.octets()));
    guest.turn();
    assert!(guest.port.frames.is_empty());
}

fn dhcp(kind: u8, mac_end: u8, current: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
    bytes[12..16].copy_from_slice(&current.octets());
    bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, mac_end]);
    bytes.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    bytes.extend_from_slice(options);
    bytes.push(255);
    bytes
}

/// Asks the server; returns type and address of the answer, and the answer.
fn ask(guest: &mut Guest, request: &[u8]) -> (u8, Ipv4Addr, Vec<u8>) {
    guest.send_udp("0.0.0.0:68", "255.255.255.255:67", request);
    let (server, port, reply) = guest.expect_udp();
    assert_eq!((server.to_string().as_str(), port), ("10.0.2.2:67", 68));
    assert_eq!((reply[0], &reply[4..8]), (2, &[1, 2, 3, 4][..]));
    assert_eq!(reply[240..242], [53, 1]);
    (reply[242], Ipv4Addr::from_bits(be32(&reply, 16)), reply)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn dhcp_lends_addresses() {
    let mut guest = Guest::new("");
    let any = Ipv4Addr::UNSPECIFIED;
    let (kind, address, reply) = ask(&mut guest, &dhcp(1, 1, any, &[]));
    assert_eq!((kind, address), (2, GUEST_V4));
    for option in
        [&[3, 4, 10, 0, 2, 2][..], &[6, 4, 10, 0, 2, 3], &[1, 4, 255, 255, 255, 0], &[54, 4, 10, 0, 2, 2]]
    {
        assert!(contains(&reply[240..], option), "{option:?}");
    }
    let want = |address: Ipv4Addr| [&[50, 4][..], &address.octets()].concat();
    let (kind, address, _) = ask(&mut guest, &dhcp(3, 1, any, &want(GUEST_V4)));
    assert_eq!((kind, address), (5, GUEST_V4));
    // Another station, the next address; a wrong wish is refused.
    let next = Ipv4Addr::new(10, 0, 2, 16);
    assert_eq!(ask(&mut guest, &dhcp(1, 2, any, &[])).1, next);
    assert_eq!(ask(&mut guest, &dhcp(3, 2, any, &want(GUEST_V4))).0, 6);
    let (kind, address, _) = ask(&mut guest, &dhcp(3, 2, next, &[]));
    assert_eq!((kind, address), (5, next));
    let (kind, address, reply) = ask(&mut guest, &dhcp(8, 9, Ipv4Addr::new(10, 0, 2, 77), &[]));
    assert_eq!((kind, address), (5, any));
    assert!(!contains(&reply[240..], &[51, 4]), "a lease for one who only asked");
    // For another server, or too short.
    guest.send_udp("0.0.0.0:68", "255.255.255.255:67", &dhcp(3, 1, any, &[54, 4, 10, 0, 2, 9]));
    guest.send_udp("0.0.0.0:68", "255.255.255.255:67", &dhcp(1, 1, any, &[])[..239]);
    guest.turn();
    assert!(guest.port.frames.is_empty());
    for mac_end in 0..200 {
        let (_, address, _) = ask(&mut guest, &dhcp(1, mac_end, any, &[]));
        assert!((15..=30).contains(&address.octets()[3]), "{address}");
    }
}

#[test]
fn a_restricted_guest_is_told_of_no_way_out() {
    let mut guest = Guest::new("restrict=on");
    let (kind, address, reply) = ask(&mut guest, &dhcp(1, 1, Ipv4Addr::UNSPECIFIED, &[]));
    assert_eq!((kind, address), (2, GUEST_V4));
    assert!(!contains(&reply[240..], &[3, 4, 10]) && !contains(&reply[240..], &[6, 4, 10]));
    guest.send_udp("10.0.2.15:5000", "10.0.2.3:53", b"who?");
    assert_eq!(guest.expect(protocol::ICMP).payload[..2], [3, 13]);
    guest.send_udp("10.0.2.15:5000", "192.0.2.1:53", b"who?");
    assert_eq!(guest.expect(protocol::ICMP).payload[..2], [3, 13]);
}

fn icmpv6(guest: &mut Guest, src: &str, dst: &str, mut message: Vec<u8>) {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let sum = Checksum::pseudo(src, dst, protocol::ICMPV6, message.len()).add(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    guest.send_ip(src, dst, protocol::ICMPV6, &message);
}

#[test]
fn the_router_advertises_itself_and_its_name_server() {
    let mut guest = Guest::new("");
    icmpv6(&mut guest, "fe80::1", "ff02::2", vec![133, 0, 0, 0, 0, 0, 0, 0]);
    let packet = guest.expect(protocol::ICMPV6);
    assert_eq!((packet.src, packet.dst), (ROUTER_V6.into(), "fe80::1".parse().unwrap()));
    let message = &packet.payload;
    assert_eq!((message[0], &message[6..8]), (134, &[0xff, 0xff][..]));
    assert!(contains(message, &[3, 4, 64, 0xc0, 0xff]));
    assert!(contains(message, &[0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert!(contains(message, &[0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]));

    let mut off = Guest::new("ipv6=off");
    icmpv6(&mut off, "fe80::1", "ff02::2", vec![133, 0, 0, 0, 0, 0, 0, 0]);
    off.turn();
    assert!(off.port.frames.is_empty());
}

#[test]
fn neighbours_are_told_the_station_of_the_networks_addresses() {
    let mut guest = Guest::new("");
    for (target, answered) in [("fec0::2", true), ("fec0::3", true), ("fe80::2", true), ("fec0::99", false)] {
        let target: std::net::Ipv6Addr = target.parse().unwrap();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &GUEST_MAC].concat();
        icmpv6(&mut guest, "fec0::15", "ff02::1:ff00:2", message);
        guest.turn();
        let packet = guest.packet();
        assert_eq!(packet.is_some(), answered, "{target}");
        if let Some(packet) = packet {
            assert_eq!(packet.payload[8..24], target.octets());
            assert_eq!(
                (packet.payload[0], &packet.payload[24..]),
                (136, &[&[2, 1][..], &HOST_MAC].concat()[..])
            );
        }
    }
}

#[test]
fn pings_to_the_network_itself_are_answered() {
    let mut guest = Guest::new("");
    let mut echo = [&[8, 0, 0, 0, 0x12, 0x34, 0, 7][..], b"payload"].concat();
    let sum = Checksum::of(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    for host in [HOST_V4, DNS_V4] {
        guest.send_ip(GUEST_V4.into(), host.into(), protocol::ICMP, &echo);
        let reply = guest.expect(protocol::ICMP);
        assert_eq!((reply.src, reply.payload[0]), (host.into(), 0));
        assert_eq!(reply.payload[4..], echo[4..]);
    }
    icmpv6(&mut guest, "fec0::15", "fec0::2", [&[128, 0, 0, 0, 0x12, 0x34, 0, 7][..], b"six"].concat());
    let reply = guest.expect(protocol::ICMPV6);
    assert_eq!(
        (reply.payload[0], &reply.payload[4..]),
        (129, &[&[0x12, 0x34, 0, 7][..], b"six"].concat()[..])
    );
}

#[test]
fn pings_elsewhere_get_an_answer_or_the_reason_why_not() {
    let mut guest = Guest::new("restrict=on");
    let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, 7];
    let sum = Checksum::of(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    guest.send_ip(GUEST_V4.into(), "192.0.2.1".parse().unwrap(), protocol::ICMP, &echo);
    assert_eq!(guest.expect(protocol::ICMP).payload[..2], [3, 13]);
    assert_eq!(guest.net.ping.len(), 0);
}
