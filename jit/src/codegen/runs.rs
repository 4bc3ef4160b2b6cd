//! Loads and stores that share a probe of the TLB.
//!
//! Accesses that follow each other with nothing but simple operations between them, by one base register or by two, are a *run*.

use frontend::ir::{Code, Fmt, Op, Reg, Shape};

use super::float::writes_x;

/// Most operations in a run.
const MAX_RUN: usize = 40;
/// Most bytes between the first and the last byte that a run accesses by one base: the wider, the more often it crosses a page.
const MAX_SPAN: i64 = 512;

/// A base register of a run.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    pub(crate) reg: Reg,
    /// Offsets of the first byte and of the byte after the last.
    pub(crate) low: i64,
    pub(crate) high: i64,
    pub(crate) stores: bool,
}

/// Operations that are carried out together.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) bases: [Option<Base>; 2],
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
    match op.code {
        Code::Lb | Code::Lbu | Code::Sb => 1,
        Code::Lh | Code::Lhu | Code::Sh => 2,
        Code::Lw | Code::Lwu | Code::Sw => 4,
        Code::FLoad | Code::FStore => op.fmt().bytes() as i64,
        _ => 8,
    }
}

impl Run {
    /// The longest run that starts at the access `ops[0]`.
    fn find(rules: &impl Rules, ops: &[Op]) -> Run {
        let mut run = Run { bases: [None; 2], length: 0 };
        // Registers that the run has changed: the probes at its start cannot use them.
        let mut changed = 0_u64;
        for (index, op) in ops.iter().enumerate().take(MAX_RUN) {
            let change = if writes_x(op) { 1 << op.rd.index() } else { 0 };
            let clobbers = writes_x(op) && run.bases.iter().flatten().any(|base| base.reg == op.rd);
            if !is_access(op) {
                if !rules.is_simple(op) || clobbers {
                    break;
                }
                changed |= change;
                continue;
            }
            if changed >> op.a.index() & 1 == 1 || !run.add(rules, op) {
                break;
            }
            changed |= change;
            run.length = index + 1;
            if writes_x(op) && run.bases.iter().flatten().any(|base| base.reg == op.rd) {
                break;
            }
        }
        run
    }

    /// Adds an access, if it fits.
    fn add(&mut self, rules: &impl Rules, op: &Op) -> bool {
        let (low, high) = (op.imm, op.imm + bytes(op));
        let stores = is_store(op);
        let [first, second] = &mut self.bases;
        for base in [&mut *first, &mut *second].into_iter().flatten() {
            if base.reg == op.a {
                let (low, high) = (low.min(base.low), high.max(base.high));
                if high - low > MAX_SPAN {
                    return false;
                }
                *base = Base { low, high, stores: base.stores | stores, ..*base };
                return true;
            }
        }
        let base = Base { reg: op.a, low, high, stores };
        match (&first, &second) {
            (None, _) => *first = Some(base),
            (Some(other), None) if rules.allow_second(other.reg, base.reg) => *second = Some(base),
            _ => return false,
        }
        true
    }

    /// The run without its second base, if that saves nothing.
    pub(crate) fn worthwhile(rules: &impl Rules, ops: &[Op]) -> Run {
        let run = Run::find(rules, ops);
        let accesses = ops[..run.length].iter().filter(|op| is_access(op)).count();
        let bases = run.bases.iter().flatten().count();
        if accesses > bases {
            return run;
        }
        let mut single = Run { bases: [None; 2], length: 1 };
        single.add(rules, &ops[0]);
        single
    }

    /// Index of a base register.
    pub(crate) fn base(&self, reg: Reg) -> usize {
        self.bases.iter().flatten().position(|base| base.reg == reg).unwrap_or(0)
    }
}
