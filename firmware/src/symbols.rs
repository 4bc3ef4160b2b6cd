//! Symbols of code, as ELF files and the kernel's own lists have them.

use std::path::Path;

use goblin::elf::section_header::{SHT_DYNSYM, SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{STT_FUNC, STT_NOTYPE};

use crate::LoadError;
use crate::elf::SymbolTable;
use crate::error::About;

/// Bytes that are read at most, far beyond any kernel with debug information.
const LIMIT: u64 = 4 << 30;

const EXPECTED: &str =
    "want a 64-bit RISC-V ELF file with symbols, a System.map, or a copy of /proc/kallsyms";

/// A name of code at an address. Of size 0, it goes on to the next one; without a name, it only ends the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address in the file.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// Reads the symbols of code in an ELF file, a kernel's `System.map`, or what `/proc/kallsyms` of the guest shows to root.
///
/// # Errors
/// When the file cannot be read, or has no symbols.
pub fn read_symbols(path: &Path) -> Result<Vec<Symbol>, LoadError> {
    let bytes = crate::read_file(path, LIMIT)?;
    let about = About(path);
    let symbols = if bytes.starts_with(b"\x7fELF") {
        of_elf(&bytes)
            .ok_or_else(|| about.wrong_kind("not an ELF file with symbols of RISC-V code", EXPECTED))?
    } else {
        of_map(&bytes).ok_or_else(|| about.wrong_kind("no list of symbols", EXPECTED))?
    };
    if symbols.iter().all(|symbol| symbol.name.is_empty()) {
        return Err(about.wrong_kind("a file without symbols of code (stripped?)", EXPECTED));
    }
    if symbols.iter().all(|symbol| symbol.address == 0) {
        let found = "a list without addresses";
        return Err(about.wrong_kind(found, "read /proc/kallsyms as root, with kernel.kptr_restrict at 0"));
    }
    Ok(symbols)
}

fn of_elf(bytes: &[u8]) -> Option<Vec<Symbol>> {
    let table = SymbolTable::of(bytes, &[SHT_SYMTAB, SHT_DYNSYM])?;
    let symbols = table.symbols.iter().filter(|symbol| symbol.st_shndx != 0).filter_map(|symbol| {
        let code = table.sections.get(symbol.st_shndx).is_some_and(SectionHeader::is_executable);
        let name = table.name(&symbol)?;
        let name = match symbol.st_type() {
            STT_FUNC => name,
            // Labels of assembly language; `$x` and `.L` mark places for tools.
            STT_NOTYPE if code && !name.starts_with(b"$") && !name.starts_with(b".L") => name,
            _ => return None,
        };
        let name = String::from_utf8_lossy(name).into_owned();
        Some(Symbol { address: symbol.st_value, size: symbol.st_size, name })
    });
    Some(symbols.filter(|symbol| !symbol.name.is_empty()).collect())
}

/// Lines of `ADDRESS TYPE NAME`, in `/proc/kallsyms` with the module in brackets.
fn of_map(bytes: &[u8]) -> Option<Vec<Symbol>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let symbols = text.lines().map(|line| {
        let mut fields = line.split_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = fields.next().filter(|kind| kind.len() == 1)?;
        let name = fields.next()?;
        let code = matches!(kind, "t" | "T" | "w" | "W") && !name.starts_with('$') && !name.starts_with(".L");
        Some(Symbol { address, size: 0, name: if code { name.into() } else { String::new() } })
    });
    symbols.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(address: u64, name: &str) -> Symbol {
        Symbol { address, size: 0, name: name.into() }
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        let text =
            b"ffffffff80000000 T _start\nffffffff80001000 t local\t[module]\nffffffff80002000 D data\n";
        let want = [
            symbol(0xffff_ffff_8000_0000, "_start"),
            symbol(0xffff_ffff_8000_1000, "local"),
            symbol(0xffff_ffff_8000_2000, ""),
        ];
        assert_eq!(of_map(text), Some(want.to_vec()));
        for text in ["hello\n", "12 T\n", "zz T name\n", "12 Text name\n"] {
            assert_eq!(of_map(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn elf_files_that_end_anywhere_are_refused() {
        let whole = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
        // Of another machine, and then of the right one but cut off.
        let header = &whole[..whole.len().min(4096)];
        assert_eq!(of_elf(header), None);
        let mut header = header.to_vec();
        header[18..20].copy_from_slice(&goblin::elf::header::EM_RISCV.to_le_bytes());
        for length in 0..header.len() {
            assert_eq!(of_elf(&header[..length]), None, "{length}");
        }
    }
}
