//! Shifts and rotations, counts of bits, single bits, bytes, and carry-less products.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::Op;

use super::Translator;
use super::asm::{Logic, Width, op};
use super::regs::{X16, X17, XZR};

impl Translator {
    /// Bits of `a`, moved; see [`super::asm::Asm::bitfield`].
    pub(super) fn bitfield(&mut self, width: Width, signed: bool, rotate: u8, top: u8, op: &Op) {
        let a = self.get_of(if top < 32 { Width::D } else { Width::Q }, op.a, X16);
        let d = self.target(op.rd);
        self.asm.bitfield(width, signed, d, a, rotate, top);
        self.put(op.rd, d);
    }

    /// Rotates to the left by a register.
    pub(super) fn rotate_left(&mut self, width: Width, op: &Op) {
        let b = self.get_low(op.b, X17);
        self.asm.rrr(width, op::SUB, X17, XZR, b);
        let a = self.get_of(width, op.a, X16);
        self.result(width, op, |t, d| t.asm.rrr(width, op::ROR, d, a, X17));
    }

    pub(super) fn rotate_imm(&mut self, width: Width, op: &Op) {
        let a = self.get_of(width, op.a, X16);
        let amount = op.imm as u8 & (width.bits() - 1);
        self.result(width, op, |t, d| t.asm.ror_imm(width, d, a, amount));
    }

    pub(super) fn trailing_zeros(&mut self, width: Width, op: &Op) {
        let a = self.get_of(width, op.a, X16);
        self.asm.rrr(width, op::RBIT, X16, a, 0);
        let d = self.target(op.rd);
        self.asm.rrr(width, op::CLZ, d, X16, 0);
        self.put(op.rd, d);
    }

    pub(super) fn ones(&mut self, width: Width, op: &Op) {
        let a = self.get_of(width, op.a, X16);
        match width {
            Width::D => dynasm!(self.asm ; .arch aarch64 ; fmov s0, W(a)),
            Width::Q => dynasm!(self.asm ; .arch aarch64 ; fmov d0, X(a)),
        }
        let d = self.target(op.rd);
        dynasm!(self.asm ; .arch aarch64
            ; cnt v0.b8, v0.b8
            ; addv b0, v0.b8
            ; fmov W(d), s0
        );
        self.put(op.rd, d);
    }

    /// The bit that `b` selects, combined with `a`.
    pub(super) fn bit(&mut self, opcode: u32, op: &Op) {
        let b = self.get(op.b, X17);
        self.asm.mov_imm(X16, 1);
        self.asm.rrr(Width::Q, op::LSL, X17, X16, b);
        let a = self.get(op.a, X16);
        let d = self.target(op.rd);
        self.asm.rrr(Width::Q, opcode, d, a, X17);
        self.put(op.rd, d);
    }

    pub(super) fn bit_imm(&mut self, logic: Logic, op: &Op) {
        let bit = 1 << (op.imm & 63);
        let a = self.get(op.a, X16);
        let d = self.target(op.rd);
        self.asm.logic_imm(Width::Q, logic, d, a, if logic == Logic::And { !bit } else { bit });
        self.put(op.rd, d);
    }

    pub(super) fn extract_bit(&mut self, op: &Op) {
        let a = self.get(op.a, X16);
        let b = self.get(op.b, X17);
        self.asm.rrr(Width::Q, op::LSR, X16, a, b);
        let d = self.target(op.rd);
        self.asm.logic_imm(Width::Q, Logic::And, d, X16, 1);
        self.put(op.rd, d);
    }

    /// Each byte that is not zero becomes all ones.
    pub(super) fn or_combine(&mut self, op: &Op) {
        let a = self.get(op.a, X16);
        let d = self.target(op.rd);
        dynasm!(self.asm ; .arch aarch64
            ; fmov d0, X(a)
            ; cmtst v0.b8, v0.b8, v0.b8
            ; fmov X(d), d0
        );
        self.put(op.rd, d);
    }

    /// A part of the 128-bit carry-less product, whose low half is in x14 and whose high half is in x15 for `part`.
    pub(super) fn carry_less_product(&mut self, op: &Op, part: impl FnOnce(&mut Self, u8)) {
        if !self.features.pmull {
            return self.step(op);
        }
        let a = self.get(op.a, X16);
        let b = self.get(op.b, X17);
        dynasm!(self.asm ; .arch aarch64
            ; fmov d0, X(a)
            ; fmov d1, X(b)
            ; pmull v0.q1, v0.d1, v1.d1
            ; fmov x14, d0
            ; mov x15, v0.d[1]
        );
        let d = self.target(op.rd);
        part(self, d);
        self.put(op.rd, d);
    }
}
