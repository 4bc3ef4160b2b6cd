//! A hart, the memory layout of the tests, and how to say what should happen.

use std::sync::atomic::{AtomicUsize, Ordering};

use frontend::Opcode;
use frontend::csr_name::number as csr;
use jit::{Engine, EngineKind, Hart as _};
use machine::Machine;
use machine::hart::Hart;
pub(crate) use softmmu::Privilege::{self, Machine as M, Supervisor as S, User as U};
pub(crate) use softmmu::cause;

use crate::harness::{self, RAM, asm};

/// Where programs are.
pub(crate) const CODE: u64 = RAM + 0x10_0000;
/// A page of data.
pub(crate) const DATA: u64 = RAM + 0x20_0000;
/// `mtvec` and `stvec`. Nothing there is executed: a run ends when a trap is taken.
pub(crate) const M_VECTOR: u64 = RAM + 0x30_0000;
pub(crate) const S_VECTOR: u64 = RAM + 0x31_0000;
/// Past the end of RAM, with nothing there.
pub(crate) const NOWHERE: u64 = RAM + 0x1000_0000;
/// Bytes from a vector that belong to it.
const VECTOR_SIZE: u64 = 0x100;

pub(crate) const MODES: [Privilege; 3] = [U, S, M];
pub(crate) const INTERRUPT: u64 = 1 << 63;

/// Bits of `mstatus`, written down from the specification (3.1.6).
pub(crate) mod mstatus {
    pub(crate) const SIE: u64 = 1 << 1;
    pub(crate) const MIE: u64 = 1 << 3;
    pub(crate) const SPIE: u64 = 1 << 5;
    pub(crate) const MPIE: u64 = 1 << 7;
    pub(crate) const SPP: u64 = 1 << 8;
    pub(crate) const MPP: u64 = 3 << 11;
    pub(crate) const MPP_S: u64 = 1 << 11;
    pub(crate) const FS: u64 = 3 << 13;
    pub(crate) const MPRV: u64 = 1 << 17;
    pub(crate) const SUM: u64 = 1 << 18;
    pub(crate) const MXR: u64 = 1 << 19;
    pub(crate) const TVM: u64 = 1 << 20;
    pub(crate) const TW: u64 = 1 << 21;
    pub(crate) const TSR: u64 = 1 << 22;
    pub(crate) const UXL_SXL_64: u64 = 2 << 32 | 2 << 34;
    pub(crate) const SD: u64 = 1 << 63;
}

/// Bits of `menvcfg` and `senvcfg` (3.1.18, 12.1.10).
pub(crate) mod envcfg {
    pub(crate) const FIOM: u64 = 1;
    pub(crate) const CBIE: u64 = 3 << 4;
    pub(crate) const CBCFE: u64 = 1 << 6;
    pub(crate) const CBZE: u64 = 1 << 7;
    pub(crate) const ADUE: u64 = 1 << 61;
    pub(crate) const PBMTE: u64 = 1 << 62;
    pub(crate) const STCE: u64 = 1 << 63;
}

/// A trap that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The mode that handles it.
    pub(crate) to: Privilege,
    /// xcause, xepc, xtval of that mode.
    pub(crate) cause: u64,
    pub(crate) epc: u64,
    pub(crate) tval: u64,
    /// Where the handler starts.
    pub(crate) pc: u64,
}

pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) hart: Hart,
    engine: Engine,
}

/// Both engines pass these tests: check.sh runs them with and without `HARTVM_ENGINE=interp`.
fn engine_kind() -> EngineKind {
    match std::env::var("HARTVM_ENGINE").as_deref() {
        Ok("interp") => EngineKind::Interp,
        Ok(other) => panic!("HARTVM_ENGINE={other} is not an engine: want interp, or nothing for the JIT"),
        Err(_) => EngineKind::Eager,
    }
}

