//! What the fields of an encoding mean: operands, in the order the assembler writes them, and immediates.
//!
//! A row of the instruction table names a list of [`Operand`]s (its format). The decoder takes from that list
//! which fields to extract, the disassembler how to print them, and the encoder where to put them back.

use Operand::*;

/// One operand of an instruction as assembly writes it, and thereby the field that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Integer register, bits 11:7.
    Rd,
    /// Integer register, bits 19:15.
    Rs1,
    /// Integer register, bits 24:20.
    Rs2,
    /// Floating-point register, bits 11:7.
    Fd,
    /// Floating-point register, bits 19:15.
    Fs1,
    /// Floating-point register, bits 24:20.
    Fs2,
    /// Floating-point register, bits 31:27.
    Fs3,
    /// Rounding mode, bits 14:12; written unless it is dynamic.
    Rm,
    /// Rounding mode, bits 14:12, of a conversion that is always exact; written unless it is RNE.
    RmExact,
    /// The aq and rl bits, 26:25, written as a suffix of the mnemonic.
    AqRl,
    /// The memory address in rs1, written `(rs1)`.
    Address,
    /// An immediate offset from rs1, written `imm(rs1)`.
    Offset(Imm),
    /// An immediate that is added to pc, written as the target address.
    Target(Imm),
    /// An immediate on its own; its kind says how it is written.
    Immediate(Imm),
}

/// The formats: operand lists that the instruction tables refer to by name.
pub mod format {
    use super::*;

    /// No operands.
    pub const NONE: &[Operand] = &[];
    /// Three integer registers.
    pub const R: &[Operand] = &[Rd, Rs1, Rs2];
    /// One integer register to another.
    pub const R_UNARY: &[Operand] = &[Rd, Rs1];
    /// Two integer sources, no result.
    pub const RS1_RS2: &[Operand] = &[Rs1, Rs2];
    /// Register and 12-bit immediate.
    pub const I: &[Operand] = &[Rd, Rs1, Immediate(Imm::I)];
    /// Shift by a 6-bit amount.
    pub const SHIFT6: &[Operand] = &[Rd, Rs1, Immediate(Imm::Shamt6)];
    /// Shift by a 5-bit amount (the `w` forms).
    pub const SHIFT5: &[Operand] = &[Rd, Rs1, Immediate(Imm::Shamt5)];
    /// Upper immediate.
    pub const U: &[Operand] = &[Rd, Immediate(Imm::U)];
    /// Jump and link.
    pub const J: &[Operand] = &[Rd, Target(Imm::J)];
    /// Compare and branch.
    pub const BRANCH: &[Operand] = &[Rs1, Rs2, Target(Imm::B)];
    /// Integer load, and `jalr`.
    pub const LOAD: &[Operand] = &[Rd, Offset(Imm::I)];
    /// Integer store.
    pub const STORE: &[Operand] = &[Rs2, Offset(Imm::S)];
    /// `fence`: its predecessor and successor sets.
    pub const FENCE: &[Operand] = &[Immediate(Imm::Fence)];
    /// CSR access with a register.
    pub const CSR: &[Operand] = &[Rd, Immediate(Imm::Csr), Rs1];
    /// CSR access with a 5-bit immediate, which [`Insn`](crate::Insn) keeps in `rs1`.
    pub const CSR_IMM: &[Operand] = &[Rd, Immediate(Imm::Csr), Immediate(Imm::Zimm)];
    /// Atomic read-modify-write, `sc` and `amocas`.
    pub const AMO: &[Operand] = &[Rd, Rs2, Address, AqRl];
    /// Load-reserved.
    pub const LR: &[Operand] = &[Rd, Address, AqRl];
    /// Cache-block operation.
    pub const ADDRESS: &[Operand] = &[Address];
    /// Prefetch.
    pub const PREFETCH: &[Operand] = &[Offset(Imm::Prefetch)];
    /// `mop.r.N`.
    pub const MOP_R: &[Operand] = &[Rd, Rs1, Immediate(Imm::MopR)];
    /// `mop.rr.N`.
    pub const MOP_RR: &[Operand] = &[Rd, Rs1, Rs2, Immediate(Imm::MopRr)];
    /// Floating-point load.
    pub const FLOAD: &[Operand] = &[Fd, Offset(Imm::I)];
    /// Floating-point store.
    pub const FSTORE: &[Operand] = &[Fs2, Offset(Imm::S)];
    /// Fused multiply-add.
    pub const FMA: &[Operand] = &[Fd, Fs1, Fs2, Fs3, Rm];
    /// Two floating-point sources, no rounding.
    pub const F: &[Operand] = &[Fd, Fs1, Fs2];
    /// Two floating-point sources, rounded.
    pub const F_RM: &[Operand] = &[Fd, Fs1, Fs2, Rm];
    /// One floating-point source, rounded.
    pub const F_UNARY_RM: &[Operand] = &[Fd, Fs1, Rm];
    /// One floating-point source, in a wider format without rounding.
    pub const F_UNARY_EXACT: &[Operand] = &[Fd, Fs1, RmExact];
    /// Floating-point comparison.
    pub const F_COMPARE: &[Operand] = &[Rd, Fs1, Fs2];
    /// Floating-point to integer register, no rounding.
    pub const F_TO_X: &[Operand] = &[Rd, Fs1];
    /// Floating-point to integer register, rounded.
    pub const F_TO_X_RM: &[Operand] = &[Rd, Fs1, Rm];
    /// Integer to floating-point register, no rounding.
    pub const X_TO_F: &[Operand] = &[Fd, Rs1];
    /// Integer to floating-point register, rounded.
    pub const X_TO_F_RM: &[Operand] = &[Fd, Rs1, Rm];
    /// Integer to a floating-point register that can hold it exactly.
    pub const X_TO_F_EXACT: &[Operand] = &[Fd, Rs1, RmExact];
    /// Load a floating-point constant.
    pub const FLI: &[Operand] = &[Fd, Immediate(Imm::Fli)];
}

