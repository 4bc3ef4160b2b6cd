//! A throw-away layer over a read-only disk: what the guest writes is gone when the process ends.
//!
//! The layer is an anonymous sparse file as long as the disk. A bit per cluster says whether the cluster's bytes are
//! found there or still in the base; a cluster keeps its place, so there is nothing else to look up.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use vm_memory::VolatileSlice;

use super::raw::{punch_hole, read_slices, try_read_slices, write_slices, zero};
use super::{Disk, OpenDiskError, check_range, total_len, window};

/// Bytes that move to the layer at once.
const CLUSTER: u64 = 64 * 1024;

/// A disk that reads from a base image and keeps writes in a temporary file.
pub(super) struct Overlay {
    base: Box<dyn Disk>,
    top: File,
    /// Which clusters live in `top`. Shared while clusters stay where they are, held alone while one moves.
    moved: RwLock<Moved>,
}

/// A set of clusters. Its memory goes with what the guest writes, not with the size of the disk, which an image invents.
#[derive(Default)]
struct Moved(HashMap<u64, [u64; 64]>);

impl Moved {
    fn has(&self, cluster: u64) -> bool {
        let bits = self.0.get(&(cluster / 4096));
        bits.is_some_and(|bits| bits[(cluster / 64 % 64) as usize] >> (cluster % 64) & 1 == 1)
    }

    /// Whether every cluster touched by a non-empty range is in the layer.
    fn has_all(&self, offset: u64, len: u64) -> bool {
        (offset / CLUSTER..=(offset + len - 1) / CLUSTER).all(|cluster| self.has(cluster))
    }

    /// Records that every cluster touched by a non-empty range now lives in the layer.
    fn add(&mut self, offset: u64, len: u64) {
        for cluster in offset / CLUSTER..=(offset + len - 1) / CLUSTER {
            let bits = self.0.entry(cluster / 4096).or_insert([0; 64]);
            bits[(cluster / 64 % 64) as usize] |= 1 << (cluster % 64);
        }
    }
}

impl Overlay {
    /// An empty layer over `base`, which was opened from `path`.
    ///
    /// The file is made in `$TMPDIR`, or in `/var/tmp`, which unlike `/tmp` is not usually kept in memory.
    pub(super) fn new(base: Box<dyn Disk>, path: &Path) -> Result<Self, OpenDiskError> {
        let directory = env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let top = anonymous_file(&directory)
            .and_then(|file| file.set_len(base.size()).map(|()| file))
            .map_err(|source| OpenDiskError::Snapshot { path: path.to_owned(), directory, source })?;
        Ok(Self { base, top, moved: RwLock::default() })
    }

    /// Copies a cluster's bytes up from the base, without yet calling it moved.
    fn copy_up(&self, cluster: u64) -> io::Result<()> {
        let start = cluster * CLUSTER;
        let len = CLUSTER.min(self.base.size() - start);
        let mut bytes = vec![0; len as usize];
        let slices = [VolatileSlice::from(&mut bytes[..])];
        self.base.read_at(start, &slices)?;
        write_slices(&self.top, start, &slices)
    }

    /// Copies up the clusters at the edges of a range that is about to be overwritten.
    fn prepare(&self, moved: &Moved, offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        let (first, last) = (offset / CLUSTER, (end - 1) / CLUSTER);
        let covered = |cluster: u64| {
            offset <= cluster * CLUSTER && end >= ((cluster + 1) * CLUSTER).min(self.base.size())
        };
        if !moved.has(first) && !covered(first) {
            self.copy_up(first)?;
        }
        if last != first && !moved.has(last) && !covered(last) {
            self.copy_up(last)?;
        }
        Ok(())
    }

    /// Overwrites a non-empty range by `act`, after what else its clusters hold has moved up.
    fn overwrite(&self, offset: u64, len: u64, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let moved = self.moved.read();
        if moved.has_all(offset, len) {
            return act();
        }
        drop(moved);
        let mut moved = self.moved.write();
        self.prepare(&moved, offset, len)?;
        act()?;
        moved.add(offset, len);
        Ok(())
    }

