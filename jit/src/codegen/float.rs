//! Floating-point operations: which they are, and which of them generated code carries out.

use frontend::ir::{Code, Fmt, Op, Shape};

/// Rounding mode of the operation: that of `frm`.
pub(crate) const DYNAMIC: u8 = 7;
/// To nearest, ties away from zero, which hosts do not have.
const NEAREST_AWAY: u8 = 4;

/// The mask that `fclass` gives: the bit of the operand's kind.
pub(crate) mod class {
    pub(crate) const NEGATIVE_INFINITE: u32 = 1 << 0;
    pub(crate) const NEGATIVE_NORMAL: u32 = 1 << 1;
    pub(crate) const NEGATIVE_SUBNORMAL: u32 = 1 << 2;
    pub(crate) const NEGATIVE_ZERO: u32 = 1 << 3;
    pub(crate) const ZERO: u32 = 1 << 4;
    pub(crate) const SUBNORMAL: u32 = 1 << 5;
    pub(crate) const NORMAL: u32 = 1 << 6;
    pub(crate) const INFINITE: u32 = 1 << 7;
    pub(crate) const SIGNALLING_NAN: u32 = 1 << 8;
    pub(crate) const QUIET_NAN: u32 = 1 << 9;
}

/// Whether the operation belongs to the floating-point part of the IR, and is no access.
pub(crate) fn is_float(code: Code) -> bool {
    use Shape::{FcmpX, Fi, Fr, Frr, Frrr, FtoX, XtoF};
    code == Code::FpOn || matches!(code.shape(), Fi | Fr | Frr | Frrr | FcmpX | FtoX | XtoF)
}

/// Whether an operation has a result in the integer file.
pub(crate) fn writes_x(op: &Op) -> bool {
    use Shape::{FLoad, FStore, Fi, Fr, Frr, Frrr, Store, XtoF};
    !matches!(op.code.shape(), Store | FLoad | FStore | Fi | Fr | Frr | Frrr | XtoF) && op.code != Code::FpOn
}

/// Whether an operation has a result in the floating-point file.
pub(crate) fn writes_f(op: &Op) -> bool {
    use Shape::{FLoad, Fi, Fr, Frr, Frrr, XtoF};
    matches!(op.code.shape(), FLoad | Fi | Fr | Frr | Frrr | XtoF)
}

/// Whether generated code carries out the operation; else the interpreter does.
pub(crate) fn is_inline(op: &Op) -> bool {
    use Code::*;
    if op.code == FpOn {
        return true;
    }
    if op.fmt() == Fmt::H || op.code == FCvtFmt && Fmt::from_bits(op.c.0) == Fmt::H {
        return false;
    }
    match op.code {
        FConst | FSgnj | FSgnjn | FSgnjx | FMin | FMax | FEq | FLt | FLe | FLtq | FLeq | FClass | FToBits
        | FFromBits => true,
        FAdd | FSub | FMul | FDiv | FSqrt | FMadd | FMsub | FNmsub | FNmadd | FRound | FRoundNx | FCvtFmt
        | FToInt | FFromInt => op.rm() != NEAREST_AWAY,
        _ => false,
    }
}
