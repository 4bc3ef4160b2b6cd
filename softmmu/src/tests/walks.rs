//! The walk, step by step. Each row is a page table entry, an access, and what becomes of it.

use super::*;
use crate::walk::{Leaf, PageTables, Rules};
use crate::{Access, Fault};
use Access::{Fetch, Load, Store};
use Privilege::{Supervisor, User};

const N: u64 = pte::N;
const VA: u64 = 0x12_3456_7abc;
const PA: u64 = RAM + 0x5000;

const RULES: Rules = Rules {
    mode: SatpMode::Sv39,
    root: TABLES,
    privilege: Supervisor,
    sum: false,
    mxr: false,
    svadu: false,
    svpbmt: true,
    svnapot: true,
};

struct Memory<'a> {
    tables: &'a Tables,
    /// The places read.
    reads: Vec<u64>,
    /// What another hart stores into the entry just before it is updated.
    race: Option<u64>,
    read_only: bool,
}

impl<'a> Memory<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, reads: Vec::new(), race: None, read_only: false }
    }
}

impl PageTables for Memory<'_> {
    fn read(&mut self, pa: u64) -> Result<u64, AccessFault> {
        self.reads.push(pa);
        self.tables.memory.is_ram(pa, 8).then(|| self.tables.read(pa)).ok_or(AccessFault)
    }

    fn update(&mut self, pa: u64, old: u64, new: u64) -> Result<bool, AccessFault> {
        if self.read_only {
            return Err(AccessFault);
        }
        if let Some(entry) = self.race.take() {
            self.tables.write(pa, entry);
        }
        let matches = self.tables.read(pa) == old;
        if matches {
            self.tables.write(pa, new);
        }
        Ok(matches)
    }
}

/// A page table of `mode` with `entry` for `va` at `level`, and where the entry is.
fn table(mode: SatpMode, va: u64, level: u32, entry: u64) -> (Tables, u64) {
    let mut tables = Tables::new(&GuestMemory::new(RAM, RAM_SIZE).unwrap());
    let root = tables.table();
    assert_eq!(root, TABLES);
    let place = tables.place(root, mode, va, level);
    tables.write(place, entry);
    (tables, place)
}

/// Walks `VA`, which `entry` maps at `level`.
fn walk(rules: Rules, level: u32, entry: u64, access: Access) -> Result<u64, Fault> {
    let (tables, _) = table(rules.mode, VA, level, entry);
    rules.walk(VA, access, &mut Memory::new(&tables)).map(|leaf| leaf.translate(VA))
}

#[test]
fn addresses_must_be_canonical() {
    let rows = [
        (SatpMode::Sv39, 0x3f_ffff_ffff, true),
        (SatpMode::Sv39, 0x40_0000_0000, false),
        (SatpMode::Sv39, 0xffff_ffc0_0000_0000, true),
        (SatpMode::Sv39, 0xffff_ffbf_ffff_ffff, false),
        (SatpMode::Sv48, 0x7fff_ffff_ffff, true),
        (SatpMode::Sv48, 0x8000_0000_0000, false),
        (SatpMode::Sv57, 0xff00_0000_0000_0000, true),
        (SatpMode::Sv57, 0xfeff_ffff_ffff_ffff, false),
    ];
    for (mode, va, canonical) in rows {
        let (tables, _) = table(mode, va, 0, leaf(PA, ALL));
        let result = Rules { mode, ..RULES }.walk(va, Load, &mut Memory::new(&tables));
        assert_eq!(result.is_ok(), canonical, "{mode:?} {va:#x}");
    }
}

#[test]
fn steps_1_and_2_read_one_entry_of_each_level() {
    for (mode, levels) in [(SatpMode::Sv39, 3), (SatpMode::Sv48, 4), (SatpMode::Sv57, 5)] {
        for level in 0..levels {
            let size = PAGE_SIZE << (9 * level);
            let (tables, place) = table(mode, VA, level, ALL);
            let mut memory = Memory::new(&tables);
            let leaf = Rules { mode, ..RULES }.walk(VA, Load, &mut memory).unwrap();
            assert_eq!(leaf, Leaf { pte: ALL, level });
            assert_eq!(leaf.translate(VA), VA % size);
            assert_eq!(memory.reads.len() as u32, levels - level);
            assert_eq!(memory.reads[0], TABLES + (VA >> (12 + 9 * (levels - 1)) & 0x1ff) * 8);
            assert_eq!(memory.reads.last(), Some(&place));
        }
    }
}

