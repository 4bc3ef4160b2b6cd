//! Integer operations. Those that [`is_simple`] lists use rax as their only scratch register.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op, Reg};

use super::Translator;
use super::asm::{Cc, Width, op};
use super::bits::shift;
use super::regs::{Loc, RAX, RCX, RDX, field};
use crate::codegen::demand::{DEAD, LOW_ONLY};

/// `number` of [`super::asm::Asm::rm_imm`].
pub(super) mod imm {
    pub(in super::super) const ADD: u8 = 0;
    pub(in super::super) const OR: u8 = 1;
    pub(in super::super) const AND: u8 = 4;
    pub(in super::super) const XOR: u8 = 6;
    pub(in super::super) const CMP: u8 = 7;
}

/// Operations that clobber nothing but rax.
pub(super) fn is_simple(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Const
            | PcRel
            | Mov
            | Add
            | Sub
            | And
            | Or
            | Xor
            | AddW
            | SubW
            | Sh1add
            | Sh2add
            | Sh3add
            | AddI
            | AndI
            | OrI
            | XorI
            | SllI
            | SrlI
            | SraI
            | AddIW
            | SllIW
            | SrlIW
            | SraIW
            | SllIUw
            | AddUw
            | Andn
            | Orn
            | Xnor
            | RorI
            | RorIW
            | SextB
            | SextH
            | ZextH
            | Mul
            | MulW
            | Sll
            | Srl
            | Sra
            | SllW
            | SrlW
            | SraW
            | Slt
            | Sltu
            | SltI
            | SltuI
            | Sh1addUw
            | Sh2addUw
            | Sh3addUw
            | Max
            | Maxu
            | Min
            | Minu
            | CzeroEqz
            | CzeroNez
            | BclrI
            | BinvI
            | BsetI
            | BextI
            | Clz
            | Ctz
            | Cpop
            | ClzW
            | CtzW
            | CpopW
            | Rev8
    )
}

/// Whether the second of two operations in a row compares so that it gives the carry of the first, a sum, or its borrow.
pub(super) fn is_with_carry(first: &Op, second: &Op) -> bool {
    let Op { rd, a, b, .. } = *first;
    let compares = match first.code {
        Code::Add => second.a == rd && second.b != rd && (second.b == a || second.b == b),
        Code::Sub => second.a == a && second.b == rd && a != rd,
        _ => false,
    };
    compares && second.code == Code::Sltu && first.aux != DEAD && second.aux != DEAD
}

impl Translator {
    /// The scratch register that still has the value of a guest register in memory. To go on with that is better than an
    /// instruction that changes memory: what comes next may want the result.
    pub(super) fn in_scratch(&self, reg: Reg) -> Option<u8> {
        match self.pins.loc(reg) {
            Loc::Reg(_) => None,
            Loc::Slot(slot) => self.asm.held(slot).filter(|host| [RAX, RCX, RDX].contains(host)),
        }
    }

    /// The host register that holds `reg`: its own, or `scratch`, loaded now.
    pub(super) fn get(&mut self, reg: Reg, scratch: u8) -> u8 {
        match self.pins.loc(reg) {
            Loc::Reg(host) => host,
            slot @ Loc::Slot(_) => {
                if reg == Reg::ZERO {
                    self.asm.mov_imm(scratch, 0);
                } else {
                    self.asm.rm(Width::Q, op::MOV, scratch, slot);
                }
                scratch
            }
        }
    }

    /// Copies `reg` to a host register.
    pub(super) fn copy(&mut self, host: u8, reg: Reg) {
        let from = self.get(reg, host);
        self.mov(host, from);
    }

    pub(super) fn mov(&mut self, to: u8, from: u8) {
        if to != from {
            self.asm.rm(Width::Q, op::MOV, to, Loc::Reg(from));
        }
    }

