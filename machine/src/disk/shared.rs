//! A disk that both a block device and the search for a kernel read.

use std::io;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::Disk;

impl Disk for Arc<dyn Disk> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_only(&self) -> bool {
        (**self).read_only()
    }

    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        (**self).read_at(offset, into)
    }

    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        (**self).try_read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()> {
        (**self).write_at(offset, from)
    }

    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        (**self).write_zeroes(offset, len, unmap)
    }
}

/// The disk as the crate `image` reads it: guest writes included, whatever format it is kept in.
struct Readable(Arc<dyn Disk>);

impl image::Source for Readable {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, &[VolatileSlice::from(into)])
    }
}

/// A disk, to look into.
pub fn source(disk: Arc<dyn Disk>) -> Arc<dyn image::Source> {
    Arc::new(Readable(disk))
}
