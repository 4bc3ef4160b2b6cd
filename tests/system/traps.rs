//! Entering and leaving traps, and delegation (3.1.6.1, 3.1.7, 3.1.8, 3.3.2, 12.1.1).

use frontend::Opcode::{Ebreak, Ecall, Mret, Sret};
use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::asm;

const STACK: u64 =
    mstatus::MIE | mstatus::MPIE | mstatus::MPP | mstatus::SIE | mstatus::SPIE | mstatus::SPP | mstatus::MPRV;

fn mpp(mode: Privilege) -> u64 {
    (mode as u64) << 11
}

/// 3.1.6.1: MPIE gets MIE, MIE gets 0, MPP the mode. The supervisor's stack is untouched, and so is MPRV.
#[test]
fn a_trap_to_machine_mode_pushes_its_stack() {
    for mode in MODES {
        for interrupts in [0, mstatus::MIE] {
            let mut bench = Bench::new("rv64");
            let kept = mstatus::SIE | mstatus::SPP;
            bench.set(csr::MSTATUS, interrupts | kept);
            let taken = bench.run(mode, &[asm::bare(Ecall)]);
            assert_eq!((taken.to, taken.pc, taken.epc, taken.tval), (M, M_VECTOR, CODE, 0));
            assert_eq!(bench.get(csr::MSTATUS) & STACK, kept | interrupts << 4 | mpp(mode), "{mode:?}");
        }
    }
}

#[test]
fn a_trap_to_supervisor_mode_pushes_its_stack() {
    for (mode, spp) in [(U, 0), (S, mstatus::SPP)] {
        for interrupts in [0, mstatus::SIE] {
            let mut bench = Bench::new("rv64");
            bench.set(csr::MEDELEG, 1 << cause::ECALL_U | 1 << cause::ECALL_S);
            let kept = mstatus::MIE | mstatus::MPP_S;
            bench.set(csr::MSTATUS, interrupts | kept);
            bench.set(csr::MEPC, 0x1234);
            let taken = bench.run(mode, &[asm::bare(Ecall)]);
            assert_eq!((taken.to, taken.pc, taken.epc, taken.tval), (S, S_VECTOR, CODE, 0));
            assert_eq!(bench.get(csr::MSTATUS) & STACK, kept | interrupts << 4 | spp, "{mode:?}");
            assert_eq!((bench.get(csr::MEPC), bench.get(csr::MCAUSE)), (0x1234, 0));
        }
    }
}

/// 3.1.8: exceptions are never delegated from M-mode, and a clear bit keeps them in M-mode.
#[test]
fn delegation_is_by_cause_and_never_downwards() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MEDELEG, 1 << cause::BREAKPOINT);
    for (mode, word, to) in [(U, Ebreak, S), (S, Ebreak, S), (M, Ebreak, M), (U, Ecall, M), (S, Ecall, M)] {
        assert_eq!(bench.run(mode, &[asm::bare(word)]).to, to, "{word:?} in {mode:?}");
    }
}

/// 3.1.6.1, 3.1.6.3: MIE gets MPIE, MPIE gets 1, MPP the least mode, and MPRV is cleared unless the new mode is M.
#[test]
fn mret_pops() {
    for mode in MODES {
        for mpie in [0, mstatus::MPIE] {
            let mut bench = Bench::new("rv64");
            bench.set(csr::MSTATUS, mpp(mode) | mpie | mstatus::MPRV | mstatus::SPIE);
            bench.set(csr::MEPC, CODE + 8);
            bench.write_code(CODE, &[asm::bare(Mret), asm::nop(), asm::bare(Ecall)]);
            let taken = bench.run_at(M, CODE);
            assert_eq!((taken.cause, taken.epc), (8 + mode as u64, CODE + 8));
            // The ecall has pushed MIE to MPIE.
            let mprv = if mode == M { mstatus::MPRV } else { 0 };
            assert_eq!(bench.get(csr::MSTATUS) & STACK, mpie | mpp(mode) | mprv | mstatus::SPIE, "{mode:?}");
        }
    }
}

/// As above, looked at by M-mode itself after a return to M-mode: MPP is U and MPIE is 1.
#[test]
fn mret_leaves_the_least_mode_behind() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, mstatus::MPP);
    bench.set(csr::MEPC, CODE + 4);
    bench.passes(M, &[asm::bare(Mret), asm::csrr(asm::A0, csr::MSTATUS)]);
    assert_eq!(bench.x(asm::A0) & STACK, mstatus::MPIE);
}

#[test]
fn sret_pops() {
    for from in [S, M] {
        for (to, spp) in [(U, 0), (S, mstatus::SPP)] {
            for spie in [0, mstatus::SPIE] {
                let mut bench = Bench::new("rv64");
                bench.set(csr::MSTATUS, spp | spie | mstatus::MPRV | mstatus::MPP);
                bench.set(csr::SEPC, CODE + 8);
                bench.write_code(CODE, &[asm::bare(Sret), asm::nop(), asm::bare(Ecall)]);
                let taken = bench.run_at(from, CODE);
                assert_eq!((taken.cause, taken.epc), (8 + to as u64, CODE + 8));
                // 3.1.6.3: "an MRET or SRET instruction that changes the privilege mode to a mode less privileged than
                // M also sets MPRV=0."
                let want = spie >> 4 | mstatus::SPIE | mpp(to);
                assert_eq!(bench.get(csr::MSTATUS) & STACK, want, "{from:?} to {to:?}");
            }
        }
    }
}

/// 3.1.7, 12.1.2: vectored mode concerns interrupts only.
#[test]
fn vectored_mode_adds_four_times_the_cause_of_interrupts() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MTVEC, M_VECTOR | 1);
    bench.set(csr::STVEC, S_VECTOR | 1);
    bench.set(csr::MIDELEG, 1 << 9);
    bench.set(csr::MIE, 1 << 9 | 1 << 7);
    assert_eq!(bench.run(U, &[]).pc, M_VECTOR, "exceptions go to the base");
    bench.set(csr::MEDELEG, 1 << cause::BREAKPOINT);
    assert_eq!(bench.run(U, &[]).pc, S_VECTOR);
    bench.wire(1 << 9, true);
    assert_eq!(bench.run(U, &[]).pc, S_VECTOR + 4 * 9);
    bench.wire(1 << 7, true);
    assert_eq!(bench.run(U, &[]).pc, M_VECTOR + 4 * 7);
}

/// 3.3.1: also the compressed form, and xepc is the ebreak itself.
#[test]
fn breakpoints() {
    let mut bench = Bench::new("rv64");
    let taken = bench.run(U, &[0x0001_0001, 0x9002]);
    assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, CODE + 4));
    let taken = bench.run(U, &[]);
    assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, CODE));
}

/// 3.3.1: "ECALL and EBREAK ... should not increment the minstret CSR", as they do not retire.
#[test]
fn ecall_and_ebreak_do_not_retire() {
    for op in [Ecall, Ebreak] {
        let mut bench = Bench::new("rv64");
        bench.set(csr::MINSTRET, 0);
        let before = bench.get(csr::MINSTRET);
        bench.run(U, &[asm::nop(), asm::nop(), asm::bare(op)]);
        assert_eq!(bench.get(csr::MINSTRET).wrapping_sub(before), 2, "{op:?}");
    }
}
