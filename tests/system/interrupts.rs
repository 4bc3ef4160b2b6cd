//! Interrupts: enables, delegation, priority, sources, and WFI (3.1.9, 3.3.3, 12.1.3, Sstc).

use std::time::Duration;

use frontend::Opcode::{self, Csrrci, Csrrsi, Mret, Sd, Sret, Wfi};
use frontend::csr_name::number as csr;
use jit::Hart as _;

use crate::bench::*;
use crate::harness::asm;

const SSI: u64 = 1;
const MSI: u64 = 3;
const STI: u64 = 5;
const MTI: u64 = 7;
const SEI: u64 = 9;
const MEI: u64 = 11;

const CLINT_MSIP: u64 = 0x200_0000;
const CLINT_MTIMECMP: u64 = 0x200_4000;

fn bit(number: u64) -> u64 {
    1 << number
}

/// 3.1.9: interrupts for M-mode are taken in M if MIE, and in lower modes always.
#[test]
fn machine_interrupts_need_mie_in_machine_mode_only() {
    for number in [SSI, MSI, STI, MTI, SEI, MEI] {
        let mut bench = Bench::new("rv64");
        bench.wire(bit(number), true);
        bench.set(csr::MSTATUS, mstatus::MIE | mstatus::SIE);
        MODES.into_iter().for_each(|mode| bench.passes(mode, &[]));
        bench.set(csr::MIE, bit(number));
        bench.set(csr::MSTATUS, 0);
        bench.passes(M, &[]);
        bench.interrupts(S, number, M);
        bench.interrupts(U, number, M);
        bench.set(csr::MSTATUS, mstatus::MIE);
        bench.interrupts(M, number, M);
    }
}

/// 3.1.8, 12.1.1: delegated ones are never taken in M, in S if SIE, and in U always.
#[test]
fn delegated_interrupts_need_sie_in_supervisor_mode() {
    for number in [SSI, STI, SEI] {
        let mut bench = Bench::new("rv64");
        bench.wire(bit(number), true);
        bench.set(csr::MIDELEG, bit(number));
        bench.set(csr::MIE, bit(number));
        bench.set(csr::MSTATUS, mstatus::MIE | mstatus::SIE);
        bench.passes(M, &[]);
        bench.interrupts(S, number, S);
        bench.set(csr::MSTATUS, mstatus::MIE);
        bench.passes(S, &[]);
        bench.interrupts(U, number, S);
    }
}

/// 3.1.9: MEI, MSI, MTI, SEI, SSI, STI; those for M-mode before those that are delegated.
#[test]
fn the_most_urgent_interrupt_is_taken_first() {
    let order = [MEI, MSI, MTI, SEI, SSI, STI];
    let mut bench = Bench::new("rv64");
    bench.set(csr::MIE, u64::MAX);
    bench.wire(order.into_iter().fold(0, |bits, number| bits | bit(number)), true);
    for number in order {
        bench.interrupts(U, number, M);
        bench.wire(bit(number), false);
    }
    bench.passes(U, &[]);

    bench.set(csr::MIDELEG, bit(SEI));
    bench.wire(bit(SEI) | bit(STI), true);
    bench.interrupts(U, STI, M);
    bench.wire(bit(STI), false);
    bench.interrupts(U, SEI, S);
}

/// 3.1.9: an interrupt that a CSR write or a return enables is taken before the next instruction.
#[test]
fn enabling_takes_effect_at_once() {
    let number = |csr: u16| i64::from(csr);
    let mut bench = Bench::new("rv64");
    bench.wire(bit(MSI), true);
    bench.set(csr::MIE, bit(MSI));
    let taken = bench.run(M, &[asm::nop(), asm::i(Csrrsi, 0, 8, number(csr::MSTATUS)), asm::nop()]);
    assert_eq!((taken.cause, taken.epc), (INTERRUPT | MSI, CODE + 8));

    bench.set(csr::MSTATUS, mstatus::MIE);
    bench.set(csr::MIE, 0);
    let taken = bench.run(M, &[asm::nop(), asm::i(Csrrsi, 0, 8, number(csr::MIE)), asm::nop()]);
    assert_eq!((taken.cause, taken.epc), (INTERRUPT | MSI, CODE + 8));

    bench.set(csr::MSTATUS, mstatus::MPIE | mstatus::MPP);
    bench.set(csr::MEPC, CODE + 0x20);
    let taken = bench.run(M, &[asm::bare(Mret)]);
    assert_eq!((taken.cause, taken.epc), (INTERRUPT | MSI, CODE + 0x20));

    // And one that is disabled is not taken any more.
    bench.wire(bit(MSI), false);
    bench.wire(bit(SSI), true);
    bench.set(csr::MIDELEG, bit(SSI));
    bench.set(csr::MIE, bit(SSI));
    bench.set(csr::MSTATUS, mstatus::SPIE | mstatus::SPP);
    bench.set(csr::SEPC, CODE + 0x20);
    let taken = bench.run(S, &[asm::bare(Sret)]);
    assert_eq!((taken.cause, taken.epc, taken.to), (INTERRUPT | SSI, CODE + 0x20, S));
    bench.set(csr::MSTATUS, mstatus::SIE);
    bench.wire(bit(SSI), false);
    bench.set_x(asm::A0, 2);
    bench.passes(
        S,
        &[asm::i(Csrrci, 0, 2, number(csr::SSTATUS)), asm::csrrs(0, csr::SIP, asm::A0), asm::nop()],
    );
    assert_eq!(bench.get(csr::SIP) & bit(SSI), bit(SSI));
}

