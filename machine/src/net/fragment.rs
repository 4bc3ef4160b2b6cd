//! Putting fragments back together (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::collections::VecDeque;
use std::net::IpAddr;

use super::wire::{Fragment, Packet};

/// Packets in pieces at the same time; the oldest goes when there is one more.
const MAX_PACKETS: usize = 16;
/// Bytes of one packet.
const MAX_BYTES: usize = 65_535;

#[derive(Debug)]
struct Partial {
    key: (IpAddr, IpAddr, u8, u32),
    /// Sorted by offset; they do not overlap.
    pieces: Vec<(usize, Vec<u8>)>,
    /// Known once the last piece is there.
    total: Option<usize>,
}

/// The packets that are not complete yet.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    packets: VecDeque<Partial>,
}

impl Fragments {
    /// Adds a piece; returns the payload of its packet if that is complete now. A packet with pieces that overlap or do
    /// not fit is dropped (RFC 5722).
    pub(super) fn add(&mut self, packet: &Packet<'_>, fragment: Fragment) -> Option<Vec<u8>> {
        let key = (packet.src, packet.dst, packet.protocol, fragment.id);
        let index = self.packets.iter().position(|partial| partial.key == key).unwrap_or_else(|| {
            if self.packets.len() == MAX_PACKETS {
                self.packets.pop_front();
            }
            self.packets.push_back(Partial { key, pieces: Vec::new(), total: None });
            self.packets.len() - 1
        });
        match self.packets[index].add(fragment, packet.payload) {
            Ok(false) => None,
            Ok(true) => {
                let partial = self.packets.remove(index)?;
                Some(partial.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect())
            }
            Err(Unfit) => {
                self.packets.remove(index);
                None
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.packets.iter().flat_map(|partial| &partial.pieces).map(|(_, bytes)| bytes.len()).sum()
    }
}

/// A piece that does not fit.
struct Unfit;

impl Partial {
    /// Whether the packet is complete with this piece.
    fn add(&mut self, fragment: Fragment, payload: &[u8]) -> Result<bool, Unfit> {
        let (start, end) = (fragment.offset, fragment.offset + payload.len());
        // All pieces but the last are multiples of 8 bytes. An empty one could be repeated for ever.
        if end > MAX_BYTES || payload.is_empty() || fragment.more && !payload.len().is_multiple_of(8) {
            return Err(Unfit);
        }
        let at = self.pieces.partition_point(|(offset, _)| *offset < start);
        if let Some((offset, bytes)) = self.pieces.get(at) {
            if *offset == start && *bytes == payload {
                return Ok(false);
            }
            if *offset < end {
                return Err(Unfit);
            }
        }
        if at.checked_sub(1).is_some_and(|before| self.pieces[before].0 + self.pieces[before].1.len() > start)
        {
            return Err(Unfit);
        }
        if !fragment.more {
            self.total = Some(end);
        }
        if self.total.is_some_and(|total| end > total || !fragment.more && at < self.pieces.len()) {
            return Err(Unfit);
        }
        self.pieces.insert(at, (start, payload.to_vec()));
        let have: usize = self.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        Ok(self.total == Some(have))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Packet<'_> {
        let src = "10.0.2.15".parse().unwrap();
        Packet { src, dst: src, protocol: 17, hops: 1, fragment: None, payload, whole: payload }
    }

    fn piece(id: u32, offset: usize, more: bool) -> Fragment {
        Fragment { id, offset, more }
    }

    #[test]
    fn pieces_in_any_order_make_the_packet() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(&packet(b"tail"), piece(1, 16, false)), None);
        assert_eq!(fragments.add(&packet(b"01234567"), piece(1, 0, true)), None);
        assert_eq!(fragments.add(&packet(b"01234567"), piece(1, 0, true)), None, "a repeated piece");
        let whole = fragments.add(&packet(b"89abcdef"), piece(1, 8, true)).unwrap();
        assert_eq!(whole, b"0123456789abcdeftail");
        assert_eq!(fragments.bytes(), 0);
    }

    #[test]
    fn pieces_that_do_not_fit_drop_the_packet() {
        let mut fragments = Fragments::default();
        for (first, second) in [
            (piece(1, 0, true), piece(1, 4, true)),
            (piece(1, 8, false), piece(1, 0, false)),
            (piece(1, 8, false), piece(1, 16, true)),
        ] {
            assert_eq!(fragments.add(&packet(b"01234567"), first), None);
            assert_eq!(fragments.add(&packet(b"89abcdef"), second), None);
            fragments.add(&packet(b"odd"), piece(1, 64, true));
            assert_eq!(fragments.bytes(), 0);
        }
        assert_eq!(fragments.add(&packet(&[0; 8]), piece(2, 65_528, true)), None);
        assert_eq!(fragments.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut fragments = Fragments::default();
        for id in 0..10_000 {
            for offset in (0..65_528).step_by(1480).take(if id % 100 == 0 { 50 } else { 1 }) {
                fragments.add(&packet(&[0; 1480]), piece(id, offset, true));
            }
        }
        assert!(fragments.bytes() <= MAX_PACKETS * MAX_BYTES);
        assert!(fragments.packets.len() <= MAX_PACKETS);
    }
}
