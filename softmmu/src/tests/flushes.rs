//! What a fence makes visible, and what it leaves alone.

use super::*;
use Privilege::{Supervisor, User};

/// Collides with nothing else here in any table.
const VA: u64 = 0x40_0000;
const OTHER: u64 = 0x41_0000;
const KERNEL: u64 = 0xffff_ffff_8000_0000;
/// Physical pages, each holding its own address.
const OLD: u64 = RAM + 0x10_0000;
const NEW: u64 = RAM + 0x20_0000;

/// Two address spaces that map `VA`, `OTHER` and (globally) `KERNEL` to `OLD`, all known to the TLB in U- and S-mode.
struct Warm {
    world: World,
    roots: [u64; 2],
}

impl Warm {
    fn new() -> Self {
        let mut world = World::new();
        world.put(OLD, OLD);
        world.put(NEW, NEW);
        let roots = [world.root, world.tables.table()];
        let mut warm = Self { world, roots };
        warm.map(OLD);
        for asid in [1, 2, 1] {
            for va in [VA, OTHER, KERNEL] {
                assert_eq!(warm.sees(asid, va), OLD);
            }
        }
        warm
    }

    /// Maps everything to `pa`, and flushes nothing.
    fn map(&mut self, pa: u64) {
        for root in self.roots {
            for (va, flags) in [(VA, U), (OTHER, U), (KERNEL, G)] {
                self.world.tables.map(root, SatpMode::Sv39, va, 0, leaf(pa, ALL | flags));
            }
        }
    }

    /// Where an address space sees `va`; loads, stores and fetches must agree, and U- and S-mode.
    fn sees(&mut self, asid: u64, va: u64) -> u64 {
        let root = self.roots[asid as usize - 1];
        self.world.set(|regime| {
            (regime.satp, regime.sum, regime.privilege) =
                (satp(SatpMode::Sv39, asid, root), true, Supervisor);
        });
        let mmu = &mut self.world.mmu;
        let pa = mmu.load_u64(va).unwrap();
        assert_eq!(mmu.amo_u64(va, |old| old), Ok(pa));
        if va == KERNEL {
            self.world.set(|regime| regime.sum = false);
            assert_eq!(self.world.mmu.load_u64(va), Ok(pa));
        } else {
            self.world.set(|regime| regime.privilege = User);
            assert_eq!(self.world.mmu.load_u64(va), Ok(pa));
        }
        let mmu = &mut self.world.mmu;
        let fetched = match mmu.exec_lookup(va) {
            Some(payload) => payload,
            None => {
                let fetch = mmu.fetch(va).unwrap();
                mmu.exec_insert(va, &fetch, fetch.pa);
                fetch.pa
            }
        };
        assert_eq!(fetched, pa);
        pa
    }

    /// What is seen, after everything was mapped anew and this fence: the six of (asid, page) that see the new page.
    fn after(mut self, fence: impl FnOnce(&mut Mmu)) -> Vec<(u64, u64)> {
        self.map(NEW);
        fence(&mut self.world.mmu);
        let all = [(1, VA), (1, OTHER), (1, KERNEL), (2, VA), (2, OTHER), (2, KERNEL)];
        all.into_iter().filter(|&(asid, va)| self.sees(asid, va) == NEW).collect()
    }
}

#[test]
fn without_a_fence_old_translations_stay() {
    assert_eq!(Warm::new().after(|_| ()), []);
}

#[test]
fn a_page_of_one_address_space() {
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(VA + 0x123), Some(2))), [(2, VA)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(OTHER), Some(1))), [(1, OTHER)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(OTHER), Some(3))), []);
}

#[test]
fn a_global_page_is_not_of_an_address_space() {
    // The first level forgets it, the second still knows.
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(KERNEL), Some(1))), []);
}

#[test]
fn a_page_of_all() {
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(VA), None)), [(1, VA), (2, VA)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(Some(KERNEL), None)), [(1, KERNEL), (2, KERNEL)]);
}

