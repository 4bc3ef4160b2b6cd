//! How many guest instructions a second one hart translates, and executes once, when it has seen none of them before.

#[path = "../tests/harness/mod.rs"]
mod harness;

mod guest;

use criterion::{BatchSize, Criterion, Throughput};
use frontend::Opcode::{
    self, Add, Addi, Addiw, Addw, And, Andi, Auipc, Beq, Bge, Bltu, Bne, Jal, Jalr, Lbu, Ld, Lui, Lw, Mul,
    Or, Sb, Sd, Slli, Sltu, Srai, Srli, Sub, Sw, Xor,
};
use guest::Guest;
use harness::asm::{self, RA, ZERO};
use jit::EngineKind;

/// Functions of the program, which are called once each.
const FUNCTIONS: usize = 6000;
const SP: u8 = 2;
/// Registers with addresses, which the program does not change but for the stack pointer; and those it computes with.
const BASES: [u8; 5] = [SP, SP, 8, 10, 11];
const VALUES: [u8; 14] = [5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 28];

/// xorshift64: a fixed sequence, so that every run translates the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A program like compiled code: blocks of six instructions or so, of which a third access memory.
fn program() -> Vec<u32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut code = Vec::new();
    for _ in 0..FUNCTIONS {
        let body = function(&mut random);
        // The function lies behind its call, which is followed by a jump to what is behind it.
        code.push(asm::i(Addi, 12, random.of(&VALUES), 1));
        code.push(asm::i(Jal, RA, ZERO, 8));
        code.push(asm::j(4 + 4 * body.len() as i64));
        code.extend(body);
    }
    code
}

fn function(random: &mut Random) -> Vec<u32> {
    let mut code = vec![asm::i(Addi, SP, SP, -64), asm::s(Sd, RA, SP, 56), asm::s(Sd, 9, SP, 48)];
    for _ in 0..6 {
        for _ in 0..2 + random.below(7) {
            code.push(straight(random));
        }
        // Forward, over the first of the next instructions.
        let op: Opcode = random.of(&[Beq, Bne, Bne, Bge, Bltu]);
        let with = if random.below(2) == 0 { ZERO } else { random.of(&VALUES) };
        code.push(asm::s(op, with, random.of(&VALUES), 4 * (1 + random.below(3) as i64)));
    }
    code.extend([straight(random), straight(random)]);
    code.extend([
        asm::i(Ld, RA, SP, 56),
        asm::i(Ld, 9, SP, 48),
        asm::i(Addi, SP, SP, 64),
        asm::i(Jalr, ZERO, RA, 0),
    ]);
    code
}

/// An instruction that does not jump.
fn straight(random: &mut Random) -> u32 {
    let (rd, a, b) = (random.of(&VALUES), random.of(&VALUES), random.of(&VALUES));
    let (base, offset) = (random.of(&BASES), 8 * random.below(6) as i64);
    match random.below(100) {
        0..22 => asm::i(random.of(&[Ld, Ld, Ld, Lw, Lw, Lbu]), rd, base, offset),
        22..34 => asm::s(random.of(&[Sd, Sd, Sw, Sb]), a, base, offset),
        34..40 => asm::i(random.of(&[Lui, Auipc]), rd, ZERO, (random.below(1000) as i64) << 12),
        40..50 => asm::li(rd, random.below(2000) as i64),
        50..60 => asm::i(Addi, rd, a, 0),
        60..72 => asm::i(random.of(&[Addi, Addi, Addiw, Andi]), rd, a, random.below(2000) as i64 - 1000),
        72..80 => asm::i(random.of(&[Slli, Srli, Srai]), rd, a, random.below(63) as i64),
        _ => asm::r(random.of(&[Add, Add, Addw, Sub, And, Or, Xor, Sltu, Mul]), rd, a, b),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let program = program();
    let guest = || Guest::new("translate", EngineKind::Eager, &program);
    let mut group = criterion.benchmark_group("translate");
    // Every instruction is executed once or, where a branch skips it, never.
    group.throughput(Throughput::Elements(guest().run()));
    group.bench_function("cold", |bencher| {
        let run = |mut guest: Guest| {
            guest.run();
            guest
        };
        bencher.iter_batched(guest, run, BatchSize::PerIteration);
    });
    group.finish();
    criterion.final_summary();
}
