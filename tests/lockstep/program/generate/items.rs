//! The items of random programs that need no other item: what compilers write, and what nobody would.

use frontend::csr_name::number as csr;
use frontend::encode::{Operands, encode};
use frontend::insn::ROWS;
use frontend::operand::{Imm, Operand};
use frontend::{Insn, Opcode};
use softmmu::Privilege;

use super::{Generator, HOLE, Item, bytes, data_entry};
use crate::harness::{self, asm};
use crate::layout::{self, PAGE, pte};
use crate::random::Random;

/// Two results of the same operands.
const TWINS: [(Opcode, Opcode); 7] = [
    (Opcode::Div, Opcode::Rem),
    (Opcode::Divu, Opcode::Remu),
    (Opcode::Divw, Opcode::Remw),
    (Opcode::Divuw, Opcode::Remuw),
    (Opcode::Mulh, Opcode::Mul),
    (Opcode::Mulhu, Opcode::Mul),
    (Opcode::Mulhsu, Opcode::Mul),
];
fn is_pc_relative(row: &frontend::insn::Row) -> bool {
    row.operands.iter().any(|operand| matches!(operand, Operand::Target(_)))
}

/// Whether a row computes registers from registers.
fn is_plain(op: Opcode) -> bool {
    let row = op.row();
    let excluded = matches!(
        op,
        Opcode::Ecall
            | Opcode::Ebreak
            | Opcode::Sret
            | Opcode::Mret
            | Opcode::Wfi
            | Opcode::Jalr
            | Opcode::Csrrw
            | Opcode::Csrrs
            | Opcode::Csrrc
            | Opcode::Csrrwi
            | Opcode::Csrrsi
            | Opcode::Csrrci
    );
    let addresses = row.operands.iter().any(|o| matches!(o, Operand::Address | Operand::Offset(_)));
    !excluded && !addresses && !is_pc_relative(row)
}

fn has(op: Opcode, operand: Operand) -> bool {
    op.row().operands.contains(&operand)
}

fn is_access(op: Opcode) -> bool {
    op != Opcode::Jalr && op.row().operands.iter().any(|o| matches!(o, Operand::Offset(Imm::I | Imm::S)))
}

fn is_atomic(op: Opcode) -> bool {
    has(op, Operand::Address)
}

fn li(rd: u8, value: u64) -> Vec<u32> {
    asm::li_64(rd, value as i64)
}

/// Bytes of an access, by the last letter of its name.
fn access_size(op: Opcode) -> i64 {
    match op.mnemonic().trim_start_matches('f').trim_start_matches(['l', 's']).trim_end_matches('u') {
        "b" => 1,
        "h" => 2,
        "w" => 4,
        _ => 8,
    }
}

