//! The memory that generated code lies in, mapped twice. Code is written through one mapping and runs in
//! the other, so no mapping is ever both writable and executable.

#![allow(unsafe_code, reason = "maps memory, and writes code while other threads run other parts of it")]

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::fetch;
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
        fetch::prepare()?;
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

    /// Has the host map a part of the arena, all of which will be written soon: much cheaper than one fault for each page. Of the
    /// executable mapping, one fault maps many pages, for the memory is there then.
    pub(crate) fn populate(&self, part: Range<u32>) {
        let address = std::ptr::with_exposed_provenance_mut(self.writable + part.start as usize);
        // SAFETY: a part of the mapping, whose contents this leaves as they are. An error is that of a Linux before 5.14; the faults
        // do it there.
        let _ = unsafe { madvise(address, part.len(), Advice::LinuxPopulateWrite) };
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
        self.make_fetchable(offset, code.len());
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

    /// Has all other threads run no instruction that they fetched before what was written here, before they come to know of it. False if
    /// that cannot be had now.
    pub(crate) fn synchronize_others(&self) -> bool {
        fetch::synchronize_others()
    }

    /// A word of code that can be patched.
    pub(crate) fn word(&self, field: u32) -> u32 {
        self.field(field).load(Ordering::Relaxed)
    }

    /// Changes a word of code, which other threads may be executing: one that the host allows to change. Returns what it was. The
    /// caller's lock on the cache keeps others from changing it.
    pub(crate) fn patch(&self, field: u32, word: u32) -> u32 {
        let place = self.field(field);
        let old = place.load(Ordering::Relaxed);
        place.store(word, Ordering::Release);
        self.make_fetchable(field, size_of::<u32>());
        old
    }

    fn field(&self, field: u32) -> &AtomicU32 {
        assert!(field.is_multiple_of(4) && (field as usize) < self.size);
        // SAFETY: inside the mapping and aligned; words that are patched are accessed in no other way once they are
        // published.
        unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(self.writable + field as usize)) }
    }

    /// Changes two words at once; `at` is a multiple of 16. See [`Self::patch`].
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "a jump of another host is one word"))]
    pub(crate) fn patch_pair(&self, at: u32, change: impl FnOnce(u64) -> u64) {
        assert!(at.is_multiple_of(16) && (at as usize) < self.size);
        // SAFETY: as in `patch`.
        let words = unsafe {
            AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(self.writable + at as usize))
        };
        words.store(change(words.load(Ordering::Relaxed)), Ordering::Release);
        self.make_fetchable(at, size_of::<u64>());
    }

    fn make_fetchable(&self, offset: u32, length: usize) {
        let offset = offset as usize;
        // SAFETY: inside both mappings, which are of the same memory.
        unsafe { fetch::make_fetchable(self.writable + offset, self.executable + offset, length) };
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
