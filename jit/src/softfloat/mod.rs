//! IEEE 754 arithmetic on integers, exact to the bit and to the flag, with the choices RISC-V makes.
//!
//! Every operation is generic over a [`Format`] ([`F16`], [`F32`], [`F64`]). Operands and results are raw bit
//! patterns in the low bits of a `u64`: bits above the format's width are ignored in operands and zero in
//! results. [`unbox`] and [`nan_box`] lead from and to the 64-bit floating-point registers.
//!
//! RISC-V's choices (chapter "F" Standard Extension): a NaN result is the canonical NaN, whatever the operands
//! carried; tininess is detected after rounding; a signalling NaN operand raises NV even where the result is
//! no NaN; exceptions only accrue in [`Flags`] and never trap.
//!
//! How a result comes about: operands are unpacked (`round::Unpacked`) to a sign, an exponent and a 64-bit
//! significand whose leading one is bit 62; the operation makes another such triple in which bit 0 also stands
//! for every lower bit that was lost ("jamming"); `round::round_pack` rounds it once and packs it.

mod add;
mod compare;
mod convert;
mod div;
mod fma;
mod format;
mod mul;
mod round;
mod sqrt;
mod zfa;

#[cfg(test)]
mod tests;

pub use add::{add, sub};
pub use compare::{class, eq, le, leq, lt, ltq, max, maxm, min, minm};
pub use convert::{convert, from_i32, from_i64, from_u32, from_u64, to_i32, to_i64, to_u32, to_u64};
pub use div::div;
pub use fma::fma;
pub use format::{F16, F32, F64, Format, nan_box, sgnj, sgnjn, sgnjx, unbox};
pub use mul::mul;
pub use sqrt::sqrt;
pub use zfa::{fcvtmod_w_d, fround, froundnx};

use std::ops::{BitOr, BitOrAssign};

/// A rounding mode, numbered as in `frm` and in an instruction's `rm` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    Rne = 0,
    /// Towards zero.
    Rtz = 1,
    /// Down, towards -∞.
    Rdn = 2,
    /// Up, towards +∞.
    Rup = 3,
    /// To nearest, ties to maximum magnitude.
    Rmm = 4,
}

impl Rounding {
    /// All five modes, in the order of their numbers.
    pub const ALL: [Rounding; 5] =
        [Rounding::Rne, Rounding::Rtz, Rounding::Rdn, Rounding::Rup, Rounding::Rmm];

    /// The mode with this number; `None` for the reserved 5 and 6 and for 7 (DYN), which is no mode itself.
    #[inline]
    pub const fn from_frm(frm: u8) -> Option<Rounding> {
        match frm {
            0 => Some(Rounding::Rne),
            1 => Some(Rounding::Rtz),
            2 => Some(Rounding::Rdn),
            3 => Some(Rounding::Rup),
            4 => Some(Rounding::Rmm),
            _ => None,
        }
    }
}

/// Accrued exceptions, laid out as in `fflags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No exception.
    pub const NONE: Flags = Flags(0);
    /// Inexact.
    pub const NX: Flags = Flags(1);
    /// Underflow: the result is inexact, and tiny after rounding.
    pub const UF: Flags = Flags(2);
    /// Overflow.
    pub const OF: Flags = Flags(4);
    /// Divide by zero.
    pub const DZ: Flags = Flags(8);
    /// Invalid operation.
    pub const NV: Flags = Flags(16);

    /// The flags in these bits of `fflags`; higher bits are dropped.
    #[inline]
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits & 0x1f)
    }

    /// The five bits of `fflags`.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}
