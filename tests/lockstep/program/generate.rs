//! How random programs are made.

mod items;

use frontend::{Decoder, Isa, Opcode};
use softmmu::Privilege;

use super::{Item, Program, bytes};
use crate::harness::asm;
use crate::layout::{self, PAGE, pte};
use crate::random::Random;

/// Starts of the gigabyte that S- and U-mode programs live in.
const GIGABYTES: [u64; 3] = [0x4000_0000, 0xffff_ffc0_0000_0000, 0xffff_ffff_8000_0000];
/// Bytes of a place for data between instructions.
const HOLE: usize = 48;

/// What is fixed for a program while its items are made.
struct Generator<'a> {
    random: &'a mut Random,
    mode: Privilege,
    gigabyte: u64,
    /// Registers that hold addresses of data.
    bases: [u8; 4],
    /// Holds the address of data between the code.
    hole_base: u8,
    fuel: u8,
    link: u8,
    /// Registers that anything may write, a few of them more often.
    any: Vec<u8>,
    hot: Vec<u8>,
    decoder: Decoder,
    items: Vec<Item>,
    /// Whether pages of code are exchanged. No code is patched then: a patch could hit a version that is not in use, and
    /// come into use without a `fence.i`.
    swaps: bool,
}

impl Generator<'_> {
    /// A part that is entered at its first item and left at its last.
    fn section(&mut self, items: usize) {
        let start = self.items.len();
        let end = start + items;
        for index in start..end {
            let forward =
                |random: &mut Random| random.between(index as i64 + 1, (index as i64 + 10).min(end as i64));
            let item = match self.random.below(100) {
                0..12 => {
                    use Opcode::{Beq, Bge, Bgeu, Blt, Bltu, Bne};
                    let op = self.random.pick(&[Beq, Bge, Bgeu, Blt, Bltu, Bne]);
                    let (rs1, rs2) = (self.source(), self.source());
                    Item::Branch { op, rs1, rs2, to: forward(self.random) as usize }
                }
                12..18 => Item::Back {
                    to: self.random.between((index as i64 - 15).max(start as i64), index as i64) as usize,
                    fuel: self.fuel,
                },
                18..21 => Item::Jump { rd: 0, by: None, to: forward(self.random) as usize },
                21..23 => {
                    let by = Some(self.random.pick(&self.any));
                    Item::Jump { rd: self.dest(), by, to: forward(self.random) as usize }
                }
                23..27 => Item::Slot(self.slot_insn(), self.slot_insn()),
                27..29 => Item::Hole((0..HOLE).map(|_| self.random.next() as u8).collect()),
                29..31 => Item::HoleBase { rd: self.hole_base, hole: usize::MAX },
                31..35 if !self.swaps => {
                    let [at, with, _] = self.three_temporaries();
                    Item::Patch { slot: usize::MAX, offset: 0, bytes: 4, value: 0, at, with, distance: 0 }
                }
                // A call; its target is one of the functions, which come later.
                31..35 => Item::Slot(self.slot_insn(), self.slot_insn()),
                35..41 => Item::Jump { rd: self.link, by: None, to: usize::MAX },
                41..44 => Item::Jump { rd: self.link, by: Some(self.link), to: usize::MAX },
                _ => self.simple(),
            };
            self.items.push(item);
        }
    }
}

fn data_entry(random: &mut Random) -> u64 {
    let page = random.below(layout::DATA_PAGES as usize) as u64;
    let pa = if random.percent(5) { layout::NOWHERE } else { layout::DATA + page * PAGE };
    let ad = pte::A | pte::D;
    let bits = match random.below(12) {
        0 => return random.next() & !1,
        1 => pte::R | ad,
        2 => pte::R | pte::W | pte::U | ad,
        3 => pte::R | pte::W,
        4 => pte::R | pte::W | pte::A,
        5 => pte::X | ad,
        _ => pte::R | pte::W | ad,
    };
    pte::leaf(pa, bits)
}

impl Generator<'_> {
    /// Fills in what refers to items that came later.
    ///
    /// Of the slots, `favourite` is patched more often.
    fn resolve(&mut self, functions: &[usize], favourite: Option<usize>) {
        let all = |fits: fn(&Item) -> bool| -> Vec<usize> {
            (0..self.items.len()).filter(|&index| fits(&self.items[index])).collect()
        };
        let (slots, holes) =
            (all(|item| matches!(item, Item::Slot(..))), all(|item| matches!(item, Item::Hole(_))));
        for index in 0..self.items.len() {
            let size = self.items[index].size();
            let nothing = Item::Plain(0x0001_u16.to_le_bytes().repeat(size / 2));
            let item = match self.items[index] {
                Item::Jump { rd, by, to: usize::MAX } => {
                    Item::Jump { rd, by, to: self.random.pick(functions) }
                }
                Item::HoleBase { .. } if holes.is_empty() => nothing,
                Item::HoleBase { rd, .. } => Item::HoleBase { rd, hole: self.random.pick(&holes) },
                Item::Patch { .. } if slots.is_empty() => nothing,
                Item::Patch { at, with, .. } => {
                    let slot = match favourite {
                        Some(slot) if self.random.percent(60) => slot,
                        _ => self.random.pick(&slots),
                    };
                    let aliased = self.mode == Privilege::Supervisor && self.random.percent(50);
                    let distance = if aliased { layout::ALIAS_VA - layout::CODE_VA } else { 0 } as i64;
                    let Item::Slot(now, other) = self.items[slot] else { unreachable!("it is a slot") };
                    let (offset, bytes, value) = match self.random.below(5) {
                        0 => (0, 4, now),
                        1 => (0, 4, other),
                        2 => (2, 2, self.random.next() as u32 & 0xffff),
                        3 => (0, 2, self.slot_insn() & 0xffff),
                        _ => (0, 4, self.slot_insn()),
                    };
                    Item::Patch { slot, offset, bytes, value, at, with, distance }
                }
                _ => continue,
            };
            self.items[index] = item;
        }
    }
}

