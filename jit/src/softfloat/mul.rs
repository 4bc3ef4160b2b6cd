//! Multiplication.

use super::format::{Format, is_nan, is_negative, is_zero, sign_bit};
use super::round::{LEAD, Unpacked, invalid, is_special, nan_from, round_pack, shift_right_jam, unpack};
use super::{Flags, Rounding};

/// `fmul`: `a` × `b`.
#[inline]
pub fn mul<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    let negative = is_negative::<F>(a) != is_negative::<F>(b);
    if is_special::<F>(a) || is_special::<F>(b) {
        return mul_special::<F>(a, b, negative, flags);
    }
    if is_zero::<F>(a) || is_zero::<F>(b) {
        return sign_bit::<F>(negative);
    }
    round_product::<F>(negative, unpack::<F>(a), unpack::<F>(b), rm, flags)
}

/// Rounds the product of two finite, nonzero magnitudes.
#[inline]
pub(super) fn round_product<F: Format>(
    negative: bool,
    a: Unpacked,
    b: Unpacked,
    rm: Rounding,
    flags: &mut Flags,
) -> u64 {
    let product = u128::from(a.sig) * u128::from(b.sig);
    let low = product as u64 & ((1 << LEAD) - 1);
    let sig = (product >> LEAD) as u64 | u64::from(low != 0);
    let carry = (sig >> (LEAD + 1)) as u32;
    round_pack::<F>(negative, a.exp + b.exp + carry as i32, shift_right_jam(sig, carry), rm, flags)
}

#[cold]
fn mul_special<F: Format>(a: u64, b: u64, negative: bool, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        nan_from::<F>(&[a, b], flags)
    } else if is_zero::<F>(a) || is_zero::<F>(b) {
        invalid::<F>(flags)
    } else {
        F::INFINITY | sign_bit::<F>(negative)
    }
}
