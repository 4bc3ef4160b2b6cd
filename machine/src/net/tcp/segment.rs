//! TCP segments on the wire (RFC 9293 section 3.1), and the options that matter here: segment size and window scale.

use std::net::{IpAddr, SocketAddr};

use super::super::link::{Link, Receiver, Segmentation, Unfinished};
use super::super::wire::{
    self, Checksum, ETHERNET_HEADER, Ethernet, IPV4_HEADER, IPV6_HEADER, MTU, Packet, be16, be32, ethertype,
    protocol,
};

pub(super) const HEADER: usize = 20;
/// Where the checksum stands in the header.
const CHECKSUM: usize = 16;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// Options of a SYN (RFC 9293 section 3.2, RFC 7323 section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) max_segment: Option<u16>,
    pub(super) window_scale: Option<u8>,
}

/// A segment as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// Not scaled.
    pub(super) window: u16,
    pub(super) options: Options,
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(super) fn parse(packet: &Packet<'a>) -> Option<Self> {
        let bytes = packet.payload;
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = bytes.get(HEADER..header_len)?;
        Some(Self {
            src: SocketAddr::new(packet.src, be16(header, 0)),
            dst: SocketAddr::new(packet.dst, be16(header, 2)),
            seq: be32(header, 4),
            ack: be32(header, 8),
            flags: header[13],
            window: be16(header, 14),
            options: Options::parse(options),
            payload: &bytes[header_len..],
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers it takes.
    pub(super) fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            match kind {
                0 => break,
                1 => bytes = rest,
                _ => {
                    let Some(len @ 2..) = rest.first().map(|len| usize::from(*len)) else { break };
                    let Some(value) = bytes.get(2..len) else { break };
                    match (kind, value) {
                        (2, [a, b]) => options.max_segment = Some(u16::from_be_bytes([*a, *b])),
                        (3, [shift]) => options.window_scale = Some((*shift).min(14)),
                        _ => {}
                    }
                    bytes = &bytes[len..];
                }
            }
        }
        options
    }
}

/// The largest segment that one packet of the link can hold.
pub(super) fn max_segment(address: IpAddr) -> u16 {
    (MTU - HEADER - if address.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }) as u16
}

/// A segment to be sent to the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Options,
    pub(super) payload: [&'a [u8]; 2],
    /// Bytes of payload in one packet; more than that needs the guest's offload.
    pub(super) max_segment: u16,
}

impl Outgoing<'_> {
    /// All headers, in a buffer of this size, and what they leave to the guest.
    fn headers(&self, link: &Link, buffer: &mut [u8; 96]) -> (usize, Unfinished) {
        let payload = self.payload[0].len() + self.payload[1].len();
        let mut options = [0; 8];
        let mut options_len = 0;
        if let Some(size) = self.options.max_segment {
            let [a, b] = size.to_be_bytes();
            options[..4].copy_from_slice(&[2, 4, a, b]);
            options_len = 4;
            if let Some(shift) = self.options.window_scale {
                options[4..].copy_from_slice(&[1, 3, 3, shift]);
                options_len = 8;
            }
        }
        let tcp_len = HEADER + options_len + payload;
        let station = link.station(self.dst.ip());
        let v6 = self.src.is_ipv6();
        let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        buffer[..ETHERNET_HEADER].copy_from_slice(&Ethernet::header(
            station,
            super::super::link::HOST_MAC,
            kind,
        ));
        let start = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = wire::ipv4_header(src, dst, protocol::TCP, tcp_len, wire::DONT_FRAGMENT);
                buffer[ETHERNET_HEADER..][..IPV4_HEADER].copy_from_slice(&header);
                ETHERNET_HEADER + IPV4_HEADER
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = wire::ipv6_header(src, dst, protocol::TCP, tcp_len, wire::HOPS);
                buffer[ETHERNET_HEADER..][..IPV6_HEADER].copy_from_slice(&header);
                ETHERNET_HEADER + IPV6_HEADER
            }
            _ => return (0, Unfinished::default()),
        };
        let header_len = HEADER + options_len;
        let tcp = &mut buffer[start..start + header_len];
        tcp[0..2].copy_from_slice(&self.src.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.dst.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = (header_len as u8 / 4) << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[CHECKSUM..HEADER].fill(0);
        tcp[HEADER..].copy_from_slice(&options[..options_len]);
        let pseudo = Checksum::pseudo(self.src.ip(), self.dst.ip(), protocol::TCP, tcp_len);
        let mut unfinished = Unfinished::default();
        let sum = if link.offloads.checksum {
            unfinished.checksum = Some((start as u16, CHECKSUM as u16));
            pseudo.partial()
        } else {
            pseudo.add(tcp).add(self.payload[0]).add(self.payload[1]).finish()
        };
        tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        if payload > usize::from(self.max_segment) {
            let header_len = (start + header_len) as u16;
            unfinished.segmentation = Some(Segmentation { v6, size: self.max_segment, header_len });
        }
        (start + header_len, unfinished)
    }

    /// Hands the segment to the guest; `false` if that has no room.
    pub(super) fn deliver(&self, link: &Link, guest: &mut dyn Receiver) -> bool {
        let mut buffer = [0; 96];
        let (len, unfinished) = self.headers(link, &mut buffer);
        guest.deliver(&[&buffer[..len], self.payload[0], self.payload[1]], &unfinished)
    }
}

