//! Floating point: registers, arithmetic, comparison. Conversions are in [`super::fp_convert`].
//!
//! FPSR raises what RISC-V raises, at the same time, but for underflow: the host detects tininess before rounding, RISC-V after it.
//! So UFC is looked at after a group of operations, and before Rust code runs; [`crate::codegen::underflow`] says where. FPCR makes
//! every NaN that an operation returns the canonical one. What else differs is left to the interpreter, before the host has raised
//! anything that the guest must not see: NaNs as results of minimum and maximum, and rounding modes other than `frm`.
//!
//! A register that an operation reads as a single must hold a boxed one. That is known of results, and tested once in a
//! block of everything else; if the test fails, the interpreter goes on with the block, so that what was tested stays
//! known.
//!
//! Operations that [`is_inline`] lists use x16, x17, v0, v1 and v2 as their only scratch registers.

use dynasm::dynasm;
use frontend::ir::{Code, Fmt, Op, Reg};

use super::Translator;
use super::asm::{Access, Cc, Label, Place, Width};
use super::neon::{binary, fused, logic, unary};
use super::regs::{FP_DIRTY, FP_LIVE, Loc, STATE, X14, X15, X16, X17, XZR, f_pinned, f_slot, field};
use crate::codegen::float::{DYNAMIC, class, is_inline, writes_f};
use crate::codegen::underflow::Guard;

pub(super) const V0: u8 = 0;
pub(super) const V1: u8 = 1;
const V2: u8 = 2;
/// The upper half of a boxed single.
pub(super) const BOX: u8 = 3;

/// Bits of FPSR.
pub(super) mod fpsr {
    pub(in super::super) const UFC_BIT: u8 = 3;
    pub(in super::super) const IXC: u64 = 1 << 4;
}

fn bit(reg: Reg) -> u32 {
    1 << (reg.0 & 31)
}

/// The width of a general register for the bits of a format.
pub(super) fn width(fmt: Fmt) -> Width {
    if fmt == Fmt::D { Width::Q } else { Width::D }
}

