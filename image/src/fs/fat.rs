//! FAT12, FAT16 and FAT32 with long names (Microsoft's FAT specification, version 1.03).

use std::io;

use super::{FileSystem, FsError, MAX_NAMES, Opened, Stat, components};
use crate::source::{Window, u16_at, u32_at};

/// Bytes of a directory entry.
const ENTRY: usize = 32;

/// Bits of an entry's attributes.
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where things are, in bytes from the start of the volume.
struct Layout {
    width: Width,
    fat: u64,
    cluster_size: u64,
    /// Where cluster 2 is.
    data: u64,
    /// One more than the highest cluster number.
    clusters: u64,
    root: Start,
}

/// Where a directory or file starts.
#[derive(Clone, Copy)]
enum Start {
    Cluster(u64),
    /// The root directory of FAT12 and FAT16 lies outside of the clusters: its place and bytes.
    Fixed(u64, u64),
}

/// The file system in `window`, if it is one of these.
pub(super) fn open(window: &Window) -> io::Result<Option<Opened>> {
    let boot = window.bytes_up_to(0, 512)?;
    let Some(layout) = layout(&boot) else { return Ok(None) };
    // The extended boot signature comes before the volume's number.
    let serial = match layout.width {
        Width::Fat32 if boot[66] == 0x29 => Some(u32_at(&boot, 67)),
        Width::Fat12 | Width::Fat16 if boot[38] == 0x29 => Some(u32_at(&boot, 39)),
        _ => None,
    };
    let uuid = serial.map_or(String::new(), |number| format!("{:04X}-{:04X}", number >> 16, number & 0xffff));
    let files = Files { window: window.clone(), layout };
    let label = files.label().unwrap_or_default();
    Ok(Some(Opened { kind: "FAT", label, uuid, files: Ok(Box::new(files)) }))
}

fn layout(boot: &[u8]) -> Option<Layout> {
    if boot.len() < 512 || boot[510..] != [0x55, 0xaa] || !matches!(boot[0], 0xeb | 0xe9) {
        return None;
    }
    let sector = u64::from(u16_at(boot, 11));
    let (per_cluster, fats) = (u64::from(boot[13]), u64::from(boot[16]));
    if ![512, 1024, 2048, 4096].contains(&sector)
        || !per_cluster.is_power_of_two()
        || !(1..=2).contains(&fats)
    {
        return None;
    }
    let either = |short: usize, long: usize| match u16_at(boot, short) {
        0 => u64::from(u32_at(boot, long)),
        count => u64::from(count),
    };
    let (sectors, fat_sectors) = (either(19, 32), either(22, 36));
    let reserved = u64::from(u16_at(boot, 14));
    let root_bytes = u64::from(u16_at(boot, 17)) * ENTRY as u64;
    let root = reserved + fats * fat_sectors;
    let data = root + root_bytes.div_ceil(sector);
    if reserved == 0 || fat_sectors == 0 || data >= sectors {
        return None;
    }
    let count = (sectors - data) / per_cluster;
    // The number of clusters, and nothing else, decides which of the three it is (section 3.5).
    let width = match count {
        ..4085 => Width::Fat12,
        4085..65525 => Width::Fat16,
        _ => Width::Fat32,
    };
    let root = match width {
        Width::Fat32 => Start::Cluster(u64::from(u32_at(boot, 44))),
        _ => Start::Fixed(root * sector, root_bytes),
    };
    let cluster_size = per_cluster * sector;
    Some(Layout {
        width,
        fat: reserved * sector,
        cluster_size,
        data: data * sector,
        clusters: count + 2,
        root,
    })
}

struct Files {
    window: Window,
    layout: Layout,
}

/// What a directory entry says.
struct Entry {
    name: String,
    short: String,
    directory: bool,
    cluster: u64,
    size: u64,
}

fn damaged(what: &str) -> FsError {
    FsError::Damaged(what.into())
}

impl Files {
    /// The cluster after `cluster`; `None` at the end of the chain.
    fn next(&self, cluster: u64) -> Result<Option<u64>, FsError> {
        let mut bytes = [0; 4];
        let (at, length) = match self.layout.width {
            Width::Fat12 => (cluster * 3 / 2, 2),
            Width::Fat16 => (cluster * 2, 2),
            Width::Fat32 => (cluster * 4, 4),
        };
        self.window.read_at(self.layout.fat + at, &mut bytes[..length])?;
        let value = u32::from_le_bytes(bytes);
        let (value, end) = match self.layout.width {
            Width::Fat12 if cluster % 2 == 1 => (value >> 4, 0xff7),
            Width::Fat12 => (value & 0xfff, 0xff7),
            Width::Fat16 => (value, 0xfff7),
            Width::Fat32 => (value & 0x0fff_ffff, 0x0fff_fff7),
        };
        Ok((value < end).then_some(u64::from(value)))
    }

    /// The bytes of a chain, at most `limit` of them.
    fn chain(&self, start: Start, limit: u64) -> Result<Vec<u8>, FsError> {
        let mut cluster = match start {
            Start::Fixed(at, len) => return Ok(self.window.bytes(at, len.min(limit) as usize)?),
            Start::Cluster(cluster) => Some(cluster),
        };
        let (mut bytes, mut count) = (Vec::new(), 0);
        while let Some(number) = cluster {
            if (bytes.len() as u64) >= limit {
                break;
            }
            count += 1;
            if !(2..self.layout.clusters).contains(&number) || count > self.layout.clusters {
                return Err(damaged("a chain of clusters leads nowhere"));
            }
            let size = self.layout.cluster_size.min(limit - bytes.len() as u64) as usize;
            let at = self.layout.data + (number - 2) * self.layout.cluster_size;
            let filled = bytes.len();
            bytes.resize(filled + size, 0);
            self.window.read_at(at, &mut bytes[filled..])?;
            cluster = self.next(number)?;
        }
        Ok(bytes)
    }

