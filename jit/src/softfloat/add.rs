//! Addition and subtraction.

use super::format::{Format, exponent, is_infinite, is_nan, is_negative, magnitude, sign_bit};
use super::round::{LEAD, cancelled_zero, invalid, is_special, nan_from, round_pack, shift_right_jam};
use super::{Flags, Rounding};

/// `fadd`: `a` + `b`.
#[inline]
pub fn add<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    if is_special::<F>(a) || is_special::<F>(b) {
        return add_special::<F>(a, b, flags);
    }
    let (large, small) = if magnitude::<F>(a) >= magnitude::<F>(b) { (a, b) } else { (b, a) };
    let negative = is_negative::<F>(large);
    let same_sign = negative == is_negative::<F>(small);
    let (large_exp, large_sig) = align::<F>(large);
    let (small_exp, small_sig) = align::<F>(small);
    // Jamming is safe under subtraction: bits are lost only where the exponents lie more than LEAD - 1 - FRAC
    // apart, and then at most one leading bit cancels.
    let small_sig = shift_right_jam(small_sig, (large_exp - small_exp) as u32);
    let sig = if same_sign { large_sig + small_sig } else { large_sig - small_sig };
    if sig == 0 {
        return if same_sign { sign_bit::<F>(negative) } else { cancelled_zero::<F>(rm) };
    }
    let up = sig.leading_zeros() - (63 - LEAD);
    round_pack::<F>(negative, large_exp + 1 - up as i32, sig << up, rm, flags)
}

/// `fsub`: `a` - `b`.
#[inline]
pub fn sub<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    add::<F>(a, b ^ F::SIGN, rm, flags)
}

/// Exponent and significand of a finite value with the leading one of normals at bit `LEAD - 1`, which leaves
/// room for a carry. Subnormals and zero keep the exponent of the least normal.
#[inline]
fn align<F: Format>(bits: u64) -> (i32, u64) {
    let field = exponent::<F>(bits);
    let hidden = u64::from(field != 0) << F::FRAC;
    (field.max(1) - F::BIAS, ((bits & F::FRACTION) | hidden) << (LEAD - 1 - F::FRAC))
}

#[cold]
fn add_special<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        nan_from::<F>(&[a, b], flags)
    } else if is_infinite::<F>(a) && is_infinite::<F>(b) && is_negative::<F>(a) != is_negative::<F>(b) {
        invalid::<F>(flags)
    } else {
        F::INFINITY | sign_bit::<F>(is_negative::<F>(if is_infinite::<F>(a) { a } else { b }))
    }
}
