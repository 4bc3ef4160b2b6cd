//! Bytes on their way through a connection: a ring that grows as it must and takes no memory while it is empty.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use rustix::io;

/// The smallest ring there is, once there is one.
const SMALLEST: usize = 16 << 10;

/// A ring of bytes. Its size is 0 or a power of two.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory in use.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the memory of an empty ring back.
    pub(super) fn release(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }

    /// The bytes from `skip` on, at most `len`, as they stand.
    pub(super) fn slices(&self, skip: usize, len: usize) -> [&[u8]; 2] {
        let len = len.min(self.len - skip.min(self.len));
        if len == 0 {
            return [&[], &[]];
        }
        let start = (self.head + skip) & (self.bytes.len() - 1);
        let first = len.min(self.bytes.len() - start);
        [&self.bytes[start..start + first], &self.bytes[..len - first]]
    }

    /// Drops the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) & (self.bytes.len() - 1) };
    }

    /// Makes the ring hold `capacity` bytes or more.
    fn grow(&mut self, capacity: usize) {
        let mut bytes = vec![0; capacity.next_power_of_two().max(SMALLEST)].into_boxed_slice();
        let [first, second] = self.slices(0, self.len);
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..self.len].copy_from_slice(second);
        (self.bytes, self.head) = (bytes, 0);
    }

    /// The free part behind the bytes.
    fn spare(&mut self) -> [&mut [u8]; 2] {
        let size = self.bytes.len();
        if self.len == size {
            return [&mut [], &mut []];
        }
        let start = (self.head + self.len) & (size - 1);
        if start < self.head {
            return [&mut self.bytes[start..self.head], &mut []];
        }
        let (front, back) = self.bytes.split_at_mut(start);
        [back, &mut front[..self.head]]
    }

    pub(super) fn extend(&mut self, from: &[u8]) {
        if self.len + from.len() > self.bytes.len() {
            self.grow(self.len + from.len());
        }
        let [first, second] = self.spare();
        let cut = from.len().min(first.len());
        first[..cut].copy_from_slice(&from[..cut]);
        second[..from.len() - cut].copy_from_slice(&from[cut..]);
        self.len += from.len();
    }

    /// Reads from a socket until the ring has `limit` bytes; returns how many came, 0 at its end.
    pub(super) fn read_from(&mut self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        if self.len == self.bytes.len() {
            self.grow((self.bytes.len() * 2).min(limit).max(self.len + 1));
        }
        let room = limit - self.len;
        let [first, second] = self.spare();
        let cut = room.min(first.len());
        let rest = (room - cut).min(second.len());
        let count = io::readv(
            socket,
            &mut [IoSliceMut::new(&mut first[..cut]), IoSliceMut::new(&mut second[..rest])],
        )?;
        self.len += count;
        Ok(count)
    }

    /// Writes what a socket takes, and drops it here.
    pub(super) fn write_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let [first, second] = self.slices(0, self.len);
        let count = io::writev(socket, &[IoSlice::new(first), IoSlice::new(second)])?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(ring: &Ring) -> Vec<u8> {
        ring.slices(0, ring.len()).concat()
    }

    #[test]
    fn bytes_come_out_in_order_across_the_end_and_through_growth() {
        let (mut ring, mut model) = (Ring::default(), Vec::new());
        let mut next = 0_u8;
        for round in 0..200_usize {
            let add: Vec<u8> = (0..round * 37 % 3000)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            ring.extend(&add);
            model.extend_from_slice(&add);
            let drop = (round * 53 % 2900).min(model.len());
            ring.consume(drop);
            model.drain(..drop);
            assert_eq!(contents(&ring), model, "{round}");
        }
        let skip = model.len() / 3;
        assert_eq!(ring.slices(skip, 100).concat(), &model[skip..skip + 100]);
    }

    #[test]
    fn an_empty_ring_gives_its_memory_back() {
        let mut ring = Ring::default();
        assert_eq!(ring.capacity(), 0);
        ring.extend(b"abc");
        ring.release();
        assert_eq!(contents(&ring), b"abc");
        ring.consume(3);
        ring.release();
        assert_eq!((ring.capacity(), contents(&ring)), (0, vec![]));
    }

    #[test]
    fn a_socket_fills_it_up_to_the_limit() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        let mut ring = Ring::default();
        assert_eq!(ring.read_from(&a, 10), Err(io::Errno::AGAIN));
        io::write(&b, b"0123456789abcdef").unwrap();
        assert_eq!(ring.read_from(&a, 10), Ok(10));
        ring.consume(4);
        assert_eq!(ring.read_from(&a, 10), Ok(4));
        assert_eq!(contents(&ring), b"456789abcd");
        assert_eq!(ring.write_to(&a), Ok(10));
        b.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(ring.is_empty());
        assert_eq!(ring.read_from(&a, 10), Ok(2));
        assert_eq!(ring.read_from(&a, 10), Ok(0));
    }
}
