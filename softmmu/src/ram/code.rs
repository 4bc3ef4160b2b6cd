//! Which parts of RAM hold code that an engine has translated, and who wants to hear when they change.
//!
//! Stores that the write table answers are not looked at, so a page with code must be in nobody's write table. Two facts
//! about each page see to that, shared by all harts: which of its 64-byte *granules* hold code, and whether it is WRITTEN,
//! which says that some hart may have it in its write table. Either side says what it does before it asks about the other:
//!
//! - who watches code sets granules, then looks at WRITTEN, and if that is set has every hart drop the page
//!   ([`crate::Mmu::drop_writes`]) before it reads the code;
//! - who fills a write table sets WRITTEN, then looks at the granules, and keeps out if there are any
//!   ([`CodeMap::admits_writes`]);
//! - who stores by other ways, slow path or device, stores, then looks at the granules ([`CodeMap::changed`]).

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{MmapRegion, VolatileMemory};

use super::{GuestMemory, Word, reserve};
use crate::PAGE_SIZE;

/// Bytes for which one bit tells whether they hold translated code.
const GRANULE: u64 = PAGE_SIZE / 64;

/// Some hart may have the page in its write table.
const WRITTEN: u8 = 1;

/// Whoever must know when translated code changes.
pub trait CodeWatcher: Send + Sync {
    /// The bytes `[pa, pa + length)`, all in one page and some of them in watched granules, have just been changed. Called
    /// on the thread that changed them: a hart's, or a device's.
    fn code_written(&self, pa: u64, length: u64);
}

/// Granules and flags of every page of RAM. The host gives memory for them as they are touched.
pub(crate) struct CodeMap {
    /// Addresses of RAM.
    ram: Range<u64>,
    /// An [`AtomicU64`] for each page.
    granules: MmapRegion,
    /// An [`AtomicU8`] for each page.
    flags: MmapRegion,
    watcher: OnceLock<Arc<dyn CodeWatcher>>,
}

impl CodeMap {
    pub(super) fn new(ram: Range<u64>) -> Result<Self, MmapRegionError> {
        let pages = (ram.end - ram.start) / PAGE_SIZE;
        let (granules, flags) = (reserve(pages * 8, ())?, reserve(pages, ())?);
        Ok(Self { ram, granules, flags, watcher: OnceLock::new() })
    }

    /// Number of the page of RAM at `pa`.
    fn page(&self, pa: u64) -> Option<usize> {
        self.ram.contains(&pa).then(|| ((pa - self.ram.start) / PAGE_SIZE) as usize)
    }

    fn granules(&self, pa: u64) -> Option<&AtomicU64> {
        self.granules.get_atomic_ref(self.page(pa)? * 8).ok()
    }

    fn flags(&self, pa: u64) -> Option<&AtomicU8> {
        self.flags.get_atomic_ref(self.page(pa)?).ok()
    }

    fn load_granules(&self, pa: u64) -> u64 {
        self.granules(pa).map_or(0, |granules| granules.load(Ordering::SeqCst))
    }

    /// Whether some of the page at `pa` is watched.
    pub(crate) fn is_watched(&self, pa: u64) -> bool {
        self.load_granules(pa) != 0
    }

    /// Whether the page at `pa` may be entered into a write table; it counts as WRITTEN then.
    pub(crate) fn admits_writes(&self, pa: u64) -> bool {
        let Some(flags) = self.flags(pa) else { return false };
        // Setting WRITTEN for each store to a watched page would make every further watch wait for the harts.
        if self.is_watched(pa) {
            return false;
        }
        loop {
            if flags.load(Ordering::SeqCst) & WRITTEN == 0 {
                flags.fetch_or(WRITTEN, Ordering::SeqCst);
            }
            if self.load_granules(pa) != 0 {
                return false;
            }
            // Between the two the page may have been watched, dropped and unwatched by others; WRITTEN is gone then.
            if flags.load(Ordering::SeqCst) & WRITTEN != 0 {
                return true;
            }
        }
    }

    /// Tells the watcher of a change of the bytes `[pa, pa + length)` if there is code in them. To be called after the
    /// change.
    pub(crate) fn changed(&self, pa: u64, length: u64) {
        // Between the change, which may be a relaxed store, and the load of the granules.
        fence(Ordering::SeqCst);
        let end = pa.saturating_add(length).min(self.ram.end);
        let mut at = pa;
        while at < end {
            let page_end = (at & !(PAGE_SIZE - 1)) + PAGE_SIZE;
            let part = end.min(page_end) - at;
            if self.load_granules(at) & mask(at, part) != 0
                && let Some(watcher) = self.watcher.get()
            {
                watcher.code_written(at, part);
            }
            at = page_end;
        }
    }
}

impl fmt::Debug for CodeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMap").finish_non_exhaustive()
    }
}

/// The granules that the bytes of a page from `pa` on are in. What lies beyond the page is left out.
fn mask(pa: u64, length: u64) -> u64 {
    let offset = pa % PAGE_SIZE;
    let last = offset.saturating_add(length).min(PAGE_SIZE).saturating_sub(1);
    if length == 0 {
        return 0;
    }
    let (first, last) = (offset / GRANULE, last / GRANULE);
    u64::MAX << first & u64::MAX >> (63 - last)
}

impl GuestMemory {
    /// Sets who is told of changes of watched code, for all clones; the first call counts. The watcher lives as long as the
    /// memory.
    pub fn set_code_watcher(&self, watcher: Arc<dyn CodeWatcher>) {
        // One engine translates for a machine, so a second watcher is the first one again.
        let _ = self.code().watcher.set(watcher);
    }

