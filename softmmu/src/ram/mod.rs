//! Guest memory: the one mapping of RAM, and ROM regions beside it.
//!
//! Harts, device threads and host system calls touch these bytes at the same time, so no Rust reference to them ever
//! exists. A [`HostRef`] names a place in them and goes through host atomics: an aligned access is single-copy atomic, as
//! RVWMO asks, and relaxed, since ordering is the business of fences and of the atomic instructions.

#![allow(unsafe_code, reason = "turns guest addresses into host pointers; everybody else gets a HostRef")]

mod code;
mod wide;
mod word;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vm_memory::bitmap::Bitmap;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory};

pub(crate) use code::CodeMap;
pub use code::{CodeBitmap, CodeWatcher};
pub(crate) use word::Word;

use crate::trap::AccessFault;
use crate::{PAGE_SIZE, PHYSICAL_BITS};

/// Why guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not a whole number of pages.
    #[error(
        "{size} bytes of memory at {base:#x}: base and size must be multiples of 4096, and the size not 0"
    )]
    Granularity {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// Beyond what a physical address can name.
    #[error("{} MiB of memory at {base:#x} reach beyond the largest physical address, 2^56 - 1", size >> 20)]
    TooLarge {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// The host did not give the address space.
    #[error("the host cannot reserve {} MiB of memory for the guest", size >> 20)]
    Map {
        /// Bytes.
        size: u64,
        /// What the host said.
        source: MmapRegionError,
    },
    /// A ROM where something is already.
    #[error("ROM of {size} bytes at {base:#x} overlaps memory that is already there")]
    Overlap {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// A ROM added after the memory was handed out.
    #[error("ROM at {base:#x} was added after the memory was shared")]
    Shared {
        /// First address.
        base: u64,
    },
}

/// RAM as device models see it: their writes reach the [`CodeWatcher`] by way of the bitmap.
pub type Ram = GuestMemoryMmap<CodeBitmap>;

/// RAM and ROM of the guest. Clones share the same bytes.
#[derive(Clone)]
pub struct GuestMemory(Arc<Shared>);

struct Shared {
    ram: Extent,
    /// Owns the mapping of `ram`.
    vm: Ram,
    code: Arc<CodeMap>,
    roms: Vec<Rom>,
    /// How often a ROM was hidden from loads.
    hidings: AtomicU64,
}

struct Rom {
    extent: Extent,
    region: MmapRegion,
    /// Loads go to the bus.
    hidden: AtomicBool,
}

/// Where guest-physical addresses lie in the host.
#[derive(Clone, Copy)]
struct Extent {
    base: u64,
    size: u64,
    /// Host address of the first byte, of a mapping whose provenance is exposed and that lives as long as [`Shared`].
    host: usize,
}

impl Extent {
    fn contains(&self, pa: u64, length: u64) -> bool {
        pa >= self.base && length <= self.size && pa - self.base <= self.size - length
    }

    fn address(&self, pa: u64) -> usize {
        self.host + (pa - self.base) as usize
    }
}

/// A page of guest memory as the TLB wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPage {
    /// Host address of its first byte.
    pub(crate) address: usize,
    /// RAM, as opposed to ROM.
    pub(crate) writable: bool,
}

impl GuestMemory {
    /// Zeroed RAM of `ram_size` bytes at guest-physical `ram_base`. The host gives its pages as they are touched.
    ///
    /// # Errors
    /// When base or size are not multiples of the page size, or the host has not enough address space.
    pub fn new(ram_base: u64, ram_size: u64) -> Result<Self, MemoryError> {
        let (base, size) = (ram_base, ram_size);
        check_place(base, size)?;
        let code =
            Arc::new(CodeMap::new(base..base + size).map_err(|source| MemoryError::Map { size, source })?);
        let (region, ram) = map(base, size, CodeBitmap::new(code.clone()))?;
        let region =
            GuestRegionMmap::new(region, GuestAddress(base)).ok_or(MemoryError::TooLarge { base, size })?;
        let vm =
            GuestMemoryMmap::from_regions(vec![region]).map_err(|_| MemoryError::Overlap { base, size })?;
        Ok(Self(Arc::new(Shared { ram, vm, code, roms: Vec::new(), hidings: AtomicU64::new(0) })))
    }

    /// Puts a ROM at guest-physical `base`, a multiple of the page size, before the memory is shared: `bytes`, and zeros to
    /// the end of the page. The guest's loads and fetches read it; its stores go to the [`PhysBus`](crate::PhysBus).
    ///
    /// # Errors
    /// When `base` is not at a page, something is there already, or the memory was cloned.
    pub fn add_rom(&mut self, base: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let size = (bytes.len() as u64).next_multiple_of(PAGE_SIZE);
        check_place(base, size)?;
        let shared = Arc::get_mut(&mut self.0).ok_or(MemoryError::Shared { base })?;
        let mut present = [shared.ram].into_iter().chain(shared.roms.iter().map(|rom| rom.extent));
        if present.any(|other| base < other.base + other.size && other.base < base + size) {
            return Err(MemoryError::Overlap { base, size });
        }
        let (region, extent) = map(base, size, ())?;
        let place = region.get_slice(0, bytes.len()).map_err(|_| MemoryError::TooLarge { base, size })?;
        // Pages of zeros are left to the host, which gives them when they are touched.
        for (index, page) in bytes.chunks(PAGE_SIZE as usize).enumerate() {
            if page.iter().any(|&byte| byte != 0)
                && let Ok(place) = place.offset(index * PAGE_SIZE as usize)
            {
                place.copy_from(page);
            }
        }
        shared.roms.push(Rom { extent, region, hidden: AtomicBool::new(false) });
        Ok(())
    }

    /// From now on, loads from the ROM at guest-physical `base` go to the [`PhysBus`](crate::PhysBus), as stores do; fetches
    /// read its bytes still. Every hart has to call [`crate::Mmu::notice_hidden_roms`]; the one whose store to the bus led
    /// here does so by itself.
    pub fn hide_rom(&self, base: u64) {
        if let Some(rom) = self.0.roms.iter().find(|rom| rom.extent.base == base)
            && !rom.hidden.swap(true, Ordering::SeqCst)
        {
            self.0.hidings.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Undoes [`Self::hide_rom`]. Only while no hart runs.
    pub fn show_rom(&self, base: u64) {
        if let Some(rom) = self.0.roms.iter().find(|rom| rom.extent.base == base) {
            rom.hidden.store(false, Ordering::SeqCst);
        }
    }

    /// Counts the calls of [`Self::hide_rom`] that hid something.
    pub(crate) fn hidings(&self) -> u64 {
        self.0.hidings.load(Ordering::SeqCst)
    }

    /// The ROM with all of the `length` bytes from `pa` on.
    fn rom(&self, pa: u64, length: u64) -> Option<&Rom> {
        self.0.roms.iter().find(|rom| rom.extent.contains(pa, length))
    }

    /// As [`Self::rom`], for loads.
    fn visible_rom(&self, pa: u64, length: u64) -> Option<&Rom> {
        self.rom(pa, length).filter(|rom| !rom.hidden.load(Ordering::SeqCst))
    }

    /// Guest-physical addresses of RAM.
    pub fn ram(&self) -> Range<u64> {
        let Extent { base, size, .. } = self.0.ram;
        base..base + size
    }

    /// First guest-physical address of RAM.
    pub fn ram_base(&self) -> u64 {
        self.0.ram.base
    }

    /// Bytes of RAM.
    pub fn ram_size(&self) -> u64 {
        self.0.ram.size
    }

    /// Whether the `length` bytes from `pa` on are all RAM.
    pub fn is_ram(&self, pa: u64, length: u64) -> bool {
        self.0.ram.contains(pa, length)
    }

    /// Whether the `length` bytes from `pa` on are all in one ROM, hidden or not. They never change.
    pub fn is_rom(&self, pa: u64, length: u64) -> bool {
        self.rom(pa, length).is_some()
    }

    /// RAM as device models see it.
    pub fn vm(&self) -> &Ram {
        &self.0.vm
    }

    pub(crate) fn code(&self) -> &CodeMap {
        &self.0.code
    }

    /// Copies bytes out of RAM or ROM, whether or not the ROM is hidden from loads.
    ///
    /// # Errors
    /// When some of them are neither; `into` is unchanged then.
    pub fn read(&self, pa: u64, into: &mut [u8]) -> Result<(), AccessFault> {
        let length = into.len() as u64;
        if self.is_ram(pa, length) {
            return self.0.vm.read_slice(into, GuestAddress(pa)).map_err(|_| AccessFault);
        }
        let Rom { extent, region, .. } = self.rom(pa, length).ok_or(AccessFault)?;
        let offset = extent.address(pa) - region.as_ptr().addr();
        region.get_slice(offset, into.len()).map_err(|_| AccessFault)?.copy_to(into);
        Ok(())
    }

    /// Copies bytes into RAM. The [`CodeWatcher`] hears of it where they may have changed code.
    ///
    /// # Errors
    /// When some of the addresses are not RAM; nothing is written then.
    pub fn write(&self, pa: u64, from: &[u8]) -> Result<(), AccessFault> {
        if !self.is_ram(pa, from.len() as u64) {
            return Err(AccessFault);
        }
        self.0.vm.write_slice(from, GuestAddress(pa)).map_err(|_| AccessFault)
    }

    /// As [`Self::read`], as loads see it: a hidden ROM is not there.
    pub(crate) fn load_bytes(&self, pa: u64, into: &mut [u8]) -> Result<(), AccessFault> {
        let length = into.len() as u64;
        if !self.is_ram(pa, length) && self.visible_rom(pa, length).is_none() {
            return Err(AccessFault);
        }
        self.read(pa, into)
    }

    /// The page of RAM at `pa`, or of ROM that loads see, if all of it is.
    pub(crate) fn page(&self, pa: u64) -> Option<HostPage> {
        let page = pa & !(PAGE_SIZE - 1);
        if self.is_ram(page, PAGE_SIZE) {
            return Some(HostPage { address: self.0.ram.address(page), writable: true });
        }
        let rom = self.visible_rom(page, PAGE_SIZE)?;
        Some(HostPage { address: rom.extent.address(page), writable: false })
    }

    /// The `T` at `pa`, if all its bytes are RAM.
    pub(crate) fn writable<T>(&self, pa: u64) -> Option<HostRef<'_, T>> {
        let ram = &self.0.ram;
        // SAFETY: the bytes lie in the mapping of RAM, which `self` keeps alive.
        ram.contains(pa, size_of::<T>() as u64).then(|| unsafe { HostRef::new(ram.address(pa)) })
    }

    /// The `T` at `pa`, if all its bytes are RAM, or all ROM that loads see. Not to be stored to.
    pub(crate) fn readable<T>(&self, pa: u64) -> Option<HostRef<'_, T>> {
        self.writable(pa).or_else(|| {
            let rom = self.visible_rom(pa, size_of::<T>() as u64)?;
            // SAFETY: the bytes lie in the mapping of a ROM, which `self` keeps alive.
            Some(unsafe { HostRef::new(rom.extent.address(pa)) })
        })
    }

    /// As [`Self::readable`], for fetches, which see every ROM.
    pub(crate) fn fetchable<T>(&self, pa: u64) -> Option<HostRef<'_, T>> {
        self.writable(pa).or_else(|| {
            let rom = self.rom(pa, size_of::<T>() as u64)?;
            // SAFETY: the bytes lie in the mapping of a ROM, which `self` keeps alive.
            Some(unsafe { HostRef::new(rom.extent.address(pa)) })
        })
    }
}

