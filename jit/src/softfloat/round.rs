//! Unpacking, rounding and packing: what all arithmetic shares.

use super::format::{Format, exponent, is_signalling, magnitude, sign_bit};
use super::{Flags, Rounding};

/// The bit of a significand that holds the leading one.
///
/// Not bit 63, so that adding a rounding increment cannot carry out of the word.
pub(super) const LEAD: u32 = 62;

/// The magnitude of a finite, nonzero value: `sig` × 2^(`exp` - 62), where bit 62 of `sig` is its leading one.
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) exp: i32,
    pub(super) sig: u64,
}

/// Unpacks the magnitude of a finite, nonzero value; subnormals come out normalised like any other.
#[inline]
pub(super) fn unpack<F: Format>(bits: u64) -> Unpacked {
    let fraction = bits & F::FRACTION;
    let field = exponent::<F>(bits);
    if field != 0 {
        return Unpacked { exp: field - F::BIAS, sig: (fraction | (1 << F::FRAC)) << (LEAD - F::FRAC) };
    }
    debug_assert!(fraction != 0);
    let up = fraction.leading_zeros() - (63 - LEAD);
    Unpacked { exp: 1 - F::BIAS - (up as i32 - (LEAD - F::FRAC) as i32), sig: fraction << up }
}

/// Shifts right by `n`; bit 0 of the result is also set if any one was shifted out.
#[inline]
pub(super) fn shift_right_jam(value: u64, n: u32) -> u64 {
    let n = n.min(63);
    (value >> n) | u64::from(value & ((1 << n) - 1) != 0)
}

/// [`shift_right_jam`] for 128 bits.
#[inline]
pub(super) fn shift_right_jam_wide(value: u128, n: u32) -> u128 {
    let n = n.min(127);
    (value >> n) | u128::from(value & ((1 << n) - 1) != 0)
}

/// The high word of `value`; bit 0 is also set if the low word is not zero.
#[inline]
pub(super) fn high_word_jam(value: u128) -> u64 {
    (value >> 64) as u64 | u64::from(value as u64 != 0)
}

/// What is added below the last kept bit so that truncation rounds as `rm` says, but for RNE's ties.
/// `below` has all bits set that truncation drops.
#[inline]
fn increment(negative: bool, below: u64, rm: Rounding) -> u64 {
    match rm {
        Rounding::Rne | Rounding::Rmm => below ^ (below >> 1),
        Rounding::Rtz => 0,
        Rounding::Rdn => {
            if negative {
                below
            } else {
                0
            }
        }
        Rounding::Rup => {
            if negative {
                0
            } else {
                below
            }
        }
    }
}

/// Rounds a nonzero magnitude (as in [`Unpacked`], lost bits jammed into bit 0) and packs it with its sign.
#[inline]
pub(super) fn round_pack<F: Format>(
    negative: bool,
    exp: i32,
    mut sig: u64,
    rm: Rounding,
    flags: &mut Flags,
) -> u64 {
    debug_assert!(sig >> LEAD == 1);
    let dropped = LEAD - F::FRAC;
    let below = (1u64 << dropped) - 1;
    let half = 1u64 << (dropped - 1);
    let increment = increment(negative, below, rm);
    let sign = sign_bit::<F>(negative);

    // One less than the exponent field: the leading one of a normal significand adds the rest when it lands in
    // the field, and so does a carry out of a subnormal one.
    let mut field = exp + F::BIAS - 1;
    let mut tiny = false;
    if field < 0 {
        // Tiny after rounding (IEEE 754-2019 section 7.5 a): judged as if the exponent had no lower bound, so
        // before the shift, and not tiny if that rounding carries up to the least normal.
        tiny = field < -1 || (sig + increment) >> (LEAD + 1) == 0;
        sig = shift_right_jam(sig, field.unsigned_abs());
        field = 0;
    } else if field >= F::EXP_MAX - 2 && (field > F::EXP_MAX - 2 || (sig + increment) >> (LEAD + 1) != 0) {
        *flags |= Flags::OF | Flags::NX;
        // A mode that does not round this sign away from zero stops at the largest finite value.
        return sign | (F::INFINITY - u64::from(increment == 0));
    }

    let rest = sig & below;
    let mut kept = (sig + increment) >> dropped;
    if rest != 0 {
        *flags |= Flags::NX;
        if tiny {
            *flags |= Flags::UF;
        }
        if rest == half && rm == Rounding::Rne {
            kept &= !1;
        }
    }
    sign | (((field as u64) << F::FRAC) + kept)
}

/// Whether a magnitude rounds up to the next integer: `integer` is its integral part, `fraction` the rest in
/// units of 2^-64, lower bits jammed.
#[inline]
pub(super) fn rounds_up(negative: bool, integer: u64, fraction: u64, rm: Rounding) -> bool {
    const HALF: u64 = 1 << 63;
    match rm {
        Rounding::Rne => fraction > HALF || (fraction == HALF && integer & 1 != 0),
        Rounding::Rtz => false,
        Rounding::Rdn => negative && fraction != 0,
        Rounding::Rup => !negative && fraction != 0,
        Rounding::Rmm => fraction >= HALF,
    }
}

/// The zero that is the sum of two opposite values: positive except towards -∞ (IEEE 754-2019 section 6.3).
#[inline]
pub(super) fn cancelled_zero<F: Format>(rm: Rounding) -> u64 {
    sign_bit::<F>(rm == Rounding::Rdn)
}

/// The result when some operand is a NaN: NV if any is signalling.
#[cold]
pub(super) fn nan_from<F: Format>(operands: &[u64], flags: &mut Flags) -> u64 {
    if operands.iter().any(|&bits| is_signalling::<F>(bits)) {
        *flags |= Flags::NV;
    }
    F::NAN
}

/// The result of an operation that is invalid on operands that are no NaNs.
#[cold]
pub(super) fn invalid<F: Format>(flags: &mut Flags) -> u64 {
    *flags |= Flags::NV;
    F::NAN
}

/// Whether this is an infinity or a NaN.
#[inline]
pub(super) fn is_special<F: Format>(bits: u64) -> bool {
    magnitude::<F>(bits) >= F::INFINITY
}
