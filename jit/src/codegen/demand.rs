//! Which results of a block are only ever read as 32 bits, or not at all.
//!
//! An instruction of the W family sign-extends its result, which costs the host an instruction of its own. It is left out where
//! nobody can see it: every reader up to the next write of the register looks at the low 32 bits only, and nothing between can
//! leave the block. Where there is no reader either, the whole operation is left out.

use frontend::ir::{Code, Op, Reg, Shape};

/// What an operation's result needs, in its `aux` field, which these shapes do not use.
pub(crate) const LOW_ONLY: u8 = 1;
/// In the same place: nobody reads the result, and there is nothing to do.
pub(crate) const DEAD: u8 = 2;

/// What an operation reads of its operands `a` and `b`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// All of both.
    All,
    /// The low halves of both.
    Low,
    /// The low half of `a`, all of `b`.
    LowA,
    /// All of `a`, the low half of `b`.
    LowB,
    /// The low halves, if only the low half of the result is needed: no bit moves down.
    AsResult,
}

fn reads(code: Code) -> Reads {
    use Code::*;
    match code {
        AddW | SubW | SllW | SrlW | SraW | MulW | DivW | DivuW | RemW | RemuW | RolW | RorW | AddIW
        | SllIW | SrlIW | SraIW | RorIW | SllIUw | ClzW | CtzW | CpopW | SextB | SextH | ZextH => Reads::Low,
        AddUw | Sh1addUw | Sh2addUw | Sh3addUw => Reads::LowA,
        Srl | Sra | Rol | Ror | Bext => Reads::LowB,
        Add | Sub | And | Or | Xor | Andn | Orn | Xnor | Mul | Sh1add | Sh2add | Sh3add | AddI | AndI
        | OrI | XorI | SllI | Mov => Reads::AsResult,
        _ => Reads::All,
    }
}

/// Marks the operations whose result is read as 32 bits with [`LOW_ONLY`], and those whose result is not read with [`DEAD`].
pub(crate) fn mark(ops: &mut [Op]) {
    // Bit n: from here on all of register n may be seen, or only its low half.
    let (mut seen, mut low) = (u64::MAX, 0);
    let bit = |reg: Reg| 1_u64 << reg.index();
    for op in ops.iter_mut().rev() {
        let shape = op.code.shape();
        match shape {
            Shape::Ri | Shape::Rr | Shape::Rrr | Shape::Rri => {}
            // These can leave the block, and then everything is seen.
            _ => {
                seen = u64::MAX;
                continue;
            }
        }
        let rd = bit(op.rd);
        if (seen | low) & rd == 0 || op.code == Code::Mov && op.a == op.rd {
            op.aux = DEAD;
            continue;
        }
        let low_only = seen & rd == 0;
        op.aux = if low_only { LOW_ONLY } else { 0 };
        seen &= !rd;
        low &= !rd;
        let (all_a, all_b) = match reads(op.code) {
            Reads::All => (true, true),
            Reads::Low => (false, false),
            Reads::LowA => (false, true),
            Reads::LowB => (true, false),
            Reads::AsResult => (!low_only, !low_only),
        };
        if shape != Shape::Ri {
            if all_a { seen |= bit(op.a) } else { low |= bit(op.a) }
        }
        if shape == Shape::Rrr {
            if all_b { seen |= bit(op.b) } else { low |= bit(op.b) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: Code, rd: u8, a: u8, b: u8) -> Op {
        Op { rd: Reg(rd), a: Reg(a), b: Reg(b), ..Op::of(code) }
    }

    fn marks(ops: &[Op]) -> Vec<bool> {
        let mut ops = ops.to_vec();
        mark(&mut ops);
        ops.iter().map(|op| op.aux == LOW_ONLY).collect()
    }

    #[test]
    fn what_is_overwritten_after_narrow_reads_is_low_only() {
        let ops = [
            op(Code::AddW, 10, 11, 12),
            op(Code::Xor, 13, 10, 10),
            op(Code::SllIW, 14, 13, 0),
            op(Code::Const, 10, 0, 0),
            op(Code::Const, 13, 0, 0),
            op(Code::Jump, 0, 0, 0),
        ];
        assert_eq!(marks(&ops), [true, true, false, false, false, false]);
    }

    #[test]
    fn what_nobody_reads_is_dead_and_so_is_what_it_reads() {
        let mut ops = [
            op(Code::AddW, 10, 11, 12),
            op(Code::Xor, 13, 10, 10),
            op(Code::Const, 10, 0, 0),
            op(Code::Const, 13, 0, 0),
            op(Code::Const, 14, 0, 0),
            op(Code::Lw, 15, 2, 0),
            op(Code::Const, 14, 0, 0),
            op(Code::Jump, 0, 0, 0),
        ];
        mark(&mut ops);
        let dead = ops.map(|op| op.aux == DEAD);
        assert_eq!(dead, [true, true, false, false, false, false, false, false]);
    }

    #[test]
    fn what_leaves_the_block_or_can_trap_sees_everything() {
        let rest = [op(Code::Const, 10, 0, 0), op(Code::Jump, 0, 0, 0)];
        for (between, low) in [
            (op(Code::Lw, 13, 2, 0), false),
            (op(Code::Slt, 13, 10, 10), false),
            (op(Code::Add, 13, 10, 10), false),
            (op(Code::SrlI, 13, 10, 0), false),
            (op(Code::AddUw, 13, 10, 12), true),
            (op(Code::AddUw, 13, 12, 10), false),
            (op(Code::Srl, 13, 12, 10), true),
            (op(Code::SextH, 13, 10, 0), true),
        ] {
            let ops = [op(Code::AddW, 10, 11, 12), between, rest[0], rest[1]];
            assert_eq!(marks(&ops)[0], low, "{between}");
        }
    }
}
