//! Where generated code looks for underflow, on hosts that detect tininess before rounding.
//!
//! RISC-V detects it after rounding. Of an inexact operation the host's flag says the same unless the result is the smallest normal
//! number; then RISC-V's may be clear where the host's is set. So the host's flag is clear as long as nothing can have underflowed,
//! and when it is found set, the operations since it was known to be clear are carried out once more, by the exact arithmetic of
//! [`crate::softfloat`], for the sake of that one flag. Results and all other flags are right already.
//!
//! Looking costs the same for one operation as for many. A *group* is all operations of a block between two looks; it ends where the
//! block may be left or Rust code may see the flags. When something is to be carried out again, its operands must still be known: an
//! operand that another operation of the group, or its own, overwrites is saved before, or the group ends there.

use frontend::ir::{Code, Fmt, Op, Reg, Shape};

use super::float::{is_float, is_inline, writes_f};
use super::runs::is_access;
use crate::context::{HartState, SAVED};
use crate::interp;

/// Underflow, in fflags.
const UF: u8 = 1 << 1;
/// A look is worth that many operands that need not be saved.
const LOOK_COST: u32 = 3;

/// What is done before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The group ends.
    Look,
    /// This register is put into a slot.
    Save { reg: u8, slot: u8 },
}

/// What is done where in a block: see the start of this file.
#[derive(Default)]
pub(crate) struct Underflow {
    /// With the index of the operation that they come before, ascending. A look comes before what is saved.
    guards: Vec<(usize, Guard)>,
    /// The operations that can underflow, with their indices.
    risky: Vec<(usize, Op)>,
}

fn bit(reg: u8) -> u32 {
    1 << (reg & 31)
}

/// Whether the host may raise underflow. Sums that are tiny are exact, square roots are never tiny.
fn can_underflow(op: &Op) -> bool {
    use Code::{FCvtFmt, FDiv, FMadd, FMsub, FMul, FNmadd, FNmsub};
    match op.code {
        FMul | FDiv | FMadd | FMsub | FNmadd | FNmsub => is_inline(op),
        FCvtFmt => is_inline(op) && op.fmt() == Fmt::S,
        _ => false,
    }
}

/// The registers that an operation that can underflow reads: `a`, or also `b`, or also `c`.
fn operands(op: &Op) -> impl Iterator<Item = Reg> {
    let count = match op.code.shape() {
        Shape::Frrr => 3,
        Shape::Frr => 2,
        _ => 1,
    };
    [op.a, op.b, op.c].into_iter().take(count)
}

/// The format in which it reads them.
fn source_format(op: &Op) -> Fmt {
    if op.code == Code::FCvtFmt { Fmt::from_bits(op.c.0) } else { op.fmt() }
}

/// Whether the block may be left at an operation, or Rust code sees the flags, in what is usually done for it.
fn ends_group(op: &Op) -> bool {
    let is_integer = matches!(op.code.shape(), Shape::Ri | Shape::Rr | Shape::Rrr | Shape::Rri);
    let is_computed = is_float(op.code) && op.code != Code::FpOn && is_inline(op);
    !(is_integer || is_computed || is_access(op))
}

/// Whether it is better to look before the first of `ops` than to save what it overwrites of the operands `left`.
fn prefers_look(ops: &[Op], left: u32) -> bool {
    let group = || ops.iter().take_while(|op| !ends_group(op));
    if !group().any(can_underflow) {
        // The last look of the group comes now.
        return true;
    }
    let written = group().filter(|op| writes_f(op)).fold(0, |all, op| all | bit(op.rd.0));
    (written & left).count_ones() >= LOOK_COST
}

impl Underflow {
    /// Decides for the operations of a block.
    pub(crate) fn plan(&mut self, ops: &[Op]) {
        self.guards.clear();
        self.risky.clear();
        self.risky.extend(ops.iter().copied().enumerate().filter(|(_, op)| can_underflow(op)));
        let Some(&(first, _)) = self.risky.first() else { return };
        // Operands of the group that are in their registers only.
        let mut operands_left = 0;
        let mut slots = 0;
        let mut is_open = false;
        for (index, op) in ops.iter().enumerate().skip(first) {
            let own = if can_underflow(op) { operands(op).fold(0, |all, reg| all | bit(reg.0)) } else { 0 };
            let written = if writes_f(op) { bit(op.rd.0) } else { 0 };
            let mut look = ends_group(op);
            if written & operands_left != 0 {
                look |= slots == SAVED || prefers_look(&ops[index..], operands_left);
            } else if written & own != 0 {
                look |= slots == SAVED;
            }
            if look && is_open {
                self.guards.push((index, Guard::Look));
                (operands_left, slots, is_open) = (0, 0, false);
            }
            if written & (operands_left | own) != 0 {
                self.guards.push((index, Guard::Save { reg: op.rd.0 & 31, slot: slots as u8 }));
                slots += 1;
            }
            is_open |= own != 0;
            operands_left = (operands_left | own) & !written;
        }
        if is_open {
            self.guards.push((ops.len(), Guard::Look));
        }
    }

