//! How generated code asks the TLB of the context in force, [`softmmu::Context`].

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use softmmu::{Context, Entry, PAGE_SIZE, TLB_BITS};

use super::asm::{Asm, Cc, Label, Width};
use super::regs::{CONTEXT, WRITE_TABLE, X14, X16, X17};

/// The register with the table of what can be loaded.
pub(super) const READ: u8 = CONTEXT;
/// The register with the table of what can be stored to.
pub(super) const WRITE: u8 = WRITE_TABLE;

const PAGE_BITS: u8 = PAGE_SIZE.ilog2() as u8;
/// Tag and addend are loaded as a pair.
const _: () = assert!(Context::READ_OFFSET == 0 && size_of::<Entry>() == 16);
const _: () = assert!(offset_of!(Entry, addend) == 0 && offset_of!(Entry, tag) == 8);

/// The largest offset in a page at which `size` bytes do not cross its edge.
pub(super) const fn last_offset(size: i64) -> i64 {
    PAGE_SIZE as i64 - size
}

/// Loads the addend for the guest address in `address`, and into x17 the distance from the start of its page, if that is in the
/// table: else it is some distance that is not in a page.
fn look(asm: &mut Asm, table: u8, address: u8, addend: u8) {
    asm.bitfield(Width::Q, false, X17, address, PAGE_BITS, PAGE_BITS + TLB_BITS as u8 - 1);
    dynasm!(asm ; .arch aarch64
        ; add x17, X(table), x17, lsl #4
        ; ldp X(addend), x17, [x17]
        ; sub x17, X(address), x17
    );
}

/// Loads the addend for `size` bytes at the guest address in `address`, or jumps to `miss`. Clobbers x17.
pub(super) fn probe(asm: &mut Asm, table: u8, size: i64, address: u8, addend: u8, miss: Label) {
    look(asm, table, address, addend);
    asm.cmp_imm12(X17, last_offset(size) as u32);
    asm.b_cc(Cc::Above, miss);
}

/// Turns the guest address of `size` bytes in x16 into the host's, or jumps to `miss`, where x16 is as it was. Clobbers x14
/// and x17.
pub(super) fn locate(asm: &mut Asm, table: u8, size: i64, miss: Label) {
    probe(asm, table, size, X16, X14, miss);
    dynasm!(asm ; .arch aarch64 ; add x16, x16, x14);
}

/// Makes x16 the host's address of `size` bytes, a power of two, at the guest address in `address`; or jumps to `miss`, also if
/// they are misaligned. Clobbers x14 and x17.
pub(super) fn locate_aligned(asm: &mut Asm, table: u8, size: u64, address: u8, miss: Label) {
    look(asm, table, address, X14);
    asm.tst_imm(Width::Q, X17, !(PAGE_SIZE - 1) | (size - 1));
    asm.b_cc(Cc::NotEqual, miss);
    dynasm!(asm ; .arch aarch64 ; add x16, X(address), x14);
}
