//! What the whole-engine tests share: a machine with one hart that the test runs itself, and an assembler.
#![allow(dead_code, reason = "each test program uses its part of this")]

pub(crate) mod asm;
pub(crate) mod random;

use std::path::PathBuf;

use frontend::{Decoder, Opcode};
use jit::{Engine, EngineKind};
use machine::console::Sink;
use machine::hart::Hart;
use machine::{Config, Firmware, Machine};

/// Where RAM starts.
pub(crate) const RAM: u64 = 0x8000_0000;

/// Instructions that user-level vectors cannot test, because their meaning depends on privilege. `system.rs` runs each of them
/// in each mode; `vectors.rs` checks that all others are in a vector.
pub(crate) const SYSTEM_INSNS: &[Opcode] = &[
    Opcode::Ecall,
    Opcode::Sret,
    Opcode::Mret,
    Opcode::Wfi,
    Opcode::SfenceVma,
    Opcode::SinvalVma,
    Opcode::SfenceWInval,
    Opcode::SfenceInvalIr,
    Opcode::CboInval,
    Opcode::CboClean,
    Opcode::CboFlush,
];

/// Writes a program to a file of that name among the build's temporary files.
pub(crate) fn program_file(name: &str, words: &[u32]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&path, bytes).expect("the build directory can be written");
    path
}

/// A machine of CPU model `cpu` with `harts` harts, without firmware. It starts `program`, at the start of RAM in M-mode.
pub(crate) fn machine(cpu: &str, harts: usize, name: &str, program: &[u32]) -> Machine {
    machine_of(cpu, harts, name, program, EngineKind::default())
}

/// The same with engines of one kind.
pub(crate) fn machine_of(
    cpu: &str,
    harts: usize,
    name: &str,
    program: &[u32],
    engine: EngineKind,
) -> Machine {
    let config = Config {
        memory: 16 << 20,
        harts,
        cpu: cpu.parse().expect("a CPU model"),
        firmware: Firmware::None,
        kernel: Some(program_file(&format!("{name}.bin"), program)),
        engine,
        ..Config::default()
    };
    Machine::build(config, Sink::null()).expect("the machine can be built")
}

/// A machine that is not turned on, its only hart, and an engine for it. `name` must differ between concurrent tests.
pub(crate) fn hart(cpu: &str, name: &str, engine: EngineKind) -> (Machine, Hart, Engine) {
    let machine = machine_of(cpu, 1, name, &[0], engine);
    let hart = machine.hart(0).expect("hart 0 is there");
    let model: machine::cpu_model::CpuModel = cpu.parse().expect("a CPU model");
    let engine = hart.engine(Decoder::new(&model.isa()));
    (machine, hart, engine)
}
