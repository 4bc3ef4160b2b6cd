//! qcow2 images, read and written in place (QEMU's `docs/interop/qcow2.rst`, versions 2 and 3).
//!
//! The image file always is a whole, consistent image: the one of the last *commit*. Between commits, guest data goes to
//! clusters that the committed image already has to itself, or to clusters it does not use; changed tables stay in memory.
//! A commit ([`commit`]) writes every changed table to a new place, makes that durable, and then has the header point at
//! the new L1 and refcount tables by one write of one sector. Whatever ends hartvm or the host, between two commits or
//! in the middle of one, there is nothing to repair, no cluster leaks, and what the guest flushed is there. A host that is
//! full makes a write or a commit fail, and the committed image stands.
//!
//! Lock order: `committing`, then `meta`. Reads, and writes to clusters that are there already, share `meta`; whoever
//! changes a table has it alone. While a commit writes, the disk goes on.

mod check;
mod commit;
mod compressed;
mod create;
mod header;
mod refcount;
mod tables;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io;

use parking_lot::{Mutex, RwLock};
use vm_memory::VolatileSlice;

use super::lock::LockedFile;
use super::raw::{read_slices_padded, try_read_slices, write_slices};
use super::{Disk, check_range, total_len, window, zero_slices};
pub use check::Findings;
pub(super) use create::{Creation, create};
pub(super) use header::MAGIC;
pub use header::{Compression, Snapshot};
use header::{Header, read_up_to};
use refcount::Refcounts;
use tables::{COPIED, Mapping, OFFSET, Tables};

