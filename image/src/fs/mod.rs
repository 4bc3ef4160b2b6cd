//! File systems, for reading only. Nothing here writes, not even to replay a journal.

mod ext4;
mod fat;
mod iso9660;

use std::io;

use crate::source::Window;

/// Why a file or directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// There is nothing of that name.
    #[error("there is no such file")]
    NotFound,
    /// It is a directory where a file is needed, or the other way round.
    #[error("it is not a {0}")]
    WrongType(&'static str),
    /// It has more bytes than could be used.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// The file system contradicts itself.
    #[error("the file system is damaged ({0})")]
    Damaged(String),
    /// It needs what is not implemented.
    #[error("the file system cannot be read ({0})")]
    Unsupported(String),
    /// The disk cannot be read.
    #[error("the image cannot be read ({0})")]
    Io(#[from] io::Error),
}

/// Most names that one directory is read for.
const MAX_NAMES: usize = 10_000;

/// A file system that can be read.
pub(crate) trait FileSystem {
    /// The whole file at `path`, which is absolute with `/` between names, if it has at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FsError>;

    /// The names in the directory at `path`, without `.` and `..`.
    fn list(&self, path: &str) -> Result<Vec<String>, FsError>;

    /// What is at `path`.
    fn stat(&self, path: &str) -> Result<Stat, FsError>;
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stat {
    /// A file of this many bytes.
    File(u64),
    /// A directory.
    Directory,
}

/// What a file system is.
pub(crate) struct Opened {
    /// As people call it.
    pub(crate) kind: &'static str,
    /// Empty if it has none.
    pub(crate) label: String,
    /// As GRUB and blkid spell it; empty if it has none.
    pub(crate) uuid: String,
    /// Its files, or why they cannot be read.
    pub(crate) files: Result<Box<dyn FileSystem>, FsError>,
}

/// File systems that can be named but not read: where a magic number is, and what it says.
const OTHERS: &[(u64, &[u8], &str)] = &[
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0, b"XFSB", "XFS"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (0, b"hsqs", "squashfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0x218, b"LVM2 001", "LVM"),
    (0xff6, b"SWAPSPACE2", "swap"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
];

/// Opens what is in `window`; `None` if it is no known file system.
pub(crate) fn open(window: &Window) -> io::Result<Option<Opened>> {
    if let Some(opened) = iso9660::open(window)? {
        return Ok(Some(opened));
    }
    if let Some(opened) = ext4::open(window)? {
        return Ok(Some(opened));
    }
    for &(offset, magic, kind) in OTHERS {
        if window.bytes_up_to(offset, magic.len())? == magic {
            let files = Err(FsError::Unsupported("only ext4, FAT and ISO 9660 are".into()));
            return Ok(Some(Opened { kind, label: String::new(), uuid: String::new(), files }));
        }
    }
    fat::open(window)
}

/// The names in a path.
fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}
