//! Instructions on vector registers, with the format as a parameter. The forms are those of the Arm Architecture Reference Manual,
//! section C4.1.96 and following.

use dynasmrt::DynasmApi;
use frontend::ir::Fmt;

use super::asm::{Asm, Width};

/// Operations of [`Asm::f_binary`].
pub(super) mod binary {
    pub(in super::super) const MUL: u32 = 0;
    pub(in super::super) const DIV: u32 = 1;
    pub(in super::super) const ADD: u32 = 2;
    pub(in super::super) const SUB: u32 = 3;
    /// Of a quiet NaN and a number, the number.
    pub(in super::super) const MAXNM: u32 = 6;
    pub(in super::super) const MINNM: u32 = 7;
}

/// Operations of [`Asm::f_unary`].
pub(super) mod unary {
    pub(in super::super) const MOV: u32 = 0;
    pub(in super::super) const ABS: u32 = 1;
    pub(in super::super) const NEG: u32 = 2;
    pub(in super::super) const SQRT: u32 = 3;
    /// To the other format.
    pub(in super::super) const TO_S: u32 = 4;
    pub(in super::super) const TO_D: u32 = 5;
    /// To nearest, up, down, to zero.
    pub(in super::super) const RINT_N: u32 = 8;
    pub(in super::super) const RINT_P: u32 = 9;
    pub(in super::super) const RINT_M: u32 = 10;
    pub(in super::super) const RINT_Z: u32 = 11;
    /// As FPCR says, and raises IXC.
    pub(in super::super) const RINT_X: u32 = 14;
    /// As FPCR says.
    pub(in super::super) const RINT_I: u32 = 15;
}

/// Operations of [`Asm::f_fused`]: the sign of the product, and of the addend.
pub(super) mod fused {
    /// `a + n * m`
    pub(in super::super) const MADD: u32 = 0;
    /// `a - n * m`
    pub(in super::super) const MSUB: u32 = 1 << 15;
    /// `-a - n * m`
    pub(in super::super) const NMADD: u32 = 1 << 21;
    /// `-a + n * m`
    pub(in super::super) const NMSUB: u32 = 1 << 21 | 1 << 15;
}

/// Operations of [`Asm::f_to_int`]: how they round.
pub(super) mod to_int {
    pub(in super::super) const NEAREST: u32 = 0;
    pub(in super::super) const UP: u32 = 1;
    pub(in super::super) const DOWN: u32 = 2;
    pub(in super::super) const ZERO: u32 = 3;
}

/// Operations of [`Asm::vector`] on 64 bits.
pub(super) mod logic {
    pub(in super::super) const AND: u32 = 0x0e20_1c00;
    pub(in super::super) const ORR: u32 = 0x0ea0_1c00;
    pub(in super::super) const EOR: u32 = 0x2e20_1c00;
    /// `d = m where its bit is set in ... `: inserts bits of `n` into `d` where `m` is set.
    pub(in super::super) const BIT: u32 = 0x2ea0_1c00;
}

fn kind(fmt: Fmt) -> u32 {
    if fmt == Fmt::D { 1 << 22 } else { 0 }
}

fn wide(width: Width) -> u32 {
    if width == Width::Q { 1 << 31 } else { 0 }
}

impl Asm {
    fn three(&mut self, word: u32, d: u8, n: u8, m: u8) {
        self.push_u32(word | u32::from(m) << 16 | u32::from(n) << 5 | u32::from(d));
    }

    /// `d = n op m`
    pub(super) fn f_binary(&mut self, fmt: Fmt, op: u32, d: u8, n: u8, m: u8) {
        self.three(0x1e20_0800 | kind(fmt) | op << 12, d, n, m);
    }

    /// `d = op n`
    pub(super) fn f_unary(&mut self, fmt: Fmt, op: u32, d: u8, n: u8) {
        self.three(0x1e20_4000 | kind(fmt) | op << 15, d, n, 0);
    }

    /// `d = n * m` and `a`, by the signs of `op`.
    #[allow(clippy::too_many_arguments, reason = "the parts of one instruction")]
    pub(super) fn f_fused(&mut self, fmt: Fmt, op: u32, d: u8, n: u8, m: u8, a: u8) {
        self.three(0x1f00_0000 | kind(fmt) | op | u32::from(a) << 10, d, n, m);
    }

    /// Copies the low 64 bits.
    pub(super) fn f_move(&mut self, d: u8, from: u8) {
        if d != from {
            self.f_unary(Fmt::D, unary::MOV, d, from);
        }
    }

    /// Sets the flags for `n - m`. Raises IOC for signalling NaNs, or for all of them.
    pub(super) fn f_compare(&mut self, fmt: Fmt, signalling: bool, n: u8, m: u8) {
        self.three(0x1e20_2000 | kind(fmt) | u32::from(signalling) << 4, 0, n, m);
    }

    /// `general register = n as an integer`
    pub(super) fn f_to_int(&mut self, fmt: Fmt, round: u32, unsigned: bool, width: Width, d: u8, n: u8) {
        self.three(0x1e20_0000 | wide(width) | kind(fmt) | round << 19 | u32::from(unsigned) << 16, d, n, 0);
    }

    /// `d = integer in a general register`
    pub(super) fn f_from_int(&mut self, fmt: Fmt, unsigned: bool, width: Width, d: u8, n: u8) {
        self.three(0x1e22_0000 | wide(width) | kind(fmt) | u32::from(unsigned) << 16, d, n, 0);
    }

    /// `general register = bits of n`, 64 or 32 of them.
    pub(super) fn f_to_bits(&mut self, width: Width, d: u8, n: u8) {
        let form = if width == Width::Q { 0x9e66_0000 } else { 0x1e26_0000 };
        self.three(form, d, n, 0);
    }

    /// `d = bits of a general register`
    pub(super) fn f_from_bits(&mut self, width: Width, d: u8, n: u8) {
        let form = if width == Width::Q { 0x9e67_0000 } else { 0x1e27_0000 };
        self.three(form, d, n, 0);
    }

    /// `general register = bits 31 to 0 of n, sign-extended`
    pub(super) fn f_low_bits(&mut self, d: u8, n: u8) {
        self.three(0x4e04_2c00, d, n, 0);
    }

    /// `general register = bits 63 to 32 of n`
    pub(super) fn f_upper_bits(&mut self, d: u8, n: u8) {
        self.three(0x0e0c_3c00, d, n, 0);
    }

    /// `d = n op m` on 64 bits.
    pub(super) fn vector(&mut self, op: u32, d: u8, n: u8, m: u8) {
        self.three(op, d, n, m);
    }

    /// `d = the sign bit`, of both halves for singles.
    pub(super) fn f_sign_mask(&mut self, fmt: Fmt, d: u8) {
        if fmt == Fmt::D {
            // movi of zero
            self.three(0x2f00_e400, d, 0, 0);
            self.f_unary(Fmt::D, unary::NEG, d, d);
        } else {
            self.three(0x0f04_6400, d, 0, 0);
        }
    }

    /// `general register = FPSR`
    pub(super) fn read_fpsr(&mut self, d: u8) {
        self.three(0xd53b_4420, d, 0, 0);
    }

    pub(super) fn write_fpsr(&mut self, from: u8) {
        self.three(0xd51b_4420, from, 0, 0);
    }

    pub(super) fn write_fpcr(&mut self, from: u8) {
        self.three(0xd51b_4400, from, 0, 0);
    }
}
