//! Random programs that always end, and whose result no freedom of the architecture decides.
//!
//! A program is a list of items, each a few instructions that belong together. Addresses are computed from *bases*,
//! registers that nothing but an item that sets them writes, so stores go astray only where an item means them to: code is
//! changed only together with a `fence.i`, page tables only together with an `sfence.vma`. Jumps backwards use up *fuel*.

mod generate;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use frontend::disasm::disassemble;
use frontend::{Decoder, Isa, Opcode};
use softmmu::Privilege;

use crate::harness::asm;
use crate::layout::{self, PAGE};

/// What a program is made of.
#[derive(Clone)]
enum Item {
    /// Instructions that do not refer to other places of the program.
    Plain(Vec<u8>),
    /// An instruction that other items replace, in this and in the other version of the code.
    Slot(u32, u32),
    /// A conditional branch.
    Branch { op: Opcode, rs1: u8, rs2: u8, to: usize },
    /// A branch backwards that uses up fuel.
    Back { to: usize, fuel: u8 },
    /// `jal`, or `auipc` and `jalr` if `by` is a register.
    Jump { rd: u8, by: Option<u8>, to: usize },
    /// The address of the data in a hole.
    HoleBase { rd: u8, hole: usize },
    /// A jump over data.
    Hole(Vec<u8>),
    /// A store of `bytes` into a slot, at an offset, by registers `at` and `value`; `distance` to an alias of the code.
    Patch { slot: usize, offset: u8, bytes: u8, value: u32, at: u8, with: u8, distance: i64 },
    /// Where the program ends.
    End,
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Plain(bytes) => bytes.len(),
            Item::Slot(..) | Item::Branch { .. } | Item::End => 4,
            Item::Back { .. } | Item::HoleBase { .. } => 8,
            Item::Jump { by, .. } => 4 + 4 * usize::from(by.is_some()),
            Item::Hole(bytes) => 4 + bytes.len(),
            Item::Patch { .. } => 5 * 4 + 4,
        }
    }

    fn can_go(&self) -> bool {
        !matches!(self, Item::Slot(..) | Item::Hole(_) | Item::End)
    }
}

/// A program and the state it starts in.
#[derive(Clone)]
pub(crate) struct Program {
    items: Vec<Item>,
    pub(crate) mode: Privilege,
    /// Start of the gigabyte with everything in it, for S- and U-mode.
    gigabyte: u64,
    /// Offset of the first instruction in the code.
    start: u64,
    /// Traps are handled by the guest.
    pub(crate) handler: bool,
    /// Which physical page a page of data is, and what may be done to it; 0 for nothing.
    pub(crate) data_pages: Vec<u64>,
    pub(crate) data_bits: Vec<u64>,
    pub(crate) x: [u64; 32],
    pub(crate) f: [u64; 32],
    pub(crate) fflags: u8,
    pub(crate) frm: u8,
    pub(crate) mstatus: u64,
    pub(crate) counters: bool,
    pub(crate) data_seed: u64,
}

impl Item {
    /// The bytes of an item at offset `at`, where `offsets` are those of all items.
    fn encode(&self, at: u64, offsets: &[u64], other: bool) -> Vec<u8> {
        let to = |target: usize| offsets[target] as i64 - at as i64;
        // `auipc` and the low part for the instruction after it.
        let split = |distance: i64| {
            let low = distance << 52 >> 52;
            (distance - low, low)
        };
        let auipc = |rd, high| asm::i(Opcode::Auipc, rd, 0, high);
        match self {
            Item::Plain(bytes) => bytes.clone(),
            &Item::Slot(first, second) => bytes(&[if other { second } else { first }]),
            &Item::Branch { op, rs1, rs2, to: target } => bytes(&[asm::s(op, rs2, rs1, to(target))]),
            &Item::Back { to: target, fuel } => {
                bytes(&[asm::i(Opcode::Addi, fuel, fuel, -1), asm::s(Opcode::Blt, fuel, 0, to(target) - 4)])
            }
            &Item::Jump { rd, by: None, to: target } => bytes(&[asm::i(Opcode::Jal, rd, 0, to(target))]),
            &Item::Jump { rd, by: Some(by), to: target } => {
                let (high, low) = split(to(target));
                bytes(&[auipc(by, high), asm::i(Opcode::Jalr, rd, by, low)])
            }
            &Item::HoleBase { rd, hole } => {
                let (high, low) = split(to(hole) + 4);
                bytes(&[auipc(rd, high), asm::i(Opcode::Addi, rd, rd, low)])
            }
            Item::Hole(data) => [bytes(&[asm::j(4 + data.len() as i64)]), data.clone()].concat(),
            &Item::Patch { slot, offset, bytes: size, value, at: register, with, distance } => {
                let (high, low) = split(to(slot) + i64::from(offset) + distance);
                let (value_high, value_low) = split(i64::from(value as i32));
                let store = if size == 2 { Opcode::Sh } else { Opcode::Sw };
                bytes(&[
                    auipc(register, high),
                    asm::i(Opcode::Addi, register, register, low),
                    asm::lui(with, i64::from(value_high as i32)),
                    asm::i(Opcode::Addiw, with, with, value_low),
                    asm::s(store, with, register, 0),
                    asm::bare(Opcode::FenceI),
                ])
            }
            Item::End => bytes(&[asm::bare(Opcode::Ebreak)]),
        }
    }
}

