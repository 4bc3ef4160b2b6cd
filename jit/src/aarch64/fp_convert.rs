//! Conversions between formats, and from and to integers.

use dynasm::dynasm;
use frontend::ir::{Code, Fmt, IntKind, Op};

use super::Translator;
use super::asm::{Access, Cc, Label, Logic, Place, Width};
use super::fp::{V0, V1, fpsr};
use super::neon::{to_int, unary};
use super::regs::{X16, X17};
use crate::codegen::float::DYNAMIC;

/// How to round to an integer in the same format, and to an integer, in a rounding mode other than that in FPCR.
fn static_mode(rm: u8) -> Option<(u32, u32)> {
    match rm {
        0 => Some((unary::RINT_N, to_int::NEAREST)),
        1 => Some((unary::RINT_Z, to_int::ZERO)),
        2 => Some((unary::RINT_M, to_int::DOWN)),
        3 => Some((unary::RINT_P, to_int::UP)),
        _ => None,
    }
}

impl Translator {
    /// To an integer in the same format.
    pub(super) fn round(&mut self, op: &Op) {
        let fmt = op.fmt();
        let a = self.f_get(fmt, op.a, V0);
        let d = self.f_target(op.rd);
        let mode = static_mode(op.rm()).map_or(unary::RINT_I, |(mode, _)| mode);
        self.asm.f_unary(fmt, mode, d, a);
        self.f_put(fmt, op.rd, d);
    }

    /// The same, which raises NX.
    pub(super) fn round_inexact(&mut self, op: &Op) {
        let fmt = op.fmt();
        let a = self.f_get(fmt, op.a, V1);
        match static_mode(op.rm()) {
            None => self.asm.f_unary(fmt, unary::RINT_X, V0, a),
            Some((mode, _)) => {
                let (inexact, done) = (self.asm.label(), self.asm.label());
                self.asm.f_unary(fmt, mode, V0, a);
                self.asm.f_compare(fmt, false, V0, a);
                self.asm.b_cc(Cc::NotEqual, inexact);
                self.asm.bind(done);
                self.cold_branch(inexact, done, move |t| {
                    t.asm.b_cc(Cc::Unordered, done);
                    t.raise_inexact();
                });
            }
        }
        self.f_put(fmt, op.rd, V0);
    }

    /// Clobbers x17.
    fn raise_inexact(&mut self) {
        self.asm.read_fpsr(X17);
        self.asm.logic_imm(Width::Q, Logic::Orr, X17, X17, fpsr::IXC);
        self.asm.write_fpsr(X17);
    }

    pub(super) fn convert_format(&mut self, op: &Op) {
        let (to, from) = (op.fmt(), Fmt::from_bits(op.c.0));
        let done = self.asm.label();
        let d = match (from, to) {
            (Fmt::D, Fmt::S) => {
                self.check_rounding(op, done);
                let a = self.f_get(from, op.a, V1);
                let d = self.f_target(op.rd);
                self.asm.f_unary(from, unary::TO_S, d, a);
                d
            }
            // To the same format there are no conversions.
            _ => {
                let a = self.f_get(from, op.a, V1);
                let d = self.f_target(op.rd);
                self.asm.f_unary(from, unary::TO_D, d, a);
                d
            }
        };
        self.f_put(to, op.rd, d);
        self.asm.bind(done);
    }

    pub(super) fn int_to_float(&mut self, op: &Op) {
        let (fmt, kind) = (op.fmt(), IntKind::from_bits(op.c.0));
        let done = self.asm.label();
        let exact = fmt == Fmt::D && matches!(kind, IntKind::W | IntKind::Wu);
        if !exact {
            self.check_rounding(op, done);
        }
        let a = self.get(op.a, X16);
        let d = self.f_target(op.rd);
        let (unsigned, width) = shape(kind);
        self.asm.f_from_int(fmt, unsigned, width, d, a);
        self.f_put(fmt, op.rd, d);
        self.asm.bind(done);
    }

    /// The host saturates as RISC-V does, but makes 0 of NaN.
    pub(super) fn float_to_int(&mut self, op: &Op) {
        let (fmt, kind) = (op.fmt(), IntKind::from_bits(op.c.0));
        let (unsigned, width) = shape(kind);
        let done = self.asm.label();
        let a = self.f_get(fmt, op.a, V1);
        let unordered = self.cold_step(op, done);
        match static_mode(op.rm()) {
            Some((_, round)) => {
                self.asm.f_to_int(fmt, round, unsigned, width, X16, a);
                self.asm.f_compare(fmt, false, a, a);
                self.asm.b_cc(Cc::Unordered, unordered);
            }
            None => {
                debug_assert_eq!(op.rm(), DYNAMIC);
                let (inexact, rounded) = (self.asm.label(), self.asm.label());
                self.asm.f_unary(fmt, unary::RINT_I, V0, a);
                self.asm.f_to_int(fmt, to_int::ZERO, unsigned, width, X16, V0);
                self.asm.f_compare(fmt, false, V0, a);
                self.asm.b_cc(Cc::NotEqual, inexact);
                self.asm.bind(rounded);
                self.cold_branch(inexact, rounded, move |t| {
                    t.asm.b_cc(Cc::Unordered, unordered);
                    t.note_inexact(fmt, kind, rounded);
                });
            }
        }
        let d = self.target(op.rd);
        if width == Width::D {
            self.asm.sxtw(d, X16);
        } else {
            self.asm.mov(d, X16);
        }
        self.put(op.rd, d);
        self.asm.bind(done);
    }

    /// A number with a fraction was rounded to the one in v0, which became the integer in x16: raises NX, unless that does not fit, for
    /// which NV was raised; then goes on at `rounded`. It fits into 64 bits, as numbers with a fraction do.
    fn note_inexact(&mut self, fmt: Fmt, kind: IntKind, rounded: Label) {
        self.asm.f_to_int(fmt, to_int::ZERO, false, Width::Q, X17, V0);
        match kind {
            IntKind::W => dynasm!(self.asm ; .arch aarch64 ; cmp x17, w16, sxtw),
            IntKind::Wu => dynasm!(self.asm ; .arch aarch64 ; cmp x17, w16, uxtw),
            IntKind::L | IntKind::Lu => self.asm.cmp(Width::Q, X17, X16),
        }
        self.asm.b_cc(Cc::NotEqual, rounded);
        self.raise_inexact();
    }

    /// A load or store at a place that was found.
    pub(super) fn f_access(&mut self, o: &Op, place: Place) {
        let fmt = o.fmt();
        let log2 = fmt.bytes().ilog2() as u8;
        if o.code == Code::FStore {
            let value = self.f_get(fmt, o.b, V0);
            return self.asm.access(Access::store(log2).vector(), value, place, X17);
        }
        let d = self.f_target(o.rd);
        self.asm.access(Access::load(log2).vector(), d, place, X17);
        self.f_put(fmt, o.rd, d);
        self.note_result(o);
    }
}

/// Whether an integer is unsigned, and how wide it is.
fn shape(kind: IntKind) -> (bool, Width) {
    match kind {
        IntKind::W => (false, Width::D),
        IntKind::Wu => (true, Width::D),
        IntKind::L => (false, Width::Q),
        IntKind::Lu => (true, Width::Q),
    }
}
