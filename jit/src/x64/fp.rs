//! Floating point: registers, arithmetic, comparison. Conversions are in [`super::fp_convert`].
//!
//! MXCSR raises what RISC-V raises, at the same time: both detect tininess after rounding. What differs is left to the
//! interpreter, out of line and before the host has raised anything that the guest must not see: NaNs as results of fused
//! operations and of minimum and maximum, and rounding modes other than `frm`.
//!
//! A register that an operation reads as a single must hold a boxed one. That is known of results, and tested once in a
//! block of everything else; if the test fails, the interpreter goes on with the block, so that what was tested stays
//! known.
//!
//! Operations that [`is_inline`] lists use rax, xmm0, xmm1 and xmm2 as their only scratch registers.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Fmt, Op, Reg};

use super::Translator;
use super::asm::{Cc, Label, Width, op};
use super::bits::shift;
use super::entry::Constant;
use super::regs::{Loc, RAX, RCX, RDX, f_pinned, f_slot, field};
use super::vex::{Rm, vop};
use crate::codegen::float::{DYNAMIC, class, is_inline, writes_f};

pub(super) const XMM0: u8 = 0;
pub(super) const XMM1: u8 = 1;
const XMM2: u8 = 2;

/// The canonical NaN, boxed.
fn nan(fmt: Fmt) -> Constant {
    if fmt == Fmt::D { Constant::NanD } else { Constant::NanS }
}

fn bit(reg: Reg) -> u32 {
    1 << (reg.0 & 31)
}

impl Translator {
    /// An operation of which [`is_float`](crate::codegen::float::is_float) is true.
    pub(super) fn float(&mut self, op: &Op) {
        use Code::*;
        if !is_inline(op) {
            self.step(op);
            return self.note_result(op);
        }
        match op.code {
            FpOn => return self.fp_on(op, self.site(op.at)),
            FConst => self.f_const(op.rd, op.imm as u64),
            FAdd => self.arithmetic(vop::ADD, op),
            FSub => self.arithmetic(vop::SUB, op),
            FMul => self.arithmetic(vop::MUL, op),
            FDiv => self.arithmetic(vop::DIV, op),
            FSqrt => self.square_root(op),
            FMadd => self.fused(vop::FMADD, op),
            FMsub => self.fused(vop::FMSUB, op),
            FNmsub => self.fused(vop::FNMADD, op),
            FNmadd => self.fused(vop::FNMSUB, op),
            FSgnj | FSgnjn | FSgnjx => self.sign(op),
            FMin => self.select_float(vop::MIN, vop::OR, op),
            FMax => self.select_float(vop::MAX, vop::AND, op),
            FRound => self.round(8, op),
            FRoundNx => self.round(0, op),
            FCvtFmt => self.convert_format(op),
            FEq => self.equal(op),
            FLt => self.less(vop::COMI, Cc::Above, op),
            FLe => self.less(vop::COMI, Cc::AboveEqual, op),
            FLtq => self.less(vop::UCOMI, Cc::Above, op),
            FLeq => self.less(vop::UCOMI, Cc::AboveEqual, op),
            FClass => self.class(op),
            FToInt => self.float_to_int(op),
            FFromInt => self.int_to_float(op),
            FToBits => self.float_to_bits(op),
            _ => self.bits_to_float(op),
        }
        self.note_result(op);
    }

    /// Notes whether the result of an operation is a boxed single.
    pub(super) fn note_result(&mut self, op: &Op) {
        if writes_f(op) {
            // A boxed half is a boxed single, too.
            if op.fmt() == Fmt::D {
                self.boxed &= !bit(op.rd);
            } else {
                self.boxed |= bit(op.rd);
            }
        }
    }

