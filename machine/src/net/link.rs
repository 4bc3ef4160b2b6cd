//! The wire between this network and the guest: who is on it, and what is on its way to the guest.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::wire::{self, Checksum, Ethernet, IPV4_HEADER, IPV6_HEADER, MTU, Mac, Udp, ethertype, protocol};

/// The Ethernet address of everything on the host's side.
pub(super) const HOST_MAC: Mac = [0x52, 0x55, 10, 0, 2, 2];

/// Guest addresses whose station is remembered.
const MAX_NEIGHBORS: usize = 256;
/// Frames that wait for the guest to give buffers; like a network, the link drops what is beyond.
const MAX_QUEUE: usize = 512;

/// What the guest's driver takes off the network's hands (virtio 1.3, section 5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP checksums may be left to the guest.
    pub checksum: bool,
    /// TCP segments over IPv4 may be larger than the link's MTU.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
}

/// How a large segment is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// TCP over IPv6 rather than IPv4.
    pub v6: bool,
    /// Bytes of payload in each segment it stands for.
    pub size: u16,
    /// Bytes of all headers before the payload.
    pub header_len: u16,
}

/// What is left to the guest of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Where the checksummed part begins, and where in it the checksum stands.
    pub checksum: Option<(u16, u16)>,
    /// It stands for several segments.
    pub segmentation: Option<Segmentation>,
}

/// The guest's receiving end.
pub trait Receiver {
    /// Hands over a frame in pieces. `false`: the guest has no room now, and nothing happened.
    fn deliver(&mut self, frame: &[&[u8]], unfinished: &Unfinished) -> bool;
}

/// One end of the wire.
#[derive(Debug)]
pub(super) struct Link {
    /// Of the guest's device.
    guest: Mac,
    pub(super) offloads: Offloads,
    neighbors: HashMap<IpAddr, Mac>,
    queue: VecDeque<Vec<u8>>,
    /// The last identification of a fragmented packet.
    id: u32,
}

impl Link {
    pub(super) fn new(guest: Mac) -> Self {
        Self {
            guest,
            offloads: Offloads::default(),
            neighbors: HashMap::new(),
            queue: VecDeque::new(),
            id: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.guest);
    }

    /// Remembers who sends from an address.
    pub(super) fn learn(&mut self, address: IpAddr, mac: Mac) {
        // Group addresses are nobody's.
        if mac[0] & 1 == 0 && (self.neighbors.len() < MAX_NEIGHBORS || self.neighbors.contains_key(&address))
        {
            self.neighbors.insert(address, mac);
        }
    }

    /// The station of an address; the guest's own device if none is known.
    pub(super) fn station(&self, address: IpAddr) -> Mac {
        match address {
            IpAddr::V4(v4) if v4.is_broadcast() => wire::BROADCAST,
            IpAddr::V6(v6) if v6.is_multicast() => {
                let [.., a, b, c, d] = v6.octets();
                [0x33, 0x33, a, b, c, d]
            }
            _ => self.neighbors.get(&address).copied().unwrap_or(self.guest),
        }
    }

    /// Whether much is waiting, so that sources that can wait should.
    pub(super) fn is_crowded(&self) -> bool {
        self.queue.len() >= MAX_QUEUE / 4
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, dst: Mac, kind: u16, parts: &[&[u8]]) {
        if self.queue.len() < MAX_QUEUE {
            let mut frame = Ethernet::header(dst, HOST_MAC, kind).to_vec();
            parts.iter().for_each(|part| frame.extend_from_slice(part));
            self.queue.push_back(frame);
        }
    }

