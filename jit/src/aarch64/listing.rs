//! Disassembly, for people.

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction, Operand};

use crate::codegen::Thunks;
use crate::codegen::listing::{Place, line};

/// One instruction: what it is, and how many bytes on a jump leads.
pub(super) fn decode(word: [u8; 4]) -> (String, Option<i64>) {
    let mut instruction = Instruction::default();
    if InstDecoder::default().decode_into(&mut instruction, &mut U8Reader::new(&word)).is_err() {
        return (format!(".word {:#010x}", u32::from_le_bytes(word)), None);
    }
    let displacement = instruction.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(displacement) => Some(*displacement),
        _ => None,
    });
    (instruction.to_string(), displacement)
}

/// Writes the code of a block; what is behind its first `instructions` bytes are operations that it refers to.
pub(crate) fn disassemble(out: &mut String, code: &[u8], instructions: usize, place: Place, thunks: &Thunks) {
    for (index, word) in code[..instructions].chunks_exact(4).enumerate() {
        let address = place.address + 4 * index as u64;
        let (mut text, displacement) = decode([word[0], word[1], word[2], word[3]]);
        if let Some(displacement) = displacement {
            place.name_target(&mut text, thunks, address.wrapping_add_signed(displacement));
        }
        line(out, address, word, &text);
    }
    place.data(out, code, instructions);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::listing::symbols;

    #[test]
    fn the_shared_code_is_named_without_gaps() {
        let (code, thunks) = super::super::shared_code();
        let symbols = symbols(&thunks);
        assert_eq!((symbols[0].0, symbols[symbols.len() - 1].1), (0, code.len() as u32));
        assert!(symbols.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert!(symbols.iter().any(|(_, _, name)| name == "load64"));
    }

    #[test]
    fn calls_of_the_shared_code_are_named_and_data_is_not_disassembled() {
        let (_, thunks) = super::super::shared_code();
        let arena = 0x10_0000;
        let address = arena + 0x1000;
        let displacement = thunks.call.wrapping_sub(0x1000);
        let mut code = (0x9400_0000 | displacement >> 2 & 0x03ff_ffff).to_le_bytes().to_vec();
        code.extend(0xd65f_03c0_u32.to_le_bytes());
        code.extend([1, 2, 3]);
        let mut out = String::new();
        disassemble(&mut out, &code, 8, Place { address, arena }, &thunks);
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("        101000:  ") && lines[0].ends_with("; call"), "{out}");
        assert!(lines[1].ends_with("  ret"), "{out}");
        assert_eq!(lines[2], "        101008:  010203                  (data)");
    }
}
