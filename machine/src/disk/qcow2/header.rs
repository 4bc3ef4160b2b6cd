//! The header of a qcow2 image: what is where, and what a program must know to use the image.
//!
//! Field offsets are those of QEMU's `docs/interop/qcow2.rst`. The header is judged once; nothing else in the image is
//! looked at before, and everything that a number here can make us allocate has a limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Qcow2Error;

/// The first bytes of every qcow (and qcow2) image.
pub(in crate::disk) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of a version 2 header.
const LEN_V2: usize = 72;
/// Bytes of the version 3 header that has all fields known here.
const LEN_V3: usize = 112;

/// The clusters QEMU makes: 512 bytes to 2 MiB.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// QEMU's own limits on what is held in memory: bytes of the L1 table, of the refcount table.
pub(super) const MAX_L1_BYTES: u64 = 32 << 20;
pub(super) const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// Longest name of a backing file.
pub(super) const MAX_BACKING_NAME: usize = 1023;
/// Most internal snapshots.
const MAX_SNAPSHOTS: u32 = 65536;

/// Incompatible feature: refcounts may be wrong, tables are right.
pub(super) const DIRTY: u64 = 1 << 0;
/// Incompatible feature: do not write.
pub(super) const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// Zstandard.
    Zstd,
}

/// A header that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Bytes that the guest sees.
    pub(super) size: u64,
    pub(super) backing: Option<String>,
    pub(super) backing_format: Option<String>,
    /// Entries.
    pub(super) l1_size: u32,
    pub(super) l1_offset: u64,
    pub(super) reftable_offset: u64,
    pub(super) reftable_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) compatible: u64,
    pub(super) autoclear: u64,
    /// log2 of a refcount's bits.
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Header {
    /// Reads and judges the header of `file`.
    pub(super) fn read(file: &File) -> Result<Self, Qcow2Error> {
        let mut start = vec![0; LEN_V3];
        let len = read_up_to(file, 0, &mut start)?;
        start.truncate(len);
        if len < LEN_V2 || start[..4] != MAGIC {
            return Err(Qcow2Error::Header("it has no whole header"));
        }
        let version = be32(&start, 4);
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version));
        }
        let cluster_bits = be32(&start, 20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Qcow2Error::Header("its cluster size is not 512 bytes to 2 MiB"));
        }
        match be32(&start, 32) {
            0 => {}
            1 => return Err(Qcow2Error::Encrypted("AES")),
            2 => return Err(Qcow2Error::Encrypted("LUKS")),
            _ => return Err(Qcow2Error::Encrypted("an unknown method")),
        }
        let mut header = Self {
            version,
            cluster_bits,
            size: be64(&start, 24),
            backing: None,
            backing_format: None,
            l1_size: be32(&start, 36),
            l1_offset: be64(&start, 40),
            reftable_offset: be64(&start, 48),
            reftable_clusters: be32(&start, 56),
            snapshots: be32(&start, 60),
            snapshots_offset: be64(&start, 64),
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            compression: Compression::Zlib,
        };
        let mut length = LEN_V2;
        if version >= 3 {
            length = be32(&start, 100) as usize;
            if length < 104 || length > header.cluster_size() as usize || len < 104 {
                return Err(Qcow2Error::Header("the length of its header is wrong"));
            }
            header.incompatible = be64(&start, 72);
            header.compatible = be64(&start, 80);
            header.autoclear = be64(&start, 88);
            header.refcount_order = be32(&start, 96);
            if length > 104 {
                header.compression = match start.get(104) {
                    Some(1) => Compression::Zstd,
                    Some(0) | None => Compression::Zlib,
                    Some(_) => return Err(Qcow2Error::Feature("an unknown kind of compression")),
                };
            }
        }
        header.judge()?;

        // Extensions and the backing file's name live in the first cluster.
        let mut cluster = vec![0; header.cluster_size() as usize];
        let len = read_up_to(file, 0, &mut cluster)?;
        cluster.truncate(len);
        let (name_at, name_len) = (be64(&cluster, 8), be32(&cluster, 16) as usize);
        if name_at != 0 && name_len != 0 {
            if name_len > MAX_BACKING_NAME {
                return Err(Qcow2Error::Header("the name of its backing file is too long"));
            }
            let at = usize::try_from(name_at).unwrap_or(usize::MAX);
            let name = at.checked_add(name_len).and_then(|end| cluster.get(at..end));
            let name =
                name.ok_or(Qcow2Error::Header("the name of its backing file is not in its first cluster"))?;
            let name = String::from_utf8(name.to_vec())
                .map_err(|_| Qcow2Error::Header("the name of its backing file is not UTF-8"))?;
            if name.contains('\0') {
                return Err(Qcow2Error::Header("the name of its backing file has a zero in it"));
            }
            header.backing = Some(name);
        }
        let end = if header.backing.is_some() { be64(&cluster, 8) as usize } else { cluster.len() };
        header.backing_format = backing_format(cluster.get(..end).unwrap_or(&cluster), length);
        Ok(header)
    }

    fn judge(&self) -> Result<(), Qcow2Error> {
        if self.incompatible & EXTERNAL_DATA != 0 {
            return Err(Qcow2Error::Feature("an external data file"));
        }
        if self.incompatible & EXTENDED_L2 != 0 {
            return Err(Qcow2Error::Feature("subclusters (extended_l2)"));
        }
        let unknown = self.incompatible & !(DIRTY | CORRUPT | COMPRESSION);
        if unknown != 0 {
            return Err(Qcow2Error::UnknownFeatures(unknown));
        }
        if self.compression != Compression::Zlib && self.incompatible & COMPRESSION == 0 {
            return Err(Qcow2Error::Header("its compression contradicts its features"));
        }
        if self.refcount_order > 6 {
            return Err(Qcow2Error::Header("its refcounts have more than 64 bits"));
        }
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(Qcow2Error::Header("it has too many internal snapshots"));
        }
        if !self.size.is_multiple_of(crate::disk::SECTOR_SIZE) || self.size == 0 {
            return Err(Qcow2Error::Header("its size is not a positive multiple of 512 bytes"));
        }
        if u64::from(self.l1_size) * 8 > MAX_L1_BYTES {
            return Err(Qcow2Error::Header("its L1 table is larger than 32 MiB"));
        }
        if u64::from(self.l1_size) < self.l1_entries(self.size) {
            return Err(Qcow2Error::Header("its L1 table is too short for its size"));
        }
        if u64::from(self.reftable_clusters) << self.cluster_bits
            > MAX_REFTABLE_BYTES.max(self.cluster_size())
        {
            return Err(Qcow2Error::Header("its refcount table is larger than 8 MiB"));
        }
        let aligned = |offset: u64| offset.is_multiple_of(self.cluster_size()) && offset < 1 << 56;
        if !aligned(self.l1_offset) || !aligned(self.reftable_offset) || !aligned(self.snapshots_offset) {
            return Err(Qcow2Error::Header("a table is not at the start of a cluster"));
        }
        Ok(())
    }

    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// L1 entries that a disk of `size` bytes needs: an L2 table has a cluster of 8-byte entries.
    pub(super) fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(self.cluster_size() << (self.cluster_bits - 3))
    }

    /// Whether QEMU found the image to be broken.
    pub(super) fn is_corrupt(&self) -> bool {
        self.incompatible & CORRUPT != 0
    }

    /// The fields that change while an image is in use, and their offset. All are in the first sector, so that one write
    /// changes the image from one state to the next.
    pub(super) fn changing_fields(&self) -> (u64, Vec<u8>) {
        const FIRST: u64 = 24;
        let mut bytes = Vec::new();
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(0_u32.to_be_bytes()); // crypt_method
        bytes.extend(self.l1_size.to_be_bytes());
        bytes.extend(self.l1_offset.to_be_bytes());
        bytes.extend(self.reftable_offset.to_be_bytes());
        bytes.extend(self.reftable_clusters.to_be_bytes());
        bytes.extend(self.snapshots.to_be_bytes());
        bytes.extend(self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            bytes.extend(self.incompatible.to_be_bytes());
            bytes.extend(self.compatible.to_be_bytes());
            bytes.extend(self.autoclear.to_be_bytes());
        }
        (FIRST, bytes)
    }

    /// A whole first cluster.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.cluster_size() as usize];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.version.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.cluster_bits.to_be_bytes());
        let (at, fields) = self.changing_fields();
        bytes[at as usize..at as usize + fields.len()].copy_from_slice(&fields);
        bytes[96..100].copy_from_slice(&self.refcount_order.to_be_bytes());
        bytes[100..104].copy_from_slice(&(LEN_V3 as u32).to_be_bytes());
        let mut at = LEN_V3;
        if let Some(format) = &self.backing_format {
            bytes[at..at + 4].copy_from_slice(&EXTENSION_BACKING_FORMAT.to_be_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&(format.len() as u32).to_be_bytes());
            bytes[at + 8..at + 8 + format.len()].copy_from_slice(format.as_bytes());
            at += 8 + format.len().next_multiple_of(8);
        }
        // The end of the extensions is eight zeros.
        at += 8;
        if let Some(name) = &self.backing {
            bytes[8..16].copy_from_slice(&(at as u64).to_be_bytes());
            bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        bytes
    }
}

