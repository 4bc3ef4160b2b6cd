//! Conversions between formats, and from and to integers.

use frontend::ir::{Code, Fmt, IntKind, Op, Reg};

use super::Translator;
use super::asm::{Cc, Label, Width, op};
use super::entry::Constant;
use super::fp::{XMM0, XMM1};
use super::regs::{Loc, RAX};
use super::vex::{Rm, vop};
use crate::codegen::float::DYNAMIC;

/// `mode` of [`super::asm::Asm::f_round`]: as MXCSR says.
const AS_MXCSR: u8 = 4;
/// `mode` of [`super::asm::Asm::f_round`]: PE is not raised.
const QUIET: u8 = 8;

/// Rounding mode towards zero.
const TO_ZERO: u8 = 1;

/// `mode` of [`super::asm::Asm::f_round`] for a rounding mode that the host has.
fn round_mode(rm: u8) -> u8 {
    match rm {
        0 => 0,
        TO_ZERO => 3,
        2 => 1,
        3 => 2,
        _ => AS_MXCSR,
    }
}

impl Translator {
    /// To an integer in the same format; `quiet` is [`QUIET`] or 0.
    pub(super) fn round(&mut self, quiet: u8, op: &Op) {
        let fmt = op.fmt();
        self.check_boxed(fmt, op, &[op.a]);
        let a = self.f_get(op.a, XMM0);
        let d = self.f_target(op.rd);
        self.asm.f_round(fmt, round_mode(op.rm()) | quiet, d, a, Rm::Reg(a));
        self.canonicalize(fmt, d);
        self.f_put(op.rd, d);
    }

    pub(super) fn convert_format(&mut self, op: &Op) {
        let (to, from) = (op.fmt(), Fmt::from_bits(op.c.0));
        let done = self.asm.label();
        self.check_boxed(from, op, &[op.a]);
        let d = self.f_target(op.rd);
        match (from, to) {
            (Fmt::D, Fmt::S) => {
                self.check_rounding(op, done);
                let upper = self.constant(Constant::Box);
                self.asm.f_load(Fmt::D, XMM1, upper);
                let a = self.f_place(op.a);
                self.asm.scalar(from, vop::CONVERT, d, XMM1, a);
            }
            // To the same format there are no conversions.
            _ => {
                let a = self.f_get(op.a, XMM0);
                self.asm.scalar(from, vop::CONVERT, d, a, Rm::Reg(a));
            }
        }
        self.canonicalize(to, d);
        self.f_put(op.rd, d);
        self.asm.bind(done);
    }

    pub(super) fn int_to_float(&mut self, op: &Op) {
        let (fmt, kind) = (op.fmt(), IntKind::from_bits(op.c.0));
        let done = self.asm.label();
        let exact = fmt == Fmt::D && matches!(kind, IntKind::W | IntKind::Wu);
        if !exact {
            self.check_rounding(op, done);
        }
        let (wide, source) = self.signed_source(kind, op, done);
        let d = self.f_target(op.rd);
        // The conversion leaves the upper part as in its first source.
        if fmt == Fmt::S {
            let upper = self.constant(Constant::Box);
            self.asm.f_load(Fmt::D, XMM1, upper);
        } else {
            self.asm.logic(vop::XOR, XMM1, XMM1, Rm::Reg(XMM1));
        }
        self.asm.f_from_int(fmt, wide, d, XMM1, source);
        self.f_put(op.rd, d);
        self.asm.bind(done);
    }

    /// The source of a conversion as a signed number, and whether it is one of 64 bits.
    fn signed_source(&mut self, kind: IntKind, op: &Op, done: Label) -> (bool, Rm) {
        match kind {
            IntKind::W => (false, self.pins.loc(op.a).into()),
            IntKind::L => (true, self.pins.loc(op.a).into()),
            IntKind::Wu => {
                self.asm.rm(Width::D, op::MOV, RAX, self.pins.loc(op.a));
                (true, Rm::Reg(RAX))
            }
            IntKind::Lu => {
                let huge = self.cold_step(op, done);
                let a = self.get(op.a, RAX);
                self.asm.rm(Width::Q, op::TEST, a, Loc::Reg(a));
                self.asm.jcc(Cc::Sign, huge);
                (true, Rm::Reg(a))
            }
        }
    }