/// Why a qcow2 image is not used.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// A header that contradicts itself or the format.
    #[error("{0}; it is damaged, or no qcow2 image")]
    Header(&'static str),
    /// Neither version 2 nor 3.
    #[error(
        "it has version {0}, and versions 2 and 3 are known; convert it with `qemu-img convert -O qcow2 OLD NEW`"
    )]
    Version(u32),
    /// Encrypted.
    #[error("it is encrypted ({0}), which is not supported; decrypt it with `qemu-img convert`")]
    Encrypted(&'static str),
    /// A feature that exists but is not supported.
    #[error("it uses {0}, which is not supported; convert it with `qemu-img convert -O qcow2 OLD NEW`")]
    Feature(&'static str),
    /// Feature bits nobody knows.
    #[error(
        "it uses features that are not known here (bits {0:#x}); convert it with `qemu-img convert -O qcow2 OLD NEW`"
    )]
    UnknownFeatures(u64),
    /// It must not be written as it is.
    #[error("{0}; repair it with `hartvm image check --repair FILE`, or add `,readonly`")]
    NeedsRepair(&'static str),
    /// It cannot be made as large, or as small, as asked.
    #[error("{0}")]
    Size(&'static str),
    /// The host.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error about the contents of an image, found while it is in use.
fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Fills `into`; what lies beyond the end of the file is zero.
fn read_exact_padded(file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let len = read_up_to(file, offset, into)?;
    into[len..].fill(0);
    Ok(())
}

/// What changes under a running guest.
#[derive(Debug)]
struct Meta {
    tables: Tables,
    refcounts: Refcounts,
    /// As the next commit will write it.
    header: Header,
}

/// An open qcow2 image.
pub(super) struct Qcow2 {
    file: LockedFile,
    backing: Option<Box<dyn Disk>>,
    read_only: bool,
    size: u64,
    version: u32,
    cluster_bits: u32,
    compression: Compression,
    unpacked: compressed::Unpacked,
    meta: RwLock<Meta>,
    committing: Mutex<()>,
}

/// What an image's header says of its backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackingName {
    pub(super) name: String,
    pub(super) format: Option<String>,
}

/// The facts that `hartvm image info` prints.
#[derive(Clone, Debug)]
pub struct Facts {
    /// 2 or 3.
    pub version: u32,
    /// Bytes the guest sees.
    pub size: u64,
    /// Bytes in a cluster.
    pub cluster_size: u64,
    /// Of compressed clusters.
    pub compression: Compression,
    /// Bits of a refcount.
    pub refcount_bits: u32,
    /// A program crashed that does not keep refcounts up to date.
    pub dirty: bool,
    /// QEMU has marked it as broken.
    pub corrupt: bool,
    /// Internal snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// Reads what the header of an image says.
pub(super) fn facts(file: &File) -> Result<Facts, Qcow2Error> {
    let header = Header::read(file)?;
    Ok(Facts {
        version: header.version,
        size: header.size,
        cluster_size: header.cluster_size(),
        compression: header.compression,
        refcount_bits: 1 << header.refcount_order,
        dirty: header.incompatible & header::DIRTY != 0,
        corrupt: header.is_corrupt(),
        snapshots: header::snapshots(file, &header)?.0,
    })
}

/// The backing file that an image names.
pub(super) fn backing_name(file: &File) -> Result<Option<BackingName>, Qcow2Error> {
    let header = Header::read(file)?;
    Ok(header.backing.map(|name| BackingName { name, format: header.backing_format }))
}

/// Tables as they are in the file, big-endian.
fn read_table(file: &File, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    read_exact_padded(file, offset, &mut bytes)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect())
}

impl Qcow2 {
    /// Opens the image in `file`, of `len` bytes, over its backing file.
    pub(super) fn open(
        file: LockedFile,
        len: u64,
        read_only: bool,
        backing: Option<Box<dyn Disk>>,
    ) -> Result<Self, Qcow2Error> {
        let dirty = Header::read(&file)?.incompatible & header::DIRTY != 0;
        let mut image = Self::open_unchecked(file, len, read_only, backing)?;
        if read_only {
            return Ok(image);
        }
        if image.meta.get_mut().header.is_corrupt() {
            return Err(Qcow2Error::NeedsRepair("it was marked as broken"));
        }
        if dirty {
            log::warn!("a qcow2 image was not closed properly; its refcounts are made anew");
            image.check(true)?;
        }
        image.judge_refcounts()?;
        image.claim()?;
        Ok(image)
    }

    /// Opens an image whose refcounts may be wrong.
    fn open_unchecked(
        file: LockedFile,
        len: u64,
        read_only: bool,
        backing: Option<Box<dyn Disk>>,
    ) -> Result<Self, Qcow2Error> {
        let header = Header::read(&file)?;
        let bits = header.cluster_bits;
        let end = len.div_ceil(header.cluster_size());
        let l1_bytes = u64::from(header.l1_size) * 8;
        if header.l1_offset.checked_add(l1_bytes).is_none_or(|l1_end| l1_end > end << bits)
            || header.l1_offset == 0
        {
            return Err(Qcow2Error::Header("its L1 table lies outside of it"));
        }
        let l1 = read_table(&file, header.l1_offset, header.l1_size as usize)?;
        let mut reftable = Vec::new();
        if !read_only {
            let bytes = u64::from(header.reftable_clusters) << bits;
            if bytes == 0
                || header.reftable_offset == 0
                || header.reftable_offset.checked_add(bytes).is_none_or(|table_end| table_end > end << bits)
            {
                return Err(Qcow2Error::Header("its refcount table lies outside of it"));
            }
            reftable = read_table(&file, header.reftable_offset, (bytes / 8) as usize)?;
            while reftable.last() == Some(&0) {
                reftable.pop();
            }
        }
        Ok(Self {
            backing,
            read_only,
            size: header.size,
            version: header.version,
            cluster_bits: bits,
            compression: header.compression,
            unpacked: compressed::Unpacked::default(),
            meta: RwLock::new(Meta {
                tables: Tables::new(header.version, bits, l1),
                refcounts: Refcounts::new(bits, header.refcount_order, reftable, end),
                header,
            }),
            committing: Mutex::new(()),
            file,
        })
    }

    /// Refuses an image that would let new data be put over its own tables: each of them must be counted.
    fn judge_refcounts(&mut self) -> Result<(), Qcow2Error> {
        let bits = self.cluster_bits;
        let Meta { tables, refcounts, header } = self.meta.get_mut();
        let l1_clusters = (u64::from(header.l1_size) * 8).div_ceil(1 << bits);
        let snapshot_bytes = header::snapshots(&self.file, header)?.1;
        let mut used = vec![0];
        used.extend((0..l1_clusters).map(|n| (header.l1_offset >> bits) + n));
        used.extend((0..u64::from(header.reftable_clusters)).map(|n| (header.reftable_offset >> bits) + n));
        used.extend((0..snapshot_bytes.div_ceil(1 << bits)).map(|n| (header.snapshots_offset >> bits) + n));
        used.extend(refcounts.table.iter().filter(|offset| **offset != 0).map(|offset| offset >> bits));
        used.extend(
            tables.l1.iter().filter(|entry| **entry & OFFSET != 0).map(|entry| (entry & OFFSET) >> bits),
        );
        used.sort_unstable();
        for cluster in used {
            if cluster >= refcounts.end || refcounts.get(&self.file, cluster)? == 0 {
                return Err(Qcow2Error::NeedsRepair(
                    "one of its tables is not marked as used, or lies outside of it",
                ));
            }
        }
        Ok(())
    }

    /// Clears the features that only hold as long as every writer knows them, before anything is written.
    fn claim(&mut self) -> Result<(), Qcow2Error> {
        let header = &mut self.meta.get_mut().header;
        if header.autoclear != 0 {
            if header.autoclear & 1 != 0 {
                log::warn!(
                    "the persistent dirty bitmaps of a qcow2 image become invalid, since it is written"
                );
            }
            header.autoclear = 0;
            let header = header.clone();
            self.write_header(&header)?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Runs `act` with `meta` shared and the table for `offset` in memory.
    fn with_table<R>(&self, index: u32, act: impl FnOnce(&Meta) -> io::Result<R>) -> io::Result<R> {
        let meta = self.meta.read();
        if meta.tables.get(index).is_some() || !meta.tables.exists(index) {
            return act(&meta);
        }
        drop(meta);
        let mut meta = self.meta.write();
        let end = meta.refcounts.end;
        meta.tables.load(&self.file, index, end)?;
        act(&parking_lot::RwLockWriteGuard::downgrade(meta))
    }

    /// The mapping of the byte at `offset`, and how many bytes up to `len` go on in the same way: the same kind, and in the
    /// file one after the other. Never beyond a table.
    fn run(&self, meta: &Meta, offset: u64, len: u64, in_place: bool) -> io::Result<(Mapping, u64)> {
        let size = self.cluster_size();
        let (index, first) = meta.tables.split(offset);
        let within = offset % size;
        let entries = meta.tables.entries();
        let Some(table) = meta.tables.get(index) else {
            return Ok((Mapping::Unallocated, len.min((entries - first as u64) * size - within)));
        };
        let end = meta.refcounts.end;
        let mapping_of = |entry: u64| -> io::Result<Mapping> {
            let mapping = meta.tables.decode(entry, end)?;
            Ok(match mapping {
                // A cluster that others use too is for the slow path.
                Mapping::Data(_) if in_place && entry & COPIED == 0 => Mapping::Unallocated,
                Mapping::Data(host) if in_place => {
                    meta.forbid_tables(host, self.cluster_bits)?;
                    mapping
                }
                _ => mapping,
            })
        };
        let mapping = mapping_of(table.entries[first])?;
        let mut run = (size - within).min(len);
        let mut next = first + 1;
        while run < len && (next as u64) < entries {
            let same = match (mapping, mapping_of(table.entries[next])?) {
                (Mapping::Data(host), Mapping::Data(other)) => other == host + (next - first) as u64 * size,
                (Mapping::Zero(_), Mapping::Zero(_)) | (Mapping::Unallocated, Mapping::Unallocated) => true,
                _ => false,
            };
            if !same {
                break;
            }
            run = (run + size).min(len);
            next += 1;
        }
        Ok((mapping, run))
    }

    /// Reads up to `into.len()` bytes of one run; returns how many, or nothing if the host would make us wait and
    /// `patient` is off.
    fn read_run(
        &self,
        offset: u64,
        len: u64,
        into: &Pieces<'_, '_>,
        patient: bool,
    ) -> io::Result<Option<u64>> {
        let (index, _) = self.split(offset);
        let act = |meta: &Meta| {
            let (mapping, run) = self.run(meta, offset, len, false)?;
            match mapping {
                Mapping::Data(host) => {
                    let at = host + offset % self.cluster_size();
                    let slices = into.part(run);
                    if patient {
                        read_slices_padded(&self.file, at, &slices)?;
                    } else if !try_read_slices(&self.file, at, &slices)? {
                        return Ok(None);
                    }
                }
                Mapping::Zero(_) => zero_slices(&into.part(run)),
                Mapping::Unallocated => {
                    if !self.read_backing(offset, &into.part(run), patient)? {
                        return Ok(None);
                    }
                }
                Mapping::Compressed(entry) => {
                    if !patient {
                        return Ok(None);
                    }
                    let bytes = self.unpacked.get(&self.file, entry, self.cluster_bits, self.compression)?;
                    let within = (offset % self.cluster_size()) as usize;
                    copy_to_slices(&bytes[within..within + run as usize], &into.part(run));
                }
            }
            Ok(Some(run))
        };
        if patient {
            return self.with_table(index, act);
        }
        let Some(meta) = self.meta.try_read() else { return Ok(None) };
        if meta.tables.get(index).is_none() && meta.tables.exists(index) {
            return Ok(None);
        }
        act(&meta)
    }

    fn split(&self, offset: u64) -> (u32, u64) {
        let cluster = offset >> self.cluster_bits;
        ((cluster >> (self.cluster_bits - 3)) as u32, cluster)
    }

    /// Reads what the backing file has; zeros where it has nothing. `false`: it would have had to wait.
    fn read_backing(&self, offset: u64, into: &[VolatileSlice<'_>], patient: bool) -> io::Result<bool> {
        let len = total_len(into);
        let there = self.backing.as_ref().map_or(0, |backing| backing.size().saturating_sub(offset).min(len));
        if let Some(backing) = &self.backing
            && there > 0
        {
            let part = window(into, 0, there as usize);
            if patient {
                backing.read_at(offset, &part)?;
            } else if !backing.try_read_at(offset, &part)? {
                return Ok(false);
            }
        }
        zero_slices(&window(into, there as usize, (len - there) as usize));
        Ok(true)
    }

    fn read_all(&self, offset: u64, into: &[VolatileSlice<'_>], patient: bool) -> io::Result<bool> {
        let len = total_len(into);
        check_range(self.size, offset, len)?;
        let mut done = 0;
        while done < len {
            let pieces = Pieces { slices: into, skip: done };
            match self.read_run(offset + done, len - done, &pieces, patient)? {
                Some(run) => done += run,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Meta {
    /// Refuses to put guest data over tables, which only a damaged image asks for.
    fn forbid_tables(&self, host: u64, cluster_bits: u32) -> io::Result<()> {
        let header = &self.header;
        let l1 = header.l1_offset..header.l1_offset + u64::from(header.l1_size) * 8;
        let reftable = header.reftable_offset
            ..header.reftable_offset + (u64::from(header.reftable_clusters) << cluster_bits);
        let l1_end = l1.end.next_multiple_of(1 << cluster_bits);
        if (l1.start..l1_end).contains(&host) || reftable.contains(&host) || host == 0 {
            return Err(corrupt("guest data would overwrite the tables of the image; check it"));
        }
        Ok(())
    }
}

/// The rest of a list of slices.
struct Pieces<'a, 'b> {
    slices: &'b [VolatileSlice<'a>],
    skip: u64,
}

impl<'a> Pieces<'a, '_> {
    fn part(&self, len: u64) -> Vec<VolatileSlice<'a>> {
        window(self.slices, self.skip as usize, len as usize)
    }
}

fn copy_to_slices(mut bytes: &[u8], slices: &[VolatileSlice<'_>]) {
    for slice in slices {
        let (now, later) = bytes.split_at(slice.len().min(bytes.len()));
        slice.copy_from(now);
        bytes = later;
    }
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.read_all(offset, into, true).map(|_| ())
    }

    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        self.read_all(offset, into, false)
    }

    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = total_len(from);
        self.check_write(offset, len)?;
        let mut done = 0;
        while done < len {
            let pieces = Pieces { slices: from, skip: done };
            let at = offset + done;
            let (index, _) = self.split(at);
            let in_place = self.with_table(index, |meta| match self.run(meta, at, len - done, true)? {
                (Mapping::Data(host), run) => {
                    write_slices(&self.file, host + at % self.cluster_size(), &pieces.part(run))?;
                    Ok(Some(run))
                }
                _ => Ok(None),
            })?;
            done += match in_place {
                Some(run) => run,
                None => {
                    let run = self.write_new(&mut self.meta.write(), at, &pieces, len - done)?;
                    self.commit_if_full()?;
                    run
                }
            };
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.commit() }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        self.each_table(offset, len, |meta, clusters| {
            // Version 2 cannot say "zero" where the backing file has something, and the hint need not be taken.
            if self.version < 3 && self.backing_has(clusters.start << self.cluster_bits) {
                return Ok(());
            }
            self.zero_clusters(meta, clusters, true)
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let size = self.cluster_size();
        let end = offset + len;
        let whole = offset.next_multiple_of(size)..if end == self.size { end } else { end / size * size };
        if whole.start >= whole.end {
            return self.write_zero_bytes(offset, len);
        }
        self.write_zero_bytes(offset, whole.start - offset)?;
        // Version 2 has no zero clusters, but what nobody has is zero.
        if self.version >= 3 || self.backing.is_none() {
            self.each_table(whole.start, whole.end - whole.start, |meta, clusters| {
                self.zero_clusters(meta, clusters, unmap || self.version < 3)
            })?;
        } else {
            self.write_zero_bytes(whole.start, whole.end - whole.start)?;
        }
        self.write_zero_bytes(whole.end, end - whole.end)
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if !self.read_only
            && let Err(error) = self.commit()
        {
            log::error!("the last changes to a qcow2 image are lost: {error}");
        }
    }
}
