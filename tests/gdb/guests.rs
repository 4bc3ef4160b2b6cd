//! The guests.

use frontend::Opcode::{Add, Addi, Andi, Bne, Ecall, Jalr, Ld, Mret, Sb, Sd, Slli, Wfi};
use frontend::csr_name::number as csr;

use crate::assembly::{Assembly, S0, S1, S2, S3, T3};
use crate::harness::RAM;
use crate::harness::asm::{self, A0, RA, T0, T1, ZERO};

/// Where the guests keep what they count, 8 bytes for each hart.
pub(crate) const VARIABLE: u64 = RAM + 0x1000;
/// The transmit register of the UART.
pub(crate) const UART: u64 = 0x1000_0000;

/// A program at the start of RAM.
pub(crate) struct Program {
    pub(crate) words: Vec<u32>,
    symbols: Vec<(&'static str, u64)>,
    data: Vec<(u64, Vec<u8>)>,
}

impl From<Assembly> for Program {
    fn from(assembly: Assembly) -> Self {
        let symbols = assembly.labels().map(|(name, offset)| (name, RAM + offset)).collect();
        Self { words: assembly.words(), symbols, data: Vec::new() }
    }
}

impl Program {
    /// Puts contents at an address behind the code.
    pub(crate) fn data(mut self, address: u64, bytes: &[u8]) -> Self {
        self.data.push((address, bytes.to_vec()));
        self
    }