impl Program {
    pub(crate) fn generate(random: &mut Random) -> Self {
        let mode = random.pick(&[
            Privilege::Machine,
            Privilege::Machine,
            Privilege::Supervisor,
            Privilege::Supervisor,
            Privilege::Supervisor,
            Privilege::User,
        ]);
        let gigabyte = random.pick(&GIGABYTES);
        // Registers that hosts keep in registers, and others.
        let mut registers: Vec<u8> = (1..32).collect();
        for index in (1..registers.len()).rev() {
            registers.swap(index, random.below(index + 1));
        }
        let mut take = |wanted: &[u8], random: &mut Random| {
            let wanted: Vec<u8> = wanted.iter().copied().filter(|w| registers.contains(w)).collect();
            let register = if wanted.is_empty() { registers[0] } else { random.pick(&wanted) };
            registers.retain(|&other| other != register);
            register
        };
        let link = take(&[1, 1, 5], random);
        let bases = [
            take(&[2, 8], random),
            take(&[8, 2, 9, 10], random),
            take(&[10, 11, 15, 14], random),
            take(&[18, 28, 5, 6, 20], random),
        ];
        let hole_base = take(&[9, 19, 29], random);
        let fuel = take(&[27, 12, 31], random);
        let hot = (0..random.between(3, 9)).map(|_| random.pick(&registers)).collect();
        let mut generator = Generator {
            mode,
            gigabyte,
            bases,
            hole_base,
            fuel,
            link,
            any: registers,
            hot,
            decoder: Decoder::new(&Isa::ALL),
            items: Vec::new(),
            swaps: mode == Privilege::Supervisor && random.percent(50),
            random,
        };
        let items = generator.random.pick(&[20, 60, 120, 200]);
        generator.section(items);
        generator.items.push(Item::End);
        let mut functions = Vec::new();
        for _ in 0..generator.random.between(1, 4) {
            functions.push(generator.items.len());
            let first = generator.items.len();
            let items = generator.random.between(2, 12) as usize;
            generator.section(items);
            // Functions call nobody: they would lose their own return address.
            for index in first..generator.items.len() {
                if matches!(generator.items[index], Item::Jump { rd, .. } if rd == link) {
                    generator.items[index] = Item::Plain(generator.compute());
                }
            }
            let ret = if generator.random.percent(70) && link == 1 {
                0x8082_u16.to_le_bytes().to_vec()
            } else {
                bytes(&[asm::i(Opcode::Jalr, 0, link, 0)])
            };
            generator.items.push(Item::Plain(ret));
        }
        let slots: Vec<usize> = (0..generator.items.len())
            .filter(|&index| matches!(generator.items[index], Item::Slot(..)))
            .collect();
        // One that is in two pages.
        let crossing = if slots.is_empty() || generator.random.percent(60) {
            None
        } else {
            Some(generator.random.pick(&slots))
        };
        generator.resolve(&functions, crossing);
        let Generator { random, items, .. } = generator;

        let size: usize = items.iter().map(Item::size).sum();
        let room = (layout::CODE_PAGES * PAGE) as usize - size;
        let start = match crossing {
            Some(slot) => {
                let before: usize = items[..slot].iter().map(Item::size).sum();
                (0xffe_usize.wrapping_sub(before) % PAGE as usize) as u64
            }
            None => random.below(room.min(2 * PAGE as usize)) as u64 & !1,
        };
        let mut x = [0; 32];
        x.iter_mut().skip(1).for_each(|x| *x = random.number());
        let mut f = [0; 32];
        f.iter_mut().for_each(|f| *f = random.float());
        let data = |offset: u64| match mode {
            Privilege::Machine => layout::DATA + offset,
            _ => gigabyte + layout::DATA_VA + offset,
        };
        for base in bases {
            x[usize::from(base)] = data(random.between(0, 0x180) as u64 * 16);
        }
        x[usize::from(hole_base)] = data(0x200);
        x[usize::from(fuel)] = random.between(2, 60) as u64;
        let user = if mode == Privilege::User { pte::U } else { 0 };
        let mut data_pages: Vec<u64> = (0..layout::DATA_PAGES).collect();
        let mut data_bits = vec![pte::R | pte::W | pte::A | pte::D | user; data_pages.len()];
        for bits in &mut data_bits[3..] {
            let entry = data_entry(random);
            *bits = if entry & pte::V == 0 { 0 } else { entry & 0xff & !pte::V | user };
        }
        for index in (1..data_pages.len()).rev() {
            data_pages.swap(index, random.below(index + 1));
        }
        let fs = random.pick(&[3, 3, 3, 1, 1, 2, 2, 0]) << 13;
        let sum = random.next() & 0xc_0000;
        Self {
            items,
            mode,
            gigabyte,
            start,
            handler: random.percent(50),
            data_pages,
            data_bits,
            x,
            f,
            fflags: random.next() as u8 & 31,
            frm: if random.percent(90) { random.below(5) } else { random.below(8) } as u8,
            mstatus: fs | sum,
            counters: random.percent(70),
            data_seed: random.next(),
        }
    }
}
