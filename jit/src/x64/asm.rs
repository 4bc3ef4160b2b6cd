//! The assembler's buffer: bytes of one piece of code, its labels, and its references to code at fixed places.
//!
//! dynasm encodes most instructions through [`DynasmApi`]. Encoded here are those whose operand is a guest register, which
//! may be a host register or a slot of the state ([`Asm::rm`]), and jumps, whose displacements are filled in later.

use dynasmrt::{AssemblyOffset, DynasmApi};

use super::regs::{Loc, STATE};

/// A place in the code being assembled, bound or still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(u32);

const UNBOUND: u32 = u32::MAX;

/// Condition codes as `jcc`, `setcc` and `cmovcc` encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cc {
    Overflow = 0,
    Below = 2,
    AboveEqual = 3,
    Equal = 4,
    NotEqual = 5,
    Above = 7,
    Sign = 8,
    Parity = 10,
    Less = 12,
    GreaterEqual = 13,
    Greater = 15,
}

/// Opcodes of the form `op reg, r/m`; `| STORE` turns those of the arithmetic group into `op r/m, reg`.
pub(super) mod op {
    pub(in super::super) const ADD: u8 = 0x03;
    pub(in super::super) const OR: u8 = 0x0b;
    pub(in super::super) const AND: u8 = 0x23;
    pub(in super::super) const SUB: u8 = 0x2b;
    pub(in super::super) const XOR: u8 = 0x33;
    pub(in super::super) const CMP: u8 = 0x3b;
    pub(in super::super) const TEST: u8 = 0x85;
    pub(in super::super) const MOVSXD: u8 = 0x63;
    pub(in super::super) const MOV: u8 = 0x8b;
    pub(in super::super) const STORE: u8 = 0x89;
}

/// Operand width of an encoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    D,
    Q,
}

/// Code under construction.
#[derive(Default)]
pub(super) struct Asm {
    pub(super) bytes: Vec<u8>,
    labels: Vec<u32>,
    /// 32-bit displacement fields, relative to their end, and the labels they refer to.
    fixups: Vec<(u32, Label)>,
    /// The same for places in the arena outside this piece.
    pub(super) external: Vec<(u32, u32)>,
}

