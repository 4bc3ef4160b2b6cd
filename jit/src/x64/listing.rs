//! Disassembly, for people.

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};

use crate::codegen::Thunks;
use crate::codegen::listing::{Place, line};

/// Writes the code of a block; what is behind its first `instructions` bytes are operations that it refers to.
pub(crate) fn disassemble(out: &mut String, code: &[u8], instructions: usize, place: Place, thunks: &Thunks) {
    let Place { address, .. } = place;
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_space_after_operand_separator(true);
    let mut decoder = Decoder::with_ip(64, &code[..instructions], address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut text = String::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        text.clear();
        formatter.format(&instruction, &mut text);
        let start = (instruction.ip() - address) as usize;
        place.name_target(&mut text, thunks, instruction.near_branch_target());
        line(out, instruction.ip(), &code[start..start + instruction.len()], &text);
    }
    place.data(out, code, instructions);
}

/// How many instructions there are.
pub(super) fn instructions(code: &[u8]) -> u32 {
    Decoder::new(64, code, DecoderOptions::NONE).iter().count() as u32
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
        let displacement = thunks.call.wrapping_sub(0x1005);
        let mut code = vec![0xe8];
        code.extend(displacement.to_le_bytes());
        code.extend([0xc3, 0xcc, 0xcc, 1, 2, 3]);
        let mut out = String::new();
        disassemble(&mut out, &code, 8, Place { address, arena }, &thunks);
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("        101000:  e8") && lines[0].ends_with("; call"), "{out}");
        assert!(lines[1].ends_with("  ret"), "{out}");
        assert_eq!(lines[4], "        101008:  010203                  (data)");
    }
}