    /// Reads; `false` if `patient` is off and the host would make us wait.
    fn read(&self, offset: u64, into: &[VolatileSlice<'_>], patient: bool) -> io::Result<bool> {
        let len = total_len(into);
        check_range(self.size(), offset, len)?;
        let moved = if patient {
            self.moved.read()
        } else {
            let Some(moved) = self.moved.try_read() else { return Ok(false) };
            moved
        };
        let mut done = 0;
        while done < len {
            let place = moved.has((offset + done) / CLUSTER);
            let mut end = done;
            while end < len && moved.has((offset + end) / CLUSTER) == place {
                end = ((offset + end) / CLUSTER + 1) * CLUSTER - offset;
            }
            let at = offset + done;
            let run = window(into, done as usize, (end.min(len) - done) as usize);
            let there = match (place, patient) {
                (true, true) => read_slices(&self.top, at, &run).map(|()| true),
                (true, false) => try_read_slices(&self.top, at, &run),
                (false, true) => self.base.read_at(at, &run).map(|()| true),
                (false, false) => self.base.try_read_at(at, &run),
            };
            if !there? {
                return Ok(false);
            }
            done = end;
        }
        Ok(true)
    }
}

impl Disk for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.read(offset, into, true).map(|_| ())
    }

    fn try_read_at(&self, offset: u64, into: &[VolatileSlice<'_>]) -> io::Result<bool> {
        self.read(offset, into, false)
    }

    fn write_at(&self, offset: u64, from: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = total_len(from);
        check_range(self.size(), offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.overwrite(offset, len, || write_slices(&self.top, offset, from))
    }

    /// Nothing to do: the layer does not outlive the process.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Gives back the clusters that lie wholly in the range and in the layer; the base is never touched.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        let moved = self.moved.read();
        for cluster in offset.div_ceil(CLUSTER)..(offset + len) / CLUSTER {
            if moved.has(cluster) {
                // A host that cannot make holes keeps the bytes, which a discard allows.
                let _ = punch_hole(&self.top, cluster * CLUSTER, CLUSTER);
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.overwrite(offset, len, || zero(&self.top, offset, len, true))
    }
}

/// A file without a name in `directory`.
fn anonymous_file(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
        Ok(file) => Ok(file),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
        {
            let path = directory.join(format!("hartvm-snapshot-{}", std::process::id()));
            // `create_new` never follows or reuses what another user put there.
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::raw::tests::image;
    use crate::disk::{DiskOptions, open};

    #[test]
    fn the_overlay_behaves_like_a_disk_and_the_base_stays() {
        const SIZE: usize = 5 * 65536 + 1024;
        let path = image("overlay", SIZE);
        let before = std::fs::read(&path).unwrap();
        let mut model = before.clone();
        let disk = open(&DiskOptions { snapshot: true, ..DiskOptions::new(&path) }).unwrap();
        assert!(!disk.read_only());
        let mut seed = 0x1234_5678_u64;
        for round in 0..400_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (seed >> 33) as usize % (SIZE / 512);
            let count = 1 + (seed >> 20) as usize % (SIZE / 512 - start);
            let (from, to) = (start * 512, (start + count) * 512);
            match round % 4 {
                0 => {
                    let mut data = vec![round as u8; to - from];
                    model[from..to].copy_from_slice(&data);
                    disk.write_at(from as u64, &[VolatileSlice::from(&mut data[..])]).unwrap();
                }
                1 => {
                    let to = to.min(from + 1024);
                    disk.write_zeroes(from as u64, (to - from) as u64, false).unwrap();
                    model[from..to].fill(0);
                }
                _ => {
                    let mut data = vec![0; to - from];
                    disk.read_at(from as u64, &[VolatileSlice::from(&mut data[..])]).unwrap();
                    assert!(data == model[from..to], "round {round}");
                }
            }
        }
        disk.discard(0, SIZE as u64).unwrap();
        disk.flush().unwrap();
        assert!(std::fs::read(&path).unwrap() == before);
        let sharer = open(&DiskOptions { read_only: true, ..DiskOptions::new(&path) });
        assert!(sharer.is_ok_and(|sharer| sharer.read_only()), "a snapshot shares its base with readers");
        std::fs::remove_file(path).unwrap();
    }
}
