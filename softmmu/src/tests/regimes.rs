//! What a change of regime makes visible, with nothing flushed.

use super::*;
use crate::cause::*;
use Privilege::{Machine, Supervisor, User};

const VA: u64 = 0x40_0000;
const PA: u64 = RAM + 0x10_0000;

#[test]
fn sum_is_obeyed_with_warm_contexts() {
    let mut world = World::new();
    world.map(VA, PA, ALL | U);
    world.put(PA, 42);
    for _ in 0..3 {
        world.set(|regime| regime.sum = true);
        assert_eq!(world.mmu.load_u64(VA), Ok(42));
        assert_eq!(world.mmu.fetch(VA), trap(INSTRUCTION_PAGE_FAULT, VA));
        world.set(|regime| regime.sum = false);
        assert_eq!(world.mmu.load_u64(VA), trap(LOAD_PAGE_FAULT, VA));
        assert_eq!(world.mmu.store_u64(VA, 1), trap(STORE_PAGE_FAULT, VA));
        world.set(|regime| regime.privilege = User);
        assert_eq!(world.mmu.load_u64(VA), Ok(42));
        world.set(|regime| regime.privilege = Supervisor);
    }
}

#[test]
fn mxr_is_obeyed_with_warm_contexts() {
    let mut world = World::new();
    world.map(VA, PA, V | X | A);
    world.put(PA, 42);
    for _ in 0..3 {
        world.set(|regime| regime.mxr = true);
        assert_eq!(world.mmu.load_u64(VA), Ok(42));
        world.set(|regime| regime.mxr = false);
        assert_eq!(world.mmu.load_u64(VA), trap(LOAD_PAGE_FAULT, VA));
    }
}

#[test]
fn mprv_lends_machine_mode_the_data_side_of_another() {
    let mut world = World::new();
    world.map(VA, PA, ALL | U);
    world.put(PA, 42);
    world.set(|regime| regime.privilege = Machine);
    for _ in 0..3 {
        assert_eq!(world.mmu.load_u64(PA), Ok(42));
        assert_eq!(world.mmu.load_u64(VA), trap(LOAD_ACCESS_FAULT, VA));
        world.set(|regime| regime.mprv_privilege = Some(User));
        assert_eq!(world.mmu.load_u64(VA), Ok(42));
        assert_eq!(world.mmu.load_u64(PA), trap(LOAD_PAGE_FAULT, PA));
        assert_eq!(world.mmu.fetch(PA).unwrap().pa, PA);
        world.set(|regime| regime.mprv_privilege = Some(Supervisor));
        assert_eq!(world.mmu.load_u64(VA), trap(LOAD_PAGE_FAULT, VA));
        world.set(|regime| regime.sum = true);
        assert_eq!(world.mmu.load_u64(VA), Ok(42));
        world.set(|regime| (regime.sum, regime.mprv_privilege) = (false, Some(Machine)));
        assert_eq!(world.mmu.load_u64(PA), Ok(42));
        world.set(|regime| regime.mprv_privilege = None);
    }
}

#[test]
fn mprv_is_subject_to_pmp_as_the_mode_it_takes() {
    let mut world = World::new();
    world.set(|regime| (regime.privilege, regime.satp) = (Machine, 0));
    world.mmu.reset_pmp();
    assert_eq!(world.mmu.load_u64(PA), Ok(0));
    world.set(|regime| regime.mprv_privilege = Some(User));
    assert_eq!(world.mmu.load_u64(PA), trap(LOAD_ACCESS_FAULT, PA));
    assert!(world.mmu.fetch(PA).is_ok());
    world.set(|regime| (regime.privilege, regime.mprv_privilege) = (Supervisor, None));
    assert_eq!(world.mmu.load_u64(PA), trap(LOAD_ACCESS_FAULT, PA));
    assert_eq!(world.mmu.fetch(PA), trap(INSTRUCTION_ACCESS_FAULT, PA));
    world.mmu.open_pmp();
    assert_eq!(world.mmu.load_u64(PA), Ok(0));
}

#[test]
fn bare_and_back_needs_no_fence() {
    let mut world = World::new();
    world.map(PA, PA + 0x1000, ALL);
    world.put(PA, 1);
    world.put(PA + 0x1000, 2);
    let paged = world.regime.satp;
    for _ in 0..3 {
        assert_eq!(world.mmu.load_u64(PA), Ok(2));
        world.set(|regime| regime.satp = 0);
        assert_eq!(world.mmu.load_u64(PA), Ok(1));
        world.set(|regime| regime.satp = paged);
    }
}

