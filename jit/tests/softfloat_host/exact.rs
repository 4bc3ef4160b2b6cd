//! The judge that works from definitions: every finite operand and result is a fixed-point number of as many
//! bits as it takes, and rounding looks at the bits of that number as IEEE 754-2019 section 4.3 words it.
//! Nothing here is shared with the soft-float but the constants of the formats.

use crate::{Judged, Op, Outcome};
use jit::softfloat::{F16, F32, F64, Flags, Format, Rounding};
use std::cmp::Ordering;

/// A nonnegative fixed-point number: `WORDS` × 64 bits, of which `POINT` stand below the binary point, and
/// `rest`, which tells that the true value lies between this and the next one.
#[derive(Clone, Copy)]
pub(crate) struct Fixed<const WORDS: usize, const POINT: i32> {
    words: [u64; WORDS],
    rest: bool,
}

/// What rounding asks of a [`Fixed`]; positions are exponents of two.
pub(crate) trait Wide: Copy {
    fn new(magnitude: u128, exp: i32, rest: bool) -> Self;
    fn plus(self, other: &Self) -> Self;
    /// `self` - `other`, which is not greater and has no rest.
    fn minus(self, other: &Self) -> Self;
    fn compare(&self, other: &Self) -> Ordering;
    /// The exponent of the leading one.
    fn leading(&self) -> Option<i32>;
    fn bit(&self, exp: i32) -> bool;
    /// Whether anything at all lies below the bit of weight 2^`exp`.
    fn any_below(&self, exp: i32) -> bool;
    /// The integer `self` / 2^`exp`, truncated, which must fit.
    fn truncated(&self, exp: i32) -> u128 {
        let top = self.leading().unwrap_or(exp - 1);
        (exp..=top).rev().fold(0, |integer, exp| (integer << 1) | u128::from(self.bit(exp)))
    }
}

impl<const WORDS: usize, const POINT: i32> Wide for Fixed<WORDS, POINT> {
    fn new(magnitude: u128, exp: i32, rest: bool) -> Self {
        let mut words = [0; WORDS];
        let position = (exp + POINT) as usize;
        let (word, shift) = (position / 64, position % 64);
        for part in 0..3 {
            // Bits 64 × part .. 64 × part + 64 of magnitude << shift.
            let bits = match part {
                0 => (magnitude << shift) as u64,
                1 => (magnitude >> (64 - shift)) as u64,
                _ if shift == 0 => 0,
                _ => ((magnitude >> 64) as u64) >> (64 - shift),
            };
            if bits != 0 {
                words[word + part] = bits;
            }
        }
        Fixed { words, rest }
    }

    fn plus(mut self, other: &Self) -> Self {
        let mut carry = false;
        for (word, &add) in self.words.iter_mut().zip(&other.words) {
            let (sum, first) = word.overflowing_add(add);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first | second);
        }
        assert!(!carry);
        self
    }

    fn minus(mut self, other: &Self) -> Self {
        assert!(!other.rest);
        let mut borrow = false;
        for (word, &subtract) in self.words.iter_mut().zip(&other.words) {
            let (difference, first) = word.overflowing_sub(subtract);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (difference, first | second);
        }
        assert!(!borrow);
        self
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.words.iter().rev().cmp(other.words.iter().rev())
    }

    fn leading(&self) -> Option<i32> {
        let word = self.words.iter().rposition(|&word| word != 0)?;
        Some(word as i32 * 64 + self.words[word].ilog2() as i32 - POINT)
    }

    fn bit(&self, exp: i32) -> bool {
        let position = (exp + POINT) as usize;
        self.words.get(position / 64).is_some_and(|word| (word >> (position % 64)) & 1 != 0)
    }

    fn any_below(&self, exp: i32) -> bool {
        let position = (exp + POINT) as usize;
        let (whole, part) = (position / 64, position % 64);
        self.rest
            || self.words[..whole.min(WORDS)].iter().any(|&word| word != 0)
            || self.words.get(whole).is_some_and(|word| word & ((1 << part) - 1) != 0)
    }
}

/// `value` / 2^`quantum` rounded to an integer, and whether that was inexact.
fn to_multiple<W: Wide>(negative: bool, value: &W, quantum: i32, rm: Rounding) -> (u128, bool) {
    let lower = value.truncated(quantum);
    let inexact = value.any_below(quantum);
    let at_least_half = value.bit(quantum - 1);
    let exactly_half = at_least_half && !value.any_below(quantum - 1);
    let up = match rm {
        Rounding::Rtz => false,
        Rounding::Rdn => inexact && negative,
        Rounding::Rup => inexact && !negative,
        Rounding::Rmm => at_least_half,
        Rounding::Rne if exactly_half => lower % 2 == 1,
        Rounding::Rne => at_least_half,
    };
    (lower + u128::from(up), inexact)
}

