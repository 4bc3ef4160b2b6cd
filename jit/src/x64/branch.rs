//! Jumps and branches.
//!
//! Inside a page they lead to the target block itself once it exists (a *link*). Everything else, and every return and
//! indirect jump, looks the target up in the context's executable-code cache. The poll word is tested before a jump backwards
//! and before an indirect one, so on every cycle of blocks.

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::block::MAX_BRANCHES;
use frontend::ir::{Code, Op, Reg};
use softmmu::{Context, EXEC_BITS, ExecEntry};

use super::asm::{Cc, Label, Width, op};
use super::entry::unlinked;
use super::regs::{Loc, RAX, RCX, RDX, field};
use super::{Link, Translator};
use crate::codegen::Way;

const EXEC: i32 = Context::EXEC_OFFSET as i32;
const PAYLOAD: i32 = offset_of!(ExecEntry, payload) as i32;

/// The bits of a program counter that select its slot; they are in place for a slot of 16 bytes when scaled by 8.
const EXEC_MASK: i32 = ((1 << EXEC_BITS) - 1) << 1;
const _: () = assert!(size_of::<ExecEntry>() == 16);

/// The page offset of a target that can be linked to: in the page, and no instruction that may go on in the next.
fn in_page(target: i64) -> Option<u16> {
    u16::try_from(target).ok().filter(|&target| target < 4094)
}

impl Translator {
    pub(super) fn branch(&mut self, op: &Op) {
        let cc = match op.code {
            Code::Beq => Cc::Equal,
            Code::Bne => Cc::NotEqual,
            Code::Blt => Cc::Less,
            Code::Bge => Cc::GreaterEqual,
            Code::Bltu => Cc::Below,
            _ => Cc::AboveEqual,
        };
        if op.imm <= i64::from(op.at) {
            self.poll_before(op.at);
        }
        self.compare(op.a, op.b);
        match self.sites.way(op.at, op.imm) {
            Way::Inside { target, skipped: 0 } => {
                let join = self.join_label(target);
                self.asm.jcc(cc, join);
            }
            Way::Inside { target, skipped } => {
                let (taken, join) = (self.asm.label(), self.join_label(target));
                self.asm.jcc(cc, taken);
                self.cold(move |t| {
                    t.asm.bind(taken);
                    t.begin_stretch();
                    t.uncount(skipped);
                    t.asm.jmp(join);
                    t.end_stretch();
                });
            }
            Way::Out { skipped } => self.branch_out(cc, op.imm, skipped),
        }
        self.end_stretch();
        self.begin_stretch();
        if self.sites.is_last(op.at) {
            self.go_to(i64::from(op.at) + i64::from(op.aux));
        }
    }

    fn branch_out(&mut self, cc: Cc, target: i64, skipped: u32) {
        match in_page(target) {
            Some(target) if skipped == 0 => self.link(Some(cc), target),
            _ => self.exit_condition(cc, move |t| {
                t.uncount(skipped);
                t.go_to(target);
            }),
        }
    }

    /// Where branches inside the block meet.
    pub(super) fn join(&mut self, op: &Op) {
        self.end_stretch();
        let label = self.join_label(op.at);
        self.asm.bind(label);
        self.boxed = 0;
        self.begin_stretch();
    }

    fn join_label(&mut self, at: u16) -> Label {
        let asm = &mut self.asm;
        self.joins.label(at, || asm.label())
    }

    pub(super) fn jump(&mut self, op: &Op) {
        let target = op.imm;
        match self.sites.way(op.at, target) {
            Way::Inside { target, skipped } => {
                self.uncount(skipped);
                let join = self.join_label(target);
                self.asm.jmp(join);
                return self.end_stretch();
            }
            Way::Out { skipped } => self.uncount(skipped),
        }
        if target <= i64::from(op.at) {
            // An instruction that also links has done so by now, so it cannot be left before.
            let (polled, at) = (self.poll(), op.at);
            self.cold(move |t| {
                t.asm.bind(polled);
                t.page_plus(RAX, target);
                t.leave_polled(at);
            });
        }
        self.go_to(target);
    }

