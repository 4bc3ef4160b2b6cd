//! The host side of a guest disk: what a block device reads from and writes to.
//!
//! [`DiskOptions`] is what the user asked for, [`open`] turns it into a [`Disk`]. A disk knows nothing of rings or of
//! guest memory beyond a list of [`VolatileSlice`]s, so the same disks serve every block device.

mod lock;
mod memory;
mod overlay;
mod raw;
mod shared;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use vm_memory::VolatileSlice;

pub use memory::Memory;
pub use overlay::Overlay;
pub use raw::RawFile;
pub use shared::source;

/// Bytes in a sector; disk sizes are whole multiples of it.
pub const SECTOR_SIZE: u64 = 512;

/// A disk's contents, addressed in bytes.
///
/// Every method blocks the caller until the host has answered. Ranges beyond [`Disk::size`] are refused with
/// [`io::ErrorKind::InvalidInput`]; a transfer is complete or an error, never short.
pub trait Disk: Send + Sync {
    /// Bytes, a positive multiple of [`SECTOR_SIZE`]; never changes.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Fills `into`, in order, from byte `offset`. On an error the slices may be partly filled.
    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Writes `from`, in order, at byte `offset`. After it returns the data outlives this process, not the host.
    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes every write so far outlive a crash of the host.
    fn flush(&self) -> io::Result<()>;

    /// Tells the disk that `len` bytes at `offset` hold nothing of value. A hint: what they read as is unspecified.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zero; with `unmap`, host storage may be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// What the user asked of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The image file or block device.
    pub path: PathBuf,
    /// Refuse guest writes, and open the file for reading only.
    pub read_only: bool,
    /// Keep guest writes in a temporary file that vanishes with the process; the image is opened for reading only.
    pub snapshot: bool,
    /// Take the file as raw sectors without looking for signs of another format.
    pub force_raw: bool,
}

/// Why a `FILE[,option…]` argument was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseDiskError {
    /// Nothing before the first single comma.
    #[error("the disk argument names no file; write FILE[,readonly][,snapshot][,format=raw]")]
    NoFile,
    /// An option that does not exist.
    #[error(
        "unknown disk option `{0}`; valid options are readonly[=on|off], snapshot[=on|off] and format=raw \
         (a comma inside the file name is written `,,`)"
    )]
    UnknownOption(String),
    /// An option that exists, with a value that does not.
    #[error("disk option `{option}` cannot be `{value}`; it takes {valid}")]
    BadValue {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        valid: &'static str,
    },
}

impl DiskOptions {
    /// A writable raw image at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_only: false, snapshot: false, force_raw: false }
    }

    /// Reads `FILE[,readonly][,snapshot][,format=raw]`. As in QEMU, `,,` is a comma inside the file name.
    pub fn parse(text: &str) -> Result<Self, ParseDiskError> {
        let (file, rest) = split_file(text);
        if file.is_empty() {
            return Err(ParseDiskError::NoFile);
        }
        let mut options = Self::new(file);
        for option in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
            match name {
                "readonly" => options.read_only = switch("readonly", value)?,
                "snapshot" => options.snapshot = switch("snapshot", value)?,
                "format" if value == Some("raw") => options.force_raw = true,
                "format" => {
                    let value = value.unwrap_or_default().to_owned();
                    return Err(ParseDiskError::BadValue { option: "format", value, valid: "raw" });
                }
                _ => return Err(ParseDiskError::UnknownOption(option.to_owned())),
            }
        }
        Ok(options)
    }
}

impl FromStr for DiskOptions {
    type Err = ParseDiskError;

    fn from_str(text: &str) -> Result<Self, ParseDiskError> {
        Self::parse(text)
    }
}

/// Splits at the first comma that is not doubled, undoubling those before it.
fn split_file(text: &str) -> (String, Option<&str>) {
    let mut file = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(',') {
        file.push_str(before);
        match after.strip_prefix(',') {
            Some(after) => {
                file.push(',');
                rest = after;
            }
            None => return (file, Some(after)),
        }
    }
    file.push_str(rest);
    (file, None)
}

fn switch(option: &'static str, value: Option<&str>) -> Result<bool, ParseDiskError> {
    match value {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(value) => Err(ParseDiskError::BadValue { option, value: value.to_owned(), valid: "on or off" }),
    }
}

