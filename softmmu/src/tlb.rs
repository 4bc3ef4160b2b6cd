//! The first-level TLB: what an inline probe, of the interpreter or of generated code, looks at.
//!
//! A [`Context`] holds the answers for one way of translating (see [`crate::contexts`]): a table of pages that can be read,
//! one of pages that can be written, and one from program counters to whatever an engine keeps for them. A hit says all
//! there is to say: translation, permissions, A and D bits, PMP, and that the page is RAM (or ROM, to read).
//!
//! The probe is `va - tag <= 4096 - size`, unsigned. It fails for accesses that cross the page edge, and holds at any
//! alignment otherwise. There is no valid bit: an empty slot has the tag of a page that belongs into another slot, which no
//! address that selects this slot can match. Generated code may look for an address in the slot of another that is less than a page
//! away, so the page belongs into none of the slots beside this one, either.
//!
//! Invariants:
//! 1. A slot of `read` or `write` is empty, or its tag is a page that selects it and `tag + addend` is the host address of
//!    a page of `memory`; of RAM for `write`.
//! 2. Every non-empty slot filled for one address space only is in `log`, or `log` has overflowed.
//! 3. A slot filled from a superpage has its region in `mega` or `giga`, or `vast` is set; so has an executable entry.
//! 4. An executable entry has its page in `exec_pages`; one for an instruction that crosses a page edge has both.
//! 5. The host page of a slot of `write` is in `written_pages`, and was entered when [`CodeMap::admits_writes`] held; a page
//!    that has been watched since is dropped before its watch is complete.
//!
//! [`CodeMap::admits_writes`]: crate::ram::CodeMap::admits_writes

#![allow(
    unsafe_code,
    reason = "dereferences addends; allocates the tables zeroed, they are too large for the stack"
)]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::mem::offset_of;

use crate::PAGE_SIZE;
use crate::near::Nears;
use crate::ram::{GuestMemory, HostPage, HostRef};
use crate::sets::{Chunks, Filter, Log};

/// log2 of the slots of the read and of the write table.
pub const TLB_BITS: u32 = 13;
/// Slots of the read and of the write table. A page selects slot `va >> 12 & (TLB_SLOTS - 1)`.
pub const TLB_SLOTS: usize = 1 << TLB_BITS;
/// log2 of the slots of the executable-code cache.
pub const EXEC_BITS: u32 = 12;
/// Slots of the executable-code cache. A program counter selects slot `pc >> 1 & (EXEC_SLOTS - 1)`.
pub const EXEC_SLOTS: usize = 1 << EXEC_BITS;

/// A slot of the read or write table.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What to add to a virtual address in the page to get the host address. A chain of pointers waits for it, so it is where
    /// the address of the read table and an offset lead without a displacement.
    pub addend: u64,
    /// Virtual address of the page.
    pub tag: u64,
}

/// A slot of the executable-code cache.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct ExecEntry {
    /// Program counter.
    pub va: u64,
    /// What the engine entered for it.
    pub payload: u64,
}

/// How much one leaf of a page table maps, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// As [`crate::walk::Leaf::level`].
    pub(crate) level: u32,
    /// Maps it in every address space; else in the present one.
    pub(crate) global: bool,
}

/// The tables for one way of translating. Generated code reads them at the `*_OFFSET`s; nobody else writes them.
///
/// The executable-code cache is aligned to its size, so that an entry is found by putting bits into its address.
#[cfg_attr(not(target_arch = "aarch64"), repr(C, align(64)))]
#[cfg_attr(target_arch = "aarch64", repr(C, align(0x10000)))]
pub struct Context {
    read: [Entry; TLB_SLOTS],
    write: [Entry; TLB_SLOTS],
    exec: [ExecEntry; EXEC_SLOTS],
    near: Nears,
    /// The chunks of `read` and of `write` that may have entries.
    read_chunks: Chunks,
    write_chunks: Chunks,
    exec_pages: Filter<64>,
    written_pages: Filter<64>,
    mega: Filter<64>,
    giga: Filter<16>,
    /// Some entry is part of a page larger than 1 GiB.
    vast: bool,
    /// Some executable entry is for one address space only.
    exec_local: bool,
    /// The executable table is not empty.
    exec_used: bool,
    log: Log,
    memory: GuestMemory,
}