#[test]
fn address_spaces_are_apart() {
    let mut world = World::new();
    let other = world.tables.table();
    world.map(VA, PA, ALL | U);
    world.tables.map(other, SatpMode::Sv39, VA, 0, leaf(PA + 0x1000, ALL | U));
    world.put(PA, 1);
    world.put(PA + 0x1000, 2);
    let (first, second) = (world.regime.satp, satp(SatpMode::Sv39, 2, other));
    for privilege in [User, Supervisor, User, Supervisor] {
        world.set(|regime| (regime.privilege, regime.sum, regime.satp) = (privilege, true, first));
        assert_eq!(world.mmu.load_u64(VA), Ok(1));
        world.set(|regime| regime.satp = second);
        assert_eq!(world.mmu.load_u64(VA), Ok(2));
    }
    // Each was walked once; after that, U- and S-mode found it in the second level.
    assert_eq!(world.mmu.stats().walks, 2);
}

#[test]
fn another_root_under_the_same_asid_is_seen_without_a_fence() {
    let mut world = World::new();
    let other = world.tables.table();
    world.map(VA, PA, ALL);
    world.tables.map(other, SatpMode::Sv39, VA, 0, leaf(PA + 0x1000, ALL));
    world.put(PA + 0x1000, 2);
    assert_eq!(world.mmu.load_u64(VA), Ok(0));
    world.set(|regime| regime.satp = satp(SatpMode::Sv39, 1, other));
    assert_eq!(world.mmu.load_u64(VA), Ok(2));
}

#[test]
fn other_schemes_are_seen_without_a_fence() {
    let mut world = World::new();
    world.map(VA, PA, ALL | G);
    assert_eq!(world.mmu.load_u64(VA), Ok(0));
    for mode in [SatpMode::Sv48, SatpMode::Sv57, SatpMode::Sv39] {
        let root = world.tables.table();
        let pa = PA + 0x1000 * mode as u64;
        world.put(pa, mode as u64);
        world.tables.map(root, mode, VA, 0, leaf(pa, ALL | G));
        world.set(|regime| regime.satp = satp(mode, 1, root));
        assert_eq!(world.mmu.load_u64(VA), Ok(mode as u64));
    }
}

#[test]
fn modes_that_are_not_there_are_bare() {
    let memory = GuestMemory::new(RAM, RAM_SIZE).unwrap();
    let config = MmuConfig { max_mode: SatpMode::Sv39, ..CONFIG };
    let mut world = World::new();
    world.mmu = Mmu::new(memory.clone(), world.device.clone(), config);
    world.mmu.open_pmp();
    memory.write(RAM, &[5]).unwrap();
    world.set(|regime| regime.satp = satp(SatpMode::Sv48, 1, RAM));
    assert_eq!(world.mmu.load_u8(RAM), Ok(5));
}

#[test]
fn envcfg_takes_effect_at_once() {
    let mut world = World::new();
    world.map(VA, PA, V | R | 1 << 61);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_PAGE_FAULT, VA));
    world.set(|regime| regime.pbmte = true);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_PAGE_FAULT, VA));
    world.set(|regime| regime.adue = true);
    assert_eq!(world.mmu.load_u8(VA), Ok(0));
    world.set(|regime| regime.pbmte = false);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_PAGE_FAULT, VA));
}

#[test]
fn the_first_store_sets_d_although_the_page_is_cached() {
    let mut world = World::new();
    world.set(|regime| regime.adue = true);
    world.map(VA, PA, V | R | W);
    let place = world.tables.place(world.root, SatpMode::Sv39, VA, 0);
    assert_eq!(world.mmu.load_u8(VA), Ok(0));
    assert_eq!(world.get(place), leaf(PA, V | R | W | A));
    world.mmu.store_u8(VA, 1).unwrap();
    assert_eq!(world.get(place), leaf(PA, V | R | W | A | D));
}

#[test]
fn svade_faults_on_the_first_store() {
    let mut world = World::new();
    world.map(VA, PA, V | R | W | A);
    assert_eq!(world.mmu.load_u8(VA), Ok(0));
    assert_eq!(world.mmu.store_u8(VA, 1), trap(STORE_PAGE_FAULT, VA));
    world.map(VA, PA, V | R | W | A | D);
    assert_eq!(world.mmu.store_u8(VA, 1), Ok(()));
}

