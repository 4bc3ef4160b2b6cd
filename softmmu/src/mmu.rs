//! The MMU of a hart: its regime, flushes, and the accesses as they go when the TLB knows the page.

use std::sync::Arc;

use crate::contexts::{Contexts, Selector};
use crate::l2::L2;
use crate::pmp::Pmp;
use crate::ram::{CodePage, GuestMemory, HostRef, Word};
use crate::spaces::{SpaceId, Spaces};
use crate::tlb::{Context, Reach};
use crate::trap::{Access, AccessFault, Fault, Privilege, Trap};
use crate::walk::{Rules, SatpMode, pte};
use crate::watch::Watch;
use crate::{CACHE_BLOCK, PAGE_SIZE, PhysBus};

/// What translation features the hart has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmuConfig {
    /// The largest scheme; smaller ones are there too.
    pub max_mode: SatpMode,
    /// Svadu: A and D bits can be updated here, which [`Regime::adue`] turns on.
    pub svadu: bool,
    /// Svpbmt, which [`Regime::pbmte`] turns on. Memory types change nothing here, but the bits are legal then.
    pub svpbmt: bool,
    /// Svnapot.
    pub svnapot: bool,
}

/// The state of the hart that decides how addresses are translated and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    /// `satp`. A mode that the hart does not have counts as Bare.
    pub satp: u64,
    /// Current privilege mode.
    pub privilege: Privilege,
    /// `mstatus.MPP` if `mstatus.MPRV` is in effect: the privilege of loads and stores.
    pub mprv_privilege: Option<Privilege>,
    /// `mstatus.SUM`
    pub sum: bool,
    /// `mstatus.MXR`
    pub mxr: bool,
    /// `menvcfg.ADUE`
    pub adue: bool,
    /// `menvcfg.PBMTE`
    pub pbmte: bool,
}

impl Regime {
    /// The privilege that loads and stores have.
    pub(crate) fn data_privilege(&self) -> Privilege {
        self.mprv_privilege.unwrap_or(self.privilege)
    }

    pub(crate) fn privilege_of(&self, access: Access) -> Privilege {
        if access == Access::Fetch { self.privilege } else { self.data_privilege() }
    }
}

/// A page-table walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The virtual address.
    pub va: u64,
    /// What for.
    pub access: Access,
    /// The privilege of the access.
    pub privilege: Privilege,
    /// Its page-table entry, with the level where that is (0 for a page of 4 KiB) and the physical address; or why there is none.
    pub found: Result<(u64, u32, u64), Fault>,
}

/// Hears of what an [`Mmu`] does besides accesses. Called on the hart's thread.
pub trait MmuWatcher: Send {
    /// A page table was walked.
    fn walked(&self, walk: &Walk);
    /// Translations were flushed that an `sfence.vma` with these operands names, by `mode`.
    fn fenced(&self, mode: Privilege, va: Option<u64>, asid: Option<u16>);
}

/// Where an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Physical address.
    pub pa: u64,
    /// The whole page can be executed. Otherwise PMP divides it, and every two bytes must be asked for.
    pub whole_page: bool,
    pub(crate) reach: Reach,
    /// [`Mmu::epoch`] when it was translated.
    pub(crate) epoch: u64,
}

/// Counts of what happened off the fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmuStats {
    /// Entries made in the first-level TLB.
    pub fills: u64,
    /// Translations found in the second-level TLB.
    pub l2_hits: u64,
    /// Page table walks.
    pub walks: u64,
    /// Flushes of one or all address spaces.
    pub flushes: u64,
    /// Flushes of a page.
    pub page_flushes: u64,
}

/// What LR leaves for SC. Engines keep it with the hart's registers, where generated code finds it; the default is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// Host address of the reserved place, the same for all its virtual addresses, with bit 0 set if it is 8 bytes wide; 0 is
    /// no reservation.
    pub place: u64,
    /// What the place held, zero-extended.
    pub value: u64,
}

impl Reservation {
    /// `address` is a multiple of the width, which is at least 4.
    fn place<T>(address: u64) -> u64 {
        address | u64::from(size_of::<T>() == 8)
    }
}

