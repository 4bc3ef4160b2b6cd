//! Exchanges the registers that [`crate::codegen::exchange`] chooses: on the way into a block, and back on every way out, be it to
//! another block, to shared code or to Rust.

use dynasmrt::DynasmApi;
use frontend::ir::Op;

use super::Translator;
use super::asm::{Cc, Width, op};
use super::regs::{Loc, PINS, Pins, x_slot};
use crate::codegen::exchange::{Exchange, choose};

impl Translator {
    /// Chooses the exchanges for a block and carries them out on the way in.
    pub(super) fn exchange_in(&mut self, ops: &[Op]) {
        self.exchanges = choose(ops, self.start, &PINS);
        self.pins = Pins::USUAL;
        if self.exchanges.is_empty() {
            return;
        }
        self.to_usual = self.asm.label();
        self.to_block = self.asm.label();
        for index in 0..self.exchanges.len() {
            self.pins.exchange(self.exchanges[index]);
        }
        self.swap_in();
    }

    fn swap_in(&mut self) {
        for &Exchange { host, out, into } in &self.exchanges {
            self.asm.rm(Width::Q, op::STORE, host, Loc::Slot(x_slot(out)));
            self.asm.rm(Width::Q, op::MOV, host, Loc::Slot(x_slot(into)));
        }
    }

    /// Puts all registers in their usual places, on a way out. Keeps the scratch registers and the flags.
    pub(super) fn exchange_out(&mut self) {
        for &Exchange { host, out, into } in &self.exchanges {
            self.asm.rm(Width::Q, op::STORE, host, Loc::Slot(x_slot(into)));
            self.asm.rm(Width::Q, op::MOV, host, Loc::Slot(x_slot(out)));
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
        if self.exchanges.is_empty() {
            return;
        }
        self.asm.bind(self.to_usual);
        self.exchange_out();
        self.asm.push(0xc3);
        self.asm.bind(self.to_block);
        self.swap_in();
        self.asm.push(0xc3);
    }

    /// A conditional way out, which has to be left by way of cold code if registers are exchanged.
    pub(super) fn exit_condition(&mut self, cc: Cc, leave: impl FnOnce(&mut Translator) + 'static) {
        let taken = self.asm.label();
        self.asm.jcc(cc, taken);
        self.cold(move |t| {
            t.asm.bind(taken);
            t.begin_stretch();
            leave(t);
            t.end_stretch();
        });
    }
}
