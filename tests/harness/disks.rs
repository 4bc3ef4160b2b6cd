//! Disk images with files in them, made byte by byte.

use std::collections::BTreeMap;

use flate2::Crc;

/// A file or directory.
enum Node {
    File(Vec<u8>),
    Link(String),
    Directory(BTreeMap<String, Node>),
}

/// The tree of `files`: absolute paths and contents. Contents that start with `-> ` are symbolic links.
fn tree(files: &[(&str, &[u8])]) -> BTreeMap<String, Node> {
    let mut root = BTreeMap::new();
    for (path, contents) in files {
        let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let last = names.pop().unwrap();
        let mut here = &mut root;
        for name in names {
            match here.entry(name.to_owned()).or_insert_with(|| Node::Directory(BTreeMap::new())) {
                Node::Directory(inner) => here = inner,
                _ => panic!("{path} is in a file"),
            }
        }
        let node = match contents.strip_prefix(b"-> ") {
            Some(target) => Node::Link(String::from_utf8(target.to_vec()).unwrap()),
            None => Node::File(contents.to_vec()),
        };
        here.insert(last.to_owned(), node);
    }
    root
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A disk with a GUID partition table. `partitions` are numbers and contents.
pub(crate) fn gpt(partitions: &[(u32, &[u8])]) -> Vec<u8> {
    let mut table = vec![0; 128 * 128];
    let mut disk = vec![0; 64 * 512];
    for (number, contents) in partitions {
        let first = (disk.len() / 512) as u64;
        disk.extend_from_slice(contents);
        disk.resize(disk.len().next_multiple_of(512), 0);
        let entry = &mut table[(*number as usize - 1) * 128..][..128];
        entry[..16].fill(7);
        put(entry, 32, &first.to_le_bytes());
        put(entry, 40, &((disk.len() / 512) as u64 - 1).to_le_bytes());
    }
    disk.resize(disk.len() + 33 * 512, 0);
    let last = disk.len() / 512 - 1;
    for (at, entries) in [(1, 2), (last, last - 32)] {
        let crc = |bytes: &[u8]| {
            let mut crc = Crc::new();
            crc.update(bytes);
            crc.sum().to_le_bytes()
        };
        let mut header = [0; 92];
        put(&mut header, 0, b"EFI PART");
        header[12] = 92;
        put(&mut header, 72, &(entries as u64).to_le_bytes());
        (header[80], header[84]) = (128, 128);
        put(&mut header, 88, &crc(&table));
        let sum = crc(&header);
        put(&mut header, 16, &sum);
        put(&mut disk, at * 512, &header);
        put(&mut disk, entries * 512, &table);
    }
    put(&mut disk, 0x1fe, b"\x55\xaa");
    disk[0x1c2] = 0xee;
    disk
}

/// The widths of a FAT's entries, by the clusters that make a volume have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fat {
    Fat12 = 200,
    Fat16 = 5000,
    Fat32 = 66_000,
}

