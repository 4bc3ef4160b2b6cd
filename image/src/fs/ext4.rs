//! ext2, ext3 and ext4, by the library ext4-view. A journal that was not replayed is read through.

use std::io;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use super::{FileSystem, FsError, MAX_NAMES, Opened, Stat};
use crate::source::{Window, u16_at, u32_at};

/// Where the superblock is, and how long.
const SUPERBLOCK: (u64, usize) = (1024, 1024);

/// As many groups as 16 TiB have. The library takes memory for all of them at once.
const MAX_GROUPS: u64 = 1 << 17;

struct Reader(Window);

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_at(start, into)?)
    }
}

/// The file system in `window`, if it is one of these.
pub(super) fn open(window: &Window) -> io::Result<Option<Opened>> {
    let superblock = window.bytes_up_to(SUPERBLOCK.0, SUPERBLOCK.1)?;
    if superblock.len() < SUPERBLOCK.1 || u16_at(&superblock, 0x38) != 0xef53 {
        return Ok(None);
    }
    let label = superblock[0x78..0x88].split(|&byte| byte == 0).next().unwrap_or_default();
    let mut uuid = String::new();
    for (index, byte) in superblock[0x68..0x78].iter().enumerate() {
        uuid += if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
        uuid += &format!("{byte:02x}");
    }
    let files = check(&superblock, window.len()).and_then(|()| {
        let library = Ext4::load(Box::new(Reader(window.clone()))).map_err(|error| explain(&error))?;
        Ok(Box::new(Files(library)) as Box<dyn FileSystem>)
    });
    Ok(Some(Opened { kind: "ext4", label: String::from_utf8_lossy(label).into(), uuid, files }))
}

/// Refuses what would cost memory or time out of proportion.
fn check(superblock: &[u8], len: u64) -> Result<(), FsError> {
    let damaged = |what: &str| Err(FsError::Damaged(what.into()));
    let log_block_size = u32_at(superblock, 0x18);
    if log_block_size > 6 {
        return damaged("its block size");
    }
    let high = if u32_at(superblock, 0x60) & 0x80 == 0 { 0 } else { u64::from(u32_at(superblock, 0x150)) };
    let blocks = high << 32 | u64::from(u32_at(superblock, 4));
    if blocks > len >> (10 + log_block_size) {
        return damaged("it has more blocks than its partition, which may have been cut");
    }
    let per_group = u64::from(u32_at(superblock, 0x20));
    if per_group == 0 || blocks / per_group > MAX_GROUPS {
        return damaged("its block groups");
    }
    Ok(())
}

fn explain(error: &Ext4Error) -> FsError {
    match error {
        Ext4Error::NotFound => FsError::NotFound,
        Ext4Error::IsADirectory | Ext4Error::IsASpecialFile => FsError::WrongType("file"),
        Ext4Error::NotADirectory => FsError::WrongType("directory"),
        Ext4Error::Corrupt(what) => FsError::Damaged(what.to_string()),
        Ext4Error::Incompatible(what) => FsError::Unsupported(what.to_string()),
        Ext4Error::Io(source) => FsError::Io(io::Error::other(source.to_string())),
        other => FsError::Damaged(other.to_string()),
    }
}

struct Files(Ext4);

impl Files {
    fn limited(&self, path: &str, limit: u64) -> Result<Vec<u8>, Ext4Error> {
        let mut file = self.0.open(path)?;
        let mut bytes = Vec::new();
        // The size is the image's claim: memory is taken for what is there, up to one byte more than the limit.
        let mut chunk = vec![0; 1 << 16];
        while (bytes.len() as u64) <= limit {
            match file.read_bytes(&mut chunk)? {
                0 => break,
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(bytes)
    }
}

impl FileSystem for Files {
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
        if let Stat::File(size) = self.stat(path)?
            && size > limit
        {
            return Err(FsError::TooLarge(limit));
        }
        let bytes = self.limited(path, limit).map_err(|error| explain(&error))?;
        if bytes.len() as u64 > limit { Err(FsError::TooLarge(limit)) } else { Ok(bytes) }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(|error| explain(&error))? {
            let entry = entry.map_err(|error| explain(&error))?;
            if let Ok(name) = entry.file_name().as_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
            if names.len() == MAX_NAMES {
                break;
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &str) -> Result<Stat, FsError> {
        let metadata = self.0.metadata(path).map_err(|error| explain(&error))?;
        match metadata.file_type() {
            kind if kind.is_dir() => Ok(Stat::Directory),
            kind if kind.is_regular_file() => Ok(Stat::File(metadata.len())),
            _ => Err(FsError::WrongType("file")),
        }
    }
}
