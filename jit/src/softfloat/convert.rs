//! Conversions between the formats, and to and from integers.

use super::format::{Format, is_infinite, is_nan, is_negative, is_zero, sign_bit};
use super::round::{LEAD, Unpacked, nan_from, round_pack, rounds_up, shift_right_jam, unpack};
use super::{Flags, Rounding};

/// `fcvt.TO.FROM`: the same value in another format. A NaN becomes the canonical one.
#[inline]
pub fn convert<From: Format, To: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    let negative = is_negative::<From>(a);
    if is_nan::<From>(a) {
        nan_from::<From>(&[a], flags);
        return To::NAN;
    }
    if is_infinite::<From>(a) {
        return To::INFINITY | sign_bit::<To>(negative);
    }
    if is_zero::<From>(a) {
        return sign_bit::<To>(negative);
    }
    let a = unpack::<From>(a);
    round_pack::<To>(negative, a.exp, a.sig, rm, flags)
}

/// The largest magnitudes an integer type holds, below and above zero.
struct Range {
    negative: u64,
    positive: u64,
}

/// `fcvt.w`: to a signed 32-bit integer, sign-extended.
///
/// Like its three siblings it rounds to an integer first. If that is out of range the result is the nearest
/// end of the range, for a NaN the upper one, and NV is raised alone; otherwise NX tells that it was inexact.
#[inline]
pub fn to_i32<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    to_integer::<F>(a, Range { negative: 1 << 31, positive: i32::MAX as u64 }, rm, flags)
}

/// `fcvt.wu`: to an unsigned 32-bit integer, sign-extended from bit 31 all the same. See [`to_i32`].
#[inline]
pub fn to_u32<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    let word = to_integer::<F>(a, Range { negative: 0, positive: u64::from(u32::MAX) }, rm, flags);
    word as i32 as u64
}

/// `fcvt.l`: to a signed 64-bit integer. See [`to_i32`].
#[inline]
pub fn to_i64<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    to_integer::<F>(a, Range { negative: 1 << 63, positive: i64::MAX as u64 }, rm, flags)
}

/// `fcvt.lu`: to an unsigned 64-bit integer. See [`to_i32`].
#[inline]
pub fn to_u64<F: Format>(a: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    to_integer::<F>(a, Range { negative: 0, positive: u64::MAX }, rm, flags)
}

#[inline]
fn to_integer<F: Format>(a: u64, range: Range, rm: Rounding, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) {
        *flags |= Flags::NV;
        return range.positive;
    }
    if is_zero::<F>(a) {
        return 0;
    }
    let negative = is_negative::<F>(a);
    let limit = if negative { range.negative } else { range.positive };
    // An infinity unpacks to 2^(BIAS + 1), which in binary16 would be in range.
    let rounded = if is_infinite::<F>(a) { None } else { round_magnitude(negative, unpack::<F>(a), rm) };
    let magnitude = match rounded {
        Some((magnitude, exact)) if magnitude <= limit => {
            if !exact {
                *flags |= Flags::NX;
            }
            magnitude
        }
        _ => {
            *flags |= Flags::NV;
            limit
        }
    };
    if negative { magnitude.wrapping_neg() } else { magnitude }
}

/// Rounds a magnitude to an integer and tells whether that was exact; `None` from 2^64 on.
#[inline]
fn round_magnitude(negative: bool, a: Unpacked, rm: Rounding) -> Option<(u64, bool)> {
    const TOP: i32 = LEAD as i32;
    match a.exp {
        64.. => None,
        TOP.. => Some((a.sig << (a.exp - TOP), true)),
        _ => {
            let down = (TOP - a.exp) as u32;
            let (integer, fraction) = if down < 64 {
                (a.sig >> down, a.sig << (64 - down))
            } else {
                (0, shift_right_jam(a.sig, down - 64))
            };
            let up = rounds_up(negative, integer, fraction, rm);
            Some((integer + u64::from(up), fraction == 0))
        }
    }
}

/// `fcvt.FMT.w`: from a signed 32-bit integer.
#[inline]
pub fn from_i32<F: Format>(value: i32, rm: Rounding, flags: &mut Flags) -> u64 {
    from_integer::<F>(value < 0, u64::from(value.unsigned_abs()), rm, flags)
}

/// `fcvt.FMT.wu`: from an unsigned 32-bit integer.
#[inline]
pub fn from_u32<F: Format>(value: u32, rm: Rounding, flags: &mut Flags) -> u64 {
    from_integer::<F>(false, u64::from(value), rm, flags)
}

/// `fcvt.FMT.l`: from a signed 64-bit integer.
#[inline]
pub fn from_i64<F: Format>(value: i64, rm: Rounding, flags: &mut Flags) -> u64 {
    from_integer::<F>(value < 0, value.unsigned_abs(), rm, flags)
}

/// `fcvt.FMT.lu`: from an unsigned 64-bit integer.
#[inline]
pub fn from_u64<F: Format>(value: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    from_integer::<F>(false, value, rm, flags)
}

#[inline]
fn from_integer<F: Format>(negative: bool, magnitude: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    if magnitude == 0 {
        return 0;
    }
    let zeros = magnitude.leading_zeros();
    let sig = shift_right_jam(magnitude << zeros, 63 - LEAD);
    round_pack::<F>(negative, 63 - zeros as i32, sig, rm, flags)
}