/// Why a disk could not be opened. Each text names the file and what would help.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// No such file.
    #[error("disk image {0:?} does not exist; create an empty disk with `truncate -s 16G {0:?}`")]
    Missing(PathBuf),
    /// Not a regular file or block device.
    #[error("disk image {0:?} is {1}; give a raw image file or a block device")]
    NotADisk(PathBuf, &'static str),
    /// Zero bytes long.
    #[error("disk image {0:?} is empty; give it a size with `truncate -s 16G {0:?}`")]
    Empty(PathBuf),
    /// Not whole sectors.
    #[error(
        "disk image {path:?} is {size} bytes long, which is not a multiple of 512; \
         pad it with `truncate -s %512 {path:?}`"
    )]
    PartialSector {
        /// The image.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The contents look like another format.
    #[error(
        "disk image {path:?} is {what}, not a raw image; {remedy} (or add `,format=raw` to use it as it is)"
    )]
    OtherFormat {
        /// The image.
        path: PathBuf,
        /// What it looks like.
        what: &'static str,
        /// How to convert it.
        remedy: &'static str,
    },
    /// The host refuses the access asked for.
    #[error(
        "no permission to write disk image {0:?}; add `,readonly` or `,snapshot`, or change the file's permissions"
    )]
    NotWritable(PathBuf),
    /// The host refuses even reading.
    #[error("no permission to read disk image {0:?}; change the file's permissions or run as its owner")]
    NotReadable(PathBuf),
    /// Somebody else uses the image in a way that excludes us.
    #[error("disk image {path:?} is in use by {holder}; {remedy}")]
    Locked {
        /// The image.
        path: PathBuf,
        /// Who has it, as far as can be seen.
        holder: String,
        /// What would help.
        remedy: &'static str,
    },
    /// A block device with a mounted file system or another exclusive user.
    #[error("block device {0:?} is mounted or otherwise in use by the host; unmount it, or add `,readonly`")]
    Mounted(PathBuf),
    /// The temporary file of a snapshot.
    #[error(
        "cannot make the temporary file for the snapshot of {path:?} in {directory:?} (set TMPDIR to change it)"
    )]
    Snapshot {
        /// The image.
        path: PathBuf,
        /// Where the file was to be.
        directory: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open disk image {0:?}")]
    Io(PathBuf, #[source] io::Error),
}

/// Opens a disk: takes the image's lock, checks its size and contents, and puts an overlay over it if asked.
pub fn open(options: &DiskOptions) -> Result<Box<dyn Disk>, OpenDiskError> {
    let read_only = options.read_only || options.snapshot;
    let base = RawFile::open(&options.path, read_only, options.force_raw)?;
    if options.snapshot && !options.read_only {
        return Ok(Box::new(Overlay::new(base, &options.path)?));
    }
    Ok(Box::new(base))
}

/// The part of `slices` from byte `skip` on, at most `len` bytes of it.
fn window<'a>(slices: &[VolatileSlice<'a>], mut skip: usize, mut len: usize) -> Vec<VolatileSlice<'a>> {
    let mut part = Vec::with_capacity(slices.len());
    for slice in slices {
        if len == 0 {
            break;
        }
        if skip >= slice.len() {
            skip -= slice.len();
            continue;
        }
        let take = len.min(slice.len() - skip);
        if let Ok(piece) = slice.subslice(skip, take) {
            part.push(piece);
        }
        skip = 0;
        len -= take;
    }
    part
}

/// The bytes in `slices`, if they fit a disk of `size` bytes from `offset` on.
fn check_range(size: u64, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the disk")),
    }
}

fn total_len(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

/// What a file is when it is no disk.
fn describe_file_type(path: &Path, kind: std::fs::FileType) -> Result<(), OpenDiskError> {
    use std::os::unix::fs::FileTypeExt;
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a named pipe"
    } else {
        "a socket"
    };
    Err(OpenDiskError::NotADisk(path.to_owned(), what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_file_name() {
        let options = DiskOptions::parse("a.img,readonly,snapshot=on").unwrap();
        assert_eq!(options.path, Path::new("a.img"));
        assert!(options.read_only && options.snapshot && !options.force_raw);
        assert!(!DiskOptions::parse("a,readonly=off").unwrap().read_only);
        assert!(DiskOptions::parse("a,format=raw").unwrap().force_raw);
    }

    #[test]
    fn doubled_commas_belong_to_the_file_name() {
        assert_eq!(DiskOptions::parse("a,,b").unwrap().path, Path::new("a,b"));
        let options = DiskOptions::parse("x,,,readonly").unwrap();
        assert_eq!(options.path, Path::new("x,"));
        assert!(options.read_only);
        assert_eq!(DiskOptions::parse("a,,,,b,snapshot").unwrap().path, Path::new("a,,b"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(DiskOptions::parse(""), Err(ParseDiskError::NoFile));
        assert_eq!(DiskOptions::parse(",readonly"), Err(ParseDiskError::NoFile));
        let text = DiskOptions::parse("a,ro").unwrap_err().to_string();
        assert!(text.contains("`ro`") && text.contains("readonly") && text.contains("snapshot"), "{text}");
        assert!(DiskOptions::parse("a,readonly=maybe").unwrap_err().to_string().contains("on or off"));
        assert!(DiskOptions::parse("a,format=qcow2").unwrap_err().to_string().contains("qcow2"));
        assert!(matches!(DiskOptions::parse("a,"), Err(ParseDiskError::UnknownOption(_))));
    }

    #[test]
    fn a_window_cuts_across_slices() {
        let (mut a, mut b) = ([0_u8; 10], [0_u8; 10]);
        let slices = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])];
        let lens = |skip, len| window(&slices, skip, len).iter().map(|s| s.len()).collect::<Vec<_>>();
        assert_eq!(lens(0, 20), [10, 10]);
        assert_eq!(lens(5, 10), [5, 5]);
        assert_eq!(lens(10, 3), [3]);
        assert_eq!(lens(20, 3), [0; 0]);
    }
}
