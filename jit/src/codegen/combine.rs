//! Operations that do what two or three instructions do together.
//!
//! Programs for the base instruction set rotate, negate an operand or extend a part of a register by several instructions, the
//! last of which gives the result. That one is replaced by the operation for all of them, which takes their first operand. The
//! others are left where they are; [`super::demand`] drops those whose results nobody reads then.

use frontend::ir::{Code, Op, Reg};

use super::float::writes_x;

/// Where registers got their values inside a block.
struct Values<'a> {
    ops: &'a [Op],
    /// One more than the index of the last operation that wrote each register; 0 if none did.
    writers: [u16; Reg::COUNT],
}

impl Values<'_> {
    /// The operation that the value of `reg` comes from, if its operand `a` still has the value that it took.
    fn source(&self, reg: Reg) -> Option<&Op> {
        let writer = self.writers[reg.index()];
        let op = self.ops.get(usize::from(writer.checked_sub(1)?))?;
        (self.writers[op.a.index()] < writer).then_some(op)
    }

    /// The register that `reg` is the complement of.
    fn inverted(&self, reg: Reg) -> Option<Reg> {
        let op = self.source(reg)?;
        (op.code == Code::XorI && op.imm == -1).then_some(op.a)
    }

    /// The operation for `a | b`, `a ^ b` or `a + b` of two shifts that make a rotation.
    fn rotation(&self, rd: Reg, a: Reg, b: Reg) -> Option<Op> {
        let (a, b) = (self.source(a)?, self.source(b)?);
        let (right, left) = if matches!(a.code, Code::SrlI | Code::SrlIW) { (a, b) } else { (b, a) };
        let (code, width) = match (right.code, left.code) {
            (Code::SrlI, Code::SllI) => (Code::RorI, 64),
            (Code::SrlIW, Code::SllIW) => (Code::RorIW, 32),
            _ => return None,
        };
        let whole = right.imm > 0 && left.imm > 0 && right.imm + left.imm == width;
        (right.a == left.a && whole).then(|| Op { rd, a: right.a, imm: right.imm, ..Op::of(code) })
    }

    /// The operation for a shift to the right, of a register that comes from a shift to the left.
    fn extension(&self, op: &Op) -> Option<Op> {
        let left = self.source(op.a).filter(|left| left.code == Code::SllI)?;
        let is_signed = op.code == Code::SraI;
        let made = |code, imm| Some(Op { rd: op.rd, a: left.a, imm, ..Op::of(code) });
        match (left.imm, op.imm) {
            (32, 32) if is_signed => made(Code::AddIW, 0),
            (32, 32) => Some(Op { b: Reg::ZERO, ..made(Code::AddUw, 0)? }),
            (32, right @ 33..64) => made(if is_signed { Code::SraIW } else { Code::SrlIW }, right - 32),
            (32, right @ 1..32) if !is_signed => made(Code::SllIUw, 32 - right),
            (48, 48) => made(if is_signed { Code::SextH } else { Code::ZextH }, 0),
            (56, 56) if is_signed => made(Code::SextB, 0),
            (56, 56) => made(Code::AndI, 0xff),
            _ => None,
        }
    }

    /// What to do instead of `op`.
    fn better(&self, op: &Op) -> Option<Op> {
        let with_inverse = |code| {
            let (kept, inverted) = match (self.inverted(op.b), self.inverted(op.a)) {
                (Some(inverted), _) => (op.a, inverted),
                (None, inverted) => (op.b, inverted?),
            };
            Some(Op { code, a: kept, b: inverted, ..*op })
        };
        let better = match op.code {
            Code::SrlI | Code::SraI => self.extension(op),
            Code::Or => self.rotation(op.rd, op.a, op.b).or_else(|| with_inverse(Code::Orn)),
            Code::Xor => self.rotation(op.rd, op.a, op.b).or_else(|| with_inverse(Code::Xnor)),
            // The bits of the two shifts do not meet, so nothing is carried. The narrow sum of wide shifts is no rotation.
            Code::Add => self.rotation(op.rd, op.a, op.b),
            Code::AddW => self.rotation(op.rd, op.a, op.b).filter(|made| made.code == Code::RorIW),
            Code::And => with_inverse(Code::Andn),
            _ => None,
        };
        better.map(|better| Op { at: op.at, ..better })
    }
}

