//! Page-based translation as programs see it (12.1.1, 12.1.11, 12.3, Svade, Svadu). The walk itself has its tests in `softmmu`.

use frontend::Opcode::{self, Addi, AmoaddW, Jalr, Ld, Lw, Sd, SfenceVma, Sw};
use frontend::csr_name::number as csr;

use crate::bench::*;
use crate::harness::{RAM, asm};

const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const USER: u64 = 0x10;
const A: u64 = 0x40;
const D: u64 = 0x80;
const SV39: u64 = 8 << 60;

/// Sv39 tables: the root, and those for the addresses from `BASE` on.
const ROOT: u64 = RAM + 0x40_0000;
const TABLE_1: u64 = ROOT + 0x1000;
const TABLE_0: u64 = ROOT + 0x2000;
/// The pages that tests map, in an otherwise empty 2 MiB.
const BASE: u64 = 0x40_0000_0000 >> 4;

/// A hart on whose page tables RAM is mapped for `mode` to itself, and nothing else.
fn bench(cpu: &str, mode: Privilege) -> Bench {
    let mut bench = Bench::new(cpu);
    let user = if mode == U { USER } else { 0 };
    bench.write_u64(ROOT + (RAM >> 30) * 8, RAM >> 12 << 10 | user | V | R | W | X | A | D);
    bench.write_u64(ROOT + (BASE >> 30) * 8, TABLE_1 >> 12 << 10 | V);
    bench.write_u64(TABLE_1 + (BASE >> 21 & 0x1ff) * 8, TABLE_0 >> 12 << 10 | V);
    bench.set(csr::SATP, SV39 | ROOT >> 12);
    bench
}

/// Maps the `n`-th page from `BASE` to the `n`-th page of data.
fn map(bench: &mut Bench, n: u64, flags: u64) -> u64 {
    bench.write_u64(entry(n), (DATA + n * 0x1000) >> 12 << 10 | flags);
    bench.passes(M, &[asm::bare(SfenceVma)]);
    BASE + n * 0x1000
}

fn entry(n: u64) -> u64 {
    TABLE_0 + ((BASE >> 12 & 0x1ff) + n) * 8
}

fn load() -> [u32; 1] {
    [asm::i(Lw, asm::A1, asm::A0, 0)]
}

fn store() -> [u32; 1] {
    [asm::s(Sw, asm::A1, asm::A0, 0)]
}

fn jump() -> [u32; 1] {
    [asm::i(Jalr, 0, asm::A0, 0)]
}

#[test]
fn page_faults_tell_access_and_address() {
    for mode in [U, S] {
        let mut bench = bench("rv64", mode);
        let page = map(&mut bench, 0, 0);
        for address in [page, page + 0x7c, 1 << 38, 1 << 63] {
            bench.set_x(asm::A0, address);
            bench.faults(mode, &load(), cause::LOAD_PAGE_FAULT, address);
            bench.faults(mode, &store(), cause::STORE_PAGE_FAULT, address);
            bench.faults(mode, &[asm::r(AmoaddW, asm::A1, asm::A0, 0)], cause::STORE_PAGE_FAULT, address);
            let taken = bench.run(mode, &jump());
            assert_eq!(
                (taken.cause, taken.epc, taken.tval),
                (cause::INSTRUCTION_PAGE_FAULT, address, address)
            );
        }
    }
}