    /// Makes the floating-point registers live, at a site.
    pub(super) fn fp_on(&mut self, op: &Op, site: u32) {
        let dirty = op.aux != 0;
        let (off, on) = (self.asm.label(), self.asm.label());
        let mask = if dirty { 2 } else { 1 };
        dynasm!(self.asm ; .arch x64 ; test BYTE [r15 + field!(native.fp_live)], mask);
        self.asm.jcc(Cc::Equal, off);
        self.asm.bind(on);
        let bits = op.imm as u32;
        self.cold_branch(off, on, move |t| {
            // This may be in a run, which has the addends of its bases there.
            t.asm.f_from_bits(true, XMM0, Rm::Reg(RCX));
            t.asm.f_from_bits(true, XMM1, Rm::Reg(RDX));
            t.asm.mov_imm(RCX, site.into());
            t.asm.mov_imm(RDX, bits.into());
            t.call_shared(t.thunks.fp_on[usize::from(dirty)]);
            t.asm.f_to_bits(true, RCX, XMM0);
            t.asm.f_to_bits(true, RDX, XMM1);
        });
    }

    /// Code out of line that has the interpreter carry out `op` and goes on at `done`. It keeps rcx and rdx.
    pub(super) fn cold_step(&mut self, op: &Op, done: Label) -> Label {
        let cold = self.asm.label();
        let op = *op;
        self.cold_branch(cold, done, move |t| {
            dynasm!(t.asm ; .arch x64
                ; mov [r15 + field!(native.spill)], rcx
                ; mov [r15 + field!(native.spill) + 8], rdx
            );
            t.step(&op);
            dynasm!(t.asm ; .arch x64
                ; mov rcx, [r15 + field!(native.spill)]
                ; mov rdx, [r15 + field!(native.spill) + 8]
            );
        });
        cold
    }

    /// Makes sure that registers read as singles are boxed.
    pub(super) fn check_boxed(&mut self, fmt: Fmt, op: &Op, regs: &[Reg]) {
        for &reg in regs {
            if fmt != Fmt::S || self.boxed & bit(reg) != 0 {
                continue;
            }
            let upper = match f_pinned(reg.0) {
                Some(host) => {
                    self.asm.f_upper_bits(RAX, host);
                    Loc::Reg(RAX)
                }
                None => Loc::Slot(f_slot(reg.0) + 4),
            };
            self.asm.rm_imm(Width::D, 7, upper, -1);
            let unboxed = self.asm.label();
            self.asm.jcc(Cc::NotEqual, unboxed);
            self.boxed |= bit(reg);
            let site = self.site(op.at);
            self.cold(move |t| {
                t.asm.bind(unboxed);
                t.asm.mov_imm(RCX, site.into());
                t.call_shared(t.thunks.interpret);
            });
        }
    }

    /// Makes sure that `frm` is the rounding mode of `op`; else has the interpreter carry out `op` and goes on at `done`.
    pub(super) fn check_rounding(&mut self, op: &Op, done: Label) {
        if op.rm() != DYNAMIC {
            let cold = self.cold_step(op, done);
            let rm = op.rm() as i8;
            dynasm!(self.asm ; .arch x64 ; cmp BYTE [r15 + field!(frm)], rm);
            self.asm.jcc(Cc::NotEqual, cold);
        }
    }

    /// Makes a NaN the canonical one.
    pub(super) fn canonicalize(&mut self, fmt: Fmt, host: u8) {
        let (unordered, done) = (self.asm.label(), self.asm.label());
        self.asm.f_compare(fmt, vop::UCOMI, host, Rm::Reg(host));
        self.asm.jcc(Cc::Parity, unordered);
        self.asm.bind(done);
        self.cold_branch(unordered, done, move |t| {
            let nan = t.constant(nan(fmt));
            t.asm.f_load(Fmt::D, host, nan);
        });
    }

    pub(super) fn constant(&self, constant: Constant) -> Rm {
        Rm::Arena(constant.place())
    }

    /// Where a floating-point register is.
    pub(super) fn f_place(&self, reg: Reg) -> Rm {
        f_pinned(reg.0).map_or(Rm::Slot(f_slot(reg.0)), Rm::Reg)
    }

