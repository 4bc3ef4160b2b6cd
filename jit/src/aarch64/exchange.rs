//! Exchanges the registers that [`crate::codegen::exchange`] chooses: on the way into a block, and back on every way out, be it to
//! another block, to shared code or to Rust. Before that, registers get what was put off ([`crate::codegen::pending`]).

use frontend::ir::{Op, Reg};

use super::Translator;
use super::asm::{Cc, op};
use super::branch::Condition;
use super::fp::BOX;
use super::mem::{Kept, NO_PAGE};
use super::neon::logic;
use super::regs::{LINK, PINS, Pins, XZR, f_pinned, x_slot};
use crate::codegen::exchange::{Exchange, choose};
use crate::codegen::kept;
use crate::codegen::pending::Pending;

/// Most accesses of a loop that keep their page: what is exchanged has to be put back.
const MAX_KEPT: usize = 4;

impl Translator {
    /// Chooses the exchanges for a block and carries them out on the way in.
    pub(super) fn exchange_in(&mut self, ops: &[Op]) {
        self.exchanges = choose(ops, self.start, &PINS);
        self.pins = Pins::USUAL;
        self.to_usual = self.asm.label();
        self.to_block = self.asm.label();
        for index in 0..self.exchanges.len() {
            self.pins.exchange(self.exchanges[index]);
        }
        let elsewhere = |&(_, host): &(u8, u8)| host != LINK;
        self.taken = kept::unused(ops, &PINS, &self.exchanges).into_iter().filter(elsewhere).collect();
        let chosen = kept::choose(&self.pins, ops, self.start, MAX_KEPT.min(self.taken.len() / 2));
        self.taken.truncate(2 * chosen.len());
        self.taken.iter().for_each(|&(guest, _)| self.pins.take(guest));
        let places = chosen.into_iter().zip(self.taken.chunks_exact(2));
        self.kept =
            places.map(|(index, hosts)| Kept { index, page: hosts[0].1, addend: hosts[1].1 }).collect();
        self.swap_in(|_| true);
    }

    fn swap_in(&mut self, which: impl Fn(&Exchange) -> bool) {
        for &Exchange { host, out, into } in self.exchanges.iter().filter(|exchange| which(exchange)) {
            self.asm.str(host, x_slot(out));
            self.asm.ldr(host, x_slot(into));
        }
        for &(guest, host) in &self.taken {
            self.asm.str(host, x_slot(guest));
        }
        for kept in &self.kept {
            self.asm.mov_imm(kept.page, NO_PAGE);
        }
    }

    fn swap_out(&mut self, which: impl Fn(&Exchange) -> bool) {
        for &Exchange { host, out, into } in self.exchanges.iter().filter(|exchange| which(exchange)) {
            self.asm.str(host, x_slot(into));
            self.asm.ldr(host, x_slot(out));
        }
        for &(guest, host) in &self.taken {
            self.asm.ldr(host, x_slot(guest));
        }
    }

    /// Whether some registers are not in their usual places.
    pub(super) fn is_exchanged(&self) -> bool {
        !self.exchanges.is_empty() || !self.taken.is_empty()
    }

    /// Gives registers what they lack. Keeps the scratch registers and the flags.
    pub(super) fn complete(&mut self) {
        self.complete_all(self.pending);
    }

    /// The same, but for what the next round of a loop can do without.
    pub(super) fn complete_round(&mut self) {
        self.left = self.left.or(self.pending);
        self.complete_all(self.pending.without(self.carried));
    }

    /// Before a loop: makes sure that what its rounds take for results that lack their extension are such, or has the interpreter carry
    /// out the first round from page offset `start` on. Nothing of the block has been counted yet.
    pub(super) fn ask_narrow(&mut self, start: u16) {
        for reg in self.carried.narrow_registers() {
            let Some(host) = self.pins.pinned(reg) else { continue };
            let wide = self.asm.label();
            self.asm.extended(op::SUBS, XZR, host, host, 0);
            self.asm.b_cc(Cc::NotEqual, wide);
            self.cold(move |t| {
                t.asm.bind(wide);
                t.interpret(start.into());
            });
        }
    }

    fn complete_all(&mut self, pending: Pending) {
        pending.narrow_registers().for_each(|reg| self.extend(reg));
        pending.unboxed_registers().for_each(|reg| self.put_box(reg));
    }

    /// Extends the sign of a pinned register, if that was put off.
    pub(super) fn extend(&mut self, reg: Reg) {
        if let Some(host) = self.pins.pinned(reg).filter(|_| self.pending.is_narrow(reg)) {
            self.asm.sxtw(host, host);
            self.pending.set_narrow(reg, false);
        }
    }

    /// Boxes the single in a pinned register, if that was put off.
    pub(super) fn put_box(&mut self, reg: Reg) {
        if let Some(host) = f_pinned(reg.0).filter(|_| self.pending.is_unboxed(reg)) {
            self.asm.vector(logic::ORR, host, host, BOX);
            self.pending.set_unboxed(reg, false);
        }
    }

    /// Puts all registers in their usual places, on a way out. Keeps the scratch registers and the flags.
    pub(super) fn exchange_out(&mut self) {
        self.complete();
        self.swap_out(|_| true);
    }

    /// Calls shared code, which wants the registers in their usual places, and that of [`LINK`] in the state. Keeps its flags.
    pub(super) fn call_shared(&mut self, thunk: u32) {
        self.complete();
        let linked = self.pins.guest(LINK).map(x_slot);
        if let Some(slot) = linked {
            self.asm.str(LINK, slot);
        }
        if !self.is_exchanged() {
            self.asm.bl_to(thunk);
        } else {
            self.asm.bl(self.to_usual);
            self.asm.bl_to(thunk);
            self.asm.bl(self.to_block);
        }
        if let Some(slot) = linked {
            self.asm.ldr(LINK, slot);
        }
    }

    /// Leaves the block for shared code.
    pub(super) fn leave_by(&mut self, thunk: u32) {
        self.exchange_out();
        self.asm.b_to(thunk);
    }

    /// The subroutines of [`Self::call_shared`].
    pub(super) fn exchange_subroutines(&mut self) {
        let elsewhere = |exchange: &Exchange| exchange.host != LINK;
        self.asm.bind(self.to_usual);
        if self.is_exchanged() {
            self.swap_out(elsewhere);
            self.asm.ret();
        }
        self.asm.bind(self.to_block);
        if self.is_exchanged() {
            self.swap_in(elsewhere);
            self.asm.ret();
        }
    }

    /// A conditional way out, which has to be left by way of cold code: shared code is too far for a conditional branch, and one
    /// cannot be patched while it runs.
    pub(super) fn exit_condition(
        &mut self,
        condition: Condition,
        leave: impl FnOnce(&mut Translator) + 'static,
    ) {
        let taken = self.asm.label();
        self.branch_if(condition, taken);
        self.cold(move |t| {
            t.asm.bind(taken);
            t.begin_stretch();
            leave(t);
            t.end_stretch();
        });
    }
}
