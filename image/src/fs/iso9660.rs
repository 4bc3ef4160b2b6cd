//! ISO 9660 (ECMA-119), with the long names of Rock Ridge (IEEE P1282) where a disc has them.

use std::io;

use super::{FileSystem, FsError, MAX_NAMES, Opened, Stat, components};
use crate::source::{Window, u32_at};

/// Bytes of a logical block; discs with others are not made.
const BLOCK: u64 = 2048;

/// Most bytes of one directory that are read.
const MAX_DIRECTORY: u64 = 4 << 20;

/// The file system in `window`, if it is one.
pub(super) fn open(window: &Window) -> io::Result<Option<Opened>> {
    // The primary volume descriptor (section 8.4) is the first.
    let descriptor = window.bytes_up_to(16 * BLOCK, BLOCK as usize)?;
    if descriptor.len() < BLOCK as usize || !descriptor.starts_with(b"\x01CD001") {
        return Ok(None);
    }
    let label = String::from_utf8_lossy(&descriptor[40..72]).trim_end_matches([' ', '\0']).to_owned();
    // GRUB's identifier is the date of the last change (8.4.27), or of the creation where that is not set.
    let date = [830, 813].map(|at| &descriptor[at..at + 16]).into_iter();
    let date = date
        .filter(|date| date.iter().all(u8::is_ascii_digit))
        .find(|date| date.iter().any(|&digit| digit != b'0'));
    let date = date.map_or(String::new(), |date| String::from_utf8_lossy(date).into_owned());
    let uuid = if date.is_empty() {
        date
    } else {
        let ends = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
        ends.map(|range| &date[range]).join("-")
    };
    let root = record(&descriptor[156..190]);
    let files: Result<Box<dyn FileSystem>, FsError> = match root {
        Some(root) => Ok(Box::new(Files { window: window.clone(), root })),
        None => Err(FsError::Damaged("it has no root directory".into())),
    };
    Ok(Some(Opened { kind: "ISO 9660", label, uuid, files }))
}

#[derive(Clone)]
struct Record {
    name: String,
    directory: bool,
    start: u64,
    size: u64,
}

/// A directory record (section 9.1).
fn record(bytes: &[u8]) -> Option<Record> {
    let length = usize::from(*bytes.first()?);
    let bytes = bytes.get(..length)?;
    let name = bytes.get(33..33 + usize::from(*bytes.get(32)?))?;
    // System use follows, at an even offset.
    let system_use = bytes.get((33 + name.len()).next_multiple_of(2)..).unwrap_or_default();
    let name = rock_ridge(system_use).unwrap_or_else(|| {
        let name = String::from_utf8_lossy(name);
        name.split(';').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
    });
    Some(Record {
        name,
        directory: bytes[25] & 2 != 0,
        start: u64::from(u32_at(bytes, 2)) * BLOCK,
        size: u64::from(u32_at(bytes, 10)),
    })
}

/// The name in the `NM` entries of a record's system use area.
fn rock_ridge(mut area: &[u8]) -> Option<String> {
    let mut name = None;
    while area.len() >= 4 {
        let length = usize::from(area[2]);
        let entry = area.get(..length).filter(|entry| entry.len() >= 4)?;
        if entry.starts_with(b"NM") && entry.len() > 5 {
            name.get_or_insert_with(Vec::new).extend_from_slice(&entry[5..]);
        }
        area = &area[length..];
    }
    name.map(|name| String::from_utf8_lossy(&name).into_owned())
}

struct Files {
    window: Window,
    root: Record,
}

impl Files {
    fn records(&self, directory: &Record) -> Result<Vec<Record>, FsError> {
        let size = directory.size.min(MAX_DIRECTORY) as usize;
        let bytes = self.window.bytes(directory.start, size)?;
        let mut records = Vec::new();
        // A record never crosses a block; what is left of the block is zeros.
        for block in bytes.chunks(BLOCK as usize) {
            let mut rest = block;
            while rest.first().is_some_and(|&length| length > 0) && records.len() < MAX_NAMES {
                let length = usize::from(rest[0]);
                let Some(record) = record(rest) else { break };
                // The first two are the directory itself and its parent, with the names 0 and 1.
                if !matches!(record.name.as_str(), "\0" | "\x01" | "") {
                    records.push(record);
                }
                rest = &rest[length..];
            }
        }
        Ok(records)
    }

    fn find(&self, path: &str) -> Result<Record, FsError> {
        let mut here = self.root.clone();
        for name in components(path) {
            if !here.directory {
                return Err(FsError::NotFound);
            }
            let records = self.records(&here)?;
            let exact = records.iter().find(|record| record.name == name);
            let found =
                exact.or_else(|| records.iter().find(|record| record.name.eq_ignore_ascii_case(name)));
            here = found.cloned().ok_or(FsError::NotFound)?;
        }
        Ok(here)
    }
}

impl FileSystem for Files {
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
        let record = self.find(path)?;
        if record.directory {
            return Err(FsError::WrongType("file"));
        }
        if record.size > limit {
            return Err(FsError::TooLarge(limit));
        }
        Ok(self.window.bytes(record.start, record.size as usize)?)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let record = self.find(path)?;
        if !record.directory {
            return Err(FsError::WrongType("directory"));
        }
        Ok(self.records(&record)?.into_iter().map(|record| record.name).collect())
    }

    fn stat(&self, path: &str) -> Result<Stat, FsError> {
        let record = self.find(path)?;
        Ok(if record.directory { Stat::Directory } else { Stat::File(record.size) })
    }
}
