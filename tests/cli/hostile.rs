//! Guests that go nowhere: they may waste a hart, but not the host.

use std::time::{Duration, Instant};

use frontend::Opcode;
use frontend::encode::Operands;
use rustix::process::Signal;

use crate::guest::{Program, RAM, S0};
use crate::support::{Dir, Running, bare, cpu_seconds, resident_kib};

/// Runs a guest that prints a dot and then loops for ever, and ends it.
fn survives(what: &str, program: &Program) {
    let dir = Dir::new();
    let file = dir.file("program", &program.binary());
    let running = Running::start(&mut bare(&file));
    running.wait_for_output(1);
    // It has started then, on a busy machine too.
    running.wait_for_cpu(0.2);
    let memory = resident_kib(running.pid());
    // The time spans both looks at the processor time, however long they take.
    let start = Instant::now();
    let cpu = cpu_seconds(running.pid());
    std::thread::sleep(Duration::from_millis(300));
    let cpu = cpu_seconds(running.pid()) - cpu;
    let elapsed = start.elapsed().as_secs_f64();
    let grown = resident_kib(running.pid()).saturating_sub(memory);
    // One hart is one thread, whatever it does.
    assert!(cpu < 1.2 * elapsed + 0.1, "{what}: {cpu} s of processor time in {elapsed} s");
    assert!(grown < 16 << 10, "{what}: memory grew by {grown} KiB");
    running.signal(Signal::TERM);
    let outcome = running.finish();
    assert_eq!(outcome.code(), 128 + 15, "{what}: {}", outcome.stderr);
    assert!(outcome.stderr.lines().count() < 20, "{what}: {}", outcome.stderr);
}

fn jump_to(program: &mut Program, rs1: u8) {
    program.insn(Opcode::Jalr, Operands { rs1, ..Operands::default() });
}

#[test]
fn jumps_to_nowhere() {
    for target in [0, 0x1000_0000, 0x7fff_fffe, 0xffff_fffe, RAM + (64 << 20) - 2] {
        let mut program = Program::new();
        program.print(".").li(S0, target);
        jump_to(&mut program, S0);
        survives(&format!("a jump to {target:#x}"), &program);
    }
    let mut program = Program::new();
    program.print(".").addi(S0, 0, -2);
    jump_to(&mut program, S0);
    survives("a jump to the last address", &program);
}

#[test]
fn traps_in_the_trap_handler() {
    const MTVEC: i64 = 0x305;
    let csrrw = |rs1| Operands { rs1, imm: MTVEC, ..Operands::default() };
    for op in [Opcode::Ecall, Opcode::Ebreak] {
        let mut program = Program::new();
        program.print(".").insn(Opcode::Auipc, Operands { rd: S0, ..Operands::default() });
        program.addi(S0, S0, 12).insn(Opcode::Csrrw, csrrw(S0)).insn(op, Operands::default());
        survives("a handler that traps", &program);
    }
    // The handler is not even memory.
    let mut program = Program::new();
    program.print(".").li(S0, 0x4000).insn(Opcode::Csrrw, csrrw(S0)).insn(Opcode::Ecall, Operands::default());
    survives("a handler outside of memory", &program);
}

#[test]
fn an_endless_loop_and_code_that_rewrites_itself() {
    let mut program = Program::new();
    program.print(".");
    let top = program.here();
    program.jump(top);
    survives("an endless loop", &program);

    // Stores the instruction `addi x0, x0, 0` over the next one, over and over.
    let mut program = Program::new();
    program.print(".").li(S0, 0x13);
    let top = program.here();
    program.insn(Opcode::Auipc, Operands { rd: 9, ..Operands::default() });
    program.insn(Opcode::Sw, Operands { rs1: 9, rs2: S0, imm: 12, ..Operands::default() });
    program.insn(Opcode::FenceI, Operands::default());
    program.addi(0, 0, 0).jump(top);
    survives("self-modifying code", &program);
}
