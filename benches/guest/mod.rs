//! What the benchmarks share: a guest program on a hart that the benchmark runs itself.

use frontend::Opcode;
use jit::context::mstatus;
use jit::{Engine, EngineKind, Exit, Hart as _};
use machine::Machine;
use machine::hart::Hart;
use softmmu::cause;

use crate::harness::{self, RAM, asm};

/// Where the program is.
const CODE: u64 = RAM + 0x10_0000;
/// RAM that the program may use; all registers hold this address when it starts.
pub(crate) const DATA: u64 = RAM + 0x80_0000;

/// A machine with a program, which has not run yet.
pub(crate) struct Guest {
    machine: Machine,
    hart: Hart,
    engine: Engine,
}

impl Guest {
    pub(crate) fn new(name: &str, kind: EngineKind, program: &[u32]) -> Guest {
        let (machine, mut hart, engine) = harness::hart("max", &format!("bench-{name}"), kind);
        hart.state().mstatus |= mstatus::FS;
        let words = program.iter().copied().chain([asm::bare(Opcode::Ebreak)]);
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        machine.memory().write(CODE, &bytes).expect("RAM");
        Guest { machine, hart, engine }
    }

    /// Runs the program in machine mode from its start to its end, and says how many instructions that took.
    pub(crate) fn run(&mut self) -> u64 {
        let state = self.hart.state();
        let before = state.instret;
        state.pc = CODE;
        state.x[1..32].fill(DATA);
        loop {
            match self.engine.run(&mut self.hart) {
                Exit::Poll => self.machine.hart_shared(0).expect("hart 0 is there").take_poll(),
                Exit::Trap(trap) => {
                    assert_eq!(trap.cause, cause::BREAKPOINT, "{trap:x?}");
                    return self.hart.state().instret - before;
                }
                Exit::Break => unreachable!("there are no breakpoints"),
            }
        }
    }
}