impl Asm {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
        self.fixups.clear();
        self.external.clear();
    }

    pub(super) fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = self.here();
    }

    pub(super) fn bind_here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Fills in the references to labels; all of them are bound by now.
    pub(super) fn resolve(&mut self) {
        for &(field, label) in &self.fixups {
            let target = self.labels[label.0 as usize];
            debug_assert_ne!(target, UNBOUND);
            let relative = target.wrapping_sub(field + 4);
            self.bytes[field as usize..][..4].copy_from_slice(&relative.to_le_bytes());
        }
        self.fixups.clear();
    }

    fn field(&mut self, label: Label) {
        self.fixups.push((self.here(), label));
        self.push_i32(0);
    }

    pub(super) fn jmp(&mut self, label: Label) {
        self.push(0xe9);
        self.field(label);
    }

    pub(super) fn jcc(&mut self, cc: Cc, label: Label) {
        self.push(0x0f);
        self.push(0x80 | cc as u8);
        self.field(label);
    }

    /// A jump whose displacement can be changed by one aligned store while other threads run the code. Returns where it is.
    pub(super) fn jmp_patchable(&mut self, label: Label) -> u32 {
        self.pad_field(1);
        self.jmp(label);
        self.here() - 4
    }

    /// As [`Self::jmp_patchable`], conditional.
    pub(super) fn jcc_patchable(&mut self, cc: Cc, label: Label) -> u32 {
        self.pad_field(2);
        self.jcc(cc, label);
        self.here() - 4
    }

    /// Pads so that what comes `opcode` bytes from here is aligned to 4. Pieces of code are placed at multiples of 16.
    fn pad_field(&mut self, opcode: u32) {
        const NOPS: [&[u8]; 4] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]];
        let padding = (self.here() + opcode).wrapping_neg() % 4;
        self.bytes.extend_from_slice(NOPS[padding as usize]);
    }

    pub(super) fn external_field(&mut self, target: u32) {
        self.external.push((self.here(), target));
        self.push_i32(0);
    }

    pub(super) fn call(&mut self, label: Label) {
        self.push(0xe8);
        self.field(label);
    }

    /// `call` of a place in the arena.
    pub(super) fn call_to(&mut self, target: u32) {
        self.push(0xe8);
        self.external_field(target);
    }

    /// `jmp` to a place in the arena.
    pub(super) fn jmp_to(&mut self, target: u32) {
        self.push(0xe9);
        self.external_field(target);
    }

    /// `jcc` to a place in the arena.
    pub(super) fn jcc_to(&mut self, cc: Cc, target: u32) {
        self.push(0x0f);
        self.push(0x80 | cc as u8);
        self.external_field(target);
    }

    /// A label for a place already assembled.
    pub(super) fn bind_at(&mut self, offset: u32) -> Label {
        self.labels.push(offset);
        Label(self.labels.len() as u32 - 1)
    }

    /// `lea reg, [rip + label]`
    pub(super) fn lea_label(&mut self, reg: u8, label: Label) {
        self.push(0x48 | (reg >> 3) << 2);
        self.push(0x8d);
        self.push((reg & 7) << 3 | 5);
        self.field(label);
    }

    /// `opcode reg, rm`, where `opcode` is one byte, or two that begin with 0x0f.
    pub(super) fn rm(&mut self, width: Width, opcode: &[u8], reg: u8, rm: Loc) {
        let base = match rm {
            Loc::Reg(host) => host,
            Loc::Slot(_) => STATE,
        };
        let rex = 0x40 | u8::from(width == Width::Q) << 3 | (reg >> 3) << 2 | base >> 3;
        if rex != 0x40 {
            self.push(rex);
        }
        self.bytes.extend_from_slice(opcode);
        self.modrm(reg & 7, rm);
    }

    /// The ModRM byte, and the displacement of a slot.
    pub(super) fn modrm(&mut self, field: u8, rm: Loc) {
        match rm {
            Loc::Reg(host) => self.push(0xc0 | field << 3 | host & 7),
            Loc::Slot(disp) => match i8::try_from(disp) {
                Ok(disp) => self.bytes.extend_from_slice(&[0x40 | field << 3 | STATE & 7, disp as u8]),
                Err(_) => {
                    self.push(0x80 | field << 3 | STATE & 7);
                    self.push_i32(disp);
                }
            },
        }
    }

    /// Arithmetic with an immediate: `number` is 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp.
    pub(super) fn rm_imm(&mut self, width: Width, number: u8, rm: Loc, imm: i32) {
        match i8::try_from(imm) {
            Ok(imm) => {
                self.rm(width, &[0x83], number, rm);
                self.push_i8(imm);
            }
            Err(_) => {
                self.rm(width, &[0x81], number, rm);
                self.push_i32(imm);
            }
        }
    }

    /// Compares a byte of the state.
    pub(super) fn cmp_byte(&mut self, slot: i32, imm: u8) {
        self.rm(Width::D, &[0x80], 7, Loc::Slot(slot));
        self.push(imm);
    }

    /// Shifts and rotates by a constant: `number` is 0 rol, 1 ror, 4 shl, 5 shr, 7 sar.
    pub(super) fn shift_imm(&mut self, width: Width, number: u8, rm: Loc, imm: u8) {
        self.rm(width, &[0xc1], number, rm);
        self.push(imm);
    }

    /// `mov reg, value`, in its shortest form.
    pub(super) fn mov_imm(&mut self, reg: u8, value: u64) {
        if value == 0 {
            self.rm(Width::D, &[op::XOR], reg, Loc::Reg(reg));
        } else if let Ok(low) = u32::try_from(value) {
            if reg >= 8 {
                self.push(0x41);
            }
            self.push(0xb8 | reg & 7);
            self.push_u32(low);
        } else if let Ok(low) = i32::try_from(value as i64) {
            self.rm(Width::Q, &[0xc7], 0, Loc::Reg(reg));
            self.push_i32(low);
        } else {
            self.push(0x48 | reg >> 3);
            self.push(0xb8 | reg & 7);
            self.push_u64(value);
        }
    }

    /// `lea reg, [base + disp]`
    pub(super) fn lea(&mut self, width: Width, reg: u8, base: u8, disp: i32) {
        let rex = 0x40 | u8::from(width == Width::Q) << 3 | (reg >> 3) << 2 | base >> 3;
        if rex != 0x40 {
            self.push(rex);
        }
        self.push(0x8d);
        self.base_disp(reg & 7, base, disp);
    }

    fn base_disp(&mut self, field: u8, base: u8, disp: i32) {
        // As a base, register 4 or 12 needs a SIB byte, and 5 or 13 a displacement.
        let sib = base & 7 == 4;
        let mode = match i8::try_from(disp) {
            Ok(0) if base & 7 != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        self.push(mode | field << 3 | base & 7);
        if sib {
            self.push(0x24);
        }
        match mode {
            0 => {}
            0x40 => self.push_i8(disp as i8),
            _ => self.push_i32(disp),
        }
    }

    /// `opcode reg, [base + index + disp]`, with the prefix byte if it is not 0; a byte register needs `force_rex`.
    #[allow(clippy::too_many_arguments, reason = "the parts of one x86 instruction")]
    pub(super) fn indexed(
        &mut self,
        prefix: u8,
        width: Width,
        force_rex: bool,
        opcode: &[u8],
        reg: u8,
        base: u8,
        index: Option<u8>,
        disp: i32,
    ) {
        if prefix != 0 {
            self.push(prefix);
        }
        let high_index = index.map_or(0, |index| index >> 3);
        let rex = 0x40 | u8::from(width == Width::Q) << 3 | (reg >> 3) << 2 | high_index << 1 | base >> 3;
        if rex != 0x40 || force_rex {
            self.push(rex);
        }
        self.bytes.extend_from_slice(opcode);
        self.base_index_disp(reg & 7, base, index, disp);
    }

    /// What follows the opcode of an instruction with the operand `[base + index + disp]`.
    pub(super) fn base_index_disp(&mut self, field: u8, base: u8, index: Option<u8>, disp: i32) {
        let Some(index) = index else { return self.base_disp(field, base, disp) };
        let mode = match i8::try_from(disp) {
            Ok(0) if base & 7 != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        self.push(mode | field << 3 | 4);
        self.push((index & 7) << 3 | base & 7);
        match mode {
            0 => {}
            0x40 => self.push_i8(disp as i8),
            _ => self.push_i32(disp),
        }
    }
}

impl Extend<u8> for Asm {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

impl<'a> Extend<&'a u8> for Asm {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

impl DynasmApi for Asm {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.bytes.len())
    }

    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn align(&mut self, alignment: usize, with: u8) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), with);
    }

    fn push_i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn push_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn push_u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
}
