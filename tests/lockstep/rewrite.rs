//! One hart rewrites the code that another one runs, and says so as the architecture asks: store, fence, message; the other
//! orders its fetches by `fence.i` and must run the new code from then on.

use std::time::Duration;

use frontend::Opcode::{
    Add, Addi, Andi, Beq, Bne, Csrrw, Fence, FenceI, Jal, Jalr, Ld, Lw, Pause, Sd, Sh, Slli, Srli, Sw,
};
use frontend::csr_name::number as csr;
use frontend::encode::Operands;
use jit::EngineKind;
use machine::devices::sifive_test::PowerEvent;

use crate::assembly::{Assembly, S0, S1, S2, S3, S4, S5};
use crate::harness::asm::{self, A0, A1, A2, RA, T0, T1, ZERO};
use crate::harness::{self, RAM};

/// Message and answer, each in a page of its own.
const MAIL: u64 = RAM + 0x10_0000;
/// Pages with a function each. An engine may give up a page that is rewritten again and again, so there are many.
const FUNCTIONS: u64 = RAM + 0x20_0000;
const PAGES: u64 = 256;
/// Rounds for each page.
const TURNS: u64 = 150;
/// Where in its page a function's result is made; its entry is in another block.
const RESULT: i64 = 64;
/// Where both harts count in the same page.
const COUNTS: i64 = 0x400;
const GOOD: u16 = 42;
const LIMIT: Duration = Duration::from_secs(600);

/// `s4 =` the page of round `of`
fn page(a: &mut Assembly, of: u8) {
    a.add(&[asm::i(Andi, T0, of, PAGES as i64 - 1), asm::i(Slli, T0, T0, 12), asm::r(Add, S4, S1, T0)]);
}

/// Adds 1 to a number in the page of a function.
fn count(a: &mut Assembly, offset: i64) {
    a.add(&[asm::i(Ld, T0, S4, offset), asm::i(Addi, T0, T0, 1), asm::s(Sd, T0, S4, offset)]);
}

fn fence() -> u32 {
    asm::insn(Fence, Operands { imm: 0x33, ..Operands::default() })
}

fn program() -> Vec<u32> {
    let mut a = Assembly::default();
    a.li(S0, MAIL);
    a.li(S1, FUNCTIONS);
    a.li(S2, 0);
    a.li(S3, PAGES * TURNS);
    a.add(&[asm::csrr(A1, csr::MHARTID)]);
    a.branch(Bne, A1, ZERO, "runner");

    // Hart 0 writes `li a0, round` into the function: as a word, or as two halves.
    a.label("write");
    a.add(&[asm::i(Addi, S2, S2, 1)]);
    page(&mut a, S2);
    let li = asm::li(A0, 0);
    a.add(&[asm::i(Andi, T1, S2, 0x7ff), asm::i(Slli, T1, T1, 20), asm::i(Addi, T1, T1, li.into())]);
    a.add(&[asm::i(Andi, A2, S2, 0x80)]);
    a.branch(Bne, A2, ZERO, "halves");
    a.add(&[asm::s(Sw, T1, S4, RESULT)]);
    a.jump("written");
    a.label("halves");
    a.add(&[asm::s(Sh, T1, S4, RESULT), asm::i(Srli, T1, T1, 16), asm::s(Sh, T1, S4, RESULT + 2)]);
    a.label("written");
    count(&mut a, COUNTS);
    a.add(&[fence(), asm::s(Sw, S2, S0, 0)]);
    a.label("wait");
    a.add(&[asm::bare(Pause), asm::i(Lw, T0, S0, 0x400)]);
    a.branch(Bne, T0, S2, "wait");
    a.branch(Bne, S2, S3, "write");
    a.add(&[asm::j(0)]);

    // Hart 1 runs the function that is about to change until it is told that it has. Now and then it pauses, for both harts may
    // be on one core of the host's.
    a.label("pause");
    a.add(&[asm::bare(Pause)]);
    a.label("runner");
    a.add(&[asm::i(Lw, T1, S0, 0)]);
    a.branch(Bne, T1, S2, "told");
    a.add(&[asm::i(Addi, T1, S2, 1)]);
    page(&mut a, T1);
    a.add(&[asm::i(Jalr, RA, S4, 0), asm::i(Addi, S5, S5, 1), asm::i(Andi, T0, S5, 31)]);
    a.branch(Beq, T0, ZERO, "pause");
    a.jump("runner");
    a.label("told");
    a.add(&[asm::i(Addi, S2, T1, 0), fence(), asm::bare(FenceI)]);
    page(&mut a, S2);
    a.add(&[asm::i(Jalr, RA, S4, 0), asm::i(Andi, T1, S2, 0x7ff)]);
    a.branch(Bne, A0, T1, "stale");
    count(&mut a, COUNTS + 8);
    a.add(&[fence(), asm::s(Sw, S2, S0, 0x400)]);
    a.branch(Bne, S2, S3, "runner");
    a.finish(GOOD.into());
    a.label("stale");
    a.add(&[asm::i(Csrrw, 0, A0, csr::MSCRATCH.into())]);
    a.finish(7);
    a.words()
}

fn a_rewritten_function_is_never_stale(name: &str, engine: EngineKind) {
    let machine = harness::machine_of("max", 2, name, &program(), engine);
    let function = |n: u64| {
        let mut words = vec![asm::nop(); 32];
        words[0] = asm::i(Jal, 0, 0, RESULT);
        words[RESULT as usize / 4] = asm::li(A0, 0);
        words[RESULT as usize / 4 + 1] = asm::i(Jalr, 0, RA, 0);
        // A block that ends in a branch to the function's result.
        words[RESULT as usize / 4 + 2] = asm::s(Beq, ZERO, ZERO, -8);
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        machine.memory().write(FUNCTIONS + n * 0x1000, &bytes).expect("RAM");
    };
    (0..PAGES).for_each(function);
    let running = machine.start().expect("the machine can start");
    let event = running.power().wait_for(LIMIT);
    drop(running);
    assert_eq!(event, Some(PowerEvent::Off { code: GOOD }));
    for n in 0..PAGES {
        for hart in 0..2 {
            let mut count = [0; 8];
            let address = FUNCTIONS + n * 0x1000 + COUNTS as u64 + 8 * hart;
            machine.memory().read(address, &mut count).expect("RAM");
            assert_eq!(u64::from_le_bytes(count), TURNS, "hart {hart} in page {n}");
        }
    }
}

#[test]
fn eager() {
    a_rewritten_function_is_never_stale("rewrite-eager", EngineKind::Eager);
}

#[test]
fn cramped() {
    a_rewritten_function_is_never_stale("rewrite-cramped", EngineKind::Cramped);
}

#[test]
fn usual() {
    a_rewritten_function_is_never_stale("rewrite-usual", EngineKind::Jit);
}

#[test]
fn interpreted() {
    a_rewritten_function_is_never_stale("rewrite-interpreted", EngineKind::Interp);
}
