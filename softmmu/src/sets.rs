//! The sets that a [`Context`](crate::Context) keeps of what is in its tables, so that a flush need not look at all of them.

use std::ops::Range;

use crate::tlb::{Entry, TLB_SLOTS};

/// Slots of a chunk: a host page of entries.
const CHUNK: usize = 4096 / size_of::<Entry>();

/// A set of chunks of a table, a bit for each. The tables reach far, and most contexts use little of them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Chunks(u64);

const _: () = assert!(TLB_SLOTS / CHUNK <= u64::BITS as usize);

impl Chunks {
    pub(crate) fn insert(&mut self, slot: usize) {
        self.0 |= 1 << (slot / CHUNK);
    }

    pub(crate) fn contains(self, slot: usize) -> bool {
        self.0 >> (slot / CHUNK) & 1 == 1
    }

    /// The slots of each.
    pub(crate) fn slots(self) -> impl Iterator<Item = Range<usize>> {
        let firsts = (0..TLB_SLOTS).step_by(CHUNK).filter(move |slot| self.contains(*slot));
        firsts.map(|first| first..first + CHUNK)
    }
}

/// A set of numbers that may claim to contain what it does not.
#[derive(Clone, Copy)]
pub(crate) struct Filter<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Default for Filter<WORDS> {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl<const WORDS: usize> Filter<WORDS> {
    fn place(number: u64) -> (usize, u64) {
        let hash = (number ^ number >> 11) as usize % (WORDS * 64);
        (hash / 64, 1 << (hash % 64))
    }

    pub(crate) fn insert(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.0[word] |= bit;
    }

    pub(crate) fn may_contain(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.0[word] & bit != 0
    }
}

/// Most slots that a [`Log`] keeps.
pub(crate) const LOG_SIZE: usize = 512;

/// Slots filled for one address space only.
pub(crate) struct Log {
    slots: [u16; LOG_SIZE],
    /// More than `LOG_SIZE` if there were too many to keep.
    length: usize,
}

impl Log {
    pub(crate) fn push(&mut self, slot: usize) {
        match self.slots.get_mut(self.length) {
            Some(place) => {
                *place = slot as u16;
                self.length += 1;
            }
            None => self.length = LOG_SIZE + 1,
        }
    }

    /// Empties the log; `None` if it has overflowed.
    pub(crate) fn take(&mut self) -> Option<&[u16]> {
        let length = std::mem::take(&mut self.length);
        self.slots.get(..length)
    }
}