    /// The host register that holds `reg`: its own, or `scratch`, loaded now.
    pub(super) fn f_get(&mut self, reg: Reg, scratch: u8) -> u8 {
        match self.f_place(reg) {
            Rm::Reg(host) => host,
            slot => {
                self.asm.f_load(Fmt::D, scratch, slot);
                scratch
            }
        }
    }

    /// Where to compute a result.
    pub(super) fn f_target(&self, rd: Reg) -> u8 {
        f_pinned(rd.0).unwrap_or(XMM0)
    }

    /// Writes a result that is in a host register.
    pub(super) fn f_put(&mut self, rd: Reg, from: u8) {
        match self.f_place(rd) {
            Rm::Reg(host) => self.asm.f_move(host, from),
            slot => self.asm.f_store(Fmt::D, from, slot),
        }
    }

    fn f_const(&mut self, rd: Reg, bits: u64) {
        let d = self.f_target(rd);
        self.asm.mov_imm(RAX, bits);
        self.asm.f_from_bits(true, d, Rm::Reg(RAX));
        self.f_put(rd, d);
    }

    fn arithmetic(&mut self, opcode: u8, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_boxed(fmt, op, &[op.a, op.b]);
        self.check_rounding(op, done);
        let commutes = matches!(opcode, vop::ADD | vop::MUL);
        let swap = commutes && f_pinned(op.a.0).is_none() && f_pinned(op.b.0).is_some();
        let (a, b) = if swap { (op.b, op.a) } else { (op.a, op.b) };
        let a = self.f_get(a, XMM0);
        let b = self.f_place(b);
        let d = self.f_target(op.rd);
        self.asm.scalar(fmt, opcode, d, a, b);
        self.canonicalize(fmt, d);
        self.f_put(op.rd, d);
        self.asm.bind(done);
    }

    fn square_root(&mut self, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_boxed(fmt, op, &[op.a]);
        self.check_rounding(op, done);
        let a = self.f_get(op.a, XMM0);
        let d = self.f_target(op.rd);
        self.asm.scalar(fmt, vop::SQRT, d, a, Rm::Reg(a));
        self.canonicalize(fmt, d);
        self.f_put(op.rd, d);
        self.asm.bind(done);
    }

    /// The host does not raise NV for `inf * 0 + NaN`. What it raises for other NaNs, the interpreter raises, too.
    fn fused(&mut self, opcode: u8, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_boxed(fmt, op, &[op.a, op.b, op.c]);
        self.check_rounding(op, done);
        let d = match f_pinned(op.rd.0) {
            Some(host) if ![op.a, op.b, op.c].contains(&op.rd) => host,
            _ => XMM0,
        };
        let a = self.f_get(op.a, d);
        self.asm.f_move(d, a);
        let b = self.f_get(op.b, XMM1);
        let c = self.f_place(op.c);
        self.asm.fma(fmt, opcode, d, b, c);
        let unordered = self.cold_step(op, done);
        self.asm.f_compare(fmt, vop::UCOMI, d, Rm::Reg(d));
        self.asm.jcc(Cc::Parity, unordered);
        self.f_put(op.rd, d);
        self.asm.bind(done);
    }

    fn sign(&mut self, op: &Op) {
        let fmt = op.fmt();
        self.check_boxed(fmt, op, &[op.a, op.b]);
        let sign = self.constant(if fmt == Fmt::D { Constant::SignD } else { Constant::SignS });
        let a = self.f_get(op.a, XMM0);
        let d = self.f_target(op.rd);
        match op.code {
            Code::FSgnj if op.a == op.b => return self.f_put(op.rd, a),
            Code::FSgnjn if op.a == op.b => self.asm.logic(vop::XOR, d, a, sign),
            _ => {
                self.asm.f_load(Fmt::D, XMM2, sign);
                if op.a == op.b {
                    self.asm.logic(vop::ANDN, d, XMM2, Rm::Reg(a));
                } else {
                    let b = self.f_get(op.b, XMM1);
                    self.mix_signs(op.code, d, a, b);
                }
            }
        }
        self.f_put(op.rd, d);
    }

