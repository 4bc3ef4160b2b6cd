//! From bytes to packets, and which packets are what they claim to be.
//!
//! gdbstub gives up on malformed packets, and takes some for good that are not: it writes all data of `M`, whatever length the
//! packet states, and reads an `x` in a number as 0. So packets are cut, checked by their checksum, and those that carry
//! addresses, lengths or values are looked at here, before it sees them.

use std::ops::Range;

use super::registers::General;

/// Most bytes of a packet, with frame.
pub(super) const MOST_BYTES: usize = 0x4000;
/// Most bytes of memory that one packet can ask for: their hexadecimal form must fit into a packet.
const MOST_MEMORY: u64 = (MOST_BYTES as u64 - 64) / 2;

/// What gdb sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Ctrl-C.
    Interrupt,
    /// The last answer arrived garbled.
    Again,
    /// A packet with its frame.
    Packet(Vec<u8>),
    /// A packet whose checksum is wrong, or that is too long.
    Garbled,
}

/// The body of a packet.
pub(super) fn body(packet: &[u8]) -> &[u8] {
    let body: Range<usize> = 1..packet.len().saturating_sub(3);
    packet.get(body).unwrap_or_default()
}

/// Puts a frame around a body.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

/// Cuts a stream of bytes.
#[derive(Default)]
pub(super) struct Cutter {
    packet: Vec<u8>,
    /// Bytes after `#`.
    checksum: usize,
    overlong: bool,
}

impl Cutter {
    /// Takes a byte.
    pub(super) fn push(&mut self, byte: u8) -> Option<Item> {
        if self.packet.is_empty() {
            return match byte {
                3 => Some(Item::Interrupt),
                b'-' => Some(Item::Again),
                b'$' => {
                    self.packet.push(byte);
                    None
                }
                // `+`, or noise between packets.
                _ => None,
            };
        }
        // `$` is escaped inside a packet, so the one before it has lost its end.
        if byte == b'$' && self.checksum == 0 {
            *self = Self::default();
            self.packet.push(byte);
            return Some(Item::Garbled);
        }
        if self.packet.len() < MOST_BYTES {
            self.packet.push(byte);
        } else {
            self.overlong = true;
        }
        match (self.checksum, byte) {
            (0, b'#') => self.checksum = 1,
            (0, _) => {}
            (1, _) => self.checksum = 2,
            _ => return Some(self.finish()),
        }
        None
    }

    fn finish(&mut self) -> Item {
        let Self { packet, overlong, .. } = std::mem::take(self);
        let is_whole = !overlong && frame(body(&packet)).eq_ignore_ascii_case(&packet);
        // The body's letters count; frames differ in the checksum's case only.
        if is_whole { Item::Packet(packet) } else { Item::Garbled }
    }
}

/// A number of 1 to 16 hexadecimal digits.
fn hex(text: &[u8]) -> Option<u64> {
    let digits = (1..=16).contains(&text.len()) && text.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| digits)?, 16).ok()
}

fn is_hex(text: &[u8], digits: usize) -> bool {
    text.len() == digits && text.iter().all(u8::is_ascii_hexdigit)
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|&byte| byte == at)?;
    Some((&text[..place], &text[place + 1..]))
}

/// Bytes in the binary form of the protocol; `None` if an escape has nothing after it.
fn binary_length(mut data: &[u8]) -> Option<u64> {
    let mut length = 0;
    while let Some((&byte, rest)) = data.split_first() {
        data = if byte == b'}' { rest.split_first()?.1 } else { rest };
        length += 1;
    }
    Some(length)
}

/// Whether a packet that names memory or registers does so as the protocol says, with the amount of data that it states.
/// What other packets mean is left to gdbstub.
pub(super) fn is_sound(body: &[u8]) -> bool {
    sound(body).unwrap_or(false)
}

fn sound(body: &[u8]) -> Option<bool> {
    let (&kind, rest) = body.split_first()?;
    Some(match kind {
        b'm' => {
            let (address, length) = split(rest, b',')?;
            hex(address)?;
            hex(length)? <= MOST_MEMORY
        }
        b'M' | b'X' => {
            let (place, data) = split(rest, b':')?;
            let (address, length) = split(place, b',')?;
            let (start, length) = (hex(address)?, hex(length)?);
            let agrees = match kind {
                b'M' => usize::try_from(length).is_ok_and(|length| is_hex(data, length.saturating_mul(2))),
                _ => binary_length(data)? == length,
            };
            agrees && (length == 0 || start.checked_add(length - 1).is_some())
        }
        b'p' => hex(rest).is_some(),
        b'P' => {
            let (number, value) = split(rest, b'=')?;
            hex(number)?;
            is_hex(value, 16)
        }
        b'g' => rest.is_empty(),
        b'G' => is_hex(rest, 2 * General::SIZE),
        b'Z' | b'z' => {
            let (kind, place) = split(rest, b',')?;
            let (address, length) = split(place, b',')?;
            is_hex(kind, 1) && hex(address).is_some() && hex(length).is_some()
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> Vec<Item> {
        let mut cutter = Cutter::default();
        bytes.iter().filter_map(|&byte| cutter.push(byte)).collect()
    }

    #[test]
    fn packets_are_cut_and_checked() {
        let packet = |body: &[u8]| Item::Packet(frame(body));
        assert_eq!(cut(b"+$g#67\x03-"), [packet(b"g"), Item::Interrupt, Item::Again]);
        assert_eq!(cut(b"noise$g#68$g#67"), [Item::Garbled, packet(b"g")]);
        // The first packet lost its end.
        assert_eq!(cut(b"$m12$g#67"), [Item::Garbled, packet(b"g")]);
        assert_eq!(cut(b"$#00"), [packet(b"")]);
        assert_eq!(cut(b"$jJ#B4"), [Item::Packet(b"$jJ#B4".to_vec())]);
    }

    #[test]
    fn overlong_packets_take_no_memory_and_the_next_is_found() {
        let mut cutter = Cutter::default();
        let items: Vec<_> =
            [b'$'].into_iter().chain([b'm'; 100_000]).filter_map(|byte| cutter.push(byte)).collect();
        assert!(items.is_empty() && cutter.packet.len() == MOST_BYTES);
        let items: Vec<_> = b"#00$g#67".iter().filter_map(|&byte| cutter.push(byte)).collect();
        assert_eq!(items, [Item::Garbled, Item::Packet(b"$g#67".to_vec())]);
    }

    #[test]
    fn packets_that_contradict_themselves_are_not_sound() {
        for body in [
            "m80000000,10",
            "M80000000,2:0a0B",
            "M0,0:",
            "X80000000,2:a}\x03",
            "p20",
            "P20=0000000080000000",
            "Z0,80000000,2",
            "z4,80000000,8",
            "qSupported",
            "vCont;c",
            "",
        ] {
            assert!(is_sound(body.as_bytes()) != body.is_empty(), "{body}");
        }
        for body in [
            "m",
            "m80000000",
            "m8000x000,1",
            "m80000000,10000",
            "m80000000,fffffffffffffff1",
            "M80000000,1:0011",
            "M80000000,2:00",
            "M80000000,1:0x",
            "Mffffffffffffffff,2:0000",
            "X80000000,1:ab",
            "X0,1:}",
            "p",
            "P20=0",
            "P20=x000000080000000",
            "G00",
            "g0",
            "Z0,80000000",
            "Z0,,2",
            "M123456789abcdef01,1:00",
        ] {
            assert!(!is_sound(body.as_bytes()), "{body}");
        }
    }
}
