//! The soft-float against two judges: the host's FPU, where it has the operation, the format and the rounding
//! mode; and `exact`, which computes every result from its definition in wide fixed-point numbers.
//!
//! Each operation sees all combinations of a list of corner values in all five rounding modes, then
//! `HARTVM_FP_ROUNDS` random operands in random modes (see `operands` for what "random" means). Operations on
//! one binary16 value see all 65536.

mod exact;
mod operands;

#[cfg(target_arch = "aarch64")]
#[path = "host_aarch64.rs"]
mod host;
#[cfg(target_arch = "x86_64")]
#[path = "host_x86_64.rs"]
mod host;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod host {
    pub(crate) fn run<F: super::Judged>(
        _: super::Op,
        _: [u64; 3],
        _: super::Rounding,
    ) -> Option<super::Outcome> {
        None
    }
}

use exact::Wide;
use jit::softfloat::{self as sf, F16, F32, F64, Flags, Format, Rounding};
use operands::Random;

/// A format the judges know.
pub(crate) trait Judged: Format {
    /// Which of the host's formats this is.
    const KIND: Kind;
    /// Wide enough for every sum and product of three values, and for quotients to over 70 bits.
    type Fixed: Wide;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Half,
    Single,
    Double,
}

impl Judged for F16 {
    const KIND: Kind = Kind::Half;
    type Fixed = exact::Fixed<4, 160>;
}

impl Judged for F32 {
    const KIND: Kind = Kind::Single;
    type Fixed = exact::Fixed<12, 450>;
}

impl Judged for F64 {
    const KIND: Kind = Kind::Double;
    type Fixed = exact::Fixed<72, 2300>;
}

/// The operations of the soft-float that round, raise flags, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
    Fma,
    Fround,
    Froundnx,
    ToF16,
    ToF32,
    ToF64,
    ToI32,
    ToU32,
    ToI64,
    ToU64,
    FromI32,
    FromU32,
    FromI64,
    FromU64,
    Eq,
    Lt,
    Le,
    Ltq,
    Leq,
    Min,
    Max,
    Minm,
    Maxm,
}

