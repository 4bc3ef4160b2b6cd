//! Runs the instruction vectors of `tests/isa` on every engine: what single user-level instructions do to registers and
//! memory. The format is described in `tests/isa/README.md`.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use frontend::csr_name::number as csr;
use frontend::insn::ROWS;
use frontend::insn_c::ROWS_C;
use jit::{Engine, EngineKind, Exit, Hart as _};
use machine::Machine;
use machine::hart::Hart;
use softmmu::{Privilege, Reservation};

/// For each engine a module with a test for each file of vectors.
macro_rules! tests {
    ($files:tt $($(#[$attribute:meta])* $engine:ident = $kind:expr;)*) => {
        $($(#[$attribute])* mod $engine {
            use super::*;
            tests!(@files $engine $kind; $files);
        })*
    };
    (@files $engine:ident $kind:expr; [$($file:ident)*]) => {
        $(#[test]
        fn $file() {
            let mut bench = Bench::new(concat!(stringify!($engine), "-", stringify!($file)), $kind);
            bench.run_file(stringify!($file));
        })*
    };
}

macro_rules! all_files {
    ($($file:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($file)),*];
        tests! { [$($file)*]
            interpreter = EngineKind::Interp;
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            native = EngineKind::Eager;
        }
    };
}

all_files! {
    illegal rv64a rv64c rv64d rv64f rv64i rv64m zabha zacas zawrs zba zbb zbc zbs zcb zcmop zfa zfh zicbo zicond zicsr
    zimop
}

/// Cases in all files together.
const CASES: usize = 13_431;
/// Size of the window, and its byte where a case says nothing.
const WINDOW: usize = 256;
const FILL: u8 = 0xa5;
/// Every page of code is full of `c.ebreak`.
const STOP: [u8; 2] = 0x9002_u16.to_le_bytes();
const PAGE: usize = 4096;
/// What user mode may execute, and what it may load and store.
const CODE: u64 = harness::RAM + 0x10_0000;
const DATA: u64 = harness::RAM + 0x20_0000;
const REGION: u64 = 0x1_0000;
/// Failed cases to print of a file.
const SHOWN: usize = 20;

/// Where a case is run, and which numbers fill the registers that it does not name.
struct Place {
    name: &'static str,
    pc: u64,
    window: u64,
    seed: u64,
    /// The registers that the case names are set by instructions before it, in the same block, so that an engine that
    /// computes with what it knows has something to know.
    constants: bool,
}

const PLACES: [Place; 3] = [
    Place {
        name: "inside a page",
        pc: CODE + 0x804,
        window: DATA + 0x300,
        seed: 0x9e37_79b9_7f4a_7c15,
        constants: false,
    },
    Place {
        name: "across an edge",
        pc: CODE + 0x4ffe,
        window: DATA + 0x5f00,
        seed: 0xd1b5_4a32_d192_ed03,
        constants: false,
    },
    Place {
        name: "with constants",
        pc: CODE + 0x8806,
        window: DATA + 0x8000,
        seed: 0xa24b_aed4_963e_e407,
        constants: true,
    },
];

/// Numbers that the address of the window or of the code may be part of.
#[derive(Clone, Copy)]
enum Value {
    Plain(u64),
    Window(u64),
    Pc(u64),
}

impl Value {
    fn parse(text: &str) -> Value {
        let (kind, digits): (fn(u64) -> Value, _) = match (text.strip_prefix('@'), text.strip_prefix("pc")) {
            (Some(rest), _) => (Value::Window, rest),
            (_, Some(rest)) => (Value::Pc, rest),
            _ => return Value::Plain(hex(text)),
        };
        match digits.split_at(1) {
            ("+", digits) => kind(hex(digits)),
            ("-", digits) => kind(hex(digits).wrapping_neg()),
            _ => panic!("no sign in {text}"),
        }
    }

    fn at(self, place: &Place) -> u64 {
        match self {
            Value::Plain(value) => value,
            Value::Window(offset) => place.window.wrapping_add(offset),
            Value::Pc(offset) => place.pc.wrapping_add(offset),
        }
    }
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// One side of a case.
#[derive(Default)]
struct Fields {
    x: Vec<(usize, Value)>,
    f: Vec<(usize, Value)>,
    fcsr: Option<u64>,
    memory: Vec<(usize, Vec<u8>)>,
    pc: Option<Value>,
    trap: Option<u64>,
}

impl Fields {
    fn parse<'a>(fields: impl Iterator<Item = &'a str>) -> Fields {
        let mut parsed = Fields::default();
        for field in fields {
            let (name, value) = field.split_once('=').unwrap_or_else(|| panic!("no = in {field}"));
            if let Some(offset) = name.strip_prefix('@') {
                let bytes = value.as_bytes().chunks(2).map(|pair| {
                    u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("two digits a byte")
                });
                parsed.memory.push((hex(offset) as usize, bytes.collect()));
            } else if let Some(number) = number_of(X_NAMES, name) {
                parsed.x.push((number, Value::parse(value)));
            } else if let Some(number) = number_of(F_NAMES, name) {
                parsed.f.push((number, Value::parse(value)));
            } else {
                match name {
                    "fcsr" => parsed.fcsr = Some(hex(value)),
                    "pc" => parsed.pc = Some(Value::parse(value)),
                    "trap" => parsed.trap = Some(value.parse().expect("a decimal number")),
                    _ => panic!("no register is called {name}"),
                }
            }
        }
        parsed
    }
}

const X_NAMES: &str =
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6";
const F_NAMES: &str = "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 \
                       fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11";

fn number_of(names: &str, name: &str) -> Option<usize> {
    names.split_whitespace().position(|known| known == name)
}

fn register_name(names: &str, number: usize) -> &str {
    names.split_whitespace().nth(number).expect("32 names")
}

/// A line of a file.
struct Case {
    words: u64,
    code: Vec<u8>,
    before: Fields,
    after: Fields,
}

impl Case {
    fn parse(line: &str) -> Case {
        let (before, after) = line.split_once(" ->").expect("an arrow");
        let mut before = before.split(' ').skip(1);
        let words: Vec<&str> = before.next().expect("words").split('+').collect();
        let bytes = |word: &&str| hex(word).to_le_bytes()[..word.len() / 2].to_vec();
        Case {
            words: words.len() as u64,
            code: words.iter().flat_map(bytes).collect(),
            before: Fields::parse(before),
            after: Fields::parse(after.split_whitespace()),
        }
    }
}

/// What a case can change.
#[derive(Clone, PartialEq)]
struct State {
    x: [u64; 32],
    f: [u64; 32],
    fcsr: u64,
    /// The page that the window is in.
    memory: Vec<u8>,
    pc: u64,
}

impl State {
    /// A different number in every register, and the address of the first word in pc.
    fn unnamed(place: &Place) -> State {
        let number = |n: usize| (n as u64 + 1).wrapping_mul(place.seed);
        let mut x = std::array::from_fn(number);
        x[0] = 0;
        let f = std::array::from_fn(|n| number(n + 32));
        State { x, f, fcsr: 0, memory: vec![FILL; PAGE], pc: place.pc }
    }

    fn with(mut self, fields: &Fields, place: &Place) -> State {
        for &(number, value) in &fields.x {
            self.x[number] = value.at(place);
        }
        for &(number, value) in &fields.f {
            self.f[number] = value.at(place);
        }
        self.fcsr = fields.fcsr.unwrap_or(self.fcsr);
        let window = place.window as usize % PAGE;
        for (offset, bytes) in &fields.memory {
            assert!(offset + bytes.len() <= WINDOW);
            self.memory[window + offset..][..bytes.len()].copy_from_slice(bytes);
        }
        self.pc = fields.pc.map_or(self.pc, |pc| pc.at(place));
        self
    }

    /// What is not as in `want`; empty if nothing.
    fn difference(&self, want: &State) -> String {
        let mut text = String::new();
        let mut compare = |name: &str, got: u64, want: u64| {
            if got != want {
                let _ = write!(text, " {name}={got:x} instead of {want:x}");
            }
        };
        for n in 0..32 {
            compare(register_name(X_NAMES, n), self.x[n], want.x[n]);
            compare(register_name(F_NAMES, n), self.f[n], want.f[n]);
        }
        compare("fcsr", self.fcsr, want.fcsr);
        compare("pc", self.pc, want.pc);
        for (n, (&got, &want)) in self.memory.iter().zip(&want.memory).enumerate() {
            compare(&format!("byte {n:x} of the page"), got.into(), want.into());
        }
        text
    }
}

struct Bench {
    machine: Machine,
    hart: Hart,
    engine: Engine,
}

impl Bench {
    fn new(name: &str, kind: EngineKind) -> Bench {
        let (machine, mut hart, engine) = harness::hart("max", &format!("vectors-{name}"), kind);
        let napot = |base: u64| base >> 2 | (REGION / 8 - 1);
        for (register, value) in [
            (csr::PMPADDR0, napot(CODE)),
            (csr::PMPADDR0 + 1, napot(DATA)),
            // NAPOT: execute and read; read and write.
            (csr::PMPCFG0, 0x1b_1d),
            (csr::MENVCFG, u64::MAX),
            (csr::SENVCFG, u64::MAX),
        ] {
            hart.set_csr(register, value).expect("the CSR is there");
        }
        hart.set_privilege(Privilege::User);
        let code: Vec<u8> = STOP.repeat(REGION as usize / 2);
        machine.memory().write(CODE, &code).expect("RAM");
        Bench { machine, hart, engine }
    }

    fn run_file(&mut self, file: &str) {
        let text = read(file);
        let mut failed = 0;
        let mut report = String::new();
        for line in cases(&text) {
            let case = Case::parse(line);
            for place in &PLACES {
                let difference = self.run_case(&case, place);
                if !difference.is_empty() {
                    failed += 1;
                    if failed <= SHOWN {
                        let _ = writeln!(report, "{line}\n    {}:{difference}", place.name);
                    }
                }
            }
        }
        assert!(failed == 0, "{file}: {failed} failures, the first of them\n{report}");
    }

    /// Runs a case and says what is wrong; nothing if it is right.
    fn run_case(&mut self, case: &Case, place: &Place) -> String {
        let before = State::unnamed(place).with(&case.before, place);
        let mut want = before.clone();
        if case.after.trap.is_none() {
            want.pc += case.code.len() as u64;
        }
        let want = want.with(&case.after, place);

        let constants = if place.constants { constants(&case.before, place) } else { Vec::new() };
        let start = place.pc - constants.len() as u64;
        if (start..place.pc).contains(&want.pc) {
            // The case would run again and again.
            return String::new();
        }
        let code = [constants.as_slice(), &case.code].concat();
        self.write(start, &code);
        self.set(&before, place);
        if place.constants {
            let now = self.hart.state();
            case.before.x.iter().for_each(|&(number, _)| now.x[number] = !before.x[number]);
            now.pc = start;
        }
        let retired = self.hart.state().instret + constants.len() as u64 / 4;
        let exit = self.engine.run(&mut self.hart);
        let retired = self.hart.state().instret.wrapping_sub(retired);
        let after = self.get(place);
        self.write(start, &STOP.repeat(code.len() / 2));

        let mut wrong = after.difference(&want);
        if let Some(cause) = case.after.trap {
            if !matches!(exit, Exit::Trap(trap) if trap.cause == cause) || retired != 0 {
                let _ = write!(wrong, " {exit:?} after {retired} instructions");
            }
        } else if retired != case.words {
            let _ = write!(wrong, " {exit:?} after {retired} instructions");
        }
        let fp_changed = (after.f, after.fcsr) != (before.f, before.fcsr);
        if fp_changed && self.hart.state().mstatus & jit::context::mstatus::FS != jit::context::mstatus::FS {
            wrong += " FS is not Dirty";
        }
        wrong
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.machine.memory().write(address, bytes).expect("RAM");
    }

    fn set(&mut self, state: &State, place: &Place) {
        const CLEAN: u64 = 2 << 13;

        self.write(place.window & !(PAGE as u64 - 1), &state.memory);
        let now = self.hart.state();
        now.x[..32].copy_from_slice(&state.x);
        now.f = state.f;
        now.fflags = state.fcsr as u8 & 0x1f;
        now.frm = (state.fcsr >> 5) as u8;
        now.pc = state.pc;
        now.reservation = Reservation::default();
        now.mstatus = now.mstatus & !jit::context::mstatus::FS | CLEAN;
        self.engine.fence_i(self.hart.mmu());
        self.machine.hart_shared(0).expect("hart 0 is there").take_poll();
    }

    fn get(&mut self, place: &Place) -> State {
        let mut memory = vec![0; PAGE];
        self.machine.memory().read(place.window & !(PAGE as u64 - 1), &mut memory).expect("RAM");
        let now = self.hart.state();
        let mut x = [0; 32];
        x.copy_from_slice(&now.x[..32]);
        State { x, f: now.f, fcsr: u64::from(now.fflags) | u64::from(now.frm) << 5, memory, pc: now.pc }
    }
}

/// Code that sets the integer registers that a case names.
fn constants(before: &Fields, place: &Place) -> Vec<u8> {
    let words = before.x.iter().flat_map(|&(number, value)| {
        let value = value.at(place) as i64;
        harness::asm::li_64(number as u8, value)
    });
    words.flat_map(u32::to_le_bytes).collect()
}

fn read(file: &str) -> String {
    let path = format!("{}/tests/isa/vectors/{file}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cases(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn every_file_is_run_and_complete() {
    let directory = format!("{}/tests/isa/vectors", env!("CARGO_MANIFEST_DIR"));
    let found: BTreeSet<String> = std::fs::read_dir(&directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    let run: BTreeSet<String> = FILES.iter().map(|file| format!("{file}.txt")).collect();
    assert_eq!(found, run);
    let counts: BTreeMap<&str, usize> =
        FILES.iter().map(|&file| (file, cases(&read(file)).count())).collect();
    assert_eq!(counts.values().sum::<usize>(), CASES, "{counts:?}");
}

#[test]
fn the_runner_notices_what_is_wrong() {
    let mut bench = Bench::new("runner", EngineKind::Eager);
    let mut differs = |line| !bench.run_case(&Case::parse(line), &PLACES[1]).is_empty();
    assert!(!differs("add 00b50533 a0=5 a1=7 -> a0=c"));
    for wrong in [
        "add 00b50533 a0=5 a1=7 -> a0=d",
        "add 00b50533 a0=5 a1=7 ->",
        "add 00b50533 a0=5 a1=7 -> trap=2",
        "add 00b50533 a0=5 a1=7 -> a0=c pc=pc+8",
        "ebreak 00100073 ->",
        "ebreak 00100073 -> trap=2",
        "lr.w 1005252f a0=@+8 -> a0=ffffffffa5a5a5a5 @9=00",
        "sd 00b53023 a0=@+8 a1=7 ->",
        "fdiv.s 18c5f553 fa1=ffffffff3f800000 fa2=ffffffff00000000 -> fa0=ffffffff7f800000",
    ] {
        assert!(differs(wrong), "{wrong}");
    }
}

#[test]
fn every_instruction_is_in_a_vector_or_a_system_test() {
    /// Tables have one row for all numbers of these.
    const NUMBERED: [&str; 3] = ["mop.r", "mop.rr", "c.mop"];

    let mut tested: BTreeSet<String> = BTreeSet::new();
    for file in FILES {
        for line in cases(&read(file)) {
            let names = line.split(' ').next().expect("a name").split('+');
            tested.extend(names.map(|name| match name.rsplit_once('.') {
                Some((family, _)) if NUMBERED.contains(&family) => family.to_owned(),
                _ => name.to_owned(),
            }));
        }
    }
    for op in harness::SYSTEM_INSNS {
        assert!(tested.insert(op.mnemonic().into()), "{} is in a vector already", op.mnemonic());
    }
    let rows = ROWS.iter().map(|row| row.mnemonic).chain(ROWS_C.iter().map(|row| row.mnemonic));
    let missing: Vec<&str> = rows.filter(|&name| !tested.contains(name)).collect();
    assert!(missing.is_empty(), "without a test: {missing:?}");
}
