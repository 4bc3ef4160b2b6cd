//! Floating point of the generated code against that of the interpreter, which computes with integers: every instruction,
//! in every rounding mode, on operands from the corners and at random; and programs of them at random.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))] // Elsewhere there is no backend: every engine is the interpreter.

mod harness;

use frontend::Opcode;
use frontend::encode::{Operands, encode};
use frontend::insn::{ROWS, Row};
use frontend::operand::Operand;
use jit::context::mstatus;
use jit::{Engine, EngineKind, Exit, Hart as _};
use machine::Machine;
use machine::hart::Hart;

use harness::random::Random;

/// Where programs are, each in a block of its own.
const CODE: u64 = harness::RAM + 0x1_0000;
const DATA: u64 = harness::RAM + 0x10_0000;
/// Bytes before and after what base registers point to.
const BEFORE: u64 = 256;
const WINDOW: usize = 512;
/// Programs are started at multiples of this.
const SPACING: u64 = 0x200;
/// An address where there is no memory.
const NOWHERE: u64 = 0x10;
/// How many programs there are room for before the code is reused.
const PROGRAMS: u64 = 256;
const EBREAK: u32 = 0x0010_0073;
const FS_CLEAN: u64 = 2 << 13;

/// Base registers of accesses: one that lives in a host register, one that does not.
const BASES: [u8; 2] = [15, 28];

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[rustfmt::skip]
const DOUBLES: &[u64] = &[
    0, 1, 2, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x0010_0000_0000_0001, 0x001f_ffff_ffff_ffff,
    0x3ca0_0000_0000_0000, 0x3cb0_0000_0000_0000, 0x3fe0_0000_0000_0000, 0x3fdf_ffff_ffff_ffff, 0x3fe0_0000_0000_0001,
    0x3fef_ffff_ffff_ffff, 0x3ff0_0000_0000_0000, 0x3ff0_0000_0000_0001, 0x3ff8_0000_0000_0000, 0x4004_0000_0000_0000,
    // Around the smallest normal single, and its smallest denormal one.
    0x3810_0000_0000_0000, 0x380f_ffff_f000_0000, 0x380f_ffff_e000_0000, 0x380f_ffff_efff_ffff, 0x36a0_0000_0000_0000,
    0x3690_0000_0000_0000, 0x3690_0000_0000_0001,
    // Around 2^31, 2^32, 2^63, 2^64.
    0x41df_ffff_ffc0_0000, 0x41df_ffff_ffe0_0000, 0x41df_ffff_fff0_0000, 0x41e0_0000_0000_0000, 0x41e0_0000_0000_1000,
    0x41e0_0000_0010_0000, 0x41e0_0000_0020_0000, 0x41ef_ffff_ffe0_0000, 0x41ef_ffff_fff0_0000, 0x41ef_ffff_fff8_0000,
    0x41f0_0000_0000_0000, 0x43df_ffff_ffff_ffff, 0x43e0_0000_0000_0000, 0x43e0_0000_0000_0001, 0x43ef_ffff_ffff_ffff,
    0x43f0_0000_0000_0000, 0x4330_0000_0000_0001, 0x4320_0000_0000_0001,
    // Around the largest single.
    0x47ef_ffff_e000_0000, 0x47ef_ffff_efff_ffff, 0x47ef_ffff_f000_0000, 0x47f0_0000_0000_0000,
    0x7fe0_0000_0000_0000, 0x7fef_ffff_ffff_ffff, 0x7ff0_0000_0000_0000,
    0x7ff0_0000_0000_0001, 0x7ff7_ffff_ffff_ffff, 0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0001, 0x7fff_ffff_ffff_ffff,
];

