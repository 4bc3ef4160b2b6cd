//! Which floating-point registers a block has to ask about, whether they hold a boxed single.
//!
//! An operation on singles may only read boxed ones. Of a result of the block that is known; of other registers it is asked, once
//! in a block. Asking costs less for all of a block together than for each register by itself, and a loop of one block asks before
//! its first round, about those that can only ever hold singles.

use frontend::ir::{Code, Fmt, Op, Shape};

use super::float::{is_inline, writes_f};

fn bit(reg: u8) -> u32 {
    1 << (reg & 31)
}

/// A bit for each register that the code for the operation takes to hold a boxed single.
fn reads(op: &Op) -> u32 {
    use Code::*;
    let regs = match op.code {
        FMadd | FMsub | FNmsub | FNmadd => &[op.a, op.b, op.c][..],
        FAdd | FSub | FMul | FDiv | FSgnj | FSgnjn | FSgnjx | FMin | FMax | FEq | FLt | FLe | FLtq | FLeq => {
            &[op.a, op.b]
        }
        FSqrt | FRound | FRoundNx | FToInt | FCvtFmt | FClass => &[op.a],
        _ => return 0,
    };
    let fmt = if op.code == FCvtFmt { Fmt::from_bits(op.c.0) } else { op.fmt() };
    if fmt != Fmt::S || !is_inline(op) {
        return 0;
    }
    regs.iter().fold(0, |all, reg| all | bit(reg.0))
}

/// What a block reads as singles.
#[derive(Default)]
pub(crate) struct Boxes {
    /// For each operation, what it reads, and what later ones read of what is in the registers then.
    wanted: Vec<u32>,
}

impl Boxes {
    /// Looks through the operations of a block.
    pub(crate) fn plan(&mut self, ops: &[Op]) {
        self.wanted.clear();
        let mut wanted = 0;
        for op in ops.iter().rev() {
            let ends = matches!(
                op.code.shape(),
                Shape::Branch | Shape::Jump | Shape::JumpReg | Shape::Join | Shape::Call
            );
            if ends && op.code != Code::FpOn {
                // What follows may not be carried out; and where branches meet, nothing is known of what was asked before.
                wanted = 0;
            }
            if writes_f(op) {
                wanted &= !bit(op.rd.0);
            }
            wanted |= reads(op);
            self.wanted.push(wanted);
        }
        self.wanted.reverse();
    }

    /// What to ask about before the operation at `index`, which is one of the block, if anything it reads is not among the `known`.
    pub(crate) fn before(&self, index: usize, op: &Op, known: u32) -> u32 {
        if reads(op) & !known == 0 { 0 } else { self.wanted[index] & !known }
    }

    /// What a loop of the block `ops` asks about before its first round.
    pub(crate) fn throughout(&self, ops: &[Op]) -> u32 {
        let others = ops.iter().filter(|op| writes_f(op) && op.fmt() != Fmt::S);
        let wanted = self.wanted.first().copied().unwrap_or_default();
        others.fold(wanted, |wanted, op| wanted & !bit(op.rd.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend::ir::{Reg, fp_aux};

    fn op(code: Code, fmt: Fmt, [rd, a, b]: [u8; 3]) -> Op {
        Op { aux: fp_aux(fmt, 7), rd: Reg(rd), a: Reg(a), b: Reg(b), ..Op::of(code) }
    }

    fn plan(ops: &[Op]) -> Boxes {
        let mut boxes = Boxes::default();
        boxes.plan(ops);
        boxes
    }

    #[test]
    fn the_first_to_read_a_single_asks_for_all() {
        let ops = [
            op(Code::FMul, Fmt::D, [1, 2, 3]),
            op(Code::FAdd, Fmt::S, [4, 5, 6]),
            op(Code::FLt, Fmt::S, [10, 4, 7]),
            op(Code::FSgnj, Fmt::S, [8, 1, 1]),
        ];
        let boxes = plan(&ops);
        assert_eq!(boxes.before(0, &ops[0], 0), 0);
        assert_eq!(boxes.before(1, &ops[1], 0), 1 << 5 | 1 << 6 | 1 << 7 | 1 << 1);
        assert_eq!(boxes.before(2, &ops[2], 1 << 4 | 1 << 7), 0);
        assert_eq!(boxes.before(3, &ops[3], 1 << 4), 1 << 1);
    }

    #[test]
    fn what_a_branch_may_leave_out_is_not_asked_for_before() {
        let ops = [op(Code::FSqrt, Fmt::S, [4, 5, 0]), Op::of(Code::Beq), op(Code::FSqrt, Fmt::S, [6, 7, 0])];
        let boxes = plan(&ops);
        assert_eq!(boxes.before(0, &ops[0], 0), 1 << 5);
        assert_eq!(boxes.before(2, &ops[2], 1 << 4), 1 << 7);
    }

    #[test]
    fn a_loop_asks_once_for_what_stays_a_single() {
        let ops = [
            op(Code::FAdd, Fmt::S, [4, 4, 5]),
            op(Code::FMul, Fmt::S, [6, 7, 8]),
            op(Code::FSub, Fmt::D, [7, 9, 10]),
        ];
        assert_eq!(plan(&ops).throughout(&ops), 1 << 4 | 1 << 5 | 1 << 8);
    }
}
