//! Where things are, in physical memory and as programs in S- and U-mode see them.

use crate::harness::RAM;

pub(crate) const PAGE: u64 = 4096;
/// The guest's own trap handler.
pub(crate) const HANDLER: u64 = RAM + 0x8_0000;
/// Nothing is executed here: a run stops when a trap leads here.
pub(crate) const STOP: u64 = RAM + 0x9_0000;
/// What the handler saves, and the log it keeps.
pub(crate) const SAVE: u64 = RAM + 0xa_0000;
pub(crate) const LOG: u64 = SAVE + PAGE;
pub(crate) const LOG_PAGES: u64 = 2;
/// Code, and a second version of it for programs that swap pages.
pub(crate) const CODE: u64 = RAM + 0x10_0000;
pub(crate) const CODE_PAGES: u64 = 4;
pub(crate) const OTHER_CODE: u64 = CODE + 0x1_0000;
/// Data, at the start of a superpage.
pub(crate) const DATA: u64 = RAM + 0x20_0000;
pub(crate) const DATA_PAGES: u64 = 8;
/// Page tables: the root, one of the next level, and three of the last.
pub(crate) const TABLES: u64 = RAM + 0x30_0000;
pub(crate) const TABLE_PAGES: u64 = 5;
/// Past the end of RAM, with nothing there.
pub(crate) const NOWHERE: u64 = RAM + 0x1000_0000;

/// Everything a program can change: start and number of pages.
pub(crate) const WRITABLE: [(u64, u64); 5] = [
    (SAVE, 1 + LOG_PAGES),
    (CODE, CODE_PAGES),
    (OTHER_CODE, CODE_PAGES),
    (DATA, DATA_PAGES + 1),
    (TABLES, TABLE_PAGES),
];

/// Virtual addresses with a table of the last level each, as distances from the start of their gigabyte.
pub(crate) const CODE_VA: u64 = 0;
pub(crate) const DATA_VA: u64 = 0x20_0000;
/// The code again, writable, and the page tables.
pub(crate) const ALIAS_VA: u64 = 0x40_0000;
pub(crate) const TABLES_VA: u64 = ALIAS_VA + 0x1_0000;
/// A superpage of data.
pub(crate) const SUPER_VA: u64 = 0x60_0000;

/// Bits of page-table entries.
pub(crate) mod pte {
    pub(crate) const V: u64 = 1;
    pub(crate) const R: u64 = 2;
    pub(crate) const W: u64 = 4;
    pub(crate) const X: u64 = 8;
    pub(crate) const U: u64 = 16;
    pub(crate) const A: u64 = 64;
    pub(crate) const D: u64 = 128;

    pub(crate) fn leaf(pa: u64, bits: u64) -> u64 {
        pa >> 12 << 10 | bits | V
    }
}
