//! The assembler's buffer: bytes of one piece of code, its labels, and its references to code at fixed places.
//!
//! dynasm encodes most instructions through [`DynasmApi`]. Encoded here are those whose operand is a guest register, which
//! may be a host register or a slot of the state ([`Asm::rm`]), and jumps, whose displacements are filled in later.

use dynasmrt::{AssemblyOffset, DynasmApi};

use super::regs::{Loc, RAX, STATE};

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

/// Opcodes of the form `op reg, r/m`: one byte, or 0x0f and another. Without bit 1, those of the arithmetic group are of the form
/// `op r/m, reg`.
pub(super) mod op {
    pub(in super::super) const ADD: u16 = 0x03;
    pub(in super::super) const OR: u16 = 0x0b;
    pub(in super::super) const AND: u16 = 0x23;
    pub(in super::super) const SUB: u16 = 0x2b;
    pub(in super::super) const XOR: u16 = 0x33;
    pub(in super::super) const CMP: u16 = 0x3b;
    pub(in super::super) const TEST: u16 = 0x85;
    pub(in super::super) const MOVSXD: u16 = 0x63;
    pub(in super::super) const MOV: u16 = 0x8b;
    pub(in super::super) const STORE: u16 = 0x89;

    /// Whether an opcode is one that has its r/m as a source only.
    pub(in super::super) fn only_reads(opcode: u16) -> bool {
        matches!(opcode, ADD | OR | AND | SUB | XOR | CMP | TEST | MOVSXD | MOV)
    }
}

/// Operand width of an encoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    D,
    Q,
}

/// The bytes of an instruction, or of its start: at most eight.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    /// Little-endian.
    value: u64,
    bits: u32,
}

impl Bytes {
    /// None yet.
    pub(super) const NONE: Bytes = Bytes { value: 0, bits: 0 };

    #[inline(always)]
    pub(super) fn byte(self, byte: u8) -> Bytes {
        debug_assert!(self.bits < 64);
        Bytes { value: self.value | u64::from(byte) << self.bits, bits: self.bits + 8 }
    }

    #[inline(always)]
    pub(super) fn byte_if(self, condition: bool, byte: u8) -> Bytes {
        if condition { self.byte(byte) } else { self }
    }

    /// The REX prefix, if there is a reason for one, and the opcode. `index` and `base` are 0 where there is none.
    #[inline(always)]
    fn opcode(self, width: Width, force_rex: bool, opcode: u16, reg: u8, index: u8, base: u8) -> Bytes {
        let rex = 0x40 | u8::from(width == Width::Q) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        let [escape, opcode] = opcode.to_be_bytes();
        self.byte_if(rex != 0x40 || force_rex, rex).byte_if(escape != 0, escape).byte(opcode)
    }
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
    held: Option<Held>,
}

/// What the last instruction has left: a host register with the value of a slot.
#[derive(Clone, Copy)]
struct Held {
    slot: i32,
    host: u8,
    /// The end of that instruction. It says nothing elsewhere.
    end: u32,
}

