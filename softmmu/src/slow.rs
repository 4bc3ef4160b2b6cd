//! THE slow path: what happens to an access that the TLB does not answer.

use crate::mmu::{Fetch, Mmu, Walk};
use crate::pmp::Pmp;
use crate::ram::{GuestMemory, HostRef, Word};
use crate::tlb::Reach;
use crate::trap::{Access, AccessFault, Fault, Privilege, Trap, cause};
use crate::walk::{Leaf, PageTables, Rules, SatpMode, pte};
use crate::watch::Does;
use crate::{CACHE_BLOCK, PAGE_SIZE, PHYSICAL_BITS};

/// Where an address is, by the page table alone.
struct Mapping {
    pa: u64,
    reach: Reach,
    /// A store to it would have the same answer.
    stores: bool,
}

/// Bytes from `va` to the end of its page.
fn rest_of_page(va: u64) -> u64 {
    PAGE_SIZE - va % PAGE_SIZE
}

impl Mmu {
    /// Translates by the second-level TLB, or by walking the page table.
    fn translate(&mut self, va: u64, access: Access) -> Result<Mapping, Fault> {
        let privilege = self.regime.privilege_of(access);
        if privilege == Privilege::Machine || self.rules.mode == SatpMode::Bare {
            return match va >> PHYSICAL_BITS {
                0 => Ok(Mapping { pa: va, reach: Reach { level: 0, global: true }, stores: true }),
                _ => Err(Fault::Access),
            };
        }
        let rules = Rules { privilege, ..self.rules };
        if !rules.mode.is_canonical(va) {
            return Err(Fault::Page);
        }
        let cached = self.l2.lookup(va, self.space, self.spaces.global()).filter(|leaf| {
            // Permissions may have been added to the page table since, and that needs no fence everywhere: what is
            // refused here is walked again, and so is the first store, which sets D.
            rules.permits(leaf.pte, access) && (access != Access::Store || leaf.pte & pte::D != 0)
        });
        let leaf = match cached {
            Some(leaf) => {
                self.stats.l2_hits += 1;
                leaf
            }
            None => {
                self.stats.walks += 1;
                let found = rules.walk(va, access, &mut Tables { memory: &self.memory, pmp: &self.pmp });
                if let Some(watcher) = &self.watcher {
                    let found = found.map(|leaf| (leaf.pte, leaf.level, leaf.translate(va)));
                    watcher.walked(&Walk { va, access, privilege, found });
                }
                let leaf = found?;
                let global = leaf.pte & pte::G != 0;
                self.l2.insert(va, if global { self.spaces.global() } else { self.space }, leaf);
                leaf
            }
        };
        let reach = Reach { level: leaf.level, global: leaf.pte & pte::G != 0 };
        let stores = leaf.pte & pte::D != 0 && rules.permits(leaf.pte, Access::Store);
        Ok(Mapping { pa: leaf.translate(va), reach, stores })
    }