    /// Sends an IP packet, in fragments if it is larger than the link allows.
    pub(super) fn send_ip(&mut self, src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) {
        let station = self.station(dst);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                if IPV4_HEADER + payload.len() <= MTU {
                    let header = wire::ipv4_header(src, dst, protocol, payload.len(), wire::DONT_FRAGMENT);
                    return self.send(station, ethertype::IPV4, &[&header, payload]);
                }
                self.id = self.id.wrapping_add(1);
                let size = (MTU - IPV4_HEADER) & !7;
                for (index, piece) in payload.chunks(size).enumerate() {
                    let offset = index * size;
                    let more = if offset + piece.len() < payload.len() { wire::MORE_FRAGMENTS } else { 0 };
                    let fragment = self.id << 16 | more | (offset as u32 / 8);
                    let header = wire::ipv4_header(src, dst, protocol, piece.len(), fragment);
                    self.send(station, ethertype::IPV4, &[&header, piece]);
                }
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                if IPV6_HEADER + payload.len() <= MTU {
                    // Neighbour discovery is believed only with the greatest hop limit (RFC 4861, section 6.1).
                    let hops = if protocol == protocol::ICMPV6 { 255 } else { wire::HOPS };
                    let header = wire::ipv6_header(src, dst, protocol, payload.len(), hops);
                    return self.send(station, ethertype::IPV6, &[&header, payload]);
                }
                self.id = self.id.wrapping_add(1);
                let size = (MTU - IPV6_HEADER - 8) & !7;
                for (index, piece) in payload.chunks(size).enumerate() {
                    let offset = index * size;
                    let more = u16::from(offset + piece.len() < payload.len());
                    let header = wire::ipv6_header(src, dst, protocol::FRAGMENT, 8 + piece.len(), wire::HOPS);
                    let mut extension = [protocol, 0, 0, 0, 0, 0, 0, 0];
                    extension[2..4].copy_from_slice(&(offset as u16 | more).to_be_bytes());
                    extension[4..].copy_from_slice(&self.id.to_be_bytes());
                    self.send(station, ethertype::IPV6, &[&header, &extension, piece]);
                }
            }
            _ => {}
        }
    }

    pub(super) fn send_udp(&mut self, src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) {
        let bytes = Udp::build(src, dst, payload);
        self.send_ip(src.0, dst.0, protocol::UDP, &bytes);
    }

    /// Sends an ICMP or ICMPv6 message whose checksum field is 0.
    pub(super) fn send_icmp(&mut self, src: IpAddr, dst: IpAddr, mut message: Vec<u8>) {
        let (protocol, sum) = match src {
            IpAddr::V4(_) => (protocol::ICMP, Checksum::of(&message)),
            IpAddr::V6(_) => {
                let pseudo = Checksum::pseudo(src, dst, protocol::ICMPV6, message.len());
                (protocol::ICMPV6, pseudo.add(&message).finish())
            }
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send_ip(src, dst, protocol, &message);
    }

    /// Hands over what waits; `false` if the guest has no room for all of it.
    pub(super) fn flush(&mut self, guest: &mut dyn Receiver) -> bool {
        while let Some(frame) = self.queue.front() {
            if !guest.deliver(&[frame], &Unfinished::default()) {
                return false;
            }
            self.queue.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragment::Fragments;
    use super::super::wire::Packet;
    use super::*;

    #[test]
    fn large_datagrams_travel_in_fragments_that_fit_the_link() {
        let payload: Vec<u8> = (0..9000_u32).map(|n| (n % 251) as u8).collect();
        for (src, dst) in [("10.0.2.2", "10.0.2.15"), ("fec0::2", "fec0::15")] {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut link = Link::new([2; 6]);
            link.send_udp((src, 1), (dst, 2), &payload);
            assert!(link.queue.len() > 5);
            let mut fragments = Fragments::default();
            let mut whole = None;
            for frame in &link.queue {
                assert!(frame.len() <= wire::ETHERNET_HEADER + MTU);
                let bytes = &frame[wire::ETHERNET_HEADER..];
                let packet = match src {
                    IpAddr::V4(_) => Packet::parse_v4(bytes),
                    IpAddr::V6(_) => Packet::parse_v6(bytes),
                }
                .unwrap();
                assert!(whole.is_none());
                whole = fragments.add(&packet, packet.fragment.unwrap());
            }
            let whole = whole.unwrap();
            assert_eq!(Udp::parse(&whole).unwrap().payload, payload);
        }
    }

    #[test]
    fn neighbours_and_frames_are_bounded() {
        let mut link = Link::new([2; 6]);
        for n in 0..100_000_u32 {
            link.learn(IpAddr::V4(n.into()), [4; 6]);
            link.send([4; 6], ethertype::ARP, &[]);
        }
        assert_eq!((link.neighbors.len(), link.queue.len()), (MAX_NEIGHBORS, MAX_QUEUE));
        assert_eq!(link.station("8.8.8.8".parse().unwrap()), [2; 6]);
        link.learn("0.0.0.1".parse().unwrap(), [5, 0, 0, 0, 0, 0]);
        assert_eq!(link.station("0.0.0.1".parse().unwrap()), [4; 6], "a group address was believed");
    }
}