/// Mask of a 5-bit register field whose lowest bit is `low`.
const fn register_field(low: u32) -> u32 {
    0x1f << low
}

impl Operand {
    /// The bits of the encoding that hold this operand.
    pub const fn field(self) -> u32 {
        match self {
            Rd | Fd => register_field(7),
            Rs1 | Fs1 | Address => register_field(15),
            Rs2 | Fs2 => register_field(20),
            Fs3 => register_field(27),
            Rm | RmExact => 0b111 << 12,
            AqRl => 0b11 << 25,
            Offset(imm) => register_field(15) | imm.layout().field(),
            Target(imm) | Immediate(imm) => imm.layout().field(),
        }
    }

    /// The immediate that this operand carries in [`Insn::imm`](crate::Insn), if any.
    pub const fn imm(self) -> Option<Imm> {
        match self {
            // The CSR number is the immediate; `rs1` holds this one.
            Immediate(Imm::Zimm) => None,
            Offset(imm) | Target(imm) | Immediate(imm) => Some(imm),
            _ => None,
        }
    }
}

/// A run of bits that moves between the encoding and the immediate.
#[derive(Clone, Copy, Debug)]
struct Segment {
    insn_low: u8,
    imm_low: u8,
    width: u8,
}

/// Where the bits of an immediate sit in an encoding.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    segments: [Segment; 8],
    count: usize,
    /// Shift that brings the immediate's top bit to bit 63; 0 if it is unsigned.
    sign_shift: u32,
    /// Value of the bits that the encoding does not hold.
    constant: i64,
}

impl Layout {
    /// A layout in the manuals' notation: `(31, "12|10:5")` says that the bits from 31 downwards are
    /// imm\[12\], then imm\[10\] to imm\[5\].
    pub(crate) const fn new(signed: bool, parts: &[(u8, &str)]) -> Layout {
        let mut layout = Layout::constant(0);
        let mut top = 0;
        let mut part = 0;
        while part < parts.len() {
            let (mut insn_next, text) = (parts[part].0 as i32 + 1, parts[part].1.as_bytes());
            let mut at = 0;
            while at < text.len() {
                let (high, after) = number(text, at);
                let (low, after) = if after < text.len() && text[after] == b':' {
                    number(text, after + 1)
                } else {
                    (high, after)
                };
                assert!(high >= low && high < 63 && (after == text.len() || text[after] == b'|'));
                insn_next -= high as i32 - low as i32 + 1;
                assert!(insn_next >= 0);
                layout.segments[layout.count] =
                    Segment { insn_low: insn_next as u8, imm_low: low as u8, width: (high - low + 1) as u8 };
                layout.count += 1;
                if high > top {
                    top = high;
                }
                at = after + 1;
            }
            part += 1;
        }
        if signed {
            layout.sign_shift = 63 - top;
        }
        layout
    }

    /// An immediate that is the same in every encoding.
    pub(crate) const fn constant(constant: i64) -> Layout {
        Layout {
            segments: [Segment { insn_low: 0, imm_low: 0, width: 0 }; 8],
            count: 0,
            sign_shift: 0,
            constant,
        }
    }

    /// The bits of the encoding that hold the immediate.
    pub const fn field(&self) -> u32 {
        let mut field = 0;
        let mut i = 0;
        while i < self.count {
            let s = self.segments[i];
            field |= ((1 << s.width) - 1) << s.insn_low;
            i += 1;
        }
        field
    }

    /// The immediate in the encoding `bits`.
    #[inline(always)]
    pub const fn gather(&self, bits: u32) -> i64 {
        let mut imm = self.constant;
        let mut i = 0;
        while i < self.count {
            let s = self.segments[i];
            imm |= (((bits >> s.insn_low) & ((1 << s.width) - 1)) as i64) << s.imm_low;
            i += 1;
        }
        (imm << self.sign_shift) >> self.sign_shift
    }

