//! A raw image file or a block device, read and written in place; and the calls to the host that all formats make.

#![allow(unsafe_code, reason = "preadv and pwritev straight between the file and guest memory")]

use std::fs::{File, FileType};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::lock::{self, LockError, LockedFile};
use super::{
    Disk, OpenDiskError, SECTOR_SIZE, check_range, describe_file_type, total_len, window, zero_slices,
};

/// Most slices the kernel takes in one call (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// Zeros for hosts that cannot make holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A raw disk image, locked against other users for as long as it is open.
#[derive(Debug)]
pub(super) struct RawFile {
    file: LockedFile,
    size: u64,
    read_only: bool,
    /// The format was not given: the first sector must not come to look like another format.
    detected: bool,
}

impl RawFile {
    /// Takes an open and locked file as raw sectors. `detected`: that it is raw is a guess.
    pub(super) fn new(
        path: &Path,
        file: LockedFile,
        size: u64,
        read_only: bool,
        detected: bool,
    ) -> Result<Self, OpenDiskError> {
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(OpenDiskError::PartialSector { path: path.to_owned(), size });
        }
        Ok(Self { file, size, read_only, detected })
    }

    /// Writes to the first sector, unless it would come to look like another format: the next start would believe it, and
    /// a qcow2 header can name any file of the host. The guest may change its memory at any time, so what was looked at
    /// is what is written.
    fn write_start(&self, offset: u64, from: &[VolatileSlice<'_>], len: u64) -> io::Result<()> {
        let mut start = [0; SECTOR_SIZE as usize];
        let first = (len as usize).min(start.len() - offset as usize);
        let mut at = 0;
        for slice in window(from, 0, first) {
            at += slice.copy_to(&mut start[at..first]);
        }
        let mut magic = [0; MAGIC_LEN];
        self.file.read_exact_at(&mut magic, 0)?;
        let changed = MAGIC_LEN.min(offset as usize + first);
        magic[offset as usize..changed].copy_from_slice(&start[..changed - offset as usize]);
        if !matches!(Contents::of(&magic), Contents::Raw) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the guest makes a disk look like an image of another format; \
                 add `,format=raw` to the disk, now and from now on, if it may",
            ));
        }
        self.file.write_all_at(&start[..first], offset)?;
        write_slices(&self.file, offset + first as u64, &window(from, first, len as usize - first))
    }

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        check_range(self.size, offset, len)
    }
}

impl Disk for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.size, offset, total_len(into))?;
        read_slices(&self.file, offset, into)
    }

    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        check_range(self.size, offset, total_len(into))?;
        try_read_slices(&self.file, offset, into)
    }

    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = total_len(from);
        self.check_write(offset, len)?;
        if self.detected && offset < MAGIC_LEN as u64 {
            return self.write_start(offset, from, len);
        }
        write_slices(&self.file, offset, from)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        match punch_hole(&self.file, offset, len) {
            Err(error) if unsupported(&error) => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, len)?;
        zero(&self.file, offset, len, unmap)
    }
}

/// Opens and locks the image at `path`; returns it with its bytes.
pub(super) fn open_locked(path: &Path, read_only: bool) -> Result<(LockedFile, u64), OpenDiskError> {
    let owned = || path.to_owned();
    let io_error = |error| OpenDiskError::Io(owned(), error);
    let (file, _) = open_file(path, read_only)?;
    let file = LockedFile::new(file, !read_only).map_err(|(error, file)| match error {
        LockError::Held => OpenDiskError::Locked {
            path: owned(),
            holder: lock::holders(&file),
            remedy: if read_only {
                "it writes to the image, so stop it first"
            } else {
                "stop that first, or add `,readonly` or `,snapshot` if it only reads the image"
            },
        },
        LockError::Io(error) => io_error(error),
    })?;
    let size = (&*file).seek(SeekFrom::End(0)).map_err(io_error)?;
    if size == 0 {
        return Err(OpenDiskError::Empty(owned()));
    }
    Ok((file, size))
}

