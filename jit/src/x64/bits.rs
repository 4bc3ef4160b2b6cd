//! Shifts and rotations, counts of bits, single bits, bytes, and carry-less products.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Op, Reg};

use super::Translator;
use super::asm::Width;
use super::regs::{Loc, RAX, RCX, RDX};

/// `number` of [`super::asm::Asm::shift_imm`].
pub(super) mod shift {
    pub(in super::super) const ROL: u8 = 0;
    pub(in super::super) const ROR: u8 = 1;
    pub(in super::super) const SHL: u8 = 4;
    pub(in super::super) const SHR: u8 = 5;
    pub(in super::super) const SAR: u8 = 7;
}

impl Translator {
    pub(super) fn shift_imm(&mut self, width: Width, number: u8, op: &Op) {
        let amount = op.imm as u8;
        if width == Width::Q && op.rd == op.a && op.rd != Reg::SINK && self.in_scratch(op.a).is_none() {
            return self.asm.shift_imm(width, number, self.pins.loc(op.rd), amount);
        }
        let d = self.target(op.rd, &[]);
        self.copy(d, op.a);
        self.asm.shift_imm(width, number, Loc::Reg(d), amount);
        // A shift to the right leaves a sign of 0, which is in the upper half already.
        if width == Width::D && (number != shift::SHR || amount & 31 == 0) {
            self.extend_result(op, d);
        }
        self.put(op.rd, d);
    }

    pub(super) fn rotate_imm(&mut self, width: Width, op: &Op) {
        let (a, d, amount) = (self.get(op.a, RAX), self.target(op.rd, &[]), op.imm as i8);
        match width {
            Width::Q => dynasm!(self.asm ; .arch x64 ; rorx Rq(d), Rq(a), amount),
            Width::D => {
                dynasm!(self.asm ; .arch x64 ; rorx Rd(d), Rd(a), amount);
                self.extend_result(op, d);
            }
        }
        self.put(op.rd, d);
    }

    /// Shifts by a register: x86's mask the amount as RISC-V's do.
    pub(super) fn shift(&mut self, width: Width, number: u8, op: &Op) {
        let a = self.get(op.a, RAX);
        let (b, d) = match self.pins.pinned(op.b) {
            Some(b) => (b, self.target(op.rd, &[])),
            // The amount has to be in a register, and rax may be taken: shift in rcx's stead by way of the target.
            None if a == RAX => {
                let d = self.target(op.rd, &[]);
                if d == RAX {
                    return self.shift_in_memory(width, number, op);
                }
                self.copy(d, op.b);
                (d, d)
            }
            None => {
                self.copy(RAX, op.b);
                (RAX, self.target(op.rd, &[]))
            }
        };
        self.shift_registers(width, number, d, a, b);
        if width == Width::D {
            self.extend_result(op, d);
        }
        self.put(op.rd, d);
    }

    pub(super) fn shift_registers(&mut self, width: Width, number: u8, d: u8, a: u8, b: u8) {
        match (width, number) {
            (Width::Q, shift::SHL) => dynasm!(self.asm ; .arch x64 ; shlx Rq(d), Rq(a), Rq(b)),
            (Width::Q, shift::SHR) => dynasm!(self.asm ; .arch x64 ; shrx Rq(d), Rq(a), Rq(b)),
            (Width::Q, _) => dynasm!(self.asm ; .arch x64 ; sarx Rq(d), Rq(a), Rq(b)),
            (Width::D, shift::SHL) => dynasm!(self.asm ; .arch x64 ; shlx Rd(d), Rd(a), Rd(b)),
            (Width::D, shift::SHR) => dynasm!(self.asm ; .arch x64 ; shrx Rd(d), Rd(a), Rd(b)),
            (Width::D, _) => dynasm!(self.asm ; .arch x64 ; sarx Rd(d), Rd(a), Rd(b)),
        }
    }

