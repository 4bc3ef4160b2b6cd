//! What harts may see of each other's loads and stores: the litmus programs that memory models are told apart by, on generated code
//! (RISC-V volume I, chapter 17 and appendix A).
//!
//! Each program is run on fresh variables `HARTVM_LITMUS_ROUNDS` times (a million if unset), its threads at about the same time on
//! harts of their own. What the model forbids must never be seen. `--nocapture` shows what was.

mod harness;

use std::time::Duration;

use frontend::Opcode::{
    self, Add, Addi, AmoaddW, AmoorW, AmoswapW, Beq, Blt, Bne, Fence, Lbu, LrW, Lw, Or, Pause, ScW, Sd, Slli,
    Sw, Xor,
};
use frontend::csr_name::number as csr;
use frontend::encode::Operands;
use harness::asm::{self, A0, A1, A2, A3, T0, T1, ZERO};
use jit::EngineKind;
use machine::devices::sifive_test::PowerEvent;

/// Pairs of variables that a batch of rounds goes through, and the bytes of each.
const PAIRS: i64 = 4096;
const PAIR: i64 = 128;
/// The second variable of a pair is in a cache line of its own.
const SECOND: i64 = 64;

const VARIABLES: i64 = harness::RAM as i64 + 0x10_0000;
/// Two words for each hart and each pair.
const RESULTS: i64 = harness::RAM as i64 + 0x20_0000;
const RESULTS_OF_HART: i64 = PAIRS * 8;
/// How far each hart is.
const PROGRESS: i64 = harness::RAM as i64 + 0x30_0000;
const PROGRESS_OF_HART: i64 = 128;
const BARRIER: i64 = harness::RAM as i64 + 0x30_1000;
/// How often each outcome was seen: a word for each.
const OUTCOMES: i64 = harness::RAM as i64 + 0x30_2000;
/// How often a hart looks whether the others have come as far, before it goes on without them.
const PATIENCE: i64 = 200;

const S0: u8 = 8;
const S1: u8 = 9;
const S2: u8 = 18;
const S3: u8 = 19;
const S4: u8 = 20;
const S5: u8 = 21;
const S6: u8 = 22;
const T2: u8 = 7;
const T3: u8 = 28;
const ONE: u8 = 14;

#[derive(Clone, Copy)]
enum Variable {
    X,
    Y,
}
use Variable::{X, Y};

/// What a thread does, one after the other. Loads write the thread's first result, then its second; stores store 1.
#[derive(Clone, Copy)]
enum Step {
    Load(Variable),
    Store(Variable),
    /// Predecessor and successor sets, as the instruction has them: R is 2, W is 1; and 8 << 8 for `fence.tso`.
    Fence(i64),
    /// A swap with 1 whose result nobody wants; bits of `aq` and `rl`.
    Swap(Variable, u8),
    /// A load by an AMO that changes nothing.
    AmoLoad(Variable, u8),
    /// A load whose address depends on the result before.
    DependentLoad(Variable),
    /// A store whose value depends on the result before.
    DependentStore(Variable),
}
use Step::{AmoLoad, DependentLoad, DependentStore, Load, Store, Swap};

const R_R: i64 = 0x22;
const R_W: i64 = 0x21;
const R_RW: i64 = 0x23;
const W_W: i64 = 0x11;
const W_R: i64 = 0x12;
const RW_W: i64 = 0x31;
const RW_RW: i64 = 0x33;
const TSO: i64 = 8 << 8 | RW_RW;
const RL: u8 = 1;
const AQ: u8 = 2;
const AQRL: u8 = 3;

/// An outcome: two bits for each thread, the first result in the lower one. Those of `mask` are looked at.
#[derive(Clone, Copy)]
struct Outcome {
    mask: usize,
    value: usize,
}

/// Code with jumps to places that are not known yet.
#[derive(Default)]
struct Code {
    words: Vec<u32>,
    /// Forward branches that wait for their target: where, and the instruction for a distance.
    pending: Vec<(usize, Branch)>,
}

type Branch = (Opcode, u8, u8);

impl Code {
    fn add(&mut self, words: &[u32]) {
        self.words.extend_from_slice(words);
    }

    fn li(&mut self, rd: u8, value: i64) {
        self.add(&asm::li_64(rd, value));
    }

    fn here(&self) -> usize {
        self.words.len()
    }

    /// A branch to a place before.
    fn back(&mut self, (op, a, b): Branch, target: usize) {
        let distance = 4 * (target as i64 - self.here() as i64);
        self.add(&[asm::s(op, b, a, distance)]);
    }

    /// A branch to where [`Self::land`] is called.
    fn ahead(&mut self, branch: Branch) {
        self.pending.push((self.here(), branch));
        self.add(&[0]);
    }

