//! Partition tables: GPT (UEFI specification, chapter 5) and the MBR of PCs.

use std::io;

use flate2::Crc;

use crate::source::{Window, u16_at, u32_at, u64_at};

/// Bytes that every table counts in, unless a GPT shows that it counts in [`LARGE_SECTOR`].
const SECTOR: u64 = 512;
const LARGE_SECTOR: u64 = 4096;

/// More partitions than this are not looked at.
const MAX_PARTITIONS: usize = 128;

/// The kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

impl Scheme {
    /// As messages name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        }
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Counted from 1, as Linux counts.
    pub(crate) number: u32,
    /// Its first byte on the disk.
    pub(crate) start: u64,
    /// Its bytes.
    pub(crate) len: u64,
}

/// The partitions of a disk in the order of their numbers; `None` if it has no table.
pub(crate) fn read(disk: &Window) -> io::Result<Option<(Scheme, Vec<Partition>)>> {
    let mbr = disk.bytes_up_to(0, SECTOR as usize)?;
    let signed = mbr.len() == SECTOR as usize && mbr[0x1fe..] == [0x55, 0xaa];
    for sector in [SECTOR, LARGE_SECTOR] {
        let last = (disk.len() / sector).saturating_sub(1);
        for header in [1, last] {
            if let Some(partitions) = gpt(disk, sector, header)? {
                return Ok(Some((Scheme::Gpt, partitions)));
            }
        }
    }
    if !signed {
        return Ok(None);
    }
    let partitions = mbr_partitions(disk, &mbr)?;
    Ok(if partitions.is_empty() { None } else { Some((Scheme::Mbr, partitions)) })
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The partitions of the GPT whose header is in sector `header`, if a valid one is.
fn gpt(disk: &Window, sector: u64, header: u64) -> io::Result<Option<Vec<Partition>>> {
    const HEADER: usize = 92;
    const ENTRY: u32 = 128;
    let bytes = disk.bytes_up_to(header.saturating_mul(sector), HEADER)?;
    if bytes.len() < HEADER || !bytes.starts_with(b"EFI PART") || u32_at(&bytes, 12) != HEADER as u32 {
        return Ok(None);
    }
    let mut checked = bytes.clone();
    checked[16..20].fill(0);
    let (count, size) = (u32_at(&bytes, 80), u32_at(&bytes, 84));
    if crc32(&checked) != u32_at(&bytes, 16) || size < ENTRY || !size.is_power_of_two() || size > 4096 {
        return Ok(None);
    }
    let count = count.min(MAX_PARTITIONS as u32 * 4);
    let table =
        disk.bytes_up_to(u64_at(&bytes, 72).saturating_mul(sector), count as usize * size as usize)?;
    if count == u32_at(&bytes, 80) && crc32(&table) != u32_at(&bytes, 88) {
        return Ok(None);
    }
    let mut partitions = Vec::new();
    for (index, entry) in table.chunks_exact(size as usize).enumerate() {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if entry[..16] == [0; 16] || last < first || partitions.len() == MAX_PARTITIONS {
            continue;
        }
        let start = first.saturating_mul(sector);
        let len = (last - first).saturating_add(1).saturating_mul(sector);
        if start < disk.len() {
            partitions.push(Partition { number: index as u32 + 1, start, len: len.min(disk.len() - start) });
        }
    }
    Ok(Some(partitions))
}

/// Types of MBR partitions that hold further ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

fn mbr_entry(table: &[u8], index: usize) -> (u8, u64, u64) {
    let entry = &table[0x1be + index * 16..][..16];
    (entry[4], u64::from(u32_at(entry, 8)) * SECTOR, u64::from(u32_at(entry, 12)) * SECTOR)
}

fn mbr_partitions(disk: &Window, mbr: &[u8]) -> io::Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    let mut add = |number, start: u64, len: u64| {
        if len > 0 && start < disk.len() {
            partitions.push(Partition { number, start, len: len.min(disk.len() - start) });
        }
    };
    let mut chain = None;
    for index in 0..4 {
        let (kind, start, len) = mbr_entry(mbr, index);
        match kind {
            0 => {}
            kind if EXTENDED.contains(&kind) => chain = chain.or(Some(start)),
            _ => add(index as u32 + 1, start, len),
        }
    }
    // Logical partitions: each table has one of them, and where the next table is, counted from the first.
    let base = chain.unwrap_or(0);
    let mut number = 5;
    while let Some(at) = chain.take() {
        let table = disk.bytes_up_to(at, SECTOR as usize)?;
        if table.len() < SECTOR as usize || u16_at(&table, 0x1fe) != 0xaa55 || number > 64 {
            break;
        }
        let (kind, start, len) = mbr_entry(&table, 0);
        if kind != 0 {
            add(number, at.saturating_add(start), len);
        }
        number += 1;
        let (kind, next, _) = mbr_entry(&table, 1);
        chain = (EXTENDED.contains(&kind) && next > 0).then(|| base.saturating_add(next));
    }
    Ok(partitions)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    /// A disk of `sectors` with a GPT of `partitions`: number, first sector, sectors.
    pub(crate) fn gpt_disk(sectors: usize, partitions: &[(usize, u64, u64)]) -> Vec<u8> {
        let mut disk = vec![0; sectors * 512];
        let mut table = vec![0; 128 * 128];
        for &(number, first, count) in partitions {
            let entry = &mut table[(number - 1) * 128..][..128];
            entry[..16].fill(7);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&(first + count - 1).to_le_bytes());
        }
        for (at, entries) in [(1, 2), (sectors as u64 - 1, sectors as u64 - 33)] {
            let mut header = [0; 92];
            header[..8].copy_from_slice(b"EFI PART");
            header[12] = 92;
            header[72..80].copy_from_slice(&u64::to_le_bytes(entries));
            header[80] = 128;
            header[84] = 128;
            header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
            let crc = crc32(&header).to_le_bytes();
            header[16..20].copy_from_slice(&crc);
            disk[at as usize * 512..][..92].copy_from_slice(&header);
            disk[entries as usize * 512..][..table.len()].copy_from_slice(&table);
        }
        disk[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        disk[0x1c2] = 0xee;
        disk
    }

    fn set_mbr(disk: &mut [u8], table: usize, index: usize, kind: u8, start: u32, count: u32) {
        let at = table * 512;
        disk[at + 0x1fe..at + 0x200].copy_from_slice(b"\x55\xaa");
        let entry = &mut disk[at + 0x1be + index * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&count.to_le_bytes());
    }

    fn parse(disk: Vec<u8>) -> Option<(Scheme, Vec<Partition>)> {
        read(&Window::new(Arc::new(disk))).unwrap()
    }

    fn sectors(number: u32, start: u64, len: u64) -> Partition {
        Partition { number, start: start * 512, len: len * 512 }
    }

    #[test]
    fn gpt_is_read_from_either_end() {
        let mut disk = gpt_disk(400, &[(1, 100, 50), (15, 40, 8)]);
        let expected = Some((Scheme::Gpt, vec![sectors(1, 100, 50), sectors(15, 40, 8)]));
        assert_eq!(parse(disk.clone()), expected);
        disk[512 + 20] ^= 1;
        assert_eq!(parse(disk.clone()), expected, "the backup is used");
        disk[512 + 20] ^= 1;
        disk[1024 + 128 + 3] ^= 1;
        assert_eq!(parse(disk), expected, "the entries have a checksum too");
    }

    #[test]
    fn partitions_end_with_the_disk() {
        let disk = gpt_disk(400, &[(1, 300, 5000), (2, 400, 1), (3, u64::MAX / 2, 1)]);
        assert_eq!(parse(disk), Some((Scheme::Gpt, vec![sectors(1, 300, 100)])));
    }

    #[test]
    fn mbr_has_primary_and_logical_partitions() {
        let mut disk = vec![0; 1000 * 512];
        set_mbr(&mut disk, 0, 0, 0x83, 10, 20);
        set_mbr(&mut disk, 0, 2, 0x05, 100, 800);
        set_mbr(&mut disk, 100, 0, 0x83, 1, 50);
        set_mbr(&mut disk, 100, 1, 0x05, 200, 100);
        set_mbr(&mut disk, 300, 0, 0x83, 2, 60);
        let expected = vec![sectors(1, 10, 20), sectors(5, 101, 50), sectors(6, 302, 60)];
        assert_eq!(parse(disk.clone()), Some((Scheme::Mbr, expected)));
        // A chain that leads back to itself.
        set_mbr(&mut disk, 300, 1, 0x05, 200, 100);
        assert!(parse(disk).unwrap().1.len() <= 64);
    }

    #[test]
    fn no_table_is_none() {
        assert_eq!(parse(vec![0; 4096]), None);
        assert_eq!(parse(Vec::new()), None);
        assert_eq!(parse(vec![0; 100]), None);
    }
}
