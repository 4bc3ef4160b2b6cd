//! Loads, stores, atomics and fetches: values, edges, devices, and the traps where they fail.

use super::*;
use crate::cause::*;

const VA: u64 = 0x40_0000;
const PA: u64 = RAM + 0x10_0000;

/// `VA` and the next page, mapped to pages that are not neighbours; nothing behind them.
fn two_pages() -> World {
    let mut world = World::new();
    world.map(VA, PA, ALL);
    world.map(VA + 0x1000, PA + 0x8000, ALL);
    world
}

#[test]
fn every_width_at_every_place() {
    let mut world = two_pages();
    for repeat in 0..2 {
        for offset in [0, 1, 7, 0xff8, 0xff9, 0xffc, 0xffd, 0xffe, 0xfff, 0x1000] {
            let (va, value) = (VA + offset, 0x0123_4567_89ab_cdef_u64.rotate_left(offset as u32 + repeat));
            world.mmu.store_u64(va, value).unwrap();
            assert_eq!(world.mmu.load_u64(va), Ok(value));
            assert_eq!(world.mmu.load_u32(va), Ok(value as u32));
            assert_eq!(world.mmu.load_u16(va), Ok(value as u16));
            assert_eq!(world.mmu.load_u8(va), Ok(value as u8));
            world.mmu.store_u32(va, !0).unwrap();
            assert_eq!(world.mmu.load_u64(va), Ok(value | 0xffff_ffff));
            world.mmu.store_u16(va + 2, 0).unwrap();
            world.mmu.store_u8(va + 7, 0x55).unwrap();
            assert_eq!(
                world.mmu.load_u64(va),
                Ok((value | 0xffff_ffff) & 0x00ff_ffff_0000_ffff | 0x55 << 56)
            );
        }
    }
}

#[test]
fn a_store_across_pages_reaches_both() {
    let mut world = two_pages();
    world.mmu.store_u64(VA + 0xffd, 0x8877_6655_4433_2211).unwrap();
    assert_eq!(world.get(PA + 0xff8), 0x3322_1100_0000_0000);
    assert_eq!(world.get(PA + 0x8000), 0x88_7766_5544);
}

#[test]
fn a_fault_on_the_second_page_names_it_and_stores_nothing() {
    let mut world = two_pages();
    let edge = VA + 0x2000;
    world.mmu.store_u64(edge - 8, 0x1111_1111_1111_1111).unwrap();
    assert_eq!(world.mmu.store_u32(edge - 2, !0), trap(STORE_PAGE_FAULT, edge));
    assert_eq!(world.mmu.load_u64(edge - 8), Ok(0x1111_1111_1111_1111));
    assert_eq!(world.mmu.load_u64(edge - 1), trap(LOAD_PAGE_FAULT, edge));
    assert_eq!(world.mmu.load_u64(VA - 1), trap(LOAD_PAGE_FAULT, VA - 1));
}