    /// The target of the last branch ahead.
    fn land(&mut self) {
        let (at, (op, a, b)) = self.pending.pop().expect("a branch ahead");
        self.words[at] = asm::s(op, b, a, 4 * (self.here() - at) as i64);
    }

    /// All of `harts` harts come here before one goes on. s6 counts them.
    fn barrier(&mut self, harts: i64) {
        self.add(&[asm::i(Addi, S6, S6, harts)]);
        self.li(T2, BARRIER);
        self.add(&[amo(AmoaddW, ZERO, T2, ONE, AQRL)]);
        let again = self.here();
        // Those who are late may need this core of the host's.
        self.add(&[asm::bare(Pause), asm::i(Lw, T3, T2, 0)]);
        self.back((Blt, T3, S6), again);
        self.add(&[fence(RW_RW)]);
    }

    fn step(&mut self, step: Step, result: &mut u8) {
        let address = |variable| if matches!(variable, X) { T0 } else { T1 };
        let mut to = || {
            let reg = *result;
            *result = A3;
            reg
        };
        match step {
            Load(variable) => self.add(&[asm::i(Lw, to(), address(variable), 0)]),
            Store(variable) => self.add(&[asm::s(Sw, ONE, address(variable), 0)]),
            Step::Fence(sets) => self.add(&[fence(sets)]),
            Swap(variable, order) => self.add(&[amo(AmoswapW, ZERO, address(variable), ONE, order)]),
            AmoLoad(variable, order) => {
                self.add(&[amo(AmoorW, to(), address(variable), ZERO, order)]);
            }
            DependentLoad(variable) => self.add(&[
                asm::r(Xor, T2, A2, A2),
                asm::r(Add, T2, T2, address(variable)),
                asm::i(Lw, to(), T2, 0),
            ]),
            DependentStore(variable) => self.add(&[
                asm::r(Xor, T2, A2, A2),
                asm::r(Or, T2, T2, ONE),
                asm::s(Sw, T2, address(variable), 0),
            ]),
        }
    }

    /// One batch of a thread.
    fn batch(&mut self, hart: i64, harts: i64, steps: &[Step]) {
        self.li(S1, VARIABLES);
        self.li(S2, RESULTS + hart * RESULTS_OF_HART);
        self.li(S3, PROGRESS);
        self.li(S5, PAIRS);
        let round = self.here();
        // Together with the others, more or less.
        self.add(&[asm::s(Sw, S5, S3, hart * PROGRESS_OF_HART)]);
        self.li(T3, PATIENCE);
        for other in (0..harts).filter(|&other| other != hart) {
            let again = self.here();
            self.ahead((Beq, T3, ZERO));
            self.add(&[asm::i(Addi, T3, T3, -1), asm::i(Lw, T2, S3, other * PROGRESS_OF_HART)]);
            self.back((Blt, S5, T2), again);
            self.land();
        }
        self.add(&[asm::i(Addi, T0, S1, 0), asm::i(Addi, T1, S1, SECOND), asm::li(A2, 0), asm::li(A3, 0)]);
        let mut result = A2;
        for &step in steps {
            self.step(step, &mut result);
        }
        self.add(&[
            asm::s(Sw, A2, S2, 0),
            asm::s(Sw, A3, S2, 4),
            asm::i(Addi, S1, S1, PAIR),
            asm::i(Addi, S2, S2, 8),
            asm::i(Addi, S5, S5, -1),
        ]);
        self.back((Bne, S5, ZERO), round);
    }

    /// Clears the variables and how far each hart is.
    fn clear(&mut self, harts: i64) {
        self.li(S1, VARIABLES);
        self.li(S5, PAIRS * 2);
        let again = self.here();
        self.add(&[asm::s(Sd, ZERO, S1, 0), asm::i(Addi, S1, S1, PAIR / 2), asm::i(Addi, S5, S5, -1)]);
        self.back((Bne, S5, ZERO), again);
        self.li(S3, PROGRESS);
        self.li(T2, PAIRS);
        for hart in 0..harts {
            self.add(&[asm::s(Sw, T2, S3, hart * PROGRESS_OF_HART)]);
        }
    }