/// Opens an image file or block device without a lock; a block device that is to be written is claimed against mounts
/// (`O_EXCL`).
pub(super) fn open_file(path: &Path, read_only: bool) -> Result<(File, FileType), OpenDiskError> {
    let owned = || path.to_owned();
    let kind = match std::fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenDiskError::Missing(owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(OpenDiskError::NotReadable(owned()));
        }
        Err(error) => return Err(OpenDiskError::Io(owned(), error)),
    };
    describe_file_type(path, kind)?;
    let mut options = File::options();
    options.read(true).write(!read_only);
    if kind.is_block_device() && !read_only {
        options.custom_flags(libc::O_EXCL);
    }
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if !read_only => OpenDiskError::NotWritable(owned()),
        Some(libc::EACCES | libc::EPERM) => OpenDiskError::NotReadable(owned()),
        Some(libc::EBUSY) if kind.is_block_device() => OpenDiskError::Mounted(owned()),
        _ => OpenDiskError::Io(owned(), error),
    })?;
    Ok((file, kind))
}

/// Signs of formats that people download and that are not disks as they are: magic number, name, remedy.
const OTHER_FORMATS: [(&[u8], &str, &str); 6] = [
    (b"KDMV", "a VMDK image", "convert it with `qemu-img convert -O qcow2 OLD NEW`"),
    (b"vhdxfile", "a VHDX image", "convert it with `qemu-img convert -O qcow2 OLD NEW`"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with `xz -d`"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with `gzip -d`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `zstd -d`"),
    (b"BZh", "compressed with bzip2", "unpack it with `bzip2 -d`"),
];

/// Bytes of the longest magic number.
const MAGIC_LEN: usize = 8;

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing known, so sectors.
    Raw,
    /// A qcow2 image.
    Qcow2,
    /// Something of this name that is not for use as it is, and what to do.
    Other(&'static str, &'static str),
}

impl Contents {
    /// Looks at the start of a file.
    pub(super) fn detect(file: &File) -> io::Result<Self> {
        let mut start = [0; MAGIC_LEN];
        let len = file.read_at(&mut start, 0)?;
        Ok(Self::of(&start[..len]))
    }

    fn of(start: &[u8]) -> Self {
        if start.starts_with(&super::qcow2::MAGIC) {
            return Self::Qcow2;
        }
        let found = OTHER_FORMATS.iter().find(|(magic, ..)| start.starts_with(magic));
        found.map_or(Self::Raw, |(_, what, remedy)| Self::Other(what, remedy))
    }
}