/// Puts operations of a block together.
pub(crate) fn combine(ops: &mut [Op]) {
    let mut writers = [0; Reg::COUNT];
    for index in 0..ops.len() {
        let op = ops[index];
        if let Some(better) = (Values { ops, writers }).better(&op) {
            ops[index] = better;
        }
        if writes_x(&op) {
            writers[op.rd.index()] = index as u16 + 1;
            if op.code == Code::CasPair {
                writers[op.rd.index() | 1] = index as u16 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imm(code: Code, rd: u8, a: u8, imm: i64) -> Op {
        Op { rd: Reg(rd), a: Reg(a), imm, ..Op::of(code) }
    }

    fn reg(code: Code, rd: u8, a: u8, b: u8) -> Op {
        Op { rd: Reg(rd), a: Reg(a), b: Reg(b), ..Op::of(code) }
    }

    /// What the last of some operations becomes, if it becomes another.
    #[track_caller]
    fn becomes(ops: &[Op], want: Option<Op>) {
        let mut combined = ops.to_vec();
        combine(&mut combined);
        let last = ops.len() - 1;
        assert_eq!(combined[..last], ops[..last]);
        assert_eq!(combined[last], want.unwrap_or(ops[last]));
    }

    #[test]
    fn two_shifts_are_a_rotation() {
        use Code::{Add, AddW, Or, RorI, RorIW, SllI, SllIW, SrlI, SrlIW, Xor};
        let words = [imm(SrlIW, 5, 10, 6), imm(SllIW, 6, 10, 26)];
        for join in [Or, Xor, Add, AddW] {
            becomes(&[words[0], words[1], reg(join, 5, 5, 6)], Some(imm(RorIW, 5, 10, 6)));
            becomes(&[words[1], words[0], reg(join, 7, 6, 5)], Some(imm(RorIW, 7, 10, 6)));
        }
        let doubles = [imm(SrlI, 5, 10, 6), imm(SllI, 6, 10, 58)];
        becomes(&[doubles[0], doubles[1], reg(Or, 5, 5, 6)], Some(imm(RorI, 5, 10, 6)));
        becomes(&[doubles[0], doubles[1], reg(AddW, 5, 5, 6)], None);
        becomes(&[words[0], imm(SllIW, 6, 10, 25), reg(Or, 5, 5, 6)], None);
        becomes(&[words[0], imm(SllIW, 6, 11, 26), reg(Or, 5, 5, 6)], None);
        becomes(&[words[0], imm(SllI, 6, 10, 26), reg(Or, 5, 5, 6)], None);
        becomes(&[imm(SrlIW, 5, 10, 0), imm(SllIW, 6, 10, 32), reg(Or, 5, 5, 6)], None);
    }

    #[test]
    fn a_register_that_has_changed_is_not_taken() {
        use Code::{Lw, Or, SllIW, SrlIW};
        let [right, left] = [imm(SrlIW, 5, 10, 6), imm(SllIW, 6, 10, 26)];
        becomes(&[right, left, imm(Lw, 10, 2, 0), reg(Or, 5, 5, 6)], None);
        becomes(&[right, left, imm(Lw, 6, 2, 0), reg(Or, 5, 5, 6)], None);
        becomes(&[right, imm(SllIW, 10, 10, 26), reg(Or, 5, 5, 10)], None);
        let pair = Op { b: Reg(12), ..imm(Code::CasPair, 4, 2, 0) };
        becomes(&[right, left, pair, reg(Or, 7, 5, 6)], None);
    }

    #[test]
    fn shifts_there_and_back_extend() {
        use Code::{AddIW, AddUw, AndI, SextB, SextH, SllI, SllIUw, SraI, SraIW, SrlI, SrlIW, ZextH};
        for (left, right, signed, plain) in [
            (32, 32, Some(imm(AddIW, 5, 10, 0)), Some(reg(AddUw, 5, 10, 0))),
            (32, 40, Some(imm(SraIW, 5, 10, 8)), Some(imm(SrlIW, 5, 10, 8))),
            (32, 29, None, Some(imm(SllIUw, 5, 10, 3))),
            (48, 48, Some(imm(SextH, 5, 10, 0)), Some(imm(ZextH, 5, 10, 0))),
            (56, 56, Some(imm(SextB, 5, 10, 0)), Some(imm(AndI, 5, 10, 0xff))),
            (32, 0, None, None),
            (48, 32, None, None),
        ] {
            becomes(&[imm(SllI, 6, 10, left), imm(SraI, 5, 6, right)], signed);
            becomes(&[imm(SllI, 6, 10, left), imm(SrlI, 5, 6, right)], plain);
            becomes(&[imm(SllI, 10, 10, left), imm(SrlI, 5, 10, right)], None);
        }
    }

    #[test]
    fn a_complement_goes_into_what_reads_it() {
        use Code::{And, Andn, Or, Orn, Xnor, Xor, XorI};
        let not = imm(XorI, 5, 10, -1);
        for (code, with) in [(And, Andn), (Or, Orn), (Xor, Xnor)] {
            becomes(&[not, reg(code, 6, 11, 5)], Some(reg(with, 6, 11, 10)));
            becomes(&[not, reg(code, 5, 5, 11)], Some(reg(with, 5, 11, 10)));
            becomes(&[imm(XorI, 5, 10, -2), reg(code, 5, 5, 11)], None);
        }
    }
}