    /// The sign bit is in xmm2.
    fn mix_signs(&mut self, code: Code, d: u8, a: u8, b: u8) {
        if code == Code::FSgnjx {
            self.asm.logic(vop::AND, XMM1, b, Rm::Reg(XMM2));
            return self.asm.logic(vop::XOR, d, a, Rm::Reg(XMM1));
        }
        if code == Code::FSgnj {
            self.asm.logic(vop::AND, XMM1, b, Rm::Reg(XMM2));
        } else {
            self.asm.logic(vop::ANDN, XMM1, b, Rm::Reg(XMM2));
        }
        self.asm.logic(vop::ANDN, d, XMM2, Rm::Reg(a));
        self.asm.logic(vop::OR, d, d, Rm::Reg(XMM1));
    }

    /// Minimum or maximum. `zero` gives the right one of two zeros.
    fn select_float(&mut self, opcode: u8, zero: u8, op: &Op) {
        let fmt = op.fmt();
        let (equal, put, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.check_boxed(fmt, op, &[op.a, op.b]);
        let a = self.f_get(op.a, XMM0);
        let b = self.f_get(op.b, XMM1);
        let d = self.f_target(op.rd);
        self.asm.f_compare(fmt, vop::UCOMI, a, Rm::Reg(b));
        self.asm.jcc(Cc::Equal, equal);
        self.asm.scalar(fmt, opcode, d, a, Rm::Reg(b));
        self.asm.bind(put);
        self.f_put(op.rd, d);
        self.asm.bind(done);
        let unordered = self.cold_step(op, done);
        self.cold_branch(equal, put, move |t| {
            t.asm.jcc(Cc::Parity, unordered);
            t.asm.logic(zero, d, a, Rm::Reg(b));
        });
    }

    fn equal(&mut self, op: &Op) {
        let fmt = op.fmt();
        self.check_boxed(fmt, op, &[op.a, op.b]);
        let a = self.f_get(op.a, XMM0);
        let b = self.f_place(op.b);
        self.asm.f_equal(fmt, XMM0, a, b);
        let d = self.target(op.rd, &[]);
        self.asm.f_to_bits(false, d, XMM0);
        self.asm.rm_imm(Width::D, 4, Loc::Reg(d), 1);
        self.put(op.rd, d);
    }

    /// `a < b` as `b > a`: that is false for unordered operands.
    fn less(&mut self, opcode: u8, cc: Cc, op: &Op) {
        let fmt = op.fmt();
        self.check_boxed(fmt, op, &[op.a, op.b]);
        let b = self.f_get(op.b, XMM0);
        let a = self.f_place(op.a);
        self.set_after(cc, op.rd, &[], false, |t| t.asm.f_compare(fmt, opcode, b, a));
    }

    /// A normal number is told by its exponent; the others are told apart out of line.
    fn class(&mut self, op: &Op) {
        let fmt = op.fmt();
        let (special, put) = (self.asm.label(), self.asm.label());
        self.check_boxed(fmt, op, &[op.a]);
        let (fraction, exponent, width) = if fmt == Fmt::D { (52, 11, Width::Q) } else { (23, 8, Width::D) };
        self.f_copy_bits(fmt, RAX, op.a);
        self.asm.shift_imm(width, shift::SHR, Loc::Reg(RAX), fraction);
        // The sign is above the exponent, of which those of all zeros and of all ones become 1 and 0.
        dynasm!(self.asm ; .arch x64 ; add eax, BYTE 1 ; test eax, (1 << exponent) - 2);
        self.asm.jcc(Cc::Equal, special);
        self.asm.shift_imm(Width::D, shift::SHR, Loc::Reg(RAX), exponent);
        dynasm!(self.asm ; .arch x64
            ; dec eax
            ; and eax, BYTE (class::NORMAL - class::NEGATIVE_NORMAL) as i8
            ; add eax, BYTE class::NEGATIVE_NORMAL as i8
        );
        self.asm.bind(put);
        self.put(op.rd, RAX);
        let a = op.a;
        self.cold_branch(special, put, move |t| {
            let (finite, infinite, choose) = (t.asm.label(), t.asm.label(), t.asm.label());
            let shift_sign_out = |t: &mut Self| t.asm.rm(width, op::ADD, RCX, Loc::Reg(RCX));
            let signs = |t: &mut Self, plus: u32, minus: u32| {
                t.asm.mov_imm32(RAX, plus);
                t.asm.mov_imm32(RCX, minus);
            };
            // This may be in a run, which has an addend in rcx.
            dynasm!(t.asm ; .arch x64 ; mov [r15 + field!(native.spill)], rcx);
            t.f_copy_bits(fmt, RCX, a);
            dynasm!(t.asm ; .arch x64 ; test al, BYTE 1);
            t.asm.jcc(Cc::NotEqual, finite);
            t.mov(RAX, RCX);
            // What is left is the fraction; a quiet NaN has its first bit.
            t.asm.shift_imm(width, shift::SHL, Loc::Reg(RAX), exponent + 1);
            t.asm.jcc(Cc::Equal, infinite);
            t.asm.rm(width, op::ADD, RAX, Loc::Reg(RAX));
            signs(t, class::SIGNALLING_NAN, class::QUIET_NAN);
            t.asm.jmp(choose);
            t.asm.bind(infinite);
            shift_sign_out(t);
            signs(t, class::INFINITE, class::NEGATIVE_INFINITE);
            t.asm.jmp(choose);
            t.asm.bind(finite);
            shift_sign_out(t);
            signs(t, class::ZERO, class::NEGATIVE_ZERO);
            t.asm.jcc(Cc::Equal, choose);
            signs(t, class::SUBNORMAL, class::NEGATIVE_SUBNORMAL);
            t.asm.bind(choose);
            dynasm!(t.asm ; .arch x64 ; cmovc eax, ecx ; mov rcx, [r15 + field!(native.spill)]);
        });
    }

    /// Copies the bits of a format from a floating-point register to a general one.
    fn f_copy_bits(&mut self, fmt: Fmt, host: u8, reg: Reg) {
        let wide = fmt == Fmt::D;
        match self.f_place(reg) {
            Rm::Slot(slot) => {
                self.asm.rm(if wide { Width::Q } else { Width::D }, op::MOV, host, Loc::Slot(slot));
            }
            _ => {
                let a = self.f_get(reg, XMM0);
                self.asm.f_to_bits(wide, host, a);
            }
        }
    }

    fn float_to_bits(&mut self, op: &Op) {
        let wide = op.fmt() == Fmt::D;
        let d = self.target(op.rd, &[]);
        match (self.f_place(op.a), wide) {
            (Rm::Slot(disp), true) => self.asm.rm(Width::Q, op::MOV, d, Loc::Slot(disp)),
            (Rm::Slot(disp), false) => self.asm.rm(Width::Q, op::MOVSXD, d, Loc::Slot(disp)),
            _ => {
                let a = self.f_get(op.a, XMM0);
                self.asm.f_to_bits(wide, d, a);
                if !wide {
                    self.sign_extend_w(d);
                }
            }
        }
        self.put(op.rd, d);
    }

    fn bits_to_float(&mut self, op: &Op) {
        let d = self.f_target(op.rd);
        if op.a == Reg::ZERO {
            self.asm.logic(vop::XOR, d, d, Rm::Reg(d));
        } else {
            self.asm.f_from_bits(op.fmt() == Fmt::D, d, self.pins.loc(op.a).into());
        }
        if op.fmt() == Fmt::S {
            self.box_single(d);
        }
        self.f_put(op.rd, d);
    }

    /// Sets the upper half.
    pub(super) fn box_single(&mut self, host: u8) {
        let upper = self.constant(Constant::Box);
        self.asm.logic(vop::OR, host, host, upper);
    }
}