    /// Counts the outcomes of a batch.
    fn tally(&mut self, harts: i64) {
        self.li(S2, RESULTS);
        self.li(S5, PAIRS);
        self.li(T3, RESULTS_OF_HART);
        let again = self.here();
        self.add(&[asm::li(A1, 0), asm::i(Addi, T1, S2, 0)]);
        for hart in 0..harts {
            for result in 0..2 {
                self.add(&[
                    asm::i(Lbu, T0, T1, 4 * result),
                    asm::i(Slli, T0, T0, 2 * hart + result + 2),
                    asm::r(Or, A1, A1, T0),
                ]);
            }
            self.add(&[asm::r(Add, T1, T1, T3)]);
        }
        self.li(T0, OUTCOMES);
        self.add(&[
            asm::r(Add, A1, A1, T0),
            asm::i(Lw, T0, A1, 0),
            asm::i(Addi, T0, T0, 1),
            asm::s(Sw, T0, A1, 0),
            asm::i(Addi, S2, S2, 8),
            asm::i(Addi, S5, S5, -1),
        ]);
        self.back((Bne, S5, ZERO), again);
    }
}

fn amo(op: Opcode, rd: u8, rs1: u8, rs2: u8, aqrl: u8) -> u32 {
    asm::insn(op, Operands { rd, rs1, rs2, rm: aqrl, ..Operands::default() })
}

fn fence(sets: i64) -> u32 {
    asm::i(Fence, ZERO, ZERO, sets)
}

/// Ends the machine.
fn off() -> Vec<u32> {
    const FINISHER: i64 = 0x10_0000;
    const PASS: i64 = 0x5555;
    [vec![asm::lui(T0, FINISHER)], asm::li_64(T1, PASS), vec![asm::s(Sw, T1, T0, 0), asm::j(0)]].concat()
}

fn rounds() -> i64 {
    match std::env::var("HARTVM_LITMUS_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("HARTVM_LITMUS_ROUNDS is a number"),
        Err(_) => 1_000_000,
    }
}

