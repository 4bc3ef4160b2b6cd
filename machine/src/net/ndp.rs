//! Neighbour discovery (RFC 4861): this network is the guest's router, from which it makes itself an address (RFC 4862) and
//! hears of the name server (RFC 8106).

use std::net::{IpAddr, Ipv6Addr};

use super::config::{DNS_V6, HOST_V6, PREFIX_V6, ROUTER_V6};
use super::link::{HOST_MAC, Link};
use super::wire::{MTU, Packet};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU_OPTION: u8 = 5;
const RECURSIVE_DNS: u8 = 25;

/// On-link and autonomous: the guest may make addresses of the prefix.
const PREFIX_FLAGS: u8 = 0xc0;
/// Neither addresses nor other configuration by DHCPv6: the name server is in the advertisement, and guests in which two
/// programs configure the network cannot start two clients. Who asks for it all the same is answered (`dhcpv6.rs`).
const ROUTER_FLAGS: u8 = 0;
/// Router, solicited, override.
const NEIGHBOR_FLAGS: u8 = 0xe0;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ICMPv6 packet of the guest's; `false` if it is not neighbour discovery. `restrict`: there is no way out.
pub(super) fn packet(link: &mut Link, packet: &Packet<'_>, restrict: bool) -> bool {
    let message = packet.payload;
    let Some(kind @ ROUTER_SOLICITATION..=NEIGHBOR_ADVERTISEMENT) = message.first().copied() else {
        return false;
    };
    // Section 6.1 and 7.1: it comes from this link.
    if packet.hops != 255 || message.len() < 8 {
        return true;
    }
    match kind {
        ROUTER_SOLICITATION => {
            let dst = if packet.src.is_unspecified() { ALL_NODES.into() } else { packet.src };
            advertise_router(link, dst, restrict);
        }
        NEIGHBOR_SOLICITATION => {
            let Some(target) = message.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) else {
                return true;
            };
            let target = Ipv6Addr::from(target);
            if [HOST_V6, DNS_V6, ROUTER_V6].contains(&target) {
                let dst = if packet.src.is_unspecified() { ALL_NODES.into() } else { packet.src };
                let mut reply = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, NEIGHBOR_FLAGS, 0, 0, 0];
                reply.extend_from_slice(&target.octets());
                reply.extend_from_slice(&[TARGET_LINK_LAYER, 1]);
                reply.extend_from_slice(&HOST_MAC);
                link.send_icmp(target.into(), dst, reply);
            }
        }
        _ => {}
    }
    true
}

/// Tells the guest, or all on its link, of the network. The lifetimes are the longest there are: it never changes.
fn advertise_router(link: &mut Link, dst: IpAddr, restrict: bool) {
    let router_lifetime = if restrict { 0_u16 } else { u16::MAX };
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, super::wire::HOPS, ROUTER_FLAGS];
    message.extend_from_slice(&router_lifetime.to_be_bytes());
    // Reachable time and retransmission timer: the guest's own.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[SOURCE_LINK_LAYER, 1]);
    message.extend_from_slice(&HOST_MAC);
    message.extend_from_slice(&[MTU_OPTION, 1, 0, 0]);
    message.extend_from_slice(&(MTU as u32).to_be_bytes());
    message.extend_from_slice(&[PREFIX_INFORMATION, 4, PREFIX_V6, PREFIX_FLAGS]);
    message.extend_from_slice(&[0xff; 8]);
    message.extend_from_slice(&[0; 4]);
    let prefix = HOST_V6.to_bits() & u128::MAX << (128 - u32::from(PREFIX_V6));
    message.extend_from_slice(&prefix.to_be_bytes());
    if !restrict {
        message.extend_from_slice(&[RECURSIVE_DNS, 3, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        message.extend_from_slice(&DNS_V6.octets());
    }
    link.send_icmp(ROUTER_V6.into(), dst, message);
}
