//! Fused multiply-add.

use super::format::{Format, is_infinite, is_nan, is_negative, is_zero, sign_bit};
use super::mul::round_product;
use super::round::{
    LEAD, cancelled_zero, high_word_jam, invalid, is_special, nan_from, round_pack, shift_right_jam_wide,
    unpack,
};
use super::{Flags, Rounding};

/// `fmadd`: `a` × `b` + `c`, rounded once. The other three come of it by flipping the signs of `a` and `c`.
#[inline]
pub fn fma<F: Format>(a: u64, b: u64, c: u64, rm: Rounding, flags: &mut Flags) -> u64 {
    if is_special::<F>(a) || is_special::<F>(b) || is_special::<F>(c) {
        return fma_special::<F>(a, b, c, flags);
    }
    let product_negative = is_negative::<F>(a) != is_negative::<F>(b);
    let same_sign = product_negative == is_negative::<F>(c);
    if is_zero::<F>(a) || is_zero::<F>(b) {
        return if !is_zero::<F>(c) || same_sign {
            c & (F::SIGN | F::MAGNITUDE)
        } else {
            cancelled_zero::<F>(rm)
        };
    }
    let (a, b) = (unpack::<F>(a), unpack::<F>(b));
    if is_zero::<F>(c) {
        return round_product::<F>(product_negative, a, b, rm, flags);
    }

    // Both terms in 128 bits, where bit 2 × LEAD has the weight 2^exp; the product may reach one bit higher.
    // Jamming is safe under subtraction: LEAD - FRAC or more low bits of either term are zero, so a shift that
    // loses bits leaves the other term far enough above for at most two leading bits to cancel.
    let mut product = u128::from(a.sig) * u128::from(b.sig);
    let mut exp = a.exp + b.exp;
    let addend = unpack::<F>(c);
    let mut term = u128::from(addend.sig) << LEAD;
    let distance = exp - addend.exp;
    if distance >= 0 {
        term = shift_right_jam_wide(term, distance as u32);
    } else {
        product = shift_right_jam_wide(product, distance.unsigned_abs());
        exp = addend.exp;
    }
    let (negative, sum) = if same_sign {
        (product_negative, product + term)
    } else if product >= term {
        (product_negative, product - term)
    } else {
        (!product_negative, term - product)
    };
    if sum == 0 {
        return cancelled_zero::<F>(rm);
    }
    let up = sum.leading_zeros() - (63 - LEAD);
    // The leading one now is LEAD of the high word, 64 - LEAD above the bit that weighs 2^exp.
    let exp = exp + (64 - LEAD as i32) - up as i32;
    round_pack::<F>(negative, exp, high_word_jam(sum << up), rm, flags)
}

#[cold]
fn fma_special<F: Format>(a: u64, b: u64, c: u64, flags: &mut Flags) -> u64 {
    let infinite_product = is_infinite::<F>(a) || is_infinite::<F>(b);
    // Even if c is a quiet NaN, where IEEE 754-2019 section 7.2 c leaves it to the implementation.
    if (is_infinite::<F>(a) && is_zero::<F>(b)) || (is_zero::<F>(a) && is_infinite::<F>(b)) {
        return invalid::<F>(flags);
    }
    if is_nan::<F>(a) || is_nan::<F>(b) || is_nan::<F>(c) {
        return nan_from::<F>(&[a, b, c], flags);
    }
    if !infinite_product {
        return c & (F::SIGN | F::MAGNITUDE);
    }
    let negative = is_negative::<F>(a) != is_negative::<F>(b);
    if is_infinite::<F>(c) && is_negative::<F>(c) != negative {
        return invalid::<F>(flags);
    }
    F::INFINITY | sign_bit::<F>(negative)
}
