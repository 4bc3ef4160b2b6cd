//! The aarch64 backend: from the operations of a block to host code. It is the mirror image of the x86-64 one.
//!
//! [`regs`] says where guest registers are, [`entry`] how generated code is entered and left, [`alu`], [`bits`], [`muldiv`],
//! [`mem`], [`atomic`], [`fp`] and [`branch`] how each operation is carried out. What happens rarely is assembled after the
//! block, in *cold* code.
//! Any Armv8-A host will do; [`Features`] are what newer ones have.

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
mod neon;
mod regs;
mod tlb;

use dynasmrt::DynasmApi;
use frontend::Block;
use frontend::ir::{Follow, Helper, Op, Shape};

use asm::{Asm, Cc, ISB, Label, NOP, Width, branch_word};
use mem::{Kept, SlowRun};
use regs::{INSTRET, PAGE, Pins, X15, X16, X17};

use crate::cache::Arena;
use crate::codegen::boxes::Boxes;
use crate::codegen::combine::are_twins;
use crate::codegen::exchange::{Exchange, live_throughout};
use crate::codegen::pending::Pending;
use crate::codegen::underflow::Underflow;
use crate::codegen::{Joins, Link, Sites, Thunks, float, op_bytes, prepare, runs};

#[cfg(target_arch = "aarch64")]
pub(crate) use {listing::disassemble, regs::BIAS};

/// Offset of a block's body from its entry. Links lead to the body: they stay in the page.
const BODY: u32 = 8;

/// Whether this host has the instructions that generated code uses.
pub(crate) fn is_supported() -> bool {
    true
}

/// What the host has beyond Armv8.0; chosen when a translator is made.
#[derive(Clone, Copy, Debug)]
struct Features {
    /// Large System Extensions: an instruction for each atomic operation.
    lse: bool,
    /// Carry-less multiplication.
    pmull: bool,
}

impl Features {
    fn of_host() -> Features {
        #[cfg(target_arch = "aarch64")]
        return Features {
            lse: std::arch::is_aarch64_feature_detected!("lse"),
            pmull: std::arch::is_aarch64_feature_detected!("pmull"),
        };
        #[cfg(not(target_arch = "aarch64"))]
        Features { lse: true, pmull: true }
    }
}

/// The word of a link at `field` of the arena that leads to the body of the block at `entry`.
pub(crate) fn link_word(field: u32, entry: u32) -> u32 {
    branch_word((entry + BODY).wrapping_sub(field))
}

