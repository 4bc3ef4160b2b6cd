//! The assembler's buffer: the instructions of one piece of code, its labels, and its references to code at fixed places.
//!
//! dynasm encodes fixed sequences through [`DynasmApi`]. Encoded here are instructions whose operation is a parameter, those with
//! immediates that may not fit, and jumps, whose displacements are filled in later. The forms are those of the Arm Architecture
//! Reference Manual, section C4.1.

use dynasmrt::aarch64::{encode_logical_immediate_32bit, encode_logical_immediate_64bit};
use dynasmrt::{AssemblyOffset, DynasmApi};

use super::regs::{LINK, STATE, X17, XZR};

/// A place in the code being assembled, bound or still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(u32);

const UNBOUND: u32 = u32::MAX;

/// Condition codes as `b.cond`, `csel` and `cset` encode them; the inverse of one differs in bit 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cc {
    Equal = 0,
    NotEqual = 1,
    AboveEqual = 2,
    Below = 3,
    Minus = 4,
    Unordered = 6,
    Above = 8,
    BelowEqual = 9,
    GreaterEqual = 10,
    Less = 11,
    Greater = 12,
    LessEqual = 13,
}

impl Cc {
    /// The condition for `b - a` that is this one for `a - b`; of those for numbers.
    pub(super) fn exchanged(self) -> Self {
        match self {
            Cc::AboveEqual => Cc::BelowEqual,
            Cc::Below => Cc::Above,
            Cc::Above => Cc::Below,
            Cc::BelowEqual => Cc::AboveEqual,
            Cc::GreaterEqual => Cc::LessEqual,
            Cc::Less => Cc::Greater,
            Cc::Greater => Cc::Less,
            Cc::LessEqual => Cc::GreaterEqual,
            Cc::Equal | Cc::NotEqual | Cc::Minus | Cc::Unordered => self,
        }
    }
}

/// Operations of [`Asm::rrr`] in their 32-bit form.
pub(super) mod op {
    pub(in super::super) const ADD: u32 = 0x0b00_0000;
    pub(in super::super) const SUB: u32 = 0x4b00_0000;
    pub(in super::super) const SUBS: u32 = 0x6b00_0000;
    pub(in super::super) const AND: u32 = 0x0a00_0000;
    pub(in super::super) const ORR: u32 = 0x2a00_0000;
    pub(in super::super) const EOR: u32 = 0x4a00_0000;
    /// `n & !m` and its sisters.
    pub(in super::super) const BIC: u32 = 0x0a20_0000;
    pub(in super::super) const ORN: u32 = 0x2a20_0000;
    pub(in super::super) const EON: u32 = 0x4a20_0000;
    pub(in super::super) const LSL: u32 = 0x1ac0_2000;
    pub(in super::super) const LSR: u32 = 0x1ac0_2400;
    pub(in super::super) const ASR: u32 = 0x1ac0_2800;
    pub(in super::super) const ROR: u32 = 0x1ac0_2c00;
    pub(in super::super) const UDIV: u32 = 0x1ac0_0800;
    pub(in super::super) const SDIV: u32 = 0x1ac0_0c00;
    pub(in super::super) const MUL: u32 = 0x1b00_7c00;
    /// 64 bits only.
    pub(in super::super) const SMULH: u32 = 0x1b40_7c00;
    pub(in super::super) const UMULH: u32 = 0x1bc0_7c00;
    /// With one source: `n`, and `m` is 0.
    pub(in super::super) const RBIT: u32 = 0x5ac0_0000;
    pub(in super::super) const CLZ: u32 = 0x5ac0_1000;
    /// 64 bits only.
    pub(in super::super) const REV: u32 = 0x5ac0_0c00;
}

/// Operations of [`Asm::logic_imm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Logic {
    And = 0,
    Orr = 1,
    Eor = 2,
}

/// Operand width of an encoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    D,
    Q,
}

impl Width {
    fn bit(self) -> u32 {
        u32::from(self == Width::Q) << 31
    }

