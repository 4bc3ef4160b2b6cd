//! `hartvm disasm`: the instructions of an ELF file.

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use frontend::{Decoder, Isa, decode, disasm};
use goblin::elf::Elf;
use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, EM_RISCV};
use goblin::elf::section_header::{SHF_EXECINSTR, SHT_NOBITS};

use crate::cli::DisasmArgs;

/// Bytes of a file that are read at most, far beyond any program.
const LIMIT: u64 = 4 << 30;

/// Prints every instruction of every executable section, with symbols.
pub(crate) fn disasm(args: &DisasmArgs) -> Result<()> {
    let name = args.file.display();
    let want = "; name an ELF file for 64-bit RISC-V";
    // Not `with_context`: the remedy comes after the cause.
    let bytes = firmware::read_file(&args.file, LIMIT)
        .map_err(|error| anyhow!("{:#}{want}", anyhow::Error::new(error)))?;
    let elf =
        Elf::parse(&bytes).map_err(|error| anyhow!("`{name}` is not a whole ELF file: {error}{want}"))?;
    let header = &elf.header;
    if header.e_machine != EM_RISCV || header.e_ident[4] != ELFCLASS64 || header.e_ident[5] != ELFDATA2LSB {
        bail!("`{name}` is an ELF file for another machine{want}");
    }
    let mut symbols: Vec<(u64, &str)> = elf
        .syms
        .iter()
        .filter(|symbol| symbol.st_shndx != 0 && symbol.st_type() <= 2)
        .filter_map(|symbol| Some((symbol.st_value, elf.strtab.get_at(symbol.st_name)?)))
        .filter(|(_, name)| !name.is_empty() && !name.starts_with('$') && !name.starts_with(".L"))
        .collect();
    symbols.sort_unstable();

    let decoder = Decoder::new(&Isa::ALL);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for section in &elf.section_headers {
        if section.sh_flags & u64::from(SHF_EXECINSTR) == 0 || section.sh_type == SHT_NOBITS {
            continue;
        }
        let Some(code) = section.file_range().and_then(|range| bytes.get(range)) else {
            bail!("`{name}` is truncated: a section lies behind the end of the file; get a whole copy of it");
        };
        print_section(&mut out, &decoder, section.sh_addr, code, &symbols).or_else(closed_pipe_is_fine)?;
    }
    out.flush().or_else(closed_pipe_is_fine)
}

fn print_section(
    out: &mut impl Write,
    decoder: &Decoder,
    base: u64,
    code: &[u8],
    symbols: &[(u64, &str)],
) -> std::io::Result<()> {
    let mut symbols = symbols[symbols.partition_point(|&(address, _)| address < base)..].iter().peekable();
    let half = |at: usize| code.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let mut at = 0;
    while let Some(first) = half(at) {
        let address = base.wrapping_add(at as u64);
        while let Some(&(_, name)) = symbols.next_if(|&&(start, _)| start <= address) {
            writeln!(out, "\n{address:016x} <{name}>:")?;
        }
        let (bits, len) = match (decode::length(first), half(at + 2)) {
            (4, Some(second)) => (u32::from(first) | u32::from(second) << 16, 4),
            _ => (u32::from(first), 2),
        };
        let text = match decoder.decode(bits) {
            Some(insn) => disasm::disassemble(&insn, address).to_string(),
            None => format!(".{} {bits:#x}", if len == 4 { "word" } else { "half" }),
        };
        let width = len * 2;
        writeln!(out, "{address:8x}:  {bits:0width$x}{:pad$}  {text}", "", pad = 8 - width)?;
        at += len;
    }
    Ok(())
}

/// `hartvm disasm x | head` is no failure.
fn closed_pipe_is_fine(error: std::io::Error) -> Result<()> {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error).context("cannot print") }
}