/// Runs `body` for each hart, and reads `length` words at `address` when the machine has been turned off.
fn run(name: &str, harts: usize, program: &[u32], address: i64, length: usize) -> Vec<u32> {
    let machine = harness::machine_of("rv64", harts, name, program, EngineKind::Jit);
    let running = machine.start().expect("the machine can start");
    let event = running.power().wait_for(Duration::from_secs(1800));
    drop(running);
    assert_eq!(event, Some(PowerEvent::Off { code: 0 }), "{name}");
    let mut bytes = vec![0; 4 * length];
    machine.memory().read(address as u64, &mut bytes).expect("RAM");
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// Runs a program, and returns how often `outcome` was seen.
fn seen(name: &str, threads: &[&[Step]], outcome: Outcome) -> u32 {
    let harts = threads.len() as i64;
    let batches = (rounds() + PAIRS - 1) / PAIRS;
    let mut code = Code::default();
    code.add(&[asm::csrr(S0, csr::MHARTID)]);
    code.li(ONE, 1);
    code.li(S4, batches);
    let next = code.here();
    // Hart 0 is the one that clears and counts.
    code.barrier(harts);
    code.ahead((Bne, S0, ZERO));
    code.clear(harts);
    code.land();
    code.barrier(harts);
    for (hart, steps) in threads.iter().enumerate() {
        let hart = hart as i64;
        code.li(T2, hart);
        code.ahead((Bne, S0, T2));
        code.batch(hart, harts, steps);
        code.land();
    }
    code.barrier(harts);
    code.ahead((Bne, S0, ZERO));
    code.tally(harts);
    code.land();
    code.add(&[asm::i(Addi, S4, S4, -1)]);
    // Farther than a branch reaches.
    code.ahead((Beq, S4, ZERO));
    let distance = 4 * (next as i64 - code.here() as i64);
    code.add(&[asm::j(distance)]);
    code.land();
    code.barrier(harts);
    code.ahead((Beq, S0, ZERO));
    code.add(&[asm::j(0)]);
    code.land();
    code.add(&off());
    let words = run(
        &format!("litmus-{}", name.replace(' ', "-")),
        threads.len(),
        &code.words,
        OUTCOMES,
        1 << (2 * harts),
    );
    let total: i64 = words.iter().map(|&count| i64::from(count)).sum();
    assert_eq!(total, batches * PAIRS, "{name}: some rounds were not counted");
    let matching = words.iter().enumerate().filter(|(bits, _)| bits & outcome.mask == outcome.value);
    let count = matching.map(|(_, count)| count).sum();
    println!("{name}: seen {count} times in {total} rounds");
    count
}

/// The outcome must not be seen.
fn forbidden(name: &str, threads: &[&[Step]], outcome: Outcome) {
    assert_eq!(seen(name, threads, outcome), 0, "{name}: forbidden, but seen");
}

/// The second thread sees the second store, but not the first.
const MP: Outcome = Outcome { mask: 0b1100, value: 0b0100 };
/// Neither thread sees the other's store.
const SB: Outcome = Outcome { mask: 0b0101, value: 0 };
/// Each thread sees the store that the other makes after its load.
const LB: Outcome = Outcome { mask: 0b0101, value: 0b0101 };
/// The two readers see the stores in opposite orders.
const IRIW: Outcome = Outcome { mask: 0b1111_0000, value: 0b0101_0000 };

#[test]
fn message_passing() {
    seen("MP", &[&[Store(X), Store(Y)], &[Load(Y), Load(X)]], MP);
    for (name, before, after) in [
        ("MP w,w r,r", W_W, R_R),
        ("MP rw,w r,rw", RW_W, R_RW),
        ("MP rw,rw", RW_RW, RW_RW),
        ("MP tso", TSO, TSO),
    ] {
        let (before, after) = (Step::Fence(before), Step::Fence(after));
        forbidden(name, &[&[Store(X), before, Store(Y)], &[Load(Y), after, Load(X)]], MP);
    }
    let writer: &[Step] = &[Store(X), Step::Fence(W_W), Store(Y)];
    forbidden("MP w,w addr", &[writer, &[Load(Y), DependentLoad(X)]], MP);
    forbidden("MP rl aq", &[&[Store(X), Swap(Y, RL)], &[AmoLoad(Y, AQ), Load(X)]], MP);
}

#[test]
fn store_buffering() {
    seen("SB", &[&[Store(X), Load(Y)], &[Store(Y), Load(X)]], SB);
    let tso = Step::Fence(TSO);
    seen("SB tso", &[&[Store(X), tso, Load(Y)], &[Store(Y), tso, Load(X)]], SB);
    for (name, fence) in [("SB w,r", W_R), ("SB rw,rw", RW_RW)] {
        let fence = Step::Fence(fence);
        forbidden(name, &[&[Store(X), fence, Load(Y)], &[Store(Y), fence, Load(X)]], SB);
    }
    for (name, order) in [("SB aq", AQ), ("SB aqrl", AQRL)] {
        forbidden(name, &[&[Swap(X, order), Load(Y)], &[Swap(Y, order), Load(X)]], SB);
    }
    forbidden("SB rl", &[&[Store(X), AmoLoad(Y, RL)], &[Store(Y), AmoLoad(X, RL)]], SB);
}

#[test]
fn load_buffering() {
    seen("LB", &[&[Load(X), Store(Y)], &[Load(Y), Store(X)]], LB);
    for (name, fence) in [("LB r,w", R_W), ("LB rw,w", RW_W), ("LB rw,rw", RW_RW), ("LB tso", TSO)] {
        let fence = Step::Fence(fence);
        forbidden(name, &[&[Load(X), fence, Store(Y)], &[Load(Y), fence, Store(X)]], LB);
    }
    forbidden("LB data", &[&[Load(X), DependentStore(Y)], &[Load(Y), DependentStore(X)]], LB);
}

#[test]
fn independent_reads_of_independent_writes() {
    let (x, y): (&[Step], &[Step]) = (&[Store(X)], &[Store(Y)]);
    seen("IRIW", &[x, y, &[Load(X), Load(Y)], &[Load(Y), Load(X)]], IRIW);
    for (name, fence) in [("IRIW r,r", R_R), ("IRIW rw,rw", RW_RW)] {
        let fence = Step::Fence(fence);
        forbidden(name, &[x, y, &[Load(X), fence, Load(Y)], &[Load(Y), fence, Load(X)]], IRIW);
    }
    forbidden("IRIW addr", &[x, y, &[Load(X), DependentLoad(Y)], &[Load(Y), DependentLoad(X)]], IRIW);
}

/// Two harts add to the same word, by AMOs and by LR and SC.
#[test]
fn no_atomic_addition_is_lost() {
    let mut code = Code::default();
    code.add(&[asm::csrr(S0, csr::MHARTID)]);
    code.li(ONE, 1);
    code.li(S4, rounds());
    code.li(T0, VARIABLES);
    code.barrier(2);
    let again = code.here();
    code.add(&[amo(AmoaddW, A0, T0, ONE, 0)]);
    let retry = code.here();
    code.add(&[amo(LrW, A0, T0, ZERO, 0), asm::i(Addi, A0, A0, 1), amo(ScW, A1, T0, A0, 0)]);
    code.back((Bne, A1, ZERO), retry);
    code.add(&[asm::i(Addi, S4, S4, -1)]);
    code.back((Bne, S4, ZERO), again);
    code.barrier(2);
    code.ahead((Beq, S0, ZERO));
    code.add(&[asm::j(0)]);
    code.land();
    code.add(&off());
    let words = run("litmus-atomic", 2, &code.words, VARIABLES, 1);
    assert_eq!(i64::from(words[0]), 4 * rounds());
}