fn signed<F: Format>(negative: bool, magnitude: u64) -> u64 {
    if negative { magnitude | F::SIGN } else { magnitude }
}

/// `multiple` × 2^`quantum`, which the format has.
fn pack<F: Format>(negative: bool, multiple: u128, quantum: i32) -> u64 {
    let least = 1 - F::BIAS - F::FRAC as i32;
    let bits = if multiple == 0 {
        0
    } else if multiple.ilog2() as i32 + quantum < 1 - F::BIAS {
        (multiple as u64) << (quantum - least)
    } else {
        let exp = multiple.ilog2() as i32;
        let field = (exp + quantum + F::BIAS) as u64;
        let up = F::FRAC as i32 - exp;
        let significand = if up >= 0 { multiple << up } else { multiple >> -up };
        (field << F::FRAC) | (significand as u64 & F::FRACTION)
    };
    signed::<F>(negative, bits)
}

/// Sections 4.3 (rounding), 7.4 (overflow) and 7.5 a (underflow, tininess after rounding) for a nonzero value.
fn round<W: Wide, F: Format>(negative: bool, value: &W, rm: Rounding) -> Outcome {
    let least_exp = 1 - F::BIAS;
    let exp = value.leading().expect("a nonzero value");
    let unbounded = exp - F::FRAC as i32;
    let (multiple, _) = to_multiple(negative, value, unbounded, rm);
    let tiny = multiple.ilog2() as i32 + unbounded < least_exp;

    let quantum = unbounded.max(least_exp - F::FRAC as i32);
    let (multiple, inexact) = to_multiple(negative, value, quantum, rm);
    if multiple != 0 && multiple.ilog2() as i32 + quantum > F::BIAS {
        let to_infinity = match rm {
            Rounding::Rne | Rounding::Rmm => true,
            Rounding::Rtz => false,
            Rounding::Rdn => negative,
            Rounding::Rup => !negative,
        };
        let bits = if to_infinity { F::INFINITY } else { F::INFINITY - 1 };
        return Outcome { bits: signed::<F>(negative, bits), flags: Flags::OF | Flags::NX };
    }
    let flags = match (inexact, tiny) {
        (false, _) => Flags::NONE,
        (true, false) => Flags::NX,
        (true, true) => Flags::NX | Flags::UF,
    };
    Outcome { bits: pack::<F>(negative, multiple, quantum), flags }
}

/// An operand: `magnitude` × 2^`exp` when finite.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    kind: Is,
    magnitude: u128,
    exp: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Zero,
    Finite,
    Infinite,
    Quiet,
    Signalling,
}

impl Number {
    fn of<F: Format>(bits: u64) -> Number {
        let negative = bits & F::SIGN != 0;
        let field = ((bits & F::MAGNITUDE) >> F::FRAC) as i32;
        let fraction = bits & F::FRACTION;
        let kind = match (field, fraction) {
            (0, 0) => Is::Zero,
            (field, 0) if field == F::EXP_MAX => Is::Infinite,
            (field, _) if field != F::EXP_MAX => Is::Finite,
            _ if fraction & F::QUIET != 0 => Is::Quiet,
            _ => Is::Signalling,
        };
        let (significand, field) =
            if field == 0 { (fraction, 1) } else { (fraction + F::FRACTION + 1, field) };
        Number { negative, kind, magnitude: u128::from(significand), exp: field - F::BIAS - F::FRAC as i32 }
    }

    fn is_nan(&self) -> bool {
        matches!(self.kind, Is::Quiet | Is::Signalling)
    }

    fn times(self, other: Number) -> Number {
        let kind = match (self.kind, other.kind) {
            (Is::Zero, _) | (_, Is::Zero) => Is::Zero,
            (Is::Finite, Is::Finite) => Is::Finite,
            _ => Is::Infinite,
        };
        Number {
            negative: self.negative != other.negative,
            kind,
            magnitude: self.magnitude * other.magnitude,
            exp: self.exp + other.exp,
        }
    }

    fn fixed<W: Wide>(&self) -> W {
        let magnitude = if self.kind == Is::Zero { 0 } else { self.magnitude };
        W::new(magnitude, if magnitude == 0 { 0 } else { self.exp }, false)
    }

    /// Orders two numbers that are no NaNs; zeros are equal.
    fn compare<F: Judged>(&self, other: &Number) -> Ordering {
        let side = |number: &Number| match (number.kind, number.negative) {
            (Is::Zero, _) => 0,
            (Is::Finite, false) => 1,
            (Is::Finite, true) => -1,
            (_, false) => 2,
            (_, true) => -2,
        };
        match (side(self), side(other)) {
            (1, 1) => self.fixed::<F::Fixed>().compare(&other.fixed()),
            (-1, -1) => other.fixed::<F::Fixed>().compare(&self.fixed()),
            (left, right) => i32::cmp(&left, &right),
        }
    }
}

