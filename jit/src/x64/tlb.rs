//! How generated code asks the TLB of the context in force, [`softmmu::Context`].

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use softmmu::{Context, Entry, PAGE_SIZE, TLB_BITS};

use super::asm::{Asm, Cc, Label};

/// Offset of the table of what can be loaded.
pub(super) const READ: i32 = Context::READ_OFFSET as i32;
/// Offset of the table of what can be stored to.
pub(super) const WRITE: i32 = Context::WRITE_OFFSET as i32;
/// Offset of the addend in an entry; the tag is at 0.
pub(super) const ADDEND: i32 = offset_of!(Entry, addend) as i32;

/// Mask of the offset of an address' slot in a table, after a rotation to the right by [`ROTATE`].
pub(super) const MASK: i32 = ((1 << TLB_BITS) - 1) << 4;
/// See [`MASK`].
pub(super) const ROTATE: i8 = 12 - 4;
const _: () = assert!(size_of::<Entry>() == 16);

/// The largest offset in a page at which `size` bytes do not cross its edge.
pub(super) const fn last_offset(size: i32) -> i32 {
    PAGE_SIZE as i32 - size
}

/// Turns the guest address of `size` bytes in rax into the host's, or jumps to `miss`, where rax is as it was. Clobbers rcx
/// and rdx.
pub(super) fn locate(asm: &mut Asm, table: i32, size: i32, miss: Label) {
    dynasm!(asm ; .arch x64
        ; rorx rdx, rax, ROTATE
        ; and edx, MASK
        ; mov rcx, rax
        ; sub rcx, [r14 + rdx + table]
        ; cmp rcx, last_offset(size)
    );
    asm.jcc(Cc::Above, miss);
    dynasm!(asm ; .arch x64 ; add rax, [r14 + rdx + table + ADDEND]);
}
