//! Watchpoints.

use super::*;
use crate::{WATCHPOINT, Watchpoint, cause};

const VA: u64 = 0x40_0000;

/// Two pages of memory and a page of device registers after them, all of which have been accessed.
fn world() -> World {
    let mut world = World::new();
    world.map(VA, RAM, ALL);
    world.map(VA + PAGE_SIZE, RAM + PAGE_SIZE, ALL);
    world.map(VA + 2 * PAGE_SIZE, DEVICE, ALL);
    for page in 0..2 {
        world.mmu.store_u64(VA + page * PAGE_SIZE, page).unwrap();
    }
    world
}

fn watch(world: &mut World, start: u64, last: u64, loads: bool, stores: bool) {
    world.mmu.set_watchpoints(vec![Watchpoint { start, last, loads, stores }]);
}

fn hit<T>(va: u64) -> Result<T, Trap> {
    trap(WATCHPOINT, va)
}

#[test]
fn watched_stores_are_noticed_and_not_made() {
    let mut world = world();
    watch(&mut world, VA + 8, VA + 15, false, true);
    assert_eq!(world.mmu.store_u64(VA + 8, 7), hit(VA + 8));
    assert_eq!(world.mmu.store_u64(VA + 3, 7), hit(VA + 8));
    assert_eq!(world.mmu.store_u8(VA + 15, 7), hit(VA + 15));
    assert_eq!(world.mmu.amo_u32(VA + 12, |_| 7), hit(VA + 12));
    assert_eq!(world.mmu.zero_block(VA + 63), hit(VA + 8));
    assert_eq!((world.get(RAM), world.get(RAM + 8)), (0, 0));
    // What does not touch the bytes, or does not store, goes on as ever, each time.
    for _ in 0..2 {
        assert_eq!(world.mmu.store_u64(VA, 1), Ok(()));
        assert_eq!(world.mmu.store_u8(VA + 16, 1), Ok(()));
        assert_eq!(world.mmu.load_u64(VA + 8), Ok(0));
        assert_eq!(world.mmu.check_cache_block(VA + 8), Ok(()));
    }
}

#[test]
fn watched_loads_are_noticed_and_stores_are_not() {
    let mut world = world();
    watch(&mut world, VA + 8, VA + 8, true, false);
    assert_eq!(world.mmu.load_u64(VA + 8), hit(VA + 8));
    assert_eq!(world.mmu.load_u16(VA + 7), hit(VA + 8));
    assert_eq!(world.mmu.load_reserved_u64(VA + 8), hit(VA + 8));
    assert_eq!(world.mmu.amo_u64(VA + 8, |old| old), hit(VA + 8));
    assert_eq!(world.mmu.store_u64(VA + 8, 5), Ok(()));
    assert_eq!(world.mmu.load_u32(VA + 9), Ok(0));
    assert_eq!(world.get(RAM + 8), 5);
}

#[test]
fn accesses_across_pages_are_noticed_in_both() {
    let mut world = world();
    let edge = VA + PAGE_SIZE;
    watch(&mut world, edge, edge, true, true);
    assert_eq!(world.mmu.store_u64(edge - 4, 7), hit(edge));
    assert_eq!(world.mmu.load_u64(edge - 1), hit(edge));
    watch(&mut world, edge - 1, edge - 1, true, true);
    assert_eq!(world.mmu.store_u64(edge - 4, 7), hit(edge - 1));
    assert_eq!(world.mmu.load_u32(edge), Ok(1));
    assert_eq!(world.get(RAM + PAGE_SIZE - 8), 0);
}

#[test]
fn device_registers_are_watched_and_faults_come_first() {
    let mut world = world();
    let register = VA + 2 * PAGE_SIZE + 4;
    watch(&mut world, register, register + 3, true, true);
    assert_eq!(world.mmu.store_u32(register, 1), hit(register));
    assert_eq!(world.mmu.load_u32(register), hit(register));
    assert!(world.device.0.lock().unwrap().is_empty());
    let unmapped = VA + 3 * PAGE_SIZE;
    watch(&mut world, unmapped, unmapped + 7, true, true);
    assert_eq!(world.mmu.load_u64(unmapped), trap(cause::LOAD_PAGE_FAULT, unmapped));
    // The last byte of all addresses.
    watch(&mut world, u64::MAX, u64::MAX, true, true);
    world.map(u64::MAX - 0xfff, RAM, ALL);
    assert_eq!(world.mmu.load_u8(u64::MAX), hit(u64::MAX));
    assert_eq!(world.mmu.load_u8(u64::MAX - 1), Ok(0));
}

#[test]
fn watching_can_be_suspended_and_ended() {
    let mut world = world();
    watch(&mut world, VA, VA + 7, true, true);
    assert!(world.mmu.set_watching(false));
    assert_eq!(world.mmu.load_u64(VA), Ok(0));
    assert!(!world.mmu.set_watching(true));
    // The load in between has not made the page known.
    assert_eq!(world.mmu.load_u64(VA), hit(VA));
    world.mmu.set_watchpoints(Vec::new());
    assert_eq!(world.mmu.load_u64(VA), Ok(0));
}
