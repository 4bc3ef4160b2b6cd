//! From guest addresses to places in the image file: L1 and L2 tables.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{compressed, corrupt, read_exact_padded};

/// The cluster is used once, so it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zero, whatever is at its place (version 3).
pub(super) const ZERO: u64 = 1;
/// The offset of a cluster.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Bytes of L2 tables kept in memory while they are clean, and of those that wait for a commit.
const CACHE_BYTES: usize = 64 << 20;
const DIRTY_BYTES: usize = 16 << 20;

/// What an L2 entry says of a guest cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Nothing: the backing file has it.
    Unallocated,
    /// Zeros; the cluster at this offset belongs to it, if there is one.
    Zero(Option<u64>),
    /// At this offset.
    Data(u64),
    /// Compressed, as the entry describes.
    Compressed(u64),
}

/// How a table or refcount block in memory compares with the committed image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The same; it may be dropped and read again.
    Clean,
    /// The same as what the commit under way writes.
    Committing,
    /// Changed, and due for the next commit.
    Dirty,
}

impl State {
    /// After the commit under way has ended, well or not.
    pub(super) fn settle(self, committed: bool) -> Self {
        match self {
            Self::Committing if committed => Self::Clean,
            Self::Committing => Self::Dirty,
            state => state,
        }
    }
}

/// An L2 table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) entries: Box<[u64]>,
    pub(super) state: State,
    used: AtomicU64,
}

/// The L1 table and the L2 tables in memory.
#[derive(Debug)]
pub(super) struct Tables {
    version: u32,
    cluster_bits: u32,
    pub(super) l1: Vec<u64>,
    /// The L1 table, or a fact in the header, is due for the next commit.
    pub(super) l1_due: bool,
    tables: HashMap<u32, Table>,
    /// Counts the tables that were read, as a clock for `Table::used`.
    clock: u64,
    /// Tables that are dirty.
    dirty: usize,
}

impl Tables {
    pub(super) fn new(version: u32, cluster_bits: u32, l1: Vec<u64>) -> Self {
        Self { version, cluster_bits, l1, l1_due: false, tables: HashMap::new(), clock: 0, dirty: 0 }
    }

    /// Entries of an L2 table.
    pub(super) fn entries(&self) -> u64 {
        1 << (self.cluster_bits - 3)
    }

    /// The L2 table and the entry for a byte of the disk.
    pub(super) fn split(&self, offset: u64) -> (u32, usize) {
        let cluster = offset >> self.cluster_bits;
        ((cluster >> (self.cluster_bits - 3)) as u32, (cluster & (self.entries() - 1)) as usize)
    }

    /// Whether an L2 table exists; where it does not, nothing is allocated.
    pub(super) fn exists(&self, index: u32) -> bool {
        self.tables.contains_key(&index)
            || self.l1.get(index as usize).is_some_and(|entry| entry & OFFSET != 0)
    }

    /// A table in memory.
    pub(super) fn get(&self, index: u32) -> Option<&Table> {
        let table = self.tables.get(&index)?;
        table.used.store(self.clock, Ordering::Relaxed);
        Some(table)
    }

    /// Brings a table into memory. `end` is the number of clusters in the file.
    pub(super) fn load(&mut self, file: &File, index: u32, end: u64) -> io::Result<()> {
        if self.tables.contains_key(&index) {
            return Ok(());
        }
        let l1_entry = *self.l1.get(index as usize).ok_or_else(|| corrupt("the L1 table is too short"))?;
        let offset = l1_entry & OFFSET;
        let mut entries = vec![0; self.entries() as usize].into_boxed_slice();
        if offset != 0 {
            if !offset.is_multiple_of(1 << self.cluster_bits) || offset >> self.cluster_bits >= end {
                return Err(corrupt("an L2 table lies outside of the image"));
            }
            let mut bytes = vec![0; 1 << self.cluster_bits];
            read_exact_padded(file, offset, &mut bytes)?;
            for (entry, bytes) in entries.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *entry = u64::from_be_bytes(*bytes);
            }
        }
        self.clock += 1;
        let most = (CACHE_BYTES >> self.cluster_bits).max(4);
        if self.tables.len() >= most {
            let clean = self.tables.iter().filter(|(_, table)| table.state == State::Clean);
            let oldest =
                clean.min_by_key(|(_, table)| table.used.load(Ordering::Relaxed)).map(|(index, _)| *index);
            if let Some(oldest) = oldest {
                self.tables.remove(&oldest);
            }
        }
        self.tables.insert(index, Table { entries, state: State::Clean, used: AtomicU64::new(self.clock) });
        Ok(())
    }

    /// Changes an entry of a table in memory.
    pub(super) fn set(&mut self, index: u32, entry: usize, value: u64) {
        self.make_due(index);
        if let Some(table) = self.tables.get_mut(&index) {
            table.entries[entry] = value;
        }
    }

    /// Has a table in memory written by the next commit.
    pub(super) fn make_due(&mut self, index: u32) {
        if let Some(table) = self.tables.get_mut(&index)
            && table.state != State::Dirty
        {
            table.state = State::Dirty;
            self.dirty += 1;
        }
    }

    /// The tables that the image file does not have yet in their present form; a commit of them begins.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        let dirty = self.tables.iter_mut().filter(|(_, table)| table.state == State::Dirty);
        let mut indices = Vec::with_capacity(self.dirty);
        for (index, table) in dirty {
            table.state = State::Committing;
            indices.push(*index);
        }
        self.dirty = 0;
        indices.sort_unstable();
        indices
    }

    /// Whether there is something for a commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty > 0 || self.l1_due
    }

    /// The commit under way has ended.
    pub(super) fn settle(&mut self, committed: bool) {
        for table in self.tables.values_mut() {
            table.state = table.state.settle(committed);
        }
        self.dirty = self.tables.values().filter(|table| table.state == State::Dirty).count();
        self.l1_due |= !committed;
    }

    /// Whether much has gathered for the next commit.
    pub(super) fn is_full(&self) -> bool {
        self.dirty >= (DIRTY_BYTES >> self.cluster_bits).max(2)
    }

    /// Understands an entry. `end` is the number of clusters in the file.
    pub(super) fn decode(&self, entry: u64, end: u64) -> io::Result<Mapping> {
        if entry & COMPRESSED != 0 {
            let (offset, _) = compressed::extent(entry, self.cluster_bits);
            if offset >> self.cluster_bits >= end || offset == 0 {
                return Err(corrupt("a compressed cluster lies outside of the image"));
            }
            return Ok(Mapping::Compressed(entry));
        }
        let offset = entry & OFFSET;
        if !offset.is_multiple_of(1 << self.cluster_bits) {
            return Err(corrupt("a cluster has an offset that is no multiple of the cluster size"));
        }
        // The first cluster is the header's, whatever an entry says.
        if offset >> self.cluster_bits >= end {
            return Err(corrupt("a cluster lies outside of the image"));
        }
        let place = (offset != 0).then_some(offset);
        Ok(match place {
            place if self.version >= 3 && entry & ZERO != 0 => Mapping::Zero(place),
            Some(offset) => Mapping::Data(offset),
            None => Mapping::Unallocated,
        })
    }
}