#[rustfmt::skip]
const SINGLES: &[u32] = &[
    0, 1, 2, 0x007f_ffff, 0x0080_0000, 0x0080_0001, 0x00ff_ffff, 0x3300_0000, 0x3380_0000, 0x3eff_ffff, 0x3f00_0000,
    0x3f00_0001, 0x3f7f_ffff, 0x3f80_0000, 0x3f80_0001, 0x3fc0_0000, 0x4020_0000, 0x4b00_0001, 0x4b80_0001,
    0x4eff_ffff, 0x4f00_0000, 0x4f00_0001, 0x4f7f_ffff, 0x4f80_0000, 0x5eff_ffff, 0x5f00_0000, 0x5f00_0001,
    0x5f7f_ffff, 0x5f80_0000, 0x7f00_0000, 0x7f7f_ffff, 0x7f80_0000,
    0x7f80_0001, 0x7fbf_ffff, 0x7fc0_0000, 0x7fc0_0001, 0x7fff_ffff,
];

#[rustfmt::skip]
const HALVES: &[u16] = &[0, 1, 0x03ff, 0x0400, 0x3800, 0x3c00, 0x3e00, 0x7bff, 0x7c00, 0x7c01, 0x7e00, 0x7fff];

#[rustfmt::skip]
const INTEGERS: &[u64] = &[
    0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000,
    0x8000_0000_0000_0001, u64::MAX, 0xffff_ffff_8000_0000, 0x00ff_ffff, 0x0100_0001, 0x20_0000_0000_0001,
    0x7fff_ffff_ffff_fdff, 0x7fff_ffff_ffff_fe00, 0xffff_ffff_ffff_fbff, 0xffff_ffff_ffff_fc00,
];

/// A boxed or unboxed number for an `f` register; mostly of the format that instructions with this suffix read.
fn f_operand(random: &mut Random, suffix: char) -> u64 {
    let kind = match random.below(16) {
        0 => 'd',
        1 => 's',
        2 => 'x',
        _ => suffix,
    };
    let sign = random.next() & 1;
    let bits = random.next();
    match (kind, random.below(4)) {
        ('d', 0) => sign << 63 | (0x3f0 + bits % 0x40) << 52 | bits >> 12,
        ('d', 1) => bits,
        ('d', _) => sign << 63 | random.pick(DOUBLES),
        ('s', 0) => 0xffff_ffff_0000_0000 | sign << 31 | (0x70 + bits % 0x30) << 23 | bits >> 41,
        ('s', 1) => 0xffff_ffff_0000_0000 | bits >> 32,
        ('s', _) => 0xffff_ffff_0000_0000 | sign << 31 | u64::from(random.pick(SINGLES)),
        // A single without its box, or with a damaged one.
        ('x', 0) => u64::from(random.pick(SINGLES)),
        ('x', _) => 0xffff_ffff_0000_0000 ^ 1 << (32 + bits % 32) | u64::from(random.pick(SINGLES)),
        (_, 0) => 0xffff_ffff_ffff_0000 | bits >> 48,
        (_, _) => 0xffff_ffff_ffff_0000 | sign << 15 | u64::from(random.pick(HALVES)),
    }
}

fn x_operand(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.next(),
        1 => random.next() >> random.below(64),
        _ => random.pick(INTEGERS),
    }
}

#[derive(Clone, PartialEq, Debug)]
struct State {
    x: [u64; 32],
    f: [u64; 32],
    fflags: u8,
    frm: u8,
    fs: u64,
    /// Address of the memory that accesses reach.
    window: u64,
    memory: Vec<u8>,
}

/// How a program ended, and where.
#[derive(PartialEq, Debug)]
struct End {
    exit: Exit,
    pc: u64,
    retired: u64,
}

struct Bench {
    machine: Machine,
    hart: Hart,
    engine: Engine,
}

impl Bench {
    fn new(name: &str, kind: EngineKind) -> Bench {
        let (machine, hart, engine) = harness::hart("max", &format!("floating-point-{name}"), kind);
        Bench { machine, hart, engine }
    }

    fn write(&mut self, at: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().chain(&[EBREAK]).flat_map(|word| word.to_le_bytes()).collect();
        self.machine.memory().write(at, &bytes).expect("RAM");
        self.engine.fence_i(self.hart.mmu());
    }

