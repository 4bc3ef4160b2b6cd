//! Accesses by physical address: access faults and PMP (3.1.16, 3.7).

use frontend::Opcode::{AmoaddW, Ecall, Fld, Jalr, Ld, LrW, Lw, ScW, Sd, Sw};
use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::{RAM, asm};

const END_OF_RAM: u64 = RAM + (16 << 20);

#[test]
fn nothing_is_beyond_ram() {
    let mut bench = Bench::new("rv64");
    for address in [END_OF_RAM, NOWHERE, 0xffff_ffff_ffff_fff0] {
        bench.set_x(asm::A0, address);
        for (word, exception) in [
            (asm::i(Lw, asm::A1, asm::A0, 0), cause::LOAD_ACCESS_FAULT),
            (asm::s(Sw, asm::A1, asm::A0, 0), cause::STORE_ACCESS_FAULT),
            (asm::r(AmoaddW, asm::A1, asm::A0, asm::A2), cause::STORE_ACCESS_FAULT),
            (asm::r(LrW, asm::A1, asm::A0, 0), cause::LOAD_ACCESS_FAULT),
            (asm::r(ScW, asm::A1, asm::A0, asm::A2), cause::STORE_ACCESS_FAULT),
        ] {
            bench.faults(M, &[word], exception, address);
        }
        let taken = bench.run(M, &[asm::i(Jalr, 0, asm::A0, 0)]);
        assert_eq!((taken.cause, taken.epc, taken.tval), (cause::INSTRUCTION_ACCESS_FAULT, address, address));
    }
}

/// 3.1.16: the address is that of the part that faults. No byte of a faulting store is written, no register is loaded.
#[test]
fn accesses_across_the_end_of_ram() {
    let mut bench = Bench::new("rv64");
    bench.write_u64(END_OF_RAM - 8, 0x1122_3344_5566_7788);
    bench.set_x(asm::A0, END_OF_RAM - 3);
    bench.set_x(asm::A1, u64::MAX);
    bench.faults(M, &[asm::i(Ld, asm::A1, asm::A0, 0)], cause::LOAD_ACCESS_FAULT, END_OF_RAM);
    bench.faults(M, &[asm::s(Sd, asm::A1, asm::A0, 0)], cause::STORE_ACCESS_FAULT, END_OF_RAM);
    assert_eq!(bench.x(asm::A1), u64::MAX);
    assert_eq!(bench.read_u64(END_OF_RAM - 8), 0x1122_3344_5566_7788);
    // The first half of a 32-bit instruction.
    bench.write(END_OF_RAM - 2, &0x0013_u16.to_le_bytes());
    let taken = bench.run_at(M, END_OF_RAM - 2);
    let want = (cause::INSTRUCTION_ACCESS_FAULT, END_OF_RAM - 2, END_OF_RAM);
    assert_eq!((taken.cause, taken.epc, taken.tval), want);
}

/// 3.1.16, "A": atomics must be aligned.
#[test]
fn misaligned_atomics() {
    let mut bench = Bench::new("rv64");
    bench.set_x(asm::A0, DATA + 2);
    bench.faults(U, &[asm::r(AmoaddW, asm::A1, asm::A0, 0)], cause::STORE_MISALIGNED, DATA + 2);
    bench.faults(U, &[asm::r(ScW, asm::A1, asm::A0, 0)], cause::STORE_MISALIGNED, DATA + 2);
    bench.faults(U, &[asm::r(LrW, asm::A1, asm::A0, 0)], cause::LOAD_MISALIGNED, DATA + 2);
}

/// 3.7.1: without a matching entry M may do everything, S and U nothing.
#[test]
fn pmp_denies_by_default_below_machine_mode() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::PMPCFG0, 0);
    for mode in [U, S] {
        let taken = bench.run(mode, &[]);
        assert_eq!((taken.cause, taken.epc, taken.tval), (cause::INSTRUCTION_ACCESS_FAULT, CODE, CODE));
    }
    bench.passes(M, &[asm::nop()]);
}

