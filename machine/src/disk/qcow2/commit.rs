//! How the image file gets from one consistent state to the next; see the parent module.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::{Header, MAX_L1_BYTES, MAX_REFTABLE_BYTES};
use super::tables::{COPIED, OFFSET, State};
use super::{Meta, Qcow2};
use crate::disk::raw::punch_hole;

/// What a commit writes.
struct Plan {
    writes: Vec<(u64, Vec<u8>)>,
    header: Header,
    epoch: u64,
}

impl Qcow2 {
    /// Makes everything written so far durable.
    pub(super) fn commit(&self) -> io::Result<()> {
        let _turn = self.committing.lock();
        let plan = self.meta.write().plan(&self.file);
        let result = match plan {
            Ok(None) => return self.file.sync_data(),
            Ok(Some(plan)) => self.carry_out(&plan).map(|()| plan.epoch),
            Err(error) => Err(error),
        };
        if let Ok(epoch) = result {
            self.punch(epoch);
        }
        let mut meta = self.meta.write();
        meta.tables.settle(result.is_ok());
        meta.refcounts.settle(result.is_ok());
        result.map(|epoch| meta.refcounts.committed(epoch))
    }

    fn carry_out(&self, plan: &Plan) -> io::Result<()> {
        for (offset, bytes) in &plan.writes {
            self.file.write_all_at(bytes, *offset)?;
        }
        // The new tables, and the data they speak of, come before the header that makes them count.
        self.file.sync_data()?;
        self.write_header(&plan.header)?;
        self.file.sync_data()
    }

    pub(super) fn write_header(&self, header: &Header) -> io::Result<()> {
        let (at, bytes) = header.changing_fields();
        self.file.write_all_at(&bytes, at)
    }

    /// Gives discarded clusters back to the host. They stay in limbo meanwhile, so nobody writes them.
    fn punch(&self, epoch: u64) {
        let clusters = self.meta.read().refcounts.punchable(epoch);
        let mut rest = &clusters[..];
        while let Some(first) = rest.first() {
            let count = (0_u64..).zip(rest).take_while(|(n, cluster)| **cluster == first + n).count();
            // A host that cannot make holes keeps the bytes.
            let _ = punch_hole(&self.file, first << self.cluster_bits, (count as u64) << self.cluster_bits);
            rest = &rest[count..];
        }
    }
}

impl Meta {
    /// Gives everything changed a new place, and takes it down as it is now. Nothing if nothing has changed.
    ///
    /// On an error the image in memory is as good as before, only with some tables at places nobody has written yet; they
    /// are still due for the next commit.
    fn plan(&mut self, file: &File) -> io::Result<Option<Plan>> {
        let bits = self.header.cluster_bits;
        if !self.tables.is_dirty() && !self.refcounts.is_dirty() {
            return Ok(None);
        }
        let tables = self.tables.take_dirty();
        let l1_moves = !tables.is_empty() || self.tables.l1_due;
        for &index in &tables {
            let new = self.refcounts.allocate(file, 1, true)?.first << bits;
            let old = std::mem::replace(&mut self.tables.l1[index as usize], new | COPIED) & OFFSET;
            if old != 0 {
                self.refcounts.release(file, old >> bits, false)?;
            }
        }
        if l1_moves {
            let clusters = |entries: usize| (entries as u64 * 8).div_ceil(1 << bits);
            if self.tables.l1.len() as u64 * 8 > MAX_L1_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let run = self.refcounts.allocate(file, clusters(self.tables.l1.len()), true)?;
            for n in 0..clusters(self.header.l1_size as usize) {
                self.refcounts.release(file, (self.header.l1_offset >> bits) + n, false)?;
            }
            self.header.l1_offset = run.first << bits;
            self.header.l1_size = self.tables.l1.len() as u32;
        }

        // Moving a refcount block changes refcounts, so this ends when every changed block has its place.
        let mut blocks = HashSet::new();
        let mut table_moved = false;
        loop {
            let mut all = self.refcounts.blocks.iter();
            let unplaced = all.find(|(index, block)| block.state == State::Dirty && !blocks.contains(*index));
            if let Some((&index, _)) = unplaced {
                blocks.insert(index);
                let new = self.refcounts.allocate(file, 1, true)?.first << bits;
                let old = std::mem::replace(&mut self.refcounts.table[index as usize], new);
                if old != 0 {
                    self.refcounts.release(file, old >> bits, false)?;
                }
                continue;
            }
            let want = (self.refcounts.table.len() as u64 * 8).div_ceil(1 << bits).max(1);
            if want << bits > MAX_REFTABLE_BYTES.max(1 << bits) {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let has = u64::from(self.header.reftable_clusters);
            if table_moved && has >= want {
                break;
            }
            table_moved = true;
            let run = self.refcounts.allocate(file, want, true)?;
            for n in 0..has {
                self.refcounts.release(file, (self.header.reftable_offset >> bits) + n, false)?;
            }
            self.header.reftable_offset = run.first << bits;
            self.header.reftable_clusters = want as u32;
        }

        let mut writes = Vec::new();
        let bytes =
            |entries: &[u64]| entries.iter().flat_map(|entry| entry.to_be_bytes()).collect::<Vec<u8>>();
        for &index in &tables {
            if let Some(table) = self.tables.get(index) {
                writes.push((self.tables.l1[index as usize] & OFFSET, bytes(&table.entries)));
            }
        }
        let whole_clusters = |mut bytes: Vec<u8>| {
            bytes.resize(bytes.len().next_multiple_of(1 << bits), 0);
            bytes
        };
        if l1_moves {
            writes.push((self.header.l1_offset, whole_clusters(bytes(&self.tables.l1))));
        }
        for &index in &blocks {
            if let Some(block) = self.refcounts.blocks.get_mut(&index) {
                writes.push((self.refcounts.table[index as usize], block.bytes.to_vec()));
                block.state = State::Committing;
            }
        }
        let mut table = bytes(&self.refcounts.table);
        table.resize((self.header.reftable_clusters as usize) << bits, 0);
        writes.push((self.header.reftable_offset, table));
        // In the order of the file, which is the fastest.
        writes.sort_unstable_by_key(|(offset, _)| *offset);
        self.tables.l1_due = false;
        let epoch = self.refcounts.next_epoch();
        Ok(Some(Plan { writes, header: self.header.clone(), epoch }))
    }
}
