//! Which CSRs there are, who may access them, and which values they take (chapters 2, 3 and 12).

use std::collections::BTreeSet;

use frontend::Opcode::{Csrrci, Csrrsi, Csrrwi};
use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::asm;

const PMPCFG2: u16 = csr::PMPCFG0 + 2;

/// Everything a hart of the model `rv64` has. Not there: debug mode's registers, the upper halves of RV32, and all of H,
/// Smstateen, Smepmp, Smaia, Smrnmi, Smcdeleg, Sscofpmf, V.
fn implemented() -> BTreeSet<u16> {
    let ranges = [
        csr::FFLAGS..=csr::FCSR,
        csr::SSTATUS..=csr::SSTATUS,
        csr::SIE..=csr::SCOUNTEREN,
        csr::SENVCFG..=csr::SENVCFG,
        csr::SSCRATCH..=csr::SIP,
        csr::STIMECMP..=csr::STIMECMP,
        csr::SATP..=csr::SATP,
        csr::MSTATUS..=csr::MCOUNTEREN,
        csr::MENVCFG..=csr::MENVCFG,
        csr::MCOUNTINHIBIT..=csr::MCOUNTINHIBIT,
        csr::MHPMEVENT3..=csr::MHPMEVENT3 + 28,
        csr::MSCRATCH..=csr::MIP,
        csr::PMPCFG0..=csr::PMPCFG0,
        PMPCFG2..=PMPCFG2,
        csr::PMPADDR0..=csr::PMPADDR0 + 15,
        csr::TSELECT..=csr::TINFO,
        csr::MCYCLE..=csr::MCYCLE,
        csr::MINSTRET..=csr::MINSTRET,
        csr::MHPMCOUNTER3..=csr::MHPMCOUNTER3 + 28,
        csr::CYCLE..=csr::HPMCOUNTER3 + 28,
        csr::MVENDORID..=csr::MCONFIGPTR,
    ];
    ranges.into_iter().flatten().collect()
}

/// 2.1: bits 9 to 8 of the number are the least mode, and both bits 11 to 10 mean read-only. 2.2: everything else is
/// illegal, for every access.
#[test]
fn every_number_in_every_mode() {
    let implemented = implemented();
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, mstatus::FS);
    bench.set(csr::MENVCFG, envcfg::STCE);
    bench.set(csr::MCOUNTEREN, u64::MAX);
    bench.set(csr::SCOUNTEREN, u64::MAX);
    bench.set_x(asm::T0, 0);
    for number in 0..0x1000 {
        for mode in MODES {
            let readable = implemented.contains(&number) && u64::from(number >> 8 & 3) <= mode as u64;
            let writable = readable && number >> 10 != 3;
            bench.open(readable, mode, asm::csrr(asm::A0, number));
            bench.open(readable, mode, asm::i(Csrrci, asm::A0, 0, number.into()));
            // Sets and clears no bit, but is a write because the register is not x0.
            bench.open(writable, mode, asm::csrrs(asm::A0, number, asm::T0));
            bench.open(writable, mode, asm::csrrc(asm::A0, number, asm::T0));
        }
    }
}

/// Zicsr: what reaches the CSR and the register.
#[test]
fn the_six_instructions() {
    let mut bench = Bench::new("rv64");
    let number = i64::from(csr::MSCRATCH);
    let word = |op, imm5| asm::i(op, asm::A1, imm5, number);
    for (insn, old, operand, want) in [
        (asm::csrrw(asm::A1, csr::MSCRATCH, asm::A0), 0xff00, 0x0ff0, 0x0ff0),
        (asm::csrrs(asm::A1, csr::MSCRATCH, asm::A0), 0xff00, 0x0ff0, 0xfff0),
        (asm::csrrc(asm::A1, csr::MSCRATCH, asm::A0), 0xff00, 0x0ff0, 0xf000),
        (word(Csrrwi, 0x15), 0xff0f, 0, 0x15),
        (word(Csrrsi, 0x15), 0xff0a, 0, 0xff1f),
        (word(Csrrci, 0x15), 0xff1f, 0, 0xff0a),
    ] {
        bench.set(csr::MSCRATCH, old);
        bench.set_x(asm::A0, operand);
        bench.passes(M, &[insn]);
        assert_eq!((bench.x(asm::A1), bench.get(csr::MSCRATCH)), (old, want), "{insn:#x}");
    }
    // Source and destination in one register.
    bench.set(csr::MSCRATCH, 1);
    bench.set_x(asm::A0, 2);
    bench.passes(M, &[asm::csrrw(asm::A0, csr::MSCRATCH, asm::A0)]);
    assert_eq!((bench.x(asm::A0), bench.get(csr::MSCRATCH)), (1, 2));
}