impl Context {
    /// Offset of the read table in a context.
    pub const READ_OFFSET: usize = offset_of!(Context, read);
    /// Offset of the write table in a context.
    pub const WRITE_OFFSET: usize = offset_of!(Context, write);
    /// Offset of the executable-code cache in a context.
    pub const EXEC_OFFSET: usize = offset_of!(Context, exec);
    /// Offset in a context of the [`Near`](crate::Near) entries of places that load, which those of places that store follow.
    pub const NEAR_OFFSET: usize = offset_of!(Context, near);
    /// Offset in a context of a byte that is 1 if one of these entries may not be empty.
    pub const NEAR_FILLED_OFFSET: usize = Self::NEAR_OFFSET + Nears::FILLED_OFFSET;

    pub(crate) fn new(memory: GuestMemory) -> Box<Self> {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not empty.
        let context = unsafe { alloc_zeroed(layout) }.cast::<Self>();
        if context.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: fresh, zeroed memory of that layout. Zero is a value of every field but `memory` and `near`, which are
        // written before the box exists.
        let mut context = unsafe {
            (&raw mut (*context).memory).write(memory);
            (&raw mut (*context).near).write(Nears::new());
            Box::from_raw(context)
        };
        context.mark_ends();
        context.exec[0] = empty_exec(0);
        context
    }