const HALVES: usize = PAGE_SIZE as usize / size_of::<u16>();

/// A page of RAM or ROM that code is read from.
#[derive(Clone, Copy)]
pub struct CodePage<'m>(HostRef<'m, [u16; HALVES]>);

impl CodePage<'_> {
    /// The halfword at an even offset in the page.
    #[inline]
    pub fn half(self, offset: u16) -> u16 {
        let index = usize::from(offset / 2) % HALVES;
        // SAFETY: a part of the page.
        unsafe { HostRef::<u16>::new(self.0.address() + index * size_of::<u16>()) }.load()
    }
}

impl fmt::Debug for CodePage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodePage({:#x})", self.0.address())
    }
}

impl GuestMemory {
    /// The page at `pa`, if it is RAM or ROM, to read code from.
    pub(crate) fn code_page(&self, pa: u64) -> Option<CodePage<'_>> {
        self.fetchable(pa & !(PAGE_SIZE - 1)).map(CodePage)
    }
}

fn check_place(base: u64, size: u64) -> Result<(), MemoryError> {
    if !base.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) || size == 0 {
        return Err(MemoryError::Granularity { base, size });
    }
    if base.checked_add(size).is_none_or(|end| end > 1 << PHYSICAL_BITS) {
        return Err(MemoryError::TooLarge { base, size });
    }
    Ok(())
}

