//! Writing: to clusters that are there, that have to be copied or allocated first, and giving clusters back.

use std::io;
use std::ops::Range;

use vm_memory::VolatileSlice;

use super::super::raw::write_slices;
use super::super::{Disk, check_range};
use super::tables::{COPIED, Mapping, OFFSET, ZERO};
use super::{Meta, Pieces, Qcow2, compressed, corrupt, read_exact_padded};

impl Qcow2 {
    pub(super) fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        check_range(self.size, offset, len)
    }

    /// Commits if much has gathered. Not to be called with `meta` held.
    pub(super) fn commit_if_full(&self) -> io::Result<()> {
        let full = {
            let meta = self.meta.read();
            meta.tables.is_full() || meta.refcounts.is_full()
        };
        if full { self.commit() } else { Ok(()) }
    }

    /// Writes to clusters that have to be allocated or copied first, in the part of the disk that one L2 table has.
    pub(super) fn write_new(
        &self,
        meta: &mut Meta,
        offset: u64,
        from: &Pieces<'_, '_>,
        len: u64,
    ) -> io::Result<u64> {
        let size = self.cluster_size();
        let (index, first) = meta.tables.split(offset);
        meta.tables.load(&self.file, index, meta.refcounts.end)?;
        let (mapping, run) = self.run(meta, offset, len, true)?;
        let within = offset % size;
        if let Mapping::Data(host) = mapping {
            write_slices(&self.file, host + within, &from.part(run))?;
            return Ok(run);
        }

        let old: Vec<u64> = {
            let table = meta.tables.get(index).ok_or_else(|| corrupt("an L2 table is missing"))?;
            let most = (within + len).div_ceil(size) as usize;
            let fresh = |entry: &&u64| !matches!(meta.tables.decode(**entry, meta.refcounts.end), Ok(Mapping::Data(_)) if **entry & COPIED != 0);
            table.entries[first..].iter().take(most).take_while(fresh).copied().collect()
        };
        // A zero cluster that has a place of its own is written there.
        let placed = match meta.tables.decode(old[0], meta.refcounts.end)? {
            Mapping::Zero(Some(host)) if old[0] & COPIED != 0 => {
                meta.forbid_tables(host, self.cluster_bits)?;
                Some(host)
            }
            _ => None,
        };
        let (host, count, virgin) = match placed {
            Some(host) => (host, 1, u64::MAX),
            None => {
                let run = meta.refcounts.allocate(&self.file, old.len() as u64, false)?;
                (run.first << self.cluster_bits, run.count, run.virgin << self.cluster_bits)
            }
        };
        let done = len.min(count * size - within);
        let result = self.fill(meta, offset, from, done, host, virgin, &old[..count as usize]);
        if let Err(error) = result {
            if placed.is_none() {
                for n in 0..count {
                    meta.refcounts.release(&self.file, (host >> self.cluster_bits) + n, false)?;
                }
            }
            return Err(error);
        }
        for (n, old) in old[..count as usize].iter().enumerate() {
            meta.tables.set(index, first + n, (host + n as u64 * size) | COPIED);
            if placed.is_none() {
                self.release(meta, *old, false)?;
            }
        }
        Ok(done)
    }

    /// Writes `len` bytes for `offset`, and what else belongs into their clusters, to the new clusters at `host`.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact about one write")]
    fn fill(
        &self,
        meta: &Meta,
        offset: u64,
        from: &Pieces<'_, '_>,
        len: u64,
        host: u64,
        virgin: u64,
        old: &[u64],
    ) -> io::Result<()> {
        let size = self.cluster_size();
        let within = offset % size;
        let last = old.len() - 1;
        let tail = (last as u64 + 1) * size - within - len;
        let mut before = self.rest(meta, old[0], offset - within, 0..within, host >= virgin)?;
        let tail_start = size - tail;
        let last_at = offset - within + last as u64 * size;
        let last_host = host + last as u64 * size;
        let mut after = self.rest(meta, old[last], last_at, tail_start..size, last_host >= virgin)?;
        let mut slices = from.part(len);
        let mut at = host + within;
        if let Some(before) = &mut before {
            at -= before.len() as u64;
            slices.insert(0, VolatileSlice::from(&mut before[..]));
        }
        if let Some(after) = &mut after {
            slices.push(VolatileSlice::from(&mut after[..]));
        }
        write_slices(&self.file, at, &slices)
    }

    /// The bytes of a cluster's old contents that a write does not cover. Nothing if the new cluster has them already.
    fn rest(
        &self,
        meta: &Meta,
        entry: u64,
        cluster_at: u64,
        part: Range<u64>,
        virgin: bool,
    ) -> io::Result<Option<Vec<u8>>> {
        if part.is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![0; (part.end - part.start) as usize];
        match meta.tables.decode(entry, meta.refcounts.end)? {
            Mapping::Data(host) => read_exact_padded(&self.file, host + part.start, &mut bytes)?,
            Mapping::Compressed(entry) => {
                let whole = self.unpacked.get(&self.file, entry, self.cluster_bits, self.compression)?;
                bytes.copy_from_slice(&whole[part.start as usize..part.end as usize]);
            }
            Mapping::Unallocated if self.backing_has(cluster_at + part.start) => {
                self.read_backing(cluster_at + part.start, &[VolatileSlice::from(&mut bytes[..])], true)?;
            }
            Mapping::Unallocated | Mapping::Zero(_) if virgin => return Ok(None),
            Mapping::Unallocated | Mapping::Zero(_) => {}
        }
        Ok(Some(bytes))
    }

    pub(super) fn backing_has(&self, offset: u64) -> bool {
        self.backing.as_ref().is_some_and(|backing| offset < backing.size())
    }

    /// Gives up what an L2 entry referred to.
    fn release(&self, meta: &mut Meta, entry: u64, punch: bool) -> io::Result<()> {
        let (first, last) = match meta.tables.decode(entry, meta.refcounts.end) {
            Ok(Mapping::Data(host) | Mapping::Zero(Some(host))) => (host, host),
            Ok(Mapping::Compressed(entry)) => {
                let (offset, len) = compressed::extent(entry, self.cluster_bits);
                (offset, offset + len - 1)
            }
            // What makes no sense cannot be given back either.
            Ok(Mapping::Unallocated | Mapping::Zero(None)) | Err(_) => return Ok(()),
        };
        for cluster in first >> self.cluster_bits..=last >> self.cluster_bits {
            if cluster < meta.refcounts.end {
                meta.refcounts.release(&self.file, cluster, punch && first == last)?;
            }
        }
        Ok(())
    }

    /// Lets the whole clusters in a range of one L2 table read as zero, or as anything if `discard`. Keeps their places
    /// unless `unmap`.
    pub(super) fn zero_clusters(&self, meta: &mut Meta, clusters: Range<u64>, unmap: bool) -> io::Result<()> {
        let (index, first) = meta.tables.split(clusters.start << self.cluster_bits);
        let behind = self.backing_has(clusters.start << self.cluster_bits);
        if !meta.tables.exists(index) && !behind {
            return Ok(());
        }
        meta.tables.load(&self.file, index, meta.refcounts.end)?;
        for n in 0..(clusters.end - clusters.start) as usize {
            let Some(&old) = meta.tables.get(index).and_then(|table| table.entries.get(first + n)) else {
                break;
            };
            let mapping = meta.tables.decode(old, meta.refcounts.end)?;
            let behind = self.backing_has((clusters.start + n as u64) << self.cluster_bits);
            let new = match mapping {
                Mapping::Data(host) if !unmap && old & COPIED != 0 => host | COPIED | ZERO,
                Mapping::Zero(_) if !unmap => continue,
                _ if behind => ZERO,
                _ => 0,
            };
            if new != old {
                meta.tables.set(index, first + n, new);
                if new & OFFSET == 0 {
                    self.release(meta, old, unmap)?;
                }
            }
        }
        Ok(())
    }

    /// Writes zeros as data, through the usual path.
    pub(super) fn write_zero_bytes(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut zeros = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(zeros.len() as u64);
            let slice = VolatileSlice::from(&mut zeros[..piece as usize]);
            self.write_at(offset + done, &[slice])?;
            done += piece;
        }
        Ok(())
    }

    /// Calls `act` with the whole clusters of a range, one L2 table after the other.
    pub(super) fn each_table(
        &self,
        offset: u64,
        len: u64,
        mut act: impl FnMut(&mut Meta, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let size = self.cluster_size();
        let mut cluster = offset.div_ceil(size);
        // The last cluster of the disk may be cut short by its end.
        let end = if offset + len == self.size { self.size.div_ceil(size) } else { (offset + len) / size };
        while cluster < end {
            let per_table = size / 8;
            let stop = end.min((cluster / per_table + 1) * per_table);
            act(&mut self.meta.write(), cluster..stop)?;
            self.commit_if_full()?;
            cluster = stop;
        }
        Ok(())
    }
}
