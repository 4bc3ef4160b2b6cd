//! Loops of one block keep their own busiest guest registers in host registers.
//!
//! Between blocks the registers of [`super::regs::PINS`] are in host registers. A block that jumps to its own start runs often
//! for each time it is entered, so it pays to give the host register of a guest register that the loop hardly uses to one that
//! it uses much: the two are exchanged on the way in, and back on every way out, be it to another block, to shared code or to
//! Rust.

use dynasmrt::DynasmApi;
use frontend::Block;
use frontend::ir::{Code, Op, Reg, Shape};

use super::Translator;
use super::asm::{Cc, Width, op};
use super::regs::{Exchange, Loc, PINS, Pins, x_slot};

/// How often each guest register is read or written.
fn uses(ops: &[Op]) -> [u32; 32] {
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
            Shape::Ri | Shape::FtoX | Shape::FcmpX => count(&[op.rd]),
            Shape::Rr | Shape::Rri | Shape::Load | Shape::JumpReg => count(&[op.rd, op.a]),
            Shape::Rrr | Shape::Amo => count(&[op.rd, op.a, op.b]),
            Shape::Store | Shape::Branch => count(&[op.a, op.b]),
            Shape::FLoad | Shape::FStore | Shape::XtoF => count(&[op.a]),
            Shape::Fi | Shape::Fr | Shape::Frr | Shape::Frrr | Shape::Jump | Shape::Call => {}
        }
    }
    // x0 is no register.
    uses[0] = 0;
    uses
}

/// The exchanges that pay in a block; none unless it is a loop.
fn choose(block: &Block) -> Vec<Exchange> {
    let is_loop =
        block.ops.iter().rev().take(2).any(|op| {
            matches!(op.code.shape(), Shape::Branch | Shape::Jump) && op.imm == i64::from(block.start)
        });
    // Helpers want all registers in their usual places each time.
    if !is_loop || block.ops.iter().any(|op| op.code == Code::Call) {
        return Vec::new();
    }
    let uses = uses(&block.ops);
    let mut wanted: Vec<u8> =
        (1..32).filter(|&reg| Pins::USUAL.pinned(Reg(reg)).is_none() && uses[usize::from(reg)] > 1).collect();
    wanted.sort_by_key(|&reg| std::cmp::Reverse(uses[usize::from(reg)]));
    let mut given = PINS;
    given.sort_by_key(|&(reg, _)| uses[usize::from(reg)]);
    let pays = |&(into, (out, _)): &(u8, (u8, u8))| uses[usize::from(into)] > uses[usize::from(out)] + 1;
    let exchanges = wanted.into_iter().zip(given).take_while(pays);
    exchanges.map(|(into, (out, host))| Exchange { host, out, into }).collect()
}

impl Translator {
    /// Chooses the exchanges for a block and carries them out on the way in.
    pub(super) fn exchange_in(&mut self, block: &Block) {
        self.exchanges = choose(block);
        self.pins = Pins::USUAL;
        self.to_usual = self.asm.label();
        self.to_block = self.asm.label();
        for index in 0..self.exchanges.len() {
            self.pins.exchange(self.exchanges[index]);
        }
        self.swap_in();
    }

    fn swap_in(&mut self) {
        for Exchange { host, out, into } in self.exchanges.clone() {
            self.asm.rm(Width::Q, &[op::STORE], host, Loc::Slot(x_slot(out)));
            self.asm.rm(Width::Q, &[op::MOV], host, Loc::Slot(x_slot(into)));
        }
    }

    /// Puts all registers in their usual places, on a way out. Keeps the scratch registers and the flags.
    pub(super) fn exchange_out(&mut self) {
        for Exchange { host, out, into } in self.exchanges.clone() {
            self.asm.rm(Width::Q, &[op::STORE], host, Loc::Slot(x_slot(into)));
            self.asm.rm(Width::Q, &[op::MOV], host, Loc::Slot(x_slot(out)));
        }
    }

    /// Calls shared code, which wants the registers in their usual places. Keeps its flags.
    pub(super) fn call_shared(&mut self, thunk: u32) {
        if self.exchanges.is_empty() {
            return self.asm.call_to(thunk);
        }
        self.asm.call(self.to_usual);
        self.asm.call_to(thunk);
        self.asm.call(self.to_block);
    }

    /// Leaves the block for shared code.
    pub(super) fn leave_by(&mut self, thunk: u32) {
        self.exchange_out();
        self.asm.jmp_to(thunk);
    }

    /// The subroutines of [`Self::call_shared`].
    pub(super) fn exchange_subroutines(&mut self) {
        self.asm.bind(self.to_usual);
        if !self.exchanges.is_empty() {
            self.exchange_out();
            self.asm.push(0xc3);
        }
        self.asm.bind(self.to_block);
        if !self.exchanges.is_empty() {
            self.swap_in();
            self.asm.push(0xc3);
        }
    }

    /// A conditional way out, which has to be left by way of cold code if registers are exchanged.
    pub(super) fn exit_condition(&mut self, cc: Cc, leave: impl FnOnce(&mut Translator) + 'static) {
        let taken = self.asm.label();
        self.asm.jcc(cc, taken);
        self.cold(move |t| {
            t.asm.bind(taken);
            leave(t);
        });
    }
}
