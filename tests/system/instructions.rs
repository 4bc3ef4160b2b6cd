//! Which mode may execute the instructions whose meaning depends on it (3.3, 12.2, CMO extension).

use frontend::Opcode::{self, *};
use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::{SYSTEM_INSNS, asm};

/// What an instruction does when nothing is specially allowed or forbidden: the exception, or `None`.
fn outcome(op: Opcode, mode: Privilege) -> Option<u64> {
    let below_s = (mode == U).then_some(cause::ILLEGAL_INSTRUCTION);
    let below_m = (mode != M).then_some(cause::ILLEGAL_INSTRUCTION);
    match (op, mode) {
        (Ecall, U) => Some(cause::ECALL_U),
        (Ecall, S) => Some(cause::ECALL_S),
        (Ecall, M) => Some(cause::ECALL_M),
        (Mret, _) => below_m,
        (Sret | Wfi | SfenceVma | SinvalVma | SfenceWInval | SfenceInvalIr, _) => below_s,
        // envcfg is 0.
        (CboInval | CboClean | CboFlush | CboZero, _) => below_m,
        _ => panic!("{op:?} is no system instruction"),
    }
}

#[test]
fn every_system_instruction_in_every_mode() {
    for &op in SYSTEM_INSNS {
        for mode in MODES {
            let mut bench = Bench::new("max");
            // So that returns go on behind themselves, in the same mode.
            bench.set(csr::MEPC, CODE + 4);
            bench.set(csr::SEPC, CODE + 4);
            bench.set_bits(csr::MSTATUS, (mode as u64) << 11 | (mode as u64 & 1) << 8);
            let word = asm::i(op, 0, asm::A0, 0);
            bench.set_x(asm::A0, DATA);
            match outcome(op, mode) {
                Some(cause::ILLEGAL_INSTRUCTION) => bench.illegal(mode, word),
                // ecall: xtval is 0.
                Some(exception) => bench.faults(mode, &[word], exception, 0),
                None if op == Wfi => {
                    // Something to wake up for, which is not taken: delegated, and SIE=0 or M-mode.
                    bench.set(csr::MIDELEG, 1 << 1);
                    bench.set(csr::MIE, 1 << 1);
                    bench.wire(1 << 1, true);
                    bench.passes(mode, &[word]);
                }
                None => bench.passes(mode, &[word]),
            }
        }
    }
}

#[test]
fn svinval_is_illegal_where_it_is_not_implemented() {
    let mut bench = Bench::new("rv64");
    for op in [SinvalVma, SfenceWInval, SfenceInvalIr] {
        bench.illegal(M, asm::bare(op));
    }
}

/// 3.1.6.6: TVM.
#[test]
fn tvm_closes_translation_to_supervisors() {
    let mut bench = Bench::new("max");
    bench.set(csr::MSTATUS, mstatus::TVM);
    for word in [
        asm::bare(SfenceVma),
        asm::r(SfenceVma, 0, asm::A0, asm::A1),
        asm::r(SinvalVma, 0, asm::A0, 0),
        asm::csrr(asm::A0, csr::SATP),
        asm::csrw(csr::SATP, asm::ZERO),
    ] {
        bench.illegal(S, word);
        bench.passes(M, &[word]);
    }
    // "SFENCE.W.INVAL and SFENCE.INVAL.IR ... are not affected by TVM" (Svinval).
    bench.passes(S, &[asm::bare(SfenceWInval), asm::bare(SfenceInvalIr)]);
    bench.set(csr::MSTATUS, 0);
    bench.passes(S, &[asm::bare(SfenceVma), asm::csrr(asm::A0, csr::SATP), asm::csrw(csr::SATP, asm::ZERO)]);
}

/// 3.1.6.6: TW. An implementation may trap at once, even where WFI would not have waited.
#[test]
fn tw_closes_wfi_below_machine_mode() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, mstatus::TW);
    bench.set(csr::MIDELEG, 1 << 1);
    bench.set(csr::MIE, 1 << 1);
    bench.wire(1 << 1, true);
    bench.illegal(S, asm::bare(Wfi));
    bench.passes(M, &[asm::bare(Wfi)]);
}

/// 3.1.6.6: TSR.
#[test]
fn tsr_closes_sret_to_supervisors() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, mstatus::TSR | mstatus::SPP);
    bench.set(csr::SEPC, CODE + 4);
    bench.illegal(S, asm::bare(Sret));
    bench.passes(M, &[asm::bare(Sret)]);
}