    fn run(&mut self, at: u64, before: &State) -> (State, End) {
        self.machine.memory().write(before.window, &before.memory).expect("RAM");
        let now = self.hart.state();
        now.x[..32].copy_from_slice(&before.x);
        now.f = before.f;
        (now.fflags, now.frm) = (before.fflags, before.frm);
        now.mstatus = now.mstatus & !mstatus::FS | before.fs;
        now.pc = at;
        let retired = now.instret;
        let exit = loop {
            self.machine.hart_shared(0).expect("hart 0 is there").take_poll();
            match self.engine.run(&mut self.hart) {
                Exit::Poll => {}
                exit => break exit,
            }
        };
        let mut memory = vec![0; before.memory.len()];
        self.machine.memory().read(before.window, &mut memory).expect("RAM");
        let now = self.hart.state();
        let mut x = [0; 32];
        x.copy_from_slice(&now.x[..32]);
        let (f, fflags, frm, fs) = (now.f, now.fflags, now.frm, now.mstatus & mstatus::FS);
        let end = End { exit, pc: now.pc, retired: now.instret.wrapping_sub(retired) };
        (State { x, f, fflags, frm, fs, window: before.window, memory }, end)
    }
}

/// What the two engines disagree about.
fn differences(interpreted: &State, native: &State) -> String {
    let mut text = String::new();
    for n in 0..32 {
        if interpreted.x[n] != native.x[n] {
            text += &format!(" x{n}: {:x}, native {:x};", interpreted.x[n], native.x[n]);
        }
        if interpreted.f[n] != native.f[n] {
            text += &format!(" f{n}: {:x}, native {:x};", interpreted.f[n], native.f[n]);
        }
    }
    if interpreted.memory != native.memory {
        text += " memory;";
    }
    let rest = |s: &State| format!("fflags {:x}, frm {}, FS {:x}", s.fflags, s.frm, s.fs);
    text + &format!(" {}, native {}", rest(interpreted), rest(native))
}

struct Pair {
    interpreter: Bench,
    native: Bench,
    programs: u64,
    cases: u64,
}

impl Pair {
    fn new(name: &str) -> Pair {
        Pair {
            interpreter: Bench::new(&format!("interpreter-{name}"), EngineKind::Interp),
            native: Bench::new(&format!("native-{name}"), EngineKind::Eager),
            programs: 0,
            cases: 0,
        }
    }

    fn write(&mut self, words: &[u32]) -> u64 {
        assert!(4 * words.len() < SPACING as usize);
        let at = CODE + self.programs % PROGRAMS * SPACING;
        self.programs += 1;
        self.interpreter.write(at, words);
        self.native.write(at, words);
        at
    }

    /// Runs a program on both; returns what the interpreter made of it.
    fn compare(&mut self, at: u64, before: &State, what: impl FnOnce() -> String) -> State {
        self.cases += 1;
        let (interpreted, interpreted_end) = self.interpreter.run(at, before);
        let (native, native_end) = self.native.run(at, before);
        if interpreted != native || interpreted_end != native_end {
            let sources: Vec<String> = (0..32).map(|n| format!("f{n}={:x}", before.f[n])).collect();
            panic!(
                "{}\nfrm {}, {sources:x?}\nx {:x?}\n{}\n{interpreted_end:x?}, native {native_end:x?}",
                what(),
                before.frm,
                before.x,
                differences(&interpreted, &native),
            );
        }
        interpreted
    }
}

fn is_float(row: &Row) -> bool {
    row.operands.iter().any(|operand| matches!(operand, Operand::Fd | Operand::Fs1 | Operand::Fs2))
}

fn float_rows() -> Vec<&'static Row> {
    let rows: Vec<_> = ROWS.iter().filter(|row| is_float(row)).collect();
    assert!(rows.len() >= 118, "{} rows", rows.len());
    rows
}

fn has(row: &Row, operand: Operand) -> bool {
    row.operands.contains(&operand)
}