    /// The `T` at `va`, if it can be read and the table knows.
    #[inline]
    pub(crate) fn readable<T>(&self, va: u64) -> Option<HostRef<'_, T>> {
        let entry = &self.read[data_slot(va)];
        // SAFETY: by invariant 1 and the probe, the bytes are part of a page of `self.memory`.
        hits::<T>(entry, va).then(|| unsafe { HostRef::new(va.wrapping_add(entry.addend) as usize) })
    }

    /// The `T` at `va`, if it can be written and the table knows.
    #[inline]
    pub(crate) fn writable<T>(&self, va: u64) -> Option<HostRef<'_, T>> {
        let entry = &self.write[data_slot(va)];
        // SAFETY: as in `readable`.
        hits::<T>(entry, va).then(|| unsafe { HostRef::new(va.wrapping_add(entry.addend) as usize) })
    }

    /// Notes that the page of `va` is at `pa` and may be read, and written too if `write`, all of it. Says whether it
    /// was: only RAM can be entered, and ROM to be read. Pages with watched code are entered to be read only.
    pub(crate) fn fill(&mut self, va: u64, pa: u64, write: bool, reach: Reach) -> bool {
        let Some(page) = self.memory.page(pa) else { return false };
        let tag = va & !(PAGE_SIZE - 1);
        let entry = Entry { tag, addend: (page.address as u64).wrapping_sub(tag) };
        let slot = data_slot(va);
        if write && !(page.writable && self.memory.code().admits_writes(pa)) {
            if self.write[slot].tag == tag {
                self.write[slot] = empty_entry(slot);
            }
            // Every store to the page comes by here, and must not fill the log.
            if self.read[slot] == entry {
                return false;
            }
            return self.fill(va, pa, false, reach);
        }
        if self.read[slot].tag == tag && self.read[slot].addend != entry.addend {
            // The page moved without a flush. All accesses see the new place from now on.
            self.near.clear();
        }
        self.read[slot] = entry;
        self.read_chunks.insert(slot);
        if write {
            self.write[slot] = entry;
            self.write_chunks.insert(slot);
            self.written_pages.insert(page.address as u64 >> 12);
        } else if self.write[slot].tag == tag && self.write[slot].addend != entry.addend {
            // As above.
            self.write[slot] = empty_entry(slot);
        }
        self.note_region(va, reach.level);
        if !reach.global {
            self.log.push(slot);
        }
        true
    }

    /// What was entered for `va`.
    #[inline]
    pub(crate) fn exec(&self, va: u64) -> Option<u64> {
        let entry = &self.exec[exec_slot(va)];
        (entry.va == va).then_some(entry.payload)
    }

    /// Enters a payload for `va`, in a page that can be executed.
    pub(crate) fn insert_exec(&mut self, va: u64, payload: u64, reach: Reach) {
        self.exec[exec_slot(va)] = ExecEntry { va, payload };
        self.exec_pages.insert(va >> 12);
        self.note_region(va, reach.level);
        self.exec_local |= !reach.global;
        self.exec_used = true;
    }

    /// As [`Self::insert_exec`] for an instruction that ends in the next page, which `second` maps.
    pub(crate) fn insert_exec_crossing(&mut self, va: u64, payload: u64, first: Reach, second: Reach) {
        let next = va.wrapping_add(2);
        self.exec_pages.insert(next >> 12);
        self.note_region(next, second.level);
        self.insert_exec(va, payload, Reach { global: first.global && second.global, ..first });
    }

    /// Takes a page of memory out of the write table.
    pub(crate) fn drop_writes(&mut self, page: HostPage) {
        if !self.written_pages.may_contain(page.address as u64 >> 12) {
            return;
        }
        self.near.clear();
        // What was flushed since the filter was last made goes out of it.
        self.written_pages = Filter::default();
        for slots in self.write_chunks.slots() {
            for slot in slots {
                let (entry, empty) = (&mut self.write[slot], empty_entry(slot));
                if *entry == empty {
                    continue;
                }
                let address = entry.tag.wrapping_add(entry.addend);
                if address == page.address as u64 {
                    *entry = empty;
                } else {
                    self.written_pages.insert(address >> 12);
                }
            }
        }
    }

    /// As [`Nears::is_poor`].
    pub(crate) fn near_is_poor(&mut self, stores: bool, index: usize, instret: u64) -> bool {
        self.near.is_poor(stores, index, instret)
    }

    fn note_region(&mut self, va: u64, level: u32) {
        match level {
            0 => {}
            1 => self.mega.insert(va >> 21),
            2 => self.giga.insert(va >> 30),
            _ => self.vast = true,
        }
    }

    /// Forgets all that comes from a leaf that maps `va`.
    pub(crate) fn flush_page(&mut self, va: u64) {
        let tag = va & !(PAGE_SIZE - 1);
        let slot = data_slot(va);
        self.near.clear();
        if self.read[slot].tag == tag {
            self.read[slot] = empty_entry(slot);
        }
        if self.write[slot].tag == tag {
            self.write[slot] = empty_entry(slot);
        }
        if self.exec_used && self.exec_pages.may_contain(va >> 12) {
            self.flush_exec_region(va, 12);
        }
        if self.vast {
            self.clear();
        }
        if self.mega.may_contain(va >> 21) {
            self.flush_region(va, 21);
        }
        if self.giga.may_contain(va >> 30) {
            self.flush_region(va, 30);
        }
    }

    /// Forgets the region of 2^`bits` bytes around `va`.
    fn flush_region(&mut self, va: u64, bits: u32) {
        // Pages of the region are a run of slots, or all of them.
        let run = (1 << (bits - 12)).min(TLB_SLOTS);
        let first = data_slot(va) & !(run - 1);
        for (table, chunks) in [(&mut self.read, self.read_chunks), (&mut self.write, self.write_chunks)] {
            for slot in (first..first + run).filter(|slot| chunks.contains(*slot)) {
                if table[slot].tag >> bits == va >> bits {
                    table[slot] = empty_entry(slot);
                }
            }
        }
        if self.exec_used {
            self.flush_exec_region(va, bits);
        }
    }

    fn flush_exec_region(&mut self, va: u64, bits: u32) {
        // Program counters of a page are a run of slots.
        let run = (1 << (bits - 1)).min(EXEC_SLOTS);
        let first = exec_slot(va) & !(run - 1);
        for (slot, entry) in self.exec.iter_mut().enumerate().skip(first).take(run) {
            if entry.va >> bits == va >> bits {
                *entry = empty_exec(slot);
            }
        }
        // An instruction that crosses into the region.
        let crossing = (va >> bits << bits).wrapping_sub(2);
        let slot = exec_slot(crossing);
        if self.exec[slot].va == crossing {
            self.exec[slot] = empty_exec(slot);
        }
    }

    /// Forgets what holds in one address space only.
    pub(crate) fn clear_local(&mut self) {
        match self.log.take() {
            Some(slots) => {
                self.near.clear();
                for &slot in slots {
                    let slot = usize::from(slot);
                    self.read[slot] = empty_entry(slot);
                    self.write[slot] = empty_entry(slot);
                }
            }
            None => self.empty_data(),
        }
        if self.exec_local {
            self.empty_exec();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.empty_data();
        if self.exec_used {
            self.empty_exec();
        }
        self.mega = Filter::default();
        self.giga = Filter::default();
        self.vast = false;
    }

    /// Forgets all executable entries.
    pub(crate) fn clear_exec(&mut self) {
        if self.exec_used {
            self.empty_exec();
        }
    }

    fn empty_data(&mut self) {
        self.near.clear();
        for (table, chunks) in
            [(&mut self.read, &mut self.read_chunks), (&mut self.write, &mut self.write_chunks)]
        {
            for slots in std::mem::take(chunks).slots() {
                // Almost every slot is empty when zero, which is the fastest to write.
                table[slots].fill(Entry { tag: 0, addend: 0 });
            }
        }
        self.mark_ends();
        self.log.take();
        self.written_pages = Filter::default();
    }

    /// Empties the slots that are not empty when zero.
    fn mark_ends(&mut self) {
        for slot in [0, 1, TLB_SLOTS - 1] {
            self.read[slot] = empty_entry(slot);
            self.write[slot] = empty_entry(slot);
        }
    }

    fn empty_exec(&mut self) {
        self.exec.fill(ExecEntry { va: 0, payload: 0 });
        self.exec[0] = empty_exec(0);
        self.exec_pages = Filter::default();
        self.exec_local = false;
        self.exec_used = false;
    }
}