impl Generator<'_> {
    pub(super) fn dest(&mut self) -> u8 {
        match self.random.below(20) {
            0 => 0,
            1..12 => self.random.pick(&self.hot),
            _ => self.random.pick(&self.any),
        }
    }

    pub(super) fn source(&mut self) -> u8 {
        if self.random.percent(15) { self.random.below(32) as u8 } else { self.dest() }
    }

    fn base(&mut self) -> u8 {
        let index = self.random.below(6).min(3);
        self.bases[index]
    }

    fn is_dest(&self, register: u8) -> bool {
        register == 0 || self.any.contains(&register)
    }

    /// `op` with random registers; `None` if that cannot be encoded or would write what it must not.
    fn encode(&mut self, op: Opcode, imm: i64, rs1: Option<u8>) -> Option<u32> {
        let rounds = has(op, Operand::Rm) || has(op, Operand::RmExact);
        let float = has(op, Operand::Fd);
        let rm = match op {
            Opcode::FcvtmodWD => 1,
            _ if !rounds => self.random.below(4) as u8,
            _ if self.random.percent(60) => 7,
            _ => self.random.below(5) as u8,
        };
        let (mut rd, mut rs2) = (self.dest(), self.source());
        let hot_float = |random: &mut Random| {
            if random.percent(60) {
                random.pick(&[10, 11, 15, 0, 3, 8, 9, 31])
            } else {
                random.below(32) as u8
            }
        };
        if float {
            rd = hot_float(self.random);
        }
        if has(op, Operand::Fs2) {
            rs2 = hot_float(self.random);
        }
        let mut first = rs1.unwrap_or_else(|| self.source());
        if has(op, Operand::Fs1) {
            first = hot_float(self.random);
        }
        if op == Opcode::AmocasQ {
            (rd, rs2) = (rd & !1, rs2 & !1);
            if !self.is_dest(rd) || !self.is_dest(rd + 1) {
                return None;
            }
        }
        let rs3 = hot_float(self.random);
        encode(op, &Operands { rd, rs1: first, rs2, rs3, rm, imm })
    }

    /// An instruction that only computes.
    pub(super) fn compute(&mut self) -> Vec<u8> {
        use Opcode::{
            Add, Addi, Addiw, Addw, And, Andi, Auipc, Lui, Mul, Or, Sll, Slli, Slt, Sltu, Srai, Srli, Sub,
            Xor,
        };
        const COMMON: [Opcode; 18] = [
            Add, Addi, Addiw, Addw, And, Andi, Auipc, Lui, Mul, Or, Sll, Slli, Slt, Sltu, Srai, Srli, Sub,
            Xor,
        ];
        loop {
            match self.random.below(10) {
                0..3 => {
                    if let Some(half) = self.compressed(|insn| is_plain(insn.op)) {
                        return half.to_le_bytes().into();
                    }
                }
                choice => {
                    let op = if choice < 6 {
                        self.random.pick(&COMMON)
                    } else {
                        ROWS[self.random.below(ROWS.len())].op
                    };
                    if !is_plain(op) {
                        continue;
                    }
                    let imm = self.immediate(op);
                    if let Some(word) = self.encode(op, imm, None) {
                        return bytes(&[word]);
                    }
                }
            }
        }
    }

    /// What compilers write for operations that the base instruction set lacks, and what only looks like it.
    fn idiom(&mut self) -> Vec<u8> {
        use Opcode::{Add, Addw, And, Or, Slli, Slliw, Srai, Srli, Srliw, Xor, Xori};
        let (source, first, second, rd) = (self.source(), self.dest(), self.dest(), self.dest());
        let other = if self.random.percent(10) { self.source() } else { source };
        let near = if self.random.percent(10) { 1 } else { 0 };
        let mut words = match self.random.below(6) {
            0 => {
                let left = self.random.pick(&[32, 48, 56, 8]);
                let right = if self.random.percent(50) { left } else { self.random.between(0, 63) };
                let op = self.random.pick(&[Srli, Srai]);
                vec![asm::i(Slli, first, source, left), asm::i(op, rd, first, right)]
            }
            1 | 2 => {
                let (left, right, width) =
                    self.random.pick(&[(Slli, Srli, 64), (Slliw, Srliw, 32), (Slli, Srliw, 32)]);
                let amount = self.random.between(1, width - 1);
                let join = self.random.pick(&[Or, Xor, Add, Addw]);
                let (a, b) = if self.random.percent(50) { (first, second) } else { (second, first) };
                vec![
                    asm::i(right, first, source, amount),
                    asm::i(left, second, other, width - amount - near),
                    asm::r(join, rd, a, b),
                ]
            }
            3 => {
                let with = self.source();
                let (a, b) = if self.random.percent(50) { (rd, with) } else { (with, rd) };
                let shift = self.random.between(0, 4);
                match self.random.below(3) {
                    0 => vec![asm::i(Slli, rd, source, shift), asm::r(Add, first, a, b)],
                    _ => vec![
                        asm::i(Slli, rd, source, 32),
                        asm::i(Srli, rd, rd, 32 - shift),
                        asm::r(Add, first, a, b),
                    ],
                }
            }
            4 => {
                let (with, twins) = (self.source(), self.random.pick(&TWINS));
                let (one, two) = if self.random.percent(50) { twins } else { (twins.1, twins.0) };
                vec![asm::r(one, first, source, with), asm::r(two, second, other, with)]
            }
            _ => {
                let (join, with) = (self.random.pick(&[And, Or, Xor]), self.source());
                let (a, b) = if self.random.percent(50) { (first, with) } else { (with, first) };
                vec![asm::i(Xori, first, source, -1 - near), asm::r(join, rd, a, b)]
            }
        };
        if self.random.percent(20) {
            let at = self.random.below(words.len());
            words.insert(at, self.slot_insn());
        }
        bytes(&words)
    }

    fn immediate(&mut self, op: Opcode) -> i64 {
        let kind = op.row().operands.iter().find_map(|operand| match operand {
            Operand::Immediate(imm) => Some(*imm),
            _ => None,
        });
        match kind {
            None => 0,
            Some(Imm::U) => i64::from((self.random.next() as i32) & !0xfff),
            Some(Imm::I) if self.random.percent(60) => self.random.between(-32, 32),
            Some(Imm::I) => self.random.between(-2048, 2047),
            Some(Imm::Shamt6) => self.random.between(0, 63),
            Some(Imm::Fence) => self.random.between(0, 255),
            _ => self.random.between(0, 31),
        }
    }

    /// A compressed instruction that `fits`, with registers as they may be used.
    fn compressed(&mut self, fits: impl Fn(&Insn) -> bool) -> Option<u16> {
        for _ in 0..50 {
            let half = self.random.next() as u16;
            if half & 3 == 3 {
                continue;
            }
            let Some(insn) = self.decoder.decode(half.into()) else { continue };
            let writes = has(insn.op, Operand::Rd);
            if fits(&insn) && (!writes || self.is_dest(insn.rd)) {
                return Some(half);
            }
        }
        None
    }

    /// An address of data: somewhere in a page, at an edge, or where nothing can be accessed.
    fn data_address(&mut self) -> u64 {
        let page = self.random.below(layout::DATA_PAGES as usize) as u64;
        let page = if self.random.percent(60) { page % 3 } else { page };
        let offset = match self.random.below(8) {
            0 => self.random.between(0xfc0, 0xfff) as u64,
            1 => self.random.between(0, 64) as u64,
            2 => self.random.between(0, 0xfff) as u64,
            _ => self.random.between(8, 0xf0) as u64 * 16,
        };
        let offset = page * PAGE + offset;
        match (self.mode, self.random.below(20)) {
            (_, 0) => loop {
                let number = self.random.number();
                // Not near code or page tables.
                let near = |start: u64| number.wrapping_sub(start - 0x10_0000) < 0x140_0000;
                if !near(harness::RAM) && !near(self.gigabyte) {
                    break number;
                }
            },
            (_, 1) => layout::NOWHERE + offset,
            (Privilege::Machine, _) => layout::DATA + offset,
            (_, 2..5) => self.gigabyte + layout::SUPER_VA + offset,
            _ => self.gigabyte + layout::DATA_VA + offset,
        }
    }

    fn set_base(&mut self) -> Vec<u8> {
        let base = self.base();
        let address = self.data_address();
        bytes(&li(base, address))
    }

    /// Loads and stores by one base or two, as compilers write them.
    fn accesses(&mut self) -> Vec<u8> {
        let mut code = if self.random.percent(35) { self.set_base() } else { Vec::new() };
        let (first, second) = (self.base(), self.base());
        let holes = self.random.percent(8);
        let start = if self.random.percent(15) { self.random.between(-1900, 1900) } else { 0 };
        let stores = self.random.pick(&[10, 50, 90]);
        let mixed = self.random.pick(&[0, 0, 20]);
        for _ in 0..self.random.between(1, 9) {
            if self.random.percent(mixed) {
                code.extend(self.compute());
                continue;
            }
            if !holes && self.random.percent(20) {
                let bases = self.bases;
                let half = self.compressed(|insn| is_access(insn.op) && bases.contains(&insn.rs1));
                if let Some(half) = half {
                    code.extend(half.to_le_bytes());
                    continue;
                }
            }
            let op = loop {
                let op = ROWS[self.random.below(ROWS.len())].op;
                let wanted = self.random.percent(stores);
                let prefetch = has(op, Operand::Offset(Imm::Prefetch)) && self.random.percent(5);
                if prefetch || is_access(op) && has(op, Operand::Offset(Imm::S)) == wanted {
                    break op;
                }
            };
            let size = access_size(op);
            let (base, imm) = if holes {
                (self.hole_base, self.random.between(0, HOLE as i64 - 8))
            } else {
                let slot = self.random.between(-6, 10) * size;
                let odd = if self.random.percent(6) { self.random.between(-3, 3) } else { 0 };
                (if self.random.percent(70) { first } else { second }, start + slot + odd)
            };
            let imm = if has(op, Operand::Offset(Imm::Prefetch)) { imm & !31 } else { imm };
            if let Some(word) = self.encode(op, imm, Some(base)) {
                code.extend(word.to_le_bytes());
            }
        }
        if self.random.percent(4) {
            // A load that changes its own base; it is set again at once.
            let base = self.base();
            code.extend(bytes(&[asm::i(Opcode::Ld, base, base, 8)]));
            let address = layout::DATA + 0x800;
            let address = if self.mode == Privilege::Machine {
                address
            } else {
                self.gigabyte + layout::DATA_VA + 0x1800
            };
            code.extend(bytes(&li(base, address)));
        }
        code
    }

    fn atomics(&mut self) -> Vec<u8> {
        let mut code = if self.random.percent(70) { self.set_base() } else { Vec::new() };
        let base = self.base();
        if self.random.percent(40) {
            let (lr, sc) = self.random.pick(&[(Opcode::LrW, Opcode::ScW), (Opcode::LrD, Opcode::ScD)]);
            code.extend(self.encode(lr, 0, Some(base)).into_iter().flat_map(u32::to_le_bytes));
            for _ in 0..self.random.below(3) {
                code.extend(self.compute());
            }
            if self.random.percent(20) {
                code.extend(self.accesses());
            }
            code.extend(self.encode(sc, 0, Some(base)).into_iter().flat_map(u32::to_le_bytes));
            return code;
        }
        for _ in 0..self.random.between(1, 4) {
            let op = loop {
                let op = ROWS[self.random.below(ROWS.len())].op;
                if is_atomic(op) {
                    break op;
                }
            };
            code.extend(self.encode(op, 0, Some(base)).into_iter().flat_map(u32::to_le_bytes));
        }
        code
    }

    fn csrs(&mut self) -> Vec<u8> {
        let (rd, source) = (self.dest(), self.source());
        let temp = self.random.pick(&self.any);
        let op = self.random.pick(&[
            Opcode::Csrrw,
            Opcode::Csrrs,
            Opcode::Csrrc,
            Opcode::Csrrwi,
            Opcode::Csrrsi,
            Opcode::Csrrci,
        ]);
        let plain = |number: u16, rs1: u8| asm::i(op, rd, rs1, number.into());
        let set = self.random.percent(70);
        let toggle = if set { Opcode::Csrrs } else { Opcode::Csrrc };
        let words = match self.random.below(14) {
            0 => vec![plain(csr::FFLAGS, source)],
            1 => vec![plain(csr::FCSR, source)],
            2 => vec![asm::i(Opcode::Csrrwi, rd, self.random.below(5) as u8, csr::FRM.into())],
            3 => vec![asm::i(Opcode::Csrrwi, rd, self.random.pick(&[0, 1, 2, 3, 4, 6]), csr::FRM.into())],
            4 | 5 => vec![asm::csrr(rd, csr::INSTRET)],
            6 => {
                let number = if self.mode == Privilege::Machine { csr::MINSTRET } else { csr::INSTRET };
                vec![plain(number, source)]
            }
            7 => vec![plain(csr::SSCRATCH, source)],
            8 => {
                let number = self.random.pick(&[csr::SEPC, csr::SCAUSE, csr::STVAL]);
                vec![plain(number, source)]
            }
            // SUM or MXR.
            9 | 10 => {
                let bit = self.random.pick(&[1 << 18, 1 << 19]);
                vec![asm::lui(temp, bit), asm::i(toggle, rd, temp, csr::SSTATUS.into())]
            }
            // FS: on again most of the time.
            11 => {
                let toggle = if self.random.percent(90) { Opcode::Csrrs } else { Opcode::Csrrc };
                vec![
                    asm::lui(temp, self.random.pick(&[0x2000, 0x4000, 0x6000])),
                    asm::i(toggle, rd, temp, csr::SSTATUS.into()),
                ]
            }
            12 if self.mode == Privilege::Supervisor => {
                let asid = self.random.below(3) as u64;
                let satp = 8 << 60 | asid << 44 | layout::TABLES >> 12;
                let mut words = li(temp, satp);
                words.push(asm::csrrw(rd, csr::SATP, temp));
                words
            }
            12 => vec![asm::csrr(rd, csr::SSTATUS)],
            // Not there, or not for this mode.
            _ => vec![asm::csrr(rd, self.random.pick(&[0x7b0, csr::MHARTID, csr::SATP, 0x015]))],
        };
        bytes(&words)
    }

    /// A change of the page tables by the guest itself.
    fn remap(&mut self) -> Vec<u8> {
        let [at, value, va] = self.three_temporaries();
        let code = self.swaps && self.random.percent(70);
        let (page_va, table, entry) = if code {
            let page = self.random.below(3) as u64;
            let version = self.random.pick(&[layout::CODE, layout::OTHER_CODE]);
            let writable = if self.random.percent(50) { pte::W } else { 0 };
            let bits = pte::R | pte::X | pte::A | pte::D | writable;
            (layout::CODE_VA + page * PAGE, 2, pte::leaf(version + page * PAGE, bits))
        } else {
            let page = self.random.below(layout::DATA_PAGES as usize) as u64;
            (layout::DATA_VA + page * PAGE, 3, data_entry(self.random))
        };
        let slot = self.gigabyte + layout::TABLES_VA + table * PAGE + (page_va >> 12 & 511) * 8;
        let mut words = li(at, slot);
        if code && self.random.percent(60) {
            // The version that is not in use: in a loop, each time another one.
            let difference = (layout::OTHER_CODE - layout::CODE) >> 12 << 10;
            words.extend(li(va, difference));
            words.extend([asm::i(Opcode::Ld, value, at, 0), asm::r(Opcode::Xor, value, value, va)]);
        } else {
            words.extend(li(value, entry));
        }
        words.push(asm::s(Opcode::Sd, value, at, 0));
        if self.random.percent(50) {
            words.push(asm::r(Opcode::SfenceVma, 0, 0, 0));
        } else {
            words.extend(li(va, self.gigabyte + page_va + self.random.below(4096) as u64));
            words.push(asm::r(Opcode::SfenceVma, 0, va, 0));
        }
        bytes(&words)
    }

    pub(super) fn three_temporaries(&mut self) -> [u8; 3] {
        loop {
            let three = [0; 3].map(|_| self.random.pick(&self.any));
            if three[0] != three[1] && three[1] != three[2] && three[0] != three[2] {
                return three;
            }
        }
    }

    /// A jump into the middle of an instruction, whose second half is one too.
    fn overlap(&mut self) -> Vec<u8> {
        let Some(half) = self.compressed(|insn| is_plain(insn.op)) else { return Vec::new() };
        let rd = self.random.pick(&self.any);
        let word = 0x37 | u32::from(rd) << 7 | (self.random.next() as u32 & 0xf000) | u32::from(half) << 16;
        let op = self.random.pick(&[Opcode::Beq, Opcode::Bne, Opcode::Blt, Opcode::Bgeu]);
        let (a, b) = (self.source(), self.source());
        bytes(&[asm::s(op, b, a, 6), word])
    }

    pub(super) fn slot_insn(&mut self) -> u32 {
        let op = self.random.pick(&[Opcode::Addi, Opcode::Xori, Opcode::Slti, Opcode::Ori]);
        let (rd, rs1) = (self.random.pick(&self.any), self.source());
        asm::i(op, rd, rs1, self.random.between(-2048, 2047))
    }

    /// Something that needs no other item.
    pub(super) fn simple(&mut self) -> Item {
        Item::Plain(match self.random.below(100) {
            0..26 => (0..self.random.between(1, 6)).flat_map(|_| self.compute()).collect(),
            26..34 => (0..self.random.between(1, 4)).flat_map(|_| self.idiom()).collect(),
            34..64 => self.accesses(),
            64..73 => self.atomics(),
            73..82 => self.csrs(),
            82..88 if self.mode == Privilege::Supervisor => self.remap(),
            82..86 => self.set_base(),
            86..91 => self.overlap(),
            91 => bytes(&[asm::bare(self.random.pick(&[Opcode::Ecall, Opcode::Ebreak]))]),
            92 => {
                let word = loop {
                    let word = self.random.next() as u32 | 3;
                    if self.decoder.decode(word).is_none() {
                        break word;
                    }
                };
                bytes(&[word])
            }
            93 => bytes(&[asm::bare(Opcode::FenceI)]),
            _ => self.compute(),
        })
    }
}
