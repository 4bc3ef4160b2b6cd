//! Flash as a hart sees it: code runs there, loads see the array or the chips' registers, and never an old translation.

use std::time::Duration;

use frontend::Opcode::{Bne, Lhu, Lw, Slli, Sw};
use machine::console::Sink;
use machine::devices::sifive_test::PowerEvent;
use machine::disk::{DiskOptions, Format};
use machine::{Config, EngineKind, Firmware, Flash, Machine};

use crate::harness::{self, asm};

const LIMIT: Duration = Duration::from_secs(300);
const BANK: i64 = 0x2000_0000;
const BANK_SIZE: i64 = 0x200_0000;

/// Runs a program from flash, in M-mode; it ends with a value in a0, 16 bits and not 0.
fn value_of(name: &str, program: &[u32], engine: EngineKind) -> Option<PowerEvent> {
    const FINISHER: i64 = 0x10_0000;
    let end = [
        asm::lui(asm::T0, FINISHER),
        asm::i(Slli, asm::A0, asm::A0, 16),
        asm::lui(asm::T1, 0x3000),
        asm::i(frontend::Opcode::Addi, asm::T1, asm::T1, 0x333),
        asm::r(frontend::Opcode::Or, asm::A0, asm::A0, asm::T1),
        asm::s(Sw, asm::A0, asm::T0, 0),
        asm::j(0),
    ];
    // Images of disks are whole sectors.
    let mut words = [program, &end].concat();
    words.resize(words.len().next_multiple_of(128), 0);
    let code =
        DiskOptions { format: Some(Format::Raw), ..DiskOptions::new(harness::program_file(name, &words)) };
    let config = Config {
        memory: 16 << 20,
        firmware: Firmware::None,
        flash: Some(Flash { code, vars: None }),
        engine,
        ..Config::default()
    };
    let machine = Machine::build(config, Sink::null()).expect("the machine can be built");
    let running = machine.start().expect("the machine can start");
    running.power().wait_for(LIMIT)
}

#[test]
fn code_runs_in_flash_and_sees_what_it_tells_the_chips() {
    for engine in [EngineKind::Jit, EngineKind::Eager, EngineKind::Interp] {
        // Reads the array often enough to have it in every table, then asks for the query table: `Q` of the first chip. In
        // between the code itself must not go away.
        let query = [
            vec![asm::lui(asm::A1, BANK), asm::li(asm::A2, 20)],
            vec![
                asm::i(Lw, asm::A0, asm::A1, 0x40),
                asm::i(frontend::Opcode::Addi, asm::A2, asm::A2, -1),
                asm::s(Bne, asm::ZERO, asm::A2, -8),
            ],
            asm::li_64(asm::A2, 0x98_0098),
            vec![asm::s(Sw, asm::A2, asm::A1, 0x154), asm::i(Lhu, asm::A0, asm::A1, 0x40)],
        ]
        .concat();
        let event = value_of("flash-query.bin", &query, engine);
        assert_eq!(event, Some(PowerEvent::Off { code: b'Q'.into() }), "{engine:?}");
    }
}

#[test]
fn what_is_programmed_is_read_back_also_misaligned() {
    // Programs a word of the second bank, goes back to the array, and reads two bytes across the middle of it.
    let program = [
        asm::li_64(asm::A1, BANK + BANK_SIZE),
        asm::li_64(asm::A2, 0x40_0040),
        vec![asm::s(Sw, asm::A2, asm::A1, 0)],
        asm::li_64(asm::A2, 0x0012_3400),
        vec![asm::s(Sw, asm::A2, asm::A1, 0)],
        asm::li_64(asm::A2, 0xff_00ff),
        vec![asm::s(Sw, asm::A2, asm::A1, 0), asm::i(Lhu, asm::A0, asm::A1, 1)],
    ]
    .concat();
    let event = value_of("flash-program.bin", &program, EngineKind::default());
    assert_eq!(event, Some(PowerEvent::Off { code: 0x1234 }));
}