#[test]
fn step_2_an_entry_that_cannot_be_read_is_an_access_fault() {
    assert_eq!(walk(RULES, 1, pointer(0x4000_0000), Load), Err(Fault::Access));
    assert_eq!(walk(RULES, 2, pointer((1 << 56) - PAGE_SIZE), Fetch), Err(Fault::Access));
}

#[test]
fn step_3_invalid_and_reserved_entries() {
    let page = leaf(PA, ALL);
    let napot = leaf(PA & !0xffff | 0x8000, ALL) | N;
    let none = Rules { svpbmt: false, svnapot: false, ..RULES };
    let ok = Ok(PA | VA & 0xfff);
    let fault = Err(Fault::Page);
    let rows = [
        ("V=0", RULES, 0, page & !V, fault),
        ("W without R", RULES, 0, page & !(R | X), fault),
        ("W and X without R", RULES, 0, page & !R, fault),
        ("bit 54", RULES, 0, page | 1 << 54, fault),
        ("bit 60", RULES, 0, page | 1 << 60, fault),
        ("RSW is software's", RULES, 0, page | 3 << 8, ok),
        ("PBMT NC", RULES, 0, page | 1 << 61, ok),
        ("PBMT IO", RULES, 0, page | 2 << 61, ok),
        ("PBMT 3", RULES, 0, page | 3 << 61, fault),
        ("PBMT without Svpbmt", none, 0, page | 1 << 61, fault),
        ("NAPOT", RULES, 0, napot, Ok(PA & !0xffff | VA & 0xffff)),
        ("NAPOT without Svnapot", none, 0, napot, fault),
        ("NAPOT of 32 KiB", RULES, 0, leaf(PA & !0xffff | 0x4000, ALL) | N, fault),
        ("NAPOT of 128 KiB", RULES, 0, leaf(PA & !0x1ffff | 0x10000, ALL) | N, fault),
        ("NAPOT superpage", RULES, 1, leaf(0x8000, ALL) | N, fault),
        ("pointer with A", RULES, 1, pointer(TABLES) | A, fault),
        ("pointer with D", RULES, 1, pointer(TABLES) | D, fault),
        ("pointer with U", RULES, 1, pointer(TABLES) | U, fault),
        ("pointer with PBMT", RULES, 1, pointer(TABLES) | 1 << 61, fault),
        ("pointer with N", RULES, 1, pointer(TABLES) | N, fault),
    ];
    for (name, rules, level, entry, expected) in rows {
        assert_eq!(walk(rules, level, entry, Load), expected, "{name}");
    }
}

#[test]
fn step_4_a_pointer_at_the_last_level() {
    assert_eq!(walk(RULES, 0, pointer(RAM), Load), Err(Fault::Page));
}

#[test]
fn step_5_misaligned_superpages() {
    let at = |pa| leaf(pa, ALL);
    assert_eq!(walk(RULES, 1, at(RAM + (2 << 20)), Load), Ok(RAM + (2 << 20) + VA % (2 << 20)));
    assert_eq!(walk(RULES, 1, at(RAM + 0x1000), Load), Err(Fault::Page));
    assert_eq!(walk(RULES, 2, at(RAM + (1 << 20)), Load), Err(Fault::Page));
    assert_eq!(walk(RULES, 2, at(RAM + (1 << 29)), Load), Err(Fault::Page));
    assert_eq!(walk(RULES, 2, at(RAM), Load), Ok(RAM + VA % (1 << 30)));
}

#[test]
fn step_6_user_pages() {
    let [s, sum, u] = [(Supervisor, false), (Supervisor, true), (User, false)];
    let rows = [
        (s, 0, Load, true),
        (s, U, Load, false),
        (s, U, Fetch, false),
        (sum, U, Load, true),
        (sum, U, Store, true),
        (sum, U, Fetch, false),
        (sum, 0, Fetch, true),
        (u, U, Fetch, true),
        (u, U, Store, true),
        (u, 0, Load, false),
    ];
    for ((privilege, sum), user, access, allowed) in rows {
        let rules = Rules { privilege, sum, ..RULES };
        let result = walk(rules, 0, leaf(PA, ALL | user), access);
        assert_eq!(result.is_ok(), allowed, "{privilege:?} sum={sum} U={user:#x} {access:?}");
    }
}

