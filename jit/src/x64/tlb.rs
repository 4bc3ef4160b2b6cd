//! How generated code asks the TLB of the context in force, [`softmmu::Context`].

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use softmmu::{Context, Entry, NEARS, Near, PAGE_SIZE, TLB_BITS};

use super::asm::{Asm, Cc, Label, Width, op};
use super::regs::{CONTEXT, Loc, RAX, RCX, RDX};
use crate::codegen::runs::BASES;

/// Offset of the table of what can be loaded.
pub(super) const READ: i32 = Context::READ_OFFSET as i32;
/// Offset of the table of what can be stored to.
pub(super) const WRITE: i32 = Context::WRITE_OFFSET as i32;
/// Offset of the addend in an entry. With none and the read table first in the context, the load of an addend is a cycle shorter
/// on some hosts.
const ADDEND: i32 = offset_of!(Entry, addend) as i32;
const _: () = assert!(READ + ADDEND == 0);
/// Offset of the tag in an entry.
const TAG: i32 = offset_of!(Entry, tag) as i32;

/// Mask of the offset of an address' slot in a table, after a rotation to the right by [`ROTATE`].
const MASK: i32 = ((1 << TLB_BITS) - 1) << 4;
/// See [`MASK`].
const ROTATE: u8 = 12 - 4;
const _: () = assert!(size_of::<Entry>() == 16);

/// The largest offset in a page at which `size` bytes do not cross its edge.
const fn last_offset(size: i32) -> i32 {
    PAGE_SIZE as i32 - size
}

/// Where an access is.
#[derive(Clone, Copy)]
enum At {
    /// At the address in the register, of which a copy in the scratch register, which may be the same, is used up.
    It,
    /// So many bytes from there, which is a displacement of one byte; what is not in the page of the register's address misses.
    Near(i8),
}

/// Checks that the page of so many bytes from a guest address in the host register `address` on, of `size` bytes, is in a table,
/// and gives the offset of its slot. Clobbers `scratch`. Returns the jump that is taken otherwise, for [`Asm::aim`].
fn check(asm: &mut Asm, table: i32, size: i32, (address, at): (u8, At), slot: u8, scratch: u8) -> u32 {
    asm.rotate_right(slot, address, ROTATE);
    asm.rm_imm(Width::D, 4, Loc::Reg(slot), MASK);
    match at {
        At::Near(offset) => asm.lea(Width::Q, scratch, address, offset.into()),
        At::It if scratch != address => asm.rm(Width::Q, op::MOV, scratch, Loc::Reg(address)),
        At::It => {}
    }
    asm.indexed(0, Width::Q, false, op::SUB, scratch, CONTEXT, Some(slot), table + TAG);
    asm.rm_imm(Width::Q, 7, Loc::Reg(scratch), last_offset(size));
    asm.jcc_ahead(Cc::Above)
}

/// The code of [`probe`] by [`RAX`] as scratch register, which is assembled once: only the size differs.
pub(super) struct Probes([[[[Probe; HOSTS]; 2]; 2]; BASES]);

/// Host registers.
const HOSTS: usize = 16;
/// Most bytes of a probe.
const LENGTH: usize = 48;
/// A displacement that stands for all; no other byte before it in a probe is the same.
const NEAR: i8 = 0x55;

#[derive(Clone, Copy)]
struct Probe {
    code: [u8; LENGTH],
    length: u8,
    /// What [`probe`] returns, from the start.
    miss: u8,
    /// Where the displacement of [`At::Near`] is.
    near: u8,
}

impl Probes {
    /// Those by each address register with the addends in these.
    pub(super) fn new(addends: [u8; BASES]) -> Self {
        Self(addends.map(|addend| {
            [READ, WRITE].map(|table| {
                [At::It, At::Near(NEAR)].map(|place| {
                    std::array::from_fn(|address| {
                        let mut asm = Asm::default();
                        let miss = probe_at(&mut asm, table, 0, (address as u8, place), addend, RAX) as u8;
                        let length = asm.here() as u8;
                        asm.bytes.resize(LENGTH, 0);
                        let code = std::array::from_fn(|at| asm.bytes[at]);
                        let near = asm.bytes.iter().position(|byte| *byte == NEAR as u8).unwrap_or(0) as u8;
                        Probe { code, length, miss, near }
                    })
                })
            })
        }))
    }

