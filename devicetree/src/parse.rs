//! From a blob to the tree in memory. The blob may come from a user's file: every offset and length in it is checked, and
//! the tree takes memory in proportion to the blob.

use crate::{Error, MAX_DEPTH, Node, Property};

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Bytes in the longest property name that is accepted. The specification allows 31; vendors use more. The limit keeps a
/// small blob from naming one huge string again and again.
const MAX_PROPERTY_NAME: usize = 255;

/// Reads a blob of version 16 or 17. Bytes after the blob's `totalsize` are ignored.
///
/// # Errors
/// [`Error::BadMagic`], [`Error::BadVersion`], [`Error::Truncated`] or [`Error::Malformed`], with the offset.
pub fn parse(blob: &[u8]) -> Result<Node, Error> {
    let header = Header::read(blob)?;
    let mut reader = Reader { blob: header.blob, at: header.structure, end: header.structure_end };
    loop {
        let at = reader.at;
        match reader.u32("a token")? {
            NOP => {}
            BEGIN_NODE => break,
            _ => {
                return Err(Error::Malformed {
                    what: "the structure block does not begin with a node",
                    offset: at,
                });
            }
        }
    }
    let root = reader.node(&header, 1)?;
    loop {
        let at = reader.at;
        match reader.u32("the end token")? {
            NOP => {}
            END => return Ok(root),
            _ => return Err(Error::Malformed { what: "something follows the root node", offset: at }),
        }
    }
}

/// The memory reservation block of a blob: (address, size) pairs.
///
/// # Errors
/// As [`parse`].
pub fn reservations(blob: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    let header = Header::read(blob)?;
    let mut reader = Reader { blob: header.blob, at: header.reservations, end: header.blob.len() };
    let mut list = Vec::new();
    loop {
        match (reader.u64("a memory reservation")?, reader.u64("a memory reservation")?) {
            (0, 0) => return Ok(list),
            entry => list.push(entry),
        }
    }
}

/// The header's offsets, each within `blob`, which is cut to `totalsize`.
struct Header<'a> {
    blob: &'a [u8],
    structure: usize,
    structure_end: usize,
    strings: usize,
    strings_end: usize,
    reservations: usize,
}

impl<'a> Header<'a> {
    fn read(blob: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader { blob, at: 0, end: blob.len() };
        let magic = reader.u32("the header")?;
        if magic != MAGIC {
            return Err(Error::BadMagic { found: magic });
        }
        let mut fields = [0u32; 8];
        for field in &mut fields {
            *field = reader.u32("the header")?;
        }
        let [total, structure, strings, reservations, version, last_compatible, _boot_cpuid, strings_size] =
            fields;
        if version < 16 || last_compatible > 17 {
            return Err(Error::BadVersion { version, last_compatible });
        }
        let total = total as usize;
        let blob = blob.get(..total).ok_or(Error::Truncated { what: "the end", offset: total })?;
        let block = |what, start: u32, size: u32| {
            let (start, size) = (start as usize, size as usize);
            match start.checked_add(size) {
                Some(end) if end <= total => Ok((start, end)),
                _ => Err(Error::Truncated { what, offset: start }),
            }
        };
        let structure_size =
            if version >= 17 { reader.u32("the header")? } else { fields[0].saturating_sub(structure) };
        let (structure, structure_end) = block("the structure block", structure, structure_size)?;
        let (strings, strings_end) = block("the strings block", strings, strings_size)?;
        let (reservations, _) = block("the memory reservation block", reservations, 0)?;
        Ok(Self { blob, structure, structure_end, strings, strings_end, reservations })
    }

    fn property_name(&self, offset: u32, token: usize) -> Result<String, Error> {
        let start = self.strings.saturating_add(offset as usize);
        let bytes = self
            .blob
            .get(start..self.strings_end)
            .ok_or(Error::Truncated { what: "a property's name", offset: token })?;
        let bytes = &bytes[..bytes.len().min(MAX_PROPERTY_NAME + 1)];
        let length = bytes.iter().position(|&byte| byte == 0);
        let name = length.and_then(|length| std::str::from_utf8(&bytes[..length]).ok());
        let what = "a property's name is not terminated, too long or not text";
        name.map(str::to_owned).ok_or(Error::Malformed { what, offset: token })
    }
}