fn plain(bits: u64) -> Outcome {
    Outcome { bits, flags: Flags::NONE }
}

fn invalid(bits: u64) -> Outcome {
    Outcome { bits, flags: Flags::NV }
}

fn sum<F: Judged>(a: Number, b: Number, rm: Rounding) -> Outcome {
    match (a.kind, b.kind) {
        (Is::Infinite, Is::Infinite) if a.negative != b.negative => return invalid(F::NAN),
        (Is::Infinite, _) => return plain(signed::<F>(a.negative, F::INFINITY)),
        (_, Is::Infinite) => return plain(signed::<F>(b.negative, F::INFINITY)),
        _ => {}
    }
    let (left, right): (F::Fixed, F::Fixed) = (a.fixed(), b.fixed());
    let (negative, total) = if a.negative == b.negative {
        (a.negative, left.plus(&right))
    } else if left.compare(&right) == Ordering::Less {
        (b.negative, right.minus(&left))
    } else {
        (a.negative, left.minus(&right))
    };
    if total.leading().is_some() {
        round::<F::Fixed, F>(negative, &total, rm)
    } else if a.negative == b.negative {
        plain(signed::<F>(a.negative, 0))
    } else {
        plain(signed::<F>(rm == Rounding::Rdn, 0))
    }
}

fn product<F: Judged>(a: Number, b: Number, rm: Rounding) -> Outcome {
    let product = a.times(b);
    match product.kind {
        Is::Zero if a.kind == Is::Infinite || b.kind == Is::Infinite => invalid(F::NAN),
        Is::Zero => plain(signed::<F>(product.negative, 0)),
        Is::Finite => round::<F::Fixed, F>(product.negative, &product.fixed(), rm),
        _ => plain(signed::<F>(product.negative, F::INFINITY)),
    }
}

fn quotient<F: Judged>(a: Number, b: Number, rm: Rounding) -> Outcome {
    let negative = a.negative != b.negative;
    match (a.kind, b.kind) {
        (Is::Zero, Is::Zero) | (Is::Infinite, Is::Infinite) => invalid(F::NAN),
        (Is::Infinite, _) => plain(signed::<F>(negative, F::INFINITY)),
        (Is::Zero, _) | (_, Is::Infinite) => plain(signed::<F>(negative, 0)),
        (_, Is::Zero) => Outcome { bits: signed::<F>(negative, F::INFINITY), flags: Flags::DZ },
        _ => {
            let up = a.magnitude.leading_zeros();
            let dividend = a.magnitude << up;
            let rest = !dividend.is_multiple_of(b.magnitude);
            let value = F::Fixed::new(dividend / b.magnitude, a.exp - b.exp - up as i32, rest);
            round::<F::Fixed, F>(negative, &value, rm)
        }
    }
}

fn root<F: Judged>(a: Number, rm: Rounding) -> Outcome {
    match (a.kind, a.negative) {
        (Is::Zero, _) => plain(signed::<F>(a.negative, 0)),
        (_, true) => invalid(F::NAN),
        (Is::Infinite, _) => plain(F::INFINITY),
        _ => {
            let mut up = (a.magnitude.leading_zeros() - 1) as i32;
            up -= (a.exp - up) & 1;
            let square = a.magnitude << up;
            let mut root = 0u128;
            for bit in (0..64).rev() {
                let candidate = root | (1 << bit);
                if candidate * candidate <= square {
                    root = candidate;
                }
            }
            let value = F::Fixed::new(root, (a.exp - up) / 2, root * root != square);
            round::<F::Fixed, F>(false, &value, rm)
        }
    }
}

/// `fround` and `froundnx`; the caller takes NX away for the former.
fn integral<F: Judged>(bits: u64, a: Number, rm: Rounding) -> Outcome {
    if a.kind != Is::Finite || a.exp >= 0 {
        return plain(bits);
    }
    let (multiple, inexact) = to_multiple(a.negative, &a.fixed::<F::Fixed>(), 0, rm);
    let flags = if inexact { Flags::NX } else { Flags::NONE };
    Outcome { bits: pack::<F>(a.negative, multiple, 0), flags }
}

fn convert<F: Judged, To: Format>(a: Number, rm: Rounding) -> Outcome {
    match a.kind {
        Is::Zero => plain(signed::<To>(a.negative, 0)),
        Is::Finite => round::<F::Fixed, To>(a.negative, &a.fixed(), rm),
        Is::Infinite => plain(signed::<To>(a.negative, To::INFINITY)),
        Is::Quiet => plain(To::NAN),
        Is::Signalling => invalid(To::NAN),
    }
}

