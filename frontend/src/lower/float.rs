//! F, D, Zfh, Zfhmin and Zfa.

use super::Rows;
use crate::builder::Builder;
use crate::insn::{Insn, Opcode::*};
use crate::ir::{Code, Fmt, IntKind, Op, Reg, fp_aux};

fn f_load(b: &mut Builder, fmt: Fmt, i: &Insn) {
    b.fp_on(i, true);
    b.push(Op { rd: Reg(i.rd), a: Reg(i.rs1), aux: fp_aux(fmt, 0), imm: i.imm, ..Op::of(Code::FLoad) });
}

fn f_store(b: &mut Builder, fmt: Fmt, i: &Insn) {
    b.fp_on(i, false);
    b.push(Op { a: Reg(i.rs1), b: Reg(i.rs2), aux: fp_aux(fmt, 0), imm: i.imm, ..Op::of(Code::FStore) });
}

/// A result in `fd`. Fields that the instruction's format does not have are zero, also the rounding mode where nothing is
/// rounded.
fn to_f(b: &mut Builder, code: Code, fmt: Fmt, c: Reg, i: &Insn) {
    b.fp_on(i, true);
    b.push(Op {
        rd: Reg(i.rd),
        a: Reg(i.rs1),
        b: Reg(i.rs2),
        c,
        aux: fp_aux(fmt, i.rm),
        imm: i64::from(i.bits),
        ..Op::of(code)
    });
}

/// A result in `rd`; `dirty` if flags may be raised.
fn to_x(b: &mut Builder, code: Code, fmt: Fmt, c: Reg, dirty: bool, i: &Insn) {
    b.fp_on(i, dirty);
    let rd = b.dest(i.rd);
    b.push(Op {
        rd,
        a: Reg(i.rs1),
        b: Reg(i.rs2),
        c,
        aux: fp_aux(fmt, i.rm),
        imm: i64::from(i.bits),
        ..Op::of(code)
    });
}

fn f(b: &mut Builder, code: Code, fmt: Fmt, i: &Insn) {
    to_f(b, code, fmt, Reg(i.rs3), i);
}

fn compare(b: &mut Builder, code: Code, fmt: Fmt, i: &Insn) {
    to_x(b, code, fmt, Reg::ZERO, true, i);
}

/// The bits or the class of `fa`, which raises nothing.
fn inspect(b: &mut Builder, code: Code, fmt: Fmt, i: &Insn) {
    to_x(b, code, fmt, Reg::ZERO, false, i);
}

fn to_int(b: &mut Builder, fmt: Fmt, kind: IntKind, i: &Insn) {
    to_x(b, Code::FToInt, fmt, Reg(kind as u8), true, i);
}

fn from_int(b: &mut Builder, fmt: Fmt, kind: IntKind, i: &Insn) {
    to_f(b, Code::FFromInt, fmt, Reg(kind as u8), i);
}

fn convert(b: &mut Builder, to: Fmt, from: Fmt, i: &Insn) {
    to_f(b, Code::FCvtFmt, to, Reg(from as u8), i);
}

fn load_immediate(b: &mut Builder, fmt: Fmt, i: &Insn) {
    b.fp_on(i, true);
    let bits = fli(fmt, i.imm as usize & 31);
    b.push(Op { rd: Reg(i.rd), aux: fp_aux(fmt, 0), imm: bits as i64, ..Op::of(Code::FConst) });
}

