//! Headers as they stand on the wire: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768), and the Internet checksum
//! (RFC 1071). Parsers take any bytes and give `None` for what is not a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Every station.
pub(super) const BROADCAST: Mac = [0xff; 6];

pub(super) const ETHERNET_HEADER: usize = 14;
/// Most bytes of an IP packet on this link; larger ones are segmented by whoever has the offload, or fragmented.
pub(super) const MTU: usize = 1500;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
pub(super) const UDP_HEADER: usize = 8;
/// TTL and hop limit of what comes from here.
pub(super) const HOPS: u8 = 64;

/// Values of the Ethernet type field.
pub(super) mod ethertype {
    pub(in crate::net) const IPV4: u16 = 0x0800;
    pub(in crate::net) const ARP: u16 = 0x0806;
    pub(in crate::net) const IPV6: u16 = 0x86dd;
}

/// Values of the protocol (next header) field.
pub(super) mod protocol {
    pub(in crate::net) const HOP_BY_HOP: u8 = 0;
    pub(in crate::net) const ICMP: u8 = 1;
    pub(in crate::net) const TCP: u8 = 6;
    pub(in crate::net) const UDP: u8 = 17;
    pub(in crate::net) const ROUTING: u8 = 43;
    pub(in crate::net) const FRAGMENT: u8 = 44;
    pub(in crate::net) const ICMPV6: u8 = 58;
    pub(in crate::net) const DESTINATION_OPTIONS: u8 = 60;
}

/// Two bytes in network order at `at`; 0 where there are none.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// Four bytes in network order at `at`; 0 where there are none.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// A running Internet checksum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checksum {
    sum: u64,
    /// An odd number of bytes has been added.
    odd: bool,
}

impl Checksum {
    pub(super) fn of(bytes: &[u8]) -> u16 {
        Self::default().add(bytes).finish()
    }

    /// The pseudo header of an upper layer's packet of `len` bytes (RFC 768, RFC 8200 section 8.1).
    pub(super) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let sum = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Self::default().add(&src.octets()).add(&dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Self::default().add(&src.octets()).add(&dst.octets()),
            _ => Self::default(),
        };
        sum.add(&(len as u32).to_be_bytes()).add(&[0, protocol])
    }

    #[must_use]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        // Less than 2^32 words, so the sum does not overflow.
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_be_bytes(last));
        let folded = fold(sum);
        let folded = if self.odd { folded.swap_bytes() } else { folded };
        Self { sum: self.sum + u64::from(folded), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The sum without the final complement, as a device is given it to complete.
    pub(super) fn partial(self) -> u16 {
        fold(self.sum)
    }

    pub(super) fn finish(self) -> u16 {
        !fold(self.sum)
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ethernet<'a> {
    pub(super) dst: Mac,
    pub(super) src: Mac,
    pub(super) kind: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let (header, payload) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
        let [dst @ .., _, _, _, _, _, _, _, _] = *header;
        let [_, _, _, _, _, _, src @ .., k0, k1] = *header;
        Some(Self { dst, src, kind: u16::from_be_bytes([k0, k1]), payload })
    }

    pub(super) fn header(dst: Mac, src: Mac, kind: u16) -> [u8; ETHERNET_HEADER] {
        let mut header = [0; ETHERNET_HEADER];
        header[..6].copy_from_slice(&dst);
        header[6..12].copy_from_slice(&src);
        header[12..].copy_from_slice(&kind.to_be_bytes());
        header
    }
}

/// Where a fragment stands in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// Of its first byte.
    pub(super) offset: usize,
    pub(super) more: bool,
}

/// An IP packet of either version, extension headers skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) hops: u8,
    pub(super) fragment: Option<Fragment>,
    pub(super) payload: &'a [u8],
    /// All of it from the IP header on, for errors that quote it.
    pub(super) whole: &'a [u8],
}

impl<'a> Packet<'a> {
    pub(super) fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; IPV4_HEADER] = bytes.first_chunk()?;
        let (version, header_len) = (header[0] >> 4, usize::from(header[0] & 0xf) * 4);
        let total = usize::from(be16(header, 2));
        if version != 4 || header_len < IPV4_HEADER || total < header_len || total > bytes.len() {
            return None;
        }
        if Checksum::of(&bytes[..header_len]) != 0 {
            return None;
        }
        let flags = be16(header, 6);
        let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
        let fragment = (offset > 0 || more).then_some(Fragment { id: be16(header, 4).into(), offset, more });
        let address = |at: usize| IpAddr::V4(Ipv4Addr::from_bits(be32(header, at)));
        Some(Self {
            src: address(12),
            dst: address(16),
            protocol: header[9],
            hops: header[8],
            fragment,
            payload: &bytes[header_len..total],
            whole: &bytes[..total],
        })
    }

    pub(super) fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<IPV6_HEADER>()?;
        let mut payload = rest.get(..usize::from(be16(header, 4)))?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let whole = &bytes[..IPV6_HEADER + payload.len()];
        let mut protocol = header[6];
        let mut fragment = None;
        // Each turn takes 8 bytes or more.
        loop {
            match protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let len = 8 + 8 * usize::from(*payload.get(1)?);
                    protocol = payload[0];
                    payload = payload.get(len..)?;
                }
                protocol::FRAGMENT if fragment.is_none() => {
                    let (extension, rest) = payload.split_first_chunk::<8>()?;
                    let place = be16(extension, 2);
                    protocol = extension[0];
                    payload = rest;
                    let (offset, more) = (usize::from(place & !7), place & 1 != 0);
                    fragment = Some(Fragment { id: be32(extension, 4), offset, more });
                    // Headers of the packet itself are in its first fragment only.
                    if offset > 0 || more {
                        break;
                    }
                    fragment = None;
                }
                _ => break,
            }
        }
        let address = |at: usize| -> Option<IpAddr> {
            Some(IpAddr::V6(Ipv6Addr::from(*header[at..].first_chunk::<16>()?)))
        };
        let (src, dst) = (address(8)?, address(24)?);
        Some(Self { src, dst, protocol, hops: header[7], fragment, payload, whole })
    }

    /// Whether the upper layer's checksum at byte `at` is right.
    pub(super) fn checksum_holds(&self) -> bool {
        Checksum::pseudo(self.src, self.dst, self.protocol, self.payload.len()).add(self.payload).finish()
            == 0
    }
}