fn to_integer<F: Judged>(a: Number, least: i128, most: i128, rm: Rounding) -> Outcome {
    let saturated = invalid(if a.negative && !a.is_nan() { least } else { most } as u64);
    match a.kind {
        Is::Zero => plain(0),
        Is::Finite => {
            let value: F::Fixed = a.fixed();
            if value.leading().is_some_and(|exp| exp > 100) {
                return saturated;
            }
            let (integer, inexact) = to_multiple(a.negative, &value, 0, rm);
            let integer = if a.negative { -(integer as i128) } else { integer as i128 };
            if !(least..=most).contains(&integer) {
                return saturated;
            }
            Outcome { bits: integer as u64, flags: if inexact { Flags::NX } else { Flags::NONE } }
        }
        _ => saturated,
    }
}

fn from_integer<F: Judged>(value: i128, rm: Rounding) -> Outcome {
    if value == 0 {
        return plain(0);
    }
    round::<F::Fixed, F>(value < 0, &F::Fixed::new(value.unsigned_abs(), 0, false), rm)
}

fn least_or_most(op: Op, [x, y]: [u64; 2], a: Number, b: Number, ordering: Ordering) -> u64 {
    let x_below_y = match ordering {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => a.negative && !b.negative,
    };
    if x_below_y == matches!(op, Op::Min | Op::Minm) { x } else { y }
}

fn comparison<F: Judged>(op: Op, [x, y]: [u64; 2], a: Number, b: Number) -> Outcome {
    let signalling = a.kind == Is::Signalling || b.kind == Is::Signalling;
    if a.is_nan() || b.is_nan() {
        let bits = match op {
            Op::Min | Op::Max if !a.is_nan() => x,
            Op::Min | Op::Max if !b.is_nan() => y,
            Op::Min | Op::Max | Op::Minm | Op::Maxm => F::NAN,
            _ => 0,
        };
        let raises = signalling || matches!(op, Op::Lt | Op::Le);
        return if raises { invalid(bits) } else { plain(bits) };
    }
    let ordering = a.compare::<F>(&b);
    plain(match op {
        Op::Eq => u64::from(ordering.is_eq()),
        Op::Lt | Op::Ltq => u64::from(ordering.is_lt()),
        Op::Le | Op::Leq => u64::from(ordering.is_le()),
        _ => least_or_most(op, [x, y], a, b, ordering),
    })
}

/// The outcome RISC-V specifies.
pub(crate) fn run<F: Judged>(op: Op, operands: [u64; 3], rm: Rounding) -> Outcome {
    let [x, y, _] = operands;
    match op {
        Op::FromI32 => return from_integer::<F>(i128::from(x as i32), rm),
        Op::FromU32 => return from_integer::<F>(i128::from(x as u32), rm),
        Op::FromI64 => return from_integer::<F>(i128::from(x as i64), rm),
        Op::FromU64 => return from_integer::<F>(i128::from(x), rm),
        _ => {}
    }
    let [a, b, c] = operands.map(Number::of::<F>);
    match op {
        Op::ToF16 => return convert::<F, F16>(a, rm),
        Op::ToF32 => return convert::<F, F32>(a, rm),
        Op::ToF64 => return convert::<F, F64>(a, rm),
        Op::ToI32 => return to_integer::<F>(a, i32::MIN.into(), i32::MAX.into(), rm),
        Op::ToI64 => return to_integer::<F>(a, i64::MIN.into(), i64::MAX.into(), rm),
        Op::ToU64 => return to_integer::<F>(a, 0, u64::MAX.into(), rm),
        Op::ToU32 => {
            let Outcome { bits, flags } = to_integer::<F>(a, 0, u32::MAX.into(), rm);
            return Outcome { bits: bits as i32 as u64, flags };
        }
        op if Op::COMPARISONS.contains(&op) => return comparison::<F>(op, [x, y], a, b),
        _ => {}
    }
    let used = &[a, b, c][..op.operand_count()];
    let infinity_times_zero = matches!((a.kind, b.kind), (Is::Infinite, Is::Zero) | (Is::Zero, Is::Infinite));
    if used.iter().any(|number| number.kind == Is::Signalling) || (op == Op::Fma && infinity_times_zero) {
        return invalid(F::NAN);
    }
    if used.iter().any(Number::is_nan) {
        return plain(F::NAN);
    }
    match op {
        Op::Add => sum::<F>(a, b, rm),
        Op::Sub => sum::<F>(a, Number { negative: !b.negative, ..b }, rm),
        Op::Mul => product::<F>(a, b, rm),
        Op::Div => quotient::<F>(a, b, rm),
        Op::Sqrt => root::<F>(a, rm),
        Op::Fma => sum::<F>(a.times(b), c, rm),
        Op::Froundnx => integral::<F>(x, a, rm),
        Op::Fround => plain(integral::<F>(x, a, rm).bits),
        op => unreachable!("{op:?} is judged above"),
    }
}
