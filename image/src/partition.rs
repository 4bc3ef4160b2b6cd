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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::source::Source;

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

    /// A disk that notices reads outside of it, and counts what is read.
    struct Watched {
        disk: Vec<u8>,
        read: AtomicU64,
    }

    impl Source for Watched {
        fn size(&self) -> u64 {
            self.disk.len() as u64
        }

        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let end = offset.checked_add(into.len() as u64);
            assert!(end.is_some_and(|end| end <= self.size()), "{offset:#x}, {} bytes", into.len());
            self.read.fetch_add(into.len() as u64, Ordering::Relaxed);
            self.disk.read_at(offset, into)
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }

        /// A number as bugs like it, in so many bytes or fewer.
        fn bytes(&mut self, most: usize) -> Vec<u8> {
            let value = match self.below(7) {
                0 => 0_u64,
                1 => u64::MAX,
                2 => 1 << self.below(64),
                3 => (1 << self.below(64)) - 1,
                4 => u64::MAX / 512 - self.below(3) as u64,
                _ => self.below(1200) as u64,
            };
            value.to_le_bytes()[..(1 << self.below(4)).min(most)].to_vec()
        }
    }

    /// Ten thousand variants of `disk`, changed in up to four of `fields` (offset and bytes of each) and finished by
    /// `repair`. Returns how many had a table of the kind that `disk` has.
    fn damage(
        disk: &[u8],
        fields: &[(usize, usize)],
        seed: u64,
        repair: impl Fn(&mut Random, &mut [u8]),
    ) -> usize {
        const MOST: usize = MAX_PARTITIONS;
        let mut random = Random(seed);
        let wanted = parse(disk.to_vec()).unwrap().0;
        let mut kept = 0;
        for round in 0..10_000 {
            let mut disk = disk.to_vec();
            for _ in 0..=random.below(4) {
                let (at, size) = fields[random.below(fields.len())];
                // At the field's start more often than not.
                let within = if random.below(4) == 0 { random.below(size) } else { 0 };
                let bytes = random.bytes(size - within);
                disk[at + within..][..bytes.len()].copy_from_slice(&bytes);
            }
            repair(&mut random, &mut disk);
            if random.below(16) == 0 {
                disk.truncate(random.below(disk.len()));
            }
            let watched = Arc::new(Watched { disk, read: AtomicU64::new(0) });
            let size = watched.size();
            // What is wrong is no table, or one with fewer partitions; an error would be the host's.
            let table = read(&Window::new(watched.clone())).unwrap();
            let read = watched.read.load(Ordering::Relaxed);
            assert!(read < 16 << 20, "round {round}: {read} bytes were read");
            let Some((scheme, partitions)) = table else { continue };
            kept += usize::from(scheme == wanted);
            assert!(partitions.len() <= MOST, "round {round}");
            for Partition { number, start, len } in partitions {
                assert!(start < size && len > 0 && len <= size - start && number > 0, "round {round}");
            }
        }
        kept
    }

    /// The fields of a GPT header, by offset and size (UEFI, table 5.5), without the checksum of the header.
    const HEADER_FIELDS: [(usize, usize); 12] = [
        (0, 8),
        (8, 4),
        (12, 4),
        (20, 4),
        (24, 8),
        (32, 8),
        (40, 8),
        (48, 8),
        (56, 16),
        (72, 8),
        (80, 4),
        (84, 4),
    ];

    /// Where the first header and the last are in a disk of [`gpt_disk`].
    fn headers(disk: &[u8]) -> [usize; 2] {
        [512, disk.len() - 512]
    }

    #[test]
    fn malformed_gpts_do_no_harm() {
        let disk = gpt_disk(400, &[(1, 100, 50), (15, 40, 8), (128, 200, 100)]);
        let mut fields = Vec::new();
        for (header, table) in headers(&disk).into_iter().zip([1024, disk.len() - 33 * 512]) {
            fields.extend(HEADER_FIELDS.map(|(at, size)| (header + at, size)));
            fields.extend([(header + 16, 4), (header + 88, 4)]);
            for number in [1, 15, 128] {
                let entry = table + (number - 1) * 128;
                fields.extend([(entry, 16), (entry + 32, 8), (entry + 40, 8), (entry + 48, 8)]);
            }
        }
        // With the checksums made right again more often than not, or nothing but them would be tested.
        let kept = damage(&disk, &fields, 5, |random, disk| {
            if random.below(4) == 0 {
                return;
            }
            for header in headers(disk) {
                let (table, count) = (u64_at(disk, header + 72), u32_at(disk, header + 80));
                let length = (count as usize).saturating_mul(u32_at(disk, header + 84) as usize);
                let at = usize::try_from(table.saturating_mul(512)).unwrap_or(usize::MAX).min(disk.len());
                let crc = crc32(&disk[at..][..length.min(disk.len() - at)]);
                disk[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
                disk[header + 16..header + 20].fill(0);
                let crc = crc32(&disk[header..header + 92]);
                disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
            }
        });
        assert!((5000..10_000).contains(&kept), "{kept} variants still have a GPT");
    }

    #[test]
    fn malformed_mbrs_do_no_harm() {
        let mut disk = vec![0; 1000 * 512];
        set_mbr(&mut disk, 0, 0, 0x83, 10, 20);
        set_mbr(&mut disk, 0, 1, 0x0c, 40, 20);
        set_mbr(&mut disk, 0, 2, 0x05, 100, 800);
        set_mbr(&mut disk, 0, 3, 0x83, 950, 50);
        let chain = [100, 300, 400, 600];
        for (n, &table) in chain.iter().enumerate() {
            set_mbr(&mut disk, table, 0, 0x83, 1, 50);
            if let Some(next) = chain.get(n + 1) {
                set_mbr(&mut disk, table, 1, 0x0f, (next - 100) as u32, 100);
            }
        }
        let mut fields = Vec::new();
        for table in [0].iter().chain(&chain) {
            fields.push((table * 512 + 0x1fe, 2));
            for entry in (0x1be..0x1fe).step_by(16).map(|at| table * 512 + at) {
                fields.extend([(entry, 1), (entry + 4, 1), (entry + 8, 4), (entry + 12, 4)]);
            }
        }
        let kept = damage(&disk, &fields, 6, |random, disk| {
            // A link of the chain to anywhere in it.
            if random.below(2) == 0 {
                let (from, to) = (chain[random.below(4)], random.below(1000) as u32);
                set_mbr(disk, from, 1, EXTENDED[random.below(3)], to, 100);
            }
        });
        assert!((5000..10_000).contains(&kept), "{kept} variants still have an MBR");
    }
}