/// An IPv4 header for `len` bytes of payload, checksum included. `fragment` is identification, flags and offset.
pub(super) fn ipv4_header(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    len: usize,
    fragment: u32,
) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((IPV4_HEADER + len) as u16).to_be_bytes());
    header[4..8].copy_from_slice(&fragment.to_be_bytes());
    header[8] = HOPS;
    header[9] = protocol;
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    let sum = Checksum::of(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// "Don't fragment", as the `fragment` of [`ipv4_header`].
pub(super) const DONT_FRAGMENT: u32 = 0x4000;
/// "More fragments", likewise.
pub(super) const MORE_FRAGMENTS: u32 = 0x2000;

/// An IPv6 header for `len` bytes of payload.
pub(super) fn ipv6_header(src: Ipv6Addr, dst: Ipv6Addr, next: u8, len: usize, hops: u8) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = next;
    header[7] = hops;
    header[8..24].copy_from_slice(&src.octets());
    header[24..40].copy_from_slice(&dst.octets());
    header
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Udp<'a> {
    pub(super) src: u16,
    pub(super) dst: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Udp<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::from(be16(bytes, 4));
        let payload = bytes.get(UDP_HEADER..len)?;
        Some(Self { src: be16(bytes, 0), dst: be16(bytes, 2), payload })
    }

    /// Header and payload, checksum included.
    pub(super) fn build(src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
        let len = UDP_HEADER + payload.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&src.1.to_be_bytes());
        bytes.extend_from_slice(&dst.1.to_be_bytes());
        bytes.extend_from_slice(&(len as u16).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(payload);
        let sum = Checksum::pseudo(src.0, dst.0, protocol::UDP, len).add(&bytes).finish();
        // 0 says that there is no checksum.
        let sum = if sum == 0 { u16::MAX } else { sum };
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_rfc_1071_holds_in_any_pieces() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::of(&bytes), !0xddf2);
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(Checksum::default().add(a).add(b).finish(), !0xddf2, "{cut}");
        }
    }

    #[test]
    fn an_ipv4_header_is_read_as_it_was_written() {
        let (src, dst) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(192, 0, 2, 7));
        let mut bytes = ipv4_header(src, dst, protocol::UDP, 5, 0).to_vec();
        bytes.extend_from_slice(b"helloPADDING");
        let packet = Packet::parse_v4(&bytes).unwrap();
        assert_eq!((packet.src, packet.dst), (IpAddr::V4(src), IpAddr::V4(dst)));
        assert_eq!((packet.protocol, packet.hops, packet.payload), (protocol::UDP, HOPS, &b"hello"[..]));
        assert_eq!(packet.fragment, None);
        bytes[8] ^= 1;
        assert!(Packet::parse_v4(&bytes).is_none(), "a wrong checksum");
    }

    #[test]
    fn ipv6_extension_headers_are_skipped_and_fragments_seen() {
        let (src, dst) = ("fec0::1".parse().unwrap(), "fec0::2".parse().unwrap());
        let mut bytes = ipv6_header(src, dst, protocol::HOP_BY_HOP, 8 + 8 + 3, 1).to_vec();
        bytes.extend_from_slice(&[protocol::FRAGMENT, 0, 5, 2, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[protocol::UDP, 0, 0, 17, 0, 0, 0, 9]);
        bytes.extend_from_slice(b"abc");
        let packet = Packet::parse_v6(&bytes).unwrap();
        assert_eq!(packet.fragment, Some(Fragment { id: 9, offset: 16, more: true }));
        assert_eq!((packet.protocol, packet.payload), (protocol::UDP, &b"abc"[..]));
        for len in 0..bytes.len() {
            assert!(Packet::parse_v6(&bytes[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn a_datagram_carries_a_checksum_that_holds() {
        let (a, b) = ("10.0.2.2".parse().unwrap(), "10.0.2.15".parse().unwrap());
        let bytes = Udp::build((a, 53), (b, 4000), b"odd");
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (a, b) else { unreachable!() };
        let mut whole = ipv4_header(src, dst, protocol::UDP, bytes.len(), 0).to_vec();
        whole.extend_from_slice(&bytes);
        let packet = Packet::parse_v4(&whole).unwrap();
        assert!(packet.checksum_holds());
        let udp = Udp::parse(packet.payload).unwrap();
        assert_eq!((udp.src, udp.dst, udp.payload), (53, 4000, &b"odd"[..]));
    }
}