/// Makes the block at `entry`, which other threads may be entering, lead to `target`. Its first instruction is a `nop`, which may be
/// replaced by a branch while it runs (Arm Architecture Reference Manual, B2.2.5).
pub(crate) fn divert(arena: &Arena, entry: u32, target: u32) {
    arena.patch(entry, branch_word(target.wrapping_sub(entry)));
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
    features: Features,
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
    /// Those that were before the first round of a loop, and stay so.
    boxed_throughout: u32,
    /// What is asked about that.
    boxes: Boxes,
    /// What registers lack here; at the start of each round of a loop; and at its end.
    pending: Pending,
    carried: Pending,
    left: Pending,
    /// What is done about underflow, and the index of the operation at hand.
    underflow: Underflow,
    index: usize,
    /// The block's operations, with marks.
    ops: Vec<Op>,
    /// All code of the block is taken to be in reach of `tbz`.
    is_near: bool,
    /// Where the guest's registers are in this block.
    pins: Pins,
    /// How that differs from the usual, and the subroutines that change from one to the other.
    exchanges: Vec<Exchange>,
    to_usual: Label,
    to_block: Label,
    /// Guest registers that the block does not use, and their host registers, which are used for what follows.
    taken: Vec<(u8, u8)>,
    /// Accesses of a loop that keep their page.
    kept: Vec<Kept>,
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
        Self::with_features(thunks, Features::of_host())
    }

    fn with_features(thunks: Thunks, features: Features) -> Self {
        let mut asm = Asm::default();
        let body = asm.label();
        Self {
            asm,
            thunks,
            features,
            cold: Vec::new(),
            spare: Vec::new(),
            data: Vec::new(),
            instructions: 0,
            usual: 0,
            links: Vec::new(),
            sites: Sites::default(),
            joins: Joins::new(),
            boxed: 0,
            boxed_throughout: 0,
            boxes: Boxes::default(),
            pending: Pending::default(),
            carried: Pending::default(),
            left: Pending::default(),
            underflow: Underflow::default(),
            index: 0,
            ops: Vec::new(),
            is_near: true,
            pins: Pins::USUAL,
            exchanges: Vec::new(),
            to_usual: body,
            to_block: body,
            taken: Vec::new(),
            kept: Vec::new(),
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

    /// Assembles a block of the page with this number. The code is position-independent but for [`Self::place`].
    /// There are no [`softmmu::Near`] entries here, so it does not matter whether its accesses wander from page to page.
    pub(crate) fn translate(&mut self, block: &Block, page: u32, _wanders: bool) {
        self.is_near = true;
        self.carried = Pending::default();
        let mut reached = self.assemble(block, page);
        if reached && !self.left.is_empty() {
            // What one round leaves the next can find.
            self.carried = self.left;
            reached = self.assemble(block, page);
        }
        if !reached {
            self.is_near = false;
            let reached = self.assemble(block, page);
            debug_assert!(reached, "other branches reach farther than a block is long");
        }
    }

    /// False if the code is too long to be near.
    fn assemble(&mut self, block: &Block, page: u32) -> bool {
        self.asm.clear();
        self.links.clear();
        self.sites.set(&block.insns);
        self.joins.clear();
        (self.start, self.end) = (block.start, block.end);
        self.page = page;
        (self.boxed, self.boxed_throughout) = (0, 0);
        (self.pending, self.left) = (Pending::default(), Pending::default());

        // The entry takes the block's address in x15. A branch replaces its first instruction when the block is killed.
        self.asm.push_u32(NOP);
        self.asm.logic_imm(Width::Q, asm::Logic::And, PAGE, X15, !0xfff);
        assert_eq!(self.asm.here(), BODY);
        let ops = prepare(std::mem::take(&mut self.ops), block, true);
        self.begin_stretch();
        self.exchange_in(&ops);
        self.boxes.plan(&ops);
        let first = live_throughout(&ops, block.start);
        if let Some(op) = first {
            // Nothing of the block has been counted yet.
            self.fp_on(op, op.at.into());
            self.boxed_throughout = self.boxes.throughout(&ops);
            let (asked, site) = (self.boxed_throughout | self.carried.unboxed, op.at.into());
            self.ask_boxed(asked, move |t| t.interpret(site));
        }
        self.carried.unboxed &= self.boxed;
        self.ask_narrow(block.start);
        self.end_stretch();
        self.body = self.asm.bind_here();
        self.pending = self.carried;
        self.begin_stretch();
        self.asm.add_imm(Width::Q, INSTRET, INSTRET, block.insns.len() as i64);
        self.underflow.plan(&ops);
        let mut at = usize::from(first.is_some());
        while at < ops.len() {
            self.index = at;
            self.guard(at);
            at += self.op(&ops, at);
        }
        self.guard(at);
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
        self.asm.align(8, 0);
        for (label, op) in self.data.drain(..) {
            self.asm.bind(label);
            self.asm.extend(op_bytes(&op));
        }
        self.asm.resolve()
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
        self.asm.resolve_external(offset);
        (&self.asm.bytes, &self.links)
    }

    /// Assembles the operation at `index`, or several from there on; returns how many.
    fn op(&mut self, ops: &[Op], index: usize) -> usize {
        let op = &ops[index];
        if runs::is_access(op) {
            return self.accesses(ops, index);
        }
        if let Some(second) = ops.get(index + 1).filter(|second| are_twins(op, second)) {
            self.twins(op, second);
            return 2;
        }
        match op.code.shape() {
            _ if float::is_float(op.code) => self.float(op),
            Shape::Amo | Shape::Call => {
                self.complete();
                if op.code.shape() == Shape::Amo { self.atomic(op) } else { self.call(op) }
            }
            Shape::Ri | Shape::Rr | Shape::Rrr | Shape::Rri => self.integer(op),
            Shape::Branch => self.branch(op),
            Shape::Jump => self.jump(op),
            Shape::JumpReg => self.jump_reg(op),
            Shape::Join => self.join(op),
            _ => {
                self.step(op);
                self.note_result(op);
            }
        }
        1
    }

    /// Assembles `cold` after the block; what registers lack then is what they lack now.
    fn cold(&mut self, cold: impl FnOnce(&mut Translator) + 'static) {
        let pending = self.pending;
        self.cold.push(Cold::Other(Box::new(move |t| {
            t.pending = pending;
            cold(t);
        })));
    }

    /// Assembles after the block what is done from the label `from` on, before the block goes on at `to`.
    fn cold_branch(&mut self, from: Label, to: Label, cold: impl FnOnce(&mut Translator) + 'static) {
        self.cold(move |t| {
            t.asm.bind(from);
            cold(t);
            t.complete();
            t.asm.b(to);
        });
    }

    /// Where an operation of the instruction at page offset `at` can go wrong.
    fn site(&self, at: u16) -> u32 {
        self.sites.site(at)
    }

    /// `x16 = &op`, `w17 = site`
    fn pass(&mut self, op: &Op) {
        let label = self.asm.label();
        self.data.push((label, *op));
        self.asm.adr(X16, label);
        let site = self.site(op.at);
        self.asm.mov_imm(X17, site.into());
    }

    /// Has the interpreter carry out an operation.
    fn step(&mut self, op: &Op) {
        self.settle(0, self.index);
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
        if helper == Helper::FenceI {
            // Code that was killed or linked before must not be in this core's pipeline any more.
            self.asm.push_u32(ISB);
        }
        match helper.follow() {
            Follow::Next => {}
            Follow::Never => self.leave_by(self.thunks.exit),
            Follow::Resync => {
                // The next operation is the jump to the next instruction; it goes there directly if it may.
                let leave = self.asm.label();
                self.asm.b_cc(Cc::NotEqual, leave);
                self.cold(move |t| {
                    t.asm.bind(leave);
                    t.asm.mov_imm(X16, t.end.into());
                    t.leave_by(t.thunks.exit_at);
                });
            }
        }
    }
}