/// A cursor over `blob` that does not pass `end`.
struct Reader<'a> {
    blob: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let truncated = Error::Truncated { what, offset: self.at };
        let Some(end) = self.at.checked_add(length).filter(|&end| end <= self.end) else {
            return Err(truncated);
        };
        let bytes = self.blob.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        let mut value = [0; 4];
        value.copy_from_slice(self.bytes(4, what)?);
        Ok(u32::from_be_bytes(value))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        Ok(u64::from(self.u32(what)?) << 32 | u64::from(self.u32(what)?))
    }

    /// Moves on to the next multiple of four bytes, from where tokens are counted.
    fn align(&mut self, start: usize) {
        self.at = start + (self.at - start).next_multiple_of(4);
    }

    /// The rest of a node whose BEGIN_NODE token has been read.
    fn node(&mut self, header: &Header, depth: usize) -> Result<Node, Error> {
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(Error::Malformed { what: "nodes are nested too deeply", offset: start });
        }
        let rest = self.blob.get(start..self.end).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == 0);
        let length = length.ok_or(Error::Truncated { what: "a node's name", offset: start })?;
        let name = std::str::from_utf8(&rest[..length])
            .map_err(|_| Error::Malformed { what: "a node's name is not text", offset: start })?;
        let mut node = Node::new(name);
        self.bytes(length + 1, "a node's name")?;
        self.align(start);
        loop {
            let token_at = self.at;
            match self.u32("a token")? {
                NOP => {}
                BEGIN_NODE => node.children.push(self.node(header, depth + 1)?),
                END_NODE => return Ok(node),
                PROP => {
                    let length = self.u32("a property's length")?;
                    let name = header.property_name(self.u32("a property's name")?, token_at)?;
                    let start = self.at;
                    let value = self.bytes(length as usize, "a property's value")?.to_vec();
                    self.align(start);
                    node.properties.push(Property { name, value });
                }
                _ => return Err(Error::Malformed { what: "unknown token", offset: token_at }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flatten;

    fn sample() -> Node {
        let mut root = Node::new("");
        root.set_u32("#address-cells", 2).set_string("compatible", "riscv-virtio").set_empty("dma-coherent");
        let cpus = root.child("cpus");
        cpus.set_u32("timebase-frequency", 10_000_000);
        cpus.child("cpu@0").set_bytes("odd", [1, 2, 3]).set_u32("phandle", 1).child("interrupt-controller");
        root.child("soc")
            .set_strings("compatible", &["a", "b"])
            .child("serial@10000000")
            .set_reg(&[(0x1000_0000, 0x100)]);
        root
    }

    #[test]
    fn what_was_flattened_is_read_back() {
        assert_eq!(parse(&flatten(&sample(), 0, &[]).unwrap()).unwrap(), sample());
    }

    #[test]
    fn reservations_are_read_back() {
        let list = [(0x8000_0000, 0x20_0000), (0x9000_0000, 0x1000)];
        let blob = flatten(&sample(), 0, &list).unwrap();
        assert_eq!(reservations(&blob).unwrap(), list);
        assert_eq!(parse(&blob).unwrap(), sample());
    }

    #[test]
    fn bytes_after_the_blob_are_ignored() {
        let mut blob = flatten(&sample(), 0, &[]).unwrap();
        blob.extend_from_slice(&[0xff; 100]);
        assert_eq!(parse(&blob).unwrap(), sample());
    }

    #[test]
    fn other_files_are_named_as_such() {
        assert_eq!(parse(b"\x7fELF and more"), Err(Error::BadMagic { found: 0x7f45_4c46 }));
        assert_eq!(parse(b""), Err(Error::Truncated { what: "the header", offset: 0 }));
    }

    #[test]
    fn unknown_versions_are_refused() {
        let mut blob = flatten(&sample(), 0, &[]).unwrap();
        blob[23] = 15;
        assert_eq!(parse(&blob), Err(Error::BadVersion { version: 15, last_compatible: 16 }));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let blob = flatten(&sample(), 0, &[]).unwrap();
        for length in 0..blob.len() {
            assert!(parse(&blob[..length]).is_err(), "{length} bytes");
        }
    }

    // Any byte may change to anything: the answer may be a tree or an error, never a panic.
    #[test]
    fn no_single_byte_change_panics() {
        let blob = flatten(&sample(), 0, &[(0x8000_0000, 0x1000)]).unwrap();
        for index in 0..blob.len() {
            for value in [0, 1, 2, 3, 4, 9, 0x40, 0x7f, 0x80, 0xff] {
                let mut changed = blob.clone();
                changed[index] = value;
                let (_, _) = (parse(&changed), reservations(&changed));
            }
        }
    }

    #[test]
    fn nesting_without_end_is_an_error() {
        let mut blob = flatten(&sample(), 0, &[]).unwrap();
        let start = blob.len();
        blob.resize(start + 8 * 10_000, 0);
        for index in 0..10_000 {
            blob[start + 8 * index + 3] = BEGIN_NODE as u8;
        }
        let (total, structure) = (blob.len() as u32, start as u32);
        blob[4..8].copy_from_slice(&total.to_be_bytes());
        blob[8..12].copy_from_slice(&structure.to_be_bytes());
        blob[36..40].copy_from_slice(&(total - structure).to_be_bytes());
        assert!(matches!(parse(&blob), Err(Error::Malformed { what: "nodes are nested too deeply", .. })));
    }
}