/// 3.7.1: R, W and X of the first matching entry. It binds M only if it is locked.
#[test]
fn pmp_entries_allow_and_deny() {
    const NAPOT: u64 = 0x18;
    let load = asm::i(Lw, asm::A1, asm::A0, 0);
    // Stores what is there: the code that is executed.
    let store = asm::s(Sw, asm::A2, asm::A0, 0);
    for permissions in [0, 1, 3, 4, 5, 7] {
        for lock in [0, 0x80] {
            let mut bench = Bench::new("rv64");
            // Entry 0 is the page of data, entry 1 is everything.
            bench.set(csr::PMPADDR0 + 1, (1 << 54) - 1);
            bench.set(csr::PMPADDR0, DATA >> 2 | 0x1ff);
            bench.set(csr::PMPCFG0, 0x1f << 8 | NAPOT | permissions | lock);
            bench.set_x(asm::A0, DATA + 0x80);
            bench.set_x(asm::A2, asm::bare(Ecall).into());
            bench.write_code(DATA + 0x80, &[asm::bare(Ecall)]);
            for mode in MODES {
                let allows = |permission| permissions & permission != 0 || (mode == M && lock == 0);
                let want = if allows(4) { 8 + mode as u64 } else { cause::INSTRUCTION_ACCESS_FAULT };
                assert_eq!(bench.run_at(mode, DATA + 0x80).cause, want);
                for (permission, word, exception) in
                    [(1, load, cause::LOAD_ACCESS_FAULT), (2, store, cause::STORE_ACCESS_FAULT)]
                {
                    if allows(permission) {
                        bench.passes(mode, &[word]);
                    } else {
                        bench.faults(mode, &[word], exception, DATA + 0x80);
                    }
                }
            }
        }
    }
}

/// 3.7.1.3: an entry that matches some bytes of an access fails it.
#[test]
fn pmp_entries_must_match_all_bytes() {
    const NA4: u64 = 0x10;
    let mut bench = Bench::new("rv64");
    bench.set(csr::PMPADDR0 + 1, (1 << 54) - 1);
    bench.set(csr::PMPADDR0, (DATA + 8) >> 2);
    bench.set(csr::PMPCFG0, 0x1f << 8 | NA4 | 7);
    bench.set_x(asm::A0, DATA);
    for mode in MODES {
        bench.passes(mode, &[asm::i(Lw, asm::A1, asm::A0, 8), asm::i(Ld, asm::A1, asm::A0, 0)]);
        bench.faults(mode, &[asm::i(Ld, asm::A1, asm::A0, 8)], cause::LOAD_ACCESS_FAULT, DATA + 8);
    }
}

/// 3.1.6.3: with MPRV loads and stores, but not fetches, are those of MPP.
#[test]
fn mprv_lends_a_mode_to_loads_and_stores() {
    let mut bench = Bench::new("rv64");
    // Only M may touch anything.
    bench.set(csr::PMPCFG0, 0);
    bench.set_x(asm::A0, DATA);
    let load = asm::i(Ld, asm::A1, asm::A0, 0);
    let store = asm::s(Sd, asm::A1, asm::A0, 0);
    for (mpp, allowed) in [(0, false), (mstatus::MPP_S, false), (mstatus::MPP, true)] {
        for (word, exception) in [(load, cause::LOAD_ACCESS_FAULT), (store, cause::STORE_ACCESS_FAULT)] {
            bench.set(csr::MSTATUS, mstatus::MPRV | mpp);
            if allowed {
                bench.passes(M, &[word]);
            } else {
                bench.faults(M, &[word], exception, DATA);
            }
            bench.set(csr::MSTATUS, mpp);
            bench.passes(M, &[word]);
        }
    }
    bench.set(csr::MSTATUS, mstatus::MPRV | mstatus::FS);
    bench.faults(M, &[asm::i(Fld, 1, asm::A0, 0)], cause::LOAD_ACCESS_FAULT, DATA);
    // It takes effect at the next instruction.
    bench.set(csr::MSTATUS, 0);
    bench.set_x(asm::A2, mstatus::MPRV);
    let taken = bench.run(M, &[load, asm::csrrs(0, csr::MSTATUS, asm::A2), load]);
    assert_eq!((taken.cause, taken.epc), (cause::LOAD_ACCESS_FAULT, CODE + 8));
}
