//! The CSR accesses that kernels make at every trap, and mathematical functions in every call, without leaving generated code. All
//! others are helpers.

use std::mem::offset_of;

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::csr_name::number;
use frontend::ir::{CsrAccess, Op, Reg};
use softmmu::Privilege;

use super::Translator;
use super::asm::{Cc, Width, op};
use super::regs::{Loc, RAX, RCX, field, slot};
use crate::context::{HartState, mstatus};
use crate::time::{FRACTION_BITS, TimeBase};

/// The operand of an instruction with the immediate form (`csrrwi` and its sisters).
fn immediate(bits: i64) -> Option<u8> {
    (bits >> 14 & 1 == 1).then_some((bits >> 15 & 31) as u8)
}

/// Registers that only hold what was written, and the bits they hold.
fn plain(csr: u16) -> Option<(i32, i8)> {
    let offset = match csr {
        number::SSCRATCH => offset_of!(HartState, sscratch),
        number::SEPC => return Some((slot(offset_of!(HartState, sepc)), -2)),
        number::SCAUSE => offset_of!(HartState, scause),
        number::STVAL => offset_of!(HartState, stval),
        _ => return None,
    };
    Some((slot(offset), -1))
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
        self.asm.cmp_byte(field!(privilege), Privilege::User as u8);
        self.asm.jcc(Cc::Equal, slow);
        let enables = CsrAccess::from_bits(o.aux) == CsrAccess::Set;
        if enables {
            self.asm.cmp_byte(field!(interrupt_waits), 0);
            self.asm.jcc(Cc::NotEqual, slow);
        }
        inline(self);
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    /// Reads and writes `fflags` or `frm` while floating point is live, hence on; writes while its state is dirty already. A
    /// helper sets another rounding mode, and reads flags that are rare.
    fn float_csr(&mut self, is_flags: bool, access: CsrAccess, o: &Op) {
        /// Exceptions in MXCSR: all, and those but for inexact and denormal operands.
        const ALL: i32 = 0x3f;
        const RARE: i8 = 0x1d;
        const INEXACT: u8 = 5;
        let (slow, done) = (self.asm.label(), self.asm.label());
        let (reads, writes) = (o.rd != Reg::SINK, access == CsrAccess::Write);
        dynasm!(self.asm ; .arch x64 ; test BYTE [r15 + field!(native.fp_live)], if writes { 2 } else { 1 });
        self.asm.jcc(Cc::Equal, slow);
        if is_flags {
            dynasm!(self.asm ; .arch x64
                ; stmxcsr [r15 + field!(native.control)]
                ; mov eax, [r15 + field!(native.control)]
            );
            if reads {
                dynasm!(self.asm ; .arch x64 ; test al, BYTE RARE);
                self.asm.jcc(Cc::NotEqual, slow);
            }
            if writes {
                let clean = self.asm.label();
                self.copy(RCX, o.a);
                dynasm!(self.asm ; .arch x64 ; and ecx, BYTE 0x1f ; movzx edx, BYTE [r15 + field!(fflags)]);
                dynasm!(self.asm ; .arch x64 ; mov [r15 + field!(fflags)], cl ; test al, BYTE ALL as i8);
                self.asm.jcc(Cc::Equal, clean);
                dynasm!(self.asm ; .arch x64
                    ; and DWORD [r15 + field!(native.control)], !ALL
                    ; ldmxcsr [r15 + field!(native.control)]
                );
                self.asm.bind(clean);
            } else {
                dynasm!(self.asm ; .arch x64 ; movzx edx, BYTE [r15 + field!(fflags)]);
            }
            if reads {
                dynasm!(self.asm ; .arch x64 ; shr eax, INEXACT as i8 ; and eax, BYTE 1 ; or eax, edx);
            }
        } else {
            dynasm!(self.asm ; .arch x64 ; movzx eax, BYTE [r15 + field!(frm)]);
            if writes {
                self.copy(RCX, o.a);
                dynasm!(self.asm ; .arch x64 ; and ecx, BYTE 7 ; cmp ecx, eax);
                self.asm.jcc(Cc::NotEqual, slow);
            }
        }
        if reads {
            self.put(o.rd, RAX);
        }
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    /// Reads `time` by the host's counter, as [`TimeBase::at`] does; by the helper where that is closed or cannot tell.
    fn read_time(&mut self, o: &Op) {
        const VERSION: i32 = offset_of!(TimeBase, version) as i32;
        const LIMIT: i32 = offset_of!(TimeBase, limit) as i32;
        const COUNTER: i32 = offset_of!(TimeBase, counter) as i32;
        const TICKS: i32 = offset_of!(TimeBase, ticks) as i32;
        const FRACTION: i32 = offset_of!(TimeBase, fraction) as i32;
        const RATE: i32 = offset_of!(TimeBase, rate) as i32;
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.cmp_byte(field!(time_open), 0);
        self.asm.jcc(Cc::Equal, slow);
        dynasm!(self.asm ; .arch x64
            ; mov rcx, [r15 + field!(native.time)]
            // The counter is not read before what precedes it, such as a time from another hart.
            ; lfence
            ; rdtsc
            ; shl rdx, 32
            ; or rax, rdx
            ; mov rdx, [rcx + VERSION]
            ; sub rax, [rcx + COUNTER]
            ; cmp rax, [rcx + LIMIT]
        );
        self.asm.jcc(Cc::AboveEqual, slow);
        dynasm!(self.asm ; .arch x64
            ; imul rax, [rcx + RATE]
            ; add rax, [rcx + FRACTION]
            ; shr rax, FRACTION_BITS as i8
            ; add rax, [rcx + TICKS]
            ; cmp rdx, [rcx + VERSION]
        );
        self.asm.jcc(Cc::NotEqual, slow);
        self.put(o.rd, RAX);
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.call_helper(&op));
    }

    fn plain_csr(&mut self, slot: i32, mask: i8, access: CsrAccess, o: &Op) {
        let reads = o.rd != Reg::SINK;
        if reads {
            self.asm.rm(Width::Q, op::MOV, RAX, Loc::Slot(slot));
        }
        if access == CsrAccess::Write {
            let mut new = self.get(o.a, RCX);
            if mask != -1 {
                self.mov(RCX, new);
                dynasm!(self.asm ; .arch x64 ; and rcx, BYTE mask);
                new = RCX;
            }
            self.asm.rm(Width::Q, op::STORE, new, Loc::Slot(slot));
        }
        if reads {
            self.put(o.rd, RAX);
        }
    }

    fn read_sstatus(&mut self, rd: Reg) {
        if rd == Reg::SINK {
            return;
        }
        self.asm.mov_imm(RAX, mstatus::SSTATUS & !mstatus::SD);
        self.asm.rm(Width::Q, op::AND, RAX, Loc::Slot(field!(mstatus)));
        // FS = 3 carries into bit 15, which becomes SD.
        dynasm!(self.asm ; .arch x64
            ; mov ecx, eax
            ; and ecx, mstatus::FS as i32
            ; add ecx, 1 << 13
            ; and ecx, 1 << 15
            ; shl rcx, 63 - 15
            ; or rax, rcx
        );
        self.put(rd, RAX);
    }

    fn switch_interrupts(&mut self, access: CsrAccess, o: &Op) {
        self.read_sstatus(o.rd);
        let (number, bits) = match access {
            CsrAccess::Set => (1, mstatus::SIE as i32),
            _ => (4, !(mstatus::SIE as i32)),
        };
        self.asm.rm_imm(Width::Q, number, Loc::Slot(field!(mstatus)), bits);
    }
}