/// A FAT volume with the label `UEFI` and the identifier 1234-ABCD.
pub(crate) fn fat(files: &[(&str, &[u8])], width: Fat) -> Vec<u8> {
    let clusters = width as usize;
    let fat_sectors = (clusters * 4 + 8).div_ceil(512);
    let (reserved, root_entries) = (2, if width == Fat::Fat32 { 0 } else { 64 });
    let data = reserved + fat_sectors + root_entries * 32 / 512;
    let mut volume = vec![0; (data + clusters) * 512];
    put(&mut volume, 0, b"\xeb\x3c\x90mkfs.fat");
    put(&mut volume, 11, &[0, 2, 1, reserved as u8, 0, 1]);
    put(&mut volume, 17, &(root_entries as u16).to_le_bytes());
    put(&mut volume, 32, &((data + clusters) as u32).to_le_bytes());
    let extended = if width == Fat::Fat32 {
        put(&mut volume, 36, &(fat_sectors as u32).to_le_bytes());
        put(&mut volume, 44, &2_u32.to_le_bytes());
        66
    } else {
        put(&mut volume, 22, &(fat_sectors as u16).to_le_bytes());
        38
    };
    put(&mut volume, extended, b"\x29\xcd\xab\x34\x12");
    put(&mut volume, 510, b"\x55\xaa");
    let mut maker = FatMaker { volume, width, fat: reserved * 512, data: data * 512, next: 2 };
    let mut label = [0; 32];
    put(&mut label, 0, b"UEFI       ");
    label[11] = 8;
    if width == Fat::Fat32 {
        maker.next = 3;
        let entries = maker.directory(&tree(files), &label);
        // The root directory is as long as one cluster here.
        assert!(entries.len() <= 512);
        maker.link(2, None);
        put(&mut maker.volume, data * 512, &entries);
    } else {
        let entries = maker.directory(&tree(files), &label);
        assert!(entries.len() <= root_entries * 32);
        put(&mut maker.volume, (reserved + fat_sectors) * 512, &entries);
    }
    maker.volume
}

struct FatMaker {
    volume: Vec<u8>,
    width: Fat,
    fat: usize,
    data: usize,
    next: usize,
}

impl FatMaker {
    fn link(&mut self, cluster: usize, to: Option<usize>) {
        let value = to.unwrap_or(0x0fff_ffff) as u32;
        match self.width {
            Fat::Fat12 => {
                let at = self.fat + cluster * 3 / 2;
                let pair = u16::from_le_bytes([self.volume[at], self.volume[at + 1]]);
                let value = value as u16 & 0xfff;
                let pair = if cluster % 2 == 1 { pair & 0xf | value << 4 } else { pair & 0xf000 | value };
                put(&mut self.volume, at, &pair.to_le_bytes());
            }
            Fat::Fat16 => put(&mut self.volume, self.fat + cluster * 2, &(value as u16).to_le_bytes()),
            Fat::Fat32 => put(&mut self.volume, self.fat + cluster * 4, &value.to_le_bytes()),
        }
    }

    /// Stores a chain of clusters and returns the first.
    fn store(&mut self, bytes: &[u8]) -> usize {
        let first = self.next;
        let count = bytes.len().div_ceil(512).max(1);
        self.next += count;
        for index in 0..count {
            self.link(first + index, (index + 1 < count).then_some(first + index + 1));
        }
        put(&mut self.volume, self.data + (first - 2) * 512, bytes);
        first
    }

    /// The entries of a directory, behind `start`.
    fn directory(&mut self, nodes: &BTreeMap<String, Node>, start: &[u8]) -> Vec<u8> {
        let mut entries = start.to_vec();
        for (index, (name, node)) in nodes.iter().enumerate() {
            let (attributes, cluster, size) = match node {
                Node::File(bytes) => (0x20, self.store(bytes), bytes.len()),
                Node::Directory(nodes) => {
                    let mut dots = [0; 64];
                    put(&mut dots, 0, b".          \x10");
                    put(&mut dots, 32, b"..         \x10");
                    let bytes = self.directory(nodes, &dots);
                    (0x10, self.store(&bytes), 0)
                }
                Node::Link(_) => panic!("FAT has no links"),
            };
            let short = format!("FILE~{index:<6}").into_bytes();
            let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
            let mut units: Vec<u16> = name.encode_utf16().chain([0]).collect();
            units.resize(units.len().next_multiple_of(13), 0xffff);
            for (part, units) in units.chunks(13).enumerate().rev() {
                let mut entry = [0; 32];
                let last = if (part + 1) * 13 > name.len() { 0x40 } else { 0 };
                entry[0] = (part + 1) as u8 | last;
                (entry[11], entry[13]) = (0x0f, sum);
                let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
                for (at, unit) in places.zip(units) {
                    put(&mut entry, at, &unit.to_le_bytes());
                }
                entries.extend(entry);
            }
            let mut entry = [0; 32];
            put(&mut entry, 0, &short);
            entry[11] = attributes;
            put(&mut entry, 20, &((cluster >> 16) as u16).to_le_bytes());
            put(&mut entry, 26, &(cluster as u16).to_le_bytes());
            put(&mut entry, 28, &(size as u32).to_le_bytes());
            entries.extend(entry);
        }
        entries
    }
}

