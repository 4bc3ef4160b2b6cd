//! Which clusters of the image file are in use, and how often: the refcount table and its blocks, and the allocator.
//!
//! All changes are made in memory. What was free when the image was last *committed* may be written at once; what was in
//! use then and is free now waits in `limbo` for the next commit, because the image file still refers to it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

use super::tables::State;
use super::{corrupt, read_exact_padded};

/// Bytes of refcount blocks kept in memory while they are clean.
const CACHE_BYTES: u64 = 16 << 20;

/// One refcount block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Box<[u8]>,
    pub(super) state: State,
}

/// A cluster that the committed image uses and the present one does not.
#[derive(Clone, Copy, Debug)]
struct Limbo {
    /// The commit that frees it.
    epoch: u64,
    /// Its bytes are to be given back to the host then.
    punch: bool,
}

/// Clusters that were allocated together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u64,
    /// Those from here on read as zero.
    pub(super) virgin: u64,
}

/// The refcounts of an image.
#[derive(Debug)]
pub(super) struct Refcounts {
    cluster_bits: u32,
    order: u32,
    /// Offsets of the blocks; 0 for a block of zeros, or one that has no place yet.
    pub(super) table: Vec<u64>,
    pub(super) blocks: HashMap<u64, Block>,
    /// Clusters in the file, which grows by allocation only.
    pub(super) end: u64,
    /// Clusters from here on have never been written, so they read as zero.
    virgin: u64,
    /// No cluster below is free.
    hint: u64,
    limbo: HashMap<u64, Limbo>,
    /// Clusters taken since the last commit: nothing on disk refers to them.
    young: HashSet<u64>,
    pub(super) epoch: u64,
}

impl Refcounts {
    pub(super) fn new(cluster_bits: u32, order: u32, table: Vec<u64>, end: u64) -> Self {
        Self {
            cluster_bits,
            order,
            table,
            blocks: HashMap::new(),
            end,
            virgin: end,
            hint: 1,
            limbo: HashMap::new(),
            young: HashSet::new(),
            epoch: 0,
        }
    }

