//! Atomic accesses, as instructions of the host on the place that the TLB gives. Misaligned addresses, devices, pages with code
//! and the narrow and the 128-bit operations are left to the interpreter.
//!
//! Hosts with the Large System Extensions have an instruction for each operation; on others it is a loop of exclusive accesses.
//!
//! An AMO is one operation in RISC-V's memory order (volume I, 17.1), while the host orders its load and its store. Release
//! orders the store after what is before, and nothing can come between the load and the store, so that is enough. Acquire would
//! order only the load before what follows, so `aq` becomes acquire and release, which orders both.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::{Amo, AmoOp, Code, Op, Reg};

use super::Translator;
use super::asm::{Access, Cc, Label, Place, Width, op};
use super::regs::{X14, X15, X16, X17, XZR, field};
use super::tlb::{self, READ, WRITE};

/// Instructions of the Large System Extensions, without size and order.
mod lse {
    pub(super) const ADD: u32 = 0x3820_0000;
    /// `memory & !operand`
    pub(super) const CLR: u32 = 0x3820_1000;
    pub(super) const EOR: u32 = 0x3820_2000;
    pub(super) const SET: u32 = 0x3820_3000;
    pub(super) const SMAX: u32 = 0x3820_4000;
    pub(super) const SMIN: u32 = 0x3820_5000;
    pub(super) const UMAX: u32 = 0x3820_6000;
    pub(super) const UMIN: u32 = 0x3820_7000;
    pub(super) const SWP: u32 = 0x3820_8000;
    pub(super) const CAS: u32 = 0x08a0_7c00;
}

/// Barriers.
mod barrier {
    /// All before all.
    pub(super) const DMB_ISH: u32 = 0xd503_3bbf;
    /// Loads before all.
    pub(super) const DMB_ISHLD: u32 = 0xd503_39bf;
    /// Stores before stores.
    pub(super) const DMB_ISHST: u32 = 0xd503_3abf;
}

/// What an atomic operation is ordered with.
#[derive(Clone, Copy)]
struct Order {
    acquire: bool,
    release: bool,
}

impl Order {
    fn of(op: &Op) -> Order {
        let bits = op.c.0 >> 3;
        let acquire = bits & 2 != 0;
        Order { acquire, release: acquire || bits & 1 != 0 }
    }
}