impl Asm {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
        self.fixups.clear();
        self.external.clear();
        self.held = None;
    }

    /// A host register that has the value of a slot here: the one that the last instruction has stored there or loaded from there.
    pub(super) fn held(&self, slot: i32) -> Option<u8> {
        self.held.filter(|held| held.slot == slot && held.end == self.here()).map(|held| held.host)
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
        // Who comes by the label has other values.
        self.held = None;
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

    /// An instruction whose last four bytes are the displacement of a label.
    fn put_label(&mut self, start: Bytes, label: Label) {
        self.put(Bytes { bits: start.bits + 32, ..start });
        self.fixups.push((self.here() - 4, label));
    }

    /// An instruction whose last four bytes are the displacement of a place in the arena.
    pub(super) fn put_arena(&mut self, start: Bytes, target: u32) {
        self.put(Bytes { bits: start.bits + 32, ..start });
        self.external.push((self.here() - 4, target));
    }

    pub(super) fn jmp(&mut self, label: Label) {
        self.put_label(Bytes::NONE.byte(0xe9), label);
    }

    /// A jump over the next `length` bytes.
    pub(super) fn jmp_over(&mut self, length: i8) {
        self.put(Bytes::NONE.byte(0xeb).byte(length as u8));
    }

    /// A jump back to an offset.
    pub(super) fn jmp_back(&mut self, target: u32) {
        match i8::try_from(i64::from(target) - i64::from(self.here() + 2)) {
            Ok(relative) => self.put(Bytes::NONE.byte(0xeb).byte(relative as u8)),
            Err(_) => {
                self.put(Bytes::NONE.byte(0xe9));
                self.push_u32(target.wrapping_sub(self.here() + 4));
            }
        }
    }

    /// A conditional jump to a place to come: where its displacement is, for [`Self::aim`].
    pub(super) fn jcc_ahead(&mut self, cc: Cc) -> u32 {
        let jump = Bytes::NONE.byte(0x0f).byte(0x80 | cc as u8);
        self.put(Bytes { bits: jump.bits + 32, ..jump });
        self.here() - 4
    }

    /// Lets the jump whose displacement is at `field` lead to a label.
    pub(super) fn aim_at(&mut self, field: u32, label: Label) {
        self.fixups.push((field, label));
    }

    pub(super) fn jcc(&mut self, cc: Cc, label: Label) {
        self.put_label(Bytes::NONE.byte(0x0f).byte(0x80 | cc as u8), label);
    }

    /// A jump, conditional if there is a condition, whose displacement can be changed by one aligned store while other threads run
    /// the code. Returns where that is, for [`Self::aim`].
    pub(super) fn jmp_patchable(&mut self, cc: Option<Cc>) -> u32 {
        let jump = match cc {
            Some(cc) => Bytes::NONE.byte(0x0f).byte(0x80 | cc as u8),
            None => Bytes::NONE.byte(0xe9),
        };
        self.pad_field(jump.bits / 8);
        self.put(Bytes { bits: jump.bits + 32, ..jump });
        self.here() - 4
    }

    /// Lets the jump whose displacement is at `field` lead here.
    pub(super) fn aim(&mut self, field: u32) {
        self.set_u32(field, self.here() - (field + 4));
        self.held = None;
    }

    /// Changes four bytes.
    pub(super) fn set_u32(&mut self, at: u32, value: u32) {
        self.bytes[at as usize..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Pads so that what comes `opcode` bytes from here is aligned to 4. Pieces of code are placed at multiples of 16.
    fn pad_field(&mut self, opcode: u32) {
        const NOPS: [&[u8]; 4] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]];
        let padding = (self.here() + opcode).wrapping_neg() % 4;
        self.bytes.extend_from_slice(NOPS[padding as usize]);
    }

    pub(super) fn call(&mut self, label: Label) {
        self.put_label(Bytes::NONE.byte(0xe8), label);
    }

    /// `call` of a place in the arena.
    pub(super) fn call_to(&mut self, target: u32) {
        self.put_arena(Bytes::NONE.byte(0xe8), target);
    }

    /// `jmp` to a place in the arena.
    pub(super) fn jmp_to(&mut self, target: u32) {
        self.put_arena(Bytes::NONE.byte(0xe9), target);
    }

    /// `jcc` to a place in the arena.
    pub(super) fn jcc_to(&mut self, cc: Cc, target: u32) {
        self.put_arena(Bytes::NONE.byte(0x0f).byte(0x80 | cc as u8), target);
    }

    /// `lea reg, [rip + label]`
    pub(super) fn lea_label(&mut self, reg: u8, label: Label) {
        self.put_label(Bytes::NONE.byte(0x48 | (reg >> 3) << 2).byte(0x8d).byte((reg & 7) << 3 | 5), label);
    }

    /// Appends bytes.
    #[inline(always)]
    pub(super) fn put(&mut self, bytes: Bytes) {
        let end = self.bytes.len() + bytes.bits as usize / 8;
        self.bytes.extend_from_slice(&bytes.value.to_le_bytes());
        self.bytes.truncate(end);
    }

    /// `opcode reg, rm`
    pub(super) fn rm(&mut self, width: Width, opcode: u16, reg: u8, rm: Loc) {
        let slot = match rm {
            Loc::Reg(host) => {
                return self.modrm(Bytes::NONE.opcode(width, false, opcode, reg, 0, host), reg & 7, rm);
            }
            Loc::Slot(slot) => slot,
        };
        let held = self.held(slot).filter(|_| op::only_reads(opcode));
        let moves = width == Width::Q && (opcode == op::MOV || opcode == op::STORE);
        match held {
            Some(host) if moves && host == reg => return,
            Some(host) => self.rm(width, opcode, reg, Loc::Reg(host)),
            None => self.modrm(Bytes::NONE.opcode(width, false, opcode, reg, 0, STATE), reg & 7, rm),
        }
        if moves {
            self.held = Some(Held { slot, host: reg, end: self.here() });
        }
    }

    /// An instruction that starts with `start`, with its ModRM byte, and the displacement of a slot.
    #[inline(always)]
    pub(super) fn modrm(&mut self, start: Bytes, field: u8, rm: Loc) {
        match rm {
            Loc::Reg(host) => self.put(start.byte(0xc0 | field << 3 | host & 7)),
            Loc::Slot(disp) => match i8::try_from(disp) {
                Ok(disp) => self.put(start.byte(0x40 | field << 3 | STATE & 7).byte(disp as u8)),
                Err(_) => {
                    self.put(start.byte(0x80 | field << 3 | STATE & 7));
                    self.push_i32(disp);
                }
            },
        }
    }

    /// Arithmetic with an immediate: `number` is 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp.
    pub(super) fn rm_imm(&mut self, width: Width, number: u8, rm: Loc, imm: i32) {
        match i8::try_from(imm) {
            Ok(imm) => {
                self.rm(width, 0x83, number, rm);
                self.push_i8(imm);
            }
            Err(_) => {
                match rm {
                    Loc::Reg(RAX) => {
                        self.put(Bytes::NONE.byte_if(width == Width::Q, 0x48).byte(number << 3 | 5));
                    }
                    _ => self.rm(width, 0x81, number, rm),
                }
                self.push_i32(imm);
            }
        }
    }

    /// Compares a byte of the state.
    pub(super) fn cmp_byte(&mut self, slot: i32, imm: u8) {
        self.rm(Width::D, 0x80, 7, Loc::Slot(slot));
        self.push(imm);
    }

    /// Shifts and rotates by a constant: `number` is 0 rol, 1 ror, 4 shl, 5 shr, 7 sar.
    pub(super) fn shift_imm(&mut self, width: Width, number: u8, rm: Loc, imm: u8) {
        self.rm(width, 0xc1, number, rm);
        self.push(imm);
    }

    /// `reg = 0`, after which is still known what the last instruction has left in another register. Clobbers the flags.
    pub(super) fn zero(&mut self, reg: u8) {
        let held = self.held.filter(|held| held.end == self.here() && held.host != reg);
        self.rm(Width::D, op::XOR, reg, Loc::Reg(reg));
        self.held = held.map(|held| Held { end: self.here(), ..held });
    }

    /// Sets the low byte of a register to 1 if the condition holds, else to 0.
    pub(super) fn setcc(&mut self, cc: Cc, reg: u8) {
        // Without a REX prefix, registers 4 to 7 would be ah to bh.
        let start = Bytes::NONE.opcode(Width::D, reg >= 4, 0x0f90 | cc as u16, 0, 0, reg);
        self.modrm(start, 0, Loc::Reg(reg));
    }

    /// `mov reg, value`, in its shortest form.
    pub(super) fn mov_imm(&mut self, reg: u8, value: u64) {
        if value == 0 {
            self.rm(Width::D, op::XOR, reg, Loc::Reg(reg));
        } else if let Ok(low) = u32::try_from(value) {
            self.mov_imm32(reg, low);
        } else if let Ok(low) = i32::try_from(value as i64) {
            self.rm(Width::Q, 0xc7, 0, Loc::Reg(reg));
            self.push_i32(low);
        } else {
            self.put(Bytes::NONE.byte(0x48 | reg >> 3).byte(0xb8 | reg & 7));
            self.push_u64(value);
        }
    }

    /// `mov reg, value` in the form whose length does not depend on the value.
    pub(super) fn mov_imm32(&mut self, reg: u8, value: u32) {
        self.put(Bytes::NONE.byte_if(reg >= 8, 0x41).byte(0xb8 | reg & 7));
        self.push_u32(value);
    }

    /// `lea reg, [base + disp]`
    pub(super) fn lea(&mut self, width: Width, reg: u8, base: u8, disp: i32) {
        self.indexed(0, width, false, 0x8d, reg, base, None, disp);
    }

    /// `opcode reg, [base + index + disp]`, with the prefix byte if it is not 0; a byte register needs `force_rex`.
    #[allow(clippy::too_many_arguments, reason = "the parts of one x86 instruction")]
    #[inline]
    pub(super) fn indexed(
        &mut self,
        prefix: u8,
        width: Width,
        force_rex: bool,
        opcode: u16,
        reg: u8,
        base: u8,
        index: Option<u8>,
        disp: i32,
    ) {
        let start = Bytes::NONE.byte_if(prefix != 0, prefix);
        let start = start.opcode(width, force_rex, opcode, reg, index.unwrap_or(0), base);
        self.base_index_disp(start, reg & 7, base, index, disp);
    }

    /// An instruction that starts with `start`, with the operand `[base + index + disp]`.
    pub(super) fn base_index_disp(
        &mut self,
        start: Bytes,
        field: u8,
        base: u8,
        index: Option<u8>,
        disp: i32,
    ) {
        // As a base, register 4 or 12 needs a SIB byte, and 5 or 13 a displacement.
        let byte = i8::try_from(disp);
        let mode = match byte {
            Ok(0) if base & 7 != 5 => 0,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        let start = match index {
            None => start.byte(mode | field << 3 | base & 7).byte_if(base & 7 == 4, 0x24),
            Some(index) => start.byte(mode | field << 3 | 4).byte((index & 7) << 3 | base & 7),
        };
        self.put(start.byte_if(mode == 0x40, disp as u8));
        if mode == 0x80 {
            self.push_i32(disp);
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