/// Bytes in a block of [`ext4`].
const BLOCK: usize = 1024;
const INODES: usize = 64;
const INODE: usize = 128;
/// Where the inodes are, and behind them the data.
const INODE_TABLE: usize = 5;

/// The identifier of [`ext4`].
pub(crate) const EXT4_UUID: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";

/// An ext4 volume without journal and checksums, with the label `cloudimg-rootfs` and the identifier [`EXT4_UUID`].
pub(crate) fn ext4(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut maker = Ext4Maker { blocks: vec![0; (INODE_TABLE + INODES * INODE / BLOCK) * BLOCK], inode: 11 };
    maker.directory(&tree(files), 2, 2);
    let Ext4Maker { mut blocks, .. } = maker;
    let count = (blocks.len() / BLOCK) as u32;
    let superblock = &mut blocks[BLOCK..2 * BLOCK];
    let numbers: [(usize, u32); 12] = [
        (0x00, INODES as u32),
        (0x04, count),
        // The first data block is the superblock's.
        (0x14, 1),
        (0x20, 8192),
        (0x24, 8192),
        (0x28, INODES as u32),
        // Revision 1, first inode, size of an inode.
        (0x4c, 1),
        (0x54, 11),
        (0x58, INODE as u32),
        // Directory entries have types, files have extents.
        (0x60, 0x42),
        (0x64, 1),
        (0x3a, 1),
    ];
    for (at, number) in numbers {
        put(superblock, at, &number.to_le_bytes());
    }
    put(superblock, 0x38, &[0x53, 0xef]);
    put(superblock, 0x68, &std::array::from_fn::<u8, 16, _>(|index| index as u8));
    put(superblock, 0x78, b"cloudimg-rootfs");
    for (at, block) in [(0, 3), (4, 4), (8, INODE_TABLE as u32)] {
        put(&mut blocks, 2 * BLOCK + at, &block.to_le_bytes());
    }
    blocks
}

struct Ext4Maker {
    blocks: Vec<u8>,
    inode: u32,
}

impl Ext4Maker {
    fn set_inode(&mut self, number: u32, mode: u16, links: u16, bytes: &[u8]) {
        let first = self.blocks.len() / BLOCK;
        let mut inode = [0; INODE];
        put(&mut inode, 0, &mode.to_le_bytes());
        put(&mut inode, 4, &(bytes.len() as u32).to_le_bytes());
        put(&mut inode, 26, &links.to_le_bytes());
        if mode & 0xf000 == 0xa000 {
            put(&mut inode, 40, bytes);
        } else {
            put(&mut inode, 32, &0x8_0000_u32.to_le_bytes());
            let count = bytes.len().div_ceil(BLOCK);
            put(&mut inode, 40, &[0x0a, 0xf3, u8::from(count > 0), 0, 4, 0]);
            put(&mut inode, 40 + 12 + 4, &(count as u16).to_le_bytes());
            put(&mut inode, 40 + 12 + 8, &(first as u32).to_le_bytes());
            self.blocks.extend_from_slice(bytes);
            self.blocks.resize((first + count) * BLOCK, 0);
        }
        put(&mut self.blocks, INODE_TABLE * BLOCK + (number as usize - 1) * INODE, &inode);
    }