/// CMO extension, 2.5.1: the envcfg fields, and that U needs both registers.
#[test]
fn envcfg_opens_cache_block_instructions() {
    let fields = [
        (CboInval, [1 << 4, 3 << 4].as_slice()),
        (CboClean, &[envcfg::CBCFE]),
        (CboFlush, &[envcfg::CBCFE]),
        (CboZero, &[envcfg::CBZE]),
    ];
    let all = envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE;
    let mut bench = Bench::new("rv64");
    for (op, values) in fields {
        let word = asm::i(op, 0, asm::A0, 0);
        bench.set_x(asm::A0, DATA);
        let field = values.iter().fold(0, |field, value| field | value);
        let closed = all & !field;
        for &value in values {
            for (menvcfg, senvcfg) in [(closed, closed), (closed, value), (value, closed), (value, value)] {
                bench.set(csr::MENVCFG, menvcfg);
                bench.set(csr::SENVCFG, senvcfg);
                bench.open(menvcfg == value, S, word);
                bench.open(menvcfg == value && senvcfg == value, U, word);
                bench.passes(M, &[word]);
            }
        }
    }
}

/// Zicboz, CMO 2.5.2: the whole block, whatever the address in it, and the address itself in xtval.
#[test]
fn cbo_zero_clears_a_block_and_traps_with_its_address() {
    let mut bench = Bench::new("rv64");
    bench.write(DATA, &[0xa5; 256]);
    bench.set_x(asm::A0, DATA + 64 + 13);
    bench.passes(M, &[asm::i(CboZero, 0, asm::A0, 0)]);
    let words: Vec<u64> = (0..256).step_by(8).map(|at| bench.read_u64(DATA + at)).collect();
    let expected = |n| if (8..16).contains(&n) { 0 } else { u64::from_ne_bytes([0xa5; 8]) };
    assert_eq!(words, (0..32).map(expected).collect::<Vec<u64>>());
    bench.set_x(asm::A0, NOWHERE + 13);
    bench.faults(M, &[asm::i(CboZero, 0, asm::A0, 0)], cause::STORE_ACCESS_FAULT, NOWHERE + 13);
}

/// CMO 2.5.2: the others need a right to load or to store; if there is none, the fault is that of a store.
#[test]
fn cache_block_management_needs_any_access() {
    const NAPOT: u64 = 0x18;
    let mut bench = Bench::new("rv64");
    bench.set(csr::MENVCFG, u64::MAX);
    bench.set_x(asm::A0, DATA + 13);
    bench.set(csr::PMPADDR0 + 1, (1 << 54) - 1);
    bench.set(csr::PMPADDR0, DATA >> 2 | 0x1ff);
    for permissions in [0, 1, 3, 4] {
        bench.set(csr::PMPCFG0, 0x1f << 8 | NAPOT | permissions);
        for op in [CboClean, CboFlush, CboInval] {
            let word = asm::i(op, 0, asm::A0, 0);
            if permissions & 1 != 0 {
                bench.passes(S, &[word]);
            } else {
                bench.faults(S, &[word], cause::STORE_ACCESS_FAULT, DATA + 13);
            }
        }
    }
}

/// 3.1.16: the faulting instruction, in as many bits as it has.
#[test]
fn illegal_instructions_tell_their_bits() {
    let mut bench = Bench::new("rv64");
    bench.illegal(M, 0xffff_ffff);
    // Without Zimop, Zfh, Zicond.
    bench.illegal(U, asm::bare(MopR));
    bench.illegal(U, asm::bare(FaddH));
    bench.illegal(U, asm::bare(CzeroEqz));
    // All zeros; c.lbu and c.mul without Zcb. The other half is not part of the instruction.
    for half in [0x0000, 0x8000, 0x9c41] {
        let taken = bench.run(M, &[half | 0xffff_0000]);
        assert_eq!((taken.cause, taken.tval), (cause::ILLEGAL_INSTRUCTION, half.into()));
    }
}

/// Unprivileged, "RV32I": with IALIGN=16 no branch can be misaligned; `jalr` clears bit 0.
#[test]
fn no_jump_is_misaligned() {
    let mut bench = Bench::new("rv64");
    bench.write(CODE + 0x102, &0x9002_u16.to_le_bytes());
    for offset in [0x102, 0x103] {
        bench.set_x(asm::A0, CODE + offset);
        let taken = bench.run(U, &[asm::i(Jalr, 0, asm::A0, 0)]);
        assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, CODE + 0x102));
    }
    let taken = bench.run(U, &[asm::j(0x102)]);
    assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, CODE + 0x102));
}
