//! The compressed-instruction table: Zca, Zcd, Zcb and Zcmop of RV64.
//!
//! A row names the base instruction it becomes, where each register comes from, and the immediate. After
//! decoding nothing knows that an instruction was compressed, except by its length.

use crate::insn::{Opcode, Pattern};
use crate::isa::{Extension, Isa};
use crate::operand::{Layout, immediates};
use Reserved::*;

/// Where a register number comes from. The figure is the field's highest bit, as the columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegSource {
    shift: u8,
    mask: u8,
    base: u8,
}

impl RegSource {
    const fn fixed(number: u8) -> RegSource {
        RegSource { shift: 0, mask: 0, base: number }
    }

    /// The register number in the encoding `bits`.
    #[inline(always)]
    pub const fn number(self, bits: u32) -> u8 {
        ((bits >> self.shift) as u8 & self.mask) + self.base
    }
}

/// x0, or no register at all.
const X0: RegSource = RegSource::fixed(0);
/// x1, the return address.
const RA: RegSource = RegSource::fixed(1);
/// x2, the stack pointer.
const SP: RegSource = RegSource::fixed(2);
/// Five bits, 11:7.
const R11: RegSource = RegSource { shift: 7, mask: 31, base: 0 };
/// Five bits, 6:2.
const R6: RegSource = RegSource { shift: 2, mask: 31, base: 0 };
/// Three bits, 9:7, for x8 to x15.
const R9: RegSource = RegSource { shift: 7, mask: 7, base: 8 };
/// Three bits, 4:2, for x8 to x15.
const R4: RegSource = RegSource { shift: 2, mask: 7, base: 8 };

/// What makes an encoding of a row reserved, and so illegal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Nothing.
    Never,
    /// The immediate is zero.
    Imm0,
    /// The register in bits 11:7 is x0.
    Reg0,
}

immediates! {
    /// The immediates of compressed encodings, named for the first instruction that has it.
    pub enum ImmC {
        /// No immediate.
        None = Layout::constant(0);
        /// Stack offset to make a pointer of.
        Addi4spn = Layout::new(false, &[(12, "5:4|9:6|2|3")]);
        /// Offset of a word.
        Lw = Layout::new(false, &[(12, "5:3"), (6, "2|6")]);
        /// Offset of a doubleword.
        Ld = Layout::new(false, &[(12, "5:3"), (6, "7:6")]);
        /// Offset of a byte.
        Lbu = Layout::new(false, &[(6, "0|1")]);
        /// Offset of a halfword.
        Lhu = Layout::new(false, &[(5, "1")]);
        /// Signed six bits.
        Addi = Layout::new(true, &[(12, "5"), (6, "4:0")]);
        /// Stack adjustment.
        Addi16sp = Layout::new(true, &[(12, "9"), (6, "4|6|8:7|5")]);
        /// Signed upper immediate.
        Lui = Layout::new(true, &[(12, "17"), (6, "16:12")]);
        /// Shift amount.
        Slli = Layout::new(false, &[(12, "5"), (6, "4:0")]);
        /// Jump offset.
        J = Layout::new(true, &[(12, "11|4|9:8|10|6|7|3:1|5")]);
        /// Branch offset.
        Beqz = Layout::new(true, &[(12, "8|4:3"), (6, "7:6|2:1|5")]);
        /// Stack offset of a word to load.
        Lwsp = Layout::new(false, &[(12, "5"), (6, "4:2|7:6")]);
        /// Stack offset of a doubleword to load.
        Ldsp = Layout::new(false, &[(12, "5"), (6, "4:3|8:6")]);
        /// Stack offset of a word to store.
        Swsp = Layout::new(false, &[(12, "5:2|7:6")]);
        /// Stack offset of a doubleword to store.
        Sdsp = Layout::new(false, &[(12, "5:3|8:6")]);
        /// The mask of a zero-extended byte.
        ZextB = Layout::constant(0xff);
        /// All ones.
        Not = Layout::constant(-1);
    }
}

/// A row of the compressed-instruction table.
#[derive(Debug)]
pub struct RowC {
    /// The 16-bit encoding.
    pub pattern: Pattern,
    /// The instruction it stands for.
    pub base: Opcode,
    /// Destination of the base instruction.
    pub rd: RegSource,
    /// First source of the base instruction.
    pub rs1: RegSource,
    /// Second source of the base instruction.
    pub rs2: RegSource,
    /// Immediate of the base instruction.
    pub imm: ImmC,
    /// Which of the encodings are illegal.
    pub reserved: Reserved,
    /// The extensions that must all be enabled.
    pub needs: Isa,
    /// The name of the compressed form.
    pub mnemonic: &'static str,
    /// The row, by mnemonic, whose encodings include this one's.
    pub refines: Option<&'static str>,
}

