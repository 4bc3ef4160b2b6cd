//! What only the Zfa extension has: rounding to integral values, the modular conversion.
//! Its comparisons, minima and maxima stand beside those of F and D in `compare`.

use super::format::{F64, Format, exponent, is_nan, is_negative, is_zero, sign_bit};
use super::round::{is_special, nan_from, rounds_up, shift_right_jam};
use super::{Flags, Rounding};

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