/// Refuses a segment that belongs to no connection (RFC 9293 section 3.10.7.1).
pub(super) fn refuse(link: &mut Link, segment: &Segment<'_>) {
    if segment.has(RST) {
        return;
    }
    let (seq, ack, flags) = if segment.has(ACK) {
        (segment.ack, 0, RST)
    } else {
        (0, segment.seq.wrapping_add(segment.len()), RST | ACK)
    };
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(&segment.dst.port().to_be_bytes());
    bytes.extend_from_slice(&segment.src.port().to_be_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&ack.to_be_bytes());
    bytes.extend_from_slice(&[(HEADER as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    let (src, dst) = (segment.dst.ip(), segment.src.ip());
    let sum = Checksum::pseudo(src, dst, protocol::TCP, HEADER).add(&bytes).finish();
    bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    link.send_ip(src, dst, protocol::TCP, &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Frames(Vec<(Vec<u8>, Unfinished)>);

    impl Receiver for Frames {
        fn deliver(&mut self, frame: &[&[u8]], unfinished: &Unfinished) -> bool {
            self.0.push((frame.concat(), *unfinished));
            true
        }
    }

    fn outgoing(src: &str, dst: &str, payload: &'static [u8]) -> Outgoing<'static> {
        Outgoing {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            seq: 0x0102_0304,
            ack: 0x0506_0708,
            flags: SYN | ACK,
            window: 4096,
            options: Options { max_segment: Some(1460), window_scale: Some(7) },
            payload: [payload, b"!"],
            max_segment: 1460,
        }
    }

    #[test]
    fn a_segment_is_read_as_it_was_written_and_its_checksum_holds() {
        for (src, dst) in [("10.0.2.2:80", "10.0.2.15:4000"), ("[fec0::2]:80", "[fec0::15]:4000")] {
            let (link, mut frames) = (Link::new([2; 6]), Frames::default());
            let sent = outgoing(src, dst, b"hello");
            assert!(sent.deliver(&link, &mut frames));
            let (frame, unfinished) = &frames.0[0];
            assert_eq!(*unfinished, Unfinished::default());
            let bytes = &frame[ETHERNET_HEADER..];
            let packet = Packet::parse_v4(bytes).or_else(|| Packet::parse_v6(bytes)).unwrap();
            assert!(packet.checksum_holds());
            let segment = Segment::parse(&packet).unwrap();
            assert_eq!((segment.src, segment.dst), (sent.src, sent.dst));
            assert_eq!((segment.seq, segment.ack, segment.flags), (sent.seq, sent.ack, sent.flags));
            assert_eq!((segment.window, segment.options), (sent.window, sent.options));
            assert_eq!((segment.payload, segment.len()), (&b"hello!"[..], 7));
        }
    }

    #[test]
    fn what_is_left_to_the_guest_is_said() {
        let (mut link, mut frames) = (Link::new([2; 6]), Frames::default());
        link.offloads = Offloads { checksum: true, tso4: true, tso6: true };
        static LARGE: [u8; 3000] = [7; 3000];
        assert!(outgoing("10.0.2.2:80", "10.0.2.15:4000", &LARGE).deliver(&link, &mut frames));
        let (frame, unfinished) = &frames.0[0];
        let segmentation = Segmentation { v6: false, size: 1460, header_len: 14 + 20 + 28 };
        assert_eq!(*unfinished, Unfinished { checksum: Some((34, 16)), segmentation: Some(segmentation) });
        // The guest adds up from the start of the TCP header on; with the pseudo header's sum in the field, all is well.
        let mut frame = frame.clone();
        let sum = Checksum::of(&frame[34..]);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        assert!(Packet::parse_v4(&frame[14..]).unwrap().checksum_holds());
    }
    use super::super::super::link::Offloads;

    #[test]
    fn broken_options_are_passed_over() {
        assert_eq!(Options::parse(&[]), Options::default());
        assert_eq!(Options::parse(&[1, 1, 2, 4, 5, 0xb4, 0, 9]).max_segment, Some(1460));
        assert_eq!(Options::parse(&[3, 3, 200]).window_scale, Some(14));
        for bytes in [&[2][..], &[2, 0], &[2, 1], &[2, 4, 5], &[8, 200, 0], &[3, 2]] {
            assert_eq!(Options::parse(bytes), Options::default(), "{bytes:?}");
        }
    }
}
