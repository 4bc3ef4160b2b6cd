//! Operations that do what two or three instructions do together.
//!
//! Programs for the base instruction set rotate, scale an index, negate an operand or extend a part of a register by several
//! instructions, the last of which gives the result. That one is replaced by the operation for all of them, which takes their first
//! operand. The others are left where they are; [`super::demand`] drops those whose results nobody reads then. What a compiler does
//! in place, so that the first operand is gone by then, is dropped at once if nobody sees the value between. It also
//! rotates a register in place, where the last operand is gone when its other part comes: then the shift in place becomes the rotation.

use frontend::ir::{Code, Op, Reg, Shape};

use super::demand::DEAD;
use super::float::writes_x;

/// Where registers got their values inside a block.
struct Values<'a> {
    ops: &'a [Op],
    /// One more than the index of the last operation that wrote each register; 0 if none did.
    writers: &'a [u16; Reg::COUNT],
    /// The same of the last but one.
    earlier: &'a [u16; Reg::COUNT],
    /// The one register whose source is asked for, because that worked in place.
    in_place: Option<Reg>,
}

/// The rotation that two shifts make, but for its register.
fn rotation(first: &Op, second: &Op) -> Option<Op> {
    let (right, left) =
        if matches!(first.code, Code::SrlI | Code::SrlIW) { (first, second) } else { (second, first) };
    let (code, width) = match (right.code, left.code) {
        (Code::SrlI, Code::SllI) => (Code::RorI, 64),
        (Code::SrlIW, Code::SllIW) => (Code::RorIW, 32),
        _ => return None,
    };
    let whole = right.imm > 0 && left.imm > 0 && right.imm + left.imm == width;
    (right.a == left.a && whole).then(|| Op { a: right.a, imm: right.imm, ..Op::of(code) })
}

/// Whether nobody sees the value of `reg` that these operations begin with.
fn is_lost(ops: &[Op], reg: Reg) -> bool {
    let end = ops.iter().find(|op| may_see(op, reg) || op.rd == reg);
    end.is_some_and(|op| !may_see(op, reg))
}

/// Whether the value of `reg` may be seen by an operation, or by who comes after it has left the block.
fn may_see(op: &Op, reg: Reg) -> bool {
    match op.code.shape() {
        Shape::Ri => false,
        Shape::Rr | Shape::Rri => op.a == reg,
        Shape::Rrr => op.a == reg || op.b == reg,
        _ => true,
    }
}

