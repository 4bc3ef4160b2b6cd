//! Loops of one block keep their own busiest guest registers in host registers.
//!
//! Between blocks the same guest registers are in host registers everywhere. A block that jumps to its own start runs often for
//! each time it is entered, so it pays to give the host register of a guest register that the loop hardly uses to one that it uses
//! much.

use frontend::ir::{Code, Op, Reg, Shape};

use super::demand::DEAD;

/// A guest register that gives up its host register to another inside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) host: u8,
    pub(crate) out: u8,
    pub(crate) into: u8,
}

/// How often each guest register is read or written.
pub(super) fn uses(ops: &[Op]) -> [u32; 32] {
    let mut uses = [0; 32];
    let mut count = |regs: &[Reg]| {
        for reg in regs {
            if let Some(uses) = uses.get_mut(reg.index()) {
                *uses += 1;
            }
        }
    };
    for op in ops {
        match op.code.shape() {
            Shape::Ri | Shape::Rr | Shape::Rrr | Shape::Rri if op.aux == DEAD => {}
            Shape::Ri | Shape::FtoX | Shape::FcmpX => count(&[op.rd]),
            Shape::Rr | Shape::Rri | Shape::Load | Shape::JumpReg => count(&[op.rd, op.a]),
            Shape::Rrr | Shape::Amo => count(&[op.rd, op.a, op.b]),
            Shape::Store | Shape::Branch => count(&[op.a, op.b]),
            Shape::FLoad | Shape::FStore | Shape::XtoF => count(&[op.a]),
            Shape::Fi | Shape::Fr | Shape::Frr | Shape::Frrr | Shape::Jump | Shape::Join | Shape::Call => {}
        }
    }
    // x0 is no register.
    uses[0] = 0;
    uses
}

/// Whether a block jumps to its own start.
pub(crate) fn is_loop(ops: &[Op], start: u16) -> bool {
    let back = |op: &Op| matches!(op.code.shape(), Shape::Branch | Shape::Jump) && op.imm == i64::from(start);
    ops.iter().any(back)
}

/// The operation by which a loop makes floating-point registers live before anything else, once for all its rounds: they stay so
/// unless a helper is called. It is of the first instruction: one without operations, such as a `nop`, would have retired before.
pub(crate) fn live_throughout(ops: &[Op], start: u16) -> Option<&Op> {
    let first = ops.first().filter(|op| op.code == Code::FpOn && op.at == start)?;
    (is_loop(ops, start) && ops.iter().all(|op| op.code != Code::Call)).then_some(first)
}

/// The exchanges that pay in a block with these operations, as [`super::prepare`] left them, from the page offset `start` on, where the guest registers of `pins` (guest, host) are in host registers otherwise; none unless
/// it is a loop.
pub(crate) fn choose(ops: &[Op], start: u16, pins: &[(u8, u8)]) -> Vec<Exchange> {
    // Helpers want all registers in their usual places each time.
    if !is_loop(ops, start) || ops.iter().any(|op| op.code == Code::Call) {
        return Vec::new();
    }
    let uses = uses(ops);
    let is_pinned = |reg: u8| pins.iter().any(|&(guest, _)| guest == reg);
    let mut wanted: Vec<u8> = (1..32).filter(|&reg| !is_pinned(reg) && uses[usize::from(reg)] > 1).collect();
    wanted.sort_by_key(|&reg| std::cmp::Reverse(uses[usize::from(reg)]));
    let mut given = pins.to_vec();
    given.sort_by_key(|&(reg, _)| uses[usize::from(reg)]);
    let pays = |&(into, (out, _)): &(u8, (u8, u8))| uses[usize::from(into)] > uses[usize::from(out)] + 1;
    let exchanges = wanted.into_iter().zip(given).take_while(pays);
    exchanges.map(|(into, (out, host))| Exchange { host, out, into }).collect()
}