    /// The physical address of `size` bytes that do not cross a page edge, checked for everything but who answers there.
    /// Enters the page into the TLB if it can.
    fn resolve(&mut self, va: u64, size: u64, access: Access) -> Result<u64, Trap> {
        let Mapping { pa, reach, stores } =
            self.translate(va, access).map_err(|fault| fault.trap(access, va))?;
        let privilege = self.regime.privilege_of(access);
        if !self.pmp.allows(pa, size, access, privilege) {
            return Err(Fault::Access.trap(access, va));
        }
        // PMP has no W without R, nor have page tables: what can be stored to can be loaded from.
        if self.pmp.is_uniform(pa, privilege) && !self.watch.has_page(va) {
            // What is loaded from is often stored to next.
            let write =
                stores && (access == Access::Store || self.pmp.allows(pa, size, Access::Store, privilege));
            let filled = self.contexts.current_mut().fill(va, pa, write, reach);
            self.stats.fills += u64::from(filled);
        }
        Ok(pa)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow(&mut self, va: u64, size: u64) -> Result<u64, Trap> {
        let first = rest_of_page(va);
        if size > first {
            return self.load_across(va, first, size);
        }
        let pa = self.resolve(va, size, Access::Load)?;
        self.watch.check(va, size, Does::LOAD)?;
        let value = match (self.memory_load(pa, size), pa.is_multiple_of(size)) {
            (Some(value), _) => Ok(value),
            (None, true) => self.bus.read(pa, size as u8),
            (None, false) => {
                let mut bytes = [0; 8];
                let read = self.bus.read_bytes(pa, &mut bytes[..size as usize]);
                read.map(|()| u64::from_le_bytes(bytes))
            }
        };
        value.map_err(|AccessFault| Fault::Access.trap(Access::Load, va))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow(&mut self, va: u64, size: u64, value: u64) -> Result<(), Trap> {
        let first = rest_of_page(va);
        if size > first {
            return self.store_across(va, first, size, value);
        }
        let pa = self.resolve(va, size, Access::Store)?;
        self.watch.check(va, size, Does::STORE)?;
        let stored = match (self.memory_store(pa, size, value), pa.is_multiple_of(size)) {
            (Some(()), _) => Ok(()),
            (None, true) => {
                let written = self.bus.write(pa, size as u8, value);
                self.notice_hidden_roms();
                written
            }
            // Devices have no misaligned registers, and to split the access could touch two of them.
            (None, false) => Err(AccessFault),
        };
        stored.map_err(|AccessFault| Fault::Access.trap(Access::Store, va))
    }

    /// A load of which the `first` bytes are in one page and the others in the next.
    fn load_across(&mut self, va: u64, first: u64, size: u64) -> Result<u64, Trap> {
        let parts = self.resolve_across(va, first, size, Access::Load)?;
        let mut bytes = [0; 8];
        for part in parts {
            let into = &mut bytes[part.offset..part.offset + part.length];
            self.memory
                .load_bytes(part.pa, into)
                .or_else(|AccessFault| self.bus.read_bytes(part.pa, into))
                .map_err(|AccessFault| Fault::Access.trap(Access::Load, part.va))?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// A store of which the `first` bytes are in one page and the others in the next. Both are known to be RAM before any
    /// byte is written.
    fn store_across(&mut self, va: u64, first: u64, size: u64, value: u64) -> Result<(), Trap> {
        let parts = self.resolve_across(va, first, size, Access::Store)?;
        if let Some(part) = parts.iter().find(|part| !self.memory.is_ram(part.pa, part.length as u64)) {
            return Err(Fault::Access.trap(Access::Store, part.va));
        }
        let bytes = value.to_le_bytes();
        for part in parts {
            let from = &bytes[part.offset..part.offset + part.length];
            self.memory.store_bytes(part.pa, from).ok_or(Fault::Access.trap(Access::Store, part.va))?;
        }
        Ok(())
    }

    fn resolve_across(&mut self, va: u64, first: u64, size: u64, access: Access) -> Result<[Part; 2], Trap> {
        let next = va.wrapping_add(first);
        let pa = self.resolve(va, first, access)?;
        let next_pa = self.resolve(next, size - first, access)?;
        let does = if access == Access::Store { Does::STORE } else { Does::LOAD };
        self.watch.check(va, first, does).and_then(|()| self.watch.check(next, size - first, does))?;
        Ok([
            Part { va, pa, offset: 0, length: first as usize },
            Part { va: next, pa: next_pa, offset: first as usize, length: (size - first) as usize },
        ])
    }

    fn memory_load(&self, pa: u64, size: u64) -> Option<u64> {
        match size {
            1 => self.memory.readable::<u8>(pa).map(|place| place.load().to_u64()),
            2 => self.memory.readable::<u16>(pa).map(|place| place.load().to_u64()),
            4 => self.memory.readable::<u32>(pa).map(|place| place.load().to_u64()),
            _ => self.memory.readable::<u64>(pa).map(HostRef::load),
        }
    }

    fn memory_store(&self, pa: u64, size: u64, value: u64) -> Option<()> {
        match size {
            1 => self.memory.store(pa, value as u8),
            2 => self.memory.store(pa, value as u16),
            4 => self.memory.store(pa, value as u32),
            _ => self.memory.store(pa, value),
        }
    }

    /// Carries out an atomic operation on a place in RAM that may be stored to. `operate` returns its result and whether
    /// the value is another one now; `None` if the place is not aligned.
    #[inline]
    pub(crate) fn with_place<T, R>(
        &mut self,
        va: u64,
        operate: impl FnOnce(HostRef<'_, T>) -> Option<(R, bool)>,
    ) -> Result<R, Trap> {
        let misaligned = Trap { cause: cause::STORE_MISALIGNED, tval: va };
        if let Some(place) = self.contexts.current().writable::<T>(va) {
            return operate(place).map(|(result, _)| result).ok_or(misaligned);
        }
        let size = size_of::<T>() as u64;
        let pa = self.atomic_slow(va, size, Access::Store)?;
        let place = self.memory.writable::<T>(pa).ok_or(Fault::Access.trap(Access::Store, va))?;
        let (result, changed) = operate(place).ok_or(misaligned)?;
        if changed {
            self.memory.code().changed(pa, size);
        }
        Ok(result)
    }

    /// As [`Self::with_place`], for what an AMO or SC stores to; `operate` also gets its address in the host.
    #[inline]
    pub(crate) fn with_atomic<T: Word, R>(
        &mut self,
        va: u64,
        operate: impl FnOnce(&T::Atomic, u64) -> (R, bool),
    ) -> Result<R, Trap> {
        self.with_place(va, |place: HostRef<'_, T>| Some(operate(place.atomic()?, place.address() as u64)))
    }

    /// Address in the host, and value, of what LR reads.
    #[inline]
    pub(crate) fn reservable<T: Word>(&mut self, va: u64) -> Result<(u64, T), Trap> {
        let place = if self.contexts.current().readable::<T>(va).is_some() {
            self.contexts.current().readable::<T>(va)
        } else {
            let pa = self.atomic_slow(va, T::SIZE, Access::Load)?;
            self.memory.readable::<T>(pa)
        };
        let place = place.ok_or(Fault::Access.trap(Access::Load, va))?;
        let atomic = place.atomic().ok_or(Trap { cause: cause::LOAD_MISALIGNED, tval: va })?;
        Ok((place.address() as u64, T::load_ordered(atomic)))
    }

    #[cold]
    #[inline(never)]
    fn atomic_slow(&mut self, va: u64, size: u64, access: Access) -> Result<u64, Trap> {
        if !va.is_multiple_of(size) {
            let cause = if access == Access::Load { cause::LOAD_MISALIGNED } else { cause::STORE_MISALIGNED };
            return Err(Trap { cause, tval: va });
        }
        let pa = self.resolve(va, size, access)?;
        self.watch.check(va, size, if access == Access::Store { Does::BOTH } else { Does::LOAD })?;
        Ok(pa)
    }

    /// Translates the address of an instruction, or of two bytes of one.
    ///
    /// # Errors
    /// The trap of a fetch from `va`.
    pub fn fetch(&mut self, va: u64) -> Result<Fetch, Trap> {
        let trap = |fault: Fault| fault.trap(Access::Fetch, va);
        let Mapping { pa, reach, .. } = self.translate(va, Access::Fetch).map_err(trap)?;
        let privilege = self.regime.privilege;
        if !self.pmp.allows(pa, 2, Access::Fetch, privilege) {
            return Err(trap(Fault::Access));
        }
        let whole_page = self.pmp.is_uniform(pa, privilege);
        Ok(Fetch { pa, whole_page, reach, epoch: self.epoch })
    }

    /// Checks that a block can be stored to; traps name `va`.
    pub(crate) fn check_block(&mut self, block: u64, va: u64) -> Result<(), Trap> {
        let at_va = |trap: Trap| Trap { tval: va, ..trap };
        let pa = self.resolve(block, CACHE_BLOCK, Access::Store).map_err(at_va)?;
        match self.memory.is_ram(pa, CACHE_BLOCK) {
            true => self.watch.check(block, CACHE_BLOCK, Does::STORE),
            false => Err(Fault::Access.trap(Access::Store, va)),
        }
    }

    /// `cbo.inval`, `cbo.clean` and `cbo.flush`: may be done where a load or a store of the block may (CMO 2.5.2). There is
    /// no cache to manage.
    ///
    /// # Errors
    /// The trap of a store, with `va` itself as the address.
    pub fn check_cache_block(&mut self, va: u64) -> Result<(), Trap> {
        let block = va & !(CACHE_BLOCK - 1);
        if self.resolve(block, CACHE_BLOCK, Access::Load).is_ok() {
            return Ok(());
        }
        let at_va = |trap: Trap| Trap { tval: va, ..trap };
        self.resolve(block, CACHE_BLOCK, Access::Store).map(drop).map_err(at_va)
    }

    /// Where loads would find `va`, whatever its permissions. For debuggers: leaves everything as it was.
    pub fn translate_debug(&self, va: u64) -> Option<u64> {
        if self.regime.data_privilege() == Privilege::Machine || self.rules.mode == SatpMode::Bare {
            return (va >> PHYSICAL_BITS == 0).then_some(va);
        }
        self.walk_debug(va, |_, _| {}).map(|leaf| leaf.translate(va))
    }

    /// Walks the page table that `satp` names, at any privilege and whatever the permissions; `seen` is told the address and
    /// the value of each entry read. `None` if nothing is mapped, or `satp.MODE` is Bare. For debuggers, as
    /// [`Self::translate_debug`].
    pub fn walk_debug(&self, va: u64, seen: impl FnMut(u64, u64)) -> Option<Leaf> {
        if self.rules.mode == SatpMode::Bare {
            return None;
        }
        // What S-mode can load with SUM=1 and MXR=1, and A bits that are set without telling, is every valid page.
        let rules =
            Rules { privilege: Privilege::Supervisor, sum: true, mxr: true, svadu: true, ..self.rules };
        rules.walk(va, Access::Load, &mut Untouched { memory: &self.memory, seen }).ok()
    }
}

/// Bytes of an access that are in one page.
struct Part {
    va: u64,
    pa: u64,
    offset: usize,
    length: usize,
}

/// Page tables as the hart reads them: with the rights of S-mode under PMP (Privileged 3.7.2).
struct Tables<'a> {
    memory: &'a GuestMemory,
    pmp: &'a Pmp,
}

impl Tables<'_> {
    fn check(&self, pa: u64, access: Access) -> Result<(), AccessFault> {
        self.pmp.allows(pa, 8, access, Privilege::Supervisor).then_some(()).ok_or(AccessFault)
    }
}

impl PageTables for Tables<'_> {
    fn read(&mut self, pa: u64) -> Result<u64, AccessFault> {
        self.check(pa, Access::Load)?;
        self.memory.readable::<u64>(pa).map(HostRef::load).ok_or(AccessFault)
    }

    fn update(&mut self, pa: u64, old: u64, new: u64) -> Result<bool, AccessFault> {
        self.check(pa, Access::Store)?;
        let place = self.memory.writable::<u64>(pa).and_then(HostRef::atomic).ok_or(AccessFault)?;
        let updated = u64::compare_exchange(place, old, new) == old;
        if updated && old != new {
            self.memory.code().changed(pa, 8);
        }
        Ok(updated)
    }
}

/// Page tables for a debugger.
struct Untouched<'a, F> {
    memory: &'a GuestMemory,
    seen: F,
}

impl<F: FnMut(u64, u64)> PageTables for Untouched<'_, F> {
    fn read(&mut self, pa: u64) -> Result<u64, AccessFault> {
        let entry = self.memory.readable::<u64>(pa).map(HostRef::load).ok_or(AccessFault)?;
        (self.seen)(pa, entry);
        Ok(entry)
    }

    fn update(&mut self, _: u64, _: u64, _: u64) -> Result<bool, AccessFault> {
        Ok(true)
    }
}