impl Values<'_> {
    /// The operation that the value of `reg` comes from, if its operand `a` still has the value that it took.
    fn source(&self, reg: Reg) -> Option<&Op> {
        let writer = self.writers[reg.index()];
        let op = self.ops.get(usize::from(writer.checked_sub(1)?))?;
        match self.in_place {
            Some(only) => (reg == only).then_some(op),
            None => (self.writers[op.a.index()] < writer).then_some(op),
        }
    }

    /// The index of the operation in place whose result only `op` at `index` reads, as one operand, and replaces.
    fn in_place(&self, op: &Op, index: usize) -> Option<usize> {
        let reg = op.rd;
        let reads = match op.code.shape() {
            Shape::Rri => op.a == reg,
            Shape::Rrr => (op.a == reg) != (op.b == reg),
            _ => false,
        };
        let at = usize::from(self.writers[reg.index()].checked_sub(1)?);
        let source = self.ops.get(at)?;
        let is_alone = match source.code.shape() {
            Shape::Rri => source.a == reg,
            Shape::Rrr => source.a == reg && source.b == Reg::ZERO,
            _ => false,
        };
        (reads && is_alone && !self.ops[at + 1..index].iter().any(|op| may_see(op, reg))).then_some(at)
    }

    /// The register that `reg` is the complement of.
    fn inverted(&self, reg: Reg) -> Option<Reg> {
        let op = self.source(reg)?;
        (op.code == Code::XorI && op.imm == -1).then_some(op.a)
    }

    /// The operation for `a | b`, `a ^ b` or `a + b` of two shifts that make a rotation.
    fn rotation(&self, rd: Reg, a: Reg, b: Reg) -> Option<Op> {
        Some(Op { rd, ..rotation(self.source(a)?, self.source(b)?)? })
    }

    /// The index of the shift in place that the operation `op` at `index` completes to a rotation in place, and that rotation.
    fn rotation_in_place(&self, op: &Op, index: usize) -> Option<(usize, Op)> {
        if !matches!(op.code, Code::Or | Code::Xor | Code::Add | Code::AddW) {
            return None;
        }
        let later = |a: Reg, b: Reg| self.writers[a.index()] > self.writers[b.index()];
        let (reg, part) = if later(op.a, op.b) { (op.a, op.b) } else { (op.b, op.a) };
        let [shifted, other] = [reg, part].map(|reg| usize::from(self.writers[reg.index()]));
        // The part was taken from what the shift in place took.
        let in_order = self.earlier[reg.index()] < other as u16 && other < shifted;
        let at = shifted.checked_sub(1).filter(|_| in_order)?;
        let (shift, part) = (&self.ops[at], self.ops.get(other.checked_sub(1)?)?);
        if shift.a != reg || self.ops[at + 1..index].iter().any(|op| may_see(op, reg)) {
            return None;
        }
        let made = Op { rd: reg, at: shift.at, ..rotation(part, shift)? };
        if op.rd != reg && !is_lost(&self.ops[index + 1..], reg) {
            return None;
        }
        (op.code != Code::AddW || made.code == Code::RorIW).then_some((at, made))
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

    /// The operation for `a + b`, if one of them is the other register scaled.
    fn scaled(&self, rd: Reg, a: Reg, b: Reg) -> Option<Op> {
        let scaled = |scaled, b| {
            let from = self.source(scaled)?;
            let code = match (from.code, from.imm) {
                (Code::SllI, 1) => Code::Sh1add,
                (Code::SllI, 2) => Code::Sh2add,
                (Code::SllI, 3) => Code::Sh3add,
                (Code::AddUw, _) if from.b == Reg::ZERO => Code::AddUw,
                (Code::SllIUw, 1) => Code::Sh1addUw,
                (Code::SllIUw, 2) => Code::Sh2addUw,
                (Code::SllIUw, 3) => Code::Sh3addUw,
                _ => return None,
            };
            Some(Op { rd, a: from.a, b, ..Op::of(code) })
        };
        scaled(a, b).or_else(|| scaled(b, a))
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
            Code::Add => self.rotation(op.rd, op.a, op.b).or_else(|| self.scaled(op.rd, op.a, op.b)),
            Code::AddW => self.rotation(op.rd, op.a, op.b).filter(|made| made.code == Code::RorIW),
            Code::And => with_inverse(Code::Andn),
            _ => None,
        };
        better.map(|better| Op { at: op.at, ..better })
    }
}

/// Whether one of the operations that are put together is of this kind, whatever they become. Most blocks have none of them.
fn is_part(code: Code) -> bool {
    matches!(code, Code::SllI | Code::SllIW | Code::SllIUw | Code::AddUw | Code::XorI)
}

/// Puts operations of a block together, also such as work in place.
pub(crate) fn combine(ops: &mut [Op], in_place: bool) {
    if !ops.iter().any(|op| is_part(op.code)) {
        return;
    }
    let (mut writers, mut earlier) = ([0; Reg::COUNT], [0; Reg::COUNT]);
    for index in 0..ops.len() {
        let op = ops[index];
        if op.code == Code::Join {
            writers = [0; Reg::COUNT];
        }
        let values = Values { ops, writers: &writers, earlier: &earlier, in_place: None };
        let lost = || {
            let at = values.in_place(&op, index).filter(|_| in_place)?;
            Some((at, Values { in_place: Some(op.rd), ..values }.better(&op)?))
        };
        if let Some(better) = values.better(&op) {
            ops[index] = better;
        } else if let Some((source, better)) = lost() {
            let reg = op.rd;
            ops[source] = Op { rd: reg, a: reg, at: ops[source].at, ..Op::of(Code::Mov) };
            ops[index] = better;
        } else if let Some((shift, rotation)) = values.rotation_in_place(&op, index) {
            ops[shift] = rotation;
            ops[index] = Op { a: rotation.rd, at: op.at, rd: op.rd, ..Op::of(Code::Mov) };
        }
        let mut wrote = |reg: usize| {
            earlier[reg] = writers[reg];
            writers[reg] = index as u16 + 1;
        };
        if writes_x(&op) {
            wrote(op.rd.index());
            if op.code == Code::CasPair {
                wrote(op.rd.index() | 1);
            }
        }
    }
}

