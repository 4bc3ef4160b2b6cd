//! The memory map of the board, which is QEMU's `virt`: the one place that knows an address.
//!
//! ```text
//!   0x0000_1000  reset ROM            60 KiB  first instructions of every hart
//!   0x0010_0000  test finisher         4 KiB  poweroff, reset, exit code
//!   0x0010_1000  goldfish RTC          4 KiB  PLIC 11
//!   0x0200_0000  CLINT                64 KiB  MSIP and MTIP of every hart
//!   0x0c00_0000  PLIC                  6 MiB  MEIP and SEIP of every hart
//!   0x1000_0000  UART0               256 B    PLIC 10
//!   0x1000_1000  virtio-mmio 0..7    8 x 4 KiB  PLIC 1..8
//!   0x1010_0000  fw_cfg             24 B    what firmware asks for
//!   0x2000_0000  flash 0, 1      2 x 32 MiB  code, and what it remembers (only with --uefi)
//!   0x8000_0000  RAM                          size -m
//! ```

use crate::bus::{Phandles, Placement};

/// What stands at a row of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The ROM in which every hart starts.
    ResetRom,
    /// SiFive's test finisher.
    Test,
    /// The goldfish real-time clock.
    Rtc,
    /// Software and timer interrupts.
    Clint,
    /// External interrupts.
    Plic,
    /// The 16550A serial port.
    Uart0,
    /// One of the eight virtio-mmio transports.
    Virtio,
    /// QEMU's firmware configuration device.
    FwCfg,
    /// The two banks of NOR flash.
    Flash,
    /// Main memory.
    Ram,
}

/// One row of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is.
    pub kind: Kind,
    /// First physical address (of the first, if there are several).
    pub base: u64,
    /// Bytes that the device tree announces, and the distance to the next of the same kind. 0: depends on `-m`.
    pub size: u64,
    /// Bytes that answer; an access beyond them faults.
    pub window: u64,
    /// How many stand side by side.
    pub count: u32,
    /// PLIC source (of the first), or 0 for none.
    pub irq: u32,
}

const fn row(kind: Kind, base: u64, size: u64, window: u64, count: u32, irq: u32) -> Region {
    Region { kind, base, size, window, count, irq }
}

/// The map, by rising address. `size` is what QEMU's device tree announces, `window` what its bus answers.
#[rustfmt::skip]
pub const MAP: [Region; 10] = [
    //  kind             base          size         window       count  irq
    row(Kind::ResetRom,  0x0000_1000,  0xf000,      0xf000,      1,     0),
    row(Kind::Test,      0x0010_0000,  0x1000,      0x1000,      1,     0),
    row(Kind::Rtc,       0x0010_1000,  0x1000,      0x24,        1,     11),
    row(Kind::Clint,     0x0200_0000,  0x1_0000,    0xc000,      1,     0),
    row(Kind::Plic,      0x0c00_0000,  0x60_0000,   0x60_0000,   1,     0),
    row(Kind::Uart0,     0x1000_0000,  0x100,       8,           1,     10),
    row(Kind::Virtio,    0x1000_1000,  0x1000,      0x200,       8,     1),
    row(Kind::FwCfg,     0x1010_0000,  0x18,        0x18,        1,     0),
    row(Kind::Flash,     0x2000_0000,  0x200_0000,  0x200_0000,  2,     0),
    row(Kind::Ram,       0x8000_0000,  0,           0,           1,     0),
];

/// The row of `kind`.
pub const fn region(kind: Kind) -> &'static Region {
    const ROWS: &[Region] = &MAP;
    let mut index = 0;
    while index < ROWS.len() {
        if ROWS[index].kind as u8 == kind as u8 {
            return &ROWS[index];
        }
        index += 1;
    }
    // Evaluated for constant kinds; a test covers every kind.
    panic!("every kind has a row")
}

/// Start of main memory.
pub const RAM_BASE: u64 = region(Kind::Ram).base;

/// Start of the reset ROM, where every hart begins.
pub const RESET_ROM_BASE: u64 = region(Kind::ResetRom).base;

/// Bytes in the reset ROM.
pub const RESET_ROM_SIZE: u64 = region(Kind::ResetRom).size;

/// How many virtio-mmio transports there are.
pub const VIRTIO_SLOTS: u32 = region(Kind::Virtio).count;

/// Where the `index`-th device of `kind` stands.
pub fn place(kind: Kind, index: u32, phandles: &Phandles) -> Placement {
    let region = region(kind);
    debug_assert!(index < region.count);
    Placement {
        kind,
        base: region.base + u64::from(index) * region.size,
        size: region.size,
        window: region.window,
        irq: (region.irq != 0).then_some(region.irq + index),
        phandles: phandles.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_do_not_overlap() {
        for pair in MAP.windows(2) {
            assert!(pair[0].base + pair[0].size * u64::from(pair[0].count) <= pair[1].base, "{pair:?}");
        }
    }

    #[test]
    fn interrupts_are_plic_sources_and_used_once() {
        let mut seen = std::collections::HashSet::new();
        for region in MAP.iter().filter(|region| region.irq != 0) {
            for irq in region.irq..region.irq + region.count {
                assert!((irq as usize) < crate::devices::plic::SOURCES);
                assert!(seen.insert(irq), "{irq} is used twice");
            }
        }
    }

    #[test]
    fn every_kind_has_a_row() {
        use Kind::*;
        for kind in [ResetRom, Test, Rtc, Clint, Plic, Uart0, Virtio, FwCfg, Flash, Ram] {
            assert_eq!(region(kind).kind, kind);
        }
    }

    #[test]
    fn numbered_devices_stand_side_by_side() {
        let place = place(Kind::Virtio, 7, &Phandles::new(1));
        assert_eq!((place.base, place.size, place.window, place.irq), (0x1000_8000, 0x1000, 0x200, Some(8)));
    }
}
