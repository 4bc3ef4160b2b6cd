//! Where the bytes of an image come from, and how many of them may be looked at.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a disk, whatever format it is kept in.
pub trait Source: Send + Sync {
    /// How many there are.
    fn size(&self) -> u64;

    /// Fills `into` from byte `offset` on.
    ///
    /// # Errors
    /// What the host says, or [`io::ErrorKind::UnexpectedEof`] beyond [`size`](Self::size).
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|from| self.get(from..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What one look into an image may read: enough for a kernel and a large initrd, and an end to structures that lead in circles.
const BUDGET: u64 = 4 << 30;

/// What a read costs beyond its bytes, so that tiny reads come to an end too.
const COST: u64 = 256;

/// A part of a source. Clones share what may still be read.
#[derive(Clone)]
pub(crate) struct Window {
    source: Arc<dyn Source>,
    start: u64,
    len: u64,
    budget: Arc<AtomicU64>,
}

impl Window {
    /// All of `source`.
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        let len = source.size();
        Self { source, start: 0, len, budget: Arc::new(AtomicU64::new(BUDGET)) }
    }

    /// `len` bytes from `start` on, or what there is of them.
    pub(crate) fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        Self { start: self.start + start, len, ..self.clone() }
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `into` from byte `offset` on.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let length = into.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let pay = |left: u64| left.checked_sub(length + COST);
        if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_err() {
            return Err(io::Error::other("reading it takes without end"));
        }
        self.source.read_at(self.start + offset, into)
    }

    /// `length` bytes from `offset` on.
    pub(crate) fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        // Checked before memory is taken.
        if offset.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Up to `length` bytes from `offset` on, as many as there are.
    pub(crate) fn bytes_up_to(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let there = self.len.saturating_sub(offset).min(length as u64) as usize;
        self.bytes(offset.min(self.len), there)
    }
}

/// The little-endian number of two bytes at `offset`; 0 beyond the end.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// The little-endian number of four bytes at `offset`; 0 beyond the end.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The little-endian number of eight bytes at `offset`; 0 beyond the end.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_where_they_end() {
        let disk = Window::new(Arc::new((0..100).collect::<Vec<u8>>()));
        let part = disk.part(10, 20);
        assert_eq!(part.bytes(0, 3).unwrap(), [10, 11, 12]);
        assert_eq!(part.bytes(18, 2).unwrap(), [28, 29]);
        assert!(part.bytes(18, 3).is_err());
        assert!(part.bytes(u64::MAX, 1).is_err());
        assert_eq!(part.bytes_up_to(18, 10).unwrap(), [28, 29]);
        assert_eq!(part.bytes_up_to(30, 10).unwrap(), [0_u8; 0]);
        assert_eq!(disk.part(95, 20).len(), 5);
        assert_eq!(disk.part(u64::MAX, u64::MAX).len(), 0);
    }

    #[test]
    fn reading_in_circles_ends() {
        let disk = Window::new(Arc::new(vec![0; 1 << 20]));
        let mut buffer = vec![0; 1 << 20];
        let most = BUDGET / (1 << 20);
        let reads = (0..).take_while(|_| disk.part(0, 1 << 20).read_at(0, &mut buffer).is_ok()).count();
        assert!((most / 2..=most).contains(&(reads as u64)), "{reads}");
    }
}
