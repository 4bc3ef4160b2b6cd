//! mstatus.FS (3.1.6.6) and the floating-point CSRs.

use frontend::Opcode::{FaddS, FeqS, Fld, FmvXW, Fsw};
use frontend::csr_name::number as csr;
use jit::Hart as _;

use crate::bench::*;
use crate::harness::asm;

const INITIAL: u64 = 1 << 13;
const CLEAN: u64 = 2 << 13;

fn state(bench: &mut Bench) -> u64 {
    bench.get(csr::MSTATUS) & mstatus::FS
}

#[test]
fn everything_is_illegal_while_fs_is_off() {
    let mut bench = Bench::new("max");
    bench.set_x(asm::A0, DATA);
    let words = [
        asm::r(FaddS, 1, 2, 3),
        asm::r(FmvXW, asm::A1, 2, 0),
        asm::i(Fld, 1, asm::A0, 0),
        asm::s(Fsw, 1, asm::A0, 0),
        asm::csrr(asm::A1, csr::FCSR),
        asm::csrr(asm::A1, csr::FFLAGS),
        asm::csrw(csr::FRM, asm::ZERO),
    ];
    for mode in MODES {
        for word in words {
            bench.set(csr::MSTATUS, 0);
            bench.illegal(mode, word);
            bench.set(csr::MSTATUS, INITIAL);
            bench.passes(mode, &[word]);
        }
        // c.fld fa0, 0(a0)
        bench.set(csr::MSTATUS, 0);
        let taken = bench.run(mode, &[0x2108]);
        assert_eq!((taken.cause, taken.tval), (cause::ILLEGAL_INSTRUCTION, 0x2108));
    }
}

/// What changes an f register or fcsr makes the state Dirty. Hardware may do so more often, but this one does not.
#[test]
fn changes_make_fs_dirty() {
    let mut bench = Bench::new("rv64");
    bench.set_x(asm::A0, DATA);
    for (word, dirty) in [
        (asm::r(FaddS, 1, 2, 3), true),
        (asm::i(Fld, 1, asm::A0, 0), true),
        (asm::csrw(csr::FRM, asm::ZERO), true),
        (asm::csrw(csr::FFLAGS, asm::ZERO), true),
        (asm::csrr(asm::A1, csr::FCSR), false),
        (asm::r(FmvXW, asm::A1, 2, 0), false),
        (asm::s(Fsw, 1, asm::A0, 0), false),
    ] {
        for before in [INITIAL, CLEAN] {
            bench.set(csr::MSTATUS, before);
            bench.passes(U, &[word]);
            assert_eq!(state(&mut bench), if dirty { mstatus::FS } else { before }, "{word:#x}");
        }
    }
    // A comparison that raises the invalid flag.
    bench.set(csr::MSTATUS, CLEAN);
    bench.hart.state().f[2] = 0xffff_ffff_7f80_0001;
    bench.passes(U, &[asm::r(FeqS, asm::A1, 2, 2)]);
    assert_eq!((state(&mut bench), bench.get(csr::FFLAGS)), (mstatus::FS, 0x10));
}

/// A load that faults changes no f register; the store behind it has not been executed.
#[test]
fn a_faulting_load_changes_no_register() {
    let mut bench = Bench::new("rv64");
    bench.set(csr::MSTATUS, CLEAN);
    bench.set_x(asm::A0, NOWHERE);
    bench.hart.state().f[1] = 0x1234;
    bench.faults(U, &[asm::i(Fld, 1, asm::A0, 0)], cause::LOAD_ACCESS_FAULT, NOWHERE);
    assert_eq!(bench.hart.state().f[1], 0x1234);
}

/// 3.1.6.6: without F the field may be read-only zero, and then nothing of floating point is there.
#[test]
fn a_hart_without_f_has_no_fs() {
    let mut bench = Bench::new("rv64,f=off");
    assert_eq!(bench.put(csr::MSTATUS, mstatus::FS) & (mstatus::FS | mstatus::SD), 0);
    bench.illegal(M, asm::csrr(asm::A0, csr::FCSR));
    bench.illegal(M, asm::r(FaddS, 1, 2, 3));
}