macro_rules! define_rows {
    ($($columns:literal $base:ident $rd:ident $rs1:ident $rs2:ident $imm:ident $reserved:ident
       [$($needs:ident)+] $mnemonic:literal $(refines $coarser:literal)?;)*) => {
        /// The compressed instructions. Hints decode as the base instruction they are an encoding of.
        pub static ROWS_C: &[RowC] = &[$(RowC {
            pattern: const { Pattern::parse($columns, 16) },
            base: Opcode::$base,
            rd: $rd,
            rs1: $rs1,
            rs2: $rs2,
            imm: ImmC::$imm,
            reserved: $reserved,
            needs: Isa::exactly(&[$(Extension::$needs),+]),
            mnemonic: $mnemonic,
            refines: [$(Some($coarser),)? None][0],
        }),*];
    };
}

define_rows! {
    // pattern                  base   rd  rs1 rs2 imm      reserved needs      mnemonic

    // Quadrant 0. All zeros, which is illegal by design, is a reserved c.addi4spn.
    "000 ........ ... 00"       Addi   R4  SP  X0  Addi4spn Imm0  [Zca]       "c.addi4spn";
    "001 ... ... .. ... 00"     Fld    R4  R9  X0  Ld       Never [Zcd]       "c.fld";
    "010 ... ... .. ... 00"     Lw     R4  R9  X0  Lw       Never [Zca]       "c.lw";
    "011 ... ... .. ... 00"     Ld     R4  R9  X0  Ld       Never [Zca]       "c.ld";
    "100 000 ... .. ... 00"     Lbu    R4  R9  X0  Lbu      Never [Zcb]       "c.lbu";
    "100 001 ... 0. ... 00"     Lhu    R4  R9  X0  Lhu      Never [Zcb]       "c.lhu";
    "100 001 ... 1. ... 00"     Lh     R4  R9  X0  Lhu      Never [Zcb]       "c.lh";
    "100 010 ... .. ... 00"     Sb     X0  R9  R4  Lbu      Never [Zcb]       "c.sb";
    "100 011 ... 0. ... 00"     Sh     X0  R9  R4  Lhu      Never [Zcb]       "c.sh";
    "101 ... ... .. ... 00"     Fsd    X0  R9  R4  Ld       Never [Zcd]       "c.fsd";
    "110 ... ... .. ... 00"     Sw     X0  R9  R4  Lw       Never [Zca]       "c.sw";
    "111 ... ... .. ... 00"     Sd     X0  R9  R4  Ld       Never [Zca]       "c.sd";

    // Quadrant 1. c.addi to x0 is c.nop; the may-be-operations do nothing.
    "000 . ..... ..... 01"      Addi   R11 R11 X0  Addi     Never [Zca]       "c.addi";
    "001 . ..... ..... 01"      Addiw  R11 R11 X0  Addi     Reg0  [Zca]       "c.addiw";
    "010 . ..... ..... 01"      Addi   R11 X0  X0  Addi     Never [Zca]       "c.li";
    "011 . ..... ..... 01"      Lui    R11 X0  X0  Lui      Imm0  [Zca]       "c.lui";
    "011 . 00010 ..... 01"      Addi   SP  SP  X0  Addi16sp Imm0  [Zca]       "c.addi16sp" refines "c.lui";
    "011 0 0...1 00000 01"      Addi   X0  X0  X0  None     Never [Zcmop]     "c.mop"      refines "c.lui";
    "100 . 00 ... ..... 01"     Srli   R9  R9  X0  Slli     Never [Zca]       "c.srli";
    "100 . 01 ... ..... 01"     Srai   R9  R9  X0  Slli     Never [Zca]       "c.srai";
    "100 . 10 ... ..... 01"     Andi   R9  R9  X0  Addi     Never [Zca]       "c.andi";
    "100 0 11 ... 00 ... 01"    Sub    R9  R9  R4  None     Never [Zca]       "c.sub";
    "100 0 11 ... 01 ... 01"    Xor    R9  R9  R4  None     Never [Zca]       "c.xor";
    "100 0 11 ... 10 ... 01"    Or     R9  R9  R4  None     Never [Zca]       "c.or";
    "100 0 11 ... 11 ... 01"    And    R9  R9  R4  None     Never [Zca]       "c.and";
    "100 1 11 ... 00 ... 01"    Subw   R9  R9  R4  None     Never [Zca]       "c.subw";
    "100 1 11 ... 01 ... 01"    Addw   R9  R9  R4  None     Never [Zca]       "c.addw";
    "100 1 11 ... 10 ... 01"    Mul    R9  R9  R4  None     Never [Zcb Zmmul] "c.mul";
    "100 1 11 ... 11 000 01"    Andi   R9  R9  X0  ZextB    Never [Zcb]       "c.zext.b";
    "100 1 11 ... 11 001 01"    SextB  R9  R9  X0  None     Never [Zcb Zbb]   "c.sext.b";
    "100 1 11 ... 11 010 01"    ZextH  R9  R9  X0  None     Never [Zcb Zbb]   "c.zext.h";
    "100 1 11 ... 11 011 01"    SextH  R9  R9  X0  None     Never [Zcb Zbb]   "c.sext.h";
    "100 1 11 ... 11 100 01"    AddUw  R9  R9  X0  None     Never [Zcb Zba]   "c.zext.w";
    "100 1 11 ... 11 101 01"    Xori   R9  R9  X0  Not      Never [Zcb]       "c.not";
    "101 ........... 01"        Jal    X0  X0  X0  J        Never [Zca]       "c.j";
    "110 ... ... ..... 01"      Beq    X0  R9  X0  Beqz     Never [Zca]       "c.beqz";
    "111 ... ... ..... 01"      Bne    X0  R9  X0  Beqz     Never [Zca]       "c.bnez";

    // Quadrant 2.
    "000 . ..... ..... 10"      Slli   R11 R11 X0  Slli     Never [Zca]       "c.slli";
    "001 . ..... ..... 10"      Fld    R11 SP  X0  Ldsp     Never [Zcd]       "c.fldsp";
    "010 . ..... ..... 10"      Lw     R11 SP  X0  Lwsp     Reg0  [Zca]       "c.lwsp";
    "011 . ..... ..... 10"      Ld     R11 SP  X0  Ldsp     Reg0  [Zca]       "c.ldsp";
    "100 0 ..... ..... 10"      Add    R11 X0  R6  None     Never [Zca]       "c.mv";
    "100 0 ..... 00000 10"      Jalr   X0  R11 X0  None     Reg0  [Zca]       "c.jr"       refines "c.mv";
    "100 1 ..... ..... 10"      Add    R11 R11 R6  None     Never [Zca]       "c.add";
    "100 1 ..... 00000 10"      Jalr   RA  R11 X0  None     Never [Zca]       "c.jalr"     refines "c.add";
    "100 1 00000 00000 10"      Ebreak X0  X0  X0  None     Never [Zca]       "c.ebreak"   refines "c.jalr";
    "101 ...... ..... 10"       Fsd    X0  SP  R6  Sdsp     Never [Zcd]       "c.fsdsp";
    "110 ...... ..... 10"       Sw     X0  SP  R6  Swsp     Never [Zca]       "c.swsp";
    "111 ...... ..... 10"       Sd     X0  SP  R6  Sdsp     Never [Zca]       "c.sdsp";
}

