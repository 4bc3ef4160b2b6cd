//! The CSR accesses that kernels make at every trap, and mathematical functions in every call, without leaving generated code. All
//! others are helpers.

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::csr_name::number;
use frontend::ir::{CsrAccess, Op, Reg};
use softmmu::Privilege;

use super::Translator;
use super::asm::{Cc, Logic, Width};
use super::regs::{FP_DIRTY, FP_LIVE, STATE, X15, X16, X17, XZR, field, slot};
use crate::context::{HartState, mstatus};
use crate::time::{FRACTION_BITS, TimeBase};

/// `op0`, `op1`, `CRn`, `CRm` and `op2` of the virtual counter.
const CNTVCT_EL0: u32 = 0x5f02;

/// The operand of an instruction with the immediate form (`csrrwi` and its sisters).
fn immediate(bits: i64) -> Option<u8> {
    (bits >> 14 & 1 == 1).then_some((bits >> 15 & 31) as u8)
}

/// Registers that only hold what was written, and the bits they hold.
fn plain(csr: u16) -> Option<(i32, u64)> {
    let offset = match csr {
        number::SSCRATCH => offset_of!(HartState, sscratch),
        number::SEPC => return Some((slot(offset_of!(HartState, sepc)), !1)),
        number::SCAUSE => offset_of!(HartState, scause),
        number::STVAL => offset_of!(HartState, stval),
        _ => return None,
    };
    Some((slot(offset), u64::MAX))
}

impl Translator {
    /// Carries out a CSR access, if it is one of those done here.
    pub(super) fn csr(&mut self, o: &Op) -> bool {
        let access = CsrAccess::from_bits(o.aux);
        let csr = (o.imm >> 20) as u16 & 0xfff;
        match (plain(csr), csr, access) {
            (Some((slot, mask)), _, CsrAccess::Read | CsrAccess::Write) => {
                self.csr_or_call(o, |t| t.plain_csr(slot, mask, access, o));
            }
            (_, number::FFLAGS | number::FRM, CsrAccess::Read | CsrAccess::Write) => {
                self.float_csr(csr == number::FFLAGS, access, o);
            }
            (_, number::TIME, CsrAccess::Read) => self.read_time(o),
            (_, number::SSTATUS, CsrAccess::Read) => self.csr_or_call(o, |t| t.read_sstatus(o.rd)),
            (_, number::SSTATUS, CsrAccess::Set | CsrAccess::Clear)
                if immediate(o.imm) == Some(mstatus::SIE as u8) =>
            {
                self.csr_or_call(o, |t| t.switch_interrupts(access, o));
            }
            _ => return false,
        }
        true
    }