/// The constants of `fli` (Zfa, table 1), boxed.
fn fli(fmt: Fmt, index: usize) -> u64 {
    /// Entries 2 to 29 as binary32; 0, 1, 30 and 31 depend on the format.
    const SINGLE: [f32; 28] = [
        1.0 / 65536.0,
        1.0 / 32768.0,
        1.0 / 256.0,
        1.0 / 128.0,
        0.0625,
        0.125,
        0.25,
        0.3125,
        0.375,
        0.4375,
        0.5,
        0.625,
        0.75,
        0.875,
        1.0,
        1.25,
        1.5,
        1.75,
        2.0,
        2.5,
        3.0,
        4.0,
        8.0,
        16.0,
        128.0,
        256.0,
        32768.0,
        65536.0,
    ];
    match (fmt, index) {
        (Fmt::D, 1) => 0x0010_0000_0000_0000,
        (Fmt::D, 30) => 0x7ff0_0000_0000_0000,
        (Fmt::D, 31) => 0x7ff8_0000_0000_0000,
        (Fmt::D, 0) => (-1.0f64).to_bits(),
        (Fmt::D, n) => f64::from(SINGLE[n - 2]).to_bits(),
        (Fmt::S, 0) => 0xffff_ffff_bf80_0000,
        (Fmt::S, 1) => 0xffff_ffff_0080_0000,
        (Fmt::S, 30) => 0xffff_ffff_7f80_0000,
        (Fmt::S, 31) => 0xffff_ffff_7fc0_0000,
        (Fmt::S, n) => 0xffff_ffff_0000_0000 | u64::from(SINGLE[n - 2].to_bits()),
        (Fmt::H, 0) => 0xffff_ffff_ffff_bc00,
        (Fmt::H, 1) => 0xffff_ffff_ffff_0400,
        (Fmt::H, 2) => 0xffff_ffff_ffff_0100,
        (Fmt::H, 3) => 0xffff_ffff_ffff_0200,
        (Fmt::H, 29 | 30) => 0xffff_ffff_ffff_7c00,
        (Fmt::H, 31) => 0xffff_ffff_ffff_7e00,
        (Fmt::H, n) => {
            // Normal in both formats, with at most ten fraction bits: rebias the exponent and drop the zeros.
            let single = SINGLE[n - 2].to_bits();
            let exponent = (single >> 23) + 15 - 127;
            0xffff_ffff_ffff_0000 | u64::from(exponent << 10 | single >> 13 & 0x3ff)
        }
    }
}