/// The format of the sources, as it shows in the name.
fn suffix(row: &Row) -> char {
    row.mnemonic.chars().rfind(|letter| "shd".contains(*letter)).unwrap_or('d')
}

fn state(random: &mut Random, suffix: char, frm: u8) -> State {
    let mut x: [u64; 32] = std::array::from_fn(|_| x_operand(random));
    x[0] = 0;
    // Far from the edge of a page, or on it.
    let base = DATA + random.pick(&[0x800, 0x800, 0x800, 0x1000]);
    BASES.iter().for_each(|&reg| x[usize::from(reg)] = base);
    let memory = (0..WINDOW / 8).flat_map(|_| f_operand(random, suffix).to_le_bytes()).collect();
    State {
        x,
        f: std::array::from_fn(|_| f_operand(random, suffix)),
        fflags: if random.below(4) == 0 { random.next() as u8 & 31 } else { 0 },
        frm,
        fs: FS_CLEAN,
        window: base - BEFORE,
        memory,
    }
}

/// Registers: some live in host registers, some do not, some are the same.
#[rustfmt::skip]
const PLACES: [Operands; 8] = [
    Operands { rd: 10, rs1: 11, rs2: 12, rs3: 13, rm: 0, imm: 0 },
    Operands { rd: 10, rs1: 10, rs2: 11, rs3: 12, rm: 0, imm: 0 },
    Operands { rd: 10, rs1: 11, rs2: 10, rs3: 10, rm: 0, imm: 0 },
    Operands { rd: 3, rs1: 28, rs2: 1, rs3: 29, rm: 0, imm: 0 },
    Operands { rd: 29, rs1: 17, rs2: 30, rs3: 2, rm: 0, imm: 0 },
    Operands { rd: 31, rs1: 30, rs2: 29, rs3: 31, rm: 0, imm: 0 },
    Operands { rd: 0, rs1: 0, rs2: 0, rs3: 28, rm: 0, imm: 0 },
    Operands { rd: 9, rs1: 8, rs2: 8, rs3: 9, rm: 0, imm: 0 },
];

/// Every instruction, every rounding mode, in every place.
#[test]
fn every_instruction_is_exact() {
    /// Rounding mode of the instruction, `frm`.
    const MODES: [(u8, u8); 15] = [
        (7, 0),
        (7, 1),
        (7, 2),
        (7, 3),
        (7, 4),
        (7, 5),
        (0, 0),
        (0, 3),
        (1, 1),
        (1, 0),
        (2, 2),
        (2, 1),
        (3, 3),
        (3, 0),
        (4, 0),
    ];

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut pair = Pair::new("single");
    for row in float_rows() {
        let rounds = has(row, Operand::Rm) || has(row, Operand::RmExact);
        let modes = if rounds { &MODES[..] } else { &[(0, 0), (0, 3)] };
        for &(rm, frm) in modes {
            for place in PLACES {
                let mut operands = Operands { rm, ..place };
                if row.operands.iter().any(|operand| matches!(operand, Operand::Offset(_))) {
                    operands.rs1 = random.pick(&BASES);
                    operands.imm = 8 * random.below(4) as i64;
                } else if matches!(row.operands, [Operand::Fd, Operand::Immediate(_)]) {
                    operands.imm = random.below(32) as i64;
                }
                // fcvtmod.w.d knows one rounding mode only.
                let Some(word) = encode(row.op, &operands) else { continue };
                let at = pair.write(&[word]);
                for _ in 0..40 {
                    let before = state(&mut random, suffix(row), frm);
                    pair.compare(at, &before, || format!("{} {word:08x} {operands:?}", row.mnemonic));
                }
            }
        }
    }
    assert_eq!(pair.cases, 337_600);
}