impl Bench {
    /// A hart as after reset, except that traps have vectors and PMP lets everything through.
    pub(crate) fn new(cpu: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("system-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (machine, hart, engine) = harness::hart(cpu, &name, engine_kind());
        let mut bench = Self { machine, hart, engine };
        bench.set(csr::MTVEC, M_VECTOR);
        bench.set(csr::STVEC, S_VECTOR);
        bench.set(csr::PMPADDR0, (1 << 54) - 1);
        bench.set(csr::PMPCFG0, 0x1f);
        bench
    }

    pub(crate) fn get(&mut self, number: u16) -> u64 {
        self.hart.csr(number).unwrap_or_else(|| panic!("CSR {number:#x} is not there"))
    }

    pub(crate) fn set(&mut self, number: u16, value: u64) {
        self.hart.set_csr(number, value).unwrap_or_else(|| panic!("CSR {number:#x} cannot be written"));
    }

    /// Writes a CSR and reads it back.
    pub(crate) fn put(&mut self, number: u16, value: u64) -> u64 {
        self.set(number, value);
        self.get(number)
    }

    pub(crate) fn set_bits(&mut self, number: u16, bits: u64) {
        let old = self.get(number);
        self.set(number, old | bits);
    }

    pub(crate) fn clear_bits(&mut self, number: u16, bits: u64) {
        let old = self.get(number);
        self.set(number, old & !bits);
    }

    pub(crate) fn x(&mut self, register: u8) -> u64 {
        self.hart.state().x[usize::from(register)]
    }

    pub(crate) fn set_x(&mut self, register: u8, value: u64) {
        self.hart.state().x[usize::from(register)] = value;
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        self.machine.memory().write(address, bytes).expect("RAM");
    }

    pub(crate) fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn read_u64(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.machine.memory().read(address, &mut bytes).expect("RAM");
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write_code(&mut self, address: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(address, &bytes);
    }

    /// Raises or lowers interrupt wires; they are bits of `mip`.
    pub(crate) fn wire(&self, bits: u64, level: bool) {
        self.machine.hart_shared(0).expect("hart 0 is there").set_mip(bits, level);
    }

    /// Runs from `pc` on in `mode` until a trap is taken.
    pub(crate) fn run_at(&mut self, mode: Privilege, pc: u64) -> Taken {
        self.engine.fence_i(self.hart.mmu());
        self.run_unfenced_at(mode, pc)
    }

    /// The same, without a `fence.i` after what was written to code.
    pub(crate) fn run_unfenced_at(&mut self, mode: Privilege, pc: u64) -> Taken {
        self.hart.set_privilege(mode);
        self.hart.state().pc = pc;
        let in_vector = |pc: u64| [M_VECTOR, S_VECTOR].iter().any(|&at| (at..at + VECTOR_SIZE).contains(&pc));
        self.hart.run_until(&mut self.engine, |hart| in_vector(hart.state().pc));
        let to = self.hart.privilege();
        let [cause, epc, tval] = match to {
            M => [csr::MCAUSE, csr::MEPC, csr::MTVAL],
            _ => [csr::SCAUSE, csr::SEPC, csr::STVAL],
        }
        .map(|number| self.get(number));
        Taken { to, cause, epc, tval, pc: self.hart.state().pc }
    }

    /// Runs `code` and then an `ebreak` in `mode`.
    pub(crate) fn run(&mut self, mode: Privilege, code: &[u32]) -> Taken {
        self.write_code(CODE, &[code, &[asm::bare(Opcode::Ebreak)]].concat());
        self.run_at(mode, CODE)
    }

    /// Whether all of `code` can be executed in `mode`.
    #[track_caller]
    pub(crate) fn passes(&mut self, mode: Privilege, code: &[u32]) {
        let end = CODE + 4 * code.len() as u64;
        let taken = self.run(mode, code);
        assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, end), "{mode:?}: {taken:x?}");
    }

    /// Whether the instruction is illegal in `mode`, with its bits in xtval (3.1.16).
    #[track_caller]
    pub(crate) fn illegal(&mut self, mode: Privilege, word: u32) {
        let taken = self.run(mode, &[word]);
        let want = (cause::ILLEGAL_INSTRUCTION, CODE, u64::from(word));
        assert_eq!((taken.cause, taken.epc, taken.tval), want, "{mode:?}: {taken:x?}");
    }

    /// [`Self::passes`] or [`Self::illegal`].
    #[track_caller]
    pub(crate) fn open(&mut self, is_open: bool, mode: Privilege, word: u32) {
        if is_open { self.passes(mode, &[word]) } else { self.illegal(mode, word) }
    }

    /// Whether `code` raises the exception at its first instruction.
    #[track_caller]
    pub(crate) fn faults(&mut self, mode: Privilege, code: &[u32], cause: u64, tval: u64) {
        let taken = self.run(mode, code);
        assert_eq!((taken.cause, taken.epc, taken.tval), (cause, CODE, tval), "{mode:?}: {taken:x?}");
    }

    /// Whether interrupt `number` is taken in `mode` before the next instruction, by mode `to`.
    #[track_caller]
    pub(crate) fn interrupts(&mut self, mode: Privilege, number: u64, to: Privilege) {
        let taken = self.run(mode, &[]);
        let want = (INTERRUPT | number, CODE, 0, to);
        assert_eq!((taken.cause, taken.epc, taken.tval, taken.to), want, "{mode:?}: {taken:x?}");
    }
}