    pub(super) fn jump_reg(&mut self, op: &Op) {
        self.uncount(self.sites.not_retired(op.at) - 1);
        self.copy(RAX, op.a);
        if op.imm != 0 {
            self.asm.rm_imm(Width::Q, 0, Loc::Reg(RAX), op.imm as i32);
        }
        let next = i64::from(op.at) + i64::from(op.aux);
        if op.rd != Reg::SINK {
            let d = self.pins.pinned(op.rd).unwrap_or(RCX);
            self.page_plus(d, next);
            self.put(op.rd, d);
        }
        let (polled, at) = (self.poll(), op.at);
        self.cold(move |t| {
            t.asm.bind(polled);
            t.leave_polled(at);
        });
        self.look_up();
    }

    fn go_to(&mut self, target: i64) {
        match in_page(target) {
            Some(target) => self.link(None, target),
            None => self.leave_page(target),
        }
    }

    /// A direct jump to another page.
    fn leave_page(&mut self, target: i64) {
        self.page_plus(RAX, target);
        self.look_up();
    }

    /// Jumps to the block at the guest address in rax.
    fn look_up(&mut self) {
        self.stretch_looks_up();
        self.exchange_out();
        dynasm!(self.asm ; .arch x64
            ; mov ecx, eax
            ; and ecx, EXEC_MASK
            ; cmp [r14 + rcx * 8 + EXEC], rax
        );
        self.asm.jcc_to(Cc::NotEqual, self.thunks.exit_to);
        dynasm!(self.asm ; .arch x64 ; jmp QWORD [r14 + rcx * 8 + EXEC + PAYLOAD]);
    }

    /// A jump inside the page, patched when the target is known.
    fn link(&mut self, cc: Option<Cc>, target: u16) {
        if target == self.start {
            return match cc {
                Some(cc) => self.asm.jcc(cc, self.body),
                None => self.asm.jmp(self.body),
            };
        }
        match cc {
            Some(cc) if !self.exchanges.is_empty() => {
                return self.exit_condition(cc, move |t| t.link(None, target));
            }
            Some(_) => {}
            None => self.exchange_out(),
        }
        let field = self.asm.jmp_patchable(cc);
        self.links.push(Link { field, target });
    }

    /// Where the jumps go that are not linked yet.
    pub(super) fn unlinked(&mut self) {
        const MOV: u32 = 5;
        const JMP_SHORT: u32 = 2;
        /// One for each branch that the block goes on after, and two for the last.
        const MOST: u32 = MAX_BRANCHES as u32 + 2;
        const _: () = assert!((MOST - 1) * (MOV + JMP_SHORT) - JMP_SHORT <= i8::MAX as u32);
        let jumps = self.links.len() as u32;
        if jumps == 0 {
            return;
        }
        let end = self.asm.here() + jumps * (MOV + JMP_SHORT) - JMP_SHORT;
        for (&Link { field, target }, left) in self.links.iter().zip((0..jumps).rev()) {
            self.asm.aim(field);
            self.asm.mov_imm32(RAX, unlinked(target, end - field));
            if left > 0 {
                self.asm.jmp_over((left * (MOV + JMP_SHORT) - JMP_SHORT) as i8);
            }
        }
        debug_assert_eq!(self.asm.here(), end);
        let end = self.asm.bind_here();
        self.asm.lea_label(RCX, end);
        self.asm.mov_imm(RDX, self.page.into());
        self.asm.jmp_to(self.thunks.exit_link);
    }

    /// So many instructions that have been counted are not executed. Clobbers the flags.
    fn uncount(&mut self, skipped: u32) {
        if skipped != 0 {
            self.asm.rm_imm(Width::Q, 5, Loc::Slot(field!(instret)), skipped as i32);
        }
    }

    /// Tests the poll word; jumps to the label when it is set.
    fn poll(&mut self) -> Label {
        let polled = self.asm.label();
        self.asm.rm(Width::Q, op::MOV, RCX, Loc::Slot(field!(native.poll)));
        // cmp dword [rcx], 0
        self.asm.extend([0x83, 0x39, 0]);
        self.asm.jcc(Cc::NotEqual, polled);
        polled
    }

    /// Leaves for the address in rax, by the jump at page offset `at`, because the poll word is set.
    fn leave_polled(&mut self, at: u16) {
        self.asm.mov_imm(RCX, u64::from(at) + 1);
        self.leave_by(self.thunks.exit_polled);
    }

    /// Leaves before the instruction at page offset `at`, if the poll word is set.
    fn poll_before(&mut self, at: u16) {
        let polled = self.poll();
        let left = self.sites.not_retired(at);
        self.cold(move |t| {
            t.asm.bind(polled);
            t.uncount(left);
            t.asm.mov_imm(RAX, at.into());
            t.leave_by(t.thunks.exit_at);
        });
    }
}