#[test]
fn an_address_space() {
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(None, Some(1))), [(1, VA), (1, OTHER)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(None, Some(2))), [(2, VA), (2, OTHER)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(None, Some(0))), []);
}

#[test]
fn everything() {
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_vma(None, None)).len(), 6);
}

#[test]
fn ranges() {
    let all_pages_of = |asid| [(asid, VA), (asid, OTHER)];
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(VA + 0xfff, 2, Some(1))), [(1, VA)]);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(VA - 1, 1, Some(1))), []);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(VA - 0x1000, 0x12000, Some(1))), all_pages_of(1));
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(0, 0, Some(1))), all_pages_of(1));
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(VA, u64::MAX, Some(2))), all_pages_of(2));
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(VA, 1 << 30, Some(2))), all_pages_of(2));
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(0, 0, None)).len(), 6);
    assert_eq!(Warm::new().after(|mmu| mmu.sfence_range(u64::MAX, u64::MAX - 1, None)).len(), 6);
}

#[test]
fn a_superpage_is_flushed_by_any_address_in_it() {
    for level in [1, 2] {
        let size = PAGE_SIZE << (9 * level);
        let va = 5 << 30;
        let mut world = World::new();
        world.put(RAM + 0x3000, 1);
        let table = world.tables.table();
        world.tables.write(table + 3 * 8, leaf(NEW, ALL));
        world.put(NEW, 2);
        let place = world.tables.place(world.root, SatpMode::Sv39, va, level);
        world.tables.write(place, leaf(RAM, ALL));
        assert_eq!(world.mmu.load_u64(va + 0x3000), Ok(1));
        world.tables.write(place, 0);
        assert_eq!(world.mmu.load_u64(va + 0x3000), Ok(1));
        world.mmu.sfence_vma(Some(va + size - 0x1000), Some(1));
        assert!(world.mmu.load_u64(va + 0x3000).is_err());
    }
}

#[test]
fn large_pages_are_walked_once() {
    let mut world = World::new();
    let place = world.tables.place(world.root, SatpMode::Sv39, 0, 1);
    world.tables.write(place, leaf(RAM, ALL));
    (0..512).for_each(|page| assert!(world.mmu.load_u8(page << 12).is_ok()));
    assert_eq!((world.mmu.stats().walks, world.mmu.stats().l2_hits), (1, 511));
}

#[test]
fn a_fetch_from_before_a_fence_is_not_entered() {
    let mut world = World::new();
    world.map(VA, OLD, ALL);
    let fetch = world.mmu.fetch(VA).unwrap();
    world.mmu.sfence_vma(Some(VA), None);
    world.mmu.exec_insert(VA, &fetch, 1);
    assert_eq!(world.mmu.exec_lookup(VA), None);
}

#[test]
fn new_mappings_and_permissions_need_no_fence() {
    let mut world = World::new();
    assert!(world.mmu.load_u8(VA).is_err());
    world.map(VA, OLD, V | R | A);
    assert!(world.mmu.load_u8(VA).is_ok() && world.mmu.store_u8(VA, 0).is_err());
    world.map(VA, OLD, V | R | W | A | D);
    assert!(world.mmu.store_u8(VA, 0).is_ok() && world.mmu.fetch(VA).is_err());
    world.map(VA, OLD, V | R | W | X | A | D);
    assert!(world.mmu.fetch(VA).is_ok());
}

#[test]
fn numbers_of_address_spaces_can_run_out() {
    let mut warm = Warm::new();
    for _ in 0..300_000 {
        warm.world.mmu.sfence_vma(None, None);
    }
    assert_eq!(warm.sees(1, VA), OLD);
    warm.map(NEW);
    for _ in 0..300_000 {
        warm.world.mmu.sfence_vma(None, Some(1));
    }
    assert_eq!((warm.sees(1, VA), warm.sees(2, VA)), (NEW, NEW));
}