/// What registers hold after all ones and after zero were written. WARL and WLRL fields, 2.3.
#[test]
fn registers_keep_their_legal_values() {
    let ones = u64::MAX;
    let writable = mstatus::SIE | mstatus::MIE | mstatus::SPIE | mstatus::MPIE | mstatus::SPP | mstatus::MPP;
    let writable = writable | mstatus::FS | mstatus::MPRV | mstatus::SUM | mstatus::MXR;
    let writable = writable | mstatus::TVM | mstatus::TW | mstatus::TSR;
    let sstatus = mstatus::SIE | mstatus::SPIE | mstatus::SPP | mstatus::FS | mstatus::SUM | mstatus::MXR;
    let s_level = 1 << 1 | 1 << 5 | 1 << 9;
    let all_irqs = s_level | 1 << 3 | 1 << 7 | 1 << 11;
    let counters = 0xffff_ffff;
    let senvcfg = envcfg::FIOM | envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE;
    let menvcfg = senvcfg | envcfg::ADUE | envcfg::STCE;
    let mut bench = Bench::new("rv64");
    let misa = bench.get(csr::MISA);
    let exceptions = 0xb3ff;
    for (number, after_ones, after_zero) in [
        (csr::MSTATUS, writable | mstatus::UXL_SXL_64 | mstatus::SD, mstatus::UXL_SXL_64),
        (csr::SSTATUS, sstatus | 2 << 32 | mstatus::SD, 2 << 32),
        (csr::MISA, misa, misa),
        (csr::MEDELEG, exceptions, 0),
        (csr::MIDELEG, s_level, 0),
        (csr::MIE, all_irqs, 0),
        // Mode 3 is reserved; 1 is legal. The base is aligned.
        (csr::MTVEC, ones & !2, 0),
        (csr::STVEC, ones & !2, 0),
        (csr::MCOUNTEREN, counters, 0),
        (csr::SCOUNTEREN, counters, 0),
        (csr::MENVCFG, menvcfg, 0),
        (csr::SENVCFG, senvcfg, 0),
        // There is no bit for time.
        (csr::MCOUNTINHIBIT, 0b101, 0),
        (csr::MHPMEVENT3, 0, 0),
        (csr::MHPMCOUNTER3, 0, 0),
        (csr::MSCRATCH, ones, 0),
        (csr::SSCRATCH, ones, 0),
        (csr::MEPC, ones & !1, 0),
        (csr::SEPC, ones & !1, 0),
        (csr::MTVAL, ones, 0),
        (csr::STVAL, ones, 0),
        // Mode 15 is reserved: the write does nothing.
        (csr::SATP, 0, 0),
        (csr::STIMECMP, ones, 0),
        (csr::FCSR, 0xff, 0),
        (csr::FFLAGS, 0x1f, 0),
        (csr::FRM, 7, 0),
        (csr::PMPADDR0 + 3, (1 << 54) - 1, 0),
        // Triggers: there is none (Debug 5.7).
        (csr::TSELECT, 0, 0),
        (csr::TDATA1, 0, 0),
    ] {
        bench.set_bits(csr::MSTATUS, mstatus::FS);
        assert_eq!(bench.put(number, ones), after_ones, "{number:#x}, ones");
        // mstatus itself closes the floating-point registers.
        let zero = bench.put(number, 0);
        assert_eq!(zero, after_zero, "{number:#x}, zero");
    }
}

/// 3.1.6.1: there is no mode 2; the field keeps what it had.
#[test]
fn mpp_holds_the_modes_there_are() {
    let mut bench = Bench::new("rv64");
    for legal in [0, mstatus::MPP_S, mstatus::MPP] {
        assert_eq!(bench.put(csr::MSTATUS, legal) & mstatus::MPP, legal);
        assert_eq!(bench.put(csr::MSTATUS, 2 << 11) & mstatus::MPP, legal);
    }
}

/// 3.1.6.4: SD is 1 exactly if FS is Dirty, and cannot be written.
#[test]
fn sd_sums_up_fs() {
    let mut bench = Bench::new("rv64");
    for fs in 0..4 {
        let sd = if fs == 3 { mstatus::SD } else { 0 };
        assert_eq!(
            bench.put(csr::MSTATUS, fs << 13 | !sd & mstatus::SD) & (mstatus::FS | mstatus::SD),
            fs << 13 | sd
        );
        assert_eq!(bench.get(csr::SSTATUS) & (mstatus::FS | mstatus::SD), fs << 13 | sd);
    }
}

/// 12.1.1: sstatus is a subset of mstatus, and writing it leaves the rest.
#[test]
fn sstatus_is_a_view_of_mstatus() {
    let mut bench = Bench::new("rv64");
    let machine = mstatus::MIE | mstatus::MPIE | mstatus::MPP | mstatus::TSR | mstatus::TW;
    bench.set(csr::MSTATUS, machine | mstatus::SUM);
    bench.set(csr::SSTATUS, mstatus::SPP | mstatus::MPRV);
    assert_eq!(bench.get(csr::MSTATUS), machine | mstatus::SPP | mstatus::UXL_SXL_64);
}

