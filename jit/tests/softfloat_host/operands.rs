//! Operands that reach the corners: special values, few significant bits, neighbours of powers of two, results
//! near overflow, underflow, cancellation and midpoints.

use crate::{Judged, Op};
use jit::softfloat::{self as sf, Flags, Format, Rounding};

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn near(&mut self, centre: i64, spread: u64) -> i64 {
        centre + self.below(2 * spread + 1) as i64 - spread as i64
    }
}

/// 44 values, each magnitude with both signs.
pub(crate) fn float_corners<F: Format>() -> Vec<u64> {
    let least_normal = 1 << F::FRAC;
    let power = |exp: i32| ((exp + F::BIAS) as u64) << F::FRAC;
    let precision = F::FRAC as i32 + 1;
    let magnitudes = [
        0,
        1,
        2,
        F::FRACTION >> 1,
        F::FRACTION,
        least_normal,
        least_normal + 1,
        power(-precision),
        power(1 - precision) | 1,
        power(-1) | F::FRACTION,
        F::ONE - 1,
        F::ONE,
        F::ONE + 1,
        F::ONE | F::QUIET,
        power(1),
        power(1) | F::QUIET,
        power(precision - 1) | 1,
        F::INFINITY - 2,
        F::INFINITY - 1,
        F::INFINITY,
        F::INFINITY | 1,
        F::NAN | 1,
    ];
    magnitudes.into_iter().flat_map(|m| [m, m | F::SIGN]).collect()
}

/// Powers of two, their neighbours and their negatives, through all of 64 bits.
pub(crate) fn integer_corners() -> Vec<u64> {
    (0..64)
        .flat_map(|n| {
            let power = 1u64 << n;
            let halfway = power | (power >> 11) | (power >> 12);
            [power - 1, power, power + 1, power.wrapping_neg(), halfway, halfway.wrapping_neg()]
        })
        .collect()
}

fn fraction<F: Format>(random: &mut Random) -> u64 {
    let bits = random.next();
    let cut = random.below(u64::from(F::FRAC) + 1) as u32;
    let low = (1u64 << cut) - 1;
    F::FRACTION
        & match random.below(6) {
            0 => bits,
            1 => bits & !low,
            2 => bits & low,
            3 => bits | low,
            4 => 1 << cut,
            _ => (1u64 << cut).wrapping_neg() ^ random.below(4),
        }
}

fn with_exponent<F: Format>(field: i64, random: &mut Random) -> u64 {
    let field = field.clamp(0, i64::from(F::EXP_MAX) - 1) as u64;
    (random.next() & F::SIGN) | (field << F::FRAC) | fraction::<F>(random)
}

fn field<F: Format>(bits: u64) -> i64 {
    ((bits & F::MAGNITUDE) >> F::FRAC) as i64
}

fn value<F: Format>(random: &mut Random) -> u64 {
    let (bias, top) = (i64::from(F::BIAS), i64::from(F::EXP_MAX));
    let field = match random.below(8) {
        0 => {
            let list = float_corners::<F>();
            return list[random.below(list.len() as u64) as usize];
        }
        1 => return random.next() & (F::SIGN | F::MAGNITUDE),
        2 => random.below(4) as i64,
        3 => top - 1 - random.below(4) as i64,
        4 | 5 => random.near(bias, 4),
        6 => random.near(bias, 2 * u64::from(F::FRAC)),
        _ => random.below(top as u64) as i64,
    };
    with_exponent::<F>(field, random)
}

/// `bits` moved by up to two units in the last place.
fn nudged<F: Format>(bits: u64, random: &mut Random) -> u64 {
    let magnitude = (bits & F::MAGNITUDE) as i64;
    let moved = random.near(magnitude, 2).clamp(0, F::INFINITY as i64);
    (bits & F::SIGN) | moved as u64
}

fn integer(random: &mut Random) -> u64 {
    let corners = integer_corners();
    match random.below(4) {
        0 => corners[random.below(corners.len() as u64) as usize],
        1 => {
            let wide = random.next();
            wide & !((1u64 << random.below(64)) - 1)
        }
        2 => random.next() >> random.below(64),
        _ => (random.next() as i64 >> random.below(64)) as u64,
    }
}

/// Operands for `op`, half of them unrelated, half of them related so that the result is a hard one.
pub(crate) fn random<F: Judged>(op: Op, random: &mut Random) -> [u64; 3] {
    if Op::FROM_INTEGER.contains(&op) {
        return [integer(random), 0, 0];
    }
    let [a, b, c] = [(); 3].map(|()| value::<F>(random));
    if random.below(2) == 0 {
        return [a, b, c];
    }
    let product = |a, b| sf::mul::<F>(a, b, Rounding::Rne, &mut Flags::default());
    let bias = i64::from(F::BIAS);
    let frac = u64::from(F::FRAC);
    match op {
        Op::Mul | Op::Div => {
            // A result at the lower or the upper end of the exponents.
            let wanted =
                if random.below(3) == 0 { random.near(2 * bias, 2) } else { random.near(0, frac + 2) };
            let exponent =
                if op == Op::Mul { wanted + bias - field::<F>(a) } else { field::<F>(a) + bias - wanted };
            let b = if op == Op::Div && random.below(4) == 0 {
                // An exact or nearly exact quotient.
                return [nudged::<F>(product(b, c), random), c, 0];
            } else {
                with_exponent::<F>(exponent, random)
            };
            [a, b, 0]
        }
        Op::Sqrt => [nudged::<F>(product(a, a), random), 0, 0],
        Op::Fma => {
            let b = if random.below(2) == 0 {
                let wanted = random.near(0, 2 * frac);
                with_exponent::<F>(wanted + bias - field::<F>(a), random)
            } else {
                b
            };
            let product = product(a, b);
            let c = if random.below(2) == 0 {
                nudged::<F>(product ^ F::SIGN, random)
            } else {
                let near = random.near(field::<F>(product), 2 * frac + 4);
                with_exponent::<F>(near, random)
            };
            [a, b, c]
        }
        Op::ToF16 | Op::ToF32 => {
            // Near an end of the narrower format's exponents.
            let (narrow_bias, narrow_frac) = if op == Op::ToF16 { (15, 10) } else { (127, 23) };
            let exponent = if random.below(3) == 0 {
                random.near(bias + narrow_bias, 2)
            } else {
                random.near(bias - narrow_bias, narrow_frac + 3)
            };
            [with_exponent::<F>(exponent, random), 0, 0]
        }
        _ if op.operand_count() == 1 => {
            // About the ends of the integer types, and everywhere that has a fraction.
            let exponent = if random.below(2) == 0 {
                random.below(67) as i64 - 2
            } else {
                [31, 32, 63, 64][random.below(4) as usize] - 1
            };
            [with_exponent::<F>(exponent + bias, random), 0, 0]
        }
        _ if random.below(2) == 0 => [a, nudged::<F>(a ^ (random.next() & F::SIGN), random), 0],
        _ => {
            let near = random.near(field::<F>(a), frac + 3);
            [a, with_exponent::<F>(near, random), 0]
        }
    }
}