    /// Watches the granules of the bytes `[pa, pa + length)`, which are in one page. Nothing is watched outside RAM.
    ///
    /// `true`: some hart may have the page in its write table. Every hart must call [`crate::Mmu::drop_writes`], and
    /// [`Self::writes_dropped`] follows, before the code is read. `false`: the code can be read at once.
    #[must_use]
    pub fn watch_code(&self, pa: u64, length: u64) -> bool {
        let (Some(granules), Some(flags)) = (self.code().granules(pa), self.code().flags(pa)) else {
            return false;
        };
        granules.fetch_or(mask(pa, length), Ordering::SeqCst);
        let written = flags.load(Ordering::SeqCst) & WRITTEN != 0;
        // Between the granules and the caller's relaxed loads of the code.
        fence(Ordering::SeqCst);
        written
    }

    /// Notes that no hart has the page at `pa` in its write table: all have dropped it since [`Self::watch_code`], and
    /// [`Self::unwatch_code`] was not called since.
    pub fn writes_dropped(&self, pa: u64) {
        if let Some(flags) = self.code().flags(pa) {
            flags.fetch_and(!WRITTEN, Ordering::SeqCst);
        }
    }

    /// Stops watching the page at `pa`. Not to be called while somebody waits for harts to drop it.
    pub fn unwatch_code(&self, pa: u64) {
        if let Some(granules) = self.code().granules(pa) {
            granules.store(0, Ordering::SeqCst);
        }
    }

    /// Whether the byte at `pa` is in a watched granule.
    pub fn is_code(&self, pa: u64) -> bool {
        self.code().load_granules(pa) & mask(pa, 1) != 0
    }

    /// Stores a value in one page of RAM, off the fast path; `None` if it is not RAM.
    pub(crate) fn store<T: Word>(&self, pa: u64, value: T) -> Option<()> {
        let place = self.writable::<T>(pa)?;
        if !self.code().is_watched(pa) {
            place.store(value);
            self.code().changed(pa, T::SIZE);
            return Some(());
        }
        match place.atomic() {
            Some(atomic) => {
                // Loading first would miss what others store in between.
                if T::update(atomic, |_| value) != value {
                    self.code().changed(pa, T::SIZE);
                }
                Some(())
            }
            None => self.store_bytes(pa, &value.to_u64().to_le_bytes()[..T::SIZE as usize]),
        }
    }

    /// As [`Self::store`], for any number of bytes and without any atomicity.
    pub(crate) fn store_bytes(&self, pa: u64, bytes: &[u8]) -> Option<()> {
        if !self.code().is_watched(pa) {
            return self.write(pa, bytes).ok();
        }
        let mut changed = false;
        for (pa, &byte) in (pa..).zip(bytes) {
            let atomic = self.writable::<u8>(pa)?.atomic()?;
            changed |= u8::update(atomic, |_| byte) != byte;
        }
        if changed {
            self.code().changed(pa, bytes.len() as u64);
        }
        Some(())
    }
}

/// What is told of device models' writes to [`Ram`](super::Ram): it passes them on to the [`CodeWatcher`]. Memory made
/// without [`GuestMemory`] has nobody to tell.
#[derive(Clone, Debug, Default)]
pub struct CodeBitmap(Option<Arc<CodeMap>>);

impl CodeBitmap {
    pub(super) fn new(map: Arc<CodeMap>) -> Self {
        Self(Some(map))
    }
}

impl<'a> WithBitmapSlice<'a> for CodeBitmap {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for CodeBitmap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(map) = &self.0 {
            map.changed(map.ram.start.saturating_add(offset as u64), len as u64);
        }
    }

    /// Nothing is kept of what was marked.
    fn dirty_at(&self, _: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for CodeBitmap {
    fn with_len(_: usize) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(0x8000_0000, 1), 1);
        assert_eq!(mask(0x8000_0fff, 1), 1 << 63);
        assert_eq!(mask(0x8000_0000, 4096), u64::MAX);
        assert_eq!(mask(0x8000_007f, 2), 0b110);
        assert_eq!(mask(0x8000_0080, 64), 0b100);
        assert_eq!(mask(0x8000_0fc0, u64::MAX), 1 << 63);
        assert_eq!(mask(0x8000_0040, 0), 0);
    }

    #[test]
    fn granules_of_a_page() {
        let memory = GuestMemory::new(0x8000_0000, 64 << 30).unwrap();
        let pa = 0x8000_0000 + (64 << 30) - 4096;
        assert!(!memory.watch_code(pa + 100, 4));
        assert!(!memory.is_code(pa + 63) && memory.is_code(pa + 64) && !memory.is_code(pa + 128));
        assert!(!memory.code().admits_writes(pa));
        // Stores that keep out leave no trace.
        assert!(!memory.watch_code(pa, 4) && memory.is_code(pa));
        memory.unwatch_code(pa);
        assert!(!memory.is_code(pa) && !memory.is_code(pa + 100));
        assert!(memory.code().admits_writes(pa));
        assert!(memory.watch_code(pa, 4));
        memory.writes_dropped(pa + 8);
        assert!(!memory.watch_code(pa, 4));
    }

    #[test]
    fn beyond_ram_there_is_nothing_to_watch() {
        let memory = GuestMemory::new(0x8000_0000, 4096).unwrap();
        for pa in [0, 0x7fff_ffff, 0x8000_1000, u64::MAX] {
            assert!(!memory.watch_code(pa, 8) && !memory.is_code(pa) && !memory.code().admits_writes(pa));
            memory.writes_dropped(pa);
            memory.unwatch_code(pa);
            memory.code().changed(pa, 8);
        }
    }
}
