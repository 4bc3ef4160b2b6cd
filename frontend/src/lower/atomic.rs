//! Zalrsc, Zaamo, Zabha, Zacas and Zawrs.

use super::Rows;
use crate::builder::Builder;
use crate::insn::{Insn, Opcode::*};
use crate::ir::{Amo, AmoOp, Code, Helper, Op, Reg};

fn atomic(b: &mut Builder, code: Code, i: &Insn, aux: u8, log2_width: u8) {
    let rd = b.dest(i.rd);
    b.push(Op {
        rd,
        a: Reg(i.rs1),
        b: Reg(i.rs2),
        c: Reg(Amo::new(log2_width, i.rm).0),
        aux,
        ..Op::of(code)
    });
}

fn amo(b: &mut Builder, op: AmoOp, i: &Insn, log2_width: u8) {
    atomic(b, Code::Amo, i, op as u8, log2_width);
}

/// `rd` holds the expected value; as `x0` it is zero and the result is dropped.
fn cas(b: &mut Builder, i: &Insn, log2_width: u8) {
    let rd = if i.rd == 0 {
        b.push(Op { rd: Reg::TEMP, ..Op::of(Code::Const) });
        Reg::TEMP
    } else {
        b.dest(i.rd)
    };
    b.push(Op {
        rd,
        a: Reg(i.rs1),
        b: Reg(i.rs2),
        c: Reg(Amo::new(log2_width, i.rm).0),
        ..Op::of(Code::Cas)
    });
}

/// Register pairs must be even (Zacas); `x0` as `rd` is a zero pair, which the operation keeps as register 0.
fn cas_pair(b: &mut Builder, i: &Insn) {
    if (i.rd | i.rs2) & 1 != 0 {
        return b.call(Helper::Illegal, 0, 0, 0, 0, i64::from(i.bits));
    }
    b.dest(i.rd);
    b.dest(i.rd | 1);
    b.push(Op {
        rd: Reg(i.rd),
        a: Reg(i.rs1),
        b: Reg(i.rs2),
        c: Reg(Amo::new(4, i.rm).0),
        ..Op::of(Code::CasPair)
    });
}

const B: u8 = 0;
const H: u8 = 1;
const W: u8 = 2;
const D: u8 = 3;

#[rustfmt::skip]
pub(super) const ROWS: Rows = &[
    (LrW, |b, i| atomic(b, Code::Lr, i, 0, W)),
    (LrD, |b, i| atomic(b, Code::Lr, i, 0, D)),
    (ScW, |b, i| atomic(b, Code::Sc, i, 0, W)),
    (ScD, |b, i| atomic(b, Code::Sc, i, 0, D)),

    (AmoswapB, |b, i| amo(b, AmoOp::Swap, i, B)),
    (AmoaddB,  |b, i| amo(b, AmoOp::Add,  i, B)),
    (AmoxorB,  |b, i| amo(b, AmoOp::Xor,  i, B)),
    (AmoandB,  |b, i| amo(b, AmoOp::And,  i, B)),
    (AmoorB,   |b, i| amo(b, AmoOp::Or,   i, B)),
    (AmominB,  |b, i| amo(b, AmoOp::Min,  i, B)),
    (AmomaxB,  |b, i| amo(b, AmoOp::Max,  i, B)),
    (AmominuB, |b, i| amo(b, AmoOp::Minu, i, B)),
    (AmomaxuB, |b, i| amo(b, AmoOp::Maxu, i, B)),

    (AmoswapH, |b, i| amo(b, AmoOp::Swap, i, H)),
    (AmoaddH,  |b, i| amo(b, AmoOp::Add,  i, H)),
    (AmoxorH,  |b, i| amo(b, AmoOp::Xor,  i, H)),
    (AmoandH,  |b, i| amo(b, AmoOp::And,  i, H)),
    (AmoorH,   |b, i| amo(b, AmoOp::Or,   i, H)),
    (AmominH,  |b, i| amo(b, AmoOp::Min,  i, H)),
    (AmomaxH,  |b, i| amo(b, AmoOp::Max,  i, H)),
    (AmominuH, |b, i| amo(b, AmoOp::Minu, i, H)),
    (AmomaxuH, |b, i| amo(b, AmoOp::Maxu, i, H)),

    (AmoswapW, |b, i| amo(b, AmoOp::Swap, i, W)),
    (AmoaddW,  |b, i| amo(b, AmoOp::Add,  i, W)),
    (AmoxorW,  |b, i| amo(b, AmoOp::Xor,  i, W)),
    (AmoandW,  |b, i| amo(b, AmoOp::And,  i, W)),
    (AmoorW,   |b, i| amo(b, AmoOp::Or,   i, W)),
    (AmominW,  |b, i| amo(b, AmoOp::Min,  i, W)),
    (AmomaxW,  |b, i| amo(b, AmoOp::Max,  i, W)),
    (AmominuW, |b, i| amo(b, AmoOp::Minu, i, W)),
    (AmomaxuW, |b, i| amo(b, AmoOp::Maxu, i, W)),

    (AmoswapD, |b, i| amo(b, AmoOp::Swap, i, D)),
    (AmoaddD,  |b, i| amo(b, AmoOp::Add,  i, D)),
    (AmoxorD,  |b, i| amo(b, AmoOp::Xor,  i, D)),
    (AmoandD,  |b, i| amo(b, AmoOp::And,  i, D)),
    (AmoorD,   |b, i| amo(b, AmoOp::Or,   i, D)),
    (AmominD,  |b, i| amo(b, AmoOp::Min,  i, D)),
    (AmomaxD,  |b, i| amo(b, AmoOp::Max,  i, D)),
    (AmominuD, |b, i| amo(b, AmoOp::Minu, i, D)),
    (AmomaxuD, |b, i| amo(b, AmoOp::Maxu, i, D)),

    (AmocasB, |b, i| cas(b, i, B)),
    (AmocasH, |b, i| cas(b, i, H)),
    (AmocasW, |b, i| cas(b, i, W)),
    (AmocasD, |b, i| cas(b, i, D)),
    (AmocasQ, cas_pair),

    (WrsNto, |b, i| b.call(Helper::WrsNto, 0, 0, 0, 0, i64::from(i.bits))),
    (WrsSto, |b, i| b.call(Helper::WrsSto, 0, 0, 0, 0, i64::from(i.bits))),
];
