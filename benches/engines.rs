//! How many guest instructions a second the engines execute, in loops of one kind of work each.

#[path = "../tests/harness/mod.rs"]
mod harness;

mod guest;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use frontend::Opcode::{
    Add, Addi, Bne, FaddD, FcvtDL, FdivD, FmaddD, FmulD, FsubD, Jal, Jalr, Ld, Lw, Sd, Slli, Srli, Sw,
};
use frontend::encode::Operands;
use guest::Guest;
use harness::asm::{self, A0, A1, A2, A3, RA, T0, T1, ZERO};
use jit::EngineKind;

/// Times round each loop.
const ROUNDS: i64 = 100_000;
/// The rounding mode that `frm` says.
const DYN: u8 = 7;

const ENGINES: [(&str, EngineKind); 2] = [("interp", EngineKind::Interp), ("jit", EngineKind::Jit)];

/// `before`, and `body` as often as a loop goes round.
fn repeat(before: &[u32], body: &[u32]) -> Vec<u32> {
    let back = -4 * (body.len() as i64 + 1);
    let end = [asm::i(Addi, A0, A0, -1), asm::s(Bne, ZERO, A0, back)];
    [&asm::li_64(A0, ROUNDS), before, body, &end].concat()
}

fn integer() -> Vec<u32> {
    repeat(&[], &asm::arithmetic())
}

/// Goes through 32 KiB again and again. All registers hold the address of data at first.
fn memory() -> Vec<u32> {
    let body = [
        asm::i(Addi, T0, T0, 64),
        asm::i(Slli, A3, T0, 49),
        asm::i(Srli, A3, A3, 49),
        asm::r(Add, A3, A3, T1),
        asm::i(Ld, A1, A3, 0),
        asm::i(Lw, A2, A3, 8),
        asm::r(Add, A1, A1, A2),
        asm::s(Sd, A1, A3, 16),
        asm::s(Sw, A2, A3, 24),
    ];
    repeat(&[], &body)
}

/// Calls a function that keeps its return address on the stack and calls another.
fn calls() -> Vec<u32> {
    const SP: u8 = 2;
    let outer = [
        asm::i(Addi, SP, SP, -16),
        asm::s(Sd, RA, SP, 8),
        asm::i(Jal, RA, ZERO, 16),
        asm::i(Ld, RA, SP, 8),
        asm::i(Addi, SP, SP, 16),
        asm::i(Jalr, ZERO, RA, 0),
    ];
    let inner = [asm::i(Addi, A1, A1, 1), asm::i(Jalr, ZERO, RA, 0)];
    let functions = [outer.as_slice(), &inner].concat();
    let skip = asm::j(4 + 4 * functions.len() as i64);
    let call = asm::i(Jal, RA, ZERO, -4 * functions.len() as i64);
    repeat(&[&[skip], functions.as_slice()].concat(), &[call])
}

fn floating_point() -> Vec<u32> {
    let float = |op, rd, rs1, rs2, rs3| asm::insn(op, Operands { rd, rs1, rs2, rs3, rm: DYN, imm: 0 });
    let before =
        [asm::li(A1, 3), float(FcvtDL, 1, A1, 0, 0), float(FdivD, 2, 1, 1, 0), float(FdivD, 3, 2, 1, 0)];
    let body = [
        float(FmulD, 4, 1, 3, 0),
        float(FaddD, 5, 4, 2, 0),
        float(FmaddD, 6, 5, 3, 2),
        float(FsubD, 7, 6, 4, 0),
        float(FmulD, 1, 7, 3, 0),
        float(FaddD, 1, 1, 2, 0),
    ];
    repeat(&before, &body)
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    let loops = [
        ("integer", integer()),
        ("memory", memory()),
        ("calls", calls()),
        ("floating point", floating_point()),
    ];
    for (name, program) in loops {
        let mut group = criterion.benchmark_group(name);
        for (engine, kind) in ENGINES {
            let mut guest = Guest::new("engines", kind, &program);
            group.throughput(Throughput::Elements(guest.run()));
            group.bench_function(engine, |bencher| bencher.iter(|| guest.run()));
        }
        group.finish();
    }
    criterion.final_summary();
}