/// Whether two operations in a row are the two results of one division or one multiplication of the same operands.
pub(crate) fn are_twins(first: &Op, second: &Op) -> bool {
    use Code::{Div, DivW, Divu, DivuW, Mul, Mulh, Mulhu, Rem, RemW, Remu, RemuW};
    let same = first.a == second.a && first.b == second.b && first.rd != first.a && first.rd != first.b;
    let divides =
        |first, second| matches!((first, second), (Div, Rem) | (Divu, Remu) | (DivW, RemW) | (DivuW, RemuW));
    let multiplies = |first, second| matches!((first, second), (Mulh | Mulhu, Mul));
    let are = |first, second| divides(first, second) || multiplies(first, second);
    same && first.aux != DEAD
        && second.aux != DEAD
        && (are(first.code, second.code) || are(second.code, first.code))
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
        combine(&mut combined, true);
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
    fn a_shift_in_place_is_the_rotation() {
        use Code::{Add, AddI, AddW, Lw, Mov, Or, RorI, RorIW, SllI, SllIW, SrlI, SrlIW, Xor};
        let rotates = |ops: &[Op], want: Option<Op>| {
            let mut combined = ops.to_vec();
            combine(&mut combined, true);
            let last = ops.len() - 1;
            assert_eq!(combined[last], if want.is_some() { imm(Mov, 10, 10, 0) } else { ops[last] });
            assert_eq!(combined[1], want.unwrap_or(ops[1]));
        };
        let [right, left] = [imm(SrlIW, 5, 10, 20), imm(SllIW, 10, 10, 12)];
        for join in [Or, Xor, Add, AddW] {
            rotates(&[right, left, reg(join, 10, 10, 5)], Some(imm(RorIW, 10, 10, 20)));
            rotates(&[right, left, reg(join, 10, 5, 10)], Some(imm(RorIW, 10, 10, 20)));
        }
        let [back, forth] = [imm(SllI, 5, 10, 12), imm(SrlI, 10, 10, 52)];
        rotates(&[back, forth, reg(Or, 10, 10, 5)], Some(imm(RorI, 10, 10, 52)));
        rotates(&[back, forth, reg(AddW, 10, 10, 5)], None);
        let join = reg(AddW, 10, 10, 5);
        rotates(&[right, left, imm(AddI, 11, 12, 1), join], Some(imm(RorIW, 10, 10, 20)));
        // Somebody sees the register, or may, before the rotation is complete; or one of them has another value.
        for between in [imm(AddI, 11, 10, 1), reg(Add, 11, 12, 10), imm(Lw, 11, 2, 0), imm(AddI, 5, 5, 1)] {
            rotates(&[right, left, between, join], None);
        }
        rotates(&[right, left, imm(AddI, 10, 12, 1), join], None);
        rotates(&[right, imm(AddI, 10, 10, 1), left, join], None);
        rotates(&[imm(SllIW, 10, 10, 12), right, join], None);
        rotates(&[right, left, reg(AddW, 11, 10, 5)], None);
        rotates(&[right, left, reg(AddW, 10, 10, 10)], None);
        rotates(&[right, imm(SllIW, 10, 10, 11), join], None);
        rotates(&[right, imm(SllIW, 10, 11, 12), join], None);
    }

    #[test]
    fn a_rotation_in_place_can_go_elsewhere_if_its_place_is_lost() {
        use Code::{Add, AddW, Const, Lw, Mov, RorIW, SllIW, SrlIW};
        let [right, left] = [imm(SrlIW, 5, 10, 20), imm(SllIW, 10, 10, 12)];
        for rd in [5, 11] {
            let join = reg(AddW, rd, 10, 5);
            for (next, lost) in [
                (reg(Add, 10, 11, 12), true),
                (imm(Const, 10, 0, 3), true),
                (reg(Add, 10, 10, 12), false),
                (reg(Add, 12, 11, 10), false),
                (imm(Lw, 10, 2, 0), false),
            ] {
                let mut ops = [right, left, join, next];
                combine(&mut ops, true);
                let want = if lost { [imm(RorIW, 10, 10, 20), imm(Mov, rd, 10, 0)] } else { [left, join] };
                assert_eq!(ops[1..3], want);
            }
            let mut last = [right, left, join];
            combine(&mut last, true);
            assert_eq!(last, [right, left, join]);
        }
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
    fn a_scaled_index_goes_into_the_sum() {
        use Code::{Add, AddUw, Sh2addUw, Sh3add, SllI, SllIUw};
        becomes(&[imm(SllI, 5, 10, 3), reg(Add, 5, 5, 11)], Some(reg(Sh3add, 5, 10, 11)));
        becomes(&[imm(SllI, 5, 10, 3), reg(Add, 6, 11, 5)], Some(reg(Sh3add, 6, 10, 11)));
        becomes(&[imm(SllI, 5, 10, 3), reg(Add, 6, 5, 5)], Some(reg(Sh3add, 6, 10, 5)));
        becomes(&[imm(SllIUw, 5, 10, 2), reg(Add, 5, 5, 11)], Some(reg(Sh2addUw, 5, 10, 11)));
        becomes(&[reg(AddUw, 5, 10, 0), reg(Add, 5, 5, 11)], Some(reg(AddUw, 5, 10, 11)));
        becomes(&[reg(AddUw, 5, 10, 12), reg(Add, 5, 5, 11)], None);
        becomes(&[imm(SllI, 5, 10, 4), reg(Add, 5, 5, 11)], None);
        becomes(&[imm(SllI, 10, 10, 3), reg(Add, 5, 10, 11)], None);
    }

    #[test]
    fn what_is_done_in_place_goes_into_what_replaces_it() {
        use Code::{Add, AddUw, And, Andn, Lw, Mov, Sh2add, SllI, SllIUw, SrlI, XorI};
        let goes = |ops: &[Op], want: Option<Op>| {
            let mut combined = ops.to_vec();
            combine(&mut combined, true);
            let last = ops.len() - 1;
            assert_eq!(combined[0], if want.is_some() { imm(Mov, 10, 10, 0) } else { ops[0] });
            assert_eq!(combined[last], want.unwrap_or(ops[last]));
        };
        let shift = imm(SllI, 10, 10, 2);
        goes(&[shift, reg(Add, 10, 10, 11)], Some(reg(Sh2add, 10, 10, 11)));
        goes(&[shift, reg(Add, 10, 11, 10)], Some(reg(Sh2add, 10, 10, 11)));
        goes(&[shift, reg(Add, 12, 11, 13), reg(Add, 10, 10, 11)], Some(reg(Sh2add, 10, 10, 11)));
        goes(&[imm(SllI, 10, 10, 32), imm(SrlI, 10, 10, 29)], Some(imm(SllIUw, 10, 10, 3)));
        goes(&[imm(XorI, 10, 10, -1), reg(And, 10, 10, 11)], Some(reg(Andn, 10, 11, 10)));
        let there_and_back = [imm(SllI, 10, 10, 32), imm(SrlI, 10, 10, 32), reg(Add, 10, 10, 11)];
        goes(&there_and_back, Some(reg(AddUw, 10, 10, 11)));
        // Somebody sees the register between, or it stays, or it is both operands.
        goes(&[shift, imm(Lw, 12, 2, 0), reg(Add, 10, 10, 11)], None);
        goes(&[shift, reg(Add, 12, 11, 10), reg(Add, 10, 10, 11)], None);
        goes(&[shift, reg(Add, 12, 10, 11)], None);
        goes(&[shift, reg(Add, 10, 10, 10)], None);
        goes(&[reg(AddUw, 10, 10, 12), reg(Add, 10, 10, 11)], None);
    }

    #[test]
    fn twins_have_the_same_operands_still() {
        use Code::{Div, Divu, Mul, Mulh, Mulhsu, Mulhu, Rem, RemW};
        for (first, second, want) in [
            (reg(Div, 5, 10, 11), reg(Rem, 6, 10, 11), true),
            (reg(Rem, 5, 10, 11), reg(Div, 10, 10, 11), true),
            (reg(Mul, 5, 10, 11), reg(Mulhu, 6, 10, 11), true),
            (reg(Mulh, 5, 10, 11), reg(Mul, 5, 10, 11), true),
            (reg(Mulhsu, 5, 10, 11), reg(Mul, 6, 10, 11), false),
            (reg(Mulh, 5, 10, 11), reg(Mulhu, 6, 10, 11), false),
            (reg(Div, 5, 10, 11), reg(RemW, 6, 10, 11), false),
            (reg(Divu, 5, 10, 11), reg(Rem, 6, 10, 11), false),
            (reg(Div, 10, 10, 11), reg(Rem, 6, 10, 11), false),
            (reg(Div, 11, 10, 11), reg(Rem, 6, 10, 11), false),
            (reg(Div, 5, 10, 11), reg(Rem, 6, 11, 10), false),
            (reg(Div, 5, 10, 11), Op { aux: DEAD, ..reg(Rem, 6, 10, 11) }, false),
        ] {
            assert_eq!(are_twins(&first, &second), want, "{first}; {second}");
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