fn random_insn(random: &mut Random, rows: &[&'static Row]) -> u32 {
    if random.below(16) == 0 {
        // The base of later accesses, seldom by so much that they leave the window.
        let imm = random.below(17) as i64 - 8;
        return harness::asm::i(Opcode::Addi, random.pick(&BASES), random.pick(&BASES), imm);
    }
    const F: [u8; 8] = [8, 10, 11, 12, 0, 28, 29, 20];
    const X: [u8; 5] = [10, 11, 8, 20, 29];
    let row = random.pick(rows);
    let of_file = |random: &mut Random, f: Operand| random.pick(if has(row, f) { &F[..] } else { &X });
    let rm = match random.below(8) {
        _ if row.op == Opcode::FcvtmodWD => 1,
        0 => random.below(5) as u8,
        1 => 1,
        _ => 7,
    };
    let mut operands = Operands {
        rd: of_file(random, Operand::Fd),
        rs1: of_file(random, Operand::Fs1),
        rs2: of_file(random, Operand::Fs2),
        rs3: random.pick(&F),
        rm,
        imm: 0,
    };
    if row.operands.iter().any(|operand| matches!(operand, Operand::Offset(_))) {
        operands.rs1 = random.pick(&BASES);
        operands.imm = random.below(48) as i64 - 32;
    } else if matches!(row.operands, [Operand::Fd, Operand::Immediate(_)]) {
        operands.imm = random.below(32) as i64;
    }
    harness::asm::insn(row.op, operands)
}

/// Rows for programs: those of one format, which share values, or all.
fn family(rows: &[&'static Row], suffix: Option<char>) -> Vec<&'static Row> {
    let mut family: Vec<&'static Row> = rows
        .iter()
        .copied()
        .filter(|row| suffix.is_none_or(|suffix| row.mnemonic.ends_with(&format!(".{suffix}"))))
        .collect();
    let more: &[Opcode] = match suffix {
        Some('s') => &[Opcode::Flw, Opcode::Fsw, Opcode::Flw, Opcode::Fsw, Opcode::FcvtDS, Opcode::Fld],
        Some('d') => &[Opcode::Fld, Opcode::Fsd, Opcode::Fld, Opcode::Fsd, Opcode::FcvtSD],
        _ => &[Opcode::Fld, Opcode::Fsd, Opcode::Flw, Opcode::Fsw],
    };
    family.extend(more.iter().map(|op| op.row()));
    family.extend([Opcode::Ld, Opcode::Sw, Opcode::Add, Opcode::Xor, Opcode::Mulhu].map(Opcode::row));
    family
}

#[test]
fn programs_are_exact() {
    let rows = float_rows();
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let mut pair = Pair::new("program");
    for (suffix, of) in [(Some('d'), 'd'), (Some('s'), 's'), (None, 's'), (None, 'd')] {
        let family = family(&rows, suffix);
        for _ in 0..2500 {
            let length = 2 + random.below(24);
            let mut words: Vec<u32> = (0..length).map(|_| random_insn(&mut random, &family)).collect();
            if random.below(4) == 0 {
                let at = random.below(words.len());
                let csr = frontend::csr_name::number::FFLAGS;
                words.insert(
                    at,
                    random.pick(&[harness::asm::csrr(20, csr), harness::asm::csrw(csr, 0), 0x0ff0_000f]),
                );
            }
            let at = pair.write(&words);
            for _ in 0..8 {
                let frm = random.pick(&[0, 0, 0, 1, 2, 3, 4]);
                let mut before = state(&mut random, of, frm);
                before.fs = random.pick(&[FS_CLEAN, FS_CLEAN, mstatus::FS, 0]);
                if random.below(16) == 0 {
                    before.x[usize::from(random.pick(&BASES))] = NOWHERE;
                }
                pair.compare(at, &before, || format!("{words:08x?}"));
            }
        }
    }
    assert_eq!(pair.cases, 80_000);
}

/// A number whose product with another of its kind is, with luck, just below the smallest normal one: some such products underflow
/// before they are rounded, but not after.
fn edge_operand(random: &mut Random, suffix: char) -> u64 {
    let (ulps, kind) = (random.next() & 3, random.below(8));
    let sign = u64::from(random.below(4) == 0);
    if suffix == 'd' {
        let number = match kind {
            0..3 => 0x0010_0000_0000_0000 + ulps,
            3..6 => 0x3ff0_0000_0000_0000 - ulps,
            6 => random.pick(&[0, 1, 0x3ff0_0000_0000_0001, 0x3fe0_0000_0000_0000, 0x4000_0000_0000_0000]),
            // Of which a single is made.
            _ => 0x3810_0000_0000_0000 - (ulps << random.pick(&[26, 27, 28])),
        };
        return sign << 63 | number;
    }
    let number = match kind {
        0..4 => 0x0080_0000 + ulps,
        4..7 => 0x3f80_0000 - ulps,
        _ => random.pick(&[0, 1, 0x3f80_0001, 0x3f00_0000, 0x4000_0000]),
    };
    0xffff_ffff_0000_0000 | sign << 31 | number
}

#[test]
fn underflow_is_exact_wherever_it_is_looked_at() {
    use Opcode::{
        FaddD, FaddS, FcvtSD, FdivD, FdivS, Fld, Flw, FmaddD, FmaddS, FmaxD, FminS, FmsubD, FmsubS, FmulD,
        FmulS, FnmaddD, FnmsubD, FnmsubS, Fsd, FsgnjnD, FsqrtD, Fsw,
    };
    const DOUBLES: &[Opcode] = &[
        FmulD, FmulD, FmulD, FmaddD, FmsubD, FnmsubD, FnmaddD, FdivD, FcvtSD, FaddD, FmaxD, FsgnjnD, FsqrtD,
        Fld, Fld, Fsd,
    ];
    const SINGLES: &[Opcode] =
        &[FmulS, FmulS, FmulS, FmaddS, FmsubS, FnmsubS, FdivS, FaddS, FminS, Flw, Flw, Fsw];
    const F: [u8; 6] = [8, 10, 11, 12, 28, 29];
    let mut random = Random(0xa076_1d64_78bd_642f);
    let mut pair = Pair::new("underflow");
    // How often underflow was raised, and how often it was not although a result is the smallest normal number.
    let (mut raised, mut spared) = (0, 0);
    for (suffix, rows) in [('d', DOUBLES), ('s', SINGLES)] {
        for _ in 0..3000 {
            let length = 1 + random.below(20);
            let mut words = Vec::new();
            for _ in 0..length {
                let op = random.pick(rows);
                let is_access = matches!(op, Fld | Flw | Fsd | Fsw);
                let rm = if random.below(16) == 0 { random.below(4) as u8 } else { 7 };
                let operands = Operands {
                    rd: random.pick(&F),
                    rs1: random.pick(if is_access { &BASES } else { &F }),
                    rs2: random.pick(&F),
                    rs3: random.pick(&F),
                    rm,
                    imm: if is_access { random.below(48) as i64 * 4 - 64 } else { 0 },
                };
                words.push(harness::asm::insn(op, operands));
            }
            let at = pair.write(&words);
            for _ in 0..6 {
                let frm = random.pick(&[0, 0, 1, 2, 3]);
                let mut before = state(&mut random, suffix, frm);
                before.fflags &= !2;
                before.f = std::array::from_fn(|_| edge_operand(&mut random, suffix));
                let memory = (0..WINDOW / 8).flat_map(|_| edge_operand(&mut random, suffix).to_le_bytes());
                before.memory = memory.collect();
                let after = pair.compare(at, &before, || format!("{words:08x?}"));
                raised += u64::from(after.fflags & 2 != 0);
                let is_smallest = |f: u64| [0x0010_0000_0000_0000, 0xffff_ffff_0080_0000].contains(&f);
                let is_new =
                    |&n: &u8| is_smallest(after.f[usize::from(n)]) && !is_smallest(before.f[usize::from(n)]);
                spared += u64::from(after.fflags & 3 == 1 && F.iter().any(is_new));
            }
        }
    }
    assert!(raised > 5000 && spared > 500, "{raised} {spared} of {}", pair.cases);
}
