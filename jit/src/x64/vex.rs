//! Instructions with VEX prefixes: those on xmm registers, with the format as a parameter, and some on general ones.

use dynasmrt::DynasmApi;
use frontend::ir::Fmt;

use super::asm::{Asm, Bytes};
use super::regs::{Loc, STATE};

/// Opcodes of [`Asm::scalar`], [`Asm::logic`], comparisons and [`Asm::fma`].
pub(super) mod vop {
    pub(in super::super) const LOAD: u8 = 0x10;
    pub(in super::super) const STORE: u8 = 0x11;
    pub(in super::super) const SQRT: u8 = 0x51;
    pub(in super::super) const ADD: u8 = 0x58;
    pub(in super::super) const MUL: u8 = 0x59;
    /// To the other format.
    pub(in super::super) const CONVERT: u8 = 0x5a;
    pub(in super::super) const SUB: u8 = 0x5c;
    pub(in super::super) const MIN: u8 = 0x5d;
    pub(in super::super) const DIV: u8 = 0x5e;
    pub(in super::super) const MAX: u8 = 0x5f;

    pub(in super::super) const AND: u8 = 0x54;
    /// `!first & second`
    pub(in super::super) const ANDN: u8 = 0x55;
    pub(in super::super) const OR: u8 = 0x56;
    pub(in super::super) const XOR: u8 = 0x57;

    /// Raises IE for signalling NaNs only.
    pub(in super::super) const UCOMI: u8 = 0x2e;
    /// Raises IE for all NaNs.
    pub(in super::super) const COMI: u8 = 0x2f;

    /// Of the form 213: `d = d * a + rm`.
    pub(in super::super) const FMADD: u8 = 0xa9;
    pub(in super::super) const FMSUB: u8 = 0xab;
    pub(in super::super) const FNMADD: u8 = 0xad;
    pub(in super::super) const FNMSUB: u8 = 0xaf;
}

/// The operand that may be in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rm {
    /// A host register of whichever file the instruction wants.
    Reg(u8),
    /// `[r15 + displacement]`
    Slot(i32),
    /// `[base + index + displacement]`
    At(u8, Option<u8>, i32),
    /// A place in the arena.
    Arena(u32),
}

impl From<Loc> for Rm {
    fn from(loc: Loc) -> Rm {
        match loc {
            Loc::Reg(host) => Rm::Reg(host),
            Loc::Slot(disp) => Rm::Slot(disp),
        }
    }
}

/// The mandatory prefix, as VEX encodes it.
mod prefix {
    pub(super) const NONE: u8 = 0;
    pub(super) const P66: u8 = 1;
    pub(super) const F3: u8 = 2;
    pub(super) const F2: u8 = 3;
}

/// The opcode map, as VEX encodes it.
mod map {
    pub(super) const M0F: u8 = 1;
    pub(super) const M0F38: u8 = 2;
    pub(super) const M0F3A: u8 = 3;
}

fn scalar_prefix(fmt: Fmt) -> u8 {
    if fmt == Fmt::D { prefix::F2 } else { prefix::F3 }
}

impl Asm {
    /// One instruction; `first` is 0 if there is no first source. An immediate cannot follow [`Rm::Arena`].
    #[allow(clippy::too_many_arguments, reason = "the parts of one x86 instruction")]
    fn vex(&mut self, map: u8, prefix: u8, wide: bool, opcode: u8, reg: u8, first: u8, rm: Rm) {
        let (base, index) = match rm {
            Rm::Reg(host) => (host, 0),
            Rm::Slot(_) => (STATE, 0),
            Rm::At(base, index, _) => (base, index.unwrap_or(0)),
            Rm::Arena(_) => (0, 0),
        };
        // Register numbers are stored inverted.
        let last = (!first & 15) << 3 | prefix;
        let r = (!reg & 8) << 4;
        let vex = if map == map::M0F && !wide && base < 8 && index < 8 {
            Bytes::NONE.byte(0xc5).byte(r | last)
        } else {
            let xb = (!index & 8) << 3 | (!base & 8) << 2;
            Bytes::NONE.byte(0xc4).byte(r | xb | map).byte(u8::from(wide) << 7 | last)
        };
        let (start, field) = (vex.byte(opcode), reg & 7);
        match rm {
            Rm::Reg(host) => self.modrm(start, field, Loc::Reg(host)),
            Rm::Slot(disp) => self.modrm(start, field, Loc::Slot(disp)),
            Rm::At(base, index, disp) => self.base_index_disp(start, field, base, index, disp),
            Rm::Arena(place) => self.put_arena(start.byte(field << 3 | 5), place),
        }
    }

