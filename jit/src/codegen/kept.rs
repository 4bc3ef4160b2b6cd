//! Accesses of a loop that keep their page in host registers.
//!
//! An access by a register that a loop moves by little at a time, or not at all, stays in one page for many rounds. It asks two
//! registers for that page, and the TLB only when it comes to another.

use frontend::ir::{Code, Op, Reg};

use super::exchange::{Exchange, is_loop, uses};
use super::float::writes_x;
use super::runs::{Rules, Run, bytes, is_access};

/// Most that a loop adds to a register at a time.
const MAX_MOVE: i64 = 512;

/// How an operation that writes a register moves it, and what it has moved.
fn moved(op: &Op) -> Option<(Reg, i64)> {
    match op.code {
        Code::Mov => Some((op.a, 0)),
        Code::AddI if op.imm.abs() <= MAX_MOVE => Some((op.a, op.imm)),
        _ => None,
    }
}

/// A bit for each register that comes from one of these by what is done in each round.
fn slow_registers(ops: &[Op]) -> u64 {
    let mut slow = u64::MAX;
    loop {
        let is_slow = |reg: Reg| slow >> reg.index() & 1 == 1;
        let quick = |op: &&Op| writes_x(op) && !moved(op).is_some_and(|(from, _)| is_slow(from));
        let less = ops.iter().filter(quick).fold(slow, |slow, op| slow & !(1 << op.rd.index()));
        if less == slow {
            return slow;
        }
        slow = less;
    }
}

/// Whether all that is ever added to the base of an access is a multiple of its size.
fn stays_aligned(ops: &[Op], access: &Op) -> bool {
    let size = bytes(access);
    let in_place = |op: &Op| moved(op).is_some_and(|(from, by)| from == op.rd && by % size == 0);
    let mut writers = ops.iter().filter(|op| writes_x(op) && op.rd == access.a);
    size == 1 || access.imm % size == 0 && writers.all(in_place)
}

/// The host registers of the guest registers that a block does not use, as (guest, host).
pub(crate) fn unused(ops: &[Op], pins: &[(u8, u8)], exchanges: &[Exchange]) -> Vec<(u8, u8)> {
    let uses = uses(ops);
    let is_given = |reg: u8| exchanges.iter().any(|exchange| exchange.out == reg);
    pins.iter().copied().filter(|&(reg, _)| uses[usize::from(reg)] == 0 && !is_given(reg)).collect()
}

/// The indices of the accesses in a loop that keep their page, at most so many; each is aligned to its size throughout the loop if it
/// is once.
pub(crate) fn choose(rules: &impl Rules, ops: &[Op], start: u16, most: usize) -> Vec<usize> {
    if most == 0 || !is_loop(ops, start) || ops.iter().any(|op| matches!(op.code, Code::Call | Code::CasPair))
    {
        return Vec::new();
    }
    let slow = slow_registers(ops);
    let (mut chosen, mut at) = (Vec::new(), 0);
    while at < ops.len() && chosen.len() < most {
        let op = &ops[at];
        let length = if is_access(op) { Run::worthwhile(rules, &ops[at..]).length } else { 0 };
        if length == 1 && slow >> op.a.index() & 1 == 1 && stays_aligned(ops, op) {
            chosen.push(at);
        }
        at += length.max(1);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All;

    impl Rules for All {
        fn is_simple(&self, _: &Op) -> bool {
            false
        }

        fn allow_second(&self, _: Reg, _: Reg) -> bool {
            true
        }
    }

    fn op(code: Code, rd: u8, a: u8, imm: i64) -> Op {
        Op { rd: Reg(rd), a: Reg(a), imm, at: 4, ..Op::of(code) }
    }

    #[track_caller]
    fn keeps(ops: &[Op], want: &[usize]) {
        let mut ops = ops.to_vec();
        ops.push(op(Code::Bne, 0, 10, 4));
        assert_eq!(choose(&All, &ops, 4, 2), want);
        assert!(choose(&All, &ops, 8, 2).is_empty());
        assert!(choose(&All, &ops, 4, 0).is_empty());
    }

    #[test]
    fn a_pointer_that_moves_by_little_is_kept() {
        keeps(&[op(Code::Ld, 10, 11, 8), op(Code::AddI, 11, 11, 16)], &[0]);
        keeps(&[op(Code::Ld, 10, 11, 8)], &[0]);
        keeps(&[op(Code::Ld, 10, 11, 8), op(Code::AddI, 11, 11, MAX_MOVE + 8)], &[]);
        keeps(&[op(Code::Ld, 10, 11, 8), op(Code::Add, 11, 11, 0)], &[]);
        keeps(&[op(Code::Ld, 11, 11, 8)], &[]);
    }

    #[test]
    fn what_could_become_misaligned_is_not_kept() {
        keeps(&[op(Code::Ld, 10, 11, 4)], &[]);
        keeps(&[op(Code::Ld, 10, 11, 8), op(Code::AddI, 11, 11, 4)], &[]);
        keeps(&[op(Code::Lw, 10, 11, 8), op(Code::AddI, 11, 11, 4)], &[0]);
        keeps(&[op(Code::Lw, 10, 11, 8), op(Code::Mov, 11, 12, 0)], &[]);
        keeps(&[op(Code::Lbu, 10, 11, 1), op(Code::Mov, 11, 12, 0), op(Code::AddI, 12, 11, 1)], &[0]);
        keeps(&[op(Code::Lbu, 10, 11, 1), op(Code::Mov, 11, 12, 0), op(Code::Add, 12, 11, 1)], &[]);
    }

    #[test]
    fn only_so_many_are_kept() {
        let byte = |base| [op(Code::Lbu, 10, base, 0), op(Code::AddI, base, base, 1)];
        keeps(&[byte(11), byte(12), byte(13)].concat(), &[0, 2]);
    }
}