    /// The label, which is an entry of the root directory.
    fn label(&self) -> Result<String, FsError> {
        let bytes = self.directory_bytes(self.layout.root)?;
        let entry = bytes.chunks_exact(ENTRY).take_while(|entry| entry[0] != 0).find(|entry| {
            entry[0] != 0xe5
                && entry[11] & (VOLUME_LABEL | DIRECTORY) == VOLUME_LABEL
                && entry[11] & LONG_NAME != LONG_NAME
        });
        Ok(entry.map_or(String::new(), |entry| String::from_utf8_lossy(&entry[..11]).trim_end().to_owned()))
    }

    fn directory_bytes(&self, start: Start) -> Result<Vec<u8>, FsError> {
        // Each name may take twenty long entries and a short one.
        self.chain(start, (MAX_NAMES * 21 * ENTRY) as u64)
    }

    fn entries(&self, start: Start) -> Result<Vec<Entry>, FsError> {
        let bytes = self.directory_bytes(start)?;
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for entry in bytes.chunks_exact(ENTRY).take_while(|entry| entry[0] != 0) {
            let attributes = entry[11];
            if entry[0] != 0xe5 && attributes & 0x3f == LONG_NAME {
                long.add(entry);
                continue;
            }
            let name = std::mem::take(&mut long).finish(&entry[..11]);
            if entry[0] == 0xe5 || attributes & VOLUME_LABEL != 0 || entry[0] == b'.' {
                continue;
            }
            let short = short_name(entry);
            let cluster = u64::from(u16_at(entry, 26)) | u64::from(u16_at(entry, 20)) << 16;
            entries.push(Entry {
                name: name.unwrap_or_else(|| short.clone()),
                short,
                directory: attributes & DIRECTORY != 0,
                cluster,
                size: u64::from(u32_at(entry, 28)),
            });
            if entries.len() == MAX_NAMES {
                break;
            }
        }
        Ok(entries)
    }

    fn start_of(&self, entry: &Entry) -> Start {
        // `..` of a directory in the root says 0; so does a file without contents, which is never read.
        if entry.cluster == 0 { self.layout.root } else { Start::Cluster(entry.cluster) }
    }

    /// What is at `path`; `None` for the root.
    fn find(&self, path: &str) -> Result<Option<Entry>, FsError> {
        let mut here: Option<Entry> = None;
        for name in components(path) {
            let start = match &here {
                None => self.layout.root,
                Some(entry) if entry.directory => self.start_of(entry),
                Some(_) => return Err(FsError::NotFound),
            };
            let same = |other: &str| other.eq_ignore_ascii_case(name);
            let found =
                self.entries(start)?.into_iter().find(|entry| same(&entry.name) || same(&entry.short));
            here = Some(found.ok_or(FsError::NotFound)?);
        }
        Ok(here)
    }
}

impl FileSystem for Files {
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
        match self.find(path)? {
            Some(entry) if !entry.directory => {
                if entry.size > limit {
                    return Err(FsError::TooLarge(limit));
                }
                if entry.size == 0 {
                    return Ok(Vec::new());
                }
                let bytes = self.chain(Start::Cluster(entry.cluster), entry.size)?;
                if (bytes.len() as u64) < entry.size {
                    return Err(damaged("a file is shorter than its directory says"));
                }
                Ok(bytes)
            }
            _ => Err(FsError::WrongType("file")),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let start = match self.find(path)? {
            None => self.layout.root,
            Some(entry) if entry.directory => self.start_of(&entry),
            Some(_) => return Err(FsError::WrongType("directory")),
        };
        Ok(self.entries(start)?.into_iter().map(|entry| entry.name).collect())
    }

    fn stat(&self, path: &str) -> Result<Stat, FsError> {
        Ok(match self.find(path)? {
            Some(entry) if !entry.directory => Stat::File(entry.size),
            _ => Stat::Directory,
        })
    }
}

/// The name of eight and three characters, in lower case as the entry may ask for (byte 12).
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (name, extension) = (part(&entry[..8], entry[12] & 8 != 0), part(&entry[8..11], entry[12] & 16 != 0));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

/// A long name that is being gathered from the entries before the short one, last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// The number of the part that comes next; 0 if the name is whole.
    expected: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let order = entry[0];
        if order & 0x40 != 0 {
            *self = Self { units: Vec::new(), expected: order & 0x1f, checksum: entry[13] };
        }
        if self.expected == 0 || order & 0x1f != self.expected || entry[13] != self.checksum {
            *self = Self::default();
            return;
        }
        self.expected -= 1;
        let unit = |index: usize| u16_at(entry, index);
        let part = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2)).map(unit);
        let part: Vec<u16> = part.take_while(|&unit| unit != 0 && unit != 0xffff).collect();
        self.units.splice(0..0, part);
    }

    /// The name, if it is whole and belongs to the short name.
    fn finish(self, short: &[u8]) -> Option<String> {
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let whole = self.expected == 0 && !self.units.is_empty() && sum == self.checksum;
        whole.then(|| String::from_utf16_lossy(&self.units))
    }
}