fn backing_format(cluster: &[u8], mut at: usize) -> Option<String> {
    while at + 8 <= cluster.len() {
        let (kind, len) = (be32(cluster, at), be32(cluster, at + 4) as usize);
        if kind == EXTENSION_END {
            return None;
        }
        let data = cluster.get(at + 8..at.checked_add(8)?.checked_add(len)?)?;
        if kind == EXTENSION_BACKING_FORMAT {
            return String::from_utf8(data.to_vec()).ok();
        }
        at = at.checked_add(8 + len.checked_next_multiple_of(8)?)?;
    }
    None
}

/// One internal snapshot, as far as others need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The number QEMU gives it.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    pub(super) l1_offset: u64,
    pub(super) l1_size: u32,
}

/// Reads the table of internal snapshots, and how many bytes it has.
pub(super) fn snapshots(file: &File, header: &Header) -> Result<(Vec<Snapshot>, u64), Qcow2Error> {
    /// QEMU's limits: bytes of the whole table, of the extra data of one snapshot.
    const MAX_TABLE: u64 = 64 << 20;
    const MAX_EXTRA: u32 = 1024;
    let bad = || Qcow2Error::Header("its table of internal snapshots is damaged");
    let mut list = Vec::new();
    let mut at = header.snapshots_offset;
    for _ in 0..header.snapshots {
        let mut fixed = [0; 40];
        file.read_exact_at(&mut fixed, at).map_err(|_| bad())?;
        let half = |at: usize| usize::from(u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        let (id_len, name_len, extra) = (half(12), half(14), be32(&fixed, 36));
        if extra > MAX_EXTRA {
            return Err(bad());
        }
        let mut names = vec![0; id_len + name_len];
        file.read_exact_at(&mut names, at + 40 + u64::from(extra)).map_err(|_| bad())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (l1_offset, l1_size) = (be64(&fixed, 0), be32(&fixed, 8));
        if u64::from(l1_size) * 8 > MAX_L1_BYTES || !l1_offset.is_multiple_of(header.cluster_size()) {
            return Err(bad());
        }
        list.push(Snapshot { id: text(&names[..id_len]), name: text(&names[id_len..]), l1_offset, l1_size });
        let len = 40 + u64::from(extra) + (id_len + name_len) as u64;
        at = at.checked_add(len.next_multiple_of(8)).ok_or_else(bad)?;
        if at - header.snapshots_offset > MAX_TABLE {
            return Err(bad());
        }
    }
    Ok((list, at - header.snapshots_offset))
}

/// Fills `into` as far as the file goes; returns the bytes there were.
pub(super) fn read_up_to(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