    pub(super) fn bits(self) -> u8 {
        if self == Width::Q { 64 } else { 32 }
    }
}

/// A load or a store of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// log2 of the bytes.
    pub(super) log2: u8,
    /// 0 store, 1 load, 2 load and extend the sign to 64 bits.
    opc: u8,
    /// Of a vector register.
    vector: bool,
}

impl Access {
    pub(super) const fn store(log2: u8) -> Self {
        Self { log2, opc: 0, vector: false }
    }

    pub(super) const fn load(log2: u8) -> Self {
        Self { log2, opc: 1, vector: false }
    }

    pub(super) const fn load_signed(log2: u8) -> Self {
        Self { log2, opc: 2, vector: false }
    }

    /// The same of a vector register.
    pub(super) const fn vector(self) -> Self {
        Self { vector: true, ..self }
    }

    /// Whether two of these next to each other, the first at this offset, are one instruction.
    pub(super) fn reaches(self, offset: i64) -> bool {
        let scaled = offset >> self.log2;
        self.log2 >= 2 && scaled << self.log2 == offset && (-64..64).contains(&scaled)
    }

    /// `ldp`, `stp` or `ldpsw`.
    fn pair_word(self) -> u32 {
        let Self { log2, opc, vector } = self;
        let kind = match (vector, opc, log2) {
            (true, ..) => u32::from(log2) - 2,
            (false, 2, _) => 1,
            (false, ..) => u32::from(log2 == 3) * 2,
        };
        kind << 30 | 0b101 << 27 | u32::from(vector) << 26 | 0b010 << 23 | u32::from(opc != 0) << 22
    }

    fn word(self, t: u8, n: u8) -> u32 {
        let Self { log2, opc, vector } = self;
        u32::from(log2) << 30
            | 0b111 << 27
            | u32::from(vector) << 26
            | u32::from(opc) << 22
            | u32::from(n) << 5
            | u32::from(t)
    }
}

/// The place of an [`Access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `[base + offset]`
    Offset(u8, i64),
    /// `[base + index]`
    Index(u8, u8),
}

/// Code under construction.
#[derive(Default)]
pub(super) struct Asm {
    pub(super) bytes: Vec<u8>,
    labels: Vec<u32>,
    /// Instructions whose displacement is to be filled in, and the labels they refer to.
    fixups: Vec<(u32, Label)>,
    /// The same for `b` and `bl` to places in the arena outside this piece.
    pub(super) external: Vec<(u32, u32)>,
}

/// `b` by a displacement in bytes.
pub(super) const fn branch_word(displacement: u32) -> u32 {
    0x1400_0000 | displacement >> 2 & 0x03ff_ffff
}

/// `nop`
pub(super) const NOP: u32 = 0xd503_201f;
/// `isb`
pub(super) const ISB: u32 = 0xd503_3fdf;

/// Bytes that `tbz` and `tbnz` reach.
const TBZ_REACH: i32 = 1 << 15;

fn is_tbz(word: u32) -> bool {
    word & 0x7e00_0000 == 0x3600_0000
}

/// An instruction with its displacement in bytes, which has a place that depends on the instruction.
fn displaced(word: u32, displacement: i32) -> u32 {
    let (bits, shift, scaled) = match word {
        // b, bl
        _ if word & 0x7c00_0000 == 0x1400_0000 => (26, 0, displacement >> 2),
        // adr: the low two bits are apart.
        _ if word & 0x9f00_0000 == 0x1000_0000 => {
            let low = (displacement as u32 & 3) << 29;
            return displaced_at(word | low, 19, 5, displacement >> 2);
        }
        _ if is_tbz(word) => (14, 5, displacement >> 2),
        // b.cond, cbz, cbnz
        _ => (19, 5, displacement >> 2),
    };
    displaced_at(word, bits, shift, scaled)
}

fn displaced_at(word: u32, bits: u32, shift: u32, scaled: i32) -> u32 {
    debug_assert!((-(1 << (bits - 1))..1 << (bits - 1)).contains(&scaled));
    word | (scaled as u32 & ((1 << bits) - 1)) << shift
}

