//! Tests of the MMU as a whole. This file is the machine they run on.

mod accesses;
mod code;
mod flushes;
mod random;
mod regimes;
mod threads;
mod walks;
mod watch;

use std::sync::{Arc, Mutex};

use crate::walk::pte;
use crate::{
    AccessFault, GuestMemory, Mmu, MmuConfig, PAGE_SIZE, PhysBus, Privilege, Regime, Reservation, SatpMode,
    Trap,
};

/// Where RAM begins; 64 MiB, of which the last 16 are for page tables.
const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 64 << 20;
const TABLES: u64 = RAM + (48 << 20);
/// A device: reads give the address, writes are recorded.
const DEVICE: u64 = 0x1000_0000;
const ROM: u64 = 0x1000;

const V: u64 = pte::V;
const R: u64 = pte::R;
const W: u64 = pte::W;
const X: u64 = pte::X;
const U: u64 = pte::U;
const G: u64 = pte::G;
const A: u64 = pte::A;
const D: u64 = pte::D;
/// A page that S-mode may do anything with.
const ALL: u64 = V | R | W | X | A | D;

#[derive(Default)]
struct Device(Mutex<Vec<(u64, u8, u64)>>);

impl PhysBus for Device {
    fn read(&self, pa: u64, width: u8) -> Result<u64, AccessFault> {
        assert!(pa.is_multiple_of(u64::from(width)));
        if (DEVICE..DEVICE + PAGE_SIZE).contains(&pa) {
            Ok(pa & (u64::MAX >> (64 - 8 * width)))
        } else {
            Err(AccessFault)
        }
    }

    fn write(&self, pa: u64, width: u8, value: u64) -> Result<(), AccessFault> {
        if !(DEVICE..DEVICE + PAGE_SIZE).contains(&pa) {
            return Err(AccessFault);
        }
        self.0.lock().unwrap().push((pa, width, value));
        Ok(())
    }
}

/// A page table, and memory to grow it.
struct Tables {
    memory: GuestMemory,
    next: u64,
}

impl Tables {
    fn new(memory: &GuestMemory) -> Self {
        Self { memory: memory.clone(), next: TABLES }
    }

    /// An empty table.
    fn table(&mut self) -> u64 {
        self.next += PAGE_SIZE;
        self.next - PAGE_SIZE
    }

    fn read(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(place, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn write(&self, place: u64, entry: u64) {
        self.memory.write(place, &entry.to_le_bytes()).unwrap();
    }

    /// The place of the entry for `va` at `level`, with all tables on the way.
    fn place(&mut self, root: u64, mode: SatpMode, va: u64, level: u32) -> u64 {
        let mut table = root;
        for i in (level..mode.levels()).rev() {
            let place = table + (va >> (12 + 9 * i) & 0x1ff) * 8;
            if i == level {
                return place;
            }
            if self.read(place) == 0 {
                let next = self.table();
                self.write(place, pointer(next));
            }
            table = pte::address(self.read(place));
        }
        table
    }

    /// Maps a page of `level`.
    fn map(&mut self, root: u64, mode: SatpMode, va: u64, level: u32, entry: u64) {
        let place = self.place(root, mode, va, level);
        self.write(place, entry);
    }
}

fn pointer(table: u64) -> u64 {
    leaf(table, V)
}

fn leaf(pa: u64, flags: u64) -> u64 {
    pa >> 12 << pte::PPN_SHIFT | flags
}

fn satp(mode: SatpMode, asid: u64, root: u64) -> u64 {
    (mode as u64) << 60 | asid << 44 | root >> 12
}

/// A hart's MMU, in S-mode under Sv39 with an empty page table.
struct World {
    mmu: Mmu,
    memory: GuestMemory,
    device: Arc<Device>,
    tables: Tables,
    root: u64,
    regime: Regime,
}

const CONFIG: MmuConfig = MmuConfig { max_mode: SatpMode::Sv57, svadu: true, svpbmt: true, svnapot: true };

impl World {
    fn new() -> Self {
        let mut memory = GuestMemory::new(RAM, RAM_SIZE).unwrap();
        memory.add_rom(ROM, b"read-only memory").unwrap();
        let device = Arc::new(Device::default());
        let mut tables = Tables::new(&memory);
        let root = tables.table();
        let mut mmu = Mmu::new(memory.clone(), device.clone(), CONFIG);
        mmu.open_pmp();
        let regime = Regime {
            satp: satp(SatpMode::Sv39, 1, root),
            privilege: Privilege::Supervisor,
            mprv_privilege: None,
            sum: false,
            mxr: false,
            adue: false,
            pbmte: false,
        };
        mmu.set_regime(&regime);
        Self { mmu, memory, device, tables, root, regime }
    }

    /// Maps a 4 KiB page in the first address space.
    fn map(&mut self, va: u64, pa: u64, flags: u64) {
        self.tables.map(self.root, SatpMode::Sv39, va, 0, leaf(pa, flags));
    }

    /// Changes the regime.
    fn set(&mut self, change: impl FnOnce(&mut Regime)) {
        change(&mut self.regime);
        self.mmu.set_regime(&self.regime);
    }

    fn put(&self, pa: u64, value: u64) {
        self.memory.write(pa, &value.to_le_bytes()).unwrap();
    }

    fn get(&self, pa: u64) -> u64 {
        self.tables.read(pa)
    }
}

fn trap<T>(cause: u64, tval: u64) -> Result<T, Trap> {
    Err(Trap { cause, tval })
}
