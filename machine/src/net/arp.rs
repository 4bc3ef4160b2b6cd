//! ARP (RFC 826): this network answers for its own addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::config::{DNS_V4, HOST_V4};
use super::link::{HOST_MAC, Link};
use super::wire::{Mac, be16, be32, ethertype};

const LEN: usize = 28;
/// Ethernet addresses of 6 bytes, IPv4 addresses of 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// An ARP packet of the guest's.
pub(super) fn packet(link: &mut Link, payload: &[u8]) {
    let Some(packet) = payload.first_chunk::<LEN>() else { return };
    if packet[..6] != KIND {
        return;
    }
    let operation = be16(packet, 6);
    let [_, _, _, _, _, _, _, _, m0, m1, m2, m3, m4, m5, ..] = *packet;
    let mac: Mac = [m0, m1, m2, m3, m4, m5];
    let (sender, target) = (Ipv4Addr::from_bits(be32(packet, 14)), Ipv4Addr::from_bits(be32(packet, 24)));
    // A sender of 0.0.0.0 only asks whether somebody has the address (RFC 5227).
    if !sender.is_unspecified() {
        link.learn(IpAddr::V4(sender), mac);
    }
    if operation == REQUEST && [HOST_V4, DNS_V4].contains(&target) {
        let mut reply = [0; LEN];
        reply[..6].copy_from_slice(&KIND);
        reply[6..8].copy_from_slice(&REPLY.to_be_bytes());
        reply[8..14].copy_from_slice(&HOST_MAC);
        reply[14..18].copy_from_slice(&target.octets());
        reply[18..24].copy_from_slice(&mac);
        reply[24..].copy_from_slice(&sender.octets());
        link.send(mac, ethertype::ARP, &[&reply]);
    }
}