#[inline]
fn hits<T>(entry: &Entry, va: u64) -> bool {
    va.wrapping_sub(entry.tag) <= PAGE_SIZE - size_of::<T>() as u64
}

#[inline]
fn data_slot(va: u64) -> usize {
    (va >> 12) as usize & (TLB_SLOTS - 1)
}

#[inline]
fn exec_slot(va: u64) -> usize {
    (va >> 1) as usize & (EXEC_SLOTS - 1)
}

/// Page 0 selects slot 0, beside which are the first and the last; the other page selects one far from these.
fn empty_entry(slot: usize) -> Entry {
    let beside = slot <= 1 || slot == TLB_SLOTS - 1;
    Entry { tag: if beside { TLB_SLOTS as u64 / 2 * PAGE_SIZE } else { 0 }, addend: 0 }
}

/// Program counter 0 selects slot 0, 2 slot 1.
fn empty_exec(slot: usize) -> ExecEntry {
    ExecEntry { va: if slot == 0 { 2 } else { 0 }, payload: 0 }
}

const _: () = assert!(size_of::<Entry>() == 16 && size_of::<ExecEntry>() == 16 && TLB_BITS <= 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::LOG_SIZE;

    const BASE: u64 = 0x8000_0000;
    const LOCAL: Reach = Reach { level: 0, global: false };
    const GLOBAL: Reach = Reach { level: 0, global: true };

    fn context() -> Box<Context> {
        Context::new(GuestMemory::new(BASE, 64 << 20).unwrap())
    }

    fn reads(context: &Context, va: u64) -> bool {
        context.readable::<u8>(va).is_some()
    }

    #[test]
    fn an_empty_context_hits_nowhere() {
        let context = context();
        for page in 0..2 * TLB_SLOTS as u64 {
            for va in [page << 12, (page << 12) + 4095, (page << 12).wrapping_neg()] {
                assert!(!reads(&context, va) && context.writable::<u8>(va).is_none());
                assert_eq!(context.exec(va & !1), None);
            }
        }
    }

    #[test]
    fn an_empty_slot_is_of_no_page_beside_its_own() {
        let mut context = context();
        for filled in [false, true] {
            if filled {
                (0..TLB_SLOTS as u64).for_each(|page| assert!(context.fill(page << 12, BASE, true, LOCAL)));
                context.clear();
            }
            for page in (0..=TLB_SLOTS as u64).flat_map(|page| [page, page.wrapping_neg()]) {
                for beside in [page.wrapping_sub(1), page, page.wrapping_add(1)] {
                    let slot = data_slot(beside << 12);
                    assert_ne!(context.read[slot].tag, page << 12, "slot {slot}");
                    assert_ne!(context.write[slot].tag, page << 12, "slot {slot}");
                }
            }
        }
    }

    #[test]
    fn hits_end_where_an_access_would_cross_the_page() {
        let mut context = context();
        context.fill(0x5000, BASE, false, LOCAL);
        assert!(context.readable::<u64>(0x5ff8).is_some());
        assert!(context.readable::<u64>(0x5ff9).is_none());
        assert!(context.readable::<u16>(0x4fff).is_none());
        assert!(context.readable::<u8>(0x5000 + ((TLB_SLOTS as u64) << 12)).is_none());
        assert!(context.writable::<u8>(0x5000).is_none());
    }

    #[test]
    fn a_read_fill_drops_a_stale_write_entry() {
        let mut context = context();
        context.fill(0x5000, BASE, true, LOCAL);
        context.fill(0x5000, BASE + 0x1000, false, LOCAL);
        assert!(reads(&context, 0x5000) && context.writable::<u8>(0x5000).is_none());
    }

    #[test]
    fn only_local_entries_go_with_their_space() {
        let mut context = context();
        context.fill(0x5000, BASE, true, LOCAL);
        context.fill(0x6000, BASE, true, GLOBAL);
        context.insert_exec(0x6000, 1, GLOBAL);
        context.clear_local();
        assert!(!reads(&context, 0x5000) && reads(&context, 0x6000));
        assert_eq!(context.exec(0x6000), Some(1));
        context.insert_exec(0x5000, 1, LOCAL);
        context.clear_local();
        assert_eq!(context.exec(0x5000), None);
    }

    #[test]
    fn a_log_that_overflows_forgets_all() {
        let mut context = context();
        for page in 0..LOG_SIZE as u64 + 1 {
            context.fill(page << 12, BASE, false, LOCAL);
        }
        context.clear_local();
        assert!((0..TLB_SLOTS as u64).all(|page| !reads(&context, page << 12)));
        context.fill(0x5000, BASE, false, GLOBAL);
        context.clear_local();
        assert!(reads(&context, 0x5000));
    }

    #[test]
    fn a_page_flush_takes_the_whole_superpage_and_nothing_else() {
        for (level, bits) in [(1, 21), (2, 30)] {
            let mut context = context();
            let inside = [5 << bits, (5 << bits) + 0x3000, (6 << bits) - 0x1000];
            let outside = [(5 << bits) - 0x2000, (6 << bits) + 0x5000];
            for va in inside {
                context.fill(va, BASE, true, Reach { level, global: true });
                context.insert_exec(va + 0x10, 1, Reach { level, global: true });
            }
            for va in outside {
                context.fill(va, BASE, true, GLOBAL);
                context.insert_exec(va + 0x20, 2, GLOBAL);
            }
            context.flush_page((5 << bits) + 0x7000);
            for va in inside {
                assert!(!reads(&context, va) && context.writable::<u8>(va).is_none());
                assert_eq!(context.exec(va + 0x10), None);
            }
            for va in outside {
                assert!(reads(&context, va) && context.writable::<u8>(va).is_some());
                assert_eq!(context.exec(va + 0x20), Some(2));
            }
        }
    }

    #[test]
    fn flushing_a_page_drops_its_code_only() {
        let mut context = context();
        context.insert_exec(0x5ffe, 1, LOCAL);
        context.insert_exec(0x6ffe, 2, LOCAL);
        context.flush_page(0x5000);
        assert_eq!((context.exec(0x5ffe), context.exec(0x6ffe)), (None, Some(2)));
    }

    #[test]
    fn an_instruction_across_the_edge_goes_with_either_page() {
        for flushed in [0x5000, 0x6000] {
            let mut context = context();
            context.insert_exec_crossing(0x5ffe, 1, GLOBAL, GLOBAL);
            context.flush_page(0x4000);
            context.flush_page(0x7000);
            assert_eq!(context.exec(0x5ffe), Some(1));
            context.flush_page(flushed);
            assert_eq!(context.exec(0x5ffe), None);
        }
        for (first, second) in [(LOCAL, GLOBAL), (GLOBAL, LOCAL), (GLOBAL, GLOBAL)] {
            let mut context = context();
            context.insert_exec_crossing(0x5ffe, 1, first, second);
            context.clear_local();
            assert_eq!(context.exec(0x5ffe).is_some(), first.global && second.global);
        }
    }

    #[test]
    fn an_instruction_across_the_edge_goes_with_either_superpage() {
        for (level, bits) in [(1, 21), (2, 30), (3, 39)] {
            let edge = 5_u64 << bits;
            let superpage = Reach { level, global: true };
            // Below the edge, above it, and in a superpage both.
            for (first, second, inside, outside) in [
                (superpage, GLOBAL, edge - (1 << bits), edge + 0x1000),
                (GLOBAL, superpage, edge + (1 << bits) - 0x1000, edge - 0x2000),
            ] {
                let mut context = context();
                context.insert_exec_crossing(edge - 2, 1, first, second);
                if level < 3 {
                    context.flush_page(outside);
                    assert_eq!(context.exec(edge - 2), Some(1));
                }
                context.flush_page(inside);
                assert_eq!(context.exec(edge - 2), None);
            }
        }
        let mut context = context();
        context.insert_exec_crossing(u64::MAX - 1, 1, GLOBAL, Reach { level: 1, global: true });
        context.flush_page(0x5000);
        assert_eq!(context.exec(u64::MAX - 1), None);
    }

    #[test]
    fn dropping_writes_leaves_other_pages() {
        let mut context = context();
        let pages = 0..TLB_SLOTS as u64;
        // Each page of memory at two addresses, and one of them once more after a flush.
        for page in pages.clone() {
            context.fill(page << 12, BASE + ((page / 2) << 12), true, GLOBAL);
        }
        context.flush_page(0x7000);
        for dropped in [3, 0, 511] {
            let host = context.memory.page(BASE + (dropped << 12)).unwrap();
            context.drop_writes(host);
        }
        for page in pages {
            let kept = ![3, 0, 511].contains(&(page / 2));
            assert_eq!(context.writable::<u8>(page << 12).is_some(), kept, "page {page}");
            assert_eq!(reads(&context, page << 12), page != 7);
        }
    }
}
