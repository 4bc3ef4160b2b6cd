//! DHCP for IPv4 (RFC 2131, options of RFC 2132): the first station to ask gets 10.0.2.15, others the addresses after it.

use std::net::Ipv4Addr;

use super::config::{DNS_V4, GUEST_V4, HOST_V4, PREFIX_V4};
use super::link::Link;
use super::wire::{self, MTU, Mac, Udp, be32, ethertype, protocol};

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// From the operation to the boot file's name, with the cookie of RFC 1497 after it.
const FIXED: usize = 236;
const COOKIE: u32 = 0x6382_5363;
/// Clients of old drop shorter replies.
const MIN_REPLY: usize = 300;
/// Addresses that can be lent.
const MAX_LEASES: usize = 16;
/// Seconds of a lease.
const LEASE: u32 = 86_400;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;

/// Option numbers.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const END: u8 = 255;
}

/// Values of the message type.
mod message {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const DECLINE: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const RELEASE: u8 = 7;
    pub(super) const INFORM: u8 = 8;
}

/// The addresses lent so far.
#[derive(Debug, Default)]
pub(super) struct Dhcp {
    /// The n-th has the n-th address; the last that asked comes in place of the one that did not for longest.
    leases: Vec<(Mac, u64)>,
    clock: u64,
}

impl Dhcp {
    /// The address of a client, which is its own from now on.
    fn lease(&mut self, client: Mac) -> Ipv4Addr {
        self.clock += 1;
        let index = self.leases.iter().position(|(mac, _)| *mac == client).unwrap_or_else(|| {
            if self.leases.len() < MAX_LEASES {
                self.leases.push((client, 0));
                return self.leases.len() - 1;
            }
            let oldest = (0..MAX_LEASES).min_by_key(|index| self.leases[*index].1).unwrap_or(0);
            self.leases[oldest].0 = client;
            oldest
        });
        self.leases[index].1 = self.clock;
        Ipv4Addr::from_bits(GUEST_V4.to_bits() + index as u32)
    }

    /// A request of the guest's, answered if it should be. `restrict`: there is no way out of the network.
    pub(super) fn request(&mut self, link: &mut Link, request: &[u8], restrict: bool) {
        if request.len() < FIXED + 4 || request[0] != BOOT_REQUEST || be32(request, FIXED) != COOKIE {
            return;
        }
        // Ethernet, with addresses of 6 bytes.
        if request[1..3] != [1, 6] {
            return;
        }
        let options = &request[FIXED + 4..];
        let Some([kind]) = find(options, option::MESSAGE_TYPE) else { return };
        let address = |bytes: &[u8]| (bytes.len() == 4).then(|| Ipv4Addr::from_bits(be32(bytes, 0)));
        let client = [request[28], request[29], request[30], request[31], request[32], request[33]];
        let current = Ipv4Addr::from_bits(be32(request, 12));
        let server = find(options, option::SERVER).and_then(address);
        if server.is_some_and(|server| server != HOST_V4) {
            return;
        }
        let (answer, yours) = match *kind {
            message::DISCOVER => (message::OFFER, Some(self.lease(client))),
            message::REQUEST => {
                let wanted = find(options, option::REQUESTED).and_then(address).unwrap_or(current);
                let lease = self.lease(client);
                if wanted == lease { (message::ACK, Some(lease)) } else { (message::NAK, None) }
            }
            message::INFORM => (message::ACK, None),
            // A station keeps its address: there is nobody else who would want it.
            message::DECLINE | message::RELEASE => return,
            _ => return,
        };

        let mut reply = vec![0; FIXED];
        reply[0] = BOOT_REPLY;
        reply[1..3].copy_from_slice(&request[1..3]);
        // Transaction and flags are returned as they came.
        reply[4..8].copy_from_slice(&request[4..8]);
        reply[10..12].copy_from_slice(&request[10..12]);
        if answer == message::ACK {
            reply[12..16].copy_from_slice(&current.octets());
        }
        reply[16..20].copy_from_slice(&yours.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        if answer != message::NAK {
            reply[20..24].copy_from_slice(&HOST_V4.octets());
        }
        reply[28..44].copy_from_slice(&request[28..44]);
        reply.extend_from_slice(&COOKIE.to_be_bytes());
        let mut put = |number: u8, value: &[u8]| {
            reply.extend_from_slice(&[number, value.len() as u8]);
            reply.extend_from_slice(value);
        };
        put(option::MESSAGE_TYPE, &[answer]);
        put(option::SERVER, &HOST_V4.octets());
        if answer != message::NAK {
            let mask = u32::MAX << (32 - PREFIX_V4);
            if yours.is_some() {
                put(option::LEASE_TIME, &LEASE.to_be_bytes());
            }
            put(option::SUBNET_MASK, &mask.to_be_bytes());
            put(option::BROADCAST, &(HOST_V4.to_bits() | !mask).to_be_bytes());
            put(option::MTU, &(MTU as u16).to_be_bytes());
            if !restrict {
                put(option::ROUTER, &HOST_V4.octets());
                put(option::DNS, &DNS_V4.octets());
            }
        }
        reply.push(option::END);
        reply.resize(reply.len().max(MIN_REPLY), option::PAD);

        // Section 4.1: a client that has an address is answered there, others hear broadcasts.
        let known = !current.is_unspecified() && answer != message::NAK;
        let (station, to) = if known { (client, current) } else { (wire::BROADCAST, Ipv4Addr::BROADCAST) };
        let datagram = Udp::build((HOST_V4.into(), SERVER_PORT), (to.into(), CLIENT_PORT), &reply);
        let header = wire::ipv4_header(HOST_V4, to, protocol::UDP, datagram.len(), wire::DONT_FRAGMENT);
        link.send(station, ethertype::IPV4, &[&header, &datagram]);
    }
}

/// The value of an option.
fn find(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match *options {
            [option::PAD, ref rest @ ..] => options = rest,
            [option::END, ..] | [] | [_] => return None,
            [number, len, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(len))?;
                if number == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}
