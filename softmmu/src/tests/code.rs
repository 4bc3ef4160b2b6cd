//! Pages with translated code: which changes reach the watcher, and that write tables never hide one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::*;
use crate::{CodeBitmap, CodeWatcher, Ram};

const VA: u64 = 0x40_0000;
const PA: u64 = RAM + 0x10_0000;
/// Where the page after `VA` is.
const NEXT: u64 = PA + 0x8000;

/// Keeps what it is told.
#[derive(Default)]
struct Log(Mutex<Vec<(u64, u64)>>);

impl CodeWatcher for Log {
    fn code_written(&self, pa: u64, length: u64) {
        self.0.lock().unwrap().push((pa, length));
    }
}

impl Log {
    fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// `VA` and the next page, with the first 128 bytes of either watched and filled with ones.
fn watched() -> (World, Arc<Log>) {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    world.map(VA + 0x1000, NEXT, ALL);
    let log = Arc::new(Log::default());
    world.memory.set_code_watcher(log.clone());
    for page in [PA, NEXT] {
        world.memory.write(page, &[0xff; 4096]).unwrap();
        assert!(!world.memory.watch_code(page, 128));
    }
    assert_eq!(log.take(), []);
    (world, log)
}

/// Whether a store to `va` takes the fast path.
fn is_fast(mmu: &Mmu, va: u64) -> bool {
    mmu.contexts.current().writable::<u8>(va).is_some()
}

#[test]
fn every_kind_of_store_reports_what_it_changed() {
    let (mut world, log) = watched();
    let mmu = &mut world.mmu;
    mmu.store_u8(VA + 1, 1).unwrap();
    mmu.store_u16(VA + 2, 1).unwrap();
    mmu.store_u32(VA + 4, 1).unwrap();
    mmu.store_u64(VA + 8, 1).unwrap();
    mmu.store_u32(VA + 0x11, 1).unwrap();
    assert_eq!(log.take(), [(PA + 1, 1), (PA + 2, 2), (PA + 4, 4), (PA + 8, 8), (PA + 0x11, 4)]);
    assert_eq!(mmu.load_u32(VA + 0x11), Ok(1));
    mmu.amo_u16(VA + 0x20, |old| old.wrapping_add(2)).unwrap();
    mmu.amo_u64(VA + 0x28, |_| 7).unwrap();
    assert_eq!(mmu.compare_exchange_u32(VA + 0x30, u32::MAX, 5), Ok(u32::MAX));
    assert_eq!(mmu.compare_exchange_u128(VA + 0x40, u128::MAX, 5), Ok(u128::MAX));
    assert_eq!(log.take(), [(PA + 0x20, 2), (PA + 0x28, 8), (PA + 0x30, 4), (PA + 0x40, 16)]);
    let reserved = mmu.load_reserved_u64(VA + 0x50).unwrap();
    assert_eq!(mmu.store_conditional_u64(VA + 0x50, reserved, 9), Ok(true));
    let reserved = mmu.load_reserved_u32(VA + 0x58).unwrap();
    assert_eq!(mmu.store_conditional_u32(VA + 0x58, reserved, 9), Ok(true));
    assert_eq!(log.take(), [(PA + 0x50, 8), (PA + 0x58, 4)]);
    mmu.zero_block(VA + 0x47).unwrap();
    let reported = log.take();
    assert_eq!(reported.first().map(|first| first.0), Some(PA + 0x40));
    assert!(reported.iter().all(|&(pa, length)| (PA + 0x40..PA + 0x80).contains(&pa) && length == 8));
    assert!(!is_fast(mmu, VA));
}

#[test]
fn a_store_across_the_edge_reports_each_page() {
    let (mut world, log) = watched();
    assert!(!world.memory.watch_code(PA + 0xff0, 16));
    world.mmu.store_u64(VA + 0xffd, 0).unwrap();
    assert_eq!(log.take(), [(PA + 0xffd, 3), (NEXT, 5)]);
    world.mmu.store_u64(VA + 0xffd, 0).unwrap();
    assert_eq!(log.take(), []);
    assert_eq!((world.mmu.load_u64(VA + 0xffd), world.get(NEXT)), (Ok(0), 0xffff_ff00_0000_0000));
}

#[test]
fn what_changes_no_code_reports_nothing() {
    let (mut world, log) = watched();
    let mmu = &mut world.mmu;
    mmu.store_u8(VA, 0xff).unwrap();
    mmu.store_u64(VA + 8, u64::MAX).unwrap();
    mmu.store_u64(VA + 3, u64::MAX).unwrap();
    mmu.amo_u32(VA, |old| old).unwrap();
    mmu.compare_exchange_u32(VA, 1, 2).unwrap();
    mmu.compare_exchange_u64(VA, u64::MAX, u64::MAX).unwrap();
    mmu.compare_exchange_u128(VA, 1, 2).unwrap();
    let reserved = mmu.load_reserved_u32(VA).unwrap();
    assert_eq!(mmu.store_conditional_u32(VA, reserved, u32::MAX), Ok(true));
    assert_eq!(mmu.store_conditional_u64(VA, Reservation::default(), 0), Ok(false));
    mmu.load_u64(VA).unwrap();
    // Other granules of the page.
    mmu.store_u64(VA + 128, 0).unwrap();
    mmu.amo_u64(VA + 4088, |_| 0).unwrap();
    assert_eq!(log.take(), []);
    assert_eq!((world.get(PA + 128), world.get(PA + 4088)), (0, 0));
}

#[test]
fn a_and_d_bits_are_stores_too() {
    let (mut world, log) = watched();
    world.set(|regime| regime.adue = true);
    let place = world.tables.place(world.root, SatpMode::Sv39, VA, 0);
    world.tables.write(place, leaf(PA + 0x1000, V | R | W));
    assert!(!world.memory.watch_code(place, 8));
    world.mmu.load_u8(VA).unwrap();
    world.mmu.store_u8(VA, 0).unwrap();
    assert_eq!(log.take(), [(place, 8), (place, 8)]);
    world.mmu.sfence_vma(None, None);
    world.mmu.store_u8(VA, 0).unwrap();
    assert_eq!(log.take(), []);
}

#[test]
fn device_and_host_writes_report() {
    let (world, log) = watched();
    world.memory.write(PA + 100, &[0; 30]).unwrap();
    assert_eq!(log.take(), [(PA + 100, 30)]);
    world.memory.write(PA + 128, &[0; 256]).unwrap();
    assert_eq!(log.take(), []);
    let ram = world.memory.vm().clone();
    ram.write_obj(5_u32, GuestAddress(PA + 4)).unwrap();
    ram.store(5_u16, GuestAddress(PA + 8), Ordering::Relaxed).unwrap();
    ram.write_slice(&[0; 8], GuestAddress(PA + 0x1000 - 4)).unwrap();
    assert_eq!(log.take(), [(PA + 4, 4), (PA + 8, 2)]);
    assert_eq!(ram.read_obj::<u32>(GuestAddress(PA + 4)).unwrap(), 5);
    // Pages in the middle of a large write, through a slice of a slice.
    let slices = ram.get_slices(GuestAddress(PA - 0x1000), 0x10000, Permissions::Write).unwrap();
    for slice in slices {
        slice.unwrap().subslice(0x800, 0xf000).unwrap().copy_from(&[1_u8; 0xf000]);
    }
    assert_eq!(log.take(), [(PA, 0x1000), (NEXT, 0x1000)]);
}

#[test]
fn memory_of_nobody_has_nobody_to_tell() {
    let ram = Ram::from_ranges(&[(GuestAddress(RAM), 4096)]).unwrap();
    ram.write_obj(1_u64, GuestAddress(RAM)).unwrap();
    assert_eq!(ram.read_obj::<u64>(GuestAddress(RAM)).unwrap(), 1);
    assert_eq!(format!("{:?}", CodeBitmap::default()), "CodeBitmap(None)");
}

#[test]
fn unwatched_pages_are_fast_again() {
    let (mut world, log) = watched();
    world.mmu.store_u8(VA, 0).unwrap();
    assert!(!is_fast(&world.mmu, VA));
    world.memory.unwatch_code(PA);
    log.take();
    world.mmu.store_u8(VA, 1).unwrap();
    assert!(is_fast(&world.mmu, VA) && world.memory.watch_code(PA, 4));
    assert_eq!(log.take(), []);
}

#[test]
fn watching_takes_a_page_out_of_all_write_tables() {
    let (mut world, log) = watched();
    let (page, other) = (PA + 0x2000, PA + 0x3000);
    let flags = V | R | W | X | A | D;
    for (va, pa, flags) in
        [(0x1000, page, flags), (0x5000, page, flags), (0x2000, other, flags), (0x3000, page, flags | U)]
    {
        world.map(va, pa, flags);
    }
    // In S-mode with either SUM, in U-mode and in M-mode; by several addresses in one table.
    for va in [0x1000, 0x5000, 0x2000] {
        world.mmu.store_u8(va, 1).unwrap();
    }
    world.set(|regime| regime.sum = true);
    world.mmu.store_u8(0x3000, 1).unwrap();
    world.set(|regime| regime.privilege = Privilege::User);
    world.mmu.store_u8(0x3000, 1).unwrap();
    world.set(|regime| regime.privilege = Privilege::Machine);
    world.mmu.store_u8(page, 1).unwrap();

    assert!(world.memory.watch_code(page, 4));
    world.mmu.drop_writes(page);
    world.memory.writes_dropped(page);
    let slow = |world: &mut World, va: u64| {
        assert!(!is_fast(&world.mmu, va) && world.mmu.contexts.current().readable::<u8>(va).is_some());
        let new = world.mmu.load_u8(va).unwrap() + 1;
        world.mmu.store_u8(va, new).unwrap();
        assert_eq!(log.take(), [(page, 1)]);
        assert!(!is_fast(&world.mmu, va));
    };
    slow(&mut world, page);
    world.set(|regime| regime.privilege = Privilege::User);
    slow(&mut world, 0x3000);
    world.set(|regime| regime.privilege = Privilege::Supervisor);
    slow(&mut world, 0x3000);
    world.set(|regime| regime.sum = false);
    slow(&mut world, 0x1000);
    slow(&mut world, 0x5000);
    assert!(is_fast(&world.mmu, 0x2000));
    assert!(!world.memory.watch_code(page, 4));
}

#[test]
fn a_watched_page_loses_its_write_entry_at_the_next_fill() {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    world.map(VA + 0x1000, NEXT, ALL);
    world.mmu.store_u8(VA, 1).unwrap();
    world.mmu.store_u8(VA + 0x1000, 1).unwrap();
    assert!(world.memory.watch_code(PA, 4));
    // Before the hart was asked to drop it: a store that goes the slow way on account of the other page.
    world.mmu.store_u64(VA + 0xffd, 0).unwrap();
    assert!(!is_fast(&world.mmu, VA) && is_fast(&world.mmu, VA + 0x1000));
}

#[test]
fn rom_and_devices_are_no_concern_of_the_watch() {
    let (mut world, log) = watched();
    world.set(|regime| regime.privilege = Privilege::Machine);
    assert!(!world.memory.watch_code(ROM, 4) && !world.memory.is_code(ROM));
    world.mmu.drop_writes(ROM);
    world.mmu.drop_writes(DEVICE);
    world.mmu.drop_writes(u64::MAX);
    assert_eq!(world.mmu.store_u8(DEVICE, 1), Ok(()));
    assert_eq!(log.take(), []);
}

/// Counts what it is told.
#[derive(Default)]
struct Count(AtomicU64);

impl CodeWatcher for Count {
    fn code_written(&self, _: u64, _: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waits for another thread, which may need this one's core.
fn spin_until(done: impl Fn() -> bool) {
    for spins in 1_u32.. {
        if done() {
            return;
        }
        if spins.is_multiple_of(1000) {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// One hart stores to a page and another thread watches it, again and again: of every store that comes after the bytes that
/// are read once a watch is complete, the watcher hears.
#[test]
fn no_store_is_missed_between_watch_and_fill() {
    const ROUNDS: u64 = 10_000;
    /// Rounds that there are in any case, and the time after which there are no more than these.
    const FEW: u64 = 100;
    const ENOUGH: Duration = Duration::from_secs(10);

    let mut world = World::new();
    world.map(VA, PA, ALL);
    let count = Arc::new(Count::default());
    world.memory.set_code_watcher(count.clone());
    let (stop, drop_asked) = (AtomicBool::new(false), AtomicBool::new(false));
    let stored = AtomicU64::new(0);
    let World { mut mmu, memory, .. } = world;
    let missed = thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if drop_asked.load(Ordering::Acquire) {
                    mmu.drop_writes(PA);
                    drop_asked.store(false, Ordering::Release);
                }
                if value % 16 == 0 {
                    mmu.sfence_vma(Some(VA), None);
                }
                mmu.store_u64(VA + 64, value).unwrap();
                stored.store(value, Ordering::SeqCst);
            }
        });
        let wait_for = |more: u64| {
            let first = stored.load(Ordering::SeqCst);
            spin_until(|| stored.load(Ordering::SeqCst) >= first + more);
        };
        let round_misses = |round: u64| {
            // Time for the hart to fill its write table, or to be about to.
            wait_for(round % 24);
            if memory.watch_code(PA + 64, 8) {
                drop_asked.store(true, Ordering::Release);
                spin_until(|| !drop_asked.load(Ordering::Acquire));
                memory.writes_dropped(PA);
            }
            // In this order: reports of stores after the one that is read are not among those counted here.
            let before = count.0.load(Ordering::SeqCst);
            let read = memory.readable::<u64>(PA + 64).unwrap().load();
            wait_for(20);
            let last = stored.load(Ordering::SeqCst);
            let reported = count.0.load(Ordering::SeqCst) - before;
            memory.unwatch_code(PA);
            reported < last - read
        };
        // On a single core the threads take turns, and a round takes as long as the host lets each of them run.
        let start = Instant::now();
        let goes_on = |round: &u64| *round < FEW || start.elapsed() < ENOUGH;
        let missed = (0..ROUNDS).take_while(goes_on).find(|&round| round_misses(round));
        stop.store(true, Ordering::Relaxed);
        missed
    });
    assert_eq!(missed, None, "the round in which a store was not reported");
}