/// A hart's view of memory.
pub struct Mmu {
    pub(crate) contexts: Contexts,
    pub(crate) memory: GuestMemory,
    pub(crate) bus: Arc<dyn PhysBus>,
    pub(crate) pmp: Pmp,
    pub(crate) regime: Regime,
    /// How loads and stores are translated, where [`Rules::mode`] is not Bare; the privilege in it is that of S and U only.
    pub(crate) rules: Rules,
    pub(crate) l2: L2,
    pub(crate) spaces: Spaces,
    /// The present address space; 0 for Bare.
    pub(crate) space: SpaceId,
    /// The last mode that was not Bare.
    paged_mode: SatpMode,
    /// Counts flushes and changes of regime: a [`Fetch`] from before says nothing of the present context.
    pub(crate) epoch: u64,
    /// Those of them that concern fetches.
    code_epoch: u64,
    /// [`GuestMemory::hidings`] that the tables know of.
    hidings: u64,
    pub(crate) stats: MmuStats,
    pub(crate) watch: Watch,
    pub(crate) watcher: Option<Box<dyn MmuWatcher>>,
    config: MmuConfig,
}

impl Mmu {
    /// In machine mode, with PMP as after power-on.
    pub fn new(memory: GuestMemory, bus: Arc<dyn PhysBus>, config: MmuConfig) -> Self {
        Self {
            contexts: Contexts::new(memory.clone()),
            memory,
            bus,
            pmp: Pmp::default(),
            regime: Regime {
                satp: 0,
                privilege: Privilege::Machine,
                mprv_privilege: None,
                sum: false,
                mxr: false,
                adue: false,
                pbmte: false,
            },
            rules: Rules {
                mode: SatpMode::Bare,
                root: 0,
                privilege: Privilege::Supervisor,
                sum: false,
                mxr: false,
                svadu: false,
                svpbmt: false,
                svnapot: config.svnapot,
            },
            l2: L2::new(),
            spaces: Spaces::new(),
            space: 0,
            paged_mode: SatpMode::Bare,
            epoch: 0,
            code_epoch: 0,
            hidings: 0,
            stats: MmuStats::default(),
            watch: Watch::default(),
            watcher: None,
            config,
        }
    }

    /// To be called after every change of what a [`Regime`] holds. Cheap: no flush, except where `menvcfg` changes, or
    /// `satp.MODE` from one paged scheme to another.
    pub fn set_regime(&mut self, regime: &Regime) {
        if *regime == self.regime {
            return;
        }
        let old = std::mem::replace(&mut self.regime, *regime);
        self.epoch += 1;
        let of_code = |regime: &Regime| (regime.satp, regime.privilege, regime.adue, regime.pbmte);
        self.code_epoch += u64::from(of_code(&old) != of_code(regime));
        if old.satp != regime.satp {
            self.set_satp();
        }
        if (old.adue, old.pbmte) != (regime.adue, regime.pbmte) {
            self.rules.svadu = self.config.svadu && regime.adue;
            self.rules.svpbmt = self.config.svpbmt && regime.pbmte;
            self.flush_translated();
        }
        self.rules.privilege = regime.data_privilege();
        self.rules.sum = regime.sum;
        self.rules.mxr = regime.mxr;
        self.select();
    }

    fn set_satp(&mut self) {
        let satp = self.regime.satp;
        let mode = SatpMode::from_bits(satp >> 60).filter(|mode| *mode <= self.config.max_mode);
        self.rules.mode = mode.unwrap_or(SatpMode::Bare);
        self.rules.root = pte::address(satp << pte::PPN_SHIFT);
        if self.rules.mode != SatpMode::Bare && self.rules.mode != self.paged_mode {
            // Global mappings have no address space that would tell the schemes apart.
            self.paged_mode = self.rules.mode;
            self.flush_translated();
        }
        self.renumber();
    }

    /// Looks up the number of the present address space.
    fn renumber(&mut self) {
        if self.spaces.is_exhausted() {
            self.spaces = Spaces::new();
            self.l2.clear();
            self.contexts.flush_translated();
        }
        self.space = if self.rules.mode == SatpMode::Bare { 0 } else { self.spaces.of(self.regime.satp) };
    }

    /// Makes the context of the present regime current.
    fn select(&mut self) {
        let regime = &self.regime;
        let data = regime.data_privilege();
        let selector = if regime.privilege == Privilege::Machine && data == Privilege::Machine {
            Selector::Machine
        } else if data != regime.privilege || (regime.mxr && self.space != 0) {
            let bit = |bit: bool, place: u32| u8::from(bit) << place;
            let sum = regime.sum && data == Privilege::Supervisor;
            Selector::Keyed(regime.privilege as u8 | (data as u8) << 2 | bit(sum, 4) | bit(regime.mxr, 5))
        } else if self.space == 0 {
            Selector::Bare
        } else if data == Privilege::Supervisor {
            Selector::Supervisor { sum: regime.sum }
        } else {
            Selector::Keyed(0)
        };
        self.contexts.select(selector, self.space);
    }