/// 12.3.2, steps 6 to 8: R, W, X and U.
#[test]
fn pages_allow_what_their_bits_say() {
    for mode in [U, S] {
        let mut bench = bench("rv64", mode);
        let user = if mode == U { USER } else { 0 };
        bench.write_code(DATA, &[0x9002]);
        for flags in [R, R | W, X, R | X, R | W | X] {
            for owner in [user, user ^ USER] {
                let page = map(&mut bench, 0, V | A | D | flags | owner);
                bench.set_x(asm::A0, page);
                let own = owner == user;
                if own && flags & R != 0 {
                    bench.passes(mode, &load());
                } else {
                    bench.faults(mode, &load(), cause::LOAD_PAGE_FAULT, page);
                }
                let taken = bench.run(mode, &jump());
                let executes = own && flags & X != 0;
                let want = if executes { cause::BREAKPOINT } else { cause::INSTRUCTION_PAGE_FAULT };
                assert_eq!((taken.cause, taken.epc), (want, page), "{flags:x}");
                bench.set_x(asm::A1, 0x9002);
                if own && flags & W != 0 {
                    bench.passes(mode, &store());
                } else {
                    bench.faults(mode, &store(), cause::STORE_PAGE_FAULT, page);
                }
            }
        }
    }
}

/// A kernel executes `fence.i` for the new contents of a page once, on the harts that run the process that mapped it. Another hart
/// that comes to run them later, in another address space, must not run what it knows of the page's frame from before.
#[test]
fn new_contents_of_a_page_are_executed_in_a_new_address_space() {
    const NEXT_ASID: u64 = 1 << 44;
    let mut bench = bench("rv64", S);
    let page = map(&mut bench, 0, V | X | A);
    let mut satp = SV39 | ROOT >> 12;
    for value in 1..40 {
        bench.write_code(DATA, &[asm::i(Addi, asm::A1, 0, value), asm::bare(Opcode::Ebreak)]);
        satp += NEXT_ASID;
        bench.set(csr::SATP, satp);
        let taken = bench.run_unfenced_at(S, page);
        assert_eq!((taken.cause, taken.epc), (cause::BREAKPOINT, page + 4));
        assert_eq!(bench.x(asm::A1), value as u64);
    }
}

/// 3.1.6.3: SUM lets S load from and store to pages of U, never execute them.
#[test]
fn sum_opens_user_pages_to_supervisors() {
    let mut bench = bench("rv64", S);
    let page = map(&mut bench, 0, V | R | W | X | A | D | USER);
    bench.set_x(asm::A0, page);
    for sum in [0, mstatus::SUM, 0] {
        bench.set(csr::MSTATUS, sum);
        if sum == 0 {
            bench.faults(S, &load(), cause::LOAD_PAGE_FAULT, page);
            bench.faults(S, &store(), cause::STORE_PAGE_FAULT, page);
        } else {
            bench.passes(S, &[load(), store()].concat());
        }
        assert_eq!(bench.run(S, &jump()).cause, cause::INSTRUCTION_PAGE_FAULT);
    }
    // The CSR write itself, as kernels do it around their copies.
    bench.set_x(asm::A2, mstatus::SUM);
    let (on, off) = (asm::csrrs(0, csr::SSTATUS, asm::A2), asm::csrrc(0, csr::SSTATUS, asm::A2));
    let taken = bench.run(S, &[on, load()[0], off, load()[0]]);
    assert_eq!((taken.cause, taken.epc), (cause::LOAD_PAGE_FAULT, CODE + 12));
}

/// 3.1.6.3: MXR makes pages readable that can only be executed, in S and in U.
#[test]
fn mxr_makes_executable_pages_readable() {
    for (mode, user) in [(S, 0), (U, USER)] {
        let mut bench = bench("rv64", mode);
        let page = map(&mut bench, 0, V | X | A | user);
        bench.set_x(asm::A0, page);
        bench.faults(mode, &load(), cause::LOAD_PAGE_FAULT, page);
        bench.set(csr::MSTATUS, mstatus::MXR);
        bench.passes(mode, &load());
        bench.faults(mode, &store(), cause::STORE_PAGE_FAULT, page);
        bench.set(csr::MSTATUS, 0);
        bench.faults(mode, &load(), cause::LOAD_PAGE_FAULT, page);
    }
}