    pub(super) fn float_to_int(&mut self, op: &Op) {
        let kind = IntKind::from_bits(op.c.0);
        let done = self.asm.label();
        self.check_boxed(op.fmt(), op, &[op.a]);
        let cold = self.cold_step(op, done);
        match kind {
            IntKind::W | IntKind::L => {
                let wide = kind == IntKind::L;
                self.rounded_to_int(wide, op);
                // Only the smallest number, which stands for all that do not fit, overflows.
                let width = if wide { Width::Q } else { Width::D };
                self.asm.rm_imm(width, 7, Loc::Reg(RAX), 1);
                self.asm.jcc(Cc::Overflow, cold);
            }
            IntKind::Wu | IntKind::Lu => {
                self.check_unsigned_range(kind, op, cold);
                self.rounded_to_int(true, op);
            }
        }
        let inexact = !matches!(op.rm(), TO_ZERO | DYNAMIC);
        if inexact {
            // Rounding raised nothing: that is made up for now that the result is known to fit.
            let a = self.f_get(op.a, XMM0);
            self.asm.f_round(op.fmt(), round_mode(op.rm()), XMM0, a, Rm::Reg(a));
        }
        if matches!(kind, IntKind::W | IntKind::Wu) {
            self.sign_extend_w(RAX);
        }
        self.put(op.rd, RAX);
        self.asm.bind(done);
    }

    /// `rax = integer`; if it does not fit, the smallest one, and NV.
    fn rounded_to_int(&mut self, wide: bool, op: &Op) {
        let fmt = op.fmt();
        match op.rm() {
            rm @ (TO_ZERO | DYNAMIC) => {
                let a = self.f_place(op.a);
                self.asm.f_to_int(fmt, rm == TO_ZERO, wide, RAX, a);
            }
            rm => {
                let a = self.f_get(op.a, XMM0);
                self.asm.f_round(fmt, round_mode(rm) | QUIET, XMM0, a, Rm::Reg(a));
                self.asm.f_to_int(fmt, true, wide, RAX, Rm::Reg(XMM0));
            }
        }
    }

    /// Goes to `cold` unless the number is positive, and fits when rounded up. The exponent says so.
    fn check_unsigned_range(&mut self, kind: IntKind, op: &Op, cold: Label) {
        let bits = match (kind, op.rm()) {
            (IntKind::Wu, TO_ZERO) => 32,
            (IntKind::Wu, _) => 31,
            _ => 63,
        };
        let (width, fraction, bias) =
            if op.fmt() == Fmt::D { (Width::Q, 52, 1023) } else { (Width::D, 23, 127) };
        self.copy_bits(width, op.a);
        self.asm.shift_imm(width, 5, Loc::Reg(RAX), fraction);
        self.asm.rm_imm(Width::D, 7, Loc::Reg(RAX), bias + bits);
        self.asm.jcc(Cc::AboveEqual, cold);
    }

    /// `rax = bits of a floating-point register`
    fn copy_bits(&mut self, width: Width, reg: Reg) {
        match self.f_place(reg) {
            Rm::Slot(disp) => self.asm.rm(width, op::MOV, RAX, Loc::Slot(disp)),
            _ => {
                let host = self.f_get(reg, XMM0);
                self.asm.f_to_bits(width == Width::Q, RAX, host);
            }
        }
    }

    /// A load or store at a place that was found.
    pub(super) fn f_access(&mut self, o: &Op, place: Rm) {
        let fmt = o.fmt();
        if o.code == Code::FStore {
            let value = self.f_get(o.b, XMM0);
            return self.asm.f_store(fmt, value, place);
        }
        let d = self.f_target(o.rd);
        self.asm.f_load(fmt, d, place);
        if fmt == Fmt::S {
            self.box_single(d);
        }
        self.f_put(o.rd, d);
        self.note_result(o);
    }
}