    /// The encoding bits for `imm`, or `None` if it does not fit: out of range, or low bits set that are not
    /// held.
    pub const fn scatter(&self, imm: i64) -> Option<u32> {
        let mut bits = 0;
        let mut i = 0;
        while i < self.count {
            let s = self.segments[i];
            bits |= ((imm >> s.imm_low) as u32 & ((1 << s.width) - 1)) << s.insn_low;
            i += 1;
        }
        if self.gather(bits) == imm { Some(bits) } else { None }
    }
}

/// Parses the decimal number at `at`: its value and the index after it.
const fn number(text: &[u8], mut at: usize) -> (u32, usize) {
    let start = at;
    let mut value = 0;
    while at < text.len() && text[at].is_ascii_digit() {
        value = value * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    assert!(at > start, "a bit number is missing");
    (value, at)
}

/// Makes an enum of immediate kinds with their layouts, each extracted by code specialised to its constant
/// layout.
macro_rules! immediates {
    ($(#[$meta:meta])* $vis:vis enum $enum:ident {
        $($(#[$doc:meta])* $name:ident = $layout:expr;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $enum { $($(#[$doc])* $name),* }

        impl $enum {
            /// Where this immediate's bits sit.
            pub const fn layout(self) -> &'static Layout {
                match self { $($enum::$name => { const L: Layout = $layout; &L })* }
            }

            /// The value of this immediate in the encoding `bits`.
            #[inline(always)]
            pub const fn gather(self, bits: u32) -> i64 {
                match self { $($enum::$name => { const L: Layout = $layout; L.gather(bits) })* }
            }
        }
    };
}
pub(crate) use immediates;

immediates! {
    /// The immediates of 32-bit encodings (Unprivileged ISA, "Immediate Encoding Variants").
    pub enum Imm {
        /// No immediate.
        None = Layout::constant(0);
        /// Signed, of I-type.
        I = Layout::new(true, &[(31, "11:0")]);
        /// Signed, of S-type.
        S = Layout::new(true, &[(31, "11:5"), (11, "4:0")]);
        /// Signed branch offset, even.
        B = Layout::new(true, &[(31, "12|10:5"), (11, "4:1|11")]);
        /// Signed; the low 12 bits are zero.
        U = Layout::new(true, &[(31, "31:12")]);
        /// Signed jump offset, even.
        J = Layout::new(true, &[(31, "20|10:1|11|19:12")]);
        /// Shift amount, 0 to 63.
        Shamt6 = Layout::new(false, &[(25, "5:0")]);
        /// Shift amount, 0 to 31.
        Shamt5 = Layout::new(false, &[(24, "4:0")]);
        /// fm, predecessor set and successor set of `fence`, four bits each from the top; a set is i, o, r,
        /// w.
        Fence = Layout::new(false, &[(31, "11:0")]);
        /// CSR number.
        Csr = Layout::new(false, &[(31, "11:0")]);
        /// Unsigned immediate in the place of rs1.
        Zimm = Layout::new(false, &[(19, "4:0")]);
        /// Signed offset of a prefetch, a multiple of 32.
        Prefetch = Layout::new(true, &[(31, "11:5")]);
        /// Index of a Zfa constant, in the place of rs1.
        Fli = Layout::new(false, &[(19, "4:0")]);
        /// N of `mop.r.N`.
        MopR = Layout::new(false, &[(30, "4"), (27, "3:2"), (21, "1:0")]);
        /// N of `mop.rr.N`.
        MopRr = Layout::new(false, &[(30, "2"), (27, "1:0")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_follows_the_manuals_notation() {
        // beq x0,x0,-2: every immediate bit above 0 set.
        assert_eq!(Imm::B.gather(0xfe00_0fe3), -2);
        assert_eq!(Imm::B.layout().field(), 0xfe00_0f80);
        assert_eq!(Imm::J.gather(0x8000_0000), -0x10_0000);
        assert_eq!(Imm::U.gather(0x8000_0fff), -0x8000_0000);
        assert_eq!(Imm::Shamt6.gather(0xffff_ffff), 63);
        assert_eq!(Imm::MopR.gather(0xffff_ffff), 31);
    }

    #[test]
    fn scatter_refuses_what_does_not_fit() {
        assert_eq!(Imm::I.layout().scatter(2047), Some(0x7ff0_0000));
        assert_eq!(Imm::I.layout().scatter(2048), None);
        assert_eq!(Imm::B.layout().scatter(3), None);
        assert_eq!(Imm::Csr.layout().scatter(-1), None);
        assert_eq!(Imm::Prefetch.layout().scatter(-32), Some(0xfe00_0000));
        assert_eq!(Imm::Prefetch.layout().scatter(16), None);
    }
}
