//! The x86-64 backend: from the operations of a block to host code.
//!
//! [`regs`] says where guest registers are, [`entry`] how generated code is entered and left, [`alu`], [`bits`], [`muldiv`],
//! [`mem`], [`atomic`], [`fp`] and [`branch`] how each operation is carried out. What happens rarely is assembled after the
//! block, in *cold* code.
//! Hosts need AVX, FMA, BMI1, BMI2, LZCNT and POPCNT (x86-64-v3), and PCLMULQDQ.

#![allow(clippy::useless_conversion, reason = "dynasm converts each register it is given")]

mod alu;
mod asm;
mod atomic;
mod bits;
mod branch;
mod count;
mod csr;
mod entry;
mod exchange;
mod fp;
mod fp_convert;
#[cfg(test)]
pub(crate) mod golden;
mod listing;
mod mem;
mod muldiv;
mod regs;
mod tlb;
mod vex;

use dynasmrt::DynasmApi;
use frontend::Block;
use frontend::ir::{Code, Follow, Helper, Op, Shape};

use asm::{Asm, Cc, Label, Width, op};
use mem::{ADDENDS, SlowRun};
use regs::{Loc, Pins, RAX, RCX, field};
use tlb::{Places, Probes};

use crate::cache::Arena;
use crate::codegen::combine::are_twins;
use crate::codegen::exchange::{Exchange, is_loop, live_throughout};
use crate::codegen::{Joins, Link, Sites, Thunks, float, op_bytes, prepare, runs};

#[cfg(target_arch = "x86_64")]
pub(crate) use {listing::disassemble, regs::BIAS};

/// Offset of a block's body from its entry. Links lead to the body: they stay in the page.
const BODY: u32 = 10;

/// Whether this host has the instructions that generated code uses.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_supported() -> bool {
    std::is_x86_feature_detected!("avx")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2")
        && std::is_x86_feature_detected!("lzcnt")
        && std::is_x86_feature_detected!("popcnt")
        && std::is_x86_feature_detected!("pclmulqdq")
}

/// The word of a link at `field` of the arena that leads to the body of the block at `entry`.
pub(crate) fn link_word(field: u32, entry: u32) -> u32 {
    (entry + BODY).wrapping_sub(field + 4)
}

/// Makes the block at `entry`, which other threads may be entering, lead to `target`: a jump of five bytes goes over its first
/// instruction, which is at least as long.
pub(crate) fn divert(arena: &Arena, entry: u32, target: u32) {
    let displacement = target.wrapping_sub(entry + 5);
    let jump = 0xe9 | u64::from(displacement) << 8;
    arena.patch_pair(entry, |old| old & !0xff_ffff_ffff | jump);
}

/// What is assembled after the block.
enum Cold {
    /// The most frequent.
    Run(SlowRun),
    Other(Box<dyn FnOnce(&mut Translator)>),
}

/// Assembles blocks, one after the other.
pub(crate) struct Translator {
    asm: Asm,
    thunks: Thunks,
    probes: Probes,
    places: Places,
    /// Accesses of this block ask the entries of their places.
    asks_near: bool,
    cold: Vec<Cold>,
    spare: Vec<Cold>,
    /// Operations that the code refers to.
    data: Vec<(Label, Op)>,
    /// Bytes of the code before that.
    instructions: u32,
    /// Bytes of the code that is not cold.
    usual: u32,
    links: Vec<Link>,
    sites: Sites,
    joins: Joins<Label>,
    /// A bit for each floating-point register that is known to hold a boxed single here.
    boxed: u32,
    /// The block's operations, with marks.
    ops: Vec<Op>,
    /// Where the guest's registers are in this block.
    pins: Pins,
    /// How that differs from the usual, and the subroutines that change from one to the other.
    exchanges: Vec<Exchange>,
    to_usual: Label,
    to_block: Label,
    /// Where the block's body starts, for jumps to its own start.
    body: Label,
    start: u16,
    /// Page offset just past the block.
    end: u16,
    /// Number of the guest page.
    page: u32,
    /// All accesses to CSRs are calls of the helper.
    csr_calls: bool,
    /// Host instructions are counted, and where that has begun.
    counts: bool,
    stretch: Option<count::Stretch>,
}

