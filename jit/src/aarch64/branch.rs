//! Jumps and branches.
//!
//! Inside a page they lead to the target block itself once it exists (a *link*). Everything else, and every return and
//! indirect jump, looks the target up in the context's executable-code cache. Before a jump backwards and before an indirect one, so
//! on every cycle of blocks, it is tested whether so many instructions have retired that the poll word is to be looked at.

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op, Reg};
use softmmu::{Context, EXEC_BITS, ExecEntry};

use super::Translator;
use super::asm::{Cc, Label, Width};
use super::regs::{EXEC, INSTRET, X15, X16, X17};
use crate::codegen::{Link, Way};

/// Program counters and code addresses are loaded as a pair.
const _: () = assert!(size_of::<ExecEntry>() == 16);
const _: () = assert!(offset_of!(ExecEntry, va) == 0 && offset_of!(ExecEntry, payload) == 8);
/// The address of an entry is the cache's with bits 12 to 0 of the program counter in bits 15 to 3. Bit 0 is 0, or the code address
/// of the entry and the program counter of the next are compared with and jumped to, of which the first is even and so another.
const _: () = assert!(Context::EXEC_OFFSET.is_multiple_of(1 << (EXEC_BITS + 4)));
#[cfg(target_arch = "aarch64")]
const _: () = assert!(align_of::<Context>().is_multiple_of(1 << (EXEC_BITS + 4)));
/// The next entry of the last.
const _: () = assert!(size_of::<Context>() >= Context::EXEC_OFFSET + (1 << (EXEC_BITS + 4)) + 16);

