//! x86-64 as a judge: SSE for binary32 and binary64, and where the processor has them FMA, SSE4.1, F16C and
//! AVX-512F. Like RISC-V, it detects tininess after rounding.
#![allow(unsafe_code, reason = "each judged operation is one machine instruction under its own MXCSR")]

use crate::{Judged, Kind, Op, Outcome};
use jit::softfloat::{F16, F32, F64, Flags, Format, Rounding};
use std::arch::asm;
use std::arch::is_x86_feature_detected as detected;

/// All exceptions masked, none raised.
const MXCSR_MASKS: u32 = 0x1f80;

fn flags_of(mxcsr: u32) -> Flags {
    [(0, Flags::NV), (2, Flags::DZ), (3, Flags::OF), (4, Flags::UF), (5, Flags::NX)]
        .into_iter()
        .filter(|(bit, _)| mxcsr & (1 << bit) != 0)
        .fold(Flags::NONE, |all, (_, flag)| all | flag)
}

/// Runs one instruction under the MXCSR `$control`, and leaves in that the flags it raised.
macro_rules! under {
    ($control:ident, $insn:expr, $($operands:tt)*) => {{
        let mut saved = 0u32;
        // SAFETY: the instruction computes in registers; callers check that the processor has it. MXCSR is the
        // compiler's own again at the end, and both addresses are of live local variables.
        unsafe {
            asm!(
                "stmxcsr [{saved}]",
                "ldmxcsr [{control}]",
                $insn,
                "stmxcsr [{control}]",
                "ldmxcsr [{saved}]",
                $($operands)*,
                saved = in(reg) &raw mut saved,
                control = in(reg) &raw mut $control,
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
            concat!($insn, " # {x} {y} {z}"),
            x = inout(xmm_reg) x,
            y = in(xmm_reg) y,
            z = in(xmm_reg) z
        );
        u64::from(x.to_bits())
    }};
}

/// A comparison of `x` and `y`, which must end in setting `r`; false if they are unordered.
macro_rules! compare {
    ($control:ident, $operands:ident, $insn:expr) => {{
        let [x, y, _] = $operands;
        let (result, ordered): (u8, u8);
        under!(
            $control,
            concat!($insn, "\nsetnp {ordered}"),
            x = in(xmm_reg) x,
            y = in(xmm_reg) y,
            r = out(reg_byte) result,
            ordered = out(reg_byte) ordered
        );
        u64::from(result & ordered)
    }};
}

/// A float `x` to an integer `r`.
macro_rules! to_integer {
    ($control:ident, $operands:ident, $insn:expr) => {{
        let result: u64;
        under!($control, $insn, x = in(xmm_reg) $operands[0], r = out(reg) result);
        result
    }};
}

/// An integer `r` to a float `x`.
macro_rules! from_integer {
    ($control:ident, $integer:ident, $float:ty, $insn:expr) => {{
        let mut x: $float = 0.0;
        under!($control, $insn, x = inout(xmm_reg) x, r = in(reg) $integer);
        u64::from(x.to_bits())
    }};
}

/// A function that runs `op` on binary32 (suffix `ss`) or binary64 (`sd`), and gives result and MXCSR.
macro_rules! scalar {
    ($name:ident, $float:ty, $s:literal) => {
        fn $name(op: Op, operands: [u64; 3], mut control: u32) -> Option<(u64, u32)> {
            let f = operands.map(|bits| <$float>::from_bits(bits as _));
            let i = operands[0];
            let (sse4_1, fma, avx512) = (detected!("sse4.1"), detected!("fma"), detected!("avx512f"));
            let bits = match op {
                Op::Add => to_float!(control, f, concat!("add", $s, " {x}, {y}")),
                Op::Sub => to_float!(control, f, concat!("sub", $s, " {x}, {y}")),
                Op::Mul => to_float!(control, f, concat!("mul", $s, " {x}, {y}")),
                Op::Div => to_float!(control, f, concat!("div", $s, " {x}, {y}")),
                Op::Sqrt => to_float!(control, f, concat!("sqrt", $s, " {x}, {x}")),
                Op::Fma if fma => to_float!(control, f, concat!("vfmadd213", $s, " {x}, {y}, {z}")),
                Op::Froundnx if sse4_1 => to_float!(control, f, concat!("round", $s, " {x}, {x}, 4")),
                Op::Fround if sse4_1 => to_float!(control, f, concat!("round", $s, " {x}, {x}, 12")),
                Op::Eq => compare!(control, f, concat!("ucomi", $s, " {x}, {y}\nsete {r}")),
                Op::Lt => compare!(control, f, concat!("comi", $s, " {y}, {x}\nseta {r}")),
                Op::Le => compare!(control, f, concat!("comi", $s, " {y}, {x}\nsetae {r}")),
                Op::Ltq => compare!(control, f, concat!("ucomi", $s, " {y}, {x}\nseta {r}")),
                Op::Leq => compare!(control, f, concat!("ucomi", $s, " {y}, {x}\nsetae {r}")),
                Op::ToI32 => to_integer!(control, f, concat!("cvt", $s, "2si {r:e}, {x}")),
                Op::ToI64 => to_integer!(control, f, concat!("cvt", $s, "2si {r}, {x}")),
                Op::ToU32 if avx512 => to_integer!(control, f, concat!("vcvt", $s, "2usi {r:e}, {x}")),
                Op::ToU64 if avx512 => to_integer!(control, f, concat!("vcvt", $s, "2usi {r}, {x}")),
                Op::FromI32 => from_integer!(control, i, $float, concat!("cvtsi2", $s, " {x}, {r:e}")),
                Op::FromI64 => from_integer!(control, i, $float, concat!("cvtsi2", $s, " {x}, {r}")),
                Op::FromU32 if avx512 => {
                    from_integer!(control, i, $float, concat!("vcvtusi2", $s, " {x}, {x}, {r:e}"))
                }
                Op::FromU64 if avx512 => {
                    from_integer!(control, i, $float, concat!("vcvtusi2", $s, " {x}, {x}, {r}"))
                }
                _ => return None,
            };
            Some((bits, control))
        }
    };
}

scalar!(single, f32, "ss");
scalar!(double, f64, "sd");

/// Conversions between formats.
fn convert(from: Kind, op: Op, bits: u64, mut control: u32) -> Option<(u64, u32)> {
    let mut x = f64::from_bits(bits);
    match (from, op) {
        (Kind::Single, Op::ToF64) => under!(control, "cvtss2sd {x}, {x}", x = inout(xmm_reg) x),
        (Kind::Double, Op::ToF32) => under!(control, "cvtsd2ss {x}, {x}", x = inout(xmm_reg) x),
        (Kind::Half, Op::ToF32) if detected!("f16c") => {
            under!(control, "vcvtph2ps {x}, {x}", x = inout(xmm_reg) x);
        }
        (Kind::Single, Op::ToF16) if detected!("f16c") => {
            under!(control, "vcvtps2ph {x}, {x}, 4", x = inout(xmm_reg) x);
        }
        _ => return None,
    }
    let result = match op {
        Op::ToF16 => x.to_bits() & 0xffff,
        Op::ToF32 => x.to_bits() & 0xffff_ffff,
        _ => x.to_bits(),
    };
    Some((result, control))
}

/// What RISC-V has in the place of x86's "integer indefinite", the result of an invalid conversion.
fn saturated<F: Format>(op: Op, bits: u64) -> u64 {
    let below = bits & F::SIGN != 0 && bits & F::MAGNITUDE <= F::INFINITY;
    match (op, below) {
        (Op::ToI32, true) => i32::MIN as u64,
        (Op::ToI32, false) => i32::MAX as u64,
        (Op::ToI64, true) => i64::MIN as u64,
        (Op::ToI64, false) => i64::MAX as u64,
        (_, true) => 0,
        (_, false) => u64::MAX,
    }
}

fn canonical<F: Format>(bits: u64) -> u64 {
    if bits & F::MAGNITUDE > F::INFINITY { F::NAN } else { bits }
}

/// The processor's outcome, with its NaNs and invalid conversions replaced by RISC-V's; `None` if it lacks the
/// operation, the format or the mode.
pub(crate) fn run<F: Judged>(op: Op, operands: [u64; 3], rm: Rounding) -> Option<Outcome> {
    let rounding_control = match rm {
        Rounding::Rne => 0,
        Rounding::Rdn => 1,
        Rounding::Rup => 2,
        Rounding::Rtz => 3,
        Rounding::Rmm => return None,
    };
    let control = MXCSR_MASKS | (rounding_control << 13);
    let [a, b, _] = operands;
    let converts = matches!(op, Op::ToF16 | Op::ToF32 | Op::ToF64);
    let (bits, mxcsr) = match F::KIND {
        kind if converts => convert(kind, op, a, control)?,
        Kind::Half => return None,
        Kind::Single => single(op, operands, control)?,
        Kind::Double => double(op, operands, control)?,
    };
    let mut flags = flags_of(mxcsr);
    let bits = match op {
        Op::ToI32 | Op::ToU32 | Op::ToI64 | Op::ToU64 if flags == Flags::NV => saturated::<F>(op, a),
        Op::ToI32 | Op::ToU32 => bits as i32 as u64,
        Op::ToI64 | Op::ToU64 | Op::Eq | Op::Lt | Op::Le | Op::Ltq | Op::Leq => bits,
        Op::ToF16 => canonical::<F16>(bits),
        Op::ToF32 => canonical::<F32>(bits),
        Op::ToF64 => canonical::<F64>(bits),
        _ => canonical::<F>(bits),
    };
    // x86 lets a quiet NaN addend silence infinity × 0.
    let magnitudes = [a & F::MAGNITUDE, b & F::MAGNITUDE];
    if op == Op::Fma && (magnitudes == [F::INFINITY, 0] || magnitudes == [0, F::INFINITY]) {
        flags |= Flags::NV;
    }
    Some(Outcome { bits, flags })
}