    /// log2 of the refcounts in a block.
    fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.order
    }

    fn max(&self) -> u64 {
        u64::MAX >> (64 - (1 << self.order))
    }

    /// The block of a cluster, read if need be; none if all of it is zero.
    fn block(&mut self, file: &File, index: u64) -> io::Result<Option<&mut Block>> {
        if !self.blocks.contains_key(&index) {
            let Some(&offset) = usize::try_from(index).ok().and_then(|index| self.table.get(index)) else {
                return Ok(None);
            };
            if offset == 0 {
                return Ok(None);
            }
            if !offset.is_multiple_of(1 << self.cluster_bits) || offset >> self.cluster_bits >= self.end {
                return Err(corrupt("a refcount block lies outside of the image"));
            }
            if (self.blocks.len() as u64) << self.cluster_bits >= CACHE_BYTES {
                self.blocks.retain(|_, block| block.state != State::Clean);
            }
            let mut bytes = vec![0; 1 << self.cluster_bits].into_boxed_slice();
            read_exact_padded(file, offset, &mut bytes)?;
            self.blocks.insert(index, Block { bytes, state: State::Clean });
        }
        Ok(self.blocks.get_mut(&index))
    }

    /// How often a cluster is used.
    pub(super) fn get(&mut self, file: &File, cluster: u64) -> io::Result<u64> {
        let (order, mask) = (self.order, (1 << self.block_bits()) - 1);
        let index = cluster >> self.block_bits();
        Ok(self.block(file, index)?.map_or(0, |block| get(&block.bytes, order, (cluster & mask) as usize)))
    }

    /// Says how often a cluster is used.
    pub(super) fn set(&mut self, file: &File, cluster: u64, count: u64) -> io::Result<()> {
        let (order, bits) = (self.order, self.block_bits());
        if count > self.max() {
            return Err(corrupt("a cluster is used more often than its refcount can say"));
        }
        let index = cluster >> bits;
        if self.block(file, index)?.is_none() {
            let entries = usize::try_from(index).map_err(|_| corrupt("the image is too large"))?;
            if entries >= self.table.len() {
                self.table.resize(entries + 1, 0);
            }
            let bytes = vec![0; 1 << self.cluster_bits].into_boxed_slice();
            self.blocks.insert(index, Block { bytes, state: State::Dirty });
        }
        if let Some(block) = self.blocks.get_mut(&index) {
            block.state = State::Dirty;
            set(&mut block.bytes, order, (cluster & ((1 << bits) - 1)) as usize, count);
        }
        Ok(())
    }

    fn is_free(&mut self, file: &File, cluster: u64) -> io::Result<bool> {
        Ok(!self.limbo.contains_key(&cluster) && self.get(file, cluster)? == 0)
    }

    /// Takes free clusters that follow each other: `count` of them if `all`, otherwise 1 to `count`.
    pub(super) fn allocate(&mut self, file: &File, count: u64, all: bool) -> io::Result<Run> {
        let mut first = self.hint;
        let mut got = 0;
        let mut lowest = true;
        while first + got < self.end && got < count {
            if self.is_free(file, first + got)? {
                lowest = false;
                got += 1;
            } else if got > 0 && !all {
                break;
            } else {
                first += got + 1;
                got = 0;
                if lowest {
                    self.hint = first;
                }
            }
        }
        if got == 0 || (got < count && (all || first + got >= self.end)) {
            // What is free at the end of the file goes on beyond it.
            got = count;
        }
        let end = first + got;
        // 56 bits of an offset is what an entry can hold.
        if end > 1 << (55 - self.cluster_bits) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        for cluster in first..end {
            self.set(file, cluster, 1)?;
            self.young.insert(cluster);
        }
        let run = Run { first, count: got, virgin: self.virgin };
        self.end = self.end.max(end);
        self.virgin = self.virgin.max(end);
        Ok(run)
    }

    /// Takes one use of a cluster away. With `punch`, its bytes are given back to the host when nothing needs them.
    pub(super) fn release(&mut self, file: &File, cluster: u64, punch: bool) -> io::Result<()> {
        let count = self.get(file, cluster)?;
        // A count that is too low already stays: `check` is who can repair that.
        let Some(count) = count.checked_sub(1) else { return Ok(()) };
        self.set(file, cluster, count)?;
        if count > 0 {
            return Ok(());
        }
        if self.young.remove(&cluster) {
            self.hint = self.hint.min(cluster);
        } else {
            self.limbo.insert(cluster, Limbo { epoch: self.epoch, punch });
        }
        Ok(())
    }

    /// Whether much has gathered for the next commit.
    pub(super) fn is_full(&self) -> bool {
        const MAX: usize = 1 << 18;
        let dirty = self.blocks.values().filter(|block| block.state == State::Dirty).count() as u64;
        self.limbo.len() + self.young.len() > MAX || dirty << self.cluster_bits >= CACHE_BYTES
    }

    /// A commit of the present state begins: from now on the file may refer to everything in it.
    pub(super) fn next_epoch(&mut self) -> u64 {
        self.young.clear();
        self.epoch += 1;
        self.epoch - 1
    }

    /// The clusters that the commit of `epoch` frees and whose bytes the host may have back, in order.
    pub(super) fn punchable(&self, epoch: u64) -> Vec<u64> {
        let mut clusters: Vec<u64> = self
            .limbo
            .iter()
            .filter(|(_, limbo)| limbo.punch && limbo.epoch <= epoch)
            .map(|(at, _)| *at)
            .collect();
        clusters.sort_unstable();
        clusters
    }

    /// Whether there is something for a commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.blocks.values().any(|block| block.state == State::Dirty)
    }

    /// The commit under way has ended.
    pub(super) fn settle(&mut self, committed: bool) {
        for block in self.blocks.values_mut() {
            block.state = block.state.settle(committed);
        }
    }

    /// The commit of `epoch` has reached the disk.
    pub(super) fn committed(&mut self, epoch: u64) {
        let hint = &mut self.hint;
        self.limbo.retain(|cluster, limbo| {
            let keep = limbo.epoch > epoch;
            if !keep {
                *hint = (*hint).min(*cluster);
            }
            keep
        });
    }
}

/// Refcount `index` of a block, `1 << order` bits wide. Those of less than a byte count from the low bits up.
fn get(bytes: &[u8], order: u32, index: usize) -> u64 {
    if order < 3 {
        let per_byte = 8 >> order;
        let shift = (index % per_byte) << order;
        return u64::from(bytes[index / per_byte] >> shift) & ((1 << (1 << order)) - 1);
    }
    let width = 1 << (order - 3);
    bytes[index * width..][..width].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn set(bytes: &mut [u8], order: u32, index: usize, value: u64) {
    if order < 3 {
        let per_byte = 8 >> order;
        let shift = (index % per_byte) << order;
        let mask = ((1_u32 << (1 << order)) - 1) << shift;
        let byte = &mut bytes[index / per_byte];
        *byte = (u32::from(*byte) & !mask | (value as u32) << shift & mask) as u8;
        return;
    }
    let width = 1 << (order - 3);
    bytes[index * width..][..width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width() {
        for order in 0..=6 {
            let mut bytes = vec![0; 64];
            let max = u64::MAX >> (64 - (1 << order));
            for index in 0..8 {
                set(&mut bytes, order, index, index as u64 & max);
            }
            for index in 0..8 {
                assert_eq!(get(&bytes, order, index), index as u64 & max, "{order} {index}");
            }
            set(&mut bytes, order, 3, max);
            assert_eq!(
                (get(&bytes, order, 2), get(&bytes, order, 3), get(&bytes, order, 4)),
                (2 & max, max, 4 & max)
            );
        }
        let mut bytes = vec![0; 8];
        set(&mut bytes, 4, 1, 0x1234);
        assert_eq!(bytes[..4], [0, 0, 0x12, 0x34]);
        set(&mut bytes, 0, 32, 1);
        assert_eq!(bytes[4], 1);
    }
}