    /// `d = a rotated right by a constant`, on general registers
    pub(super) fn rotate_right(&mut self, d: u8, a: u8, amount: u8) {
        self.vex(map::M0F3A, prefix::F2, true, 0xf0, d, 0, Rm::Reg(a));
        self.push(amount);
    }

    /// `d = a op rm`, in the low part of the registers; the rest is that of `a`.
    pub(super) fn scalar(&mut self, fmt: Fmt, opcode: u8, d: u8, a: u8, rm: Rm) {
        self.vex(map::M0F, scalar_prefix(fmt), false, opcode, d, a, rm);
    }

    /// Loads from memory; the rest of the register is zero.
    pub(super) fn f_load(&mut self, fmt: Fmt, d: u8, rm: Rm) {
        debug_assert!(!matches!(rm, Rm::Reg(_)));
        self.scalar(fmt, vop::LOAD, d, 0, rm);
    }

    /// Stores to memory.
    pub(super) fn f_store(&mut self, fmt: Fmt, from: u8, rm: Rm) {
        debug_assert!(!matches!(rm, Rm::Reg(_)));
        self.scalar(fmt, vop::STORE, from, 0, rm);
    }

    /// `d = a op rm` on whole registers.
    pub(super) fn logic(&mut self, opcode: u8, d: u8, a: u8, rm: Rm) {
        self.vex(map::M0F, prefix::NONE, false, opcode, d, a, rm);
    }

    /// Copies a whole register.
    pub(super) fn f_move(&mut self, d: u8, from: u8) {
        if d != from {
            self.vex(map::M0F, prefix::NONE, false, 0x28, d, 0, Rm::Reg(from));
        }
    }

    /// Sets the flags as for unsigned numbers; unordered ones are equal, below, and of parity.
    pub(super) fn f_compare(&mut self, fmt: Fmt, opcode: u8, a: u8, rm: Rm) {
        let prefix = if fmt == Fmt::D { prefix::P66 } else { prefix::NONE };
        self.vex(map::M0F, prefix, false, opcode, a, 0, rm);
    }

    /// `d = all ones if a == rm, else zero`, quiet.
    pub(super) fn f_equal(&mut self, fmt: Fmt, d: u8, a: u8, rm: Rm) {
        self.vex(map::M0F, scalar_prefix(fmt), false, 0xc2, d, a, rm);
        self.push(0);
    }

    /// `d = d * a op rm`
    pub(super) fn fma(&mut self, fmt: Fmt, opcode: u8, d: u8, a: u8, rm: Rm) {
        self.vex(map::M0F38, prefix::P66, fmt == Fmt::D, opcode, d, a, rm);
    }

    /// `d = rm rounded to an integer`, and the rest that of `a`. `mode` as in MXCSR; `| 4` for that in MXCSR, `| 8` without PE.
    pub(super) fn f_round(&mut self, fmt: Fmt, mode: u8, d: u8, a: u8, rm: Rm) {
        let opcode = if fmt == Fmt::D { 0x0b } else { 0x0a };
        self.vex(map::M0F3A, prefix::P66, false, opcode, d, a, rm);
        self.push(mode);
    }

    /// `general register = rm as signed integer`, by truncation or as MXCSR says.
    pub(super) fn f_to_int(&mut self, fmt: Fmt, truncate: bool, wide: bool, d: u8, rm: Rm) {
        let opcode = if truncate { 0x2c } else { 0x2d };
        self.vex(map::M0F, scalar_prefix(fmt), wide, opcode, d, 0, rm);
    }

    /// `d = signed integer in rm`, a general register or memory, and the rest that of `a`.
    pub(super) fn f_from_int(&mut self, fmt: Fmt, wide: bool, d: u8, a: u8, rm: Rm) {
        self.vex(map::M0F, scalar_prefix(fmt), wide, 0x2a, d, a, rm);
    }

    /// `d = bits of the general register or memory`
    pub(super) fn f_from_bits(&mut self, wide: bool, d: u8, rm: Rm) {
        self.vex(map::M0F, prefix::P66, wide, 0x6e, d, 0, rm);
    }

    /// `general register = low bits of an xmm register`
    pub(super) fn f_to_bits(&mut self, wide: bool, d: u8, from: u8) {
        self.vex(map::M0F, prefix::P66, wide, 0x7e, from, 0, Rm::Reg(d));
    }

    /// `general register = bits 63 to 32 of an xmm register`
    pub(super) fn f_upper_bits(&mut self, d: u8, from: u8) {
        self.vex(map::M0F3A, prefix::P66, false, 0x16, from, 0, Rm::Reg(d));
        self.push(1);
    }
}