/// 3.1.9: SEIP is the OR of a wire and a bit that M-mode writes. Set and clear work on the bit alone, reads show both.
#[test]
fn seip_is_a_wire_and_a_bit() {
    let seip = bit(SEI);
    let mut bench = Bench::new("rv64");
    bench.set_x(asm::A0, seip);
    bench.wire(seip, true);
    assert_eq!(bench.get(csr::MIP), seip);
    // Neither csrrs of another bit nor csrrc of this one copies or clears the wire.
    bench.set_x(asm::A1, bit(SSI));
    bench.passes(M, &[asm::csrrs(asm::A2, csr::MIP, asm::A1), asm::csrrc(asm::A3, csr::MIP, asm::A0)]);
    assert_eq!((bench.x(asm::A2), bench.x(asm::A3)), (seip, seip | bit(SSI)));
    assert_eq!(bench.get(csr::MIP), seip | bit(SSI));
    bench.wire(seip, false);
    assert_eq!(bench.get(csr::MIP), bit(SSI));
    bench.passes(M, &[asm::csrrs(0, csr::MIP, asm::A0)]);
    assert_eq!(bench.get(csr::MIP), seip | bit(SSI));
    bench.wire(seip, true);
    bench.wire(seip, false);
    assert_eq!(bench.get(csr::MIP), seip | bit(SSI), "the bit stays");
    bench.passes(M, &[asm::csrrc(0, csr::MIP, asm::A0)]);
    assert_eq!(bench.get(csr::MIP), bit(SSI));
}

/// Sstc: who may use stimecmp.
#[test]
fn stimecmp_needs_stce_and_tm_below_machine_mode() {
    let mut bench = Bench::new("rv64");
    for (stce, tm) in [(0, 0), (0, 2), (envcfg::STCE, 0), (envcfg::STCE, 2)] {
        bench.set(csr::MENVCFG, stce);
        bench.set(csr::MCOUNTEREN, tm);
        for word in [asm::csrr(asm::A0, csr::STIMECMP), asm::csrw(csr::STIMECMP, asm::ZERO)] {
            bench.open(stce != 0 && tm != 0, S, word);
            bench.passes(M, &[word]);
            bench.illegal(U, word);
        }
    }
    let mut bench = Bench::new("rv64,sstc=off");
    bench.set(csr::MCOUNTEREN, 2);
    bench.illegal(M, asm::csrr(asm::A0, csr::STIMECMP));
    bench.illegal(S, asm::csrr(asm::A0, csr::STIMECMP));
}

/// Sstc: with STCE, STIP is the comparison and nothing else; without, stimecmp does nothing.
#[test]
fn stip_is_the_comparison_with_stimecmp() {
    let stip = bit(STI);
    let mut bench = Bench::new("rv64");
    bench.set(csr::STIMECMP, 0);
    assert_eq!(bench.get(csr::MIP), 0);
    assert_eq!(bench.put(csr::MIP, stip), stip, "a bit that M-mode writes");
    bench.set(csr::STIMECMP, u64::MAX);
    bench.set(csr::MENVCFG, envcfg::STCE);
    assert_eq!(bench.get(csr::MIP), 0, "which does not count with STCE");
    bench.set(csr::STIMECMP, 0);
    assert_eq!(bench.get(csr::MIP), stip);
    assert_eq!(bench.put(csr::MIP, 0), stip, "STIP is read-only");
    bench.set(csr::STIMECMP, u64::MAX);
    assert_eq!(bench.put(csr::MIP, stip), 0);
}

