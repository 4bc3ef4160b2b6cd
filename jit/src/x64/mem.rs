//! Loads and stores.
//!
//! A run ([`crate::codegen::runs`]) has one probe of the TLB for each base, wide enough for all its accesses, and then each access is
//! one instruction. When a probe fails, the whole run is carried out by cold code instead, which asks for each access by itself.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op, Reg};

use super::asm::{Cc, Width, op};
use super::regs::{Loc, Pins, RAX, RCX, RDX, f_pinned, f_slot, field};
use super::tlb::{self, Place, WRITE};
use super::vex::Rm;
use super::{Cold, Translator, alu};
use crate::codegen::float::{is_float, is_inline};
use crate::codegen::runs::{BASES, Base, Rules, Run, bytes, is_access, is_float_access, is_store};

/// Offsets by which an access is rarely in another page than its base.
const NEAR: std::ops::RangeInclusive<i8> = -16..=64;
/// sp, by the standard calling convention
const STACK_POINTER: Reg = Reg(2);

/// Where the addends of a run's bases are kept.
pub(super) const ADDENDS: [u8; BASES] = [RCX, RDX];
/// Where the shared code leaves an addend: that of a run of one access is in its place then.
const ASKED: u8 = RCX;
const _: () = assert!(ASKED == ADDENDS[0]);

/// What the cold code of a run goes by.
pub(super) struct SlowRun {
    /// The jumps that lead to it.
    misses: [Option<Miss>; BASES],
    /// Where the block goes on behind the probes and behind the run.
    probed: u32,
    done: u32,
    /// The run's operations in the block.
    index: usize,
    length: usize,
    /// [`Translator::boxed`] before the run.
    boxed: u32,
}

/// A jump that is taken when it is not known what to add to an address.
struct Miss {
    jump: u32,
    near: Option<NearMiss>,
}

/// What its place's own entry says is not of the page.
struct NearMiss {
    place: Place,
    base: Reg,
    low: i64,
    /// Where the block goes on if the TLB knows.
    found: u32,
}

impl Rules for Pins {
    fn is_simple(&self, op: &Op) -> bool {
        alu::is_simple(op.code) || is_float(op.code) && is_inline(op)
    }

    /// With two bases, rax is the only scratch register left, so neither may need one.
    fn allow_second(&self, first: Reg, second: Reg) -> bool {
        self.pinned(first).is_some() && self.pinned(second).is_some()
    }
}

impl Translator {
    /// The run that starts with the access at `index`; returns its length.
    pub(super) fn accesses(&mut self, ops: &[Op], index: usize) -> usize {
        let run = Run::worthwhile(&self.pins, &ops[index..]);
        let (boxed, mut misses) = (self.boxed, [const { None }; BASES]);
        for (index, base) in run.bases().iter().enumerate() {
            misses[index] = Some(self.probe(base, index));
        }
        let probed = self.asm.here();
        for op in &ops[index..index + run.length] {
            if is_access(op) {
                self.access(op, ADDENDS[run.base(op.a)]);
            } else {
                self.simple(op);
            }
        }
        let done = self.asm.here();
        self.cold.push(Cold::Run(SlowRun { misses, probed, done, index, length: run.length, boxed }));
        run.length
    }

    /// A run whose probe has failed.
    pub(super) fn slow_run(&mut self, run: SlowRun) {
        let mut unknown = [None; BASES];
        for (Miss { jump, near }, unknown) in run.misses.into_iter().flatten().zip(&mut unknown) {
            self.asm.aim(jump);
            if let Some(NearMiss { place, base, low, found }) = near {
                self.address(base, low);
                self.asm.mov_imm(RDX, place.packed(self.start));
                self.call_shared(self.thunks.near[usize::from(place.stores)][place.class]);
                *unknown = Some(self.asm.jcc_ahead(Cc::NotEqual));
                self.asm.jmp_back(found);
            }
        }
        for jump in unknown.into_iter().flatten() {
            self.asm.aim(jump);
        }
        if run.length == 1 {
            let op = self.ops[run.index];
            self.ask(&op);
            return self.asm.jmp_back(run.probed);
        }
        self.boxed = run.boxed;
        for index in run.index..run.index + run.length {
            let op = self.ops[index];
            if is_access(&op) {
                self.ask(&op);
                self.access(&op, ASKED);
            } else {
                self.simple(&op);
            }
        }
        self.asm.jmp_back(run.done);
    }