    /// All three operands in memory: the value is an operand of the instruction.
    pub(super) fn shift_in_memory(&mut self, width: Width, number: u8, op: &Op) {
        let Loc::Slot(a) = self.pins.loc(op.a) else { return };
        self.copy(RAX, op.b);
        match (width, number) {
            (Width::Q, shift::SHL) => dynasm!(self.asm ; .arch x64 ; shlx rax, QWORD [r15 + a], rax),
            (Width::Q, shift::SHR) => dynasm!(self.asm ; .arch x64 ; shrx rax, QWORD [r15 + a], rax),
            (Width::Q, _) => dynasm!(self.asm ; .arch x64 ; sarx rax, QWORD [r15 + a], rax),
            (Width::D, shift::SHL) => dynasm!(self.asm ; .arch x64 ; shlx eax, DWORD [r15 + a], eax),
            (Width::D, shift::SHR) => dynasm!(self.asm ; .arch x64 ; shrx eax, DWORD [r15 + a], eax),
            (Width::D, _) => dynasm!(self.asm ; .arch x64 ; sarx eax, DWORD [r15 + a], eax),
        }
        if width == Width::D {
            self.extend_result(op, RAX);
        }
        self.put(op.rd, RAX);
    }

    pub(super) fn rotate(&mut self, width: Width, number: u8, op: &Op) {
        self.copy(RCX, op.b);
        self.copy(RAX, op.a);
        self.asm.rm(width, 0xd3, number, Loc::Reg(RAX));
        if width == Width::D {
            self.extend_result(op, RAX);
        }
        self.put(op.rd, RAX);
    }

    /// `opcode` with the 0xf3 prefix: lzcnt, tzcnt, popcnt.
    pub(super) fn count(&mut self, width: Width, opcode: u8, op: &Op) {
        let a = self.get(op.a, RAX);
        match (width, opcode) {
            (Width::Q, 0xbd) => dynasm!(self.asm ; .arch x64 ; lzcnt rax, Rq(a)),
            (Width::Q, 0xbc) => dynasm!(self.asm ; .arch x64 ; tzcnt rax, Rq(a)),
            (Width::Q, _) => dynasm!(self.asm ; .arch x64 ; popcnt rax, Rq(a)),
            (Width::D, 0xbd) => dynasm!(self.asm ; .arch x64 ; lzcnt eax, Rd(a)),
            (Width::D, 0xbc) => dynasm!(self.asm ; .arch x64 ; tzcnt eax, Rd(a)),
            (Width::D, _) => dynasm!(self.asm ; .arch x64 ; popcnt eax, Rd(a)),
        }
        self.put(op.rd, RAX);
    }

    /// bts, btr, btc by a register.
    pub(super) fn bit(&mut self, opcode: u16, op: &Op) {
        self.copy(RCX, op.b);
        self.copy(RAX, op.a);
        self.asm.rm(Width::Q, opcode, RCX, Loc::Reg(RAX));
        self.put(op.rd, RAX);
    }

    /// The same by a constant: `number` is 5 bts, 6 btr, 7 btc.
    pub(super) fn bit_imm(&mut self, number: u8, op: &Op) {
        let d = self.target(op.rd, &[]);
        self.copy(d, op.a);
        self.asm.rm(Width::Q, 0x0fba, number, Loc::Reg(d));
        self.asm.push(op.imm as u8 & 63);
        self.put(op.rd, d);
    }

    /// Each byte that is not zero becomes all ones: `((a & 0x7f..) + 0x7f.. | a) & 0x80..` has bit 7 of those.
    pub(super) fn or_combine(&mut self, op: &Op) {
        const LOW7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        self.copy(RAX, op.a);
        self.asm.mov_imm(RCX, LOW7);
        dynasm!(self.asm ; .arch x64
            ; mov rdx, rax
            ; and rdx, rcx
            ; add rdx, rcx
            ; or rdx, rax
            ; not rcx
            ; and rdx, rcx
            // 1 becomes 255 in each byte.
            ; shr rdx, 7
            ; mov rax, rdx
            ; shl rdx, 8
            ; sub rdx, rax
        );
        self.put(op.rd, RDX);
    }

    /// The 128-bit carry-less product: low half in rax, high half in rdx.
    pub(super) fn carry_less_product(&mut self, o: &Op) {
        let a = self.get(o.a, RAX);
        dynasm!(self.asm ; .arch x64 ; vmovq xmm0, Rq(a));
        let b = self.get(o.b, RAX);
        dynasm!(self.asm ; .arch x64
            ; vmovq xmm1, Rq(b)
            ; vpclmulqdq xmm0, xmm0, xmm1, 0
            ; vmovq rax, xmm0
            ; vpextrq rdx, xmm0, 1
        );
    }
}
