//! AArch64 as a judge. It detects tininess before rounding, so it has no say where an inexact result is the
//! least normal number; and it has RMM only in the instructions that name their rounding mode.
#![allow(unsafe_code, reason = "each judged operation is one machine instruction under its own FPCR")]

use crate::{Judged, Kind, Op, Outcome};
use jit::softfloat::{F16, F32, F64, Flags, Format, Rounding};
use std::arch::asm;

fn flags_of(fpsr: u64) -> Flags {
    [(0, Flags::NV), (1, Flags::DZ), (2, Flags::OF), (3, Flags::UF), (4, Flags::NX)]
        .into_iter()
        .filter(|(bit, _)| fpsr & (1 << bit) != 0)
        .fold(Flags::NONE, |all, (_, flag)| all | flag)
}

/// Runs one instruction under the FPCR `$control`, and leaves in that the FPSR it made.
macro_rules! under {
    ($control:ident, $insn:expr, $($operands:tt)*) => {{
        // SAFETY: the instruction computes in registers and every AArch64 processor has it. FPCR and FPSR are
        // the compiler's own again at the end.
        unsafe {
            asm!(
                "mrs {fpcr}, fpcr",
                "mrs {fpsr}, fpsr",
                "msr fpcr, {control}",
                "msr fpsr, xzr",
                $insn,
                "mrs {control}, fpsr",
                "msr fpcr, {fpcr}",
                "msr fpsr, {fpsr}",
                $($operands)*,
                fpcr = out(reg) _,
                fpsr = out(reg) _,
                control = inout(reg) $control,
                options(nostack),
            );
        }
    }};
}

/// One to three floats to a float: `x` is the first operand and the result, `y` and `z` are the others.
macro_rules! to_float {
    ($control:ident, $operands:ident, $insn:expr) => {{
        let [mut x, y, z] = $operands;
        under!(
            $control,
            concat!($insn, " // {x:d} {y:d} {z:d}"),
            x = inout(vreg) x,
            y = in(vreg) y,
            z = in(vreg) z
        );
        u64::from(x.to_bits())
    }};
}

/// A comparison of `x` and `y` that is true under the condition `$condition`.
macro_rules! compare {
    ($control:ident, $operands:ident, $insn:expr, $condition:literal) => {{
        let [x, y, _] = $operands;
        let result: u64;
        under!(
            $control,
            concat!($insn, "\ncset {r}, ", $condition),
            x = in(vreg) x,
            y = in(vreg) y,
            r = out(reg) result
        );
        result
    }};
}

/// A float `x` to an integer `r`, by the one of five instructions that has the mode in its name.
macro_rules! to_integer {
    ($control:ident, $operands:ident, $rm:ident, $insn_tail:expr) => {{
        let result: u64;
        match $rm {
            Rounding::Rne => to_integer!(@ $control, $operands, result, concat!("fcvtn", $insn_tail)),
            Rounding::Rtz => to_integer!(@ $control, $operands, result, concat!("fcvtz", $insn_tail)),
            Rounding::Rdn => to_integer!(@ $control, $operands, result, concat!("fcvtm", $insn_tail)),
            Rounding::Rup => to_integer!(@ $control, $operands, result, concat!("fcvtp", $insn_tail)),
            Rounding::Rmm => to_integer!(@ $control, $operands, result, concat!("fcvta", $insn_tail)),
        }
        result
    }};
    (@ $control:ident, $operands:ident, $result:ident, $insn:expr) => {
        under!($control, $insn, x = in(vreg) $operands[0], r = out(reg) $result)
    };
}

/// An integer `r` to a float `x`.
macro_rules! from_integer {
    ($control:ident, $integer:ident, $float:ty, $insn:expr) => {{
        let x: $float;
        under!($control, $insn, x = out(vreg) x, r = in(reg) $integer);
        u64::from(x.to_bits())
    }};
}

