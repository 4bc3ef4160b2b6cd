//! How fast guest instructions are executed: an integer loop in machine mode, and what it computes.
//!
//! `cargo test --release --test speed -- --nocapture` prints the figures.

mod harness;

use std::time::Duration;

use frontend::Opcode::{Addi, Bne, Sd, Sw};
use harness::asm::{self, A0, A1, A2, T0, T1, ZERO};
use jit::EngineKind;
use machine::devices::sifive_test::PowerEvent;
use rustix::time::{ClockId, clock_gettime};

/// Instructions in the loop.
const LOOP: u32 = 9;
/// Times round it on either engine.
const INTERPRETED: u32 = 2_000_000;
const TRANSLATED: u32 = 20_000_000;
/// Runs of which the fastest counts.
const RUNS: usize = 5;

/// Where the program leaves its result.
const RESULT: u64 = harness::RAM + 0x1000;

/// How many times as fast as the interpreter the translator is at least, in an optimised build; usually it is more than ten times.
#[cfg(all(not(debug_assertions), any(target_arch = "x86_64", target_arch = "aarch64")))]
const LEAST: f64 = 3.0;

fn program(rounds: u32) -> Vec<u32> {
    const FINISHER: i64 = 0x10_0000;
    const PASS: i64 = 0x5555;
    let body = [
        asm::arithmetic().as_slice(),
        &[asm::i(Addi, A0, A0, -1), asm::s(Bne, ZERO, A0, -4 * i64::from(LOOP - 1))],
    ]
    .concat();
    assert_eq!(body.len() as u32, LOOP);
    [
        asm::li_64(A0, rounds.into()),
        vec![asm::li(A1, 0), asm::li(A2, 1234)],
        body.to_vec(),
        asm::li_64(T0, RESULT as i64),
        vec![asm::s(Sd, A1, T0, 0), asm::lui(T0, FINISHER)],
        asm::li_64(T1, PASS),
        vec![asm::s(Sw, T1, T0, 0), asm::j(0)],
    ]
    .concat()
}

/// What the loop computes.
fn expected(rounds: u32) -> u64 {
    let (mut a1, mut a2) = (0u64, 1234u64);
    for _ in 0..rounds {
        a1 = a1.wrapping_add(a2);
        a2 ^= a1 << 7;
        a1 = a1.wrapping_sub(a2 >> 9);
        a2 |= a1 & 255;
    }
    a1
}

/// Seconds of processor time that this process has used: other load on the host does not count.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs the loop and checks its result; guest instructions per second.
fn speed(engine: EngineKind, rounds: u32) -> f64 {
    let machine = harness::machine_of("rv64", 1, "speed", &program(rounds), engine);
    let start = processor_time();
    let running = machine.start().expect("the machine can start");
    let event = running.power().wait_for(Duration::from_secs(600));
    let seconds = processor_time() - start;
    drop(running);
    assert_eq!(event, Some(PowerEvent::Off { code: 0 }));

    let mut result = [0; 8];
    machine.memory().read(RESULT, &mut result).expect("the result is in RAM");
    assert_eq!(u64::from_le_bytes(result), expected(rounds));
    f64::from(rounds) * f64::from(LOOP) / seconds
}

#[test]
fn an_integer_loop_is_fast_and_right() {
    let (mut interpreted, mut translated) = (0.0_f64, 0.0_f64);
    for _ in 0..RUNS {
        interpreted = interpreted.max(speed(EngineKind::Interp, INTERPRETED));
        translated = translated.max(speed(EngineKind::Jit, TRANSLATED));
    }
    println!(
        "million guest instructions per second: {:.0}, interpreted {:.0}",
        translated / 1e6,
        interpreted / 1e6
    );
    #[cfg(all(not(debug_assertions), any(target_arch = "x86_64", target_arch = "aarch64")))]
    assert!(translated >= LEAST * interpreted, "{translated} translated, {interpreted} interpreted");
}
