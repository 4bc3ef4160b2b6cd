//! Loads and stores.
//!
//! A run ([`crate::codegen::runs`]) has one probe of the TLB for each base, wide enough for all its accesses, and then each access is
//! one instruction. When a probe fails, the whole run is carried out by cold code instead, which asks for each access by itself.

use dynasm::dynasm;
use frontend::ir::{Code, Op, Reg};

use super::asm::{Access, Label, Logic, Place, Width, op};
use super::regs::{Pins, X14, X15, X16, X17, field};
use super::tlb::{self, READ, WRITE};
use super::{Cold, Translator, alu};
use crate::codegen::float::{is_float, is_inline};
use crate::codegen::runs::{BASES, Base, Rules, Run, bytes, is_access, is_float_access, is_store};

/// Where the host addresses of a run's lowest bytes are kept.
const PLACES: [u8; BASES] = [X15, X14];

/// What the cold code of a run goes by.
pub(super) struct SlowRun {
    /// From where on it is, and where the block goes on.
    slow: Label,
    done: Label,
    /// The run's operations in the block.
    index: usize,
    length: usize,
    /// [`Translator::boxed`] before the run.
    boxed: u32,
}

impl Rules for Pins {
    fn is_simple(&self, op: &Op) -> bool {
        alu::is_simple(op.code) || is_float(op.code) && is_inline(op)
    }

    fn allow_second(&self, _: Reg, _: Reg) -> bool {
        true
    }
}

impl Translator {
    /// The run that starts with the access at `index`; returns its length.
    pub(super) fn accesses(&mut self, ops: &[Op], index: usize) -> usize {
        let run = Run::worthwhile(&self.pins, &ops[index..]);
        let (slow, boxed) = (self.asm.label(), self.boxed);
        if run.length == 1 {
            self.single_access(&ops[index], slow);
        } else {
            for (base, place) in run.bases().iter().zip(PLACES) {
                self.probe(base, place, slow);
            }
            for (at, op) in ops.iter().enumerate().skip(index).take(run.length) {
                self.index = at;
                if at != index {
                    self.guard(at);
                }
                if is_access(op) {
                    let index = run.base(op.a);
                    let low = run.bases()[index].low;
                    self.access(op, Place::Offset(PLACES[index], op.imm - low));
                } else {
                    self.simple(op);
                }
            }
        }
        let done = self.asm.bind_here();
        self.cold.push(Cold::Run(SlowRun { slow, done, index, length: run.length, boxed }));
        run.length
    }

    /// A run whose probe has failed.
    pub(super) fn slow_run(&mut self, run: SlowRun) {
        self.asm.bind(run.slow);
        self.boxed = run.boxed;
        let mut settled = 0;
        for at in run.index..run.index + run.length {
            let op = self.ops[at];
            self.index = at;
            if at != run.index {
                self.guard(at);
            }
            if is_access(&op) {
                self.settle(settled, at);
                settled = at;
                self.slow_access(&op);
            } else {
                self.simple(&op);
            }
        }
        self.asm.b(run.done);
    }

    /// An access with a probe of its own.
    fn single_access(&mut self, op: &Op, slow: Label) {
        let table = if is_store(op) { WRITE } else { READ };
        let address = self.address(op.a, op.imm);
        tlb::probe(&mut self.asm, table, bytes(op), address, X15, slow);
        self.access(op, Place::Index(address, X15));
    }

    /// `cbo.zero`
    pub(super) fn zero_block(&mut self, o: &Op) {
        const BLOCK: i64 = softmmu::CACHE_BLOCK as i64;
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.ldrb(X16, field!(zero_allowed));
        self.asm.cbz(Width::D, false, X16, slow);
        let a = self.get(o.a, X16);
        self.asm.logic_imm(Width::Q, Logic::And, X16, a, -BLOCK as u64);
        tlb::locate(&mut self.asm, WRITE, BLOCK, slow);
        dynasm!(self.asm ; .arch aarch64
            ; stp xzr, xzr, [x16]
            ; stp xzr, xzr, [x16, #16]
            ; stp xzr, xzr, [x16, #32]
            ; stp xzr, xzr, [x16, #48]
        );
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    /// An operation that may be between the accesses of a run.
    fn simple(&mut self, op: &Op) {
        if is_float(op.code) {
            self.float(op);
        } else {
            self.integer(op);
        }
    }

    /// A register with `base + offset`: that of the base, or x16.
    fn address(&mut self, base: Reg, offset: i64) -> u8 {
        let base = self.get_no_zero(base, X16);
        if offset == 0 {
            return base;
        }
        self.asm.add_imm(Width::Q, X16, base, offset);
        X16
    }

    /// Finds the host address of the lowest byte of a base.
    fn probe(&mut self, base: &Base, place: u8, slow: Label) {
        let table = if base.stores { WRITE } else { READ };
        let address = self.address(base.reg, base.low);
        tlb::probe(&mut self.asm, table, base.high - base.low, address, place, slow);
        self.asm.rrr(Width::Q, op::ADD, place, place, address);
    }

    /// An access by way of the shared code.
    fn slow_access(&mut self, op: &Op) {
        let log2 = bytes(op).trailing_zeros() as usize;
        let store = is_store(op);
        let address = self.address(op.a, op.imm);
        self.asm.mov(X16, address);
        if op.code == Code::FStore {
            self.f_copy_bits(X15, op.b);
        } else if store {
            self.copy(X15, op.b);
        }
        let site = self.site(op.at);
        self.asm.mov_imm(X17, site.into());
        self.call_shared(if store { self.thunks.store[log2] } else { self.thunks.load[log2] });
        self.access(op, Place::Offset(X16, 0));
    }

    /// The access itself. Clobbers x16 and x17.
    fn access(&mut self, o: &Op, place: Place) {
        if is_float_access(o) {
            return self.f_access(o, place);
        }
        if is_store(o) {
            // x16 may have the address.
            let value = self.get(o.b, X17);
            let log2 = bytes(o).trailing_zeros() as u8;
            return self.asm.access(Access::store(log2), value, place, X16);
        }
        let access = match o.code {
            Code::Lb => Access::load_signed(0),
            Code::Lbu => Access::load(0),
            Code::Lh => Access::load_signed(1),
            Code::Lhu => Access::load(1),
            Code::Lw => Access::load_signed(2),
            Code::Lwu => Access::load(2),
            _ => Access::load(3),
        };
        let d = self.pins.pinned(o.rd).unwrap_or(X16);
        self.asm.access(access, d, place, X17);
        self.put(o.rd, d);
    }
}
