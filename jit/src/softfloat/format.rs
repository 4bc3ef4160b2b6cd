//! The three interchange formats, sign injection, and NaN boxing.

/// A binary interchange format of IEEE 754-2019 section 3.6, at most 64 bits wide.
pub trait Format {
    /// Bits of the trailing significand field.
    const FRAC: u32;
    /// Bits of the whole format.
    const WIDTH: u32;

    /// Exponent bias; also the exponent of the largest finite value.
    const BIAS: i32 = (1 << (Self::WIDTH - Self::FRAC - 2)) - 1;
    /// The exponent field of infinities and NaNs: all ones.
    const EXP_MAX: i32 = 2 * Self::BIAS + 1;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::WIDTH - 1);
    /// Everything but the sign bit.
    const MAGNITUDE: u64 = Self::SIGN - 1;
    /// The trailing significand field.
    const FRACTION: u64 = (1 << Self::FRAC) - 1;
    /// Positive infinity.
    const INFINITY: u64 = Self::MAGNITUDE & !Self::FRACTION;
    /// The bit that tells a quiet NaN from a signalling one.
    const QUIET: u64 = 1 << (Self::FRAC - 1);
    /// The canonical NaN: positive, quiet, no payload.
    const NAN: u64 = Self::INFINITY | Self::QUIET;
    /// 1.0.
    const ONE: u64 = (Self::BIAS as u64) << Self::FRAC;
}

/// binary16, RISC-V format H.
#[derive(Clone, Copy, Debug)]
pub enum F16 {}

/// binary32, RISC-V format S.
#[derive(Clone, Copy, Debug)]
pub enum F32 {}

/// binary64, RISC-V format D.
#[derive(Clone, Copy, Debug)]
pub enum F64 {}

impl Format for F16 {
    const FRAC: u32 = 10;
    const WIDTH: u32 = 16;
}

impl Format for F32 {
    const FRAC: u32 = 23;
    const WIDTH: u32 = 32;
}

impl Format for F64 {
    const FRAC: u32 = 52;
    const WIDTH: u32 = 64;
}

#[inline]
pub(super) fn is_negative<F: Format>(bits: u64) -> bool {
    bits & F::SIGN != 0
}

/// The sign bit of `F`, set or clear.
#[inline]
pub(super) fn sign_bit<F: Format>(negative: bool) -> u64 {
    u64::from(negative) << (F::WIDTH - 1)
}

#[inline]
pub(super) fn magnitude<F: Format>(bits: u64) -> u64 {
    bits & F::MAGNITUDE
}

/// The biased exponent as it stands in the field.
#[inline]
pub(super) fn exponent<F: Format>(bits: u64) -> i32 {
    (magnitude::<F>(bits) >> F::FRAC) as i32
}

#[inline]
pub(super) fn is_nan<F: Format>(bits: u64) -> bool {
    magnitude::<F>(bits) > F::INFINITY
}

#[inline]
pub(super) fn is_signalling<F: Format>(bits: u64) -> bool {
    is_nan::<F>(bits) && bits & F::QUIET == 0
}

#[inline]
pub(super) fn is_infinite<F: Format>(bits: u64) -> bool {
    magnitude::<F>(bits) == F::INFINITY
}

#[inline]
pub(super) fn is_zero<F: Format>(bits: u64) -> bool {
    magnitude::<F>(bits) == 0
}

/// `fsgnj`: the magnitude of `a` with the sign of `b`.
#[inline]
pub fn sgnj<F: Format>(a: u64, b: u64) -> u64 {
    magnitude::<F>(a) | (b & F::SIGN)
}

/// `fsgnjn`: the magnitude of `a` with the opposite of the sign of `b`.
#[inline]
pub fn sgnjn<F: Format>(a: u64, b: u64) -> u64 {
    magnitude::<F>(a) | (!b & F::SIGN)
}

/// `fsgnjx`: `a` with its sign flipped if `b` is negative.
#[inline]
pub fn sgnjx<F: Format>(a: u64, b: u64) -> u64 {
    magnitude::<F>(a) | ((a ^ b) & F::SIGN)
}

/// Bits of a 64-bit register above a value of format `F`: all ones when the register holds one.
#[inline]
const fn box_bits<F: Format>() -> u64 {
    !(F::SIGN | F::MAGNITUDE)
}

/// The operand of format `F` in a 64-bit register: the canonical NaN unless it is NaN-boxed
/// (section "NaN Boxing of Narrower Values").
#[inline]
pub fn unbox<F: Format>(register: u64) -> u64 {
    if register & box_bits::<F>() == box_bits::<F>() { register & !box_bits::<F>() } else { F::NAN }
}

/// The 64-bit register that holds this value of format `F`.
#[inline]
pub fn nan_box<F: Format>(bits: u64) -> u64 {
    bits | box_bits::<F>()
}
