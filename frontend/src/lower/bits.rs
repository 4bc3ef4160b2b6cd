//! Zba, Zbb, Zbc, Zbs and Zimop.

use super::Rows;
use crate::insn::Opcode::*;
use crate::ir::Code;

#[rustfmt::skip]
pub(super) const ROWS: Rows = &[
    (Sh1add,   |b, i| b.rrr(Code::Sh1add, i)),
    (Sh2add,   |b, i| b.rrr(Code::Sh2add, i)),
    (Sh3add,   |b, i| b.rrr(Code::Sh3add, i)),
    (AddUw,    |b, i| b.rrr(Code::AddUw, i)),
    (Sh1addUw, |b, i| b.rrr(Code::Sh1addUw, i)),
    (Sh2addUw, |b, i| b.rrr(Code::Sh2addUw, i)),
    (Sh3addUw, |b, i| b.rrr(Code::Sh3addUw, i)),
    (SlliUw,   |b, i| b.rri(Code::SllIUw, i)),

    (Andn,  |b, i| b.rrr(Code::Andn, i)),
    (Orn,   |b, i| b.rrr(Code::Orn, i)),
    (Xnor,  |b, i| b.rrr(Code::Xnor, i)),
    (Clz,   |b, i| b.rr(Code::Clz, i.rd, i.rs1)),
    (Clzw,  |b, i| b.rr(Code::ClzW, i.rd, i.rs1)),
    (Ctz,   |b, i| b.rr(Code::Ctz, i.rd, i.rs1)),
    (Ctzw,  |b, i| b.rr(Code::CtzW, i.rd, i.rs1)),
    (Cpop,  |b, i| b.rr(Code::Cpop, i.rd, i.rs1)),
    (Cpopw, |b, i| b.rr(Code::CpopW, i.rd, i.rs1)),
    (Max,   |b, i| b.rrr(Code::Max, i)),
    (Maxu,  |b, i| b.rrr(Code::Maxu, i)),
    (Min,   |b, i| b.rrr(Code::Min, i)),
    (Minu,  |b, i| b.rrr(Code::Minu, i)),
    (SextB, |b, i| b.rr(Code::SextB, i.rd, i.rs1)),
    (SextH, |b, i| b.rr(Code::SextH, i.rd, i.rs1)),
    (ZextH, |b, i| b.rr(Code::ZextH, i.rd, i.rs1)),
    (Rol,   |b, i| b.rrr(Code::Rol, i)),
    (Rolw,  |b, i| b.rrr(Code::RolW, i)),
    (Ror,   |b, i| b.rrr(Code::Ror, i)),
    (Rori,  |b, i| b.rri(Code::RorI, i)),
    (Roriw, |b, i| b.rri(Code::RorIW, i)),
    (Rorw,  |b, i| b.rrr(Code::RorW, i)),
    (OrcB,  |b, i| b.rr(Code::OrcB, i.rd, i.rs1)),
    (Rev8,  |b, i| b.rr(Code::Rev8, i.rd, i.rs1)),

    (Clmul,  |b, i| b.rrr(Code::Clmul, i)),
    (Clmulh, |b, i| b.rrr(Code::Clmulh, i)),
    (Clmulr, |b, i| b.rrr(Code::Clmulr, i)),

    (Bclr,  |b, i| b.rrr(Code::Bclr, i)),
    (Bclri, |b, i| b.rri(Code::BclrI, i)),
    (Bext,  |b, i| b.rrr(Code::Bext, i)),
    (Bexti, |b, i| b.rri(Code::BextI, i)),
    (Binv,  |b, i| b.rrr(Code::Binv, i)),
    (Binvi, |b, i| b.rri(Code::BinvI, i)),
    (Bset,  |b, i| b.rrr(Code::Bset, i)),
    (Bseti, |b, i| b.rri(Code::BsetI, i)),

    // Zimop: without another extension that redefines them, may-be-operations write zero.
    (MopR,  |b, i| b.constant(i.rd, 0)),
    (MopRr, |b, i| b.constant(i.rd, 0)),
];