    /// `cbo.zero`
    pub(super) fn zero_block(&mut self, o: &Op) {
        const BLOCK: i32 = softmmu::CACHE_BLOCK as i32;
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.cmp_byte(field!(zero_allowed), 0);
        self.asm.jcc(Cc::Equal, slow);
        self.copy(RAX, o.a);
        dynasm!(self.asm ; .arch x64
            ; and rax, BYTE -BLOCK as i8
        );
        tlb::locate(&mut self.asm, WRITE, BLOCK, slow);
        dynasm!(self.asm ; .arch x64
            ; vpxor xmm0, xmm0, xmm0
            ; vmovdqa [rax], xmm0
            ; vmovdqa [rax + 16], xmm0
            ; vmovdqa [rax + 32], xmm0
            ; vmovdqa [rax + 48], xmm0
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

    /// `rax = base + offset`
    fn address(&mut self, base: Reg, offset: i64) {
        match self.pins.pinned(base) {
            Some(host) => self.asm.lea(Width::Q, RAX, host, offset as i32),
            None => {
                self.copy(RAX, base);
                if offset != 0 {
                    self.asm.rm_imm(Width::Q, 0, Loc::Reg(RAX), offset as i32);
                }
            }
        }
    }

    /// Finds the addend for all accesses by the base of this index.
    fn probe(&mut self, base: &Base, index: usize) -> Miss {
        if self.asks_near {
            return self.probe_near(base, index);
        }
        // The way from the address to the slot is what a chain of pointers waits for, so it goes through no copy, nor the addition
        // of an offset that seldom leads to another page. A stack frame may lie on a page's edge for long.
        let address = match (self.pins.pinned(base.reg), i8::try_from(base.low)) {
            (Some(host), Ok(0)) => (host, None),
            (Some(host), Ok(low)) if NEAR.contains(&low) && base.reg != STACK_POINTER => (host, Some(low)),
            _ => {
                self.address(base.reg, base.low);
                (RAX, None)
            }
        };
        let jump =
            self.probes.paste(&mut self.asm, base.stores, (base.high - base.low) as i32, address, index);
        Miss { jump, near: None }
    }

    /// The same, asking the place's own entry.
    fn probe_near(&mut self, base: &Base, index: usize) -> Miss {
        let place = self.places.next(base.stores, (base.high - base.low) as i32);
        let (address, offset) = match self.pins.pinned(base.reg) {
            Some(host) => (host, base.low as i32),
            None => {
                self.address(base.reg, base.low);
                (RAX, 0)
            }
        };
        let jump = place.check(&mut self.asm, address, offset);
        let found = self.asm.here();
        place.addend(&mut self.asm, ADDENDS[index]);
        Miss { jump, near: Some(NearMiss { place, base: base.reg, low: base.low, found }) }
    }

    /// Has the shared code find the addend for one access, in [`ASKED`].
    fn ask(&mut self, op: &Op) {
        let log2 = bytes(op).trailing_zeros() as usize;
        let store = is_store(op);
        self.address(op.a, op.imm);
        match (op.code, f_pinned(op.b.0)) {
            (Code::FStore, Some(host)) => self.asm.f_to_bits(true, RDX, host),
            (Code::FStore, None) => self.asm.rm(Width::Q, op::MOV, RDX, Loc::Slot(f_slot(op.b.0))),
            _ if store => self.copy(RDX, op.b),
            _ => {}
        }
        let site = self.site(op.at);
        self.asm.mov_imm(RCX, site.into());
        self.call_shared(if store { self.thunks.store[log2] } else { self.thunks.load[log2] });
    }

    /// An access by `[base + addend + offset]`. Of the scratch registers it may use rax, and rdx if the base is not pinned.
    fn access(&mut self, o: &Op, addend: u8) {
        let (base, scratch) = match self.pins.pinned(o.a) {
            Some(host) => (host, RAX),
            None => {
                self.copy(RAX, o.a);
                (RAX, RDX)
            }
        };
        let (index, disp) = (Some(addend), o.imm as i32);
        if is_float_access(o) {
            return self.f_access(o, Rm::At(base, index, disp));
        }
        if is_store(o) {
            let value = self.get(o.b, scratch);
            let (prefix, width, byte, opcode) = match o.code {
                Code::Sb => (0, Width::D, true, 0x88),
                Code::Sh => (0x66, Width::D, false, op::STORE),
                Code::Sw => (0, Width::D, false, op::STORE),
                _ => (0, Width::Q, false, op::STORE),
            };
            return self.asm.indexed(prefix, width, byte, opcode, value, base, index, disp);
        }
        let d = self.pins.pinned(o.rd).unwrap_or(scratch);
        let (width, opcode) = match o.code {
            Code::Lb => (Width::Q, 0x0fbe),
            Code::Lbu => (Width::D, 0x0fb6),
            Code::Lh => (Width::Q, 0x0fbf),
            Code::Lhu => (Width::D, 0x0fb7),
            Code::Lw => (Width::Q, op::MOVSXD),
            Code::Lwu => (Width::D, op::MOV),
            _ => (Width::Q, op::MOV),
        };
        self.asm.indexed(0, width, false, opcode, d, base, index, disp);
        self.put(o.rd, d);
    }
}