fn map<B: Bitmap>(base: u64, size: u64, bitmap: B) -> Result<(MmapRegion<B>, Extent), MemoryError> {
    let region = reserve(size, bitmap).map_err(|source| MemoryError::Map { size, source })?;
    let host = region.as_ptr().expose_provenance();
    // What a guest touches at random misses the host's TLB less in huge pages. A host without them says so, which changes nothing.
    // SAFETY: the mapping is the region's, and keeps what it holds.
    unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    Ok((region, Extent { base, size, host }))
}

/// Zeroed memory that the host gives as it is touched.
fn reserve<B: Bitmap>(size: u64, bitmap: B) -> Result<MmapRegion<B>, MmapRegionError> {
    MmapRegionBuilder::new_with_bitmap(size as usize, bitmap)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .build()
}

/// A `T` in guest memory, at any alignment.
pub(crate) struct HostRef<'m, T> {
    pointer: *mut T,
    memory: PhantomData<&'m GuestMemory>,
}

impl<T> Clone for HostRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for HostRef<'_, T> {}

impl<T> HostRef<'_, T> {
    /// The place at a host address.
    ///
    /// # Safety
    /// The bytes of a `T` from `address` on belong to one mapping of a [`GuestMemory`] that is alive for the lifetime of
    /// the result.
    #[inline]
    pub(crate) unsafe fn new(address: usize) -> Self {
        Self { pointer: std::ptr::with_exposed_provenance_mut(address), memory: PhantomData }
    }

    /// Its host address: different places differ, and pages are aligned as they are in the guest.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.pointer.addr()
    }
}

