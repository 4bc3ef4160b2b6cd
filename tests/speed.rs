//! How fast guest instructions are executed: an integer loop in machine mode, and what it computes.
//!
//! `cargo test --release --test speed -- --nocapture` prints the figure.

mod harness;

use std::time::{Duration, Instant};

use frontend::Opcode::{Addi, Bne, Sd, Sw};
use harness::asm::{self, A0, A1, A2, T0, T1, ZERO};
use machine::devices::sifive_test::PowerEvent;

/// Times round the loop, and instructions in it.
const ROUNDS: u32 = 20_000_000;
const LOOP: u32 = 9;

/// Where the program leaves its result.
const RESULT: u64 = harness::RAM + 0x1000;

/// What an optimised build reaches at least, on any host that is in use; usually it is several times as fast.
#[cfg(not(debug_assertions))]
const LEAST: f64 = 100e6;

fn program() -> Vec<u32> {
    const FINISHER: i64 = 0x10_0000;
    const PASS: i64 = 0x5555;
    let body = [
        asm::arithmetic().as_slice(),
        &[asm::i(Addi, A0, A0, -1), asm::s(Bne, ZERO, A0, -4 * i64::from(LOOP - 1))],
    ]
    .concat();
    assert_eq!(body.len() as u32, LOOP);
    [
        asm::li_64(A0, ROUNDS.into()),
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
fn expected() -> u64 {
    let (mut a1, mut a2) = (0u64, 1234u64);
    for _ in 0..ROUNDS {
        a1 = a1.wrapping_add(a2);
        a2 ^= a1 << 7;
        a1 = a1.wrapping_sub(a2 >> 9);
        a2 |= a1 & 255;
    }
    a1
}

#[test]
fn an_integer_loop_is_fast_and_right() {
    let machine = harness::machine("rv64", 1, "speed", &program());
    let start = Instant::now();
    let running = machine.start().expect("the machine can start");
    let event = running.power().wait_for(Duration::from_secs(120));
    let seconds = start.elapsed().as_secs_f64();
    drop(running);
    assert_eq!(event, Some(PowerEvent::Off { code: 0 }));

    let mut result = [0; 8];
    machine.memory().read(RESULT, &mut result).expect("the result is in RAM");
    assert_eq!(u64::from_le_bytes(result), expected());

    let speed = f64::from(ROUNDS) * f64::from(LOOP) / seconds;
    println!("{:.0} million guest instructions per second", speed / 1e6);
    #[cfg(not(debug_assertions))]
    assert!(speed >= LEAST, "{speed} instructions per second");
}
