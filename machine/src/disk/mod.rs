//! The host side of a guest disk: what a block device reads from and writes to.
//!
//! [`DiskOptions`] is what the user asked for, [`open`] turns it into a [`Disk`]: a raw file, a qcow2 image over its backing
//! files, or a throw-away layer over one of them. A disk knows nothing of rings or of guest memory beyond a list of
//! [`VolatileSlice`]s, so the same disks serve every block device. [`image`] is what can be done to images without a guest.

mod chain;
pub mod image;
mod lock;
mod memory;
mod options;
mod overlay;
mod qcow2;
mod raw;
mod shared;

use std::io;
use std::path::{Path, PathBuf};

use vm_memory::VolatileSlice;

pub use chain::open;
pub use memory::Memory;
pub use options::{DiskOptions, Format, ParseDiskError, SERIAL_BYTES};
pub use qcow2::Qcow2Error;
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

    /// As [`Disk::read_at`], but only if that needs no waiting for a device of the host. `false`: it would, and the slices
    /// may be partly filled.
    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool>;

    /// Writes `from`, in order, at byte `offset`. What is not flushed may be lost when this process is killed.
    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes every write so far outlive this process and a crash of the host.
    fn flush(&self) -> io::Result<()>;

    /// Tells the disk that `len` bytes at `offset` hold nothing of value. A hint: what they read as is unspecified.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zero; with `unmap`, host storage may be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// Why a disk could not be opened. Each text names the file and what would help.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// No such file.
    #[error("disk image {0:?} does not exist; create an empty disk with `hartvm image create {0:?} 16G`")]
    Missing(PathBuf),
    /// Not a regular file or block device.
    #[error("disk image {0:?} is {1}; give an image file or a block device")]
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
        "disk image {path:?} is {what}, not a raw or qcow2 image; {remedy} (or add `,format=raw` to use it as it is)"
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
    /// A qcow2 image that cannot be used.
    #[error("disk image {path:?} cannot be used")]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What is the matter with it.
        source: Qcow2Error,
    },
    /// `format=qcow2` for something else.
    #[error("disk image {0:?} is no qcow2 image; leave `,format=qcow2` out")]
    NotQcow2(PathBuf),
    /// The backing file cannot be used.
    #[error("disk image {path:?} has a backing file that cannot be used")]
    Backing {
        /// The image that names it.
        path: PathBuf,
        /// Why not.
        source: Box<OpenDiskError>,
    },
    /// The name of the backing file is not that of a local file, or its format is not known.
    #[error(
        "disk image {path:?} has the backing file `{name}`{reason}; convert the image with \
         `qemu-img convert -O qcow2 OLD NEW`, which includes what the backing file has"
    )]
    BackingKind {
        /// The image that names it.
        path: PathBuf,
        /// The name.
        name: String,
        /// What is not possible.
        reason: String,
    },
    /// Backing files of backing files, without end.
    #[error("disk image {path:?}: {reason}")]
    BackingChain {
        /// The image that goes too far.
        path: PathBuf,
        /// What is wrong with the chain.
        reason: &'static str,
    },
    /// The overlay file exists, and belongs to something else.
    #[error(
        "overlay {overlay:?} exists and is no overlay of {base:?}; name a new file, or use it as `--disk {overlay:?}`"
    )]
    OtherOverlay {
        /// The overlay.
        overlay: PathBuf,
        /// What was to be its base.
        base: PathBuf,
    },
    /// A new image cannot be made.
    #[error("cannot create disk image {path:?}")]
    Create {
        /// The image.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A size that cannot be.
    #[error("disk image {path:?} cannot have {size} bytes: {reason}")]
    Size {
        /// The image.
        path: PathBuf,
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Anything else.
    #[error("cannot open disk image {0:?}")]
    Io(PathBuf, #[source] io::Error),
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

fn zero_slices(slices: &[VolatileSlice<'_>]) {
    const ZEROS: [u8; 4096] = [0; 4096];
    for slice in slices {
        let mut at = 0;
        while at < slice.len() {
            let len = ZEROS.len().min(slice.len() - at);
            if let Ok(part) = slice.subslice(at, len) {
                part.copy_from(&ZEROS[..len]);
            }
            at += len;
        }
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

    /// An error as the user sees it, with its causes.
    pub(super) fn whole(error: &dyn std::error::Error) -> String {
        std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}: ")).collect()
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
