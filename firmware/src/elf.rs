//! ELF files: which bytes go where, where execution starts, and what a symbol's address is.

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{
    EI_CLASS, ELFCLASS64, EM_RISCV, ET_DYN, ET_EXEC, Header, et_to_str, machine_to_str,
};
use goblin::elf::program_header::{PT_INTERP, PT_LOAD, ProgramHeader};
use goblin::elf::section_header::{SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{Sym, Symtab};

use crate::LoadError;
use crate::error::About;

const CTX: Ctx = Ctx { container: Container::Big, le: Endian::Little };

const EXPECTED: &str = "a 64-bit little-endian RISC-V executable is needed";

/// An ELF file's view of memory, with physical addresses.
#[derive(Debug)]
pub(crate) struct Elf {
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
    /// What was added to the file's physical addresses.
    pub(crate) bias: u64,
}

/// `size` bytes at a physical address: first these bytes of the file, then zeros.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) data: Range<usize>,
    pub(crate) size: u64,
}

impl Elf {
    /// Reads an ELF file that is to run on the bare machine. A file linked for addresses in `ram` keeps them. A
    /// position-independent file that is linked for addresses below, or a kernel that runs at virtual addresses and has
    /// physical ones from 0 (as Linux's `vmlinux`), is moved so that it starts at `at`.
    pub(crate) fn parse(about: About, bytes: &[u8], ram: &Range<u64>, at: u64) -> Result<Self, LoadError> {
        let (header, program_headers) = headers(about, bytes)?;
        if program_headers.iter().any(|program_header| program_header.p_type == PT_INTERP) {
            return Err(
                about.wrong_kind("a program for an operating system", "a kernel or firmware is needed")
            );
        }
        let loaded: Vec<&ProgramHeader> =
            program_headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0).collect();
        let lowest = loaded.iter().map(|header| header.p_paddr).min();
        let lowest = lowest.ok_or_else(|| about.damaged("no segment of the ELF file is to be loaded"))?;
        let runs_at_physical_addresses = loaded.iter().all(|header| header.p_vaddr == header.p_paddr);
        let movable = header.e_type == ET_DYN || !runs_at_physical_addresses;
        let bias = if lowest < ram.start && movable { at.saturating_sub(lowest) } else { 0 };

        let mut segments = Vec::new();
        for header in &loaded {
            segments.push(segment(about, bytes, header, bias)?);
        }
        // Otherwise a small file could have the same large data copied thousands of times.
        let total = segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.size));
        if total > ram.end - ram.start {
            return Err(about.too_large("has segments of", ram.end - ram.start));
        }
        let entry = loaded
            .iter()
            .map(|segment| (segment, header.e_entry.wrapping_sub(segment.p_vaddr)))
            .find(|(segment, offset)| *offset < segment.p_memsz)
            // Within a segment, whose addresses have been found not to overflow.
            .map(|(segment, offset)| segment.p_paddr + bias + offset)
            .ok_or_else(|| {
                about.damaged(format!("its entry point {:#x} is in no segment", header.e_entry))
            })?;
        Ok(Self { entry, segments, bias })
    }

    /// The physical addresses from the lowest segment to the end of the highest one.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = self.segments.iter().map(|segment| segment.address).min().unwrap_or(0);
        let end = self.segments.iter().map(|segment| segment.address + segment.size).max().unwrap_or(0);
        start..end
    }
}

fn headers(about: About, bytes: &[u8]) -> Result<(Header, Vec<ProgramHeader>), LoadError> {
    let damaged =
        |error: goblin::error::Error| about.damaged(format!("it has no valid ELF headers ({error})"));
    let header = goblin::elf::Elf::parse_header(bytes).map_err(damaged)?;
    if header.e_machine != EM_RISCV {
        let machine = machine_to_str(header.e_machine).trim_start_matches("EM_");
        return Err(about.wrong_kind(format!("an ELF file for another machine ({machine})"), EXPECTED));
    }
    if header.e_ident[EI_CLASS] != ELFCLASS64 {
        return Err(about.wrong_kind("a 32-bit RISC-V ELF file", EXPECTED));
    }
    if !header.endianness().is_ok_and(|endian| endian.is_little()) {
        return Err(about.wrong_kind("a big-endian RISC-V ELF file", EXPECTED));
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        let found = format!("an ELF file of type {}", et_to_str(header.e_type));
        return Err(about.wrong_kind(found, "a linked executable is needed"));
    }
    let offset = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
    let program_headers =
        ProgramHeader::parse(bytes, offset, usize::from(header.e_phnum), CTX).map_err(damaged)?;
    Ok((header, program_headers))
}

