//! From operands to bits: the decoder's inverse, for tests and for guest code made by hand.

use crate::insn::{Insn, Opcode};
use crate::operand::{Imm, Operand};

/// The operands of an instruction to encode, meaning what the fields of [`Insn`] mean. Those that its format
/// does not have are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operands {
    /// Destination register.
    pub rd: u8,
    /// First source register.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register.
    pub rs3: u8,
    /// Rounding mode, or aq and rl.
    pub rm: u8,
    /// Immediate.
    pub imm: i64,
}

impl From<&Insn> for Operands {
    fn from(insn: &Insn) -> Operands {
        let &Insn { rd, rs1, rs2, rs3, rm, imm, .. } = insn;
        Operands { rd, rs1, rs2, rs3, rm, imm }
    }
}

/// The 32-bit encoding of `op` with `operands`. `None` if one does not fit its field, or is not one that the
/// encoding can express (an odd register of `amocas.q`, another rounding mode than RTZ of `fcvtmod.w.d`).
pub fn encode(op: Opcode, operands: &Operands) -> Option<u32> {
    let row = op.row();
    let mut bits = row.pattern.value;
    for &operand in row.operands {
        let field = match operand {
            Operand::Rd | Operand::Fd => place(operands.rd, 5, 7)?,
            Operand::Rs1 | Operand::Fs1 | Operand::Address | Operand::Immediate(Imm::Zimm) => {
                place(operands.rs1, 5, 15)?
            }
            Operand::Rs2 | Operand::Fs2 => place(operands.rs2, 5, 20)?,
            Operand::Fs3 => place(operands.rs3, 5, 27)?,
            Operand::Rm | Operand::RmExact if matches!(operands.rm, 5 | 6) => return None,
            Operand::Rm | Operand::RmExact => place(operands.rm, 3, 12)?,
            Operand::AqRl => place(operands.rm, 2, 25)?,
            Operand::Offset(imm) => place(operands.rs1, 5, 15)? | imm.layout().scatter(operands.imm)?,
            Operand::Target(imm) | Operand::Immediate(imm) => imm.layout().scatter(operands.imm)?,
        };
        bits |= field;
        // A bit that the pattern fixes must be what the operand says.
        if (bits ^ field) & operand.field() != 0 {
            return None;
        }
    }
    row.pattern.matches(bits).then_some(bits)
}

/// `value` in a field of `width` bits from bit `low` upwards.
fn place(value: u8, width: u32, low: u32) -> Option<u32> {
    (value < 1 << width).then_some((value as u32) << low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::ROWS;
    use crate::{Decoder, Isa};

    /// xorshift64: a fixed sequence, so that a failure repeats.
    fn random_words() -> impl Iterator<Item = u32> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        })
    }

    #[test]
    fn decoding_then_encoding_gives_the_same_bits_for_every_row() {
        let decoder = Decoder::new(&Isa::ALL);
        let mut words = random_words();
        for row in ROWS {
            for word in words.by_ref().take(500) {
                let bits = row.pattern.value | word & !row.pattern.mask;
                let Some(insn) = decoder.decode(bits) else {
                    // Nothing but a reserved rounding mode makes a word of a row illegal.
                    let rounds = row.operands.iter().any(|o| matches!(o, Operand::Rm | Operand::RmExact));
                    assert!(rounds && matches!(bits >> 12 & 7, 5 | 6), "{bits:#010x}");
                    continue;
                };
                // The random operands may have made a refinement of the row.
                assert!(insn.op == row.op || insn.op.row().refines == Some(row.op), "{bits:#010x}: {insn:?}");
                let ignored = match insn.op {
                    Opcode::Fence => 0x000f_8f80,
                    Opcode::FenceI => 0xffff_8f80,
                    _ => 0,
                };
                assert_eq!(encode(insn.op, &Operands::from(&insn)), Some(bits & !ignored), "{insn:?}");
                assert_eq!((insn.bits, insn.len), (bits, 4));
            }
        }
    }

    #[test]
    fn every_compressed_instruction_is_its_base_instruction() {
        let decoder = Decoder::new(&Isa::ALL);
        let mut legal = 0;
        for halfword in (0..=0xffff_u32).filter(|halfword| halfword & 3 != 3) {
            let Some(insn) = decoder.decode(halfword | 0xabcd_0000) else { continue };
            legal += 1;
            assert_eq!((insn.bits, insn.len), (halfword, 2));
            let bits =
                encode(insn.op, &Operands::from(&insn)).expect("the operands fit the base instruction");
            let base = decoder.decode(bits).expect("the base instruction is legal");
            assert_eq!(base, Insn { bits, len: 4, ..insn });
        }
        assert_eq!(legal, LEGAL_HALFWORDS);
    }

    /// GNU objdump knows one more, which the manual reserves: c.addi16sp of zero.
    const LEGAL_HALFWORDS: u32 = 47_759;

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let fits = Operands { rd: 31, rs1: 31, imm: -2048, ..Operands::default() };
        assert_eq!(encode(Opcode::Addi, &fits), Some(0x800f_8f93));
        assert_eq!(encode(Opcode::Addi, &Operands { imm: -2049, ..fits }), None);
        assert_eq!(encode(Opcode::Addi, &Operands { rd: 32, ..fits }), None);
        assert_eq!(
            encode(Opcode::AmocasQ, &Operands { rd: 2, rs2: 4, ..Operands::default() }),
            Some(0x2840_412f)
        );
        assert_eq!(encode(Opcode::AmocasQ, &Operands { rd: 3, rs2: 4, ..Operands::default() }), None);
        assert_eq!(encode(Opcode::FcvtmodWD, &Operands { rm: 1, ..Operands::default() }), Some(0xc280_1053));
        assert_eq!(encode(Opcode::FcvtmodWD, &Operands::default()), None);
        assert_eq!(encode(Opcode::FaddS, &Operands { rm: 5, ..Operands::default() }), None);
    }
}