/// Assembles what all blocks share, for the start of the arena.
pub(crate) fn shared_code() -> (Vec<u8>, Thunks) {
    let mut asm = Asm::default();
    let thunks = entry::emit(&mut asm);
    (asm.bytes, thunks)
}

impl Translator {
    /// A translator for code that lies in one arena with the shared code.
    pub(crate) fn new(thunks: Thunks) -> Self {
        let mut asm = Asm::default();
        let body = asm.label();
        Self {
            asm,
            thunks,
            probes: Probes::new(ADDENDS),
            places: Places::default(),
            asks_near: false,
            cold: Vec::new(),
            spare: Vec::new(),
            data: Vec::new(),
            instructions: 0,
            usual: 0,
            links: Vec::new(),
            sites: Sites::default(),
            joins: Joins::new(),
            boxed: 0,
            ops: Vec::new(),
            pins: Pins::USUAL,
            exchanges: Vec::new(),
            to_usual: body,
            to_block: body,
            body,
            start: 0,
            end: 0,
            page: 0,
            csr_calls: false,
            counts: false,
            stretch: None,
        }
    }

    /// From now on every access to a CSR calls the helper, so that somebody can watch.
    pub(crate) fn call_for_csrs(&mut self) {
        self.csr_calls = true;
    }

    /// Assembles a block of the page with this number. The code is position-independent but for [`Self::place`]. If it is a loop, and
    /// does not `wander` from page to page, its accesses ask [`softmmu::Near`] entries.
    pub(crate) fn translate(&mut self, block: &Block, page: u32, wanders: bool) {
        self.asm.clear();
        self.links.clear();
        self.sites.set(&block.insns);
        self.joins.clear();
        (self.start, self.end) = (block.start, block.end);
        self.page = page;
        self.boxed = 0;

        // The entry takes the block's address in rax. One jump fits over its first instruction when the block is killed.
        self.asm.rm_imm(Width::Q, 4, Loc::Reg(RAX), !0xfff);
        debug_assert!(self.asm.here() >= 5);
        self.asm.rm(Width::Q, op::STORE, RAX, Loc::Slot(field!(page)));
        assert_eq!(self.asm.here(), BODY);
        let ops = prepare(std::mem::take(&mut self.ops), block, false);
        self.asks_near = !wanders && is_loop(&ops, block.start);
        self.begin_stretch();
        self.exchange_in(&ops);
        let first = live_throughout(&ops, block.start);
        if let Some(op) = first {
            // Nothing of the block has been counted yet.
            self.fp_on(op, op.at.into());
        }
        self.end_stretch();
        self.body = self.asm.bind_here();
        self.begin_stretch();
        self.asm.rm_imm(Width::Q, 0, Loc::Slot(field!(instret)), block.insns.len() as i32);
        let mut at = usize::from(first.is_some());
        while at < ops.len() {
            at += self.op(&ops, at);
        }
        self.ops = ops;
        self.end_stretch();
        self.usual = self.asm.here();
        // Cold code can have cold code of its own. The buffers go back and forth, to be used again for the next block.
        let mut cold = std::mem::take(&mut self.spare);
        while !self.cold.is_empty() {
            std::mem::swap(&mut cold, &mut self.cold);
            for cold in cold.drain(..) {
                match cold {
                    Cold::Run(run) => self.slow_run(run),
                    Cold::Other(cold) => cold(self),
                }
            }
        }
        self.spare = cold;
        self.exchange_subroutines();
        self.unlinked();
        self.instructions = self.asm.here();
        if !self.data.is_empty() {
            self.asm.align(8, 0xcc);
        }
        for (label, op) in self.data.drain(..) {
            self.asm.bind(label);
            self.asm.extend(op_bytes(&op));
        }
        self.asm.resolve();
    }

    /// Bytes of the last block's code.
    pub(crate) fn code(&self) -> &[u8] {
        &self.asm.bytes
    }

