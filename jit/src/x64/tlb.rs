//! How generated code asks the TLB of the context in force, [`softmmu::Context`].

use std::mem::offset_of;

use softmmu::{Context, Entry, PAGE_SIZE, TLB_BITS};

use super::asm::{Asm, Cc, Label, Width, op};
use super::regs::{CONTEXT, Loc, RAX, RCX, RDX};

/// Offset of the table of what can be loaded.
pub(super) const READ: i32 = Context::READ_OFFSET as i32;
/// Offset of the table of what can be stored to.
pub(super) const WRITE: i32 = Context::WRITE_OFFSET as i32;
/// Offset of the addend in an entry; the tag is at 0.
const ADDEND: i32 = offset_of!(Entry, addend) as i32;

/// Mask of the offset of an address' slot in a table, after a rotation to the right by [`ROTATE`].
const MASK: i32 = ((1 << TLB_BITS) - 1) << 4;
/// See [`MASK`].
const ROTATE: u8 = 12 - 4;
const _: () = assert!(size_of::<Entry>() == 16);

/// The largest offset in a page at which `size` bytes do not cross its edge.
const fn last_offset(size: i32) -> i32 {
    PAGE_SIZE as i32 - size
}

/// Checks that the page of the guest address in the host register `address`, of `size` bytes, is in a table, or jumps to `miss`.
/// Gives the offset of its slot, and clobbers `scratch`, which may be the register of the address.
fn check(asm: &mut Asm, table: i32, size: i32, address: u8, slot: u8, scratch: u8, miss: Label) {
    asm.rotate_right(slot, address, ROTATE);
    asm.rm_imm(Width::D, 4, Loc::Reg(slot), MASK);
    if scratch != address {
        asm.rm(Width::Q, op::MOV, scratch, Loc::Reg(address));
    }
    asm.indexed(0, Width::Q, false, op::SUB, scratch, CONTEXT, Some(slot), table);
    asm.rm_imm(Width::Q, 7, Loc::Reg(scratch), last_offset(size));
    asm.jcc(Cc::Above, miss);
}

/// Finds what to add to the guest address of `size` bytes in the host register `address` to get the host's, or jumps to `miss`.
/// Clobbers `scratch`, which may be the register of the address.
pub(super) fn probe(asm: &mut Asm, table: i32, size: i32, address: u8, addend: u8, scratch: u8, miss: Label) {
    check(asm, table, size, address, addend, scratch, miss);
    asm.indexed(0, Width::Q, false, op::MOV, addend, CONTEXT, Some(addend), table + ADDEND);
}

/// Turns the guest address of `size` bytes in rax into the host's, or jumps to `miss`, where rax is as it was. Clobbers rcx
/// and rdx.
pub(super) fn locate(asm: &mut Asm, table: i32, size: i32, miss: Label) {
    check(asm, table, size, RAX, RDX, RCX, miss);
    asm.indexed(0, Width::Q, false, op::ADD, RAX, CONTEXT, Some(RDX), table + ADDEND);
}