    /// What is done before the operation at `index`; the number of operations is the end of the block.
    pub(crate) fn before(&self, index: usize) -> impl Iterator<Item = Guard> + use<> {
        let start = self.guards.partition_point(|&(at, _)| at < index);
        let found = self.guards[start..].iter().take_while(|&&(at, _)| at == index);
        // There are two at most.
        let mut guards = [None; 2];
        found.zip(&mut guards).for_each(|(&(_, guard), place)| *place = Some(guard));
        guards.into_iter().flatten()
    }

    /// The group that the look before `index` ends, as it is passed to Rust.
    pub(crate) fn group(&self, index: usize) -> Vec<Op> {
        self.list(self.start(index), index, index)
    }

    /// What of a group has been done before the operation at `index`, from the one at `from` on, which may be of an earlier group. It
    /// can also be asked while that operation is being done.
    pub(crate) fn begun(&self, from: usize, index: usize) -> Vec<Op> {
        self.list(self.start(index + 1).max(from), index, index + 1)
    }

    /// Whether what is saved of a register before the operation at `index` is only ever read as a single, so that its box is not needed.
    pub(crate) fn saves_single(&self, index: usize, reg: u8) -> bool {
        let start = self.start(index + 1);
        let group = self.risky.iter().filter(|&&(at, _)| start <= at && at <= index);
        let mut readers = group.filter(|(_, op)| operands(op).any(|operand| operand.0 & 31 == reg));
        readers.all(|(_, op)| source_format(op) == Fmt::S)
    }

    /// Index of the operation after the last look before `index`.
    fn start(&self, index: usize) -> usize {
        let looks = self.guards.iter().rev().filter(|(_, guard)| *guard == Guard::Look);
        looks.map(|&(at, _)| at).find(|&at| at < index).unwrap_or(0)
    }

    /// The operations from `start` to `end` that can underflow, when what comes before the operation at `saved` was saved.
    fn list(&self, start: usize, end: usize, saved: usize) -> Vec<Op> {
        let group = self.risky.iter().filter(|&&(at, _)| start <= at && at < end);
        group
            .map(|&(at, op)| {
                let saves = || self.guards.iter().filter(|&&(save, _)| at <= save && save < saved);
                let place = |reg: Reg| {
                    saves().find_map(|&(_, guard)| match guard {
                        Guard::Save { reg: saved, slot } if saved == reg.0 & 31 => Some(slot),
                        _ => None,
                    })
                };
                Again { op, places: [place(op.a), place(op.b), place(op.c)] }.pack()
            })
            .collect()
    }
}

/// An operation that is to be carried out again, with the slots of operands that are not in their registers any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Again {
    op: Op,
    /// Of `a`, `b` and `c`.
    places: [Option<u8>; 3],
}

impl Again {
    /// As an operation, whose immediate, which is not needed any more, has the places.
    fn pack(self) -> Op {
        let places = self.places.map(|place| place.map_or(0, |slot| i64::from(slot) + 1));
        Op { imm: places[0] | places[1] << 8 | places[2] << 16, ..self.op }
    }

    fn unpack(op: &Op) -> Self {
        let place = |shift: u32| ((op.imm >> shift) as u8).checked_sub(1);
        Self { op: *op, places: [place(0), place(8), place(16)] }
    }

    /// Carries it out again, for its underflow flag only.
    fn underflows(&self, state: &mut HartState) -> bool {
        let (f, fflags) = (state.f, state.fflags);
        // A single may have been saved before it was boxed.
        let boxed = if source_format(&self.op) == Fmt::S { 0xffff_ffff_0000_0000 } else { 0 };
        for (reg, place) in operands(&self.op).zip(self.places) {
            if let Some(slot) = place {
                state.f[usize::from(reg.0 & 31)] = state.native.saved[usize::from(slot)] | boxed;
            }
        }
        state.fflags = 0;
        let done = interp::float(state, &self.op);
        debug_assert!(done.is_ok(), "the host has carried it out");
        let raised = state.fflags;
        (state.f, state.fflags) = (f, fflags);
        raised & UF != 0
    }
}