/// 12.1.11: a write with an unsupported mode has no effect at all.
#[test]
fn satp_takes_supported_modes_only() {
    let value = |mode: u64| mode << 60 | 0xabcd << 44 | 0x8_0123;
    for (cpu, largest) in [("rv64", 10), ("rv64,sv57=off", 9), ("rva22s64", 8)] {
        let mut bench = Bench::new(cpu);
        for mode in 1..16 {
            bench.set(csr::SATP, 0x5);
            let supported = (8..=largest).contains(&mode);
            let want = if supported { value(mode) } else { 0x5 };
            assert_eq!(bench.put(csr::SATP, value(mode)), want, "{cpu}, mode {mode}");
        }
    }
}

/// CMO 2.5.1: CBIE has no value 2.
#[test]
fn cbie_has_three_values() {
    let mut bench = Bench::new("rv64");
    for register in [csr::MENVCFG, csr::SENVCFG] {
        for (value, want) in [(1, 1), (3, 3), (2, 3), (0, 0), (2, 0)] {
            assert_eq!(bench.put(register, value << 4) & envcfg::CBIE, want << 4);
        }
    }
}

/// Fields of menvcfg belong to extensions (3.1.18).
#[test]
fn menvcfg_has_the_fields_of_the_model() {
    let cbo = envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE;
    for (cpu, fields) in [
        ("rv64", envcfg::FIOM | cbo | envcfg::ADUE | envcfg::STCE),
        ("rva22s64", envcfg::FIOM | cbo | envcfg::PBMTE),
        ("rv64,zicboz=off,sstc=off", envcfg::FIOM | envcfg::CBIE | envcfg::CBCFE | envcfg::ADUE),
        ("max", envcfg::FIOM | cbo | envcfg::ADUE | envcfg::STCE | envcfg::PBMTE),
    ] {
        assert_eq!(Bench::new(cpu).put(csr::MENVCFG, u64::MAX), fields, "{cpu}");
    }
}

/// 3.1.9, 12.1.3: what software can write of mip, and what sip and sie show.
#[test]
fn pending_bits_that_software_writes() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, 0);
    let s_level = 1 << 1 | 1 << 5 | 1 << 9;
    assert_eq!(bench.put(csr::MIP, u64::MAX), s_level);
    assert_eq!(bench.get(csr::SIP), 0, "nothing is delegated");
    bench.set(csr::MIDELEG, 1 << 1 | 1 << 5);
    assert_eq!(bench.get(csr::SIP), 1 << 1 | 1 << 5);
    bench.set(csr::MIE, u64::MAX);
    assert_eq!(bench.get(csr::SIE), 1 << 1 | 1 << 5);
    bench.set(csr::SIE, 0);
    assert_eq!(bench.get(csr::MIE), 1 << 3 | 1 << 7 | 1 << 9 | 1 << 11);
    // Only SSIP is writable through sip.
    bench.set(csr::SIP, 0);
    assert_eq!(bench.get(csr::MIP), 1 << 5 | 1 << 9);
    bench.set(csr::MIDELEG, 0);
    bench.set(csr::SIP, u64::MAX);
    assert_eq!(bench.get(csr::MIP), 1 << 5 | 1 << 9, "and not if it is not delegated");
    assert_eq!(bench.put(csr::MIP, 0), 0);
}

/// 3.1.1, 3.1.5: identity.
#[test]
fn machine_information() {
    let mut bench = Bench::new("rv64");
    assert_eq!(bench.get(csr::MHARTID), 0);
    assert_eq!(bench.get(csr::MVENDORID), 0);
    assert_eq!(bench.get(csr::MCONFIGPTR), 0);
    let letters = b"imafdcbsu".iter().fold(2 << 62, |misa, letter| misa | 1 << (letter - b'a'));
    assert_eq!(bench.get(csr::MISA), letters);
}

/// 3.7.1.2: locked entries, and the address below a locked TOR entry, keep their values.
#[test]
fn pmp_locks() {
    const LOCK: u64 = 0x80;
    const TOR: u64 = 0x08;
    let mut bench = Bench::new("rv64");
    // Entry 2 is locked, entry 4 is a locked TOR.
    bench.set(csr::PMPADDR0 + 2, 0x111);
    bench.set(csr::PMPADDR0 + 3, 0x222);
    bench.set(csr::PMPADDR0 + 4, 0x333);
    let locked = LOCK << 16 | (LOCK | TOR | 1) << 32;
    assert_eq!(bench.put(csr::PMPCFG0, 0x1f | locked), 0x1f | locked);
    for entry in [2, 3, 4] {
        let old = bench.get(csr::PMPADDR0 + entry);
        assert_eq!(bench.put(csr::PMPADDR0 + entry, 0x999), old, "entry {entry}");
    }
    assert_eq!(bench.put(csr::PMPADDR0 + 1, 0x999), 0x999);
    assert_eq!(bench.put(csr::PMPCFG0, 0x1f), 0x1f | locked);
    // W without R is reserved.
    assert_eq!(bench.put(PMPCFG2, 0x1a) & 3, 0);
}
