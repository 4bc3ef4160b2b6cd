//! Loads and stores.
//!
//! A run ([`crate::codegen::runs`]) has one probe of the TLB for each base, wide enough for all its accesses, and then each access is
//! one instruction. When a probe fails, the whole run is carried out by cold code instead, which asks for each access by itself.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Code, Op, Reg};

use super::Translator;
use super::alu;
use super::asm::{Cc, Label, Width, op};
use super::regs::{Loc, Pins, RAX, RCX, RDX, f_pinned, f_slot, field};
use super::tlb::{self, ADDEND, READ, WRITE};
use super::vex::Rm;
use crate::codegen::float::{is_float, is_inline};
use crate::codegen::runs::{Base, Rules, Run, bytes, is_access, is_float_access, is_store};

/// Where the addends of a run's bases are kept.
const ADDENDS: [u8; 2] = [RCX, RDX];

impl Rules for Pins {
    fn is_simple(&self, op: &Op) -> bool {
        if is_float(op.code) { is_inline(op) } else { alu::is_simple(op.code) }
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
        let range = index..index + run.length;
        let (slow, done) = (self.asm.label(), self.asm.label());
        let boxed = self.boxed;
        for (base, addend) in run.bases.iter().flatten().zip(ADDENDS) {
            self.probe(base, addend, slow);
        }
        for op in &ops[range.clone()] {
            if is_access(op) {
                self.fast_access(op, ADDENDS[run.base(op.a)]);
            } else {
                self.simple(op);
            }
        }
        self.asm.bind(done);
        self.cold_branch(slow, done, move |t| {
            t.boxed = boxed;
            for index in range {
                let op = t.ops[index];
                if is_access(&op) {
                    t.slow_access(&op);
                } else {
                    t.simple(&op);
                }
            }
        });
        run.length
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

    /// Finds the addend for all accesses by a base, in `slot`.
    fn probe(&mut self, base: &Base, slot: u8, slow: Label) {
        let table = if base.stores { WRITE } else { READ };
        let limit = tlb::last_offset((base.high - base.low) as i32);
        // The way from the address to the slot is what a chain of pointers waits for, so it does not go through a copy.
        let address = match self.pins.pinned(base.reg) {
            Some(host) if base.low == 0 => host,
            _ => {
                self.address(base.reg, base.low);
                RAX
            }
        };
        dynasm!(self.asm ; .arch x64
            ; rorx Rq(slot), Rq(address), tlb::ROTATE
            ; and Rd(slot), tlb::MASK
        );
        self.mov(RAX, address);
        dynasm!(self.asm ; .arch x64 ; sub rax, [r14 + Rq(slot) + table] ; cmp rax, limit);
        self.asm.jcc(Cc::Above, slow);
        dynasm!(self.asm ; .arch x64 ; mov Rq(slot), [r14 + Rq(slot) + table + ADDEND]);
    }

    /// An access by `[base + addend + offset]`. Of the scratch registers it may use rax, and rdx if the base is not pinned.
    fn fast_access(&mut self, op: &Op, addend: u8) {
        let (base, scratch) = match self.pins.pinned(op.a) {
            Some(host) => (host, RAX),
            None => {
                self.copy(RAX, op.a);
                (RAX, RDX)
            }
        };
        self.access(op, base, Some(addend), op.imm as i32, scratch);
    }

    /// An access by way of the shared code.
    fn slow_access(&mut self, op: &Op) {
        let log2 = bytes(op).trailing_zeros() as usize;
        let store = is_store(op);
        self.address(op.a, op.imm);
        match (op.code, f_pinned(op.b.0)) {
            (Code::FStore, Some(host)) => self.asm.f_to_bits(true, RDX, host),
            (Code::FStore, None) => self.asm.rm(Width::Q, &[op::MOV], RDX, Loc::Slot(f_slot(op.b.0))),
            _ if store => self.copy(RDX, op.b),
            _ => {}
        }
        let site = self.site(op.at);
        self.asm.mov_imm(RCX, site.into());
        self.call_shared(if store { self.thunks.store[log2] } else { self.thunks.load[log2] });
        self.access(op, RAX, None, 0, RDX);
    }

    /// The access itself, at `[base + index + disp]`.
    fn access(&mut self, o: &Op, base: u8, index: Option<u8>, disp: i32, scratch: u8) {
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
            return self.asm.indexed(prefix, width, byte, &[opcode], value, base, index, disp);
        }
        let d = self.pins.pinned(o.rd).unwrap_or(scratch);
        let (width, opcode): (_, &[u8]) = match o.code {
            Code::Lb => (Width::Q, &[0x0f, 0xbe]),
            Code::Lbu => (Width::D, &[0x0f, 0xb6]),
            Code::Lh => (Width::Q, &[0x0f, 0xbf]),
            Code::Lhu => (Width::D, &[0x0f, 0xb7]),
            Code::Lw => (Width::Q, &[op::MOVSXD]),
            Code::Lwu => (Width::D, &[op::MOV]),
            _ => (Width::Q, &[op::MOV]),
        };
        self.asm.indexed(0, width, false, opcode, d, base, index, disp);
        self.put(o.rd, d);
    }
}
