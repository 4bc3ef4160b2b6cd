//! The memory map. gdb means virtual addresses by it and refuses what is not in it, so all but the reset ROM is RAM; whether
//! something is there is found out when it is accessed.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::memory_map::MemoryMap;
use softmmu::PAGE_SIZE;

use super::registers::excerpt;
use super::target::Guest;
use crate::board;

impl MemoryMap for Guest {
    fn memory_map_xml(&self, offset: u64, length: usize, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let (rom, after) = (board::RESET_ROM_BASE, board::RESET_ROM_BASE + PAGE_SIZE);
        // No length can say all of 64 bits.
        let half = 1u64 << 63;
        let regions =
            [("ram", 0, rom), ("rom", rom, after - rom), ("ram", after, half - after), ("ram", half, half)];
        let mut xml = String::from(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD GDB Memory Map V1.0//EN\" \
             \"http://sourceware.org/gdb/gdb-memory-map.dtd\">\n<memory-map>\n",
        );
        for (kind, start, length) in regions {
            xml += &format!("<memory type=\"{kind}\" start=\"{start:#x}\" length=\"{length:#x}\"/>\n");
        }
        xml += "</memory-map>\n";
        Ok(excerpt(&xml, offset, length, buf))
    }
}
