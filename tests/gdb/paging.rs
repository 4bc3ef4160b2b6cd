//! A guest with page tables: two address spaces share a read-only page of code, and map another one late.

use frontend::Opcode::{Add, Addi, Ecall, Jalr, Ld, Mret, Sd, SfenceVma};
use frontend::csr_name::number as csr;

use crate::assembly::{Assembly, S0, S1, S2, S3, S4, T3, T4};
use crate::debugger::{ENGINES, Guest, in_order};
use crate::guests::Program;
use crate::harness::RAM;
use crate::harness::asm::{self, A0, RA, T0, T1, ZERO};
use crate::remote::Remote;

const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 0x10;
const A: u64 = 0x40;
const D: u64 = 0x80;
const SV39: u64 = 8 << 60;

/// Page tables of the two spaces: root, middle, last level.
const TABLES: [u64; 2] = [RAM + 0x10_0000, RAM + 0x20_0000];
/// Pages of physical memory: the code that both spaces have, and data of each.
const CODE: u64 = RAM + 0x30_0000;
const DATA: u64 = RAM + 0x31_0000;
/// Where the spaces map the code, which differs, a further mapping that is made late, and the data.
const CODE_VA: [u64; 2] = [0x10_0000, 0x11_0000];
const LATE_VA: u64 = 0x12_0000;
const DATA_VA: u64 = 0x13_0000;
/// Calls of a function in the code page: offset, and its instructions count in `DATA_VA`.
const FUNCTION: u64 = 0x40;

fn pte(pa: u64, flags: u64) -> u64 {
    pa >> 12 << 10 | flags | V
}

