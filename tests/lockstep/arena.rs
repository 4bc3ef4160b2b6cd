//! A program with more code than there is room for translations, next to a hart that stays in a little code of its own, whose
//! translation is thrown away under it again and again.

use std::time::Duration;

use frontend::Opcode::{Add, Addi, Bne, Jalr, Ld, Sd, Slli, Srli, Sub, Sw, Xor};
use frontend::csr_name::number as csr;
use jit::EngineKind;
use machine::devices::sifive_test::PowerEvent;

use crate::assembly::{Assembly, S0, S1, S2, S3, S4, T3, T4, T5};
use crate::harness::asm::{self, A0, A1, A2, A3, RA, ZERO};
use crate::harness::{self, RAM};
use crate::random::Random;

const TABLE: u64 = RAM + 0x10_0000;
const RESULT: u64 = RAM + 0x11_0000;
const LONG: u64 = RAM + 0x20_0000;
/// Instructions of the long program, of which each third is an access that cannot be translated together with others.
const STEPS: usize = 1_000_000;
const PASSES: u64 = 2;
/// Rounds of the short program between two looks at its result.
const ROUNDS: u64 = 1000;
const GOOD: u16 = 42;
const LIMIT: Duration = Duration::from_secs(600);

/// What the short program does to a1 and a2 in `ROUNDS` rounds.
fn short() -> (u64, u64) {
    let (mut a1, mut a2) = (1_u64, 1234_u64);
    for _ in 0..ROUNDS {
        a1 = a1.wrapping_add(a2);
        a2 ^= a1 << 7;
        a1 = a1.wrapping_sub(a2 >> 9);
    }
    (a1, a2)
}

fn program() -> Vec<u32> {
    let mut a = Assembly::default();
    a.add(&[asm::csrr(A0, csr::MHARTID)]);
    a.branch(Bne, A0, ZERO, "short");
    a.li(S0, PASSES);
    a.li(T4, TABLE);
    a.li(T5, 0);
    a.li(S1, LONG);
    a.label("pass");
    a.add(&[asm::i(Jalr, RA, S1, 0), asm::i(Addi, S0, S0, -1)]);
    a.branch(Bne, S0, ZERO, "pass");
    a.li(S1, RESULT);
    a.add(&[asm::s(Sd, T5, S1, 0)]);
    a.finish(GOOD.into());

    a.label("short");
    let (a1, a2) = short();
    a.li(S3, a1);
    a.li(S4, a2);
    a.label("again");
    a.li(S2, ROUNDS);
    a.li(A1, 1);
    a.li(A2, 1234);
    a.label("round");
    a.add(&[asm::r(Add, A1, A1, A2), asm::i(Slli, A3, A1, 7), asm::r(Xor, A2, A2, A3)]);
    a.add(&[asm::i(Srli, A3, A2, 9), asm::r(Sub, A1, A1, A3), asm::i(Addi, S2, S2, -1)]);
    a.branch(Bne, S2, ZERO, "round");
    a.branch(Bne, A1, S3, "wrong");
    a.branch(Bne, A2, S4, "wrong");
    a.jump("again");
    a.label("wrong");
    a.finish(7);
    a.words()
}

/// Code that computes with a table, and what it computes.
fn long(random: &mut Random, table: &mut [u64]) -> (Vec<u32>, u64) {
    enum Step {
        Load(usize, usize),
        Store(usize),
    }
    let steps: Vec<Step> = (0..STEPS)
        .map(|_| {
            let slot = random.below(table.len());
            if random.percent(20) { Step::Store(slot) } else { Step::Load(slot, random.below(3)) }
        })
        .collect();
    let ops = [Add, Xor, Sub];
    let mut words = Vec::with_capacity(2 * STEPS + 1);
    for step in &steps {
        match *step {
            Step::Load(slot, op) => words.extend([
                // A base that an instruction in between changes ends a run of accesses.
                asm::i(Addi, T3, T4, 8 * slot as i64),
                asm::i(Ld, T3, T3, 0),
                asm::r(ops[op], T5, T5, T3),
            ]),
            Step::Store(slot) => words.extend([
                asm::i(Addi, T3, T4, 8 * slot as i64),
                asm::s(Sd, T5, T3, 0),
                asm::s(Sw, T5, T3, 4),
            ]),
        }
    }
    words.push(asm::i(Jalr, 0, RA, 0));
    let mut sum = 0_u64;
    for _ in 0..PASSES {
        for step in &steps {
            match *step {
                Step::Load(slot, 0) => sum = sum.wrapping_add(table[slot]),
                Step::Load(slot, 1) => sum ^= table[slot],
                Step::Load(slot, _) => sum = sum.wrapping_sub(table[slot]),
                Step::Store(slot) => table[slot] = u64::from(sum as u32) | sum << 32,
            }
        }
    }
    (words, sum)
}

#[test]
fn code_that_does_not_fit_is_translated_again() {
    let mut random = Random::new(1);
    let mut table: Vec<u64> = (0..250).map(|_| random.next()).collect();
    let machine = harness::machine_of("max", 2, "arena", &program(), EngineKind::Cramped);
    let write = |address: u64, bytes: Vec<u8>| machine.memory().write(address, &bytes).expect("RAM");
    write(TABLE, table.iter().copied().flat_map(u64::to_le_bytes).collect());
    let (words, sum) = long(&mut random, &mut table);
    write(LONG, words.into_iter().flat_map(u32::to_le_bytes).collect());
    let running = machine.start().expect("the machine can start");
    let event = running.power().wait_for(LIMIT);
    drop(running);
    assert_eq!(event, Some(PowerEvent::Off { code: GOOD }));
    let mut result = [0; 8];
    machine.memory().read(RESULT, &mut result).expect("RAM");
    assert_eq!(u64::from_le_bytes(result), sum);
}