fn segment(about: About, bytes: &[u8], header: &ProgramHeader, bias: u64) -> Result<Segment, LoadError> {
    let ProgramHeader { p_offset, p_filesz, p_memsz, p_paddr, .. } = *header;
    if p_filesz > p_memsz {
        return Err(about.damaged("a segment of the ELF file is larger in the file than in memory"));
    }
    let end = p_offset.checked_add(p_filesz).filter(|&end| end <= bytes.len() as u64);
    let end = end.ok_or_else(|| {
        let length = bytes.len();
        about.damaged(format!(
            "a segment ends {p_filesz:#x} bytes after {p_offset:#x}, the file at {length:#x}"
        ))
    })?;
    let address = p_paddr.checked_add(bias).filter(|address| address.checked_add(p_memsz).is_some());
    let address = address.ok_or_else(|| about.damaged("a segment's addresses overflow"))?;
    Ok(Segment { address, data: p_offset as usize..end as usize, size: p_memsz })
}

/// A symbol table of an ELF file, with what it refers to.
pub(crate) struct SymbolTable<'a> {
    pub(crate) sections: Vec<SectionHeader>,
    pub(crate) symbols: Symtab<'a>,
    strings: &'a [u8],
}

impl<'a> SymbolTable<'a> {
    /// The first table of the first of these kinds that there is. `None` if there is none, or the file is not a 64-bit RISC-V
    /// ELF file.
    pub(crate) fn of(bytes: &'a [u8], kinds: &[u32]) -> Option<Self> {
        let header = goblin::elf::Elf::parse_header(bytes).ok()?;
        if header.e_machine != EM_RISCV || header.e_ident[EI_CLASS] != ELFCLASS64 {
            return None;
        }
        let offset = usize::try_from(header.e_shoff).ok()?;
        let sections = SectionHeader::parse(bytes, offset, usize::from(header.e_shnum), CTX).ok()?;
        let of_kind =
            |kind: &u32| sections.iter().find(|section| section.sh_type == *kind && section.sh_size != 0);
        let table = kinds.iter().find_map(of_kind)?;
        let strings = sections.get(table.sh_link as usize)?;
        let strings = bytes.get(usize::try_from(strings.sh_offset).ok()?..)?;
        let count = usize::try_from(table.sh_size).ok()? / 24;
        let symbols = Symtab::parse(bytes, usize::try_from(table.sh_offset).ok()?, count, CTX).ok()?;
        Some(Self { sections, symbols, strings })
    }

    /// The name of a symbol; none if it lies outside the file.
    pub(crate) fn name(&self, symbol: &Sym) -> Option<&'a [u8]> {
        self.strings.get(symbol.st_name..)?.split(|&byte| byte == 0).next()
    }
}