#[test]
fn step_8_permissions() {
    let rows = [
        (R, Load, true),
        (R, Store, false),
        (R, Fetch, false),
        (X, Load, false),
        (X, Fetch, true),
        (R | W, Store, true),
        (R | W, Fetch, false),
        (R | X, Load, true),
        (R | X, Fetch, true),
        (R | X, Store, false),
    ];
    for (flags, access, allowed) in rows {
        let result = walk(RULES, 0, leaf(PA, V | A | D | flags), access);
        assert_eq!(result.is_ok(), allowed, "{flags:#x} {access:?}");
    }
    let mxr = Rules { mxr: true, ..RULES };
    assert!(walk(mxr, 0, leaf(PA, V | A | X), Load).is_ok());
    assert!(walk(mxr, 0, leaf(PA, V | A | D | X), Store).is_err());
    assert!(walk(mxr, 0, leaf(PA, V | A | X | U), Load).is_err());
}

#[test]
fn step_9_svade_faults() {
    assert_eq!(walk(RULES, 0, leaf(PA, V | R | W | D), Load), Err(Fault::Page));
    assert_eq!(walk(RULES, 0, leaf(PA, V | R | W | A), Store), Err(Fault::Page));
    assert!(walk(RULES, 0, leaf(PA, V | R | W | A), Load).is_ok());
}

#[test]
fn step_9_svadu_sets_what_the_access_needs() {
    for (access, flags) in [(Load, A), (Fetch, A), (Store, A | D)] {
        let entry = leaf(PA, V | R | W | X);
        let (tables, place) = table(SatpMode::Sv39, VA, 0, entry);
        let leaf = Rules { svadu: true, ..RULES }.walk(VA, access, &mut Memory::new(&tables)).unwrap();
        assert_eq!((leaf.pte, tables.read(place)), (entry | flags, entry | flags));
    }
}

#[test]
fn step_9_nothing_is_set_where_the_access_is_refused() {
    let entry = leaf(PA, V | R);
    let (tables, place) = table(SatpMode::Sv39, VA, 0, entry);
    let result = Rules { svadu: true, ..RULES }.walk(VA, Store, &mut Memory::new(&tables));
    assert_eq!((result, tables.read(place)), (Err(Fault::Page), entry));
}

#[test]
fn step_9_a_table_that_cannot_be_written() {
    let (tables, _) = table(SatpMode::Sv39, VA, 0, leaf(PA, V | R | W));
    let mut memory = Memory { read_only: true, ..Memory::new(&tables) };
    assert_eq!(Rules { svadu: true, ..RULES }.walk(VA, Load, &mut memory), Err(Fault::Access));
}

#[test]
fn step_9_a_lost_race_goes_back_to_step_2() {
    for (race, expected) in [(leaf(PA + 0x1000, V | R), Ok(PA + 0x1000)), (0, Err(Fault::Page))] {
        let (tables, place) = table(SatpMode::Sv39, VA, 0, leaf(PA, V | R));
        let mut memory = Memory { race: Some(race), ..Memory::new(&tables) };
        let result = Rules { svadu: true, ..RULES }.walk(VA, Load, &mut memory);
        assert_eq!(result.map(|leaf| pte::address(leaf.pte)), expected);
        assert_eq!(memory.reads.len(), 4);
        assert_eq!(tables.read(place), if race == 0 { 0 } else { race | A });
    }
}

#[test]
fn step_10_a_pointer_with_g_makes_what_is_below_global() {
    let (mut tables, place) = table(SatpMode::Sv39, VA, 2, 0);
    let below = tables.table();
    tables.write(place, pointer(below) | G);
    tables.map(TABLES, SatpMode::Sv39, VA, 0, leaf(PA, ALL));
    let found = RULES.walk(VA, Load, &mut Memory::new(&tables)).unwrap();
    assert_eq!(found.pte, leaf(PA, ALL | G));
}