    /// Carries out an access to a supervisor-level register by `inline`, or by the helper in U-mode, which has none of them, and
    /// where interrupts may have to be taken at once.
    fn csr_or_call(&mut self, o: &Op, inline: impl FnOnce(&mut Self)) {
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.ldrb(X16, field!(privilege));
        self.asm.cmp_imm12(X16, Privilege::User as u32);
        self.asm.b_cc(Cc::Equal, slow);
        let enables = CsrAccess::from_bits(o.aux) == CsrAccess::Set;
        if enables {
            self.asm.ldrb(X16, field!(interrupt_waits));
            self.asm.cbz(Width::D, true, X16, slow);
        }
        inline(self);
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    /// Reads and writes `fflags` or `frm` while floating point is live, hence on; writes while its state is dirty already. A
    /// helper sets another rounding mode. Underflow has been looked for, as before all calls.
    fn float_csr(&mut self, is_flags: bool, access: CsrAccess, o: &Op) {
        let (slow, done) = (self.asm.label(), self.asm.label());
        let (reads, writes) = (o.rd != Reg::SINK, access == CsrAccess::Write);
        self.asm.tst_imm(Width::Q, STATE, 1 << if writes { FP_DIRTY } else { FP_LIVE });
        self.asm.b_cc(Cc::Equal, slow);
        if is_flags {
            if reads {
                self.asm.read_fpsr(X16);
                self.asm.ldrb(X17, field!(fflags));
                // IOC, DZC, OFC, UFC, IXC are the bits of fflags in the opposite order.
                dynasm!(self.asm ; .arch aarch64 ; rbit w16, w16 ; orr w16, w17, w16, lsr #27);
            }
            if writes {
                let a = self.get(o.a, X15);
                self.asm.logic_imm(Width::Q, Logic::And, X17, a, 0x1f);
                self.asm.strb(X17, field!(fflags));
                self.asm.write_fpsr(XZR);
            }
        } else {
            self.asm.ldrb(X16, field!(frm));
            if writes {
                let a = self.get(o.a, X15);
                self.asm.logic_imm(Width::Q, Logic::And, X17, a, 7);
                dynasm!(self.asm ; .arch aarch64 ; cmp w17, w16);
                self.asm.b_cc(Cc::NotEqual, slow);
            }
        }
        if reads {
            self.put(o.rd, X16);
        }
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    /// Reads `time` by the host's counter, as [`TimeBase::at`] does; by the helper where that is closed or cannot tell.
    fn read_time(&mut self, o: &Op) {
        const LIMIT: u32 = offset_of!(TimeBase, limit) as u32;
        const COUNTER: u32 = offset_of!(TimeBase, counter) as u32;
        const TICKS: u32 = offset_of!(TimeBase, ticks) as u32;
        const FRACTION: u32 = offset_of!(TimeBase, fraction) as u32;
        const RATE: u32 = offset_of!(TimeBase, rate) as u32;
        // Loads with acquire order take no offset.
        const _: () = assert!(offset_of!(TimeBase, version) == 0);
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.ldrb(X16, field!(time_open));
        self.asm.cbz(Width::D, false, X16, slow);
        self.asm.ldr(X17, field!(native.time));
        dynasm!(self.asm ; .arch aarch64
            // The counter is not read before what precedes it, such as a time from another hart.
            ; isb
            ; mrs x16, CNTVCT_EL0
            ; ldar x14, [x17]
            ; ldr x15, [x17, COUNTER]
            ; sub x16, x16, x15
            ; ldr x15, [x17, LIMIT]
            ; cmp x16, x15
        );
        self.asm.b_cc(Cc::AboveEqual, slow);
        dynasm!(self.asm ; .arch aarch64
            ; ldr x15, [x17, RATE]
            ; mul x16, x16, x15
            ; ldr x15, [x17, FRACTION]
            ; add x16, x16, x15
            ; ldr x15, [x17, TICKS]
            ; add x16, x15, x16, lsr FRACTION_BITS
            ; dmb ishld
            ; ldr x15, [x17]
            ; cmp x14, x15
        );
        self.asm.b_cc(Cc::NotEqual, slow);
        self.put(o.rd, X16);
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    fn plain_csr(&mut self, slot: i32, mask: u64, access: CsrAccess, o: &Op) {
        let reads = o.rd != Reg::SINK;
        if reads {
            self.asm.ldr(X16, slot);
        }
        if access == CsrAccess::Write {
            let mut new = self.get(o.a, X15);
            if mask != u64::MAX {
                self.asm.logic_imm(Width::Q, Logic::And, X15, new, mask);
                new = X15;
            }
            self.asm.str(new, slot);
        }
        if reads {
            self.put(o.rd, X16);
        }
    }

    fn read_sstatus(&mut self, rd: Reg) {
        if rd == Reg::SINK {
            return;
        }
        self.asm.ldr(X15, field!(mstatus));
        self.asm.mov_imm(X16, mstatus::SSTATUS & !mstatus::SD);
        // FS = 3 carries into bit 15, which becomes SD.
        dynasm!(self.asm ; .arch aarch64
            ; and x16, x15, x16
            ; and x17, x16, mstatus::FS
            ; add x17, x17, #2, lsl #12
            ; and x17, x17, #0x8000
            ; orr x16, x16, x17, lsl #48
        );
        self.put(rd, X16);
    }

    fn switch_interrupts(&mut self, access: CsrAccess, o: &Op) {
        self.read_sstatus(o.rd);
        self.asm.ldr(X15, field!(mstatus));
        match access {
            CsrAccess::Set => self.asm.logic_imm(Width::Q, Logic::Orr, X15, X15, mstatus::SIE),
            _ => self.asm.logic_imm(Width::Q, Logic::And, X15, X15, !mstatus::SIE),
        }
        self.asm.str(X15, field!(mstatus));
    }
}
