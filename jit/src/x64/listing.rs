//! Generated code for people: names of the shared code, and disassembly.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};

use super::entry::Thunks;

/// Most bytes of an instruction that are shown in one line.
const COLUMNS: usize = 11;

/// The shared code's parts, by arena offset: start, end, name.
pub(crate) fn symbols(thunks: &Thunks) -> Vec<(u32, u32, String)> {
    let mut starts = vec![
        (0, "tables".to_string()),
        (thunks.enter, "enter".to_string()),
        (thunks.exit_at, "exit_at".to_string()),
        (thunks.exit_to, "exit_to".to_string()),
        (thunks.exit, "exit".to_string()),
        (thunks.exit_link, "exit_link".to_string()),
        (thunks.dead, "dead".to_string()),
        (thunks.interpret, "interpret".to_string()),
        (thunks.step, "step".to_string()),
        (thunks.call, "call".to_string()),
        (thunks.fp_on[0], "fp_on".to_string()),
        (thunks.fp_on[1], "fp_dirty".to_string()),
    ];
    for (log2, (&load, &store)) in thunks.load.iter().zip(&thunks.store).enumerate() {
        starts.push((load, format!("load{}", 8 << log2)));
        starts.push((store, format!("store{}", 8 << log2)));
    }
    starts.sort();
    let ends: Vec<u32> = starts.iter().skip(1).map(|&(start, _)| start).chain([thunks.end]).collect();
    let named = starts.into_iter().zip(ends).map(|((start, name), end)| (start, end, name));
    named.filter(|(start, end, _)| start < end).collect()
}

/// Writes the code of a block that runs at host address `address`; what is behind its first `instructions` bytes are operations
/// that it refers to. `arena` is the host address of offset 0.
pub(crate) fn disassemble(
    out: &mut String,
    code: &[u8],
    instructions: usize,
    address: u64,
    arena: u64,
    thunks: &Thunks,
) {
    let symbols = symbols(thunks);
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
        let target = instruction.near_branch_target().wrapping_sub(arena);
        if let Some((_, _, name)) = symbols.iter().find(|&&(start, ..)| u64::from(start) == target) {
            let _ = write!(text, "  ; {name}");
        }
        line(out, instruction.ip(), &code[start..start + instruction.len()], &text);
    }
    for (index, bytes) in code[instructions..].chunks(8).enumerate() {
        line(out, address + (instructions + index * 8) as u64, bytes, "(data)");
    }
}

fn line(out: &mut String, address: u64, bytes: &[u8], text: &str) {
    let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let _ = writeln!(out, "  {address:12x}:  {hex:width$}  {text}", width = 2 * COLUMNS);
}

#[cfg(test)]
mod tests {
    use super::*;

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
        disassemble(&mut out, &code, 8, address, arena, &thunks);
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("        101000:  e8") && lines[0].ends_with("; call"), "{out}");
        assert!(lines[1].ends_with("  ret"), "{out}");
        assert_eq!(lines[4], "        101008:  010203                  (data)");
    }
}
