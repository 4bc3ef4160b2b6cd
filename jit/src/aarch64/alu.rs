//! Integer operations. Those that [`is_simple`] lists use x16, x17 and v0 as their only scratch registers.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op, Reg};

use super::Translator;
use super::asm::{Cc, Logic, Width, op};
use super::regs::{Loc, PAGE, X14, X15, X16, X17, XZR};
use crate::codegen::demand::{DEAD, LOW_ONLY};

/// Operations that keep x14 and x15.
pub(super) fn is_simple(code: Code) -> bool {
    use Code::*;
    use frontend::ir::Shape::{Ri, Rr, Rri, Rrr};
    let needs_more = matches!(
        code,
        Mulhsu | Div | Divu | Rem | Remu | DivW | DivuW | RemW | RemuW | Clmul | Clmulh | Clmulr
    );
    matches!(code.shape(), Ri | Rr | Rri | Rrr) && !needs_more
}

impl Translator {
    /// The host register that holds `reg`: its own, xzr, or `scratch`, loaded now.
    pub(super) fn get(&mut self, reg: Reg, scratch: u8) -> u8 {
        self.extend(reg);
        self.get_low(reg, scratch)
    }

    /// The same for an instruction that only looks at the low 32 bits, or those of `width`.
    pub(super) fn get_of(&mut self, width: Width, reg: Reg, scratch: u8) -> u8 {
        if width == Width::Q { self.get(reg, scratch) } else { self.get_low(reg, scratch) }
    }

    /// The same for the low 32 bits.
    pub(super) fn get_low(&mut self, reg: Reg, scratch: u8) -> u8 {
        if reg == Reg::ZERO {
            return XZR;
        }
        match self.pins.loc(reg) {
            Loc::Reg(host) => host,
            Loc::Slot(slot) => {
                self.asm.ldr(scratch, slot);
                scratch
            }
        }
    }

    /// As [`Self::get`], for instructions that take no xzr there.
    pub(super) fn get_no_zero(&mut self, reg: Reg, scratch: u8) -> u8 {
        let host = self.get(reg, scratch);
        if host == XZR {
            self.asm.mov_imm(scratch, 0);
            return scratch;
        }
        host
    }

    /// Copies `reg` to a host register.
    pub(super) fn copy(&mut self, host: u8, reg: Reg) {
        let from = self.get(reg, host);
        self.asm.mov(host, from);
    }

    /// Where to compute the result for `rd`.
    pub(super) fn target(&self, rd: Reg) -> u8 {
        self.pins.pinned(rd).unwrap_or(X16)
    }

    /// Writes a result that is in a host register to `rd`.
    pub(super) fn put(&mut self, rd: Reg, from: u8) {
        self.pending.set_narrow(rd, false);
        match self.pins.loc(rd) {
            Loc::Reg(host) => self.asm.mov(host, from),
            Loc::Slot(slot) => {
                if rd != Reg::SINK {
                    self.asm.str(from, slot);
                }
            }
        }
    }

    /// Puts the result of `op` that `compute` leaves in the register it is given; 32-bit results are sign-extended, if need be later.
    pub(super) fn result(&mut self, width: Width, op: &Op, compute: impl FnOnce(&mut Self, u8)) {
        let d = self.target(op.rd);
        compute(self, d);
        let extends = width == Width::D && op.aux != LOW_ONLY;
        let is_pinned = self.pins.pinned(op.rd).is_some();
        if extends && !is_pinned {
            self.asm.sxtw(d, d);
        }
        self.put(op.rd, d);
        self.pending.set_narrow(op.rd, extends && is_pinned);
    }

    fn binary(&mut self, width: Width, opcode: u32, op: &Op) {
        let a = self.get_of(width, op.a, X16);
        let b = self.get_of(width, op.b, X17);
        self.result(width, op, |t, d| t.asm.rrr(width, opcode, d, a, b));
    }

    /// `a + b`, or `a - b`, of which one may be extended.
    fn sum(&mut self, opcode: u32, op: &Op) {
        let (mut a, mut b) = (op.a, op.b);
        if opcode == op::ADD && self.pending.is_narrow(a) {
            (a, b) = (b, a);
        }
        if a == Reg::ZERO || !self.pending.is_narrow(b) || a == b {
            return self.binary(Width::Q, opcode, op);
        }
        let a = self.get(a, X16);
        let b = self.get_low(b, X17);
        let d = self.target(op.rd);
        self.asm.extended(opcode, d, a, b, 0);
        self.put(op.rd, d);
    }