fn size_bits(width: Width) -> u32 {
    if width == Width::Q { 3 << 30 } else { 2 << 30 }
}

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

    /// `x16 = host address`, or to `slow`. Clobbers x14 and x17.
    fn locate(&mut self, o: &Op, width: Width, slow: Label) {
        let table = if o.code == Code::Lr { READ } else { WRITE };
        let address = self.get_no_zero(o.a, X16);
        tlb::locate_aligned(&mut self.asm, table, u64::from(width.bits() / 8), address, slow);
    }

    /// Where to load an old value that [`Self::put_old`] puts into `rd`.
    fn old_target(&self, width: Width, rd: Reg) -> u8 {
        if width == Width::Q { self.pins.pinned(rd).unwrap_or(X17) } else { X17 }
    }

    /// Writes an old value that is in a host register to `rd`.
    fn put_old(&mut self, width: Width, rd: Reg, host: u8) {
        if rd == Reg::SINK {
            return;
        }
        if width == Width::D {
            let d = self.pins.pinned(rd).unwrap_or(host);
            self.asm.sxtw(d, host);
            self.put(rd, d);
        } else {
            self.put(rd, host);
        }
    }

    fn load_reserved(&mut self, width: Width, o: &Op) {
        let (order, old) = (Order::of(o), self.old_target(width, o.rd));
        // Its release bit alone has no meaning.
        if order.acquire {
            if o.c.0 >> 3 & 1 != 0 {
                self.asm.push_u32(barrier::DMB_ISH);
            }
            match width {
                Width::D => dynasm!(self.asm ; .arch aarch64 ; ldar W(old), [x16]),
                Width::Q => dynasm!(self.asm ; .arch aarch64 ; ldar X(old), [x16]),
            }
        } else {
            let load = Access::load(if width == Width::Q { 3 } else { 2 });
            self.asm.access(load, old, Place::Offset(X16, 0), X17);
        }
        // The place is aligned, so bit 0 is free to tell the width.
        if width == Width::Q {
            dynasm!(self.asm ; .arch aarch64 ; orr x16, x16, #1);
        }
        self.asm.str(X16, field!(reservation.place));
        self.asm.str(old, field!(reservation.value));
        self.put_old(width, o.rd, old);
    }

    fn store_conditional(&mut self, width: Width, o: &Op) {
        let (fail, done) = (self.asm.label(), self.asm.label());
        self.asm.ldr(X15, field!(reservation.place));
        self.asm.str(XZR, field!(reservation.place));
        if width == Width::Q {
            dynasm!(self.asm ; .arch aarch64 ; eor x15, x15, #1);
        }
        self.asm.cmp(Width::Q, X15, X16);
        self.asm.b_cc(Cc::NotEqual, fail);
        self.asm.ldr(X15, field!(reservation.value));
        let new = self.get(o.b, X14);
        self.swap_if_equal(width, Order::of(o), new);
        self.asm.cmp(width, X17, X15);
        self.set(Cc::NotEqual, o.rd);
        self.asm.bind(done);
        let rd = o.rd;
        self.cold_branch(fail, done, move |t| {
            t.asm.mov_imm(X16, 1);
            t.put(rd, X16);
        });
    }

    fn compare_and_swap(&mut self, width: Width, o: &Op) {
        self.copy(X15, o.rd);
        let new = self.get(o.b, X14);
        self.swap_if_equal(width, Order::of(o), new);
        self.put_old(width, o.rd, X17);
    }

    /// `x17 = [x16]`, which becomes `new` if it was x15.
    fn swap_if_equal(&mut self, width: Width, order: Order, new: u8) {
        if self.features.lse {
            self.asm.mov(X17, X15);
            let order = u32::from(order.acquire) << 22 | u32::from(order.release) << 15;
            return self.asm.rrr(Width::D, lse::CAS | order | size_bits(width), new, X16, X17);
        }
        let differs = self.asm.label();
        let again = self.asm.bind_here();
        self.load_exclusive(width, order);
        self.asm.cmp(width, X17, X15);
        self.asm.b_cc(Cc::NotEqual, differs);
        // x17 is what x15 is.
        self.store_exclusive(width, order, X17, new);
        self.asm.cbz(Width::D, true, X17, again);
        self.asm.mov(X17, X15);
        self.asm.bind(differs);
        self.fence_after(order);
    }

    /// `x17 = [x16]`
    fn load_exclusive(&mut self, width: Width, order: Order) {
        let acquire = u32::from(order.acquire) << 15;
        self.asm.rrr(Width::D, 0x085f_7c00 | acquire | size_bits(width), X17, X16, 0);
    }

    /// `[x16] = value; status = failed`
    fn store_exclusive(&mut self, width: Width, order: Order, status: u8, value: u8) {
        let release = u32::from(order.release) << 15;
        self.asm.rrr(Width::D, 0x0800_7c00 | release | size_bits(width), value, X16, status);
    }

    /// What follows may pass a store that is exclusive, even one with release.
    fn fence_after(&mut self, order: Order) {
        if order.acquire {
            self.asm.push_u32(barrier::DMB_ISH);
        }
    }

    fn read_modify_write(&mut self, width: Width, o: &Op) {
        let kind = AmoOp::ALL[usize::from(o.aux) % AmoOp::ALL.len()];
        let order = Order::of(o);
        if self.features.lse {
            let mut b = self.get(o.b, X14);
            let opcode = match kind {
                AmoOp::Swap => lse::SWP,
                AmoOp::Add => lse::ADD,
                AmoOp::Xor => lse::EOR,
                AmoOp::And => lse::CLR,
                AmoOp::Or => lse::SET,
                AmoOp::Min => lse::SMIN,
                AmoOp::Max => lse::SMAX,
                AmoOp::Minu => lse::UMIN,
                AmoOp::Maxu => lse::UMAX,
            };
            if kind == AmoOp::And {
                self.asm.rrr(Width::Q, op::ORN, X14, XZR, b);
                b = X14;
            }
            // With xzr as its destination it would acquire nothing.
            let order = u32::from(order.acquire) << 23 | u32::from(order.release) << 22;
            let old = self.old_target(width, o.rd);
            self.asm.rrr(Width::D, opcode | order | size_bits(width), old, X16, b);
            self.put_old(width, o.rd, old);
        } else {
            let again = self.asm.bind_here();
            let b = self.get(o.b, X14);
            self.load_exclusive(width, order);
            self.updated(width, kind, b);
            self.store_exclusive(width, order, X14, X15);
            self.asm.cbz(Width::D, true, X14, again);
            self.fence_after(order);
            self.put_old(width, o.rd, X17);
        }
    }

    /// `fence`. Device accesses are ordered as memory.
    pub(super) fn fence(&mut self, o: &Op) {
        const TSO: i64 = 8 << 8;
        let (loads_before, stores_before) = (o.imm & 0b1010_0000 != 0, o.imm & 0b0101_0000 != 0);
        let (loads_after, stores_after) = (o.imm & 0b1010 != 0, o.imm & 0b0101 != 0);
        if !(loads_before || stores_before) || !(loads_after || stores_after) {
            return;
        }
        let tso = o.imm & TSO != 0;
        if stores_before && loads_after && !tso {
            return self.asm.push_u32(barrier::DMB_ISH);
        }
        if loads_before {
            self.asm.push_u32(barrier::DMB_ISHLD);
        }
        if stores_before && stores_after {
            self.asm.push_u32(barrier::DMB_ISHST);
        }
    }

    /// `x15 = x17 op b`
    fn updated(&mut self, width: Width, kind: AmoOp, b: u8) {
        let smaller = match kind {
            AmoOp::Swap => return self.asm.mov(X15, b),
            AmoOp::Add => return self.asm.rrr(width, op::ADD, X15, X17, b),
            AmoOp::Xor => return self.asm.rrr(width, op::EOR, X15, X17, b),
            AmoOp::And => return self.asm.rrr(width, op::AND, X15, X17, b),
            AmoOp::Or => return self.asm.rrr(width, op::ORR, X15, X17, b),
            AmoOp::Min => Cc::Less,
            AmoOp::Max => Cc::Greater,
            AmoOp::Minu => Cc::Below,
            AmoOp::Maxu => Cc::Above,
        };
        self.asm.cmp(width, X17, b);
        self.asm.csel(width, X15, X17, b, smaller);
    }
}