/// 3.2.1, Sstc: a running hart is interrupted when its time comes.
#[test]
fn timers_interrupt_running_code() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MENVCFG, envcfg::STCE);
    bench.set(csr::MCOUNTEREN, 2);
    bench.set(csr::MIDELEG, bit(STI));
    bench.set(csr::MIE, bit(STI) | bit(MTI));
    bench.set(csr::MSTATUS, mstatus::SIE);
    let soon = bench.get(csr::TIME) + 50_000;
    bench.set_x(asm::A0, soon);
    let taken = bench.run(S, &[asm::csrw(csr::STIMECMP, asm::A0), asm::nop(), asm::j(-4)]);
    assert_eq!((taken.cause, taken.to), (INTERRUPT | STI, S));
    assert!(bench.get(csr::TIME) >= soon);

    bench.set(csr::STIMECMP, u64::MAX);
    let soon = bench.get(csr::TIME) + 50_000;
    bench.set_x(asm::A0, soon);
    bench.set_x(asm::A1, CLINT_MTIMECMP);
    let taken = bench.run(S, &[asm::s(Sd, asm::A0, asm::A1, 0), asm::nop(), asm::j(-4)]);
    assert_eq!((taken.cause, taken.to), (INTERRUPT | MTI, M));
    assert!(bench.get(csr::TIME) >= soon);
    // The cause is gone when mtimecmp is moved.
    bench.set_x(asm::A0, u64::MAX);
    bench.set(csr::MSTATUS, 0);
    bench.passes(M, &[asm::s(Sd, asm::A0, asm::A1, 0), asm::csrr(asm::A2, csr::MIP)]);
    assert_eq!(bench.x(asm::A2), 0);
    bench.passes(S, &[asm::nop()]);
}

/// The CLINT's msip is mip.MSIP.
#[test]
fn msip_is_a_register_of_the_clint() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MIE, bit(MSI));
    bench.set_x(asm::A0, 1);
    bench.set_x(asm::A1, CLINT_MSIP);
    bench.passes(M, &[asm::s(Opcode::Sw, asm::A0, asm::A1, 0), asm::csrr(asm::A2, csr::MIP)]);
    assert_eq!(bench.x(asm::A2), bit(MSI));
    bench.interrupts(S, MSI, M);
}

/// 3.3.3: WFI goes on when an interrupt is pending that is enabled in mie, whatever MIE, SIE and mideleg say. If it is
/// taken, xepc is the instruction behind the WFI.
#[test]
fn wfi_wakes_up() {
    for deleg in [0, bit(SSI)] {
        let mut bench = Bench::new("rv64");
        bench.set(csr::MIDELEG, deleg);
        bench.set(csr::MIE, bit(SSI));
        let shared = bench.machine.hart_shared(0).expect("hart 0 is there").clone();
        let start = std::time::Instant::now();
        let waker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            shared.set_mip(bit(SSI), true);
        });
        bench.passes(M, &[asm::bare(Wfi), asm::nop()]);
        assert!(start.elapsed() >= Duration::from_millis(20), "it has waited");
        waker.join().expect("the thread has not panicked");
        // Already pending: no wait.
        bench.passes(M, &[asm::bare(Wfi), asm::nop()]);
        let mode = if deleg == 0 { M } else { S };
        bench.write_code(CODE, &[asm::bare(Wfi)]);
        // What comes before the hart waits is taken there; then again, later.
        let waited = (2..14).any(|log2| {
            bench.clear_bits(csr::MIP, bit(SSI));
            bench.set(csr::MSTATUS, mstatus::MIE | mstatus::SIE);
            let shared = bench.machine.hart_shared(0).expect("hart 0 is there").clone();
            let waker = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(1 << log2));
                shared.set_mip(bit(SSI), true);
            });
            let taken = bench.run(mode, &[asm::bare(Wfi)]);
            waker.join().expect("the thread has not panicked");
            assert_eq!((taken.cause, taken.to), (INTERRUPT | SSI, mode));
            assert!([CODE, CODE + 4].contains(&taken.epc), "{:#x}", taken.epc);
            taken.epc == CODE + 4
        });
        assert!(waited, "WFI is interrupted at the instruction behind it");
    }
}

/// 3.3.3, Sstc: the timer ends a wait, too.
#[test]
fn wfi_waits_for_the_timer() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MENVCFG, envcfg::STCE);
    bench.set(csr::MIE, bit(STI));
    let soon = bench.get(csr::TIME) + 100_000;
    bench.set_x(asm::A0, soon);
    bench.passes(M, &[asm::csrw(csr::STIMECMP, asm::A0), asm::bare(Wfi), asm::csrr(asm::A1, csr::TIME)]);
    assert!(bench.x(asm::A1) >= soon);
    assert!(bench.hart.state().pc >= M_VECTOR);
}
