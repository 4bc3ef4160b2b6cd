//! What only the Zfa extension has: constants, rounding to integral values, the modular conversion.
//! Its comparisons, minima and maxima stand beside those of F and D in `compare`.

use super::format::{F64, Format, exponent, is_nan, is_negative, is_zero, sign_bit};
use super::round::{is_special, nan_from, rounds_up, shift_right_jam};
use super::{Flags, Rounding};

/// Rows 2 to 29 of the table "Immediate values loaded by the FLI.S instruction": exponent, and the two most
/// significant fraction bits.
const FLI_ROWS: [(i32, u64); 28] = [
    (-16, 0),
    (-15, 0),
    (-8, 0),
    (-7, 0),
    (-4, 0),
    (-3, 0),
    (-2, 0),
    (-2, 1),
    (-2, 2),
    (-2, 3),
    (-1, 0),
    (-1, 1),
    (-1, 2),
    (-1, 3),
    (0, 0),
    (0, 1),
    (0, 2),
    (0, 3),
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 0),
    (3, 0),
    (4, 0),
    (7, 0),
    (8, 0),
    (15, 0),
    (16, 0),
];

/// `fli`: the constant that the low five bits of `index` (the `rs1` field) select.
pub fn fli<F: Format>(index: u8) -> u64 {
    match index & 31 {
        0 => F::SIGN | F::ONE,
        1 => 1 << F::FRAC,
        30 => F::INFINITY,
        31 => F::NAN,
        row => {
            let (exp, fraction) = FLI_ROWS[usize::from(row) - 2];
            let field = exp + F::BIAS;
            if field >= F::EXP_MAX {
                // 2^16 in binary16: the specification makes it infinity.
                F::INFINITY
            } else if field <= 0 {
                // 2^-16 and 2^-15 in binary16: powers of two, exact as subnormals.
                (1 << F::FRAC) >> (1 - field)
            } else {
                ((field as u64) << F::FRAC) | (fraction << (F::FRAC - 2))
            }
        }
    }
}

/// `fround`: rounds to an integral value of the same format. Never raises NX.
#[inline]
pub fn fround<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    let mut quiet = Flags::NONE;
    let result = froundnx::<F>(a, rm, &mut quiet);
    *flags |= Flags::from_bits(quiet.bits() & !Flags::NX.bits());
    result
}

/// `froundnx`: rounds to an integral value of the same format. NX if that differs from `a`.
#[inline]
pub fn froundnx<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) {
        return nan_from::<F>(&[a], flags);
    }
    let bits = a & (F::SIGN | F::MAGNITUDE);
    let exp = exponent::<F>(a) - F::BIAS;
    if is_zero::<F>(a) || is_special::<F>(a) || exp >= F::FRAC as i32 {
        return bits;
    }
    let negative = is_negative::<F>(a);
    let (truncated, last, fraction, step) = if exp >= 0 {
        // Adding one in the last integral place may carry into the exponent field, which is just right.
        let fraction_bits = F::FRAC - exp as u32;
        let step = 1 << fraction_bits;
        let significand = (bits & F::FRACTION) | (1 << F::FRAC);
        (bits & !(step - 1), significand >> fraction_bits, significand << (64 - fraction_bits), step)
    } else {
        // Below one: the last integral place is 1.0 itself, on top of a zero.
        let significand = (bits & F::FRACTION) | (u64::from(exponent::<F>(a) != 0) << F::FRAC);
        let fraction = shift_right_jam(significand << (63 - F::FRAC), exp.unsigned_abs() - 1);
        (sign_bit::<F>(negative), 0, fraction, F::ONE)
    };
    if fraction == 0 {
        return bits;
    }
    *flags |= Flags::NX;
    if rounds_up(negative, last, fraction, rm) { truncated + step } else { truncated }
}

/// `fcvtmod.w.d`: rounds a binary64 value towards zero and gives the low 32 bits of the unbounded integer,
/// sign-extended; 0 for infinities and NaNs. The flags are those of `fcvt.w.d`.
pub fn fcvtmod_w_d(a: u64, flags: &mut Flags) -> u64 {
    if is_zero::<F64>(a) {
        return 0;
    }
    if is_special::<F64>(a) {
        *flags |= Flags::NV;
        return 0;
    }
    let exp = exponent::<F64>(a) - F64::BIAS;
    let significand = (a & F64::FRACTION) | (1 << F64::FRAC);
    let places = exp - F64::FRAC as i32;
    let magnitude = match places {
        // Every bit left is a multiple of 2^32.
        32.. => 0,
        0.. => significand << places,
        -52.. => significand >> -places,
        _ => 0,
    };
    let negative = is_negative::<F64>(a);
    if exp >= 32 || magnitude > i32::MAX as u64 + u64::from(negative) {
        *flags |= Flags::NV;
    } else if places < -52 || magnitude << -places != significand {
        *flags |= Flags::NX;
    }
    let integer = if negative { magnitude.wrapping_neg() } else { magnitude };
    integer as i32 as u64
}