    /// Appends the probe of the table of what can be loaded, or stored to, with the addend in the register of that index.
    /// The `size` bytes begin at the address in the register, or `near` that. Returns what [`probe`] does.
    pub(super) fn paste(
        &self,
        asm: &mut Asm,
        stores: bool,
        size: i32,
        (address, near): (u8, Option<i8>),
        addend: usize,
    ) -> u32 {
        /// The size is in the comparison, which the jump follows.
        const LIMIT_BEFORE_MISS: u32 = 4 + 2;
        let probes = &self.0[addend][usize::from(stores)][usize::from(near.is_some())];
        let Probe { code, length, miss, near: at } = &probes[usize::from(address)];
        let start = asm.here();
        asm.bytes.extend_from_slice(code);
        asm.bytes.truncate(start as usize + usize::from(*length));
        let miss = start + u32::from(*miss);
        asm.set_u32(miss - LIMIT_BEFORE_MISS, last_offset(size) as u32);
        if let Some(offset) = near {
            asm.bytes[start as usize + usize::from(*at)] = offset as u8;
        }
        miss
    }
}

/// Finds what to add to the guest address of `size` bytes in the host register `address` to get the host's. Clobbers `scratch`, which
/// may be the register of the address. Returns the jump that is taken if that is not known, for [`Asm::aim`].
pub(super) fn probe(asm: &mut Asm, table: i32, size: i32, address: u8, addend: u8, scratch: u8) -> u32 {
    probe_at(asm, table, size, (address, At::It), addend, scratch)
}

/// As [`probe`].
fn probe_at(asm: &mut Asm, table: i32, size: i32, at: (u8, At), addend: u8, scratch: u8) -> u32 {
    let miss = check(asm, table, size, at, addend, scratch);
    asm.indexed(0, Width::Q, false, op::MOV, addend, CONTEXT, Some(addend), table + ADDEND);
    miss
}

/// Turns the guest address of `size` bytes in rax into the host's, or jumps to `miss`, where rax is as it was. Clobbers rcx
/// and rdx.
pub(super) fn locate(asm: &mut Asm, table: i32, size: i32, miss: Label) {
    let field = check(asm, table, size, (RAX, At::It), RDX, RCX);
    asm.aim_at(field, miss);
    asm.indexed(0, Width::Q, false, op::ADD, RAX, CONTEXT, Some(RDX), table + ADDEND);
}

/// Accesses are of one class if they reach over at most so many bytes.
const REACHES: [i32; CLASSES] = [8, 64, 512];
/// The places of a class, which share entries, have those from the one of these numbers to the next.
const FIRSTS: [usize; CLASSES + 1] = [0, NEARS - 40, NEARS - 16, NEARS];
pub(super) const CLASSES: usize = 3;

/// Hands out the [`Near`] entries to places in turn.
#[derive(Clone, Copy, Default)]
pub(super) struct Places([[usize; CLASSES]; 2]);

/// A place that asks its own entry.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) stores: bool,
    pub(super) class: usize,
    size: i32,
    index: usize,
}

impl Places {
    /// The place of an access of `size` bytes.
    pub(super) fn next(&mut self, stores: bool, size: i32) -> Place {
        let class = REACHES.iter().position(|&reach| reach >= size).unwrap_or(CLASSES - 1);
        let next = &mut self.0[usize::from(stores)][class];
        let index = FIRSTS[class] + *next;
        *next = (*next + 1) % (FIRSTS[class + 1] - FIRSTS[class]);
        Place { stores, class, size, index }
    }
}

/// Displacement of a field of the first entry from the context.
fn near(stores: bool, field: usize) -> i32 {
    (Context::NEAR_OFFSET + usize::from(stores) * NEARS * size_of::<Near>() + field) as i32
}

