//! The corner rules that RISC-V sets, with the values its specification states.

use super::*;

const ONE: u64 = 0x3f80_0000;
const MINUS_ONE: u64 = 0xbf80_0000;
const MINUS_ZERO: u64 = 0x8000_0000;
const INFINITY: u64 = 0x7f80_0000;
const CANONICAL_NAN: u64 = 0x7fc0_0000;
const QUIET_NAN: u64 = 0xffc0_1234;
const SIGNALLING_NAN: u64 = 0x7f80_0001;
const MAX: u64 = 0x7f7f_ffff;
const MIN_NORMAL: u64 = 0x0080_0000;

/// The result of an operation and the flags it raised.
fn run<T>(operation: impl FnOnce(&mut Flags) -> T) -> (T, Flags) {
    let mut flags = Flags::NONE;
    (operation(&mut flags), flags)
}

#[test]
fn nan_results_are_canonical_and_only_signalling_operands_raise_nv() {
    assert_eq!(run(|f| add::<F32>(QUIET_NAN, ONE, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NONE));
    assert_eq!(run(|f| add::<F32>(ONE, SIGNALLING_NAN, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NV));
    assert_eq!(run(|f| mul::<F16>(0xfe01, 0, Rounding::Rne, f)), (0x7e00, Flags::NONE));
    assert_eq!(run(|f| sqrt::<F64>(1 << 63 | 1, Rounding::Rne, f)), (0x7ff8_0000_0000_0000, Flags::NV));
    assert_eq!(run(|f| convert::<F32, F64>(QUIET_NAN, Rounding::Rne, f)), (F64::NAN, Flags::NONE));
    assert_eq!(run(|f| convert::<F32, F16>(SIGNALLING_NAN, Rounding::Rne, f)), (F16::NAN, Flags::NV));
}

#[test]
fn fma_of_infinity_times_zero_is_invalid_even_with_a_quiet_nan_addend() {
    assert_eq!(run(|f| fma::<F32>(INFINITY, 0, QUIET_NAN, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NV));
    assert_eq!(run(|f| fma::<F32>(INFINITY, ONE, QUIET_NAN, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NONE));
}

#[test]
fn tininess_is_detected_after_rounding() {
    // (1 - 2^-24) × 2^-126 has 24 significant bits: tiny, though it ends as the least normal number.
    let product = run(|f| mul::<F32>(MIN_NORMAL, ONE - 1, Rounding::Rne, f));
    assert_eq!(product, (MIN_NORMAL, Flags::NX | Flags::UF));
    // 2^-126 - 2^-160 rounds up to 2^-126 in 24 bits already: not tiny, though it is below the least normal.
    let two_to_minus_80 = 47 << 23;
    let difference =
        run(|f| fma::<F32>(two_to_minus_80, MINUS_ZERO | two_to_minus_80, MIN_NORMAL, Rounding::Rne, f));
    assert_eq!(difference, (MIN_NORMAL, Flags::NX));
    // An exact subnormal result is tiny, but underflow wants inexactness too.
    let exact = run(|f| sub::<F32>(MIN_NORMAL, 1, Rounding::Rne, f));
    assert_eq!(exact, (MIN_NORMAL - 1, Flags::NONE));
}

#[test]
fn ties_to_max_magnitude_differ_from_ties_to_even() {
    assert_eq!(run(|f| from_u32::<F32>(0x0100_0001, Rounding::Rne, f)), (0x4b80_0000, Flags::NX));
    assert_eq!(run(|f| from_u32::<F32>(0x0100_0001, Rounding::Rmm, f)), (0x4b80_0001, Flags::NX));
    assert_eq!(run(|f| from_i32::<F32>(-0x0100_0001, Rounding::Rmm, f)), (0xcb80_0001, Flags::NX));
    assert_eq!(run(|f| to_i32::<F32>(0x4020_0000, Rounding::Rmm, f)), (3, Flags::NX));
    assert_eq!(run(|f| to_i32::<F32>(0x4020_0000, Rounding::Rne, f)), (2, Flags::NX));
}

#[test]
fn overflow_goes_to_infinity_or_stops_at_the_largest_value() {
    let overflow = Flags::OF | Flags::NX;
    assert_eq!(run(|f| add::<F32>(MAX, MAX, Rounding::Rne, f)), (INFINITY, overflow));
    assert_eq!(run(|f| add::<F32>(MAX, MAX, Rounding::Rmm, f)), (INFINITY, overflow));
    assert_eq!(run(|f| add::<F32>(MAX, MAX, Rounding::Rtz, f)), (MAX, overflow));
    assert_eq!(run(|f| add::<F32>(MAX, MAX, Rounding::Rdn, f)), (MAX, overflow));
    assert_eq!(run(|f| from_u64::<F16>(65520, Rounding::Rne, f)), (0x7c00, overflow));
    assert_eq!(run(|f| from_u64::<F16>(65519, Rounding::Rne, f)), (0x7bff, Flags::NX));
}

#[test]
fn division_by_zero_raises_dz_unless_invalid() {
    assert_eq!(run(|f| div::<F32>(MINUS_ONE, 0, Rounding::Rne, f)), (MINUS_ZERO | INFINITY, Flags::DZ));
    assert_eq!(run(|f| div::<F32>(0, MINUS_ZERO, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NV));
    assert_eq!(run(|f| div::<F32>(INFINITY, 0, Rounding::Rne, f)), (INFINITY, Flags::NONE));
}

#[test]
fn opposite_values_cancel_to_minus_zero_only_towards_minus_infinity() {
    assert_eq!(run(|f| sub::<F32>(ONE, ONE, Rounding::Rne, f)), (0, Flags::NONE));
    assert_eq!(run(|f| sub::<F32>(ONE, ONE, Rounding::Rdn, f)), (MINUS_ZERO, Flags::NONE));
    assert_eq!(run(|f| fma::<F32>(ONE, ONE, MINUS_ONE, Rounding::Rdn, f)), (MINUS_ZERO, Flags::NONE));
    assert_eq!(run(|f| sqrt::<F32>(MINUS_ZERO, Rounding::Rne, f)), (MINUS_ZERO, Flags::NONE));
}

/// Table "Domains of float-to-integer conversions and behavior for invalid inputs".
#[test]
fn invalid_conversions_saturate() {
    let minus_infinity = MINUS_ZERO | INFINITY;
    for (input, w, wu, l, lu) in [
        (minus_infinity, i32::MIN as u64, 0, i64::MIN as u64, 0),
        (INFINITY, i32::MAX as u64, u64::MAX, i64::MAX as u64, u64::MAX),
        (CANONICAL_NAN, i32::MAX as u64, u64::MAX, i64::MAX as u64, u64::MAX),
        (QUIET_NAN, i32::MAX as u64, u64::MAX, i64::MAX as u64, u64::MAX),
    ] {
        assert_eq!(run(|f| to_i32::<F32>(input, Rounding::Rne, f)), (w, Flags::NV));
        assert_eq!(run(|f| to_u32::<F32>(input, Rounding::Rne, f)), (wu, Flags::NV));
        assert_eq!(run(|f| to_i64::<F32>(input, Rounding::Rne, f)), (l, Flags::NV));
        assert_eq!(run(|f| to_u64::<F32>(input, Rounding::Rne, f)), (lu, Flags::NV));
    }
}

#[test]
fn conversions_judge_the_range_after_rounding() {
    // -0.5: -1 is out of the unsigned range, -0 is in it.
    assert_eq!(run(|f| to_u32::<F32>(0xbf00_0000, Rounding::Rtz, f)), (0, Flags::NX));
    assert_eq!(run(|f| to_u32::<F32>(0xbf00_0000, Rounding::Rdn, f)), (0, Flags::NV));
    // 2^31 - 0.5.
    let input = 0x41df_ffff_ffe0_0000;
    assert_eq!(run(|f| to_i32::<F64>(input, Rounding::Rtz, f)), (0x7fff_ffff, Flags::NX));
    assert_eq!(run(|f| to_i32::<F64>(input, Rounding::Rne, f)), (0x7fff_ffff, Flags::NV));
    // fcvt.wu.d sign-extends from bit 31.
    assert_eq!(run(|f| to_u32::<F64>(input, Rounding::Rne, f)), (0xffff_ffff_8000_0000, Flags::NX));
}

#[test]
fn minimum_and_maximum_order_the_zeros_and_drop_nans() {
    assert_eq!(run(|f| min::<F32>(0, MINUS_ZERO, f)), (MINUS_ZERO, Flags::NONE));
    assert_eq!(run(|f| max::<F32>(MINUS_ZERO, 0, f)), (0, Flags::NONE));
    assert_eq!(run(|f| min::<F32>(QUIET_NAN, ONE, f)), (ONE, Flags::NONE));
    assert_eq!(run(|f| max::<F32>(ONE, SIGNALLING_NAN, f)), (ONE, Flags::NV));
    assert_eq!(run(|f| max::<F32>(QUIET_NAN, QUIET_NAN, f)), (CANONICAL_NAN, Flags::NONE));
    assert_eq!(run(|f| minm::<F32>(QUIET_NAN, ONE, f)), (CANONICAL_NAN, Flags::NONE));
    assert_eq!(run(|f| maxm::<F32>(ONE, SIGNALLING_NAN, f)), (CANONICAL_NAN, Flags::NV));
    assert_eq!(run(|f| maxm::<F32>(MINUS_ZERO, 0, f)), (0, Flags::NONE));
}

#[test]
fn comparisons_with_nans_are_false_and_signal_as_specified() {
    assert_eq!(run(|f| eq::<F32>(QUIET_NAN, QUIET_NAN, f)), (false, Flags::NONE));
    assert_eq!(run(|f| eq::<F32>(SIGNALLING_NAN, ONE, f)), (false, Flags::NV));
    assert_eq!(run(|f| lt::<F32>(QUIET_NAN, ONE, f)), (false, Flags::NV));
    assert_eq!(run(|f| le::<F32>(ONE, QUIET_NAN, f)), (false, Flags::NV));
    assert_eq!(run(|f| ltq::<F32>(QUIET_NAN, ONE, f)), (false, Flags::NONE));
    assert_eq!(run(|f| leq::<F32>(SIGNALLING_NAN, ONE, f)), (false, Flags::NV));
    assert_eq!(run(|f| le::<F32>(0, MINUS_ZERO, f)), (true, Flags::NONE));
    assert_eq!(run(|f| lt::<F32>(MINUS_ZERO, 0, f)), (false, Flags::NONE));
}

/// Table "Format of result of FCLASS instruction", over every binary16 value.
#[test]
fn class_sets_the_one_bit_of_the_kind() {
    for bits in 0..1u64 << 16 {
        let bit = match bits {
            0xfc00 => 0,
            0x8400..=0xfbff => 1,
            0x8001..=0x83ff => 2,
            0x8000 => 3,
            0x0000 => 4,
            0x0001..=0x03ff => 5,
            0x0400..=0x7bff => 6,
            0x7c00 => 7,
            0x7c01..=0x7dff | 0xfc01..=0xfdff => 8,
            _ => 9,
        };
        assert_eq!(class::<F16>(bits), 1 << bit, "{bits:x}");
    }
    assert_eq!(class::<F32>(SIGNALLING_NAN), 1 << 8);
    assert_eq!(class::<F64>(1 << 63), 1 << 3);
}

#[test]
fn rounding_to_integral_keeps_signs_and_fround_never_raises_nx() {
    assert_eq!(run(|f| fround::<F32>(0xbf00_0000, Rounding::Rne, f)), (MINUS_ZERO, Flags::NONE));
    assert_eq!(run(|f| froundnx::<F32>(0xbf00_0000, Rounding::Rne, f)), (MINUS_ZERO, Flags::NX));
    assert_eq!(run(|f| froundnx::<F32>(0xbf00_0000, Rounding::Rmm, f)), (MINUS_ONE, Flags::NX));
    assert_eq!(run(|f| fround::<F32>(SIGNALLING_NAN, Rounding::Rne, f)), (CANONICAL_NAN, Flags::NV));
    assert_eq!(run(|f| froundnx::<F32>(INFINITY, Rounding::Rne, f)), (INFINITY, Flags::NONE));
    assert_eq!(run(|f| froundnx::<F32>(1, Rounding::Rup, f)), (ONE, Flags::NX));
}

#[test]
fn modular_conversion_wraps_with_the_flags_of_the_saturating_one() {
    let modular = |value: f64| run(|f| fcvtmod_w_d(value.to_bits(), f));
    assert_eq!(modular(4294967296.0 + 5.0), (5, Flags::NV));
    assert_eq!(modular(-4294967296.0 - 5.5), (-5i64 as u64, Flags::NV));
    assert_eq!(modular(2147483648.0), (i32::MIN as u64, Flags::NV));
    assert_eq!(modular(-2147483648.5), (i32::MIN as u64, Flags::NX));
    assert_eq!(modular(-1.5), (u64::MAX, Flags::NX));
    assert_eq!(modular(2f64.powi(84)), (0, Flags::NV));
    assert_eq!(modular(f64::INFINITY), (0, Flags::NV));
    assert_eq!(modular(f64::NAN), (0, Flags::NV));
    assert_eq!(modular(5e-324), (0, Flags::NX));
    assert_eq!(modular(-0.0), (0, Flags::NONE));
}

/// Table "Immediate values loaded by the FLI.S instruction".
#[test]
fn unboxing_a_register_that_is_not_boxed_gives_the_canonical_nan() {
    assert_eq!(unbox::<F32>(0xffff_ffff_3f80_0000), ONE);
    assert_eq!(unbox::<F32>(0xffff_fffe_3f80_0000), CANONICAL_NAN);
    assert_eq!(unbox::<F16>(0xffff_ffff_3f80_3c00), 0x7e00);
    assert_eq!(unbox::<F64>(0x1234), 0x1234);
    assert_eq!(nan_box::<F16>(0x3c00), 0xffff_ffff_ffff_3c00);
    assert_eq!(nan_box::<F32>(ONE), 0xffff_ffff_3f80_0000);
}

#[test]
fn sign_injection_does_not_canonicalise() {
    assert_eq!(sgnj::<F32>(SIGNALLING_NAN, MINUS_ONE), MINUS_ZERO | SIGNALLING_NAN);
    assert_eq!(sgnjn::<F32>(ONE, MINUS_ONE), ONE);
    assert_eq!(sgnjx::<F32>(MINUS_ONE, MINUS_ONE), ONE);
}

#[test]
fn bits_above_the_format_are_ignored() {
    let above = 0xffff_ffff_0000_0000;
    let one = above | ONE;
    for result in [
        run(|f| mul::<F32>(one, one, Rounding::Rne, f)).0,
        run(|f| fma::<F32>(above, one, one, Rounding::Rne, f)).0,
        run(|f| add::<F32>(one, above, Rounding::Rne, f)).0,
        run(|f| min::<F32>(one, above | QUIET_NAN, f)).0,
        run(|f| froundnx::<F32>(one, Rounding::Rne, f)).0,
        sgnj::<F32>(one, above),
    ] {
        assert_eq!(result, ONE);
    }
}

#[test]
fn frm_values_above_four_are_no_rounding_mode() {
    assert_eq!(Rounding::from_frm(4), Some(Rounding::Rmm));
    assert_eq!(Rounding::from_frm(5), None);
    assert_eq!(Rounding::from_frm(7), None);
}