impl Reserved {
    /// Whether the encoding `bits`, with the immediate `imm`, is a reserved one.
    #[inline(always)]
    pub const fn applies(self, imm: i64, bits: u32) -> bool {
        match self {
            Never => false,
            Imm0 => imm == 0,
            Reg0 => R11.number(bits) == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refines(fine: &RowC, coarse: &RowC) -> bool {
        fine.refines.is_some_and(|name| {
            name == coarse.mnemonic || ROWS_C.iter().any(|row| row.mnemonic == name && refines(row, coarse))
        })
    }

    #[test]
    fn only_declared_refinements_overlap() {
        for (i, a) in ROWS_C.iter().enumerate() {
            for b in &ROWS_C[i + 1..] {
                let declared = refines(a, b) || refines(b, a);
                assert_eq!(a.pattern.overlaps(b.pattern), declared, "{} and {}", a.mnemonic, b.mnemonic);
            }
        }
    }

    #[test]
    fn a_refinement_is_a_proper_subset() {
        for fine in ROWS_C {
            for coarse in ROWS_C.iter().filter(|coarse| refines(fine, coarse)) {
                assert_eq!(fine.pattern.mask & coarse.pattern.mask, coarse.pattern.mask, "{}", fine.mnemonic);
                assert_ne!(fine.pattern.mask, coarse.pattern.mask, "{}", fine.mnemonic);
            }
        }
    }

    #[test]
    fn every_refinement_names_a_row() {
        for name in ROWS_C.iter().filter_map(|row| row.refines) {
            assert!(ROWS_C.iter().any(|row| row.mnemonic == name), "{name}");
        }
    }

    #[test]
    fn immediates_and_registers_lie_in_open_bits() {
        for row in ROWS_C {
            assert_eq!(row.imm.layout().field() & row.pattern.mask, 0, "{}", row.mnemonic);
            for source in [row.rd, row.rs1, row.rs2] {
                assert_eq!((source.mask as u32) << source.shift & row.pattern.mask, 0, "{}", row.mnemonic);
            }
        }
    }
}
