//! Loads and stores that share a probe of the TLB.
//!
//! Accesses that follow each other with nothing but simple operations between them, by one base register or by two, are a *run*.
//! A constant may be added to a base on the way, as loops do to their pointers.

use frontend::ir::{Code, Fmt, Op, Reg, Shape};

use super::float::writes_x;

/// Most operations in a run.
pub(crate) const MAX_RUN: usize = 40;
/// Most that is added to a base at a time: what an instruction can.
const MAX_MOVE: i64 = 1 << 11;
/// Most bytes between the first and the last byte that a run accesses by one base: the wider, the more often it crosses a page.
const MAX_SPAN: i64 = 512;

/// A base register of a run.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    pub(crate) reg: Reg,
    /// Offsets of the first byte and of the byte after the last, from what the register is at the start of the run.
    pub(crate) low: i64,
    pub(crate) high: i64,
    pub(crate) stores: bool,
    /// What has been added to the register so far.
    moved: i64,
}

/// Most base registers of a run.
pub(crate) const BASES: usize = 2;

/// Operations that are carried out together.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// The first `used` of them.
    bases: [Base; BASES],
    used: usize,
    /// How many of the operations are accesses.
    accesses: usize,
    pub(crate) length: usize,
}

/// What a host can have in a run.
pub(crate) trait Rules {
    /// Whether an operation that is no access may be between accesses: its code keeps what the accesses need.
    fn is_simple(&self, op: &Op) -> bool;
    /// Whether a run can have both bases.
    fn allow_second(&self, first: Reg, second: Reg) -> bool;
}

/// Whether this module carries out `op`. Those of halves are rare.
pub(crate) fn is_access(op: &Op) -> bool {
    match op.code.shape() {
        Shape::Load | Shape::Store => true,
        Shape::FLoad | Shape::FStore => op.fmt() != Fmt::H,
        _ => false,
    }
}

/// Whether an access is a store.
pub(crate) fn is_store(op: &Op) -> bool {
    matches!(op.code.shape(), Shape::Store | Shape::FStore)
}

/// Whether an access is one of a floating-point register.
pub(crate) fn is_float_access(op: &Op) -> bool {
    matches!(op.code, Code::FLoad | Code::FStore)
}

/// Bytes of an access.
pub(crate) fn bytes(op: &Op) -> i64 {
    if is_float_access(op) {
        return op.fmt().bytes() as i64;
    }
    match op.code {
        Code::Lb | Code::Lbu | Code::Sb => 1,
        Code::Lh | Code::Lhu | Code::Sh => 2,
        Code::Lw | Code::Lwu | Code::Sw => 4,
        _ => 8,
    }
}

impl Run {
    const EMPTY: Run = {
        let base = Base { reg: Reg::ZERO, low: 0, high: 0, stores: false, moved: 0 };
        Run { bases: [base; BASES], used: 0, accesses: 0, length: 0 }
    };

    /// Its base registers.
    pub(crate) fn bases(&self) -> &[Base] {
        &self.bases[..self.used]
    }

    /// The longest run that starts at the access `ops[0]`.
    fn find(rules: &impl Rules, ops: &[Op]) -> Run {
        let mut run = Run::EMPTY;
        // Registers that the run has changed: the probes at its start cannot use them.
        let mut changed = 0_u64;
        for (op, length) in ops.iter().zip(1..=MAX_RUN) {
            if is_access(op) {
                if changed >> op.a.index() & 1 == 1 || !run.add(rules, op) {
                    break;
                }
                run.accesses += 1;
                run.length = length;
            } else if !rules.is_simple(op) {
                break;
            }
            if let Some((index, by)) = run.moves(op) {
                run.bases[index].moved += by;
            } else if writes_x(op) {
                if run.bases().iter().any(|base| base.reg == op.rd) {
                    break;
                }
                changed |= 1 << op.rd.index();
            }
        }
        run
    }