impl Program {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Where the first instruction is, for the mode of the program.
    pub(crate) fn entry(&self) -> u64 {
        self.code_va() + self.start
    }

    fn code_va(&self) -> u64 {
        match self.mode {
            Privilege::Machine => layout::CODE,
            _ => self.gigabyte + layout::CODE_VA,
        }
    }

    /// Offsets in the code: of each item.
    fn offsets(&self) -> Vec<u64> {
        let mut at = self.start;
        let offset = |item: &Item| {
            let this = at;
            at += item.size() as u64;
            this
        };
        self.items.iter().map(offset).collect()
    }

    /// The address at which the program is over.
    pub(crate) fn end(&self) -> u64 {
        let index =
            self.items.iter().position(|item| matches!(item, Item::End)).expect("every program has an end");
        self.code_va() + self.offsets()[index]
    }

    pub(crate) fn gigabyte(&self) -> u64 {
        self.gigabyte
    }

    /// The offset of an address in the code.
    pub(crate) fn code_offset(&self, va: u64) -> Option<u64> {
        let offset = va.wrapping_sub(self.code_va());
        (offset < layout::CODE_PAGES * PAGE).then_some(offset)
    }

    /// The program without some of its items, each of which becomes as many bytes that do nothing.
    pub(crate) fn without(&self, range: Range<usize>) -> Option<Self> {
        let mut smaller = self.clone();
        let mut changed = false;
        for item in &mut smaller.items[range.start..range.end.min(self.items.len())] {
            let nothing = Item::Plain(0x0001_u16.to_le_bytes().repeat(item.size() / 2));
            let is_nothing = matches!(item, Item::Plain(bytes) if bytes.chunks(2).all(|half| half == [1, 0]));
            let returns = matches!(item, Item::Plain(bytes)
                if bytes == &[0x82, 0x80] || bytes.len() == 4 && bytes[0] == 0x67);
            if item.can_go() && !is_nothing && !returns {
                *item = nothing;
                changed = true;
            }
        }
        changed.then_some(smaller)
    }

    /// The bytes of the code and of its other version, from the program's first instruction on.
    pub(crate) fn code(&self) -> [Vec<u8>; 2] {
        let offsets = self.offsets();
        [false, true].map(|other| {
            let mut code = Vec::new();
            for (item, &at) in self.items.iter().zip(&offsets) {
                code.extend(item.encode(at, &offsets, other));
            }
            code
        })
    }

    /// What a person needs to see what went wrong.
    pub(crate) fn listing(&self) -> String {
        let mut text = format!(
            "{:?}, handler {}, entry {:#x}, end {:#x}, mstatus {:#x}, frm {}, data pages {:?} {:x?}\n",
            self.mode,
            self.handler,
            self.entry(),
            self.end(),
            self.mstatus,
            self.frm,
            self.data_pages,
            self.data_bits
        );
        for (n, (x, f)) in self.x.iter().zip(&self.f).enumerate() {
            let _ = writeln!(text, "x{n} = {x:#x}, f{n} = {f:#x}");
        }
        let decoder = Decoder::new(&Isa::ALL);
        let [code, other] = self.code();
        let offsets: BTreeMap<u64, usize> = self.offsets().into_iter().zip(0..).collect();
        let mut at = 0;
        while at < code.len() {
            let offset = self.start + at as u64;
            if let Some(&index) = offsets.get(&offset)
                && let Item::Hole(data) = &self.items[index]
            {
                let (address, length) = (self.code_va() + offset, data.len());
                let _ = writeln!(text, "{address:#x}: (jump over {length} bytes of data)");
                at += 4 + length;
                continue;
            }
            let word = |code: &[u8]| {
                let mut word = [0; 4];
                let length = (code.len() - at).min(4);
                word[..length].copy_from_slice(&code[at..at + length]);
                u32::from_le_bytes(word)
            };
            let bits = word(&code);
            let length = if bits & 3 == 3 { 4 } else { 2 };
            let pc = self.code_va() + offset;
            if bits & 0xffff != 1 {
                let show = |bits: u32| match decoder.decode(bits) {
                    Some(insn) => disassemble(&insn, pc).to_string(),
                    None => format!("illegal {bits:#x}"),
                };
                let _ = write!(
                    text,
                    "{pc:#x}: {:0width$x} {}",
                    bits & if length == 4 { !0 } else { 0xffff },
                    show(bits),
                    width = 2 * length
                );
                let second = word(&other);
                if second != bits && length == 4 {
                    let _ = write!(text, "; or {}", show(second));
                }
                text.push('\n');
            }
            at += length;
        }
        text
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