fn tables(space: usize) -> Vec<u8> {
    let base = TABLES[space];
    let mut entries = vec![0u64; 3 * 512];
    entries[0] = pte(base + 0x1000, 0);
    entries[512] = pte(base + 0x2000, 0);
    let mut map = |va: u64, pa: u64, flags: u64| entries[1024 + (va >> 12 & 0x1ff) as usize] = pte(pa, flags);
    map(CODE_VA[space], CODE, R | X | U | A);
    map(DATA_VA, DATA + 0x1000 * space as u64, R | W | U | A | D);
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// User code: counts in its data page by a function of the same page, then asks machine mode for the other space.
fn user_code() -> Vec<u8> {
    let mut words =
        vec![asm::i(Jalr, RA, A0, FUNCTION as i64), asm::i(Jalr, RA, A0, FUNCTION as i64), asm::bare(Ecall)];
    words.resize(FUNCTION as usize / 4, asm::nop());
    words.extend([
        asm::i(Ld, T1, S1, 0),
        asm::i(Addi, T1, T1, 1),
        asm::s(Sd, T1, S1, 0),
        asm::i(Jalr, ZERO, RA, 0),
    ]);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Machine mode switches between the spaces for ever. After ten rounds it maps the code at `LATE_VA` in the first.
fn program() -> Program {
    let mut a = Assembly::default();
    // PMP: all of memory for everybody.
    a.add(&[asm::li(T0, -1), asm::csrw(csr::PMPADDR0, T0), asm::li(T0, 0x1f), asm::csrw(csr::PMPCFG0, T0)]);
    a.address_of(T0, "trap");
    a.add(&[asm::csrw(csr::MTVEC, T0)]);
    a.li(S1, DATA_VA);
    a.li(S2, SV39 | TABLES[0] >> 12);
    a.li(S3, SV39 | TABLES[1] >> 12);
    a.li(S4, CODE_VA[0]);
    a.li(T4, CODE_VA[1]);
    a.label("switch");
    // The other space, and where its code is.
    a.add(&[
        asm::csrw(csr::SATP, S2),
        asm::bare(SfenceVma),
        asm::csrw(csr::MEPC, S4),
        asm::r(Add, A0, S4, ZERO),
        asm::r(Add, T0, S2, ZERO),
        asm::r(Add, S2, S3, ZERO),
        asm::r(Add, S3, T0, ZERO),
        asm::r(Add, T0, S4, ZERO),
        asm::r(Add, S4, T4, ZERO),
        asm::r(Add, T4, T0, ZERO),
        asm::bare(Mret),
    ]);
    a.label("trap");
    a.add(&[asm::i(Addi, S0, S0, 1), asm::li(T3, 10)]);
    a.branch(frontend::Opcode::Bne, S0, T3, "switch");
    a.label("late");
    a.li(T0, TABLES[0] + 0x2000 + (LATE_VA >> 12 & 0x1ff) * 8);
    a.li(T1, pte(CODE, R | X | U | A));
    a.add(&[asm::s(Sd, T1, T0, 0)]);
    // The first space runs the late mapping from now on; it is the next one.
    a.li(S4, LATE_VA);
    a.jump("switch");
    let program = Program::from(a);
    program
        .data(TABLES[0], &tables(0))
        .data(TABLES[1], &tables(1))
        .data(CODE, &user_code())
        .data(DATA, &[0; 0x2000])
}

#[test]
fn breakpoints_work_in_shared_read_only_pages_by_their_own_address() {
    for engine in ENGINES {
        let guest = Guest::waiting(&program(), engine, &[]);
        let mut remote = Remote::attach(&guest);
        // Neither space is in force, so nothing is mapped where the breakpoints are.
        for (kind, va) in [(0, CODE_VA[0]), (1, CODE_VA[1])] {
            assert_eq!(remote.ask(&format!("Z{kind},{:x},4", va + FUNCTION)), "OK");
        }
        for round in 0..4 {
            for (space, reason) in ["swbreak", "hwbreak"].into_iter().enumerate() {
                for call in 0..2 {
                    assert_eq!(remote.ask("vCont;c"), format!("T05thread:p01.01;{reason}:;"));
                    assert_eq!(remote.pc(), CODE_VA[space] + FUNCTION);
                    assert_eq!(remote.register(0x1041), Some(0));
                    // Memory is that of the space in force.
                    assert_eq!(remote.u64(DATA_VA), 2 * round + call);
                    assert_eq!(remote.memory(CODE_VA[1 - space], 4), None);
                    let (kind, va) = (space, CODE_VA[space] + FUNCTION);
                    assert_eq!(remote.ask(&format!("z{kind},{va:x},4")), "OK");
                    assert_eq!(remote.ask("vCont;s:p1.1"), "T05thread:p01.01;");
                    assert_eq!(remote.pc(), va + 4);
                    assert_eq!(remote.ask(&format!("Z{kind},{va:x},4")), "OK");
                }
            }
        }
        // With one of them gone, only the other is met, though both are of the same memory.
        assert_eq!(remote.ask(&format!("z0,{:x},4", CODE_VA[0] + FUNCTION)), "OK");
        for _ in 0..6 {
            assert!(remote.ask("vCont;c").contains("hwbreak"));
            assert_eq!(remote.pc(), CODE_VA[1] + FUNCTION);
            // Met again at once, so a step over it.
            remote.ask("vCont;s:p1.1");
        }
    }
}

#[test]
fn a_breakpoint_waits_for_its_page_to_be_mapped() {
    for engine in ENGINES {
        let guest = Guest::waiting(&program(), engine, &[]);
        let mut remote = Remote::attach(&guest);
        assert_eq!(remote.memory(LATE_VA, 4), None);
        assert_eq!(remote.ask(&format!("Z0,{:x},4", LATE_VA + FUNCTION + 4)), "OK");
        assert_eq!(remote.ask("vCont;c"), "T05thread:p01.01;swbreak:;");
        assert_eq!(remote.pc(), LATE_VA + FUNCTION + 4);
        assert!(remote.register(8).unwrap() >= 10);
    }
}

#[test]
fn code_in_read_only_pages_can_be_written_and_is_executed_as_written() {
    for engine in ENGINES {
        let guest = Guest::waiting(&program(), engine, &[]);
        let mut remote = Remote::attach(&guest);
        assert_eq!(remote.ask(&format!("Z1,{:x},4", CODE_VA[1])), "OK");
        for round in 1..=40 {
            assert!(remote.ask("vCont;c").contains("hwbreak"), "{round}");
            remote.ask("vCont;s:p1.1");
        }
        let before = remote.u64(DATA_VA);
        // addi t1, t1, 1 becomes addi t1, t1, 100.
        let word = asm::i(Addi, T1, T1, 100).swap_bytes();
        assert_eq!(remote.ask(&format!("M{:x},4:{word:08x}", CODE_VA[1] + FUNCTION + 4)), "OK");
        assert!(remote.ask("vCont;c").contains("hwbreak"));
        assert_eq!(remote.u64(DATA_VA), before + 200);
        remote.ask("vCont;s:p1.1");
    }
}

#[test]
fn page_tables_are_shown() {
    for engine in ENGINES {
        let guest = Guest::waiting(&program(), engine, &[]);
        let output = guest.gdb(&format!(
            "break *{:#x}\ncontinue\nprint $priv\nmonitor walk $pc\nmonitor walk 0x200000\ninfo threads\nstepi 3\nx/i $pc\n",
            CODE_VA[1]
        ));
        in_order(
            &output,
            &[
                "Breakpoint 1, 0x",
                "= 0",
                "hart 0, U-mode, Sv39\n",
                "  entry at 0x000080200000: ",
                "V-------",
                "  entry at 0x000080202880: ",
                "VR-XU-A-  0x000080300000",
                "0x110000 is at physical 0x80300000, page of 4 KiB",
                "0x200000 is not mapped",
                "hart 0, U-mode",
                "0x110048",
            ],
        );
    }
}

#[test]
fn a_watchpoint_in_an_address_space_is_by_virtual_address() {
    for engine in ENGINES {
        let guest = Guest::waiting(&program(), engine, &[]);
        let mut remote = Remote::attach(&guest);
        let watched = format!("2,{DATA_VA:x},8");
        assert_eq!(remote.ask(&format!("Z{watched}")), "OK");
        for round in 1..=10 {
            for space in 0..2 {
                for call in 0..2 {
                    assert_eq!(
                        remote.ask("vCont;c"),
                        format!("T05thread:p01.01;watch:{DATA_VA:x};"),
                        "{round}"
                    );
                    assert_eq!(remote.u64(DATA_VA), 2 * round - 2 + call, "{space}");
                    remote.step_over(0, &watched);
                }
            }
        }
    }
}