    fn directory(&mut self, nodes: &BTreeMap<String, Node>, number: u32, parent: u32) {
        let mut entries: Vec<(u32, u8, String)> = vec![(number, 2, ".".into()), (parent, 2, "..".into())];
        for (name, node) in nodes {
            self.inode += 1;
            let inode = self.inode;
            let kind = match node {
                Node::File(bytes) => {
                    self.set_inode(inode, 0x81a4, 1, bytes);
                    1
                }
                Node::Link(target) => {
                    assert!(target.len() < 60);
                    self.set_inode(inode, 0xa1ff, 1, target.as_bytes());
                    7
                }
                Node::Directory(nodes) => {
                    self.directory(nodes, inode, number);
                    2
                }
            };
            entries.push((inode, kind, name.clone()));
        }
        let mut bytes = Vec::new();
        let last = entries.len() - 1;
        for (index, (inode, kind, name)) in entries.into_iter().enumerate() {
            let start = bytes.len();
            let length = if index == last { BLOCK - start } else { (8 + name.len()).next_multiple_of(4) };
            bytes.extend(inode.to_le_bytes());
            bytes.extend((length as u16).to_le_bytes());
            bytes.extend([name.len() as u8, kind]);
            bytes.extend(name.as_bytes());
            bytes.resize(start + length, 0);
        }
        self.set_inode(number, 0x41ed, 2, &bytes);
    }
}

/// The identifier of [`iso9660`], as GRUB has it.
pub(crate) const ISO_UUID: &str = "2026-11-21-10-20-30-00";

/// An ISO 9660 volume with Rock Ridge names and the label `Debian 13`.
pub(crate) fn iso9660(files: &[(&str, &[u8])]) -> Vec<u8> {
    const SECTOR: usize = 2048;
    fn record(name: &[u8], rock_ridge: &str, start: usize, size: usize, directory: bool) -> Vec<u8> {
        let mut record = vec![0; 33];
        put(&mut record, 2, &(start as u32).to_le_bytes());
        put(&mut record, 10, &(size as u32).to_le_bytes());
        record[25] = u8::from(directory) * 2;
        record[32] = name.len() as u8;
        record.extend_from_slice(name);
        record.resize(record.len().next_multiple_of(2), 0);
        if !rock_ridge.is_empty() {
            record.extend([b'P', b'X', 4, 1, b'N', b'M', 5 + rock_ridge.len() as u8, 1, 0]);
            record.extend_from_slice(rock_ridge.as_bytes());
            record.resize(record.len().next_multiple_of(2), 0);
        }
        record[0] = record.len() as u8;
        record
    }
    /// Appends contents and returns the sector of the first.
    fn store(disk: &mut Vec<u8>, bytes: &[u8]) -> usize {
        let start = disk.len() / SECTOR;
        disk.extend_from_slice(bytes);
        disk.resize(disk.len().next_multiple_of(SECTOR), 0);
        start
    }
    fn directory(disk: &mut Vec<u8>, nodes: &BTreeMap<String, Node>) -> (usize, usize) {
        let mut bytes = [record(&[0], "", 0, 0, true), record(&[1], "", 0, 0, true)].concat();
        for (index, (name, node)) in nodes.iter().enumerate() {
            let (start, size, is_directory) = match node {
                Node::File(bytes) => (store(disk, bytes), bytes.len(), false),
                Node::Directory(nodes) => {
                    let (start, size) = directory(disk, nodes);
                    (start, size, true)
                }
                Node::Link(_) => panic!("links are not made"),
            };
            let record = record(format!("FILE{index}.;1").as_bytes(), name, start, size, is_directory);
            if bytes.len() % SECTOR + record.len() > SECTOR {
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
            }
            bytes.extend(record);
        }
        let size = bytes.len().next_multiple_of(SECTOR);
        (store(disk, &bytes), size)
    }
    let mut disk = vec![0; 18 * SECTOR];
    let (start, size) = directory(&mut disk, &tree(files));
    let descriptor = &mut disk[16 * SECTOR..17 * SECTOR];
    put(descriptor, 0, b"\x01CD001\x01");
    put(descriptor, 40, b"Debian 13                       ");
    put(descriptor, 156, &record(&[0], "", start, size, true));
    put(descriptor, 830, b"2026112110203000");
    disk
}