impl Translator {
    /// An operation of which [`is_float`](crate::codegen::float::is_float) is true.
    pub(super) fn float(&mut self, op: &Op) {
        use Code::*;
        if !is_inline(op) {
            self.step(op);
            return self.note_result(op);
        }
        self.check_boxed(op);
        match op.code {
            FpOn => return self.fp_on(op, self.site(op.at)),
            FConst => self.f_const(op.rd, op.imm as u64),
            FAdd => self.arithmetic(binary::ADD, op),
            FSub => self.arithmetic(binary::SUB, op),
            FMul => self.arithmetic(binary::MUL, op),
            FDiv => self.arithmetic(binary::DIV, op),
            FSqrt => self.square_root(op),
            FMadd => self.fused(fused::MADD, op),
            FMsub => self.fused(fused::NMSUB, op),
            FNmsub => self.fused(fused::MSUB, op),
            FNmadd => self.fused(fused::NMADD, op),
            FSgnj | FSgnjn | FSgnjx => self.sign(op),
            FMin => self.select_float(binary::MINNM, op),
            FMax => self.select_float(binary::MAXNM, op),
            FRound => self.round(op),
            FRoundNx => self.round_inexact(op),
            FCvtFmt => self.convert_format(op),
            FEq => self.compare_float(false, Cc::Equal, op),
            FLt => self.compare_float(true, Cc::Minus, op),
            FLe => self.compare_float(true, Cc::BelowEqual, op),
            FLtq => self.compare_float(false, Cc::Minus, op),
            FLeq => self.compare_float(false, Cc::BelowEqual, op),
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
        let bit = if dirty { FP_DIRTY } else { FP_LIVE };
        if self.is_near {
            self.asm.tbz(false, STATE, bit, off);
        } else {
            self.asm.tst_imm(Width::Q, STATE, 1 << bit);
            self.asm.b_cc(Cc::Equal, off);
        }
        self.asm.bind(on);
        let bits = op.imm as u32;
        self.cold_branch(off, on, move |t| {
            t.asm.mov_imm(X17, site.into());
            t.asm.mov_imm(X16, bits.into());
            t.call_shared(t.thunks.fp_on[usize::from(dirty)]);
        });
    }

    /// Code out of line that has the interpreter carry out `op` and goes on at `done`. It keeps x14 and x15.
    pub(super) fn cold_step(&mut self, op: &Op, done: Label) -> Label {
        let cold = self.asm.label();
        let (op, index) = (*op, self.index);
        self.cold_branch(cold, done, move |t| {
            t.index = index;
            t.asm.str(X14, field!(native.spill));
            t.asm.str(X15, field!(native.spill) + 8);
            t.step(&op);
            t.asm.ldr(X14, field!(native.spill));
            t.asm.ldr(X15, field!(native.spill) + 8);
        });
        cold
    }

    /// Makes sure that registers that `op` reads as singles are boxed; and others that the block reads, since it asks.
    fn check_boxed(&mut self, op: &Op) {
        let asked = self.boxes.before(self.index, op, self.boxed);
        if asked != 0 {
            let (site, index) = (self.site(op.at), self.index);
            self.ask_boxed(asked, move |t| {
                t.settle(0, index);
                t.interpret(site);
            });
        }
    }

    /// Makes sure that these registers are boxed, or carries out `unboxed`, which leaves the block. Clobbers x16, v0 and v1.
    pub(super) fn ask_boxed(&mut self, asked: u32, unboxed: impl FnOnce(&mut Translator) + 'static) {
        let mut all = None;
        for reg in (0..32).map(Reg).filter(|&reg| asked & bit(reg) != 0) {
            let host = self.f_get(Fmt::D, reg, if all.is_some() { V1 } else { V0 });
            all = Some(match all {
                Some(others) => {
                    self.asm.vector(logic::AND, V0, others, host);
                    V0
                }
                None => host,
            });
        }
        let Some(all) = all else { return };
        self.asm.f_upper_bits(X16, all);
        dynasm!(self.asm ; .arch aarch64 ; cmn w16, #1);
        let cold = self.asm.label();
        self.asm.b_cc(Cc::NotEqual, cold);
        self.boxed |= asked;
        self.cold(move |t| {
            t.asm.bind(cold);
            unboxed(t);
        });
    }

    /// Has the interpreter go on with the block from a site.
    pub(super) fn interpret(&mut self, site: u32) {
        self.asm.mov_imm(X17, site.into());
        self.call_shared(self.thunks.interpret);
    }

    /// Makes sure that `frm` is the rounding mode of `op`; else has the interpreter carry out `op` and goes on at `done`.
    pub(super) fn check_rounding(&mut self, op: &Op, done: Label) {
        if op.rm() != DYNAMIC {
            let cold = self.cold_step(op, done);
            self.asm.ldrb(X16, field!(frm));
            self.asm.cmp_imm12(X16, op.rm().into());
            self.asm.b_cc(Cc::NotEqual, cold);
        }
    }

    /// What has to be done about underflow before the operation at `index`. Clobbers x17 and v0.
    pub(super) fn guard(&mut self, index: usize) {
        for guard in self.underflow.before(index) {
            match guard {
                Guard::Look => {
                    let (raised, looked) = (self.asm.label(), self.asm.label());
                    self.asm.read_fpsr(X17);
                    if self.is_near {
                        self.asm.tbz(true, X17, fpsr::UFC_BIT, raised);
                    } else {
                        self.asm.tst_imm(Width::Q, X17, 1 << fpsr::UFC_BIT);
                        self.asm.b_cc(Cc::NotEqual, raised);
                    }
                    self.asm.bind(looked);
                    self.cold_branch(raised, looked, move |t| {
                        let group = t.underflow.group(index);
                        t.look_again(&group);
                    });
                }
                Guard::Save { reg, slot } => {
                    let fmt = if self.underflow.saves_single(index, reg) { Fmt::S } else { Fmt::D };
                    let host = self.f_get(fmt, Reg(reg), V0);
                    self.asm.vector_of_state(false, host, field!(native.saved) + 8 * i32::from(slot));
                }
            }
        }
    }

    /// Rust code is going to see the flags, in the middle of the operation at `index`: nothing may be left to look at. What was done
    /// before the operation at `from` has been looked at. Keeps x14 and x15.
    pub(super) fn settle(&mut self, from: usize, index: usize) {
        let begun = self.underflow.begun(from, index);
        if !begun.is_empty() {
            self.look_again(&begun);
        }
    }

    fn look_again(&mut self, ops: &[Op]) {
        let list = self.asm.label();
        for (index, op) in ops.iter().enumerate() {
            let label = if index == 0 { list } else { self.asm.label() };
            self.data.push((label, *op));
        }
        self.asm.adr(X16, list);
        self.asm.mov_imm(X17, ops.len() as u64);
        self.call_shared(self.thunks.underflow);
    }

    /// The host register that holds `reg`, for an instruction on that format: its own, or `scratch`, loaded now.
    pub(super) fn f_get(&mut self, fmt: Fmt, reg: Reg, scratch: u8) -> u8 {
        if fmt != Fmt::S {
            self.put_box(reg);
        }
        f_pinned(reg.0).unwrap_or_else(|| {
            self.asm.vector_of_state(true, scratch, f_slot(reg.0));
            scratch
        })
    }

    /// Where to compute a result.
    pub(super) fn f_target(&self, rd: Reg) -> u8 {
        f_pinned(rd.0).unwrap_or(V0)
    }

    /// Where to compute a result that must not be in a register of `sources`.
    pub(super) fn f_apart(&self, rd: Reg, sources: &[Reg]) -> u8 {
        f_pinned(rd.0).filter(|_| !sources.contains(&rd)).unwrap_or(V0)
    }

    /// Writes a result that is in a host register; a single is boxed, if need be later.
    pub(super) fn f_put(&mut self, fmt: Fmt, rd: Reg, from: u8) {
        let d = f_pinned(rd.0).unwrap_or(from);
        let is_put_off = fmt == Fmt::S && d == from && f_pinned(rd.0).is_some();
        if fmt == Fmt::S && !is_put_off {
            self.asm.vector(logic::ORR, d, from, BOX);
        } else {
            self.asm.f_move(d, from);
        }
        self.pending.set_unboxed(rd, is_put_off);
        if f_pinned(rd.0).is_none() {
            self.asm.vector_of_state(false, d, f_slot(rd.0));
        }
    }

    fn f_const(&mut self, rd: Reg, bits: u64) {
        let d = self.f_target(rd);
        let from = if bits == 0 { XZR } else { X16 };
        if bits != 0 {
            self.asm.mov_imm(X16, bits);
        }
        self.asm.f_from_bits(Width::Q, d, from);
        self.f_put(Fmt::D, rd, d);
    }

    fn arithmetic(&mut self, opcode: u32, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_rounding(op, done);
        let a = self.f_get(fmt, op.a, V0);
        let b = self.f_get(fmt, op.b, V1);
        let d = self.f_target(op.rd);
        self.asm.f_binary(fmt, opcode, d, a, b);
        self.f_put(fmt, op.rd, d);
        self.asm.bind(done);
    }

    fn square_root(&mut self, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_rounding(op, done);
        let a = self.f_get(fmt, op.a, V0);
        let d = self.f_target(op.rd);
        self.asm.f_unary(fmt, unary::SQRT, d, a);
        self.f_put(fmt, op.rd, d);
        self.asm.bind(done);
    }

    /// The host raises IOC for `inf * 0 + NaN`, as RISC-V wants it.
    fn fused(&mut self, opcode: u32, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        self.check_rounding(op, done);
        let a = self.f_get(fmt, op.a, V0);
        let b = self.f_get(fmt, op.b, V1);
        let c = self.f_get(fmt, op.c, V2);
        let d = self.f_target(op.rd);
        self.asm.f_fused(fmt, opcode, d, a, b, c);
        self.f_put(fmt, op.rd, d);
        self.asm.bind(done);
    }

    fn sign(&mut self, op: &Op) {
        let fmt = op.fmt();
        let a = self.f_get(fmt, op.a, V0);
        let d = self.f_target(op.rd);
        match op.code {
            // The box is copied, too.
            Code::FSgnj if op.a == op.b => {
                let is_unboxed = self.pending.is_unboxed(op.a) && f_pinned(op.rd.0).is_some();
                if !is_unboxed {
                    self.put_box(op.a);
                }
                self.f_put(Fmt::D, op.rd, a);
                return self.pending.set_unboxed(op.rd, is_unboxed);
            }
            Code::FSgnjn if op.a == op.b => self.asm.f_unary(fmt, unary::NEG, d, a),
            Code::FSgnjx if op.a == op.b => self.asm.f_unary(fmt, unary::ABS, d, a),
            _ => {
                let b = self.f_get(fmt, op.b, V1);
                self.mix_signs(op.code, fmt, a, b);
                return self.f_put(fmt, op.rd, V0);
            }
        }
        self.f_put(fmt, op.rd, d);
    }

    /// `v0 = a`, with another sign. What is in the upper half of singles is of no interest.
    fn mix_signs(&mut self, code: Code, fmt: Fmt, a: u8, b: u8) {
        self.asm.f_sign_mask(fmt, V2);
        if code == Code::FSgnjx {
            self.asm.vector(logic::AND, V1, b, V2);
            return self.asm.vector(logic::EOR, V0, a, V1);
        }
        let mut signs = b;
        if code == Code::FSgnjn {
            self.asm.f_unary(fmt, unary::NEG, V1, b);
            signs = V1;
        }
        self.asm.f_move(V0, a);
        self.asm.vector(logic::BIT, V0, signs, V2);
    }

    /// Minimum or maximum. Of a signalling NaN and a number the host makes a NaN.
    fn select_float(&mut self, opcode: u32, op: &Op) {
        let fmt = op.fmt();
        let done = self.asm.label();
        let a = self.f_get(fmt, op.a, V0);
        let b = self.f_get(fmt, op.b, V1);
        let d = self.f_apart(op.rd, &[op.a, op.b]);
        self.asm.f_binary(fmt, opcode, d, a, b);
        let unordered = self.cold_step(op, done);
        self.asm.f_compare(fmt, false, d, d);
        self.asm.b_cc(Cc::Unordered, unordered);
        self.f_put(fmt, op.rd, d);
        self.asm.bind(done);
    }

    /// The conditions are false for unordered operands.
    fn compare_float(&mut self, signalling: bool, cc: Cc, op: &Op) {
        let fmt = op.fmt();
        let a = self.f_get(fmt, op.a, V0);
        let b = self.f_get(fmt, op.b, V1);
        self.asm.f_compare(fmt, signalling, a, b);
        self.set(cc, op.rd);
    }

    /// A normal number is told by its exponent; the others are told apart out of line.
    fn class(&mut self, op: &Op) {
        let (special, choose) = (self.asm.label(), self.asm.label());
        let (fraction, exponent): (u8, u8) = if op.fmt() == Fmt::D { (52, 11) } else { (23, 8) };
        let width = width(op.fmt());
        let last = width.bits() - 1;
        let signs = |t: &mut Self, plus: u32, minus: u32| {
            t.asm.mov_imm(X16, plus.into());
            t.asm.mov_imm(X17, minus.into());
        };
        self.f_copy_bits(X16, op.a);
        self.asm.bitfield(width, false, X17, X16, fraction, last);
        // The sign is above the exponent, of which those of all zeros and of all ones become 1 and 0.
        dynasm!(self.asm ; .arch aarch64 ; add w17, w17, #1);
        self.asm.tst_imm(Width::D, X17, (1 << exponent) - 2);
        self.asm.b_cc(Cc::Equal, special);
        self.asm.cmp(width, X16, XZR);
        signs(self, class::NORMAL, class::NEGATIVE_NORMAL);
        self.asm.bind(choose);
        let d = self.target(op.rd);
        self.asm.csel(Width::Q, d, X17, X16, Cc::Minus);
        self.put(op.rd, d);
        self.cold_branch(special, choose, move |t| {
            let (finite, infinite, subnormal) = (t.asm.label(), t.asm.label(), t.asm.label());
            t.asm.tst_imm(Width::D, X17, 1);
            t.asm.b_cc(Cc::NotEqual, finite);
            // What is left is the fraction; a quiet NaN has its first bit.
            t.asm.bitfield(width, false, X17, X16, (exponent + 1).wrapping_neg(), fraction - 1);
            t.asm.cbz(width, false, X17, infinite);
            t.asm.cmp(width, X17, XZR);
            signs(t, class::SIGNALLING_NAN, class::QUIET_NAN);
            t.asm.b(choose);
            t.asm.bind(infinite);
            t.asm.cmp(width, X16, XZR);
            signs(t, class::INFINITE, class::NEGATIVE_INFINITE);
            t.asm.b(choose);
            t.asm.bind(finite);
            t.asm.cmp(width, X16, XZR);
            t.asm.bitfield(width, false, X17, X16, u8::MAX, last - 1);
            t.asm.cbz(width, true, X17, subnormal);
            signs(t, class::ZERO, class::NEGATIVE_ZERO);
            t.asm.b(choose);
            t.asm.bind(subnormal);
            signs(t, class::SUBNORMAL, class::NEGATIVE_SUBNORMAL);
        });
    }

    fn float_to_bits(&mut self, op: &Op) {
        let d = self.target(op.rd);
        if op.fmt() == Fmt::D {
            self.put_box(op.a);
        }
        match (f_pinned(op.a.0), op.fmt()) {
            (Some(a), Fmt::D) => self.asm.f_to_bits(Width::Q, d, a),
            (Some(a), _) => self.asm.f_low_bits(d, a),
            (None, Fmt::D) => self.asm.ldr(d, f_slot(op.a.0)),
            (None, _) => {
                let place = Place::Offset(STATE, f_slot(op.a.0).into());
                self.asm.access(Access::load_signed(2), d, place, X17);
            }
        }
        self.put(op.rd, d);
    }

    fn bits_to_float(&mut self, op: &Op) {
        let d = self.f_target(op.rd);
        let a = self.get(op.a, X16);
        self.asm.f_from_bits(width(op.fmt()), d, a);
        self.f_put(op.fmt(), op.rd, d);
    }

    /// Copies bits of a floating-point register to a general one.
    pub(super) fn f_copy_bits(&mut self, to: u8, reg: Reg) {
        self.put_box(reg);
        match f_pinned(reg.0).map_or(Loc::Slot(f_slot(reg.0)), Loc::Reg) {
            Loc::Reg(host) => self.asm.f_to_bits(Width::Q, to, host),
            Loc::Slot(slot) => self.asm.ldr(to, slot),
        }
    }
}