    /// How many of them are instructions; behind them are operations that the code refers to.
    pub(crate) fn instructions(&self) -> usize {
        self.instructions as usize
    }

    /// How many of them are run usually; behind them is cold code.
    pub(crate) fn usual(&self) -> usize {
        self.usual as usize
    }

    /// Makes the last block's code right for a place in the arena.
    pub(crate) fn place(&mut self, offset: u32) -> (&[u8], &[Link]) {
        let Asm { bytes, external, .. } = &mut self.asm;
        for (field, target) in external.drain(..) {
            let relative = target.wrapping_sub(offset + field + 4);
            bytes[field as usize..][..4].copy_from_slice(&relative.to_le_bytes());
        }
        (&self.asm.bytes, &self.links)
    }

    /// Assembles the operation at `index`, or several from there on; returns how many.
    fn op(&mut self, ops: &[Op], index: usize) -> usize {
        let op = &ops[index];
        if let Some(second) = ops.get(index + 1).filter(|second| are_twins(op, second)) {
            self.twins(op, second);
            return 2;
        }
        if let Some(second) = ops.get(index + 1).filter(|second| alu::is_with_carry(op, second)) {
            self.with_carry(op, second);
            return 2;
        }
        match op.code.shape() {
            Shape::Ri | Shape::Rr | Shape::Rrr | Shape::Rri => self.integer(op),
            _ if runs::is_access(op) => return self.accesses(ops, index),
            _ if float::is_float(op.code) => self.float(op),
            Shape::Amo => self.atomic(op),
            Shape::Branch => self.branch(op),
            Shape::Jump => self.jump(op),
            Shape::JumpReg => self.jump_reg(op),
            Shape::Join => self.join(op),
            Shape::Call if op.code == Code::Call => self.call(op),
            _ => {
                self.step(op);
                self.note_result(op);
            }
        }
        1
    }

    /// Assembles `cold` after the block.
    fn cold(&mut self, cold: impl FnOnce(&mut Translator) + 'static) {
        self.cold.push(Cold::Other(Box::new(cold)));
    }

    /// Assembles after the block what is done from the label `from` on, before the block goes on at `to`.
    fn cold_branch(&mut self, from: Label, to: Label, cold: impl FnOnce(&mut Translator) + 'static) {
        self.cold(move |t| {
            t.asm.bind(from);
            cold(t);
            t.asm.jmp(to);
        });
    }

    /// Where an operation of the instruction at page offset `at` can go wrong.
    fn site(&self, at: u16) -> u32 {
        self.sites.site(at)
    }

    /// `rax = &op`, `ecx = site`
    fn pass(&mut self, op: &Op) {
        let label = self.asm.label();
        self.data.push((label, *op));
        self.asm.lea_label(RAX, label);
        let site = self.site(op.at);
        self.asm.mov_imm(RCX, site.into());
    }

    /// Has the interpreter carry out an operation.
    fn step(&mut self, op: &Op) {
        self.pass(op);
        self.call_shared(self.thunks.step);
    }

    /// Calls a helper.
    fn call(&mut self, op: &Op) {
        let helper = op.helper();
        match helper {
            Helper::Fence => return self.fence(op),
            Helper::CboZero => return self.zero_block(op),
            _ => {}
        }
        if matches!(helper, Helper::Csr | Helper::CsrPlain) && !self.csr_calls && self.csr(op) {
            return;
        }
        self.call_helper(op);
    }

    fn call_helper(&mut self, op: &Op) {
        let helper = op.helper();
        self.pass(op);
        self.call_shared(self.thunks.call);
        match helper.follow() {
            Follow::Next => {}
            Follow::Never => self.leave_by(self.thunks.exit),
            Follow::Resync => {
                // The next operation is the jump to the next instruction; it goes there directly if it may.
                let leave = self.asm.label();
                self.asm.jcc(Cc::NotEqual, leave);
                self.cold(move |t| {
                    t.asm.bind(leave);
                    t.asm.mov_imm(RAX, t.end.into());
                    t.leave_by(t.thunks.exit_at);
                });
            }
        }
    }
}
