//! A disk whose contents are in this process's memory and never change.

use std::io;

use vm_memory::VolatileSlice;

use super::{Disk, SECTOR_SIZE, check_range, total_len};

/// The contents.
#[derive(Debug)]
pub struct Memory(Vec<u8>);

impl Memory {
    /// A disk of these bytes, and zeros to the end of the last sector.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().max(1).next_multiple_of(SECTOR_SIZE as usize), 0);
        Self(bytes)
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_range(self.size(), offset, total_len(into))?;
        let mut rest = &self.0[offset as usize..];
        for slice in into {
            slice.copy_from(&rest[..slice.len()]);
            rest = &rest[slice.len()..];
        }
        Ok(())
    }

    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        self.read_at(offset, into).map(|()| true)
    }

    fn write_at(&self, _offset: u64, _from: &[VolatileSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_never_written() {
        let disk = Memory::new((0..=255).collect());
        assert_eq!(disk.size(), 512);
        let (mut a, mut b) = ([9_u8; 3], [9_u8; 2]);
        let slices = [VolatileSlice::from(&mut a[..]), VolatileSlice::from(&mut b[..])];
        disk.read_at(252, &slices).unwrap();
        assert!(disk.read_at(508, &slices).is_err() && disk.read_at(u64::MAX, &slices).is_err());
        assert!(disk.write_at(0, &slices).is_err() && disk.discard(0, 512).is_err());
        assert!(disk.write_zeroes(0, 512, true).is_err());
        assert_eq!((a, b), ([252, 253, 254], [255, 0]));
    }
}
