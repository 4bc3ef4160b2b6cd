//! Address translation: the page tables, and what misses the TLBs.

use core::arch::asm;

const VALID: u64 = 1;
const READ_WRITE_EXECUTE: u64 = 0b1110;
const USER: u64 = 1 << 4;
const ACCESSED_DIRTY: u64 = 0b1100_0000;
const KERNEL: u64 = VALID | READ_WRITE_EXECUTE | ACCESSED_DIRTY;
const SV39: u64 = 8 << 60;
const ASID_SHIFT: u32 = 44;

const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
const RAM: u64 = 0x8000_0000;

/// Where memory is mapped again: for user mode, and for supervisor mode so that the two addresses of any code are in one slot
/// of a jump cache.
pub const USER_ALIAS: u64 = 4 * GIB;
const SECOND_ALIAS: u64 = 5 * GIB;
/// Where [`PAGES`] pages of 4 KiB are mapped, one after the other, to memory that nothing else uses.
const SMALL: u64 = 8 * GIB;
/// Where they are mapped again: so far away that the two addresses of a page have one slot in a first-level TLB of any size.
const SMALL_ALIAS: u64 = SMALL + GIB;
const PAGES: u64 = 16;
const SMALL_RAM: u64 = RAM + (32 << 20);

#[repr(C, align(4096))]
struct Table([u64; 512]);

static mut ROOT: Table = Table([0; 512]);
/// The same for a second address space.
static mut OTHER: Table = Table([0; 512]);
static mut MIDDLE: Table = Table([0; 512]);
static mut LEAVES: Table = Table([0; 512]);

fn leaf(pa: u64, flags: u64) -> u64 {
    pa >> 2 | flags
}

fn pointer(table: *const Table) -> u64 {
    (table as u64) >> 2 | VALID
}

fn satp(root: *const Table, asid: u64) -> u64 {
    SV39 | asid << ASID_SHIFT | (root as u64) >> 12
}

/// Fills the page tables and turns them on.
pub fn turn_on() {
    // SAFETY: nobody else has the tables yet; what runs now is mapped at its own address.
    unsafe {
        for root in [&raw mut ROOT, &raw mut OTHER] {
            (*root).0[0] = leaf(0, KERNEL);
            (*root).0[(RAM / GIB) as usize] = leaf(RAM, KERNEL);
            (*root).0[(USER_ALIAS / GIB) as usize] = leaf(RAM, KERNEL | USER);
            (*root).0[(SECOND_ALIAS / GIB) as usize] = leaf(RAM, KERNEL);
            for address in [SMALL, SMALL_ALIAS] {
                (*root).0[(address / GIB) as usize] = pointer(&raw const MIDDLE);
            }
        }
        let (middle, leaves) = (&raw mut MIDDLE, &raw mut LEAVES);
        (*middle).0[0] = pointer(leaves);
        for page in 0..PAGES {
            (*leaves).0[page as usize] = leaf(SMALL_RAM + page * PAGE, KERNEL);
        }
        asm!("csrw satp, {}", "sfence.vma", in(reg) satp(&raw const ROOT, 1));
    }
}

/// All pages are in the first-level TLB: 2048 loads.
pub fn hit(rounds: u64) {
    for _ in 0..rounds * (2048 / PAGES) {
        // SAFETY: the pages are mapped.
        unsafe {
            asm!(
                "2:",
                "ld {value}, 0({at})",
                "add {at}, {at}, {page}",
                "bne {at}, {end}, 2b",
                value = out(reg) _,
                at = inout(reg) SMALL => _,
                end = in(reg) SMALL + PAGES * PAGE,
                page = in(reg) PAGE,
            );
        }
    }
}

/// No page is in the first-level TLB when its turn comes, but all are in the second: 2048 loads, of the two addresses of a page in turn.
pub fn miss(rounds: u64) {
    // SAFETY: they are mapped.
    unsafe {
        asm!(
            "2:",
            "ld {value}, 0({at})",
            "add {at}, {at}, {step}",
            "neg {step}, {step}",
            "addi {left}, {left}, -1",
            "bnez {left}, 2b",
            value = out(reg) _,
            at = inout(reg) SMALL => _,
            step = inout(reg) SMALL_ALIAS - SMALL => _,
            left = inout(reg) rounds.max(1) * 2048 => _,
        );
    }
}

/// The page is in neither, so the page table is walked: 64 fences of a page and 64 loads.
pub fn fill(rounds: u64) {
    for _ in 0..rounds * 64 {
        // SAFETY: the page is mapped.
        unsafe {
            asm!("sfence.vma {at}, zero", "ld {value}, 0({at})", at = in(reg) SMALL, value = out(reg) _)
        };
    }
}

/// Sixteen calls, each of the other of two addresses of a function, which have one slot in the jump cache.
pub fn jump_miss(rounds: u64) {
    // SAFETY: the function is at both addresses, and uses a register that is given up.
    unsafe {
        asm!(
            "la a0, 5f",
            "add a2, a0, a2",
            "j 2f",
            "5: addi a3, a3, 1",
            "ret",
            "2:",
            ".rept 8",
            "jalr a0",
            "jalr a2",
            ".endr",
            "addi {rounds}, {rounds}, -1",
            "bnez {rounds}, 2b",
            rounds = inout(reg) rounds.max(1) => _,
            inout("a2") SECOND_ALIAS - RAM => _,
            out("a0") _, out("a3") _, out("ra") _,
        );
    }
}

/// To another address space and back, sixteen times, with a load in each.
pub fn context_switch(rounds: u64) {
    // SAFETY: both address spaces map everything alike.
    unsafe {
        asm!(
            "2:",
            ".rept 16",
            "csrw satp, {other}",
            "ld {value}, 0({at})",
            "csrw satp, {root}",
            "ld {value}, 0({at})",
            ".endr",
            "addi {rounds}, {rounds}, -1",
            "bnez {rounds}, 2b",
            rounds = inout(reg) rounds.max(1) => _,
            root = in(reg) satp(&raw const ROOT, 1),
            other = in(reg) satp(&raw const OTHER, 2),
            at = in(reg) SMALL,
            value = out(reg) _,
        );
    }
}