    fn unary(&mut self, width: Width, opcode: u32, op: &Op) {
        let a = self.get_of(width, op.a, X16);
        let d = self.target(op.rd);
        self.asm.rrr(width, opcode, d, a, 0);
        self.put(op.rd, d);
    }

    fn add_imm(&mut self, width: Width, op: &Op) {
        if op.a == Reg::ZERO {
            let d = self.target(op.rd);
            self.asm.mov_imm(d, op.imm as u64);
            return self.put(op.rd, d);
        }
        let a = self.get_of(width, op.a, X16);
        self.result(width, op, |t, d| t.asm.add_imm(width, d, a, op.imm));
    }

    fn logic_imm(&mut self, logic: Logic, op: &Op) {
        let is_low = logic == Logic::And && (0..=0x7fff_ffff).contains(&op.imm);
        let a = self.get_of(if is_low { Width::D } else { Width::Q }, op.a, X16);
        let d = self.target(op.rd);
        match op.imm as u64 {
            0 if logic != Logic::And => self.asm.mov(d, a),
            u64::MAX if logic == Logic::Eor => self.asm.rrr(Width::Q, op::ORN, d, XZR, a),
            imm => self.asm.logic_imm(Width::Q, logic, d, a, imm),
        }
        self.put(op.rd, d);
    }

    /// `(a << scale) + b`
    fn shift_add(&mut self, scale: u8, op: &Op) {
        let extends = self.pending.is_narrow(op.a) && op.a != op.b && op.b != Reg::ZERO;
        let a = self.get_of(if extends { Width::D } else { Width::Q }, op.a, X16);
        let b = self.get(op.b, X17);
        let d = self.target(op.rd);
        if extends {
            self.asm.extended(op::ADD, d, b, a, scale);
        } else {
            self.asm.add_shifted(d, b, a, scale);
        }
        self.put(op.rd, d);
    }

    /// `(zext(a.w) << scale) + b`
    fn shift_add_word(&mut self, scale: u8, op: &Op) {
        if op.a == op.b {
            self.extend(op.a);
        }
        let a = self.get_low(op.a, X16);
        let d = self.target(op.rd);
        if op.b == Reg::ZERO {
            self.asm.bitfield(Width::Q, false, d, a, scale.wrapping_neg(), 31);
        } else {
            let b = self.get(op.b, X17);
            self.asm.add_uxtw(d, b, a, scale);
        }
        self.put(op.rd, d);
    }

    /// Sets the flags for `a - b`.
    pub(super) fn compare(&mut self, a: Reg, b: Reg) {
        // As numbers of 32 bits they are in the same order, with and without sign.
        let are_narrow = |a, b| {
            a == Reg::ZERO || self.pending.is_narrow(a) && (b == Reg::ZERO || self.pending.is_narrow(b))
        };
        if are_narrow(a, b) && are_narrow(b, a) {
            let a = self.get_low(a, X16);
            let b = self.get_low(b, X17);
            return self.asm.cmp(Width::D, a, b);
        }
        let a = self.get(a, X16);
        if a != XZR && self.pending.is_narrow(b) {
            let b = self.get_low(b, X17);
            return self.asm.extended(op::SUBS, XZR, a, b, 0);
        }
        let b = self.get(b, X17);
        self.asm.cmp(Width::Q, a, b);
    }

    /// `rd = 1` if the condition holds, else 0.
    pub(super) fn set(&mut self, cc: Cc, rd: Reg) {
        let d = self.target(rd);
        self.asm.cset(d, cc);
        self.put(rd, d);
    }

    fn set_less_imm(&mut self, cc: Cc, op: &Op) {
        let width = if self.pending.is_narrow(op.a) { Width::D } else { Width::Q };
        let mut a = self.get_of(width, op.a, X16);
        if a == XZR {
            self.asm.mov_imm(X16, 0);
            a = X16;
        }
        self.asm.cmp_imm(width, a, op.imm);
        self.set(cc, op.rd);
    }