/// The fields of [`Place::packed`].
const START_SHIFT: u8 = 8;
const LIMIT_SHIFT: u8 = 20;
const _: () = assert!(NEARS <= 1 << START_SHIFT && PAGE_SIZE / 2 <= 1 << (LIMIT_SHIFT - START_SHIFT));

impl Place {
    /// Looks whether the bytes from the guest address `address + offset` on are in the page of the place's entry. Clobbers rax,
    /// which may be `address`. Returns the jump that is taken otherwise, for [`Asm::aim`].
    pub(super) fn check(&self, asm: &mut Asm, address: u8, offset: i32) -> u32 {
        if offset != 0 {
            asm.lea(Width::Q, RAX, address, offset);
        } else if address != RAX {
            asm.rm(Width::Q, op::MOV, RAX, Loc::Reg(address));
        }
        self.field(asm, op::SUB, RAX, offset_of!(Near, tag));
        self.field(asm, op::CMP, RAX, offset_of!(Near, span));
        asm.jcc_ahead(Cc::AboveEqual)
    }

    /// Then: what to add to get the host's address.
    pub(super) fn addend(&self, asm: &mut Asm, addend: u8) {
        self.field(asm, op::MOV, addend, offset_of!(Near, addend));
    }

    fn field(&self, asm: &mut Asm, opcode: u16, reg: u8, field: usize) {
        let disp = near(self.stores, self.index * size_of::<Near>() + field);
        asm.indexed(0, Width::Q, false, opcode, reg, CONTEXT, None, disp);
    }

    /// What the shared code `near` takes for a place in the block that starts at page offset `start`.
    pub(super) fn packed(&self, start: u16) -> u64 {
        (self.index as u64)
            | u64::from(start / 2) << START_SHIFT
            | (last_offset(self.size) as u64) << LIMIT_SHIFT
    }
}

/// Looks in the TLB for the guest address in rax, and puts its page into the entry of the place of [`Place::packed`] in edx. Goes to
/// `miss` if it is not there, and to `asked` if the entry's fills have come to 0. Clobbers rax and rcx.
pub(super) fn fill_near(asm: &mut Asm, (stores, class): (bool, usize), miss: Label, asked: Label) {
    let table = if stores { WRITE } else { READ };
    asm.rotate_right(RCX, RAX, ROTATE);
    asm.rm_imm(Width::D, 4, Loc::Reg(RCX), MASK);
    asm.indexed(0, Width::Q, false, op::SUB, RAX, CONTEXT, Some(RCX), table + TAG);
    dynasm!(asm ; .arch x64 ; push rdx ; shr edx, LIMIT_SHIFT as i8 ; cmp rax, rdx ; pop rdx);
    asm.jcc(Cc::Above, miss);
    dynasm!(asm ; .arch x64
        ; vmovdqa xmm0, [r14 + rcx + table]
        ; movzx ecx, dl
        ; shl ecx, size_of::<Near>().ilog2() as i8
        ; vmovdqa [r14 + rcx + near(stores, 0)], xmm0
        ; mov QWORD [r14 + rcx + near(stores, offset_of!(Near, span))], last_offset(REACHES[class]) + 1
        ; mov BYTE [r14 + Context::NEAR_FILLED_OFFSET as i32], 1
        ; dec DWORD [r14 + rcx + near(stores, offset_of!(Near, fills))]
    );
    asm.jcc(Cc::Equal, asked);
}
const _: () = assert!(offset_of!(Near, addend) == ADDEND as usize && offset_of!(Near, tag) == TAG as usize);

/// Leaves in edx the page offset of the block, and in eax the number of the entry, that [`Place::packed`] in edx tells.
pub(super) fn unpack(asm: &mut Asm) {
    dynasm!(asm ; .arch x64
        ; movzx eax, dl
        ; shr edx, START_SHIFT as i8
        ; and edx, (1 << (LIMIT_SHIFT - START_SHIFT)) - 1
        ; add edx, edx
    );
}