    /// Where to compute the result for `rd`, if that must not be a register of `busy`.
    pub(super) fn target(&self, rd: Reg, busy: &[Reg]) -> u8 {
        match self.pins.pinned(rd) {
            Some(host) if !busy.contains(&rd) => host,
            _ => RAX,
        }
    }

    /// Writes a result that is in a host register to `rd`.
    pub(super) fn put(&mut self, rd: Reg, from: u8) {
        match self.pins.loc(rd) {
            Loc::Reg(host) => self.mov(host, from),
            slot @ Loc::Slot(_) => {
                if rd != Reg::SINK {
                    self.asm.rm(Width::Q, op::STORE, from, slot);
                }
            }
        }
    }

    /// `reg op= rm`, 64 bits.
    pub(super) fn q(&mut self, opcode: u16, reg: u8, rm: Loc) {
        self.asm.rm(Width::Q, opcode, reg, rm);
    }

    pub(super) fn sign_extend_w(&mut self, reg: u8) {
        self.q(op::MOVSXD, reg, Loc::Reg(reg));
    }

    /// Sign-extends a 32-bit result of `op` that is in `reg`, unless nobody looks.
    pub(super) fn extend_result(&mut self, op: &Op, reg: u8) {
        if op.aux != LOW_ONLY {
            self.sign_extend_w(reg);
        }
    }

    fn binary(&mut self, width: Width, opcode: u16, commutes: bool, op: &Op) {
        let (mut a, mut b) = (op.a, op.b);
        if commutes
            && (op.rd == b || self.pins.pinned(a).is_none() && self.pins.pinned(b).is_some() && op.rd != a)
        {
            (a, b) = (b, a);
        }
        if width == Width::Q
            && op.rd == a
            && op.rd != Reg::SINK
            && self.in_scratch(a).is_none()
            && let (to @ Loc::Slot(_), Loc::Reg(from)) = (self.pins.loc(a), self.pins.loc(b))
        {
            // The other direction of the same opcode.
            return self.asm.rm(Width::Q, opcode & !2, from, to);
        }
        let d = self.target(op.rd, if op.rd == a { &[] } else { std::slice::from_ref(&b) });
        self.copy(d, a);
        self.asm.rm(width, opcode, d, self.pins.loc(b));
        if width == Width::D {
            self.extend_result(op, d);
        }
        self.put(op.rd, d);
    }

    /// `a op !b`, as the complement of `b` first.
    fn binary_not(&mut self, opcode: u16, op: &Op) {
        if opcode == op::AND {
            let (b, d) = (self.get(op.b, RAX), self.target(op.rd, &[]));
            match self.pins.loc(op.a) {
                Loc::Reg(a) => dynasm!(self.asm ; .arch x64 ; andn Rq(d), Rq(b), Rq(a)),
                Loc::Slot(a) => dynasm!(self.asm ; .arch x64 ; andn Rq(d), Rq(b), QWORD [r15 + a]),
            }
            return self.put(op.rd, d);
        }
        self.copy(RAX, op.b);
        dynasm!(self.asm ; .arch x64 ; not rax);
        self.q(opcode, RAX, self.pins.loc(op.a));
        self.put(op.rd, RAX);
    }

    fn binary_imm(&mut self, width: Width, number: u8, op: &Op) {
        let Ok(imm) = i32::try_from(op.imm) else {
            // Immediates of instructions have 12 bits.
            return self.step(op);
        };
        if width == Width::Q && op.rd == op.a && op.rd != Reg::SINK && self.in_scratch(op.a).is_none() {
            return self.asm.rm_imm(width, number, self.pins.loc(op.rd), imm);
        }
        let d = self.target(op.rd, &[]);
        match self.pins.pinned(op.a) {
            Some(a) if number == imm::ADD && (a != d || width == Width::Q) => self.asm.lea(width, d, a, imm),
            _ => {
                self.copy(d, op.a);
                if imm != 0 || number != imm::ADD {
                    self.asm.rm_imm(width, number, Loc::Reg(d), imm);
                }
            }
        }
        if width == Width::D {
            self.extend_result(op, d);
        }
        self.put(op.rd, d);
    }