/// 3.1.6.3: MPRV translates the loads of M-mode as those of MPP, with SUM and MXR.
#[test]
fn mprv_translates() {
    let mut bench = bench("rv64", S);
    let page = map(&mut bench, 0, V | R | A | D | USER);
    bench.write_u64(DATA, 0x1234);
    bench.set_x(asm::A0, page);
    bench.faults(M, &load(), cause::LOAD_ACCESS_FAULT, page);
    bench.set(csr::MSTATUS, mstatus::MPRV);
    bench.passes(M, &load());
    assert_eq!(bench.x(asm::A1), 0x1234);
    bench.set(csr::MSTATUS, mstatus::MPRV | mstatus::MPP_S);
    bench.faults(M, &load(), cause::LOAD_PAGE_FAULT, page);
    bench.set(csr::MSTATUS, mstatus::MPRV | mstatus::MPP_S | mstatus::SUM);
    bench.passes(M, &load());
}

/// 3.1.16: for accesses across pages the address of the part that faults. Nothing of the store is done.
#[test]
fn accesses_across_pages() {
    let mut bench = bench("rv64", S);
    let first = map(&mut bench, 0, V | R | W | X | A | D);
    let second = map(&mut bench, 1, V | R | X | A);
    let third = map(&mut bench, 2, 0);
    bench.write_u64(DATA + 0xff8, 0x1111_1111_1111_1111);
    bench.set_x(asm::A1, 0x8877_6655_4433_2211);
    bench.set_x(asm::A0, second - 3);
    bench.faults(S, &[asm::s(Sd, asm::A1, asm::A0, 0)], cause::STORE_PAGE_FAULT, second);
    assert_eq!(bench.read_u64(DATA + 0xff8), 0x1111_1111_1111_1111);
    bench.passes(S, &[asm::i(Ld, asm::A2, asm::A0, 0)]);
    bench.set_x(asm::A0, third - 3);
    bench.faults(S, &[asm::i(Ld, asm::A2, asm::A0, 0)], cause::LOAD_PAGE_FAULT, third);

    // `addi a3, zero, 5` in halves: in one page after the other, and with its second half missing.
    let word = asm::li(asm::A3, 5).to_le_bytes();
    bench.write(DATA + 0xffe, &word[..2]);
    bench.write(DATA + 0x1000, &word[2..]);
    bench.write(DATA + 0x1002, &0x9002_u16.to_le_bytes());
    let taken = bench.run_at(S, first + 0xffe);
    assert_eq!((taken.cause, taken.epc, bench.x(asm::A3)), (cause::BREAKPOINT, second + 2, 5));
    bench.write(DATA + 0x1ffe, &word[..2]);
    let taken = bench.run_at(S, second + 0xffe);
    let want = (cause::INSTRUCTION_PAGE_FAULT, second + 0xffe, third);
    assert_eq!((taken.cause, taken.epc, taken.tval), want);
}

/// Svade: a clear A bit, or D bit of a store, is a page fault. Svadu: they are set, if menvcfg.ADUE.
#[test]
fn accessed_and_dirty_bits() {
    for (cpu, adue) in [("rva22s64", 0), ("rv64", 0), ("rv64", envcfg::ADUE)] {
        let mut bench = bench(cpu, S);
        bench.set(csr::MENVCFG, adue);
        bench.write_code(DATA, &[0x9002]);
        let base = V | R | W | X;
        let page = map(&mut bench, 0, base);
        bench.set_x(asm::A0, page);
        let flags = |bench: &Bench| bench.read_u64(entry(0)) & 0x3ff;
        if adue == 0 {
            bench.faults(S, &load(), cause::LOAD_PAGE_FAULT, page);
            bench.faults(S, &store(), cause::STORE_PAGE_FAULT, page);
            assert_eq!(bench.run(S, &jump()).cause, cause::INSTRUCTION_PAGE_FAULT);
            assert_eq!(flags(&bench), base, "{cpu}");
            map(&mut bench, 0, base | A);
            bench.passes(S, &load());
            bench.faults(S, &store(), cause::STORE_PAGE_FAULT, page);
            assert_eq!(flags(&bench), base | A);
            map(&mut bench, 0, base | A | D);
            bench.passes(S, &store());
        } else {
            bench.passes(S, &load());
            assert_eq!(flags(&bench), base | A);
            bench.passes(S, &store());
            assert_eq!(flags(&bench), base | A | D);
            bench.write_code(DATA, &[0x9002]);
            map(&mut bench, 0, base);
            assert_eq!(bench.run(S, &jump()).cause, cause::BREAKPOINT);
            assert_eq!(flags(&bench), base | A);
        }
    }
}