    /// The tables that generated code probes now. Other tables are current after the next call of a method with `&mut self`
    /// that is not an access, but each keeps its address for as long as the MMU lives, also while it is not current.
    pub fn context(&self) -> &Context {
        self.contexts.current()
    }

    /// Whether an entry of [`Self::context`]'s [`Near`](crate::Near)s was filled more often than pays; to be asked when its `fills`
    /// have come to 0. `instret` is how many instructions the hart has retired.
    pub fn near_is_poor(&mut self, stores: bool, index: usize, instret: u64) -> bool {
        self.contexts.current_mut().near_is_poor(stores, index, instret)
    }

    /// Counts whatever can make fetches find other code, or none: changes of `satp`, privilege, `menvcfg` and PMP, and every
    /// flush. What only loads and stores depend on does not count: SUM, MXR and MPRV.
    pub fn code_epoch(&self) -> u64 {
        self.code_epoch
    }

    /// Takes the page of RAM at `page_pa` out of all write tables of the hart, as [`GuestMemory::watch_code`] asks for.
    pub fn drop_writes(&mut self, page_pa: u64) {
        if let Some(page) = self.memory.page(page_pa).filter(|page| page.writable) {
            self.contexts.drop_writes(page);
        }
    }

    /// Looks whether a ROM was hidden from loads ([`GuestMemory::hide_rom`]), and forgets where it was.
    pub fn notice_hidden_roms(&mut self) {
        let hidings = self.memory.hidings();
        if hidings != self.hidings {
            self.hidings = hidings;
            self.flush_everything();
        }
    }

    /// The privilege mode, by the last [`Self::set_regime`].
    pub fn privilege(&self) -> Privilege {
        self.regime.privilege
    }

    /// From now on `watcher` hears of page-table walks and fences.
    pub fn set_watcher(&mut self, watcher: Box<dyn MmuWatcher>) {
        self.watcher = Some(watcher);
    }

    /// The PMP registers.
    pub fn pmp(&self) -> &Pmp {
        &self.pmp
    }

    /// Writes `pmpcfg0` (`register` 0) or `pmpcfg2` (1), as far as it is legal.
    pub fn write_pmp_cfg(&mut self, register: usize, value: u64) {
        self.pmp.write_cfg(register, value);
        self.flush_everything();
    }

    /// Writes a `pmpaddr` register, as far as it is legal.
    pub fn write_pmp_addr(&mut self, entry: usize, value: u64) {
        self.pmp.write_addr(entry, value);
        self.flush_everything();
    }

    /// Lets S and U access everything, as firmware does before it hands over: all entries are off but the first.
    pub fn open_pmp(&mut self) {
        self.pmp.open();
        self.flush_everything();
    }

    /// Puts PMP in its state after power-on: all entries off and unlocked.
    pub fn reset_pmp(&mut self) {
        self.pmp = Pmp::default();
        self.flush_everything();
    }

    /// `sfence.vma` (Privileged 12.2.1), also `sinval.vma`: forgets translations of the page at `va`, or all, that are not
    /// global and of the address space `asid`, or of any and global ones.
    pub fn sfence_vma(&mut self, va: Option<u64>, asid: Option<u16>) {
        if let Some(watcher) = &self.watcher {
            watcher.fenced(self.regime.privilege, va, asid);
        }
        self.count_flush();
        match (va, asid) {
            (None, None) => self.flush_translated(),
            (None, Some(asid)) => self.flush_asid(asid),
            (Some(va), None) => self.flush_page(va, None),
            (Some(va), Some(asid)) => {
                // Nothing carries the ASID if it has no number.
                if let Some(space) = self.spaces.find(asid) {
                    self.flush_page(va, Some(space));
                }
            }
        }
    }

    /// As [`Self::sfence_vma`] for all pages of a range, with the conventions of the SBI's remote fences: 0 bytes from 0 on,
    /// or `u64::MAX` bytes, are everything.
    pub fn sfence_range(&mut self, start: u64, size: u64, asid: Option<u16>) {
        /// Flushing more pages one by one costs more than losing the others.
        const MOST_PAGES: u64 = 256;

        let everything = (start, size) == (0, 0) || size == u64::MAX;
        let first = start & !(PAGE_SIZE - 1);
        let pages = (start - first).saturating_add(size).div_ceil(PAGE_SIZE);
        if everything || pages > MOST_PAGES {
            self.sfence_vma(None, asid);
        } else {
            (0..pages).for_each(|page| self.sfence_vma(Some(first.wrapping_add(page * PAGE_SIZE)), asid));
        }
    }

