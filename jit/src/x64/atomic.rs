//! Atomic accesses, as instructions of the host on the place that the TLB gives. Misaligned addresses, devices, pages with code
//! and the narrow and the 128-bit operations are left to the interpreter.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Amo, AmoOp, Code, Op, Reg};

use super::Translator;
use super::asm::{Cc, Label, Width, op};
use super::regs::{Loc, RAX, RCX, RDX, field};
use super::tlb::{self, READ, WRITE};

const LOCK: u8 = 0xf0;

impl Translator {
    pub(super) fn atomic(&mut self, o: &Op) {
        let width = match (o.code, Amo(o.c.0).width()) {
            (Code::CasPair, _) | (_, 1 | 2) => return self.step(o),
            (_, 4) => Width::D,
            _ => Width::Q,
        };
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.locate(o, width, slow);
        match o.code {
            Code::Lr => self.load_reserved(width, o),
            Code::Sc => self.store_conditional(width, o),
            Code::Cas => self.compare_and_swap(width, o),
            _ => self.read_modify_write(width, o),
        }
        self.asm.bind(done);
        let op = *o;
        self.cold_branch(slow, done, move |t| t.step(&op));
    }

    /// `rax = host address`, or to `slow`. Clobbers rcx and rdx.
    fn locate(&mut self, o: &Op, width: Width, slow: Label) {
        let table = if o.code == Code::Lr { READ } else { WRITE };
        let size = if width == Width::D { 4 } else { 8 };
        self.copy(RAX, o.a);
        dynasm!(self.asm ; .arch x64 ; test al, (size - 1) as i8);
        self.asm.jcc(Cc::NotEqual, slow);
        tlb::locate(&mut self.asm, table, size, slow);
    }

    /// Writes an old value that is in a host register to `rd`.
    fn put_old(&mut self, width: Width, rd: Reg, host: u8) {
        if rd == Reg::SINK {
            return;
        }
        if width == Width::D {
            let d = self.pins.pinned(rd).unwrap_or(host);
            self.asm.rm(Width::Q, op::MOVSXD, d, Loc::Reg(host));
            self.put(rd, d);
        } else {
            self.put(rd, host);
        }
    }

    /// `prefix opcode reg, [base]`
    fn at(&mut self, prefix: u8, width: Width, opcode: u16, reg: u8, base: u8) {
        self.asm.indexed(prefix, width, false, opcode, reg, base, None, 0);
    }

    fn load_reserved(&mut self, width: Width, o: &Op) {
        self.at(0, width, op::MOV, RCX, RAX);
        // The place is aligned, so bit 0 is free to tell the width.
        if width == Width::Q {
            dynasm!(self.asm ; .arch x64 ; or rax, BYTE 1);
        }
        self.asm.rm(Width::Q, op::STORE, RAX, Loc::Slot(field!(reservation.place)));
        self.asm.rm(Width::Q, op::STORE, RCX, Loc::Slot(field!(reservation.value)));
        self.put_old(width, o.rd, RCX);
    }

    fn store_conditional(&mut self, width: Width, o: &Op) {
        let (fail, done) = (self.asm.label(), self.asm.label());
        self.asm.lea(Width::Q, RCX, RAX, i32::from(width == Width::Q));
        self.asm.rm(Width::Q, op::CMP, RCX, Loc::Slot(field!(reservation.place)));
        dynasm!(self.asm ; .arch x64 ; mov QWORD [r15 + field!(reservation.place)], 0);
        self.asm.jcc(Cc::NotEqual, fail);
        self.mov(RCX, RAX);
        self.asm.rm(Width::Q, op::MOV, RAX, Loc::Slot(field!(reservation.value)));
        let new = self.get(o.b, RDX);
        self.at(LOCK, width, 0x0fb1, new, RCX);
        self.set(Cc::NotEqual, o.rd);
        self.asm.bind(done);
        let rd = o.rd;
        self.cold_branch(fail, done, move |t| {
            t.asm.mov_imm(RAX, 1);
            t.put(rd, RAX);
        });
    }

    fn compare_and_swap(&mut self, width: Width, o: &Op) {
        self.mov(RCX, RAX);
        let new = self.get(o.b, RDX);
        self.copy(RAX, o.rd);
        self.at(LOCK, width, 0x0fb1, new, RCX);
        self.put_old(width, o.rd, RAX);
    }

    fn read_modify_write(&mut self, width: Width, o: &Op) {
        let kind = AmoOp::ALL[usize::from(o.aux) % AmoOp::ALL.len()];
        match kind {
            AmoOp::Swap => {
                self.copy(RCX, o.b);
                self.at(0, width, 0x87, RCX, RAX);
                self.put_old(width, o.rd, RCX);
            }
            AmoOp::Add => {
                self.copy(RCX, o.b);
                self.at(LOCK, width, 0x0fc1, RCX, RAX);
                self.put_old(width, o.rd, RCX);
            }
            AmoOp::And | AmoOp::Or | AmoOp::Xor if o.rd == Reg::SINK => {
                let b = self.get(o.b, RCX);
                // The other direction of the same opcode.
                self.at(LOCK, width, logic(kind) & !2, b, RAX);
            }
            _ => {
                self.mov(RDX, RAX);
                self.at(0, width, op::MOV, RAX, RDX);
                let again = self.asm.bind_here();
                self.updated(width, kind, o);
                self.at(LOCK, width, 0x0fb1, RCX, RDX);
                self.asm.jcc(Cc::NotEqual, again);
                self.put_old(width, o.rd, RAX);
            }
        }
    }

    /// `fence`. The host keeps everything in order but a store before a later load.
    pub(super) fn fence(&mut self, o: &Op) {
        const TSO: i64 = 8 << 8;
        let (stores_before, loads_after) = (o.imm & 0b0101_0000 != 0, o.imm & 0b1010 != 0);
        if o.imm & TSO == 0 && stores_before && loads_after {
            dynasm!(self.asm ; .arch x64 ; lock or DWORD [rsp], BYTE 0);
        }
    }

    /// `rcx = rax op b`
    fn updated(&mut self, width: Width, kind: AmoOp, o: &Op) {
        let smaller = match kind {
            AmoOp::Min => Cc::Less,
            AmoOp::Max => Cc::Greater,
            AmoOp::Minu => Cc::Below,
            AmoOp::Maxu => Cc::Above,
            _ => {
                self.mov(RCX, RAX);
                return self.asm.rm(width, logic(kind), RCX, self.pins.loc(o.b));
            }
        };
        self.copy(RCX, o.b);
        self.asm.rm(width, op::CMP, RAX, Loc::Reg(RCX));
        self.asm.rm(width, 0x0f40 | smaller as u16, RCX, Loc::Reg(RAX));
    }
}

fn logic(kind: AmoOp) -> u16 {
    match kind {
        AmoOp::And => op::AND,
        AmoOp::Or => op::OR,
        _ => op::XOR,
    }
}