/// Fills `slices` from `offset` on. The end of the file before that is an error.
pub(super) fn read_slices(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<()> {
    match read_part(file, offset, slices)? {
        len if len == total_len(slices) => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills `slices` from `offset` on, with zeros beyond the end of the file.
pub(super) fn read_slices_padded(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<()> {
    let len = read_part(file, offset, slices)?;
    zero_slices(&window(slices, len as usize, usize::MAX));
    Ok(())
}

/// Fills `slices` as far as the file goes; returns the bytes there were.
fn read_part(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<u64> {
    transfer(offset, slices, |iovecs, offset| {
        // SAFETY: each entry is a live VolatileSlice, whose memory is valid for its length; other threads and the
        // guest may look at it meanwhile, which is no concern of the kernel's copy.
        unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), offset) }
    })
}

/// Fills `slices` from `offset` on if the host has all of it in memory; `false` if it would have to wait for a device.
pub(super) fn try_read_slices(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<bool> {
    let result = transfer(offset, slices, |iovecs, offset| {
        // SAFETY: as in `read_part`.
        unsafe { libc::preadv2(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), offset, libc::RWF_NOWAIT) }
    });
    match result {
        Ok(len) => Ok(len == total_len(slices)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // A file system that cannot say is taken for one in memory, as those that cannot mostly are.
        Err(error) if unsupported(&error) => read_slices(file, offset, slices).map(|()| true),
        Err(error) => Err(error),
    }
}

/// Writes `slices` at `offset`.
pub(super) fn write_slices(file: &File, offset: u64, slices: &[VolatileSlice<'_>]) -> io::Result<()> {
    let len = transfer(offset, slices, |iovecs, offset| {
        // SAFETY: as in `read_part`; the kernel only reads the memory.
        unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), offset) }
    })?;
    if len == total_len(slices) { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn count(iovecs: &[libc::iovec]) -> i32 {
    // At most MAX_SLICES of them.
    iovecs.len() as i32
}

/// Repeats `call` until every byte of `slices` has gone or nothing more goes, through short transfers and signals; returns
/// how many have gone.
fn transfer(
    offset: u64,
    slices: &[VolatileSlice<'_>],
    call: impl Fn(&[libc::iovec], i64) -> isize,
) -> io::Result<u64> {
    let guards: Vec<_> =
        slices.iter().filter(|slice| !slice.is_empty()).map(VolatileSlice::ptr_guard_mut).collect();
    let mut iovecs: Vec<_> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let mut rest = &mut iovecs[..];
    let mut gone = 0;
    while !rest.is_empty() {
        let position = i64::try_from(offset + gone).map_err(|_| io::ErrorKind::InvalidInput)?;
        let done = call(&rest[..rest.len().min(MAX_SLICES)], position);
        let mut done = match usize::try_from(done) {
            Ok(0) => break,
            Ok(done) => done,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
        };
        gone += done as u64;
        while let Some(first) = rest.first_mut() {
            if done < first.iov_len {
                first.iov_base = first.iov_base.cast::<u8>().wrapping_add(done).cast();
                first.iov_len -= done;
                break;
            }
            done -= first.iov_len;
            rest = &mut rest[1..];
        }
    }
    Ok(gone)
}

/// Gives a range of the file back to the host; it reads as zero afterwards.
pub(super) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    allocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
}

/// Zeroes a range by the cheapest means the host has.
pub(super) fn zero(file: &File, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
    let result = if unmap {
        punch_hole(file, offset, len)
    } else {
        allocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len)
    };
    match result {
        Err(error) if unsupported(&error) => {}
        result => return result,
    }
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], offset + done)?;
        done += piece;
    }
    Ok(())
}