    fn flush_page(&mut self, va: u64, space: Option<SpaceId>) {
        self.stats.page_flushes += 1;
        self.l2.flush_page(va, space);
        self.contexts.flush_page(va, space);
    }

    fn flush_asid(&mut self, asid: u16) {
        self.stats.flushes += 1;
        if let Some(space) = self.spaces.retire(asid) {
            self.contexts.free_space(space);
            self.renumber();
            self.select();
        }
    }

    fn flush_translated(&mut self) {
        self.stats.flushes += 1;
        self.spaces.retire_all();
        self.contexts.flush_translated();
        self.renumber();
        self.select();
    }

    fn count_flush(&mut self) {
        self.epoch += 1;
        self.code_epoch += 1;
    }

    pub(crate) fn flush_everything(&mut self) {
        self.count_flush();
        self.contexts.flush_all();
        self.flush_translated();
    }

    /// Counts since the MMU was made.
    pub fn stats(&self) -> &MmuStats {
        &self.stats
    }

    #[inline]
    fn load<T: Word>(&mut self, va: u64) -> Result<T, Trap> {
        match self.contexts.current().readable::<T>(va) {
            Some(place) => Ok(place.load()),
            None => self.load_slow(va, T::SIZE).map(T::from_u64),
        }
    }

    #[inline]
    fn store<T: Word>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        match self.contexts.current().writable::<T>(va) {
            Some(place) => {
                place.store(value);
                Ok(())
            }
            None => self.store_slow(va, T::SIZE, value.to_u64()),
        }
    }

    #[inline]
    fn amo<T: Word>(&mut self, va: u64, mut f: impl FnMut(T) -> T) -> Result<T, Trap> {
        self.with_atomic::<T, T>(va, |place, _| {
            let mut changed = false;
            let old = T::update(place, |old| {
                let new = f(old);
                changed = new != old;
                new
            });
            (old, changed)
        })
    }

    #[inline]
    fn compare_exchange<T: Word>(&mut self, va: u64, expected: T, new: T) -> Result<T, Trap> {
        self.with_atomic::<T, T>(va, |place, _| {
            let old = T::compare_exchange(place, expected, new);
            (old, old == expected && new != expected)
        })
    }

    /// Returns the place with its value.
    fn load_reserved<T: Word>(&mut self, va: u64) -> Result<Reservation, Trap> {
        let (address, value) = self.reservable::<T>(va)?;
        Ok(Reservation { place: Reservation::place::<T>(address), value: value.to_u64() })
    }

    /// Stores if the place still holds what was reserved: the value stands for the reservation set, as in other emulators.
    fn store_conditional<T: Word>(
        &mut self,
        va: u64,
        reservation: Reservation,
        value: T,
    ) -> Result<bool, Trap> {
        self.with_atomic::<T, bool>(va, |place, address| {
            if reservation.place != Reservation::place::<T>(address) {
                return (false, false);
            }
            let expected = T::from_u64(reservation.value);
            let stored = T::compare_exchange(place, expected, value) == expected;
            (stored, stored && value != expected)
        })
    }

    /// `cbo.zero`: clears the 64-byte block around `va`.
    ///
    /// # Errors
    /// The trap of a store, with `va` itself as the address.
    pub fn zero_block(&mut self, va: u64) -> Result<(), Trap> {
        let block = va & !(CACHE_BLOCK - 1);
        if self.contexts.current().writable::<[u64; 8]>(block).is_none() {
            self.check_block(block, va)?;
        }
        (0..CACHE_BLOCK).step_by(8).try_for_each(|offset| self.store(block + offset, 0_u64))
    }

    /// The payload entered for `va` in the present regime, if no flush has taken it.
    #[inline]
    pub fn exec_lookup(&self, va: u64) -> Option<u64> {
        self.contexts.current().exec(va)
    }

    /// Enters a payload for the instruction at `va`, which `fetch` translated, until that translation is flushed. Nothing is
    /// entered if not all of the page can be executed, or after a flush or a change of regime since the fetch.
    pub fn exec_insert(&mut self, va: u64, fetch: &Fetch, payload: u64) {
        if fetch.whole_page && fetch.epoch == self.epoch {
            self.contexts.current_mut().insert_exec(va, payload, fetch.reach);
        }
    }

    /// As [`Self::exec_insert`] for the instruction at the last two bytes of a page, whose second half is in the next one:
    /// until the translation of either is flushed.
    pub fn exec_insert_crossing(&mut self, va: u64, first: &Fetch, second: &Fetch, payload: u64) {
        let usable = |fetch: &Fetch| fetch.whole_page && fetch.epoch == self.epoch;
        if va % PAGE_SIZE == PAGE_SIZE - 2 && usable(first) && usable(second) {
            self.contexts.current_mut().insert_exec_crossing(va, payload, first.reach, second.reach);
        }
    }

    /// Forgets all payloads, in all regimes.
    pub fn exec_clear_all(&mut self) {
        self.contexts.clear_exec();
    }

    /// The page at a physical address, if it is RAM or ROM, to read code from.
    #[inline]
    pub fn code_page(&self, pa: u64) -> Option<CodePage<'_>> {
        self.memory.code_page(pa)
    }

    /// Two bytes of code at a physical address.
    ///
    /// # Errors
    /// When nothing is there that can be read.
    #[inline]
    pub fn read_code_u16(&self, pa: u64) -> Result<u16, AccessFault> {
        match self.memory.fetchable::<u16>(pa) {
            Some(place) => Ok(place.load()),
            None if pa.is_multiple_of(2) => self.bus.read(pa, 2).map(|value| value as u16),
            None => Err(AccessFault),
        }
    }

    /// `amocas.q`: stores `new` if the 16 bytes at `va` are `expected`; returns what they were.
    ///
    /// # Errors
    /// The trap of a store.
    pub fn compare_exchange_u128(&mut self, va: u64, expected: u128, new: u128) -> Result<u128, Trap> {
        self.with_place(va, |place: HostRef<'_, u128>| {
            let old = place.compare_exchange(expected, new)?;
            Some((old, old == expected && new != expected))
        })
    }
}