impl Asm {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
        self.fixups.clear();
        self.external.clear();
    }

    pub(super) fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = self.here();
    }

    pub(super) fn bind_here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// A label for a place already assembled.
    pub(super) fn bind_at(&mut self, offset: u32) -> Label {
        self.labels.push(offset);
        Label(self.labels.len() as u32 - 1)
    }

    /// Where a label is bound.
    #[cfg(test)]
    pub(super) fn offset_of(&self, label: Label) -> u32 {
        self.labels[label.0 as usize]
    }

    /// Fills in the references to labels; all of them are bound by now. False if a [`Self::tbz`] does not reach its label.
    #[must_use]
    pub(super) fn resolve(&mut self) -> bool {
        let mut reached = true;
        for &(at, label) in &self.fixups {
            let target = self.labels[label.0 as usize];
            debug_assert_ne!(target, UNBOUND);
            let displacement = target.wrapping_sub(at) as i32;
            change(&mut self.bytes, at, |word| {
                if is_tbz(word) && !(-TBZ_REACH..TBZ_REACH).contains(&displacement) {
                    reached = false;
                    return word;
                }
                displaced(word, displacement)
            });
        }
        self.fixups.clear();
        reached
    }

    /// Fills in the references to places in the arena, for code that will be at `offset` in it.
    pub(super) fn resolve_external(&mut self, offset: u32) {
        for (at, target) in self.external.drain(..) {
            change(&mut self.bytes, at, |word| displaced(word, target.wrapping_sub(offset + at) as i32));
        }
    }

    /// An instruction with a displacement to a label.
    fn to(&mut self, word: u32, label: Label) {
        self.fixups.push((self.here(), label));
        self.push_u32(word);
    }

    pub(super) fn b(&mut self, label: Label) {
        self.to(branch_word(0), label);
    }

    /// A branch to a place to come: where it is, for [`Self::aim`].
    pub(super) fn b_ahead(&mut self) -> u32 {
        self.push_u32(branch_word(0));
        self.here() - 4
    }

    /// Lets the branch at `field` lead here.
    pub(super) fn aim(&mut self, field: u32) {
        let word = branch_word(self.here() - field);
        self.bytes[field as usize..][..4].copy_from_slice(&word.to_le_bytes());
    }

    pub(super) fn b_cc(&mut self, cc: Cc, label: Label) {
        self.to(0x5400_0000 | cc as u32, label);
    }

    /// Branches if a register is zero, or if it is not.
    pub(super) fn cbz(&mut self, width: Width, not: bool, reg: u8, label: Label) {
        self.to(0x3400_0000 | width.bit() | u32::from(not) << 24 | u32::from(reg), label);
    }

    /// Branches if a bit is clear, or if it is set: not farther than 32 KiB.
    pub(super) fn tbz(&mut self, set: bool, reg: u8, bit: u8, label: Label) {
        let bit = u32::from(bit >> 5) << 31 | u32::from(bit & 31) << 19;
        self.to(0x3600_0000 | u32::from(set) << 24 | bit | u32::from(reg), label);
    }

    pub(super) fn bl(&mut self, label: Label) {
        self.to(0x8000_0000 | branch_word(0), label);
    }

    /// `adr reg, label`
    pub(super) fn adr(&mut self, reg: u8, label: Label) {
        self.to(0x1000_0000 | u32::from(reg), label);
    }

    /// `b` to a place in the arena.
    pub(super) fn b_to(&mut self, target: u32) {
        self.external.push((self.here(), target));
        self.push_u32(branch_word(0));
    }

    /// `bl` to a place in the arena.
    pub(super) fn bl_to(&mut self, target: u32) {
        self.external.push((self.here(), target));
        self.push_u32(0x8000_0000 | branch_word(0));
    }

    pub(super) fn ret(&mut self) {
        self.push_u32(0xd65f_0000 | u32::from(LINK) << 5);
    }

    /// `d = n op m`
    pub(super) fn rrr(&mut self, width: Width, op: u32, d: u8, n: u8, m: u8) {
        self.push_u32(op | width.bit() | u32::from(m) << 16 | u32::from(n) << 5 | u32::from(d));
    }

    /// `d = n + (m << amount)`
    pub(super) fn add_shifted(&mut self, d: u8, n: u8, m: u8, amount: u8) {
        self.rrr(Width::Q, op::ADD | u32::from(amount) << 10, d, n, m);
    }

    /// `d = n + (zext(m.w) << amount)`; n is not xzr.
    pub(super) fn add_uxtw(&mut self, d: u8, n: u8, m: u8, amount: u8) {
        debug_assert_ne!(n, XZR);
        self.rrr(Width::Q, 0x0b20_4000 | u32::from(amount) << 10, d, n, m);
    }

    /// `d = n op (sext(m.w) << amount)`, for an addition or a subtraction; n is not xzr, and d only if flags are set.
    pub(super) fn extended(&mut self, op: u32, d: u8, n: u8, m: u8, amount: u8) {
        debug_assert!(n != XZR && (d != XZR || op == op::SUBS));
        self.rrr(Width::Q, op | 1 << 21 | 0b110 << 13 | u32::from(amount) << 10, d, n, m);
    }

    /// `d = a - n * m`
    pub(super) fn msub(&mut self, width: Width, d: u8, n: u8, m: u8, a: u8) {
        self.rrr(width, 0x1b00_8000 | u32::from(a) << 10, d, n, m);
    }

    pub(super) fn mov(&mut self, to: u8, from: u8) {
        if to != from {
            self.rrr(Width::Q, op::ORR, to, XZR, from);
        }
    }

    pub(super) fn cmp(&mut self, width: Width, n: u8, m: u8) {
        self.rrr(width, op::SUBS, XZR, n, m);
    }

    /// Sets the flags for `n - (m >> amount)`, 64 bits.
    pub(super) fn cmp_shifted_right(&mut self, n: u8, m: u8, amount: u8) {
        self.rrr(Width::Q, op::SUBS | 1 << 22 | u32::from(amount) << 10, XZR, n, m);
    }

    /// `d = cc ? n : m`
    pub(super) fn csel(&mut self, width: Width, d: u8, n: u8, m: u8, cc: Cc) {
        self.rrr(width, 0x1a80_0000 | (cc as u32) << 12, d, n, m);
    }

    /// `d = cc ? n : !m`
    pub(super) fn csinv(&mut self, width: Width, d: u8, n: u8, m: u8, cc: Cc) {
        self.rrr(width, 0x5a80_0000 | (cc as u32) << 12, d, n, m);
    }

    /// `d = cc ? 1 : 0`
    pub(super) fn cset(&mut self, d: u8, cc: Cc) {
        self.rrr(Width::Q, 0x1a80_0400 | (cc as u32 ^ 1) << 12, d, XZR, XZR);
    }

    /// Adds (0) or subtracts (1) an immediate of 12 bits, which may be shifted by 12; sets the flags if asked.
    fn add_imm12(&mut self, width: Width, subtract: bool, flags: bool, d: u8, n: u8, imm: u64) -> bool {
        let (shifted, imm) = match imm {
            0..4096 => (0, imm),
            _ if imm & 0xfff == 0 && imm < 1 << 24 => (1, imm >> 12),
            _ => return false,
        };
        let kind = u32::from(subtract) << 30 | u32::from(flags) << 29 | shifted << 22;
        self.rrr(width, 0x1100_0000 | kind | (imm as u32) << 10, d, n, 0);
        true
    }

    /// `d = n + imm`; neither is xzr, and n is not x17, which this may clobber.
    pub(super) fn add_imm(&mut self, width: Width, d: u8, n: u8, imm: i64) {
        debug_assert!(n != XZR && n != X17);
        let magnitude = imm.unsigned_abs();
        if imm == 0 && width == Width::Q {
            return self.mov(d, n);
        }
        if self.add_imm12(width, imm < 0, false, d, n, magnitude) {
            return;
        }
        if magnitude < 1 << 24 {
            self.add_imm12(width, imm < 0, false, d, n, magnitude & !0xfff);
            self.add_imm12(width, imm < 0, false, d, d, magnitude & 0xfff);
            return;
        }
        self.mov_imm(X17, imm as u64);
        self.rrr(width, op::ADD, d, n, X17);
    }

    /// Sets the flags for `n - imm`; n is neither xzr nor x17, which this may clobber.
    pub(super) fn cmp_imm(&mut self, width: Width, n: u8, imm: i64) {
        debug_assert!(n != XZR && n != X17);
        if !self.add_imm12(width, imm >= 0, true, XZR, n, imm.unsigned_abs()) {
            self.mov_imm(X17, imm as u64);
            self.cmp(width, n, X17);
        }
    }

    /// Sets the flags for `n - imm`, 64 bits; imm is below 4096.
    pub(super) fn cmp_imm12(&mut self, n: u8, imm: u32) {
        self.add_imm12(Width::Q, true, true, XZR, n, imm.into());
    }

    /// `d = n op imm`; n is not x17, which this may clobber.
    pub(super) fn logic_imm(&mut self, width: Width, logic: Logic, d: u8, n: u8, imm: u64) {
        let encoded = match width {
            Width::Q => encode_logical_immediate_64bit(imm),
            Width::D => encode_logical_immediate_32bit(imm as u32),
        };
        match encoded {
            Some(encoded) => {
                self.rrr(width, 0x1200_0000 | (logic as u32) << 29 | u32::from(encoded) << 10, d, n, 0);
            }
            None => {
                debug_assert_ne!(n, X17);
                self.mov_imm(X17, imm);
                let op = [op::AND, op::ORR, op::EOR][logic as usize];
                self.rrr(width, op, d, n, X17);
            }
        }
    }

    /// Sets the flags for `n & imm`, which must be an immediate of logical instructions.
    pub(super) fn tst_imm(&mut self, width: Width, n: u8, imm: u64) {
        let encoded = match width {
            Width::Q => encode_logical_immediate_64bit(imm),
            Width::D => encode_logical_immediate_32bit(imm as u32),
        };
        let encoded = encoded.expect("a constant of this program");
        self.rrr(width, 0x7200_0000 | u32::from(encoded) << 10, XZR, n, 0);
    }

    /// `mov reg, value`, in as few instructions as there are for it.
    pub(super) fn mov_imm(&mut self, reg: u8, value: u64) {
        let part = |value: u64, index: u32| (value >> (16 * index)) as u16;
        let zeros = (0..4).filter(|&index| part(value, index) == 0).count();
        let ones = (0..4).filter(|&index| part(value, index) == 0xffff).count();
        if zeros < 3
            && ones < 3
            && let Some(encoded) = encode_logical_immediate_64bit(value)
        {
            return self.rrr(Width::Q, 0x3200_0000 | u32::from(encoded) << 10, reg, XZR, 0);
        }
        // movn starts from all ones, movz from zero.
        let (rest, first) = if ones > zeros { (0xffff, 0x1280_0000) } else { (0, 0x5280_0000) };
        let mut word = first;
        for index in 0..4 {
            let bits = part(value, index);
            if bits == rest && (word != first || index < 3) {
                continue;
            }
            let bits = if word == 0x1280_0000 { !bits } else { bits };
            self.push_u32(word | 1 << 31 | index << 21 | u32::from(bits) << 5 | u32::from(reg));
            word = 0x7280_0000;
        }
    }

    /// Bits `[top:0]` of `n` to bit `-rotate` on, or bits `[top:rotate]` to bit 0 on; the rest zero or the sign.
    pub(super) fn bitfield(&mut self, width: Width, signed: bool, d: u8, n: u8, rotate: u8, top: u8) {
        let base = if signed { 0x1300_0000 } else { 0x5300_0000 };
        let sized = if width == Width::Q { 1 << 22 } else { 0 };
        let bits = width.bits();
        let fields = u32::from(rotate & (bits - 1)) << 16 | u32::from(top & (bits - 1)) << 10;
        self.rrr(width, base | sized | fields, d, n, 0);
    }

    pub(super) fn ror_imm(&mut self, width: Width, d: u8, n: u8, amount: u8) {
        let sized = if width == Width::Q { 1 << 22 } else { 0 };
        self.rrr(width, 0x1380_0000 | sized | u32::from(amount) << 10, d, n, n);
    }

    /// `d = sext(n.w)`
    pub(super) fn sxtw(&mut self, d: u8, n: u8) {
        self.bitfield(Width::Q, true, d, n, 0, 31);
    }

    /// An access. Clobbers `scratch` if the offset has no encoding.
    pub(super) fn access(&mut self, access: Access, t: u8, place: Place, scratch: u8) {
        match place {
            Place::Index(base, index) => {
                let word = access.word(t, base) | 1 << 21 | 0b011 << 13 | 0b10 << 10;
                self.push_u32(word | u32::from(index) << 16);
            }
            Place::Offset(base, offset) => {
                let scaled = offset >> access.log2;
                if scaled << access.log2 == offset && (0..4096).contains(&scaled) {
                    self.push_u32(access.word(t, base) | 1 << 24 | (scaled as u32) << 10);
                } else if (-256..256).contains(&offset) {
                    self.push_u32(access.word(t, base) | (offset as u32 & 0x1ff) << 12);
                } else {
                    self.add_imm(Width::Q, scratch, base, offset);
                    self.push_u32(access.word(t, scratch) | 1 << 24);
                }
            }
        }
    }

    /// Two accesses, `t` at the lower place and `u` next to it, at an offset of which [`Access::reaches`] is true.
    pub(super) fn access_pair(&mut self, access: Access, t: u8, u: u8, base: u8, offset: i64) {
        let scaled = (offset >> access.log2) as u32 & 0x7f;
        self.push_u32(
            access.pair_word() | scaled << 15 | u32::from(u) << 10 | u32::from(base) << 5 | u32::from(t),
        );
    }

    fn slot(&mut self, access: Access, t: u8, slot: i32) {
        let scaled = slot as u32 >> access.log2;
        debug_assert!(scaled << access.log2 == slot as u32 && scaled < 4096);
        self.push_u32(access.word(t, STATE) | 1 << 24 | scaled << 10);
    }

    /// Loads 64 bits of the state.
    pub(super) fn ldr(&mut self, reg: u8, slot: i32) {
        self.slot(Access::load(3), reg, slot);
    }

    /// Stores 64 bits to the state.
    pub(super) fn str(&mut self, reg: u8, slot: i32) {
        self.slot(Access::store(3), reg, slot);
    }

    /// Loads a byte of the state.
    pub(super) fn ldrb(&mut self, reg: u8, slot: i32) {
        self.slot(Access::load(0), reg, slot);
    }

    /// Stores a byte to the state.
    pub(super) fn strb(&mut self, reg: u8, slot: i32) {
        self.slot(Access::store(0), reg, slot);
    }

    /// Loads or stores 32 bits of the state.
    pub(super) fn word_of_state(&mut self, load: bool, reg: u8, slot: i32) {
        self.slot(if load { Access::load(2) } else { Access::store(2) }, reg, slot);
    }

    /// Loads or stores a vector register's low 64 bits, in the state.
    pub(super) fn vector_of_state(&mut self, load: bool, reg: u8, slot: i32) {
        self.slot(if load { Access::load(3) } else { Access::store(3) }.vector(), reg, slot);
    }
}

pub(super) fn change(bytes: &mut [u8], at: u32, change: impl FnOnce(u32) -> u32) {
    let field = &mut bytes[at as usize..][..4];
    let word = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    field.copy_from_slice(&change(word).to_le_bytes());
}

impl Extend<u8> for Asm {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

impl<'a> Extend<&'a u8> for Asm {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

impl DynasmApi for Asm {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.bytes.len())
    }

    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn align(&mut self, alignment: usize, with: u8) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), with);
    }

    fn push_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
}
