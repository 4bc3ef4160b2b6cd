//! Comparisons, minimum and maximum, classification.

use super::Flags;
use super::format::{Format, exponent, is_infinite, is_nan, is_negative, is_signalling, is_zero, magnitude};

/// Orders values that are no NaNs; the two zeros are equal.
#[inline]
fn key<F: Format>(bits: u64) -> i64 {
    let magnitude = magnitude::<F>(bits) as i64;
    if is_negative::<F>(bits) { -magnitude } else { magnitude }
}

/// Orders values that are no NaNs; -0 is below +0.
#[inline]
fn total_key<F: Format>(bits: u64) -> i64 {
    let magnitude = magnitude::<F>(bits) as i64;
    if is_negative::<F>(bits) { !magnitude } else { magnitude }
}

/// Whether the operands are ordered, that is neither is a NaN. NV for a signalling NaN.
#[inline]
fn ordered_quiet<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_signalling::<F>(a) || is_signalling::<F>(b) {
        *flags |= Flags::NV;
    }
    !is_nan::<F>(a) && !is_nan::<F>(b)
}

/// Whether the operands are ordered. NV for any NaN.
#[inline]
fn ordered_signalling<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    let ordered = !is_nan::<F>(a) && !is_nan::<F>(b);
    if !ordered {
        *flags |= Flags::NV;
    }
    ordered
}

/// `feq`: a quiet comparison.
#[inline]
pub fn eq<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered_quiet::<F>(a, b, flags) && key::<F>(a) == key::<F>(b)
}

/// `flt`: a signalling comparison, NV for any NaN.
#[inline]
pub fn lt<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered_signalling::<F>(a, b, flags) && key::<F>(a) < key::<F>(b)
}

/// `fle`: a signalling comparison, NV for any NaN.
#[inline]
pub fn le<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered_signalling::<F>(a, b, flags) && key::<F>(a) <= key::<F>(b)
}

/// Zfa `fltq`: [`lt`], but quiet.
#[inline]
pub fn ltq<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered_quiet::<F>(a, b, flags) && key::<F>(a) < key::<F>(b)
}

/// Zfa `fleq`: [`le`], but quiet.
#[inline]
pub fn leq<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered_quiet::<F>(a, b, flags) && key::<F>(a) <= key::<F>(b)
}

/// What `fmin` and `fmax` give for unordered operands: the one that is no NaN, or else the canonical NaN.
#[cold]
fn number_of<F: Format>(a: u64, b: u64) -> u64 {
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (true, true) => F::NAN,
        (true, false) => b & (F::SIGN | F::MAGNITUDE),
        _ => a & (F::SIGN | F::MAGNITUDE),
    }
}

#[inline]
fn smaller<F: Format>(a: u64, b: u64) -> u64 {
    (if total_key::<F>(a) < total_key::<F>(b) { a } else { b }) & (F::SIGN | F::MAGNITUDE)
}

#[inline]
fn larger<F: Format>(a: u64, b: u64) -> u64 {
    (if total_key::<F>(a) < total_key::<F>(b) { b } else { a }) & (F::SIGN | F::MAGNITUDE)
}

/// `fmin`: IEEE 754-2019 minimumNumber; -0 is below +0, and a NaN loses to a number.
#[inline]
pub fn min<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if ordered_quiet::<F>(a, b, flags) { smaller::<F>(a, b) } else { number_of::<F>(a, b) }
}

/// `fmax`: IEEE 754-2019 maximumNumber; -0 is below +0, and a NaN loses to a number.
#[inline]
pub fn max<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if ordered_quiet::<F>(a, b, flags) { larger::<F>(a, b) } else { number_of::<F>(a, b) }
}

/// Zfa `fminm`: IEEE 754-2019 minimum; any NaN makes the canonical NaN.
#[inline]
pub fn minm<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if ordered_quiet::<F>(a, b, flags) { smaller::<F>(a, b) } else { F::NAN }
}

/// Zfa `fmaxm`: IEEE 754-2019 maximum; any NaN makes the canonical NaN.
#[inline]
pub fn maxm<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if ordered_quiet::<F>(a, b, flags) { larger::<F>(a, b) } else { F::NAN }
}

/// `fclass`: the 10-bit mask with the one bit set that tells the kind of `a`.
#[inline]
pub fn class<F: Format>(a: u64) -> u64 {
    if is_nan::<F>(a) {
        return if is_signalling::<F>(a) { 1 << 8 } else { 1 << 9 };
    }
    // Distance from the zeros, which are bits 3 (negative) and 4 (positive).
    let kind = if is_infinite::<F>(a) {
        3
    } else if exponent::<F>(a) != 0 {
        2
    } else if is_zero::<F>(a) {
        0
    } else {
        1
    };
    if is_negative::<F>(a) { 1 << (3 - kind) } else { 1 << (4 + kind) }
}