impl<'m, T: Word> HostRef<'m, T> {
    /// The value. Atomic where aligned.
    #[inline]
    pub(crate) fn load(self) -> T {
        match self.atomic() {
            Some(atomic) => T::load_relaxed(atomic),
            // SAFETY: the bytes are mapped and readable (`new`). Others may write them meanwhile, which RISC-V allows to
            // tear; a volatile access of plain integers has no other effect then, and is one instruction on hosts that
            // have misaligned ones.
            None => T::from_le(unsafe { self.pointer.cast::<Unaligned<T>>().read_volatile() }.0),
        }
    }

    /// Stores a value. Atomic where aligned.
    #[inline]
    pub(crate) fn store(self, value: T) {
        match self.atomic() {
            Some(atomic) => T::store_relaxed(atomic, value),
            // SAFETY: as for `load`; mappings are writable, also those of ROMs.
            None => unsafe { self.pointer.cast::<Unaligned<T>>().write_volatile(Unaligned(value.to_le())) },
        }
    }

    /// The place as a host atomic, which holds the value in little-endian order. `None` where it is not aligned.
    #[inline]
    pub(crate) fn atomic(self) -> Option<&'m T::Atomic> {
        // SAFETY: mapped for 'm (`new`) and aligned; concurrent accesses are atomic, or by other means that the
        // compiler does not see (generated code, the host's kernel, volatile accesses of device models).
        self.pointer.is_aligned().then(|| unsafe { T::atomic_at(self.pointer) })
    }
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T>(T);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x8000_0000;

    #[test]
    fn sizes_are_checked() {
        assert!(matches!(GuestMemory::new(BASE, 0), Err(MemoryError::Granularity { .. })));
        assert!(matches!(GuestMemory::new(BASE, 4097), Err(MemoryError::Granularity { .. })));
        assert!(matches!(GuestMemory::new(BASE, 1 << 56), Err(MemoryError::TooLarge { .. })));
        let error = GuestMemory::new(0, 1 << 56).map(drop).unwrap_err().to_string();
        assert_eq!(error, "the host cannot reserve 68719476736 MiB of memory for the guest");
    }

    #[test]
    fn huge_ram_is_only_reserved() {
        let memory = GuestMemory::new(BASE, 64 << 30).unwrap();
        memory.write(BASE + (64 << 30) - 4, b"last").unwrap();
        let mut bytes = [0; 4];
        memory.read(BASE + (64 << 30) - 4, &mut bytes).unwrap();
        assert_eq!(&bytes, b"last");
    }

    #[test]
    fn roms_are_read_only_whole_pages() {
        let mut memory = GuestMemory::new(BASE, 1 << 20).unwrap();
        memory.add_rom(0x1000, &[7; 0x1001]).unwrap();
        let mut bytes = [0; 2];
        memory.read(0x2000, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0]);
        assert_eq!(memory.read(0x2fff, &mut bytes), Err(AccessFault));
        assert_eq!(memory.write(0x1004, &bytes), Err(AccessFault));
        assert_eq!(memory.page(0x3000), None);
        assert!(!memory.page(0x2abc).unwrap().writable);
        assert!(memory.writable::<u8>(0x1000).is_none() && memory.readable::<u8>(0x1000).is_some());
    }

    #[test]
    fn roms_are_disjoint_and_come_before_sharing() {
        let mut memory = GuestMemory::new(BASE, 1 << 20).unwrap();
        memory.add_rom(0x1000, &[7; 0x1001]).unwrap();
        assert!(matches!(memory.add_rom(0x2000, &[0]), Err(MemoryError::Overlap { .. })));
        assert!(matches!(memory.add_rom(BASE - 0x1000, &[0; 0x1001]), Err(MemoryError::Overlap { .. })));
        assert!(matches!(memory.add_rom(0x3004, &[0]), Err(MemoryError::Granularity { .. })));
        let _shared = memory.clone();
        assert!(matches!(memory.add_rom(0, &[0]), Err(MemoryError::Shared { .. })));
    }

    #[test]
    fn accesses_end_at_the_edges_of_ram() {
        let memory = GuestMemory::new(BASE, 1 << 20).unwrap();
        assert!(memory.writable::<u64>(BASE + (1 << 20) - 8).is_some());
        assert!(memory.writable::<u64>(BASE + (1 << 20) - 7).is_none());
        assert!(memory.writable::<u8>(BASE - 1).is_none());
        assert!(memory.writable::<u64>(u64::MAX).is_none());
        assert!(!memory.is_ram(BASE, u64::MAX));
    }

    #[test]
    fn misaligned_values_are_little_endian() {
        let memory = GuestMemory::new(BASE, 1 << 20).unwrap();
        memory.writable::<u32>(BASE + 3).unwrap().store(0x0403_0201);
        let mut bytes = [0; 8];
        memory.read(BASE, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 1, 2, 3, 4, 0]);
        assert_eq!(memory.writable::<u64>(BASE).unwrap().load(), 0x0004_0302_0100_0000);
        assert_eq!(memory.writable::<u16>(BASE + 5).unwrap().load(), 0x0403);
    }
}