/// Svpbmt: the memory types are reserved bits without menvcfg.PBMTE, and one of them always.
#[test]
fn memory_types_need_pbmte() {
    for (cpu, implemented) in [("max", true), ("rv64", false)] {
        let mut bench = bench(cpu, S);
        for pbmte in [0, envcfg::PBMTE] {
            for memory_type in 0..4 {
                bench.set(csr::MENVCFG, pbmte);
                let page = map(&mut bench, 0, V | R | A | memory_type << 61);
                bench.set_x(asm::A0, page);
                if memory_type == 0 || implemented && pbmte != 0 && memory_type != 3 {
                    bench.passes(S, &load());
                } else {
                    bench.faults(S, &load(), cause::LOAD_PAGE_FAULT, page);
                }
            }
        }
    }
}

/// 12.1.11: a write of satp takes effect at the next instruction, and needs no fence to leave another address space.
#[test]
fn satp_takes_effect_at_once() {
    let mut bench = bench("rv64", S);
    let page = map(&mut bench, 0, V | R | A);
    bench.write_u64(DATA, 0x1234);
    bench.set_x(asm::A0, page);
    // ASID 1 has the same tables, but the page with ASID 0 is cached.
    bench.passes(S, &load());
    bench.set_x(asm::A2, SV39 | 1 << 44 | ROOT >> 12);
    bench.write_u64(entry(0), 0);
    let taken = bench.run(S, &[asm::csrw(csr::SATP, asm::A2), load()[0]]);
    assert_eq!((taken.cause, taken.epc, taken.tval), (cause::LOAD_PAGE_FAULT, CODE + 4, page));
    // Bare: addresses are physical.
    let taken = bench.run(S, &[asm::csrw(csr::SATP, asm::ZERO), load()[0]]);
    assert_eq!((taken.cause, taken.epc, taken.tval), (cause::LOAD_ACCESS_FAULT, CODE + 4, page));
}

/// 12.2.1: after a change of a page table `sfence.vma` makes it seen, for all, a page, an address space, and both.
#[test]
fn sfence_vma_makes_changes_seen() {
    for (rs1, rs2) in [(asm::ZERO, asm::ZERO), (asm::A0, asm::ZERO), (asm::ZERO, asm::A2), (asm::A0, asm::A2)]
    {
        let mut bench = bench("rv64", S);
        let page = map(&mut bench, 0, V | R | A);
        bench.set_x(asm::A0, page);
        bench.set_x(asm::A2, 0);
        bench.passes(S, &load());
        bench.write_u64(entry(0), 0);
        let taken = bench.run(S, &[asm::r(SfenceVma, 0, rs1, rs2), load()[0]]);
        assert_eq!((taken.cause, taken.epc), (cause::LOAD_PAGE_FAULT, CODE + 4));
    }
}

/// 12.3.2, step 2: a page table outside RAM is an access fault of the original access.
#[test]
fn page_tables_outside_ram() {
    let mut bench = bench("rv64", S);
    map(&mut bench, 0, 0);
    bench.write_u64(TABLE_1 + (BASE >> 21 & 0x1ff) * 8, NOWHERE >> 12 << 10 | V);
    bench.set_x(asm::A0, BASE);
    bench.faults(S, &load(), cause::LOAD_ACCESS_FAULT, BASE);
    bench.faults(S, &store(), cause::STORE_ACCESS_FAULT, BASE);
    assert_eq!(bench.run(S, &jump()).cause, cause::INSTRUCTION_ACCESS_FAULT);
}