/// Raises underflow if one of the operations that [`Underflow`] listed has underflowed.
pub(crate) fn raise(state: &mut HartState, ops: &[Op]) {
    if ops.iter().any(|op| Again::unpack(op).underflows(state)) {
        state.fflags |= UF;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend::ir::fp_aux;

    /// Which value each register and slot has, by a number of its own.
    #[derive(Clone, Default)]
    struct Values {
        f: [u32; 32],
        slots: [u32; SAVED],
        last: u32,
    }

    impl Values {
        fn operands(&self, op: &Op) -> Vec<u32> {
            operands(op).map(|reg| self.f[usize::from(reg.0)]).collect()
        }

        /// What an operation that is carried out again finds.
        fn again(&self, op: &Op) -> Vec<u32> {
            let Again { op, places } = Again::unpack(op);
            let operands = self.operands(&op).into_iter().zip(places);
            operands.map(|(value, place)| place.map_or(value, |slot| self.slots[usize::from(slot)])).collect()
        }
    }

    /// Walks through a block, and looks at what would be passed to Rust before each operation.
    fn follow(ops: &[Op]) {
        let mut plan = Underflow::default();
        plan.plan(ops);
        let f = std::array::from_fn(|reg| reg as u32);
        let mut values = Values { f, last: 32, ..Values::default() };
        // The operands that the operations since the last look had.
        let mut had: Vec<Vec<u32>> = Vec::new();
        for index in 0..=ops.len() {
            for guard in plan.before(index) {
                match guard {
                    Guard::Look => {
                        let group = plan.group(index);
                        assert_eq!(group.iter().map(|op| values.again(op)).collect::<Vec<_>>(), had);
                        had.clear();
                    }
                    Guard::Save { reg, slot } => values.slots[usize::from(slot)] = values.f[usize::from(reg)],
                }
            }
            let begun = plan.begun(0, index);
            assert_eq!(begun.iter().map(|op| values.again(op)).collect::<Vec<_>>(), had, "before {index}");
            let Some(op) = ops.get(index) else { break };
            if ends_group(op) {
                assert!(had.is_empty());
            }
            if can_underflow(op) {
                had.push(values.operands(op));
            }
            if writes_f(op) {
                values.last += 1;
                values.f[usize::from(op.rd.0)] = values.last;
            }
        }
        assert!(had.is_empty());
    }

    fn op(code: Code, rd: u8, a: u8, b: u8, c: u8) -> Op {
        Op { rd: Reg(rd), a: Reg(a), b: Reg(b), c: Reg(c), aux: fp_aux(Fmt::D, 7), ..Op::of(code) }
    }

    #[test]
    fn whatever_may_have_underflowed_can_be_carried_out_again() {
        let mut seed = 0x9e37_79b9_u32;
        let mut random = |limit: u32| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed % limit
        };
        for _ in 0..20_000 {
            let length = random(50);
            let few = 3 + random(12);
            let code = |kind| match kind {
                0..5 => Code::FMul,
                5..8 => Code::FMadd,
                8 => Code::FDiv,
                9..11 => Code::FAdd,
                11..13 => Code::FLoad,
                13 => Code::FStore,
                14 => Code::FLt,
                15 => Code::Add,
                16 => Code::FCvtFmt,
                17 => Code::Call,
                _ => Code::FSgnj,
            };
            let ops: Vec<Op> = (0..length)
                .map(|_| {
                    let code = code(random(19));
                    let mut register = || random(few) as u8;
                    let op = op(code, register(), register(), register(), register());
                    match code {
                        // From double to single.
                        Code::FCvtFmt => Op { c: Reg(Fmt::D as u8), b: op.a, aux: fp_aux(Fmt::S, 7), ..op },
                        _ => op,
                    }
                })
                .collect();
            follow(&ops);
        }
    }

    fn guards(ops: &[Op]) -> Vec<(usize, Guard)> {
        let mut plan = Underflow::default();
        plan.plan(ops);
        plan.guards
    }

    #[test]
    fn one_look_is_for_many_operations() {
        let save = |reg, slot| Guard::Save { reg, slot };
        let products = [op(Code::FMul, 1, 2, 3, 0), op(Code::FMul, 4, 5, 6, 0), op(Code::FAdd, 7, 1, 4, 0)];
        assert_eq!(guards(&products), [(3, Guard::Look)]);
        // A sum in its own register.
        let sum = [op(Code::FMadd, 1, 2, 3, 1), op(Code::FMadd, 1, 4, 5, 1)];
        assert_eq!(guards(&sum), [(0, save(1, 0)), (1, save(1, 1)), (2, Guard::Look)]);
        // Nothing else can underflow when the operand goes.
        let last = [op(Code::FMul, 1, 2, 3, 0), op(Code::FLoad, 2, 10, 0, 0), op(Code::FAdd, 3, 1, 2, 0)];
        assert_eq!(guards(&last), [(1, Guard::Look)]);
        let none = [op(Code::FAdd, 1, 2, 3, 0), op(Code::FSqrt, 1, 1, 0, 0)];
        assert_eq!(guards(&none), []);
    }
}
