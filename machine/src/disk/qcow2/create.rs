//! New images, and other sizes for old ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::{Compression, Header, MAX_BACKING_NAME, MAX_L1_BYTES};
use super::{BackingName, Qcow2, Qcow2Error};
use crate::disk::Disk;

/// The cluster size of new images, which is QEMU's default.
const CLUSTER_BITS: u32 = 16;

/// What a new image is to be.
#[derive(Clone, Debug)]
pub(in crate::disk) struct Creation {
    /// Bytes, a positive multiple of 512.
    pub(in crate::disk) size: u64,
    pub(in crate::disk) backing: Option<BackingName>,
}

/// Writes an empty image into an empty file.
pub(in crate::disk) fn create(file: &File, creation: &Creation) -> Result<(), Qcow2Error> {
    const REFTABLE: u64 = 1;
    const REFBLOCK: u64 = 2;
    const L1: u64 = 3;
    let (backing, backing_format) = match &creation.backing {
        Some(backing) => (Some(backing.name.clone()), backing.format.clone()),
        None => (None, None),
    };
    if backing.as_ref().is_some_and(|name| name.len() > MAX_BACKING_NAME) {
        return Err(Qcow2Error::Size("the name of the backing file is longer than 1023 bytes"));
    }
    let mut header = Header {
        version: 3,
        cluster_bits: CLUSTER_BITS,
        size: creation.size,
        backing,
        backing_format,
        l1_size: 0,
        l1_offset: L1 << CLUSTER_BITS,
        reftable_offset: REFTABLE << CLUSTER_BITS,
        reftable_clusters: 1,
        snapshots: 0,
        snapshots_offset: 0,
        incompatible: 0,
        compatible: 0,
        autoclear: 0,
        refcount_order: 4,
        compression: Compression::Zlib,
    };
    let entries = header.l1_entries(creation.size);
    header.l1_size = l1_size(entries)?;
    let clusters = L1 + (entries * 8).div_ceil(header.cluster_size());
    file.set_len(clusters << CLUSTER_BITS)?;
    file.write_all_at(&(REFBLOCK << CLUSTER_BITS).to_be_bytes(), REFTABLE << CLUSTER_BITS)?;
    // The largest L1 table has far fewer clusters than one block has refcounts.
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&counts, REFBLOCK << CLUSTER_BITS)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_all()?;
    Ok(())
}

fn l1_size(entries: u64) -> Result<u32, Qcow2Error> {
    match u32::try_from(entries) {
        Ok(size) if entries * 8 <= MAX_L1_BYTES => Ok(size),
        _ => Err(Qcow2Error::Size("the size is more than a qcow2 image of its cluster size can have")),
    }
}

impl Qcow2 {
    /// Changes the size that the guest sees. What is new reads as zero.
    pub(in crate::disk) fn resize(&mut self, size: u64) -> Result<(), Qcow2Error> {
        let old = self.size;
        let meta = self.meta.get_mut();
        if meta.header.snapshots > 0 && (size < old || self.version < 3) {
            return Err(Qcow2Error::Size(
                "an image with internal snapshots cannot shrink, nor grow in version 2; delete them with \
                 `qemu-img snapshot -d NAME FILE`",
            ));
        }
        let entries = meta.header.l1_entries(size);
        l1_size(entries)?;
        if entries as usize > meta.tables.l1.len() {
            meta.tables.l1.resize(entries as usize, 0);
        }
        meta.tables.l1_due = true;
        if size > old {
            self.size = size;
            let behind = self.backing.as_ref().map_or(0, |backing| backing.size());
            if behind > old {
                self.write_zeroes(old, behind.min(size) - old, true)?;
            }
        } else {
            let whole = size.next_multiple_of(self.cluster_size()).min(old);
            self.write_zeroes(size, whole - size, false)?;
            self.discard(whole, old - whole)?;
            self.size = size;
        }
        let meta = self.meta.get_mut();
        meta.header.size = size;
        meta.tables.l1_due = true;
        self.commit().map_err(Qcow2Error::Io)
    }
}

impl From<Qcow2Error> for io::Error {
    fn from(error: Qcow2Error) -> Self {
        match error {
            Qcow2Error::Io(error) => error,
            error => Self::other(error),
        }
    }
}
