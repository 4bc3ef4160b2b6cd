//! Counters: who may read them, and how they count (3.1.10 to 3.1.12, 12.1.5, Zicntr).

use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::asm;

/// 3.1.11, 12.1.5: S needs a bit of mcounteren, U those of both registers.
#[test]
fn counters_are_opened_downwards() {
    let mut bench = Bench::new("rv64");
    for index in [0, 1, 2, 3, 31] {
        let word = asm::csrr(asm::A0, csr::CYCLE + index);
        let others = !(1 << index);
        for (m, s) in [(false, false), (false, true), (true, false), (true, true)] {
            let value = |open| if open { 1 << index } else { others };
            bench.set(csr::MCOUNTEREN, value(m));
            bench.set(csr::SCOUNTEREN, value(s));
            bench.open(m, S, word);
            bench.open(m && s, U, word);
            bench.passes(M, &[word]);
        }
    }
}

/// 3.1.10: minstret counts retired instructions, exactly, also in the middle of a block.
#[test]
fn instret_counts_instructions() {
    let mut bench = Bench::new("rv64");
    let read = |register| asm::csrr(register, csr::MINSTRET);
    bench.passes(
        M,
        &[asm::nop(), read(asm::A0), asm::nop(), asm::nop(), read(asm::A1), asm::j(4), read(asm::A2)],
    );
    let [first, second, third] = [asm::A0, asm::A1, asm::A2].map(|register| bench.x(register));
    assert_eq!((second - first, third - second), (3, 2));
    assert_eq!(bench.get(csr::MINSTRET), bench.get(csr::INSTRET));
}

/// Zicsr: "a value written to instret by one instruction will be the value read by the following instruction".
#[test]
fn a_written_counter_is_read_back_by_the_next_instruction() {
    let mut bench = Bench::new("rv64");
    for counter in [csr::MINSTRET, csr::MCYCLE] {
        for value in [0, 1000, u64::MAX] {
            bench.set_x(asm::A0, value);
            let write = asm::csrw(counter, asm::A0);
            bench.passes(M, &[asm::nop(), write, asm::csrr(asm::A1, counter), asm::csrr(asm::A2, counter)]);
            assert_eq!(bench.x(asm::A1), value);
            assert_eq!(bench.x(asm::A2), value.wrapping_add(1));
        }
    }
}

/// 3.1.12: inhibited counters keep their value, and can be written.
#[test]
fn counters_can_be_inhibited() {
    let mut bench = Bench::new("rv64");
    for (bit, counter) in [(1, csr::MCYCLE), (4, csr::MINSTRET)] {
        bench.set(csr::MCOUNTINHIBIT, bit);
        bench.set_x(asm::A0, 77);
        bench.passes(M, &[asm::csrw(counter, asm::A0), asm::nop(), asm::nop(), asm::csrr(asm::A1, counter)]);
        assert_eq!(bench.x(asm::A1), 77);
        bench.set(csr::MCOUNTINHIBIT, 5 & !bit);
        let other = bench.get(counter);
        bench.passes(M, &[asm::nop(), asm::nop()]);
        assert!(bench.get(counter) >= other + 2);
        assert!(other < 100, "it goes on from where it stood");
    }
}

/// Zicntr: time is the platform's clock of 10 MHz and never runs backwards.
#[test]
fn time_passes() {
    let mut bench = Bench::new("rv64");
    let before = bench.get(csr::TIME);
    std::thread::sleep(std::time::Duration::from_millis(5));
    bench.passes(M, &[asm::csrr(asm::A0, csr::TIME), asm::csrr(asm::A1, csr::TIME)]);
    assert!(bench.x(asm::A0) >= before + 50_000);
    assert!(bench.x(asm::A1) >= bench.x(asm::A0));
}