/// A function that runs `op` on registers `s` or `d`, and gives result and FPSR.
macro_rules! scalar {
    ($name:ident, $float:ty, $s:literal) => {
        fn $name(op: Op, operands: [u64; 3], rm: Rounding, mut control: u64) -> Option<(u64, u64)> {
            let f = operands.map(|bits| <$float>::from_bits(bits as _));
            let i = operands[0];
            let bits = match op {
                Op::ToI32 => to_integer!(control, f, rm, concat!("s {r:w}, {x:", $s, "}")),
                Op::ToU32 => to_integer!(control, f, rm, concat!("u {r:w}, {x:", $s, "}")),
                Op::ToI64 => to_integer!(control, f, rm, concat!("s {r}, {x:", $s, "}")),
                Op::ToU64 => to_integer!(control, f, rm, concat!("u {r}, {x:", $s, "}")),
                Op::Eq => compare!(control, f, concat!("fcmp {x:", $s, "}, {y:", $s, "}"), "eq"),
                Op::Lt => compare!(control, f, concat!("fcmpe {x:", $s, "}, {y:", $s, "}"), "mi"),
                Op::Le => compare!(control, f, concat!("fcmpe {x:", $s, "}, {y:", $s, "}"), "ls"),
                Op::Ltq => compare!(control, f, concat!("fcmp {x:", $s, "}, {y:", $s, "}"), "mi"),
                Op::Leq => compare!(control, f, concat!("fcmp {x:", $s, "}, {y:", $s, "}"), "ls"),
                Op::Minm => to_float!(control, f, concat!("fmin {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                Op::Maxm => to_float!(control, f, concat!("fmax {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                _ if rm == Rounding::Rmm => return None,
                Op::Add => to_float!(control, f, concat!("fadd {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                Op::Sub => to_float!(control, f, concat!("fsub {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                Op::Mul => to_float!(control, f, concat!("fmul {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                Op::Div => to_float!(control, f, concat!("fdiv {x:", $s, "}, {x:", $s, "}, {y:", $s, "}")),
                Op::Sqrt => to_float!(control, f, concat!("fsqrt {x:", $s, "}, {x:", $s, "}")),
                Op::Fma => to_float!(
                    control,
                    f,
                    concat!("fmadd {x:", $s, "}, {x:", $s, "}, {y:", $s, "}, {z:", $s, "}")
                ),
                Op::Froundnx => to_float!(control, f, concat!("frintx {x:", $s, "}, {x:", $s, "}")),
                Op::Fround => to_float!(control, f, concat!("frinti {x:", $s, "}, {x:", $s, "}")),
                Op::FromI32 => from_integer!(control, i, $float, concat!("scvtf {x:", $s, "}, {r:w}")),
                Op::FromI64 => from_integer!(control, i, $float, concat!("scvtf {x:", $s, "}, {r}")),
                Op::FromU32 => from_integer!(control, i, $float, concat!("ucvtf {x:", $s, "}, {r:w}")),
                Op::FromU64 => from_integer!(control, i, $float, concat!("ucvtf {x:", $s, "}, {r}")),
                _ => return None,
            };
            Some((bits, control))
        }
    };
}

scalar!(single, f32, "s");
scalar!(double, f64, "d");

/// Conversions between formats.
fn convert(from: Kind, op: Op, bits: u64, mut control: u64) -> Option<(u64, u64)> {
    let mut x = f64::from_bits(bits);
    match (from, op) {
        (Kind::Half, Op::ToF32) => under!(control, "fcvt {x:s}, {x:h}", x = inout(vreg) x),
        (Kind::Half, Op::ToF64) => under!(control, "fcvt {x:d}, {x:h}", x = inout(vreg) x),
        (Kind::Single, Op::ToF16) => under!(control, "fcvt {x:h}, {x:s}", x = inout(vreg) x),
        (Kind::Single, Op::ToF64) => under!(control, "fcvt {x:d}, {x:s}", x = inout(vreg) x),
        (Kind::Double, Op::ToF16) => under!(control, "fcvt {x:h}, {x:d}", x = inout(vreg) x),
        (Kind::Double, Op::ToF32) => under!(control, "fcvt {x:s}, {x:d}", x = inout(vreg) x),
        _ => return None,
    }
    Some((x.to_bits(), control))
}

/// A result of format `F` with any NaN made canonical; `None` if UF is in doubt.
fn settled<F: Format>(bits: u64, flags: Flags) -> Option<u64> {
    let magnitude = bits & F::MAGNITUDE;
    let inexact = flags.bits() & Flags::NX.bits() != 0;
    if inexact && magnitude == 1 << F::FRAC {
        return None;
    }
    Some(if magnitude > F::INFINITY { F::NAN } else { bits })
}

/// The processor's outcome, with its NaNs replaced by RISC-V's; `None` if it lacks the operation, the format
/// or the mode.
pub(crate) fn run<F: Judged>(op: Op, operands: [u64; 3], rm: Rounding) -> Option<Outcome> {
    let rounding_mode = match rm {
        Rounding::Rne | Rounding::Rmm => 0,
        Rounding::Rup => 1,
        Rounding::Rdn => 2,
        Rounding::Rtz => 3,
    };
    let control = rounding_mode << 22;
    let [a, ..] = operands;
    let converts = matches!(op, Op::ToF16 | Op::ToF32 | Op::ToF64);
    let (bits, fpsr) = match F::KIND {
        _ if converts && rm == Rounding::Rmm => return None,
        kind if converts => convert(kind, op, a, control)?,
        Kind::Half => return None,
        Kind::Single => single(op, operands, rm, control)?,
        Kind::Double => double(op, operands, rm, control)?,
    };
    let flags = flags_of(fpsr);
    let nan = a & F::MAGNITUDE > F::INFINITY;
    let bits = match op {
        // AArch64 converts a NaN to 0.
        Op::ToI32 if nan => i32::MAX as u64,
        Op::ToI64 if nan => i64::MAX as u64,
        Op::ToU32 | Op::ToU64 if nan => u64::MAX,
        Op::ToI32 | Op::ToU32 => bits as i32 as u64,
        Op::ToI64 | Op::ToU64 | Op::Eq | Op::Lt | Op::Le | Op::Ltq | Op::Leq => bits,
        Op::ToF16 => settled::<F16>(bits, flags)?,
        Op::ToF32 => settled::<F32>(bits, flags)?,
        Op::ToF64 => settled::<F64>(bits, flags)?,
        _ => settled::<F>(bits, flags)?,
    };
    Some(Outcome { bits, flags })
}