#[test]
fn code_is_kept_by_regime() {
    let mut world = World::new();
    let other = world.tables.table();
    world.map(VA, PA, ALL | U);
    world.tables.map(other, SatpMode::Sv39, VA, 0, leaf(PA, ALL | U));
    world.set(|regime| regime.privilege = User);
    let code = world.mmu.fetch(VA).unwrap();
    world.mmu.exec_insert(VA, &code, 7);
    assert_eq!(world.mmu.exec_lookup(VA), Some(7));
    let first = world.regime.satp;
    world.set(|regime| regime.satp = satp(SatpMode::Sv39, 2, other));
    assert_eq!(world.mmu.exec_lookup(VA), None);
    world.mmu.exec_insert(VA, &code, 8);
    assert_eq!(world.mmu.exec_lookup(VA), None);
    world.set(|regime| regime.satp = first);
    assert_eq!(world.mmu.exec_lookup(VA), Some(7));
    world.set(|regime| regime.privilege = Supervisor);
    assert_eq!(world.mmu.exec_lookup(VA), None);
    world.mmu.exec_clear_all();
    world.set(|regime| regime.privilege = User);
    assert_eq!(world.mmu.exec_lookup(VA), None);
}

#[test]
fn the_code_epoch_counts_what_concerns_fetches() {
    let mut world = World::new();
    let mut last = world.mmu.code_epoch();
    let mut counted = |world: &World| std::mem::replace(&mut last, world.mmu.code_epoch()) != last;
    world.map(0x40_0000, RAM, ALL);
    world.mmu.store_u8(0x40_0000, 1).unwrap();
    world.set(|regime| regime.sum = true);
    world.set(|regime| regime.mxr = true);
    world.set(|regime| regime.mprv_privilege = Some(Privilege::User));
    world.set(|_| {});
    assert!(!counted(&world));
    let changes: [fn(&mut Regime); 4] = [
        |regime| regime.privilege = Privilege::Machine,
        |regime| regime.satp ^= 1,
        |regime| regime.adue = true,
        |regime| regime.pbmte = true,
    ];
    for change in changes {
        world.set(change);
        assert!(counted(&world));
    }
    let flushes: [fn(&mut Mmu); 7] = [
        |mmu| mmu.sfence_vma(None, None),
        |mmu| mmu.sfence_vma(Some(0), None),
        |mmu| mmu.sfence_range(0, 0x2000, Some(77)),
        |mmu| mmu.write_pmp_cfg(0, 0),
        |mmu| mmu.write_pmp_addr(0, 0),
        |mmu| mmu.open_pmp(),
        |mmu| mmu.reset_pmp(),
    ];
    for flush in flushes {
        flush(&mut world.mmu);
        assert!(counted(&world));
    }
}

#[test]
fn tables_stay_where_they_are() {
    let mut world = World::new();
    let supervisor = std::ptr::from_ref(world.mmu.context());
    world.set(|regime| regime.privilege = Privilege::User);
    assert!(!std::ptr::eq(supervisor, world.mmu.context()));
    world.mmu.sfence_vma(None, None);
    world.set(|regime| regime.privilege = Privilege::Supervisor);
    assert!(std::ptr::eq(supervisor, world.mmu.context()));
}

#[test]
fn code_across_the_edge_needs_two_valid_fetches() {
    let mut world = World::new();
    let va = 0x40_0ffe;
    world.map(0x40_0000, RAM, ALL);
    world.map(0x40_1000, RAM + 0x5000, ALL);
    let fetch = |mmu: &mut Mmu| (mmu.fetch(va).unwrap(), mmu.fetch(va + 2).unwrap());
    let (first, second) = fetch(&mut world.mmu);
    world.mmu.exec_insert_crossing(va - 2, &first, &second, 1);
    assert_eq!(world.mmu.exec_lookup(va - 2), None);
    world.mmu.exec_insert_crossing(va, &first, &second, 1);
    assert_eq!(world.mmu.exec_lookup(va), Some(1));
    world.mmu.sfence_vma(Some(0x40_1000), Some(1));
    assert_eq!(world.mmu.exec_lookup(va), None);
    let fresh = fetch(&mut world.mmu);
    for (first, second) in [(&first, &fresh.1), (&fresh.0, &second)] {
        world.mmu.exec_insert_crossing(va, first, second, 2);
        assert_eq!(world.mmu.exec_lookup(va), None);
    }
    world.mmu.exec_insert_crossing(va, &fresh.0, &fresh.1, 3);
    assert_eq!(world.mmu.exec_lookup(va), Some(3));
    // PMP divides the second page.
    world.mmu.reset_pmp();
    world.mmu.write_pmp_addr(0, (RAM + 0x5800) >> 2 | 0xff);
    world.mmu.write_pmp_addr(1, u64::MAX);
    world.mmu.write_pmp_cfg(0, 0x1f18);
    let (first, second) = fetch(&mut world.mmu);
    assert!(first.whole_page && !second.whole_page);
    world.mmu.exec_insert_crossing(va, &first, &second, 4);
    assert_eq!(world.mmu.exec_lookup(va), None);
}
