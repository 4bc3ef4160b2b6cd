//! The memory that generated code lies in, mapped twice. Code is written through one mapping and runs in
//! the other, so no mapping is ever both writable and executable.

#![allow(unsafe_code, reason = "maps memory, and writes code while other threads run other parts of it")]

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect, mremap,
    munmap,
};

/// The two mappings. Offsets in the arena are the same in both.
pub(crate) struct Arena {
    /// Host address of the writable mapping.
    writable: usize,
    /// Host address of the executable mapping.
    executable: usize,
    size: usize,
}

impl Arena {
    /// An arena of `size` bytes, of which the host gives what is used. The memory is of no file, for `perf` looks into its map of
    /// names only for such memory, and limits on the size of files do not apply to it.
    pub(crate) fn new(size: usize) -> std::io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let writable = unsafe { mmap_anonymous(std::ptr::null_mut(), size, prot, MapFlags::SHARED) }?;
        let unmap = |address| {
            // SAFETY: an address of a mapping that is made here, and nothing refers to it.
            let _ = unsafe { munmap(address, size) };
        };
        // SAFETY: an old size of 0 leaves the shared mapping as it is and makes another of the same memory (mremap(2)).
        let executable =
            unsafe { mremap(writable, 0, size, MremapFlags::MAYMOVE) }.inspect_err(|_| unmap(writable))?;
        // SAFETY: the mapping just made, which nothing uses yet.
        if let Err(error) = unsafe { mprotect(executable, size, MprotectFlags::READ | MprotectFlags::EXEC) } {
            [writable, executable].into_iter().for_each(unmap);
            return Err(error.into());
        }
        Ok(Self { writable: writable.expose_provenance(), executable: executable.expose_provenance(), size })
    }

    /// Bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Host address of the code at an offset.
    #[inline]
    pub(crate) fn address(&self, offset: u32) -> u64 {
        self.executable as u64 + u64::from(offset)
    }

    /// The offset of a host address in the executable mapping.
    pub(crate) fn offset(&self, address: u64) -> Option<u32> {
        let offset = address.checked_sub(self.executable as u64)?;
        (offset < self.size as u64).then_some(offset as u32)
    }

    /// Has the host map a part of the arena, all of which will be written soon: much cheaper than one fault for each page.
    pub(crate) fn populate(&self, part: Range<u32>) {
        for (mapping, advice) in
            [(self.writable, Advice::LinuxPopulateWrite), (self.executable, Advice::LinuxPopulateRead)]
        {
            let address = std::ptr::with_exposed_provenance_mut(mapping + part.start as usize);
            // SAFETY: a part of the mapping, whose contents this leaves as they are.
            if unsafe { madvise(address, part.len(), advice) }.is_err() {
                // Linux before 5.14; the faults do it.
                return;
            }
        }
    }

    /// Copies code to a place that no thread executes.
    pub(crate) fn write(&self, offset: u32, code: &[u8]) {
        assert!(offset as usize + code.len() <= self.size);
        // SAFETY: inside the mapping. No Rust reference to the arena's bytes exists, and no thread executes these, which
        // the caller's lock on the cache keeps so until the code is published.
        unsafe {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(self.writable + offset as usize);
            std::ptr::copy_nonoverlapping(code.as_ptr(), to, code.len());
        }
    }

    /// Lets the host take back the page table entries of the writable mapping: what is there counts as resident twice while it
    /// is mapped twice.
    pub(crate) fn release_writable(&self) {
        let address = std::ptr::with_exposed_provenance_mut(self.writable);
        // SAFETY: the memory is shared with the other mapping, so its contents stay; the next access maps it again.
        let released = unsafe { madvise(address, self.size, Advice::LinuxDontNeed) };
        if let Err(error) = released {
            log::debug!("the host keeps the writable mapping of generated code: {error}");
        }
    }

    /// The displacement of a jump.
    pub(crate) fn displacement(&self, field: u32) -> u32 {
        self.field(field).load(Ordering::Relaxed)
    }

    /// Changes the displacement of a jump, which other threads may be executing. Returns what it was.
    pub(crate) fn patch(&self, field: u32, displacement: u32) -> u32 {
        self.field(field).swap(displacement, Ordering::Release)
    }

    fn field(&self, field: u32) -> &AtomicU32 {
        assert!(field.is_multiple_of(4) && (field as usize) < self.size);
        // SAFETY: inside the mapping and aligned; words that are patched are accessed in no other way once they are
        // published.
        unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(self.writable + field as usize)) }
    }

    /// Replaces the first five bytes at `entry`, a multiple of 16, by a jump to `target`. Other threads may be executing them: the
    /// first instruction there is at least as long.
    pub(crate) fn divert(&self, entry: u32, target: u32) {
        assert!(entry.is_multiple_of(16) && (entry as usize) < self.size);
        // SAFETY: as in `patch`.
        let word = unsafe {
            AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(self.writable + entry as usize))
        };
        let displacement = target.wrapping_sub(entry + 5);
        let old = word.load(Ordering::Relaxed);
        let jump = 0xe9 | u64::from(displacement) << 8;
        word.store(old & !0xff_ffff_ffff | jump, Ordering::Release);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for address in [self.writable, self.executable] {
            // SAFETY: mapped by `new`; whoever could run code in it or write to it is gone with the arena.
            let _ = unsafe { munmap(std::ptr::with_exposed_provenance_mut(address), self.size) };
        }
    }
}
