//! Harts that share memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const VA: u64 = 0x40_0000;
const PA: u64 = RAM + 0x10_0000;
const ROUNDS: u64 = 20_000;

/// More harts with the same memory and regime.
fn harts(world: &World, count: usize) -> Vec<Mmu> {
    let hart = |_| {
        let mut mmu = Mmu::new(world.memory.clone(), world.device.clone(), CONFIG);
        mmu.open_pmp();
        mmu.set_regime(&world.regime);
        mmu
    };
    (0..count).map(hart).collect()
}

/// Runs `body` on four harts at once.
fn on_four_harts(world: &World, body: impl Fn(&mut Mmu) + Sync) {
    thread::scope(|scope| {
        for mut mmu in harts(world, 4) {
            let body = &body;
            scope.spawn(move || body(&mut mmu));
        }
    });
}

#[test]
fn amos_lose_no_update() {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    on_four_harts(&world, |mmu| {
        for _ in 0..ROUNDS {
            mmu.amo_u64(VA, |old| old + 1).unwrap();
            mmu.amo_u32(VA + 8, |old| old + 1).unwrap();
            mmu.amo_u16(VA + 12, |old| old.wrapping_add(1)).unwrap();
            mmu.amo_u8(VA + 14, |old| old.wrapping_add(1)).unwrap();
        }
    });
    let sum = 4 * ROUNDS;
    assert_eq!(world.get(PA), sum);
    assert_eq!(world.get(PA + 8), sum | (sum & 0xffff) << 32 | (sum & 0xff) << 48);
}

#[test]
fn reservations_lose_no_update() {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    on_four_harts(&world, |mmu| {
        for _ in 0..ROUNDS {
            loop {
                let reserved = mmu.load_reserved_u64(VA).unwrap();
                if mmu.store_conditional_u64(VA, reserved, reserved.value + 1).unwrap() {
                    break;
                }
            }
        }
    });
    assert_eq!(world.get(PA), 4 * ROUNDS);
}

#[test]
fn wide_compare_exchange_loses_no_update() {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    on_four_harts(&world, |mmu| {
        let mut expected = 0;
        for _ in 0..ROUNDS {
            loop {
                // Both halves count, so a torn pair would show.
                let new = expected + (1 | 1 << 64);
                let old = mmu.compare_exchange_u128(VA, expected, new).unwrap();
                assert_eq!(old as u64, (old >> 64) as u64);
                if std::mem::replace(&mut expected, old) == old {
                    break;
                }
            }
        }
    });
    assert_eq!((world.get(PA), world.get(PA + 8)), (4 * ROUNDS, 4 * ROUNDS));
}

#[test]
fn aligned_stores_are_not_torn() {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    on_four_harts(&world, |mmu| {
        for round in 0..ROUNDS {
            mmu.store_u64(VA, round << 32 | round).unwrap();
            let value = mmu.load_u64(VA).unwrap();
            assert_eq!(value >> 32, value & 0xffff_ffff);
        }
    });
}

#[test]
fn a_and_d_never_overwrite_what_another_hart_stores() {
    let mut world = World::new();
    world.set(|regime| regime.adue = true);
    let place = world.tables.place(world.root, SatpMode::Sv39, VA, 0);
    let entry = |round: u64| leaf(PA + ((round % 4) << 12), V | R | W | (round & 3) << 8);
    world.tables.write(place, entry(0));
    let stop = AtomicBool::new(false);
    let [mut user, mut kernel]: [Mmu; 2] = harts(&world, 2).try_into().ok().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                user.sfence_vma(Some(VA), Some(1));
                user.load_u8(VA).unwrap();
                user.store_u8(VA, 1).unwrap();
            }
        });
        let mut regime = world.regime;
        regime.privilege = Privilege::Machine;
        kernel.set_regime(&regime);
        for round in 1..=10 * ROUNDS {
            let old = kernel.amo_u64(place, |_| entry(round)).unwrap();
            assert_eq!(old & !(A | D), entry(round - 1));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