    pub(crate) fn address(&self, name: &str) -> u64 {
        self.symbols.iter().find(|(symbol, _)| *symbol == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// The bytes at the start of RAM.
    fn image(&self) -> Vec<u8> {
        let mut image: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for (address, bytes) in &self.data {
            let start = (address - RAM) as usize;
            image.resize(image.len().max(start + bytes.len()), 0);
            image[start..start + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    /// An ELF file for the lp64d ABI, whose symbols are the labels (System V gABI, chapters 4 and 5).
    pub(crate) fn elf(&self) -> Vec<u8> {
        const CODE: u64 = 0x1000;
        let image = self.image();
        let mut strings = b"\0.text\0.symtab\0.strtab\0variable\0".to_vec();
        let (text, symtab, strtab, variable) = (1u32, 7u32, 15u32, 23u32);
        // Each symbol: name, info (a global function or object), other, section, value, size.
        let symbol = |name: u32, info: u8, value: u64, size: u64| {
            [
                &name.to_le_bytes()[..],
                &[info, 0],
                &1u16.to_le_bytes(),
                &value.to_le_bytes(),
                &size.to_le_bytes(),
            ]
            .concat()
        };
        let mut symbols = vec![0; 24];
        for (name, address) in &self.symbols {
            symbols.extend(symbol(strings.len() as u32, 0x12, *address, 0));
            strings.extend(name.bytes().chain([0]));
        }
        symbols.extend(symbol(variable, 0x11, VARIABLE, 8));
        let symbols_at = CODE + image.len() as u64;
        let strings_at = symbols_at + symbols.len() as u64;
        let sections_at = strings_at + strings.len() as u64;

        let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let halves =
            |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(halves(&[2, 243])); // ET_EXEC, EM_RISCV
        file.extend(1u32.to_le_bytes());
        file.extend(words(&[RAM, 64, sections_at]));
        file.extend(4u32.to_le_bytes()); // EF_RISCV_FLOAT_ABI_DOUBLE
        file.extend(halves(&[64, 56, 1, 64, 4, 3]));
        // PT_LOAD, RWX
        file.extend([1u32.to_le_bytes(), 7u32.to_le_bytes()].concat());
        file.extend(words(&[CODE, RAM, RAM, image.len() as u64, image.len() as u64, 0x1000]));
        file.resize(CODE as usize, 0);
        file.extend(&image);
        file.extend(&symbols);
        file.extend(&strings);
        let mut section =
            |name: u32, kind: u32, fields: [u64; 4], link: u32, info: u32, align: u64, entry: u64| {
                file.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
                file.extend(words(&fields));
                file.extend([link.to_le_bytes(), info.to_le_bytes()].concat());
                file.extend(words(&[align, entry]));
            };
        section(0, 0, [0; 4], 0, 0, 0, 0);
        section(text, 1, [7, RAM, CODE, image.len() as u64], 0, 0, 4, 0);
        section(symtab, 2, [0, 0, symbols_at, symbols.len() as u64], 3, 1, 8, 24);
        section(strtab, 3, [0, 0, strings_at, strings.len() as u64], 0, 0, 1, 0);
        file
    }
}

/// `s1` = the hart's variable.
fn point_to_variable(assembly: &mut Assembly) {
    assembly.li(S1, VARIABLE);
    assembly.add(&[asm::csrr(T0, csr::MHARTID), asm::i(Slli, T0, T0, 3), asm::r(Add, S1, S1, T0)]);
}

/// Counts in the hart's variable, in a function that is called, with a trap in each round.
pub(crate) fn counter() -> Program {
    let mut a = Assembly::default();
    point_to_variable(&mut a);
    a.address_of(T0, "handler");
    a.add(&[asm::csrw(csr::MTVEC, T0), asm::li(S0, 0)]);
    a.label("loop");
    a.add(&[asm::i(Addi, S0, S0, 1)]);
    a.branch(frontend::Opcode::Jal, RA, 0, "work");
    a.label("back");
    a.add(&[asm::bare(Ecall)]);
    a.label("after");
    a.add(&[asm::i(Andi, T1, S0, 7)]);
    a.branch(Bne, T1, ZERO, "loop");
    a.label("eighth");
    a.add(&[asm::i(Addi, S2, S2, 1)]);
    a.jump("loop");
    a.label("work");
    a.add(&[asm::i(Ld, T1, S1, 0)]);
    a.label("increment");
    a.add(&[asm::i(Addi, T1, T1, 1), asm::s(Sd, T1, S1, 0)]);
    a.label("stored");
    a.add(&[asm::i(Jalr, ZERO, RA, 0)]);
    a.label("handler");
    a.add(&[
        asm::csrr(T3, csr::MEPC),
        asm::i(Addi, T3, T3, 4),
        asm::csrw(csr::MEPC, T3),
        asm::i(Addi, S3, S3, 1),
        asm::bare(Mret),
    ]);
    a.into()
}

/// Hart 0 spins and counts in its variable; all others wait for interrupts that never come.
pub(crate) fn spinner() -> Program {
    let mut a = Assembly::default();
    point_to_variable(&mut a);
    a.add(&[asm::csrr(T0, csr::MHARTID)]);
    a.branch(Bne, T0, ZERO, "sleep");
    a.label("spin");
    a.add(&[asm::i(Addi, A0, A0, 1), asm::s(Sd, A0, S1, 0)]);
    a.jump("spin");
    a.label("sleep");
    a.add(&[asm::bare(Wfi)]);
    a.label("woken");
    a.jump("sleep");
    a.into()
}

/// Reads the time over and over, into a0.
pub(crate) fn watcher_of_time() -> Program {
    let mut a = Assembly::default();
    a.label("read");
    a.add(&[asm::csrr(A0, csr::TIME)]);
    a.jump("read");
    a.into()
}

/// Prints a letter over and over, until the variable is 1; then ends with code 7.
pub(crate) fn printer() -> Program {
    let mut a = Assembly::default();
    a.li(S0, UART);
    a.li(S1, VARIABLE);
    a.add(&[asm::li(T0, i64::from(b'x'))]);
    a.label("print");
    a.add(&[asm::s(Sb, T0, S0, 0)]);
    a.label("printed");
    a.add(&[asm::i(Ld, T1, S1, 0)]);
    a.branch(frontend::Opcode::Beq, T1, ZERO, "print");
    a.label("end");
    a.finish(7);
    a.into()
}
