//! Programs on a machine that is turned on: hart threads, reset state, the CLINT and the test finisher.

use std::time::Duration;

use frontend::Opcode::{Addi, AmoaddW, And, Auipc, Bne, Csrrsi, Ecall, Lw, Or, Ori, Slli, Sw, Wfi};
use frontend::csr_name::number as csr;
use machine::devices::sifive_test::PowerEvent;

use crate::harness::{self, asm};

const LIMIT: Duration = Duration::from_secs(300);

/// Ends the machine with the code in a0, which is not 0.
fn finish() -> Vec<u32> {
    const FINISHER: i64 = 0x10_0000;
    const FAIL: i64 = 0x3333;
    vec![
        asm::lui(asm::T0, FINISHER),
        asm::i(Slli, asm::A0, asm::A0, 16),
        asm::lui(asm::T1, FAIL & !0xfff),
        asm::i(Ori, asm::T1, asm::T1, FAIL & 0xfff),
        asm::r(Or, asm::A0, asm::A0, asm::T1),
        asm::s(Sw, asm::A0, asm::T0, 0),
        asm::j(0),
    ]
}

fn end_of(harts: usize, name: &str, program: &[u32]) -> Option<PowerEvent> {
    let machine = harness::machine("rv64", harts, name, program);
    let running = machine.start().expect("the machine can start");
    running.power().wait_for(LIMIT)
}

#[test]
fn a_program_ends_the_machine() {
    let program = [vec![asm::li(asm::A0, 42)], finish()].concat();
    assert_eq!(end_of(1, "whole-finish", &program), Some(PowerEvent::Off { code: 42 }));
}

/// 3.4: after a reset MIE and MPRV are 0, and the hart runs in M-mode (or mhartid could not be read).
#[test]
fn reset_state() {
    let program = [
        vec![
            asm::csrr(asm::A0, csr::MSTATUS),
            asm::lui(asm::A1, 1 << 17),
            asm::i(Ori, asm::A1, asm::A1, 1 << 3),
            asm::r(And, asm::A0, asm::A0, asm::A1),
            asm::csrr(asm::A2, csr::MHARTID),
            asm::csrr(asm::A3, csr::SATP),
            asm::r(Or, asm::A0, asm::A0, asm::A2),
            asm::r(Or, asm::A0, asm::A0, asm::A3),
            asm::i(Addi, asm::A0, asm::A0, 42),
        ],
        finish(),
    ]
    .concat();
    assert_eq!(end_of(1, "whole-reset", &program), Some(PowerEvent::Off { code: 42 }));
}

/// Hart 0 wakes the others, which wait in WFI with interrupts masked; each adds its number to a sum, and the last one ends
/// the machine.
#[test]
fn harts_wake_each_other() {
    const HARTS: usize = 4;
    const CLINT: i64 = 0x200_0000;
    // Those that are not hart 0 go to `other`.
    let hart0 = [
        asm::lui(asm::T1, CLINT),
        asm::li(asm::A1, 1),
        asm::s(Sw, asm::A1, asm::T1, 4),
        asm::s(Sw, asm::A1, asm::T1, 8),
        asm::s(Sw, asm::A1, asm::T1, 12),
        // Waits for the sum.
        asm::li(asm::A1, 1 + 2 + 3),
        asm::i(Lw, asm::A0, asm::T0, 0),
        asm::s(Bne, asm::A1, asm::A0, -4),
    ];
    let hart0 = [hart0.to_vec(), finish()].concat();
    let start = [
        asm::csrr(asm::A2, csr::MHARTID),
        // Somewhere behind the program.
        asm::i(Auipc, asm::T0, 0, 0x20_0000),
        asm::i(Csrrsi, 0, 8, csr::MIE.into()),
        asm::s(Bne, asm::ZERO, asm::A2, 4 + 4 * hart0.len() as i64),
    ];
    let other = [asm::bare(Wfi), asm::r(AmoaddW, 0, asm::T0, asm::A2), asm::j(0)];
    let program = [start.to_vec(), hart0, other.to_vec()].concat();
    assert_eq!(end_of(HARTS, "whole-ipi", &program), Some(PowerEvent::Off { code: 6 }));
}

/// SBI 6.1: the call sets the timer that Sstc sets, if there is Sstc. Firmware that used the call must not leave a timer
/// behind that its kernel, which uses stimecmp, cannot clear.
#[test]
fn sbi_and_stimecmp_are_one_timer() {
    const TIME: i64 = 0x5449_4d45;
    let program = [
        asm::li_64(asm::A7, TIME),
        vec![
            asm::li(asm::A6, 0),
            asm::li(asm::A0, 0),
            asm::bare(Ecall),
            asm::csrr(asm::A1, csr::SIP),
            asm::li(asm::A2, -1),
            asm::csrw(csr::STIMECMP, asm::A2),
            asm::csrr(asm::A2, csr::SIP),
            // The bit was set before and is not now.
            asm::i(Slli, asm::A2, asm::A2, 1),
            asm::r(Or, asm::A0, asm::A1, asm::A2),
        ],
        finish(),
    ]
    .concat();
    let config = machine::Config {
        memory: 16 << 20,
        kernel: Some(harness::program_file("whole-sbi-timer.bin", &program)),
        ..machine::Config::default()
    };
    let machine = machine::Machine::build(config, machine::console::Sink::null()).expect("it can be built");
    let running = machine.start().expect("the machine can start");
    assert_eq!(running.power().wait_for(LIMIT), Some(PowerEvent::Off { code: 1 << 5 }));
}