/// What a conditional branch asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Flags(Cc),
    /// Whether a host register is zero.
    Zero(Width, u8),
    NotZero(Width, u8),
}

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
        if op.imm == i64::from(self.start) && self.sites.is_last(op.at) {
            self.poll_before(op.at);
        }
        let way = self.sites.way(op.at, op.imm);
        if matches!(way, Way::Inside { .. }) {
            self.complete();
        } else if op.imm == i64::from(self.start) {
            self.complete_round();
        }
        let condition = self.condition(cc, op.a, op.b);
        match way {
            Way::Inside { target, skipped: 0 } => {
                let join = self.join_label(target);
                self.branch_if(condition, join);
            }
            Way::Inside { target, skipped } => {
                let (taken, join) = (self.asm.label(), self.join_label(target));
                self.branch_if(condition, taken);
                self.cold(move |t| {
                    t.asm.bind(taken);
                    t.begin_stretch();
                    t.uncount(skipped);
                    t.asm.b(join);
                    t.end_stretch();
                });
            }
            Way::Out { skipped } => self.branch_out(condition, op, skipped),
        }
        self.end_stretch();
        self.begin_stretch();
        if self.sites.is_last(op.at) {
            self.go_to(i64::from(op.at) + i64::from(op.aux));
        }
    }

    fn branch_out(&mut self, condition: Condition, op: &Op, skipped: u32) {
        let (at, target) = (op.at, op.imm);
        if target == i64::from(self.start) && skipped == 0 {
            return self.branch_if(condition, self.body);
        }
        self.exit_condition(condition, move |t| {
            t.uncount(skipped);
            if target <= i64::from(at) {
                t.poll_taken(at, target);
            }
            t.go_to(target);
        });
    }

    /// Where branches inside the block meet.
    pub(super) fn join(&mut self, op: &Op) {
        self.complete();
        self.end_stretch();
        let label = self.join_label(op.at);
        self.asm.bind(label);
        self.boxed = self.boxed_throughout;
        self.begin_stretch();
    }

    fn join_label(&mut self, at: u16) -> Label {
        let asm = &mut self.asm;
        self.joins.label(at, || asm.label())
    }

    /// Whether `cc` holds for `a - b`.
    fn condition(&mut self, cc: Cc, a: Reg, b: Reg) -> Condition {
        let other = match (a, b) {
            (_, Reg::ZERO) => a,
            (Reg::ZERO, _) => b,
            _ => Reg::ZERO,
        };
        match cc {
            Cc::Equal | Cc::NotEqual if other != Reg::ZERO => {
                let width = if self.pending.is_narrow(other) { Width::D } else { Width::Q };
                let reg = self.get_low(other, X16);
                if cc == Cc::Equal { Condition::Zero(width, reg) } else { Condition::NotZero(width, reg) }
            }
            _ if self.pending.is_narrow(a) && b != Reg::ZERO => {
                self.compare(b, a);
                Condition::Flags(cc.exchanged())
            }
            _ => {
                self.compare(a, b);
                Condition::Flags(cc)
            }
        }
    }

    pub(super) fn branch_if(&mut self, condition: Condition, label: Label) {
        match condition {
            Condition::Flags(cc) => self.asm.b_cc(cc, label),
            Condition::Zero(width, reg) => self.asm.cbz(width, false, reg, label),
            Condition::NotZero(width, reg) => self.asm.cbz(width, true, reg, label),
        }
    }

    pub(super) fn jump(&mut self, op: &Op) {
        let target = op.imm;
        match self.sites.way(op.at, target) {
            Way::Inside { target, skipped } => {
                self.complete();
                self.uncount(skipped);
                let join = self.join_label(target);
                self.asm.b(join);
                return self.end_stretch();
            }
            Way::Out { skipped } => self.uncount(skipped),
        }
        if target <= i64::from(op.at) {
            // An instruction that also links has done so by now, so it cannot be left before.
            self.poll_taken(op.at, target);
        }
        self.go_to(target);
    }

    pub(super) fn jump_reg(&mut self, op: &Op) {
        self.uncount(self.sites.not_retired(op.at) - 1);
        let target = match op.a {
            Reg::ZERO => {
                self.asm.mov_imm(X16, op.imm as u64);
                X16
            }
            // It is in its register still when it is looked up.
            _ if op.imm == 0 && op.rd != op.a && self.exchanges.is_empty() => self.get(op.a, X16),
            _ => {
                let a = self.get(op.a, X16);
                self.asm.add_imm(Width::Q, X16, a, op.imm);
                X16
            }
        };
        let next = i64::from(op.at) + i64::from(op.aux);
        if op.rd != Reg::SINK {
            let d = self.pins.pinned(op.rd).unwrap_or(X17);
            self.page_plus(d, next);
            self.put(op.rd, d);
        }
        let at = op.at;
        self.poll(move |t| {
            t.asm.mov(X16, target);
            t.leave_polled(at);
        });
        self.look_up(target);
    }

    fn go_to(&mut self, target: i64) {
        match in_page(target) {
            Some(target) => self.link(target),
            None => self.leave_page(target),
        }
    }

    /// A direct jump to another page.
    fn leave_page(&mut self, target: i64) {
        self.page_plus(X16, target);
        self.look_up(X16);
    }

    /// Jumps to the block at the guest address in a host register, which is not exchanged.
    fn look_up(&mut self, target: u8) {
        self.stretch_looks_up();
        self.exchange_out();
        dynasm!(self.asm ; .arch aarch64
            ; bfi X(EXEC), X(target), #3, EXEC_BITS + 1
            ; ldp x15, x17, [XSP(EXEC)]
            ; cmp x15, X(target)
        );
        let unknown = self.asm.label();
        self.asm.b_cc(Cc::NotEqual, unknown);
        dynasm!(self.asm ; .arch aarch64 ; br x17);
        let exit = self.thunks.exit_to;
        self.cold(move |t| {
            t.asm.bind(unknown);
            t.asm.mov(X16, target);
            t.asm.b_to(exit);
        });
    }

    /// A jump inside the page, patched when the target is known. What is patched is an unconditional branch (Arm Architecture
    /// Reference Manual, B2.2.5).
    fn link(&mut self, target: u16) {
        if target == self.start {
            self.complete_round();
            return self.asm.b(self.body);
        }
        self.exchange_out();
        let field = self.asm.b_ahead();
        self.links.push(Link { field, target });
    }

    /// Where the jumps go that are not linked yet.
    pub(super) fn unlinked(&mut self) {
        for index in 0..self.links.len() {
            let Link { field, target } = self.links[index];
            self.asm.aim(field);
            let site = self.asm.bind_at(field);
            self.asm.adr(X17, site);
            self.asm.mov_imm(X15, self.page.into());
            self.asm.mov_imm(X16, target.into());
            self.asm.b_to(self.thunks.exit_link);
        }
    }

    /// So many instructions that have been counted are not executed.
    fn uncount(&mut self, skipped: u32) {
        if skipped != 0 {
            self.asm.add_imm(Width::Q, INSTRET, INSTRET, -i64::from(skipped));
        }
    }

    /// Looks at the poll word if that is due, and carries out `leave`, which leaves the block, if it is set. Keeps all but x14, x15,
    /// x17 and the flags.
    fn poll(&mut self, leave: impl FnOnce(&mut Translator) + 'static) {
        let (due, on) = (self.asm.label(), self.asm.label());
        if self.is_near {
            self.asm.tbz(false, INSTRET, 63, due);
        } else {
            self.asm.cmp_imm12(INSTRET, 0);
            self.asm.b_cc(Cc::GreaterEqual, due);
        }
        self.asm.bind(on);
        self.cold(move |t| {
            t.asm.bind(due);
            let looked = t.asm.label();
            t.asm.adr(X17, looked);
            t.asm.b_to(t.thunks.poll);
            t.asm.bind(looked);
            t.asm.b_cc(Cc::Equal, on);
            leave(t);
        });
    }

    /// Leaves for the address in x16, by the jump at page offset `at`, because the poll word is set.
    fn leave_polled(&mut self, at: u16) {
        self.asm.mov_imm(X17, u64::from(at) + 1);
        self.leave_by(self.thunks.exit_polled);
    }

    /// Leaves for `target`, where the jump at page offset `at` has led, if the poll word is set.
    fn poll_taken(&mut self, at: u16, target: i64) {
        self.poll(move |t| {
            t.page_plus(X16, target);
            t.leave_polled(at);
        });
    }

    /// Leaves before the instruction at page offset `at`, if the poll word is set.
    fn poll_before(&mut self, at: u16) {
        let left = self.sites.not_retired(at);
        self.poll(move |t| {
            t.uncount(left);
            t.asm.mov_imm(X16, at.into());
            t.leave_by(t.thunks.exit_at);
        });
    }
}
