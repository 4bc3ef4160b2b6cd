//! RV64I, M and Zicond.

use super::Rows;
use crate::insn::Opcode::*;
use crate::ir::{Code, Helper};

#[rustfmt::skip]
pub(super) const ROWS: Rows = &[
    (Lui,   |b, i| b.constant(i.rd, i.imm)),
    (Auipc, |b, i| { let at = b.at(); b.pc_rel(i.rd, at + i.imm) }),

    (Addi,  |b, i| b.rri(Code::AddI, i)),
    (Slti,  |b, i| b.rri(Code::SltI, i)),
    (Sltiu, |b, i| b.rri(Code::SltuI, i)),
    (Xori,  |b, i| b.rri(Code::XorI, i)),
    (Ori,   |b, i| b.rri(Code::OrI, i)),
    (Andi,  |b, i| b.rri(Code::AndI, i)),
    (Slli,  |b, i| b.rri(Code::SllI, i)),
    (Srli,  |b, i| b.rri(Code::SrlI, i)),
    (Srai,  |b, i| b.rri(Code::SraI, i)),
    (Addiw, |b, i| b.rri(Code::AddIW, i)),
    (Slliw, |b, i| b.rri(Code::SllIW, i)),
    (Srliw, |b, i| b.rri(Code::SrlIW, i)),
    (Sraiw, |b, i| b.rri(Code::SraIW, i)),

    (Add,   |b, i| b.rrr(Code::Add, i)),
    (Sub,   |b, i| b.rrr(Code::Sub, i)),
    (Sll,   |b, i| b.rrr(Code::Sll, i)),
    (Slt,   |b, i| b.rrr(Code::Slt, i)),
    (Sltu,  |b, i| b.rrr(Code::Sltu, i)),
    (Xor,   |b, i| b.rrr(Code::Xor, i)),
    (Srl,   |b, i| b.rrr(Code::Srl, i)),
    (Sra,   |b, i| b.rrr(Code::Sra, i)),
    (Or,    |b, i| b.rrr(Code::Or, i)),
    (And,   |b, i| b.rrr(Code::And, i)),
    (Addw,  |b, i| b.rrr(Code::AddW, i)),
    (Subw,  |b, i| b.rrr(Code::SubW, i)),
    (Sllw,  |b, i| b.rrr(Code::SllW, i)),
    (Srlw,  |b, i| b.rrr(Code::SrlW, i)),
    (Sraw,  |b, i| b.rrr(Code::SraW, i)),

    (Lb,    |b, i| b.load(Code::Lb, i)),
    (Lh,    |b, i| b.load(Code::Lh, i)),
    (Lw,    |b, i| b.load(Code::Lw, i)),
    (Ld,    |b, i| b.load(Code::Ld, i)),
    (Lbu,   |b, i| b.load(Code::Lbu, i)),
    (Lhu,   |b, i| b.load(Code::Lhu, i)),
    (Lwu,   |b, i| b.load(Code::Lwu, i)),
    (Sb,    |b, i| b.store(Code::Sb, i)),
    (Sh,    |b, i| b.store(Code::Sh, i)),
    (Sw,    |b, i| b.store(Code::Sw, i)),
    (Sd,    |b, i| b.store(Code::Sd, i)),

    (Jal,   |b, i| { let (at, next) = (b.at(), b.next()); b.pc_rel(i.rd, next); b.jump(at + i.imm) }),
    (Jalr,  |b, i| b.jump_reg(i)),
    (Beq,   |b, i| b.branch(Code::Beq, i)),
    (Bne,   |b, i| b.branch(Code::Bne, i)),
    (Blt,   |b, i| b.branch(Code::Blt, i)),
    (Bge,   |b, i| b.branch(Code::Bge, i)),
    (Bltu,  |b, i| b.branch(Code::Bltu, i)),
    (Bgeu,  |b, i| b.branch(Code::Bgeu, i)),

    (Fence,    |b, i| b.call(Helper::Fence, 0, 0, 0, 0, i.imm)),
    (FenceTso, |b, i| b.call(Helper::Fence, 0, 0, 0, 0, i.imm)),
    (Pause,    |b, _| b.call(Helper::Pause, 0, 0, 0, 0, 0)),

    (Mul,    |b, i| b.rrr(Code::Mul, i)),
    (Mulh,   |b, i| b.rrr(Code::Mulh, i)),
    (Mulhsu, |b, i| b.rrr(Code::Mulhsu, i)),
    (Mulhu,  |b, i| b.rrr(Code::Mulhu, i)),
    (Div,    |b, i| b.rrr(Code::Div, i)),
    (Divu,   |b, i| b.rrr(Code::Divu, i)),
    (Rem,    |b, i| b.rrr(Code::Rem, i)),
    (Remu,   |b, i| b.rrr(Code::Remu, i)),
    (Mulw,   |b, i| b.rrr(Code::MulW, i)),
    (Divw,   |b, i| b.rrr(Code::DivW, i)),
    (Divuw,  |b, i| b.rrr(Code::DivuW, i)),
    (Remw,   |b, i| b.rrr(Code::RemW, i)),
    (Remuw,  |b, i| b.rrr(Code::RemuW, i)),

    (CzeroEqz, |b, i| b.rrr(Code::CzeroEqz, i)),
    (CzeroNez, |b, i| b.rrr(Code::CzeroNez, i)),
];