fn allocate(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, flags, offset, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the host lacks the operation, rather than having failed at it.
fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A fresh image of `size` bytes whose byte n is n / 512.
    pub(crate) fn image(name: &str, size: usize) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hartvm-{name}-{}-{number}", std::process::id()));
        let bytes: Vec<u8> = (0..size).map(|n| (n / 512) as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn open(path: &Path, read_only: bool) -> Result<RawFile, OpenDiskError> {
        let (file, size) = open_locked(path, read_only)?;
        RawFile::new(path, file, size, read_only, true)
    }

    fn refusal(path: &Path, read_only: bool) -> String {
        let options = crate::disk::DiskOptions { read_only, ..crate::disk::DiskOptions::new(path) };
        crate::disk::tests::whole(&crate::disk::open(&options).err().unwrap())
    }

    #[test]
    fn scattered_transfers_reach_the_file() {
        let path = image("raw", 8192);
        let disk = open(&path, false).unwrap();
        let (mut a, mut b) = ([0xaa_u8; 300], [0xbb_u8; 724]);
        let slices = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])];
        disk.write_at(1024, &slices).unwrap();
        disk.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[1024..1324].iter().all(|byte| *byte == 0xaa));
        assert!(bytes[1324..2048].iter().all(|byte| *byte == 0xbb));
        assert_eq!((bytes[1023], bytes[2048]), (1, 4));
        disk.read_at(1536, &slices[..1]).unwrap();
        assert_eq!(a, [0xbb; 300]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_guest_cannot_make_its_disk_another_format() {
        let path = image("trap", 8192);
        let header = |magic: &[u8]| [magic, &[7; 1024][magic.len()..]].concat();
        let write = |disk: &dyn Disk, offset, bytes: &mut [u8]| {
            let (a, b) = bytes.split_at_mut(3);
            disk.write_at(offset, &[VolatileSlice::from(a), VolatileSlice::from(b)])
        };
        let disk = open(&path, false).unwrap();
        write(&disk, 0, &mut header(b"\xeb\x58\x90")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..1024], header(b"\xeb\x58\x90"));
        for magic in [&super::super::qcow2::MAGIC[..], b"KDMV", b"\x1f\x8b"] {
            let error = write(&disk, 0, &mut header(magic)).unwrap_err();
            assert!(error.to_string().contains("format=raw"), "{error}");
            write(&disk, 512, &mut header(magic)).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap()[..512], header(b"\xeb\x58\x90")[..512]);
        drop(disk);
        let options = crate::disk::DiskOptions {
            format: Some(crate::disk::Format::Raw),
            ..crate::disk::DiskOptions::new(&path)
        };
        let disk = crate::disk::open(&options).unwrap();
        write(&*disk, 0, &mut header(b"QFI\xfb")).unwrap();
        drop(disk);
        assert!(crate::disk::open(&options).is_ok());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn zeroes_and_holes_keep_the_size() {
        let path = image("zero", 65536);
        let disk = open(&path, false).unwrap();
        disk.write_zeroes(512, 1024, false).unwrap();
        disk.write_zeroes(8192, 4096, true).unwrap();
        disk.discard(32768, 16384).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 65536);
        assert!(bytes[512..1536].iter().chain(&bytes[8192..12288]).all(|byte| *byte == 0));
        assert_eq!((bytes[1536], bytes[8191], bytes[12288]), (3, 15, 24));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn more_slices_than_the_kernel_takes_at_once() {
        let path = image("iov", 8192);
        let disk = open(&path, true).unwrap();
        let mut bytes = vec![0_u8; 4096];
        let slices: Vec<_> = bytes.chunks_mut(2).map(VolatileSlice::from).collect();
        disk.read_at(512, &slices).unwrap();
        assert_eq!((bytes[0], bytes[511], bytes[4095]), (1, 1, 8));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn ranges_beyond_the_end_and_writes_to_readers_are_refused() {
        let path = image("range", 1024);
        let disk = open(&path, true).unwrap();
        let mut buffer = [0_u8; 1024];
        let slices = [VolatileSlice::from(&mut buffer[..])];
        assert!(disk.read_at(512, &slices).is_err());
        assert!(disk.read_at(u64::MAX - 511, &slices).is_err());
        assert!(disk.write_at(0, &slices).is_err());
        assert!(disk.discard(0, 512).is_err());
        assert!(disk.write_zeroes(0, 512, true).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn unusable_images_are_explained() {
        let missing = Path::new("/nonexistent/disk.img");
        assert!(refusal(missing, false).contains("hartvm image create"));
        assert!(refusal(&std::env::temp_dir(), true).contains("directory"));
        assert!(refusal(Path::new("/dev/null"), true).contains("character device"));
        let path = image("bad", 0);
        assert!(refusal(&path, false).contains("empty"));
        std::fs::write(&path, [0; 700]).unwrap();
        assert!(refusal(&path, false).contains("truncate -s %512"));
        std::fs::write(&path, b"QFI\xfb and so on").unwrap();
        assert!(refusal(&path, false).contains("no whole header"));
        std::fs::write(&path, b"KDMV and so on").unwrap();
        assert!(refusal(&path, false).contains("qemu-img convert"));
        std::fs::write(&path, [0; 512]).unwrap();
        let first = open(&path, false).unwrap();
        assert!(refusal(&path, true).contains("in use by this machine"));
        drop(first);
        assert!(open(&path, true).is_ok());
        std::fs::remove_file(path).unwrap();
    }
}
