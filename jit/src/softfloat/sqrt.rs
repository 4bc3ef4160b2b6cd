//! Square root.

use super::format::{Format, is_nan, is_negative, is_zero, magnitude};
use super::round::{LEAD, invalid, is_special, nan_from, round_pack, unpack};
use super::{Flags, Rounding};

/// `fsqrt`: the square root of `a`.
#[inline]
pub fn sqrt<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) {
        return nan_from::<F>(&[a], flags);
    }
    if is_zero::<F>(a) {
        return a & F::SIGN;
    }
    if is_negative::<F>(a) {
        return invalid::<F>(flags);
    }
    if is_special::<F>(a) {
        return magnitude::<F>(a);
    }
    let a = unpack::<F>(a);
    // The root of an even power of two is a power of two: an odd exponent hands one factor to the significand.
    let odd = (a.exp & 1) as u32;
    let sig = if F::FRAC <= 23 {
        // 31 bits of root, enough for 24 and for telling a midpoint from its neighbours.
        let square = a.sig >> (2 - odd);
        let root = square.isqrt();
        (root << (LEAD - 30)) | u64::from(root * root != square)
    } else {
        let square = u128::from(a.sig) << (LEAD + odd);
        let root = square.isqrt();
        root as u64 | u64::from(root * root != square)
    };
    round_pack::<F>(false, a.exp >> 1, sig, rm, flags)
}