    /// `(zext or not)(a) << scale + b`
    fn shift_add(&mut self, scale: u8, unsigned_word: bool, op: &Op) {
        if unsigned_word {
            self.asm.rm(Width::D, op::MOV, RAX, self.pins.loc(op.a));
        }
        let a = if unsigned_word { RAX } else { self.get(op.a, RAX) };
        match self.pins.pinned(op.b) {
            Some(b) => {
                let d = self.target(op.rd, &[]);
                match scale {
                    0 => dynasm!(self.asm ; .arch x64 ; lea Rq(d), [Rq(b) + Rq(a)]),
                    1 => dynasm!(self.asm ; .arch x64 ; lea Rq(d), [Rq(b) + Rq(a) * 2]),
                    2 => dynasm!(self.asm ; .arch x64 ; lea Rq(d), [Rq(b) + Rq(a) * 4]),
                    _ => dynasm!(self.asm ; .arch x64 ; lea Rq(d), [Rq(b) + Rq(a) * 8]),
                }
                self.put(op.rd, d);
            }
            None => {
                self.mov(RAX, a);
                if scale != 0 {
                    self.asm.shift_imm(Width::Q, shift::SHL, Loc::Reg(RAX), scale);
                }
                self.q(op::ADD, RAX, self.pins.loc(op.b));
                self.put(op.rd, RAX);
            }
        }
    }

    /// Sets the flags for `a - b`.
    pub(super) fn compare(&mut self, a: Reg, b: Reg) {
        match (self.pins.loc(a), self.pins.loc(b)) {
            (Loc::Reg(a), _) if b == Reg::ZERO => self.q(op::TEST, a, Loc::Reg(a)),
            (a @ Loc::Slot(_), _) if b == Reg::ZERO => self.asm.rm_imm(Width::Q, imm::CMP, a, 0),
            (Loc::Reg(a), b) => self.q(op::CMP, a, b),
            (a, Loc::Reg(b)) => self.asm.rm(Width::Q, op::CMP & !2, b, a),
            (_, b) => {
                let a = self.get(a, RAX);
                self.q(op::CMP, a, b);
            }
        }
    }

    /// Whether [`Self::compare`] uses rax, or would rather have what is there.
    fn compare_uses_rax(&self, a: Reg, b: Reg) -> bool {
        let in_memory = |reg| matches!(self.pins.loc(reg), Loc::Slot(_));
        b != Reg::ZERO && in_memory(a) && in_memory(b)
            || [a, b].into_iter().any(|reg| self.in_scratch(reg) == Some(RAX))
    }

    /// `rd = 1` if the condition holds for `a - b`, else 0.
    fn set_if(&mut self, cc: Cc, rd: Reg, a: Reg, b: Reg) {
        let uses_rax = self.compare_uses_rax(a, b);
        self.set_after(cc, rd, &[a, b], uses_rax, |t| t.compare(a, b));
    }

    /// `rd = 1` if the condition holds for the flags that `compare` leaves, else 0. That reads no general register but the guest's
    /// `operands`, and may use rax.
    pub(super) fn set_after(
        &mut self,
        cc: Cc,
        rd: Reg,
        operands: &[Reg],
        uses_rax: bool,
        compare: impl FnOnce(&mut Self),
    ) {
        let d = self.target(rd, operands);
        if d == RAX && uses_rax {
            compare(self);
            return self.set(cc, rd);
        }
        // A register that was 0 needs no extension after the flags are known, and no value of before.
        self.asm.zero(d);
        compare(self);
        self.asm.setcc(cc, d);
        self.put(rd, d);
    }