    /// Adds an access, if it fits.
    fn add(&mut self, rules: &impl Rules, op: &Op) -> bool {
        let (low, high) = (op.imm, op.imm + bytes(op));
        let stores = is_store(op);
        if let Some(base) = self.bases[..self.used].iter_mut().find(|base| base.reg == op.a) {
            let (low, high) = ((low + base.moved).min(base.low), (high + base.moved).max(base.high));
            if high - low > MAX_SPAN {
                return false;
            }
            *base = Base { low, high, stores: base.stores | stores, ..*base };
            return true;
        }
        if self.used == BASES || self.used == 1 && !rules.allow_second(self.bases[0].reg, op.a) {
            return false;
        }
        self.bases[self.used] = Base { reg: op.a, low, high, stores, moved: 0 };
        self.used += 1;
        true
    }

    /// The run without its second base, if that saves nothing.
    pub(crate) fn worthwhile(rules: &impl Rules, ops: &[Op]) -> Run {
        let run = Run::find(rules, ops);
        if run.accesses > run.used {
            return run;
        }
        let mut single = Run { length: 1, ..Run::EMPTY };
        single.add(rules, &ops[0]);
        single
    }

    /// The index of the base register that an operation moves, and how far.
    pub(crate) fn moves(&self, op: &Op) -> Option<(usize, i64)> {
        if op.code != Code::AddI || op.rd != op.a || op.imm.abs() > MAX_MOVE {
            return None;
        }
        let index = self.bases().iter().position(|base| base.reg == op.rd)?;
        Some((index, op.imm))
    }

    /// Index of a base register.
    pub(crate) fn base(&self, reg: Reg) -> usize {
        self.bases().iter().position(|base| base.reg == reg).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All;

    impl Rules for All {
        fn is_simple(&self, op: &Op) -> bool {
            !matches!(op.code.shape(), Shape::Branch | Shape::Jump | Shape::Call)
        }

        fn allow_second(&self, _: Reg, _: Reg) -> bool {
            true
        }
    }

    fn op(code: Code, rd: u8, a: u8, b: u8, imm: i64) -> Op {
        Op { rd: Reg(rd), a: Reg(a), b: Reg(b), imm, ..Op::of(code) }
    }

    fn run(ops: &[Op]) -> (usize, Vec<(u8, i64, i64, bool)>) {
        let run = Run::worthwhile(&All, ops);
        (run.length, run.bases().iter().map(|base| (base.reg.0, base.low, base.high, base.stores)).collect())
    }

    #[test]
    fn a_run_follows_a_base_that_moves() {
        let ops = [
            op(Code::Ld, 10, 11, 0, 0),
            op(Code::AddI, 11, 11, 0, 24),
            op(Code::Lw, 12, 11, 0, -4),
            op(Code::AddI, 11, 11, 0, -8),
            op(Code::Sb, 0, 11, 12, 1),
        ];
        assert_eq!(run(&ops), (5, vec![(11, 0, 24, true)]));
    }

    #[test]
    fn a_base_that_becomes_another_ends_the_run() {
        for change in [
            op(Code::AddI, 11, 12, 0, 8),
            op(Code::Add, 11, 11, 12, 0),
            op(Code::AddI, 11, 11, 0, 2 * MAX_MOVE),
            op(Code::Mov, 11, 12, 0, 0),
        ] {
            let ops =
                [op(Code::Ld, 10, 11, 0, 8), op(Code::Ld, 12, 11, 0, 0), change, op(Code::Ld, 12, 11, 0, 16)];
            assert_eq!(run(&ops), (2, vec![(11, 0, 16, false)]), "{change}");
        }
    }

    #[test]
    fn what_moves_too_far_is_not_of_the_run() {
        let ops = [
            op(Code::Ld, 10, 11, 0, 0),
            op(Code::AddI, 11, 11, 0, MAX_SPAN / 2),
            op(Code::Ld, 12, 11, 0, 0),
            op(Code::AddI, 11, 11, 0, MAX_SPAN / 2),
            op(Code::Ld, 13, 11, 0, 0),
        ];
        assert_eq!(run(&ops), (3, vec![(11, 0, MAX_SPAN / 2 + 8, false)]));
    }
}
