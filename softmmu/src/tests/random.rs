//! Random page tables, accesses, regimes and fences, compared with a walk of the page table in memory for each access. The
//! software here fences what it changes, so the MMU has no excuse to see anything else.

use super::*;
use crate::walk::{PageTables, Rules};
use crate::{Access, Fault};
use Privilege::{Machine, Supervisor, User};

const SPACES: usize = 14;
/// Pages whose slots in the TLB collide, neighbours, both halves of the address space, and places for superpages.
const PAGES: [u64; 14] = [
    0x1_0000,
    0x1_1000,
    0x41_0000,
    0x81_0000,
    0x20_0000,
    0x21_0000,
    0x3f_f000,
    0x4000_0000,
    0x4001_0000,
    0x7fff_f000,
    0x3f_ffff_f000,
    0xffff_ffc0_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_f000,
];

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len() as u64) as usize]
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.next(one_in) == 0
    }
}

/// Page tables that an access would see, left as they are.
struct Seen<'a>(&'a Tables);

impl PageTables for Seen<'_> {
    fn read(&mut self, pa: u64) -> Result<u64, AccessFault> {
        self.0.memory.is_ram(pa, 8).then(|| self.0.read(pa)).ok_or(AccessFault)
    }

    fn update(&mut self, _: u64, _: u64, _: u64) -> Result<bool, AccessFault> {
        Ok(true)
    }
}

struct Guest {
    world: World,
    random: Random,
    mode: SatpMode,
    roots: [u64; SPACES],
    /// The upper half of the address space is the same in all: global leaves, and only those.
    kernel_root: u64,
}

impl Guest {
    fn new(mode: SatpMode, seed: u64) -> Self {
        let mut world = World::new();
        for pa in (RAM..TABLES).step_by(PAGE_SIZE as usize) {
            world.put(pa, pa);
            world.put(pa + 0xff8, !pa);
        }
        let roots: [u64; SPACES] = std::array::from_fn(|_| world.tables.table());
        let kernel_root = roots[0];
        // All entries of the upper half of the root exist from the start, so that the roots can share what is below.
        for index in 256..512 {
            let table = world.tables.table();
            roots.iter().for_each(|root| world.tables.write(root + index * 8, pointer(table)));
        }
        Self { world, random: Random(seed), mode, roots, kernel_root }
    }

    /// Changes an entry, and fences as the specification asks for that change.
    fn change(&mut self) {
        let asid = self.random.next(SPACES as u64);
        let va = self.random.pick(&PAGES);
        let global = va >> 63 != 0;
        let root = if global { self.kernel_root } else { self.roots[asid as usize] };
        // Where a table is below, it stays: only leaves of the level that is already there are changed.
        let mut level = self.mode.levels() - 2;
        let wanted = self.random.pick(&[0, 0, 0, 1, 2]).min(level);
        let place = loop {
            let place = self.world.tables.place(root, self.mode, va, level);
            let old = self.world.tables.read(place);
            if level == wanted && (old == 0 || old & (R | W | X) != 0 || level == 0) {
                break place;
            }
            if level == 0 || old & (V | R | W | X) > V {
                break place;
            }
            level -= 1;
        };
        let old = self.world.tables.read(place);
        let size = PAGE_SIZE << (9 * level);
        let rights = self.random.pick(&[R | W | X, R | W | X, R | W | X, R | W, R | X, R, X, W | X]);
        let user = if !global || self.random.chance(4) { U } else { 0 };
        let flags =
            V | rights | self.random.pick(&[user, user, user, U]) | self.random.pick(&[0, A, A | D, A | D]);
        let mut entry = leaf(RAM + self.random.next(0x40) * size % (48 << 20), flags);
        if self.random.chance(8) {
            entry = leaf(self.random.pick(&[DEVICE, ROM, 0x4000_0000]) & !(size - 1), flags);
        }
        if self.random.chance(8) {
            entry = 0;
        }
        if global && entry != 0 {
            entry |= G;
        }
        self.world.tables.write(place, entry);
        if old & V == 0 {
            return;
        }
        let anywhere = va & !(size - 1) | self.random.next(size);
        let mmu = &mut self.world.mmu;
        match (self.random.next(24), global) {
            (0, _) => mmu.sfence_vma(None, None),
            (1..4, false) => mmu.sfence_vma(None, Some(asid as u16)),
            (4..10, _) | (_, true) => mmu.sfence_vma(Some(anywhere), None),
            (10..16, false) => mmu.sfence_range(anywhere, 1, Some(asid as u16)),
            _ => mmu.sfence_vma(Some(anywhere), Some(asid as u16)),
        }
    }

    fn switch(&mut self) {
        let asid = self.random.next(SPACES as u64);
        let space = satp(self.mode, asid, self.roots[asid as usize]);
        let random = &mut self.random;
        self.world.set(|regime| {
            match random.next(6) {
                0 | 1 => regime.satp = space,
                2 => regime.sum = !regime.sum,
                3 => regime.mxr = random.chance(4),
                _ => regime.privilege = random.pick(&[User, User, Supervisor, Supervisor, Machine]),
            }
            let lent = random.chance(3).then(|| random.pick(&[User, Supervisor, Machine]));
            regime.mprv_privilege = if regime.privilege == Machine { lent } else { None };
            if random.chance(40) {
                regime.satp = 0;
            }
            if random.chance(400) {
                regime.adue = !regime.adue;
            }
        });
    }