#[test]
fn pages_wrap_around_at_the_end_of_the_address_space() {
    let mut world = World::new();
    world.map(!0xfff, PA, ALL);
    world.map(0, PA + 0x1000, ALL);
    world.mmu.store_u64(u64::MAX - 3, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(world.mmu.load_u64(u64::MAX - 3), Ok(0x1122_3344_5566_7788));
    assert_eq!(world.mmu.load_u32(0), Ok(0x1122_3344));
}

#[test]
fn devices_see_aligned_accesses_of_their_width() {
    let mut world = World::new();
    world.map(VA, DEVICE, ALL);
    world.map(VA + 0x1000, PA, ALL);
    assert_eq!(world.mmu.load_u8(VA + 3), Ok(3));
    assert_eq!(world.mmu.load_u32(VA + 8), Ok(DEVICE as u32 + 8));
    world.mmu.store_u16(VA + 6, 0xbeef).unwrap();
    assert_eq!(world.mmu.load_u32(VA + 2), trap(LOAD_ACCESS_FAULT, VA + 2));
    assert_eq!(world.mmu.store_u64(VA + 4, 0), trap(STORE_ACCESS_FAULT, VA + 4));
    assert_eq!(world.mmu.load_u64(VA + 0xffc), trap(LOAD_ACCESS_FAULT, VA + 0xffc));
    assert_eq!(world.mmu.store_u64(VA + 0xffc, 0), trap(STORE_ACCESS_FAULT, VA + 0xffc));
    assert_eq!(*world.device.0.lock().unwrap(), [(DEVICE + 6, 2, 0xbeef)]);
}

#[test]
fn atomics_need_memory() {
    let mut world = World::new();
    world.map(VA, DEVICE, ALL);
    assert_eq!(world.mmu.amo_u32(VA, |_| 0), trap(STORE_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.compare_exchange_u64(VA, 0, 0), trap(STORE_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.compare_exchange_u128(VA, 0, 0), trap(STORE_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.load_reserved_u32(VA), trap(LOAD_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.store_conditional_u32(VA, Reservation::default(), 0), trap(STORE_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.zero_block(VA + 1), trap(STORE_ACCESS_FAULT, VA + 1));
}

#[test]
fn physical_addresses_where_nothing_is() {
    let mut world = World::new();
    world.map(VA, 0x4000_0000, ALL);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.store_u8(VA, 0), trap(STORE_ACCESS_FAULT, VA));
    let code = world.mmu.fetch(VA).unwrap();
    assert_eq!(world.mmu.read_code_u16(code.pa), Err(AccessFault));
    world.set(|regime| regime.privilege = Privilege::Machine);
    assert_eq!(world.mmu.load_u64(1 << 56), trap(LOAD_ACCESS_FAULT, 1 << 56));
    assert_eq!(world.mmu.load_u64(u64::MAX), trap(LOAD_ACCESS_FAULT, u64::MAX));
    assert_eq!(world.mmu.fetch(1 << 63), trap(INSTRUCTION_ACCESS_FAULT, 1 << 63));
    assert_eq!(world.mmu.load_u64(RAM + RAM_SIZE - 4), trap(LOAD_ACCESS_FAULT, RAM + RAM_SIZE));
}

#[test]
fn rom_is_read_and_never_written() {
    let mut world = World::new();
    world.map(VA, ROM, ALL);
    for _ in 0..2 {
        assert_eq!(world.mmu.load_u32(VA), Ok(u32::from_le_bytes(*b"read")));
        assert_eq!(world.mmu.store_u8(VA, 0), trap(STORE_ACCESS_FAULT, VA));
        assert_eq!(world.mmu.amo_u8(VA, |_| 0), trap(STORE_ACCESS_FAULT, VA));
    }
    assert_eq!(world.mmu.read_code_u16(ROM), Ok(u16::from_le_bytes(*b"re")));
}

#[test]
fn amos_return_the_old_value() {
    let mut world = two_pages();
    world.put(PA, 0xffff_ffff_ffff_fff0);
    assert_eq!(world.mmu.amo_u8(VA, |old| old + 1), Ok(0xf0));
    assert_eq!(world.mmu.amo_u16(VA, |old| old + 1), Ok(0xfff1));
    assert_eq!(world.mmu.amo_u32(VA, |old| old + 1), Ok(0xffff_fff2));
    assert_eq!(world.mmu.amo_u64(VA, |old| old.wrapping_add(0x20)), Ok(0xffff_ffff_ffff_fff3));
    assert_eq!(world.get(PA), 0x13);
}

#[test]
fn atomics_must_be_aligned() {
    let mut world = two_pages();
    world.mmu.store_u8(VA, 0).unwrap();
    for va in [VA + 2, VA + 0xffe, 0xdead_0002] {
        assert_eq!(world.mmu.amo_u32(va, |old| old), trap(STORE_MISALIGNED, va));
        assert_eq!(world.mmu.compare_exchange_u64(va, 0, 0), trap(STORE_MISALIGNED, va));
        assert_eq!(world.mmu.compare_exchange_u128(va, 0, 0), trap(STORE_MISALIGNED, va));
        assert_eq!(world.mmu.load_reserved_u32(va), trap(LOAD_MISALIGNED, va));
        assert_eq!(
            world.mmu.store_conditional_u64(va, Reservation::default(), 0),
            trap(STORE_MISALIGNED, va)
        );
    }
    assert_eq!(world.mmu.compare_exchange_u128(VA + 8, 0, 0), trap(STORE_MISALIGNED, VA + 8));
}

#[test]
fn compare_exchange_needs_write_permission_even_if_it_fails() {
    let mut world = two_pages();
    world.map(VA + 0x2000, PA, V | R | A | D);
    assert_eq!(world.mmu.load_u32(VA + 0x2000), Ok(0));
    assert_eq!(world.mmu.compare_exchange_u32(VA + 0x2000, 1, 2), trap(STORE_PAGE_FAULT, VA + 0x2000));
    assert_eq!(world.mmu.compare_exchange_u32(VA, 1, 2), Ok(0));
    assert_eq!(world.mmu.compare_exchange_u32(VA, 0, 2), Ok(0));
    assert_eq!(world.mmu.compare_exchange_u8(VA, 2, 3), Ok(2));
    assert_eq!(world.mmu.compare_exchange_u16(VA, 3, 4), Ok(3));
    assert_eq!(world.mmu.compare_exchange_u128(VA, 4, 5 << 64), Ok(4));
    assert_eq!(world.get(PA + 8), 5);
}

#[test]
fn sc_succeeds_only_where_it_was_reserved() {
    let mut world = two_pages();
    let none = Reservation::default();
    assert_eq!(world.mmu.store_conditional_u64(VA, none, 1), Ok(false));
    let reserved = world.mmu.load_reserved_u64(VA).unwrap();
    assert_eq!((reserved.place & 7, reserved.value), (1, 0));
    assert_eq!(world.mmu.store_conditional_u64(VA, reserved, 1), Ok(true));
    assert_eq!(world.mmu.store_conditional_u64(VA, reserved, 2), Ok(false));
    let reserved = world.mmu.load_reserved_u64(VA).unwrap();
    assert_eq!(world.mmu.store_conditional_u64(VA + 8, reserved, 2), Ok(false));
    assert_eq!(world.mmu.store_conditional_u32(VA, reserved, 2), Ok(false));
    world.put(PA, u64::MAX);
    let reserved = world.mmu.load_reserved_u32(VA).unwrap();
    assert_eq!((reserved.place & 7, reserved.value), (0, 0xffff_ffff));
    assert_eq!(world.mmu.store_conditional_u64(VA, reserved, 2), Ok(false));
    world.put(PA, 9);
    assert_eq!(world.mmu.store_conditional_u32(VA, reserved, 2), Ok(false));
    assert_eq!(world.get(PA), 9);
}

#[test]
fn sc_goes_by_physical_address() {
    let mut world = two_pages();
    world.map(VA + 0x2000, PA, ALL);
    let reserved = world.mmu.load_reserved_u32(VA + 4).unwrap();
    assert_eq!(world.mmu.store_conditional_u32(VA + 0x2004, reserved, 7), Ok(true));
    assert_eq!(world.get(PA), 7 << 32);
}

#[test]
fn sc_without_permission_traps() {
    let mut world = two_pages();
    world.map(VA + 0x2000, PA, V | R | A | D);
    let reserved = world.mmu.load_reserved_u32(VA + 0x2000).unwrap();
    let refused = trap(STORE_PAGE_FAULT, VA + 0x2000);
    assert_eq!(world.mmu.store_conditional_u32(VA + 0x2000, reserved, 1), refused);
    assert_eq!(world.mmu.store_conditional_u32(VA + 0x2000, Reservation::default(), 1), refused);
}

#[test]
fn cache_blocks() {
    let mut world = two_pages();
    world.map(VA + 0x2000, PA, V | R | A);
    world.map(VA + 0x3000, PA, V | X | A);
    world.memory.write(PA, &[0xff; 192]).unwrap();
    world.mmu.zero_block(VA + 0x7f).unwrap();
    let mut bytes = [0; 192];
    world.memory.read(PA, &mut bytes).unwrap();
    assert!(bytes[..64].iter().chain(&bytes[128..]).all(|&byte| byte == 0xff));
    assert!(bytes[64..128].iter().all(|&byte| byte == 0));
    assert_eq!(world.mmu.zero_block(VA + 0x2001), trap(STORE_PAGE_FAULT, VA + 0x2001));
    assert_eq!(world.mmu.check_cache_block(VA + 0x2001), Ok(()));
    assert_eq!(world.mmu.check_cache_block(VA + 0x3001), trap(STORE_PAGE_FAULT, VA + 0x3001));
}

#[test]
fn fetches() {
    let mut world = two_pages();
    world.map(VA + 0x2000, PA, V | R | A);
    let code = world.mmu.fetch(VA + 0x1ffe).unwrap();
    assert_eq!((code.pa, code.whole_page), (PA + 0x8ffe, true));
    assert_eq!(world.mmu.fetch(VA + 0x2000), trap(INSTRUCTION_PAGE_FAULT, VA + 0x2000));
    assert_eq!(world.mmu.fetch(1 << 40), trap(INSTRUCTION_PAGE_FAULT, 1 << 40));
}

#[test]
fn pmp_divides_a_page() {
    let mut world = two_pages();
    // The first 0x800 bytes of the page are closed to S-mode, all else is open.
    world.mmu.reset_pmp();
    world.mmu.write_pmp_addr(0, PA >> 2 | 0xff);
    world.mmu.write_pmp_addr(1, u64::MAX);
    world.mmu.write_pmp_cfg(0, 0x1f18);
    for _ in 0..2 {
        assert_eq!(world.mmu.load_u8(VA + 0x7ff), trap(LOAD_ACCESS_FAULT, VA + 0x7ff));
        assert_eq!(world.mmu.load_u64(VA + 0x800), Ok(0));
        assert_eq!(world.mmu.store_u16(VA + 0x7ff, 0), trap(STORE_ACCESS_FAULT, VA + 0x7ff));
        assert_eq!(world.mmu.amo_u64(VA, |old| old), trap(STORE_ACCESS_FAULT, VA));
        assert_eq!(world.mmu.fetch(VA), trap(INSTRUCTION_ACCESS_FAULT, VA));
        assert!(!world.mmu.fetch(VA + 0x800).unwrap().whole_page);
    }
    let code = world.mmu.fetch(VA + 0x800).unwrap();
    world.mmu.exec_insert(VA + 0x800, &code, 1);
    assert_eq!(world.mmu.exec_lookup(VA + 0x800), None);
    world.set(|regime| regime.privilege = Privilege::Machine);
    assert_eq!(world.mmu.load_u64(PA), Ok(0));
    assert_eq!(world.mmu.load_u64(PA + 0x7fc), trap(LOAD_ACCESS_FAULT, PA + 0x7fc));
}

#[test]
fn pmp_guards_page_tables() {
    let mut world = two_pages();
    let place = world.tables.place(world.root, SatpMode::Sv39, VA, 0);
    world.tables.write(place, leaf(PA, V | R | W));
    world.set(|regime| regime.adue = true);
    world.mmu.reset_pmp();
    world.mmu.write_pmp_addr(0, place >> 2 | 0x1ff);
    world.mmu.write_pmp_addr(1, u64::MAX);
    world.mmu.write_pmp_cfg(0, 0x1f18);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.store_u8(VA, 0), trap(STORE_ACCESS_FAULT, VA));
    assert_eq!(world.mmu.fetch(VA), trap(INSTRUCTION_ACCESS_FAULT, VA));
    // Read-only: A and D cannot be set.
    world.mmu.write_pmp_cfg(0, 0x1f19);
    assert_eq!(world.mmu.load_u8(VA), trap(LOAD_ACCESS_FAULT, VA));
    world.tables.write(place, leaf(PA, V | R | W | A));
    assert_eq!(world.mmu.load_u8(VA), Ok(0));
    assert_eq!(world.mmu.store_u8(VA, 0), trap(STORE_ACCESS_FAULT, VA));
}

#[test]
fn debuggers_see_all_and_change_nothing() {
    let mut world = World::new();
    world.set(|regime| regime.adue = true);
    let place = world.tables.place(world.root, SatpMode::Sv39, VA, 0);
    world.tables.write(place, leaf(PA, V | X | U));
    assert_eq!(world.mmu.translate_debug(VA + 5), Some(PA + 5));
    assert_eq!(world.mmu.translate_debug(VA + 0x1000), None);
    assert_eq!(world.tables.read(place), leaf(PA, V | X | U));
    world.set(|regime| regime.privilege = Privilege::Machine);
    assert_eq!(world.mmu.translate_debug(VA), Some(VA));
}

#[test]
fn a_hidden_rom_is_seen_by_fetches_only() {
    let mut memory = GuestMemory::new(RAM, RAM_SIZE).unwrap();
    memory.add_rom(ROM, &[7; 4096]).unwrap();
    let config = CONFIG;
    let mut mmu = Mmu::new(memory.clone(), Arc::new(Device::default()), config);
    assert_eq!(mmu.load_u8(ROM), Ok(7));
    memory.hide_rom(ROM);
    mmu.notice_hidden_roms();
    // The device has nothing there.
    assert!(mmu.load_u8(ROM).is_err() && mmu.load_u32(ROM + 1).is_err());
    assert_eq!(mmu.read_code_u16(ROM), Ok(0x0707));
    // A store to a device, which may have hidden something, is enough for the hart that made it.
    memory.show_rom(ROM);
    assert_eq!(mmu.load_u8(ROM), Ok(7));
    memory.hide_rom(ROM);
    mmu.store_u32(DEVICE, 0).unwrap();
    assert!(mmu.load_u8(ROM).is_err());
}
