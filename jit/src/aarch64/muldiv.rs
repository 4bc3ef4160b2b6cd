//! Multiplication and division.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op};

use super::Translator;
use super::asm::{Cc, Width, op};
use super::regs::{X14, X15, X16, X17, XZR};

impl Translator {
    pub(super) fn mul_high_mixed(&mut self, op: &Op) {
        let a = self.get(op.a, X14);
        let b = self.get(op.b, X15);
        self.asm.rrr(Width::Q, op::UMULH, X16, a, b);
        // As a signed number a negative `a` is 2^64 less.
        dynasm!(self.asm ; .arch aarch64 ; and x17, X(b), X(a), asr #63);
        let d = self.target(op.rd);
        self.asm.rrr(Width::Q, op::SUB, d, X16, X17);
        self.put(op.rd, d);
    }

    /// Division by zero gives 0 on the host, and the quotient that overflows is the dividend.
    pub(super) fn divide(&mut self, width: Width, opcode: u32, op: &Op) {
        let a = self.get_of(width, op.a, X14);
        let b = self.get_of(width, op.b, X15);
        self.asm.cmp(width, b, XZR);
        self.asm.rrr(width, opcode, X16, a, b);
        self.result(width, op, |t, d| t.asm.csinv(width, d, X16, XZR, Cc::NotEqual));
    }

    pub(super) fn remainder(&mut self, width: Width, opcode: u32, op: &Op) {
        let a = self.get_of(width, op.a, X14);
        let b = self.get_of(width, op.b, X15);
        self.asm.rrr(width, opcode, X16, a, b);
        self.result(width, op, |t, d| t.asm.msub(width, d, X16, b, a));
    }

    /// Both results of one division; see [`crate::codegen::combine::are_twins`]. The halves of a product are two instructions.
    pub(super) fn twins(&mut self, first: &Op, second: &Op) {
        let (width, opcode) = match first.code {
            Code::Div | Code::Rem => (Width::Q, op::SDIV),
            Code::Divu | Code::Remu => (Width::Q, op::UDIV),
            Code::DivW | Code::RemW => (Width::D, op::SDIV),
            Code::DivuW | Code::RemuW => (Width::D, op::UDIV),
            _ => return [first, second].into_iter().for_each(|op| self.integer(op)),
        };
        let a = self.get_of(width, first.a, X14);
        let b = self.get_of(width, first.b, X15);
        self.asm.cmp(width, b, XZR);
        self.asm.rrr(width, opcode, X17, a, b);
        for op in [first, second] {
            self.result(width, op, |t, d| match op.code {
                Code::Rem | Code::Remu | Code::RemW | Code::RemuW => t.asm.msub(width, d, X17, b, a),
                _ => t.asm.csinv(width, d, X17, XZR, Cc::NotEqual),
            });
        }
    }
}