    /// A sum and its carry, or a difference and its borrow; see [`is_with_carry`].
    pub(super) fn with_carry(&mut self, first: &Op, second: &Op) {
        let (opcode, commutes) = if first.code == Code::Add { (op::ADD, true) } else { (op::SUB, false) };
        let operands = [first.a, first.b, first.rd];
        let uses_rax = self.pins.pinned(first.rd).is_none()
            || !commutes && first.rd == first.b
            || [first.a, first.b].into_iter().any(|reg| self.in_scratch(reg) == Some(RAX));
        self.set_after(Cc::Below, second.rd, &operands, uses_rax, |t| {
            t.binary(Width::Q, opcode, commutes, first);
        });
    }

    /// `rd = 1` if the condition holds, else 0.
    pub(super) fn set(&mut self, cc: Cc, rd: Reg) {
        self.asm.setcc(cc, RAX);
        let d = self.target(rd, &[]);
        self.asm.rm(Width::D, 0x0fb6, d, Loc::Reg(RAX));
        self.put(rd, d);
    }

    fn set_less_imm(&mut self, cc: Cc, op: &Op) {
        let Ok(imm) = i32::try_from(op.imm) else { return self.step(op) };
        let a = self.pins.loc(op.a);
        let uses_rax = self.in_scratch(op.a) == Some(RAX);
        self.set_after(cc, op.rd, &[op.a], uses_rax, |t| t.asm.rm_imm(Width::Q, imm::CMP, a, imm));
    }

    /// `a` if the condition holds for `a - b`, else `b`.
    fn select(&mut self, cc: Cc, op: &Op) {
        self.copy(RAX, op.b);
        self.asm.rm(Width::Q, op::CMP & !2, RAX, self.pins.loc(op.a));
        self.asm.rm(Width::Q, 0x0f40 | cc as u16, RAX, self.pins.loc(op.a));
        self.put(op.rd, RAX);
    }

    fn conditional_zero(&mut self, cc: Cc, op: &Op) {
        self.asm.mov_imm(RAX, 0);
        self.asm.rm_imm(Width::Q, imm::CMP, self.pins.loc(op.b), 0);
        self.asm.rm(Width::Q, 0x0f40 | cc as u16, RAX, self.pins.loc(op.a));
        self.put(op.rd, RAX);
    }

    fn extend(&mut self, width: Width, opcode: u16, op: &Op) {
        let a = self.get(op.a, RAX);
        let d = self.target(op.rd, &[]);
        // Without a REX prefix, registers 4 to 7 would be ah to bh.
        self.mov(RAX, a);
        self.asm.rm(width, opcode, d, Loc::Reg(RAX));
        self.put(op.rd, d);
    }