/// The value of a symbol (as linked) in an ELF file, for example `tohost` in a test program. `None` if the file is not a
/// 64-bit RISC-V ELF file, has no symbol table or no such symbol.
pub fn symbol(bytes: &[u8], name: &str) -> Option<u64> {
    let table = SymbolTable::of(bytes, &[SHT_SYMTAB])?;
    let found = |symbol: &Sym| symbol.st_shndx != 0 && table.name(symbol) == Some(name.as_bytes());
    table.symbols.iter().find(found).map(|symbol| symbol.st_value)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    const RAM: Range<u64> = 0x8000_0000..0x8800_0000;
    const AT: u64 = 0x8020_0000;

    pub(crate) struct Load {
        pub(crate) vaddr: u64,
        pub(crate) paddr: u64,
        pub(crate) data: &'static [u8],
        pub(crate) memsz: u64,
    }

    /// An ELF64 RISC-V file: header, program headers, data.
    pub(crate) fn file(kind: u16, entry: u64, loads: &[Load]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let word = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&EM_RISCV.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        word(&mut bytes, entry);
        word(&mut bytes, 64);
        word(&mut bytes, 0);
        for half in [0, 0, 64, 56, loads.len() as u16, 64, 0, 0] {
            bytes.extend_from_slice(&u16::to_le_bytes(half));
        }
        let mut offset = 64 + 56 * loads.len() as u64;
        for load in loads {
            bytes.extend_from_slice(&PT_LOAD.to_le_bytes());
            bytes.extend_from_slice(&7u32.to_le_bytes());
            for value in [offset, load.vaddr, load.paddr, load.data.len() as u64, load.memsz, 1] {
                word(&mut bytes, value);
            }
            offset += load.data.len() as u64;
        }
        loads.iter().for_each(|load| bytes.extend_from_slice(load.data));
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Elf, LoadError> {
        Elf::parse(About(Path::new("kernel.elf")), bytes, &RAM, AT)
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn segments_in_ram_stay_where_they_are() {
        let loads = [
            Load { vaddr: 0x8000_1000, paddr: 0x8000_1000, data: b"data", memsz: 0x100 },
            Load { vaddr: 0x8000_0000, paddr: 0x8000_0000, data: b"code", memsz: 4 },
        ];
        let bytes = file(ET_EXEC, 0x8000_0002, &loads);
        let elf = parse(&bytes).unwrap();
        assert_eq!((elf.entry, elf.bias, elf.range()), (0x8000_0002, 0, 0x8000_0000..0x8000_1100));
        assert_eq!(
            (elf.segments[0].address, &bytes[elf.segments[0].data.clone()], elf.segments[0].size),
            (0x8000_1000, &b"data"[..], 0x100)
        );
    }

    #[test]
    fn position_independent_files_move_to_where_they_are_asked() {
        let bytes = file(ET_DYN, 0x10, &[Load { vaddr: 0, paddr: 0, data: &[0; 32], memsz: 32 }]);
        let elf = parse(&bytes).unwrap();
        assert_eq!((elf.entry, elf.range()), (AT + 0x10, AT..AT + 32));
    }

    #[test]
    fn vmlinux_is_moved_and_entered_at_its_physical_address() {
        let base = 0xffff_ffff_8000_0000;
        let bytes = file(
            ET_EXEC,
            base,
            &[
                Load { vaddr: base, paddr: 0, data: &[0; 32], memsz: 32 },
                Load { vaddr: base + 0x1000, paddr: 0x1000, data: &[], memsz: 0x1000 },
            ],
        );
        let elf = parse(&bytes).unwrap();
        assert_eq!((elf.entry, elf.range()), (AT, AT..AT + 0x2000));
    }

    #[test]
    fn executables_for_other_addresses_are_not_moved() {
        let bytes =
            file(ET_EXEC, 0x1_0000, &[Load { vaddr: 0x1_0000, paddr: 0x1_0000, data: &[0; 4], memsz: 4 }]);
        assert_eq!(parse(&bytes).unwrap().range(), 0x1_0000..0x1_0004);
    }

    #[test]
    fn other_machines_and_kinds_are_named() {
        let good =
            file(ET_EXEC, RAM.start, &[Load { vaddr: RAM.start, paddr: RAM.start, data: &[0; 4], memsz: 4 }]);
        let with = |offset: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[offset] = value;
            message(&bytes)
        };
        assert_eq!(
            with(18, 62),
            "`kernel.elf` is an ELF file for another machine (X86_64); \
             a 64-bit little-endian RISC-V executable is needed"
        );
        assert!(with(4, 1).contains("32-bit RISC-V ELF file"), "{}", with(4, 1));
        assert!(with(16, 1).contains("type REL"), "{}", with(16, 1));
        assert!(with(64, 3).contains("a program for an operating system"), "{}", with(64, 3));
    }

    #[test]
    fn impossible_segments_are_damage() {
        let one = |load| message(&file(ET_EXEC, RAM.start, &[load]));
        let high = u64::MAX - 1;
        assert!(one(Load { vaddr: RAM.start, paddr: high, data: &[0; 4], memsz: 4 }).contains("overflow"));
        assert!(
            one(Load { vaddr: RAM.start, paddr: RAM.start, data: &[0; 4], memsz: 3 })
                .contains("larger in the file")
        );
        assert!(one(Load { vaddr: high, paddr: RAM.start, data: &[0; 4], memsz: 4 }).contains("entry point"));
        assert!(message(&file(ET_EXEC, RAM.start, &[])).contains("no segment"));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let good = file(
            ET_EXEC,
            RAM.start,
            &[Load { vaddr: RAM.start, paddr: RAM.start, data: &[1; 40], memsz: 64 }],
        );
        assert!(parse(&good).is_ok());
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length} bytes");
        }
    }

    // Any bytes may change to anything: the answer may be a file or an error, never a panic.
    #[test]
    fn no_change_of_bytes_panics() {
        let good = file(ET_DYN, 0, &[Load { vaddr: 0, paddr: 0, data: &[1; 40], memsz: 64 }]);
        for index in 4..good.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                for width in [1, 4, 8] {
                    let mut changed = good.clone();
                    changed.iter_mut().skip(index).take(width).for_each(|byte| *byte = value);
                    let _ = parse(&changed).map(|elf| elf.range());
                    assert_eq!(symbol(&changed, "tohost"), None);
                }
            }
        }
    }

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let mut bytes =
            file(ET_EXEC, RAM.start, &[Load { vaddr: RAM.start, paddr: RAM.start, data: &[0; 4], memsz: 4 }]);
        let strings = bytes.len() as u64;
        bytes.extend_from_slice(b"\0tohost_not\0tohost\0");
        let symbols = bytes.len() as u64;
        bytes.extend_from_slice(&[0; 24]);
        for (name, value) in [(1u32, 0x8000_2000u64), (12, 0x8000_1000)] {
            bytes.extend_from_slice(&name.to_le_bytes());
            bytes.extend_from_slice(&[0x10, 0, 1, 0]);
            bytes.extend_from_slice(&value.to_le_bytes());
            bytes.extend_from_slice(&[0; 8]);
        }
        let sections = bytes.len() as u64;
        bytes.extend_from_slice(&[0; 64]);
        for (kind, offset, size, link) in [(SHT_SYMTAB, symbols, 72u64, 2u32), (3, strings, 19, 0)] {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&[0; 16]);
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&link.to_le_bytes());
            bytes.extend_from_slice(&[0; 20]);
        }
        bytes[40..48].copy_from_slice(&sections.to_le_bytes());
        bytes[60..62].copy_from_slice(&3u16.to_le_bytes());
        assert_eq!(symbol(&bytes, "tohost"), Some(0x8000_1000));
        assert_eq!(symbol(&bytes, "fromhost"), None);
        assert_eq!(symbol(b"not an ELF file", "tohost"), None);
    }
}