impl Op {
    const ARITHMETIC: [Op; 6] = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Sqrt, Op::Fma];
    const FROM_FLOAT: [Op; 9] = [
        Op::Fround,
        Op::Froundnx,
        Op::ToF16,
        Op::ToF32,
        Op::ToF64,
        Op::ToI32,
        Op::ToU32,
        Op::ToI64,
        Op::ToU64,
    ];
    const FROM_INTEGER: [Op; 4] = [Op::FromI32, Op::FromU32, Op::FromI64, Op::FromU64];
    const COMPARISONS: [Op; 9] =
        [Op::Eq, Op::Lt, Op::Le, Op::Ltq, Op::Leq, Op::Min, Op::Max, Op::Minm, Op::Maxm];

    fn operand_count(self) -> usize {
        match self {
            Op::Fma => 3,
            Op::Sqrt => 1,
            op if Op::FROM_FLOAT.contains(&op) || Op::FROM_INTEGER.contains(&op) => 1,
            _ => 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// A value of the result's format, an integer register, or 0 or 1 for a comparison.
    pub(crate) bits: u64,
    pub(crate) flags: Flags,
}

fn soft<F: Format>(op: Op, [a, b, c]: [u64; 3], rm: Rounding) -> Outcome {
    let mut flags = Flags::NONE;
    let f = &mut flags;
    let bits = match op {
        Op::Add => sf::add::<F>(a, b, rm, f),
        Op::Sub => sf::sub::<F>(a, b, rm, f),
        Op::Mul => sf::mul::<F>(a, b, rm, f),
        Op::Div => sf::div::<F>(a, b, rm, f),
        Op::Sqrt => sf::sqrt::<F>(a, rm, f),
        Op::Fma => sf::fma::<F>(a, b, c, rm, f),
        Op::Fround => sf::fround::<F>(a, rm, f),
        Op::Froundnx => sf::froundnx::<F>(a, rm, f),
        Op::ToF16 => sf::convert::<F, F16>(a, rm, f),
        Op::ToF32 => sf::convert::<F, F32>(a, rm, f),
        Op::ToF64 => sf::convert::<F, F64>(a, rm, f),
        Op::ToI32 => sf::to_i32::<F>(a, rm, f),
        Op::ToU32 => sf::to_u32::<F>(a, rm, f),
        Op::ToI64 => sf::to_i64::<F>(a, rm, f),
        Op::ToU64 => sf::to_u64::<F>(a, rm, f),
        Op::FromI32 => sf::from_i32::<F>(a as i32, rm, f),
        Op::FromU32 => sf::from_u32::<F>(a as u32, rm, f),
        Op::FromI64 => sf::from_i64::<F>(a as i64, rm, f),
        Op::FromU64 => sf::from_u64::<F>(a, rm, f),
        Op::Eq => u64::from(sf::eq::<F>(a, b, f)),
        Op::Lt => u64::from(sf::lt::<F>(a, b, f)),
        Op::Le => u64::from(sf::le::<F>(a, b, f)),
        Op::Ltq => u64::from(sf::ltq::<F>(a, b, f)),
        Op::Leq => u64::from(sf::leq::<F>(a, b, f)),
        Op::Min => sf::min::<F>(a, b, f),
        Op::Max => sf::max::<F>(a, b, f),
        Op::Minm => sf::minm::<F>(a, b, f),
        Op::Maxm => sf::maxm::<F>(a, b, f),
    };
    Outcome { bits, flags }
}

fn check<F: Judged>(op: Op, operands: [u64; 3], rm: Rounding) {
    let got = soft::<F>(op, operands, rm);
    let exact = exact::run::<F>(op, operands, rm);
    assert_eq!(got, exact, "{op:?} {:?} {operands:x?} {rm:?}: soft-float, exact", F::KIND);
    if let Some(host) = host::run::<F>(op, operands, rm) {
        assert_eq!(got, host, "{op:?} {:?} {operands:x?} {rm:?}: soft-float, host", F::KIND);
    }
}

fn rounds() -> u64 {
    match std::env::var("HARTVM_FP_ROUNDS") {
        Ok(text) => text.parse().expect("HARTVM_FP_ROUNDS is a number"),
        Err(_) => 200_000,
    }
}

fn corners<F: Judged>(op: Op) {
    let list = if Op::FROM_INTEGER.contains(&op) {
        operands::integer_corners()
    } else {
        operands::float_corners::<F>()
    };
    let count = op.operand_count();
    let ignored = &list[..1];
    for &a in &list {
        for &b in if count > 1 { &list } else { ignored } {
            for &c in if count > 2 { &list } else { ignored } {
                for rm in Rounding::ALL {
                    check::<F>(op, [a, b, c], rm);
                }
            }
        }
    }
}

fn corners_and_random<F: Judged>(ops: &[Op]) {
    for (&op, seed) in ops.iter().zip(1..) {
        corners::<F>(op);
        let mut random = Random::new(seed);
        for _ in 0..rounds() {
            let operands = operands::random::<F>(op, &mut random);
            let rm = Rounding::ALL[random.below(5) as usize];
            check::<F>(op, operands, rm);
        }
    }
}

#[test]
fn half_arithmetic() {
    corners_and_random::<F16>(&Op::ARITHMETIC);
}

#[test]
fn half_conversions_from_integers() {
    corners_and_random::<F16>(&Op::FROM_INTEGER);
}

#[test]
fn half_comparisons() {
    corners_and_random::<F16>(&Op::COMPARISONS);
}

#[test]
fn half_operations_on_one_value_for_every_value() {
    for op in Op::FROM_FLOAT.into_iter().chain([Op::Sqrt]) {
        for a in 0..1 << 16 {
            for rm in Rounding::ALL {
                check::<F16>(op, [a, 0, 0], rm);
            }
        }
    }
}

#[test]
fn single_arithmetic() {
    corners_and_random::<F32>(&Op::ARITHMETIC);
}

#[test]
fn single_conversions_from_floats() {
    corners_and_random::<F32>(&Op::FROM_FLOAT);
}

#[test]
fn single_conversions_from_integers() {
    corners_and_random::<F32>(&Op::FROM_INTEGER);
}

#[test]
fn single_comparisons() {
    corners_and_random::<F32>(&Op::COMPARISONS);
}

#[test]
fn double_arithmetic() {
    corners_and_random::<F64>(&Op::ARITHMETIC);
}

#[test]
fn double_conversions_from_floats() {
    corners_and_random::<F64>(&Op::FROM_FLOAT);
}

#[test]
fn double_conversions_from_integers() {
    corners_and_random::<F64>(&Op::FROM_INTEGER);
}

#[test]
fn double_comparisons() {
    corners_and_random::<F64>(&Op::COMPARISONS);
}

/// The modular conversion against a remainder taken in the exact integers, and the flags of `fcvt.w.d`.
#[test]
fn double_modular_conversion() {
    let mut random = Random::new(0);
    for _ in 0..rounds() {
        let [a, ..] = operands::random::<F64>(Op::ToI32, &mut random);
        let mut flags = Flags::NONE;
        let word = sf::fcvtmod_w_d(a, &mut flags);
        let ordinary = exact::run::<F64>(Op::ToI32, [a, 0, 0], Rounding::Rtz);
        let value = f64::from_bits(a).trunc();
        let modular = if value.is_finite() { (value % 4294967296.0) as i64 as i32 } else { 0 };
        assert_eq!((word, flags), (modular as u64, ordinary.flags), "fcvtmod.w.d {a:x}");
    }
}