#[rustfmt::skip]
pub(super) const ROWS: Rows = &[
    (Flw, |b, i| f_load(b, Fmt::S, i)),
    (Fsw, |b, i| f_store(b, Fmt::S, i)),
    (FmaddS, |b, i| f(b, Code::FMadd, Fmt::S, i)),
    (FmsubS, |b, i| f(b, Code::FMsub, Fmt::S, i)),
    (FnmsubS, |b, i| f(b, Code::FNmsub, Fmt::S, i)),
    (FnmaddS, |b, i| f(b, Code::FNmadd, Fmt::S, i)),
    (FaddS, |b, i| f(b, Code::FAdd, Fmt::S, i)),
    (FsubS, |b, i| f(b, Code::FSub, Fmt::S, i)),
    (FmulS, |b, i| f(b, Code::FMul, Fmt::S, i)),
    (FdivS, |b, i| f(b, Code::FDiv, Fmt::S, i)),
    (FsqrtS, |b, i| f(b, Code::FSqrt, Fmt::S, i)),
    (FroundS, |b, i| f(b, Code::FRound, Fmt::S, i)),
    (FroundnxS, |b, i| f(b, Code::FRoundNx, Fmt::S, i)),
    (FsgnjS, |b, i| f(b, Code::FSgnj, Fmt::S, i)),
    (FsgnjnS, |b, i| f(b, Code::FSgnjn, Fmt::S, i)),
    (FsgnjxS, |b, i| f(b, Code::FSgnjx, Fmt::S, i)),
    (FminS, |b, i| f(b, Code::FMin, Fmt::S, i)),
    (FmaxS, |b, i| f(b, Code::FMax, Fmt::S, i)),
    (FminmS, |b, i| f(b, Code::FMinm, Fmt::S, i)),
    (FmaxmS, |b, i| f(b, Code::FMaxm, Fmt::S, i)),
    (FeqS, |b, i| compare(b, Code::FEq, Fmt::S, i)),
    (FltS, |b, i| compare(b, Code::FLt, Fmt::S, i)),
    (FleS, |b, i| compare(b, Code::FLe, Fmt::S, i)),
    (FltqS, |b, i| compare(b, Code::FLtq, Fmt::S, i)),
    (FleqS, |b, i| compare(b, Code::FLeq, Fmt::S, i)),
    (FclassS, |b, i| inspect(b, Code::FClass, Fmt::S, i)),
    (FcvtWS, |b, i| to_int(b, Fmt::S, IntKind::W, i)),
    (FcvtSW, |b, i| from_int(b, Fmt::S, IntKind::W, i)),
    (FcvtWuS, |b, i| to_int(b, Fmt::S, IntKind::Wu, i)),
    (FcvtSWu, |b, i| from_int(b, Fmt::S, IntKind::Wu, i)),
    (FcvtLS, |b, i| to_int(b, Fmt::S, IntKind::L, i)),
    (FcvtSL, |b, i| from_int(b, Fmt::S, IntKind::L, i)),
    (FcvtLuS, |b, i| to_int(b, Fmt::S, IntKind::Lu, i)),
    (FcvtSLu, |b, i| from_int(b, Fmt::S, IntKind::Lu, i)),
    (FmvXW, |b, i| inspect(b, Code::FToBits, Fmt::S, i)),
    (FmvWX, |b, i| f(b, Code::FFromBits, Fmt::S, i)),
    (FliS, |b, i| load_immediate(b, Fmt::S, i)),
    (FcvtSD, |b, i| convert(b, Fmt::S, Fmt::D, i)),
    (FcvtSH, |b, i| convert(b, Fmt::S, Fmt::H, i)),

    (Fld, |b, i| f_load(b, Fmt::D, i)),
    (Fsd, |b, i| f_store(b, Fmt::D, i)),
    (FmaddD, |b, i| f(b, Code::FMadd, Fmt::D, i)),
    (FmsubD, |b, i| f(b, Code::FMsub, Fmt::D, i)),
    (FnmsubD, |b, i| f(b, Code::FNmsub, Fmt::D, i)),
    (FnmaddD, |b, i| f(b, Code::FNmadd, Fmt::D, i)),
    (FaddD, |b, i| f(b, Code::FAdd, Fmt::D, i)),
    (FsubD, |b, i| f(b, Code::FSub, Fmt::D, i)),
    (FmulD, |b, i| f(b, Code::FMul, Fmt::D, i)),
    (FdivD, |b, i| f(b, Code::FDiv, Fmt::D, i)),
    (FsqrtD, |b, i| f(b, Code::FSqrt, Fmt::D, i)),
    (FroundD, |b, i| f(b, Code::FRound, Fmt::D, i)),
    (FroundnxD, |b, i| f(b, Code::FRoundNx, Fmt::D, i)),
    (FsgnjD, |b, i| f(b, Code::FSgnj, Fmt::D, i)),
    (FsgnjnD, |b, i| f(b, Code::FSgnjn, Fmt::D, i)),
    (FsgnjxD, |b, i| f(b, Code::FSgnjx, Fmt::D, i)),
    (FminD, |b, i| f(b, Code::FMin, Fmt::D, i)),
    (FmaxD, |b, i| f(b, Code::FMax, Fmt::D, i)),
    (FminmD, |b, i| f(b, Code::FMinm, Fmt::D, i)),
    (FmaxmD, |b, i| f(b, Code::FMaxm, Fmt::D, i)),
    (FeqD, |b, i| compare(b, Code::FEq, Fmt::D, i)),
    (FltD, |b, i| compare(b, Code::FLt, Fmt::D, i)),
    (FleD, |b, i| compare(b, Code::FLe, Fmt::D, i)),
    (FltqD, |b, i| compare(b, Code::FLtq, Fmt::D, i)),
    (FleqD, |b, i| compare(b, Code::FLeq, Fmt::D, i)),
    (FclassD, |b, i| inspect(b, Code::FClass, Fmt::D, i)),
    (FcvtWD, |b, i| to_int(b, Fmt::D, IntKind::W, i)),
    (FcvtDW, |b, i| from_int(b, Fmt::D, IntKind::W, i)),
    (FcvtWuD, |b, i| to_int(b, Fmt::D, IntKind::Wu, i)),
    (FcvtDWu, |b, i| from_int(b, Fmt::D, IntKind::Wu, i)),
    (FcvtLD, |b, i| to_int(b, Fmt::D, IntKind::L, i)),
    (FcvtDL, |b, i| from_int(b, Fmt::D, IntKind::L, i)),
    (FcvtLuD, |b, i| to_int(b, Fmt::D, IntKind::Lu, i)),
    (FcvtDLu, |b, i| from_int(b, Fmt::D, IntKind::Lu, i)),
    (FmvXD, |b, i| inspect(b, Code::FToBits, Fmt::D, i)),
    (FmvDX, |b, i| f(b, Code::FFromBits, Fmt::D, i)),
    (FliD, |b, i| load_immediate(b, Fmt::D, i)),
    (FcvtDS, |b, i| convert(b, Fmt::D, Fmt::S, i)),
    (FcvtDH, |b, i| convert(b, Fmt::D, Fmt::H, i)),

    (Flh, |b, i| f_load(b, Fmt::H, i)),
    (Fsh, |b, i| f_store(b, Fmt::H, i)),
    (FmaddH, |b, i| f(b, Code::FMadd, Fmt::H, i)),
    (FmsubH, |b, i| f(b, Code::FMsub, Fmt::H, i)),
    (FnmsubH, |b, i| f(b, Code::FNmsub, Fmt::H, i)),
    (FnmaddH, |b, i| f(b, Code::FNmadd, Fmt::H, i)),
    (FaddH, |b, i| f(b, Code::FAdd, Fmt::H, i)),
    (FsubH, |b, i| f(b, Code::FSub, Fmt::H, i)),
    (FmulH, |b, i| f(b, Code::FMul, Fmt::H, i)),
    (FdivH, |b, i| f(b, Code::FDiv, Fmt::H, i)),
    (FsqrtH, |b, i| f(b, Code::FSqrt, Fmt::H, i)),
    (FroundH, |b, i| f(b, Code::FRound, Fmt::H, i)),
    (FroundnxH, |b, i| f(b, Code::FRoundNx, Fmt::H, i)),
    (FsgnjH, |b, i| f(b, Code::FSgnj, Fmt::H, i)),
    (FsgnjnH, |b, i| f(b, Code::FSgnjn, Fmt::H, i)),
    (FsgnjxH, |b, i| f(b, Code::FSgnjx, Fmt::H, i)),
    (FminH, |b, i| f(b, Code::FMin, Fmt::H, i)),
    (FmaxH, |b, i| f(b, Code::FMax, Fmt::H, i)),
    (FminmH, |b, i| f(b, Code::FMinm, Fmt::H, i)),
    (FmaxmH, |b, i| f(b, Code::FMaxm, Fmt::H, i)),
    (FeqH, |b, i| compare(b, Code::FEq, Fmt::H, i)),
    (FltH, |b, i| compare(b, Code::FLt, Fmt::H, i)),
    (FleH, |b, i| compare(b, Code::FLe, Fmt::H, i)),
    (FltqH, |b, i| compare(b, Code::FLtq, Fmt::H, i)),
    (FleqH, |b, i| compare(b, Code::FLeq, Fmt::H, i)),
    (FclassH, |b, i| inspect(b, Code::FClass, Fmt::H, i)),
    (FcvtWH, |b, i| to_int(b, Fmt::H, IntKind::W, i)),
    (FcvtHW, |b, i| from_int(b, Fmt::H, IntKind::W, i)),
    (FcvtWuH, |b, i| to_int(b, Fmt::H, IntKind::Wu, i)),
    (FcvtHWu, |b, i| from_int(b, Fmt::H, IntKind::Wu, i)),
    (FcvtLH, |b, i| to_int(b, Fmt::H, IntKind::L, i)),
    (FcvtHL, |b, i| from_int(b, Fmt::H, IntKind::L, i)),
    (FcvtLuH, |b, i| to_int(b, Fmt::H, IntKind::Lu, i)),
    (FcvtHLu, |b, i| from_int(b, Fmt::H, IntKind::Lu, i)),
    (FmvXH, |b, i| inspect(b, Code::FToBits, Fmt::H, i)),
    (FmvHX, |b, i| f(b, Code::FFromBits, Fmt::H, i)),
    (FliH, |b, i| load_immediate(b, Fmt::H, i)),
    (FcvtHS, |b, i| convert(b, Fmt::H, Fmt::S, i)),
    (FcvtHD, |b, i| convert(b, Fmt::H, Fmt::D, i)),

    (FcvtmodWD, |b, i| to_x(b, Code::FToIntMod, Fmt::D, Reg::ZERO, true, i)),
];