    /// An operation of the integer file that is neither memory nor control.
    pub(super) fn integer(&mut self, o: &Op) {
        use Width::{D, Q};
        match o.code {
            _ if o.aux == DEAD => {}
            Code::Const => match self.pins.loc(o.rd) {
                Loc::Reg(host) => self.asm.mov_imm(host, o.imm as u64),
                slot @ Loc::Slot(_) => match i32::try_from(o.imm) {
                    Ok(imm) => {
                        self.asm.rm(Q, 0xc7, 0, slot);
                        self.asm.push_i32(imm);
                    }
                    Err(_) => {
                        self.asm.mov_imm(RAX, o.imm as u64);
                        self.put(o.rd, RAX);
                    }
                },
            },
            Code::PcRel => {
                let d = self.target(o.rd, &[]);
                self.page_plus(d, o.imm);
                self.put(o.rd, d);
            }
            Code::Mov if o.rd == o.a => {}
            Code::Mov => {
                let a = self.get(o.a, RAX);
                self.put(o.rd, a);
            }
            Code::Add => match (self.pins.pinned(o.a), self.pins.pinned(o.b), self.pins.pinned(o.rd)) {
                (Some(a), Some(b), Some(d)) if d != a && d != b => {
                    self.asm.indexed(0, Q, false, 0x8d, d, a, Some(b), 0);
                }
                _ => self.binary(Q, op::ADD, true, o),
            },
            Code::Sub => self.binary(Q, op::SUB, false, o),
            Code::And => self.binary(Q, op::AND, true, o),
            Code::Or => self.binary(Q, op::OR, true, o),
            Code::Xor => self.binary(Q, op::XOR, true, o),
            Code::Andn => self.binary_not(op::AND, o),
            Code::Orn => self.binary_not(op::OR, o),
            Code::Xnor => self.binary_not(op::XOR, o),
            Code::Sll => self.shift(Q, shift::SHL, o),
            Code::Srl => self.shift(Q, shift::SHR, o),
            Code::Sra => self.shift(Q, shift::SAR, o),
            Code::Slt => self.set_if(Cc::Less, o.rd, o.a, o.b),
            Code::Sltu if o.a == Reg::ZERO => self.set_if(Cc::NotEqual, o.rd, o.b, Reg::ZERO),
            Code::Sltu => self.set_if(Cc::Below, o.rd, o.a, o.b),
            Code::AddW => self.binary(D, op::ADD, true, o),
            Code::SubW => self.binary(D, op::SUB, false, o),
            Code::SllW => self.shift(D, shift::SHL, o),
            Code::SrlW => self.shift(D, shift::SHR, o),
            Code::SraW => self.shift(D, shift::SAR, o),
            Code::Mul => self.mul(Q, o),
            Code::MulW => self.mul(D, o),
            Code::Mulh => self.mul_high(5, o),
            Code::Mulhu => self.mul_high(4, o),
            Code::Mulhsu => self.mul_high_mixed(o),
            Code::Div | Code::Rem => self.divide(Q, true, &[o]),
            Code::Divu | Code::Remu => self.divide(Q, false, &[o]),
            Code::DivW | Code::RemW => self.divide(D, true, &[o]),
            Code::DivuW | Code::RemuW => self.divide(D, false, &[o]),
            Code::Sh1add => self.shift_add(1, false, o),
            Code::Sh2add => self.shift_add(2, false, o),
            Code::Sh3add => self.shift_add(3, false, o),
            Code::AddUw if o.b == Reg::ZERO => {
                let d = self.target(o.rd, &[]);
                self.asm.rm(D, op::MOV, d, self.pins.loc(o.a));
                self.put(o.rd, d);
            }
            Code::AddUw => self.shift_add(0, true, o),
            Code::Sh1addUw => self.shift_add(1, true, o),
            Code::Sh2addUw => self.shift_add(2, true, o),
            Code::Sh3addUw => self.shift_add(3, true, o),
            Code::Max => self.select(Cc::Greater, o),
            Code::Maxu => self.select(Cc::Above, o),
            Code::Min => self.select(Cc::Less, o),
            Code::Minu => self.select(Cc::Below, o),
            Code::Rol => self.rotate(Q, shift::ROL, o),
            Code::Ror => self.rotate(Q, shift::ROR, o),
            Code::RolW => self.rotate(D, shift::ROL, o),
            Code::RorW => self.rotate(D, shift::ROR, o),
            Code::Bclr => self.bit(0x0fb3, o),
            Code::Binv => self.bit(0x0fbb, o),
            Code::Bset => self.bit(0x0fab, o),
            Code::Bext => {
                self.copy(RAX, o.a);
                self.copy(RCX, o.b);
                dynasm!(self.asm ; .arch x64 ; shrx rax, rax, rcx ; and eax, BYTE 1);
                self.put(o.rd, RAX);
            }
            Code::Clmul => {
                self.carry_less_product(o);
                self.put(o.rd, RAX);
            }
            Code::Clmulh => {
                self.carry_less_product(o);
                self.put(o.rd, RDX);
            }
            Code::Clmulr => {
                self.carry_less_product(o);
                dynasm!(self.asm ; .arch x64 ; shld rdx, rax, 1);
                self.put(o.rd, RDX);
            }
            Code::CzeroEqz => self.conditional_zero(Cc::NotEqual, o),
            Code::CzeroNez => self.conditional_zero(Cc::Equal, o),

            Code::AddI => self.binary_imm(Q, imm::ADD, o),
            Code::AndI => self.binary_imm(Q, imm::AND, o),
            Code::OrI => self.binary_imm(Q, imm::OR, o),
            Code::XorI => self.binary_imm(Q, imm::XOR, o),
            Code::AddIW if o.imm == 0 && o.aux == LOW_ONLY => {
                let a = self.get(o.a, RAX);
                self.put(o.rd, a);
            }
            Code::AddIW if o.imm == 0 => {
                // Hosts forward what was just stored to a load that does not extend it much sooner.
                let (a, d) = (self.get(o.a, RAX), self.target(o.rd, &[]));
                self.q(op::MOVSXD, d, Loc::Reg(a));
                self.put(o.rd, d);
            }
            Code::AddIW => self.binary_imm(D, imm::ADD, o),
            Code::SllI => self.shift_imm(Q, shift::SHL, o),
            Code::SrlI => self.shift_imm(Q, shift::SHR, o),
            Code::SraI => self.shift_imm(Q, shift::SAR, o),
            Code::SllIW => self.shift_imm(D, shift::SHL, o),
            Code::SrlIW => self.shift_imm(D, shift::SHR, o),
            Code::SraIW => self.shift_imm(D, shift::SAR, o),
            Code::SllIUw => {
                let d = self.target(o.rd, &[]);
                self.asm.rm(D, op::MOV, d, self.pins.loc(o.a));
                self.asm.shift_imm(Q, shift::SHL, Loc::Reg(d), o.imm as u8);
                self.put(o.rd, d);
            }
            Code::SltI => self.set_less_imm(Cc::Less, o),
            Code::SltuI => self.set_less_imm(Cc::Below, o),
            Code::RorI => self.rotate_imm(Q, o),
            Code::RorIW => self.rotate_imm(D, o),
            Code::BclrI => self.bit_imm(6, o),
            Code::BinvI => self.bit_imm(7, o),
            Code::BsetI => self.bit_imm(5, o),
            Code::BextI => {
                self.copy(RAX, o.a);
                self.asm.shift_imm(Q, shift::SHR, Loc::Reg(RAX), o.imm as u8 & 63);
                self.asm.rm_imm(D, imm::AND, Loc::Reg(RAX), 1);
                self.put(o.rd, RAX);
            }

            Code::Clz => self.count(Q, 0xbd, o),
            Code::Ctz => self.count(Q, 0xbc, o),
            Code::Cpop => self.count(Q, 0xb8, o),
            Code::ClzW => self.count(D, 0xbd, o),
            Code::CtzW => self.count(D, 0xbc, o),
            Code::CpopW => self.count(D, 0xb8, o),
            Code::SextB => self.extend(Q, 0x0fbe, o),
            Code::SextH => self.extend(Q, 0x0fbf, o),
            Code::ZextH => self.extend(D, 0x0fb7, o),
            Code::OrcB => self.or_combine(o),
            Code::Rev8 => {
                self.copy(RAX, o.a);
                dynasm!(self.asm ; .arch x64 ; bswap rax);
                self.put(o.rd, RAX);
            }
            _ => self.step(o),
        }
    }

    /// `host = virtual address of the code page + offset`
    pub(super) fn page_plus(&mut self, host: u8, offset: i64) {
        match i32::try_from(offset) {
            Ok(offset) => {
                self.q(op::MOV, host, Loc::Slot(field!(page)));
                if offset != 0 {
                    self.asm.rm_imm(Width::Q, imm::ADD, Loc::Reg(host), offset);
                }
            }
            Err(_) => {
                self.asm.mov_imm(host, offset as u64);
                self.q(op::ADD, host, Loc::Slot(field!(page)));
            }
        }
    }
}