    /// Where the page table in memory has an address.
    fn walk(&self, va: u64, access: Access) -> Result<u64, Fault> {
        let regime = &self.world.regime;
        let privilege = regime.privilege_of(access);
        if privilege == Machine || regime.satp == 0 {
            return if va >> 56 == 0 { Ok(va) } else { Err(Fault::Access) };
        }
        let rules = Rules {
            mode: self.mode,
            root: pte::address(regime.satp << pte::PPN_SHIFT),
            privilege,
            sum: regime.sum,
            mxr: regime.mxr,
            svadu: regime.adue,
            svpbmt: false,
            svnapot: true,
        };
        rules.walk(va, access, &mut Seen(&self.world.tables)).map(|leaf| leaf.translate(va))
    }

    fn address(&mut self) -> u64 {
        let va = self
            .random
            .pick(&PAGES)
            .wrapping_add(self.random.pick(&[0, 0, 0, 0x7f8, 0xff8, 0xff8, 0x1000, 0x1f_f000]));
        match self.random.next(12) {
            0 => va.wrapping_sub(self.random.next(8)),
            1 => self.random.pick(&[RAM, DEVICE, ROM, 1 << 56, 1 << 40]) + 0xff8,
            _ => va,
        }
    }

    fn access(&mut self) {
        let va = self.address();
        match self.random.next(5) {
            0 | 1 => self.load(va),
            2 | 3 => self.store(va),
            _ => self.fetch(va),
        }
    }

    /// The 8 bytes at `va` as (physical address, length) of their parts.
    fn parts(&self, va: u64, access: Access) -> Result<Vec<(u64, u64)>, Trap> {
        let first = (PAGE_SIZE - va % PAGE_SIZE).min(8);
        let mut parts = Vec::new();
        for (va, length) in [(va, first), (va.wrapping_add(first), 8 - first)] {
            if length != 0 {
                parts.push((self.walk(va, access).map_err(|fault| fault.trap(access, va))?, length));
            }
        }
        Ok(parts)
    }

    fn load(&mut self, va: u64) {
        let expected = self.parts(va, Access::Load).and_then(|parts| {
            let mut value = 0;
            let mut shift = 0;
            for &(pa, length) in &parts {
                let mut bytes = [0; 8];
                if self.world.memory.read(pa, &mut bytes[..length as usize]).is_err() {
                    let device = length == 8 && pa.is_multiple_of(8) && pa & !0xfff == DEVICE;
                    let va = va.wrapping_add(shift / 8);
                    bytes = if device { pa } else { return Err(Fault::Access.trap(Access::Load, va)) }
                        .to_le_bytes();
                }
                value |= u64::from_le_bytes(bytes) << shift;
                shift += length * 8;
            }
            Ok(value)
        });
        assert_eq!(self.world.mmu.load_u64(va), expected, "load {va:#x}, {:x?}", self.world.regime);
    }

    fn store(&mut self, va: u64) {
        let value = self.random.next(1 << 50);
        let expected = self.parts(va, Access::Store).and_then(|parts| {
            let mut at = va;
            for &(pa, length) in &parts {
                let device = length == 8 && pa.is_multiple_of(8) && pa & !0xfff == DEVICE;
                if !self.world.memory.is_ram(pa, length) && !device {
                    return Err(Fault::Access.trap(Access::Store, at));
                }
                at = at.wrapping_add(length);
            }
            Ok(parts)
        });
        // Not over page tables, which would end the game.
        if expected.as_ref().is_ok_and(|parts| parts.iter().any(|&(pa, _)| pa >= TABLES)) {
            return;
        }
        let result = self.world.mmu.store_u64(va, value);
        assert_eq!(result, expected.clone().map(drop), "store {va:#x}, {:x?}", self.world.regime);
        let mut shift = 0;
        for (pa, length) in expected.into_iter().flatten().filter(|&(pa, _)| pa >= RAM) {
            let mut bytes = [0; 8];
            self.world.memory.read(pa, &mut bytes[..length as usize]).unwrap();
            let mask = u64::MAX >> (64 - 8 * length);
            assert_eq!(u64::from_le_bytes(bytes), value >> shift & mask);
            shift += length * 8;
        }
    }

    fn fetch(&mut self, va: u64) {
        let va = va & !1;
        let expected = self.walk(va, Access::Fetch).map_err(|fault| fault.trap(Access::Fetch, va));
        let mmu = &mut self.world.mmu;
        if let Some(payload) = mmu.exec_lookup(va) {
            assert_eq!(Ok(payload), expected, "known code at {va:#x}, {:x?}", self.world.regime);
        }
        let fetch = mmu.fetch(va);
        assert_eq!(fetch.map(|fetch| fetch.pa), expected, "fetch {va:#x}, {:x?}", self.world.regime);
        if let Ok(fetch) = fetch {
            mmu.exec_insert(va, &fetch, fetch.pa);
        }
    }
}

fn play(mode: SatpMode, seed: u64) -> crate::MmuStats {
    let mut guest = Guest::new(mode, seed);
    guest.world.set(|regime| regime.adue = true);
    for _ in 0..1500 {
        guest.change();
    }
    for _ in 0..200_000 {
        match guest.random.next(32) {
            0 => guest.change(),
            1..=3 => guest.switch(),
            _ => guest.access(),
        }
    }
    *guest.world.mmu.stats()
}

#[test]
fn every_access_agrees_with_the_page_table() {
    for (mode, seed) in [(SatpMode::Sv39, 0x1234_5678), (SatpMode::Sv48, 0x9abc_def1), (SatpMode::Sv57, 77)] {
        let stats = play(mode, seed);
        assert!(
            stats.l2_hits > 5000 && stats.fills > 5000 && stats.flushes > 100 && stats.page_flushes > 1000,
            "{stats:?}"
        );
    }
}

#[test]
fn and_with_other_seeds() {
    for seed in 1..6 {
        play(SatpMode::Sv39, seed << 32 | 0x7f4a_7c15);
    }
}