/// The public accesses, one for each width.
macro_rules! accesses {
    ($($integer:ident $load:ident $store:ident $amo:ident $compare_exchange:ident),*) => {
        impl Mmu {
            $(
                /// Loads from any alignment, also across a page edge.
                ///
                /// # Errors
                /// The trap of a load.
                #[inline]
                pub fn $load(&mut self, va: u64) -> Result<$integer, Trap> {
                    self.load(va)
                }

                /// Stores at any alignment, also across a page edge.
                ///
                /// # Errors
                /// The trap of a store; nothing is stored then.
                #[inline]
                pub fn $store(&mut self, va: u64, value: $integer) -> Result<(), Trap> {
                    self.store(va, value)
                }

                /// Replaces the value by `f` of it, atomically, and returns the old one. `f` may be called repeatedly.
                ///
                /// # Errors
                /// The trap of a store; misaligned addresses and devices are refused.
                #[inline]
                pub fn $amo(&mut self, va: u64, f: impl FnMut($integer) -> $integer) -> Result<$integer, Trap> {
                    self.amo(va, f)
                }

                /// `amocas`: stores `new` if the value is `expected`, atomically; returns what it was.
                ///
                /// # Errors
                /// The trap of a store, also if nothing is stored; misaligned addresses and devices are refused.
                #[inline]
                pub fn $compare_exchange(
                    &mut self, va: u64, expected: $integer, new: $integer,
                ) -> Result<$integer, Trap> {
                    self.compare_exchange(va, expected, new)
                }
            )*
        }
    };
}

accesses!(
    u8 load_u8 store_u8 amo_u8 compare_exchange_u8,
    u16 load_u16 store_u16 amo_u16 compare_exchange_u16,
    u32 load_u32 store_u32 amo_u32 compare_exchange_u32,
    u64 load_u64 store_u64 amo_u64 compare_exchange_u64
);

/// The reserving accesses, one for each width.
macro_rules! reserved_accesses {
    ($($integer:ident $load_reserved:ident $store_conditional:ident),*) => {
        impl Mmu {
            $(
                /// LR: loads, and returns the place with its value. The caller gives up an earlier reservation, also on a
                /// trap.
                ///
                /// # Errors
                /// The trap of a load; misaligned addresses and devices are refused.
                pub fn $load_reserved(&mut self, va: u64) -> Result<Reservation, Trap> {
                    self.load_reserved::<$integer>(va)
                }

                /// SC: stores if the place is the reserved one and holds the value it had; says whether it did. The
                /// caller gives up the reservation in any case.
                ///
                /// # Errors
                /// The trap of a store, also without a reservation; misaligned addresses and devices are refused.
                pub fn $store_conditional(
                    &mut self, va: u64, reservation: Reservation, value: $integer,
                ) -> Result<bool, Trap> {
                    self.store_conditional(va, reservation, value)
                }
            )*
        }
    };
}

reserved_accesses!(u32 load_reserved_u32 store_conditional_u32, u64 load_reserved_u64 store_conditional_u64);
