//! Division.

use super::format::{Format, is_infinite, is_nan, is_negative, is_zero, sign_bit};
use super::round::{LEAD, invalid, is_special, nan_from, round_pack, unpack};
use super::{Flags, Rounding};

/// `fdiv`: `a` ÷ `b`.
#[inline]
pub fn div<F: Format>(a: u64, b: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    let negative = is_negative::<F>(a) != is_negative::<F>(b);
    if is_special::<F>(a) || is_special::<F>(b) || is_zero::<F>(a) || is_zero::<F>(b) {
        return div_special::<F>(a, b, negative, flags);
    }
    let (a, b) = (unpack::<F>(a), unpack::<F>(b));
    // Doubling the smaller dividend puts the quotient in [1, 2).
    let doubled = u32::from(a.sig < b.sig);
    let exp = a.exp - b.exp - doubled as i32;
    let sig = if F::FRAC <= 23 {
        // Without their low zeros the significands are so short that 64 bits hold a wide enough dividend.
        const QUOTIENT: u32 = 38;
        let dividend = (a.sig >> (LEAD - F::FRAC)) << (QUOTIENT + doubled);
        let divisor = b.sig >> (LEAD - F::FRAC);
        ((dividend / divisor) << (LEAD - QUOTIENT)) | u64::from(!dividend.is_multiple_of(divisor))
    } else {
        let dividend = u128::from(a.sig) << (LEAD + doubled);
        let divisor = u128::from(b.sig);
        let quotient = (dividend / divisor) as u64;
        quotient | u64::from(u128::from(quotient) * divisor != dividend)
    };
    round_pack::<F>(negative, exp, sig, rm, flags)
}

#[cold]
fn div_special<F: Format>(a: u64, b: u64, negative: bool, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan_from::<F>(&[a, b], flags);
    }
    let sign = sign_bit::<F>(negative);
    match (is_infinite::<F>(a), is_infinite::<F>(b)) {
        (true, true) => invalid::<F>(flags),
        (true, false) => sign | F::INFINITY,
        (false, true) => sign,
        (false, false) if !is_zero::<F>(b) => sign,
        (false, false) if is_zero::<F>(a) => invalid::<F>(flags),
        (false, false) => {
            *flags |= Flags::DZ;
            sign | F::INFINITY
        }
    }
}