    /// `a` if the condition holds for `a - b`, else `b`.
    fn select(&mut self, cc: Cc, op: &Op) {
        let a = self.get(op.a, X16);
        let b = self.get(op.b, X17);
        self.asm.cmp(Width::Q, a, b);
        let d = self.target(op.rd);
        self.asm.csel(Width::Q, d, a, b, cc);
        self.put(op.rd, d);
    }

    /// `a` if the condition holds for `b - 0`, else 0.
    fn conditional_zero(&mut self, cc: Cc, op: &Op) {
        let b = self.get(op.b, X17);
        self.asm.cmp(Width::Q, b, XZR);
        let a = self.get(op.a, X16);
        let d = self.target(op.rd);
        self.asm.csel(Width::Q, d, a, XZR, cc);
        self.put(op.rd, d);
    }

    /// An operation of the integer file that is neither memory nor control.
    pub(super) fn integer(&mut self, o: &Op) {
        use Width::{D, Q};
        let amount = o.imm as u8;
        match o.code {
            _ if o.aux == DEAD => {}
            Code::Const => {
                if o.imm == 0 && self.pins.pinned(o.rd).is_none() {
                    return self.put(o.rd, XZR);
                }
                let d = self.target(o.rd);
                self.asm.mov_imm(d, o.imm as u64);
                self.put(o.rd, d);
            }
            Code::PcRel => {
                let d = self.target(o.rd);
                self.page_plus(d, o.imm);
                self.put(o.rd, d);
            }
            Code::Mov => {
                let is_narrow = self.pending.is_narrow(o.a) && self.pins.pinned(o.rd).is_some();
                let a = self.get_of(if is_narrow { D } else { Q }, o.a, X16);
                self.put(o.rd, a);
                self.pending.set_narrow(o.rd, is_narrow);
            }
            Code::Add => self.sum(op::ADD, o),
            Code::Sub => self.sum(op::SUB, o),
            Code::And => self.binary(Q, op::AND, o),
            Code::Or => self.binary(Q, op::ORR, o),
            Code::Xor => self.binary(Q, op::EOR, o),
            Code::Andn => self.binary(Q, op::BIC, o),
            Code::Orn => self.binary(Q, op::ORN, o),
            Code::Xnor => self.binary(Q, op::EON, o),
            Code::Sll => self.binary(Q, op::LSL, o),
            Code::Srl => self.binary(Q, op::LSR, o),
            Code::Sra => self.binary(Q, op::ASR, o),
            Code::Slt => {
                self.compare(o.a, o.b);
                self.set(Cc::Less, o.rd);
            }
            Code::Sltu => {
                self.compare(o.a, o.b);
                self.set(Cc::Below, o.rd);
            }
            Code::AddW => self.binary(D, op::ADD, o),
            Code::SubW => self.binary(D, op::SUB, o),
            Code::SllW => self.binary(D, op::LSL, o),
            Code::SrlW => self.binary(D, op::LSR, o),
            Code::SraW => self.binary(D, op::ASR, o),
            Code::Mul => self.binary(Q, op::MUL, o),
            Code::MulW => self.binary(D, op::MUL, o),
            Code::Mulh => self.binary(Q, op::SMULH, o),
            Code::Mulhu => self.binary(Q, op::UMULH, o),
            Code::Mulhsu => self.mul_high_mixed(o),
            Code::Div => self.divide(Q, op::SDIV, o),
            Code::Divu => self.divide(Q, op::UDIV, o),
            Code::Rem => self.remainder(Q, op::SDIV, o),
            Code::Remu => self.remainder(Q, op::UDIV, o),
            Code::DivW => self.divide(D, op::SDIV, o),
            Code::DivuW => self.divide(D, op::UDIV, o),
            Code::RemW => self.remainder(D, op::SDIV, o),
            Code::RemuW => self.remainder(D, op::UDIV, o),
            Code::Sh1add => self.shift_add(1, o),
            Code::Sh2add => self.shift_add(2, o),
            Code::Sh3add => self.shift_add(3, o),
            Code::AddUw => self.shift_add_word(0, o),
            Code::Sh1addUw => self.shift_add_word(1, o),
            Code::Sh2addUw => self.shift_add_word(2, o),
            Code::Sh3addUw => self.shift_add_word(3, o),
            Code::Max => self.select(Cc::Greater, o),
            Code::Maxu => self.select(Cc::Above, o),
            Code::Min => self.select(Cc::Less, o),
            Code::Minu => self.select(Cc::Below, o),
            Code::Rol => self.rotate_left(Q, o),
            Code::Ror => self.binary(Q, op::ROR, o),
            Code::RolW => self.rotate_left(D, o),
            Code::RorW => self.binary(D, op::ROR, o),
            Code::Bclr => self.bit(op::BIC, o),
            Code::Binv => self.bit(op::EOR, o),
            Code::Bset => self.bit(op::ORR, o),
            Code::Bext => self.extract_bit(o),
            Code::Clmul => self.carry_less_product(o, |t, d| t.asm.mov(d, X14)),
            Code::Clmulh => self.carry_less_product(o, |t, d| t.asm.mov(d, X15)),
            Code::Clmulr => self.carry_less_product(o, |t, d| {
                dynasm!(t.asm ; .arch aarch64 ; extr X(d), x15, x14, #63);
            }),
            Code::CzeroEqz => self.conditional_zero(Cc::NotEqual, o),
            Code::CzeroNez => self.conditional_zero(Cc::Equal, o),

            Code::AddI => self.add_imm(Q, o),
            Code::AndI => self.logic_imm(Logic::And, o),
            Code::OrI => self.logic_imm(Logic::Orr, o),
            Code::XorI => self.logic_imm(Logic::Eor, o),
            Code::AddIW if o.imm == 0 && o.aux == LOW_ONLY => {
                let a = self.get_low(o.a, X16);
                self.put(o.rd, a);
            }
            Code::AddIW if o.imm == 0 => self.bitfield(Q, true, 0, 31, o),
            Code::AddIW => self.add_imm(D, o),
            Code::SllI => self.bitfield(Q, false, amount.wrapping_neg(), 63 - (amount & 63), o),
            Code::SrlI => self.bitfield(Q, false, amount, 63, o),
            Code::SraI => self.bitfield(Q, true, amount, 63, o),
            Code::SllIW => self.bitfield(Q, true, (amount & 31).wrapping_neg(), 31 - (amount & 31), o),
            Code::SrlIW if amount & 31 == 0 => self.bitfield(Q, true, 0, 31, o),
            Code::SrlIW => self.bitfield(D, false, amount, 31, o),
            Code::SraIW => self.bitfield(Q, true, amount & 31, 31, o),
            Code::SllIUw => self.bitfield(Q, false, amount.wrapping_neg(), 31.min(63 - (amount & 63)), o),
            Code::SltI => self.set_less_imm(Cc::Less, o),
            Code::SltuI => self.set_less_imm(Cc::Below, o),
            Code::RorI => self.rotate_imm(Q, o),
            Code::RorIW => self.rotate_imm(D, o),
            Code::BclrI => self.bit_imm(Logic::And, o),
            Code::BinvI => self.bit_imm(Logic::Eor, o),
            Code::BsetI => self.bit_imm(Logic::Orr, o),
            Code::BextI => self.bitfield(Q, false, amount, amount, o),

            Code::Clz => self.unary(Q, op::CLZ, o),
            Code::Ctz => self.trailing_zeros(Q, o),
            Code::Cpop => self.ones(Q, o),
            Code::ClzW => self.unary(D, op::CLZ, o),
            Code::CtzW => self.trailing_zeros(D, o),
            Code::CpopW => self.ones(D, o),
            Code::SextB => self.bitfield(Q, true, 0, 7, o),
            Code::SextH => self.bitfield(Q, true, 0, 15, o),
            Code::ZextH => self.bitfield(Q, false, 0, 15, o),
            Code::OrcB => self.or_combine(o),
            Code::Rev8 => self.unary(Q, op::REV, o),
            _ => self.step(o),
        }
    }

    /// `host = virtual address of the code page + offset`
    pub(super) fn page_plus(&mut self, host: u8, offset: i64) {
        self.asm.add_imm(Width::Q, host, PAGE, offset);
    }
}
