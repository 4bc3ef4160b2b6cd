//! Multiplication and division.

use dynasm::dynasm;
use frontend::ir::{Code, Op};

use super::Translator;
use super::alu::imm;
use super::asm::{Cc, Width, op};
use super::bits::shift;
use super::regs::{Loc, RAX, RCX, RDX};

impl Translator {
    pub(super) fn mul(&mut self, width: Width, op: &Op) {
        let (a, b) = if op.rd == op.b { (op.b, op.a) } else { (op.a, op.b) };
        let d = self.target(op.rd, if op.rd == a { &[] } else { std::slice::from_ref(&b) });
        self.copy(d, a);
        self.asm.rm(width, 0x0faf, d, self.pins.loc(b));
        if width == Width::D {
            self.extend_result(op, d);
        }
        self.put(op.rd, d);
    }

    /// The high half; `number` is 4 for unsigned, 5 for signed operands.
    pub(super) fn mul_high(&mut self, number: u8, op: &Op) {
        self.copy(RAX, op.a);
        self.asm.rm(Width::Q, 0xf7, number, self.pins.loc(op.b));
        self.put(op.rd, RDX);
    }

    pub(super) fn mul_high_mixed(&mut self, op: &Op) {
        self.copy(RAX, op.a);
        self.mov(RCX, RAX);
        self.asm.rm(Width::Q, 0xf7, 4, self.pins.loc(op.b));
        // As a signed number a negative `a` is 2^64 less.
        self.asm.shift_imm(Width::Q, shift::SAR, Loc::Reg(RCX), 63);
        self.q(op::AND, RCX, self.pins.loc(op.b));
        self.q(op::SUB, RDX, Loc::Reg(RCX));
        self.put(op.rd, RDX);
    }

    /// One division for all operations of `ops`: quotients or remainders of the same operands.
    pub(super) fn divide(&mut self, width: Width, signed: bool, ops: &[&Op]) {
        let (by_zero, by_minus_one, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        let Op { a, b, .. } = *ops[0];
        self.asm.rm(width, op::MOV, RCX, self.pins.loc(b));
        self.asm.rm(width, op::MOV, RAX, self.pins.loc(a));
        self.asm.rm(width, op::TEST, RCX, Loc::Reg(RCX));
        self.asm.jcc(Cc::Equal, by_zero);
        if signed {
            self.asm.rm_imm(width, imm::CMP, Loc::Reg(RCX), -1);
            self.asm.jcc(Cc::Equal, by_minus_one);
            match width {
                Width::D => dynasm!(self.asm ; .arch x64 ; cdq ; idiv ecx),
                Width::Q => dynasm!(self.asm ; .arch x64 ; cqo ; idiv rcx),
            }
        } else {
            self.asm.mov_imm(RDX, 0);
            self.asm.rm(width, 0xf7, 6, Loc::Reg(RCX));
        }
        self.asm.bind(done);
        for op in ops {
            let is_remainder = matches!(op.code, Code::Rem | Code::Remu | Code::RemW | Code::RemuW);
            let result = if is_remainder { RDX } else { RAX };
            if width == Width::D {
                self.extend_result(op, result);
            }
            self.put(op.rd, result);
        }
        self.cold(move |t| {
            t.asm.bind(by_zero);
            t.mov(RDX, RAX);
            t.asm.mov_imm(RAX, u64::MAX);
            t.asm.jmp(done);
            if signed {
                // The one quotient that overflows is its own negation.
                t.asm.bind(by_minus_one);
                t.asm.mov_imm(RDX, 0);
                t.asm.rm(width, 0xf7, 3, Loc::Reg(RAX));
                t.asm.jmp(done);
            }
        });
    }

    /// Both results of one division or one multiplication; see [`crate::codegen::combine::are_twins`].
    pub(super) fn twins(&mut self, first: &Op, second: &Op) {
        let ops = [first, second];
        match first.code {
            Code::Div | Code::Rem => self.divide(Width::Q, true, &ops),
            Code::Divu | Code::Remu => self.divide(Width::Q, false, &ops),
            Code::DivW | Code::RemW => self.divide(Width::D, true, &ops),
            Code::DivuW | Code::RemuW => self.divide(Width::D, false, &ops),
            _ => {
                let is_signed = ops.iter().any(|op| op.code == Code::Mulh);
                self.copy(RAX, first.a);
                self.asm.rm(Width::Q, 0xf7, if is_signed { 5 } else { 4 }, self.pins.loc(first.b));
                for op in ops {
                    self.put(op.rd, if op.code == Code::Mul { RAX } else { RDX });
                }
            }
        }
    }
}
