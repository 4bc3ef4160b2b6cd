//! Loads and stores.
//!
//! A run ([`crate::codegen::runs`]) has one probe of the TLB for each base, wide enough for all its accesses, and then each access is
//! one instruction, or two that are next to each other are. When a probe fails, the whole run is carried out by cold code instead,
//! which asks for each access by itself.

use dynasm::dynasm;
use frontend::ir::{Code, Op, Reg, Shape};

use super::asm::{Access, Cc, Label, Logic, Place, Width, op};
use super::regs::{Pins, X14, X15, X16, X17, XZR, f_pinned, field};
use super::tlb::{self, READ, WRITE};
use super::{Cold, Translator, alu};
use crate::codegen::float::{is_float, is_inline};
use crate::codegen::pending::Pending;
use crate::codegen::runs::{BASES, Base, MAX_RUN, Rules, Run, bytes, is_access, is_float_access, is_store};

/// Where a run keeps what it knows of the host addresses of its bases.
const PLACES: [u8; BASES] = [X15, X14];
/// Up to so many bytes a probe is wider than the accesses, to save the addition for an address.
const MAX_SLACK: i64 = 32;

/// Accesses farther from each other than so many operations are not carried out together.
const MAX_DISTANCE: usize = 12;

/// How accesses by a base find their place.
#[derive(Clone, Copy)]
enum Found {
    /// The register has the addend, and each access is at the address in the base's own register.
    Addend,
    /// The register has the host address of this offset from what the base is at the start of the run.
    Address(i64),
}

/// The accesses of a run, with the indices of its operations.
struct Accesses {
    /// Offsets from what their bases are at the start of the run.
    offsets: [i64; MAX_RUN],
    /// A bit for each that is carried out together with an earlier one.
    early: u64,
    /// For each that an earlier one waits for, that.
    late: [Option<u8>; MAX_RUN],
}

/// An access of a loop that keeps its page.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// Of the operation in the block.
    pub(super) index: usize,
    /// The host registers with the page's number, or [`NO_PAGE`], and with what to add to get the host's address.
    pub(super) page: u8,
    pub(super) addend: u8,
}

/// No page's number. The TLB may be another after Rust code has run.
pub(super) const NO_PAGE: u64 = u64::MAX;

/// What the cold code of a run goes by.
pub(super) struct SlowRun {
    /// From where on it is, and where the block goes on.
    slow: Label,
    done: Label,
    /// The run's operations in the block.
    index: usize,
    length: usize,
    /// [`Translator::boxed`] and [`Translator::pending`] before the run.
    boxed: u32,
    pending: Pending,
}

impl Rules for Pins {
    fn is_simple(&self, op: &Op) -> bool {
        alu::is_simple(op.code) || is_float(op.code) && is_inline(op)
    }

    fn allow_second(&self, _: Reg, _: Reg) -> bool {
        true
    }
}

impl Translator {
    /// The run that starts with the access at `index`; returns its length.
    pub(super) fn accesses(&mut self, ops: &[Op], index: usize) -> usize {
        let run = Run::worthwhile(&self.pins, &ops[index..]);
        let (slow, boxed, pending) = (self.asm.label(), self.boxed, self.pending);
        if run.length == 1 {
            self.single_access(&ops[index], index, slow);
        } else {
            self.run(&run, &ops[index..index + run.length], index, slow);
        }
        let done = self.asm.bind_here();
        self.cold.push(Cold::Run(SlowRun { slow, done, index, length: run.length, boxed, pending }));
        run.length
    }

    /// Several accesses, whose first is at `first` in the block.
    fn run(&mut self, run: &Run, ops: &[Op], first: usize, slow: Label) {
        let mut found = [Found::Addend; BASES];
        for ((base, place), found) in run.bases().iter().zip(PLACES).zip(&mut found) {
            *found = self.probe(base, place, ops, slow);
        }
        let mut accesses = Accesses::of(run, ops);
        for (at, op) in ops.iter().enumerate() {
            self.index = first + at;
            if at != 0 {
                self.guard(self.index);
            }
            if !is_access(op) {
                self.simple(op);
                continue;
            }
            if accesses.early >> at & 1 == 1 {
                continue;
            }
            let base = run.base(op.a);
            match (found[base], accesses.late[at]) {
                (Found::Addend, _) => {
                    let reg = self.get(op.a, X16);
                    self.access(op, Place::Index(reg, PLACES[base]));
                }
                (Found::Address(start), Some(other)) => {
                    let other = usize::from(other);
                    self.pair(ops, &accesses, [other, at], PLACES[base], start);
                }
                (Found::Address(start), None) => match self.partner(run, ops, &mut accesses, at, start) {
                    Some(other) if accesses.early >> other & 1 == 1 => {
                        self.pair(ops, &accesses, [at, other], PLACES[base], start);
                    }
                    Some(_) => {}
                    None => self.access(op, Place::Offset(PLACES[base], accesses.offsets[at] - start)),
                },
            }
        }
    }

    /// What can be carried out with the access at `at` by one instruction: an access next to it, which either is early now, or
    /// which this one waits for.
    fn partner(
        &self,
        run: &Run,
        ops: &[Op],
        accesses: &mut Accesses,
        at: usize,
        start: i64,
    ) -> Option<usize> {
        let op = &ops[at];
        let (access, size) = (access_of(op), bytes(op));
        let register = |op: &Op| match op.code {
            Code::FLoad => f_pinned(op.rd.0),
            Code::FStore => f_pinned(op.b.0),
            _ if is_store(op) && op.b == Reg::ZERO => Some(XZR),
            _ if is_store(op) => self.pins.pinned(op.b),
            _ => self.pins.pinned(op.rd),
        };
        let own = register(op)?;
        let first = self.index - at;
        for other in at + 1..ops.len().min(at + MAX_DISTANCE) {
            // A saved operand, or a look at what has been computed, is what neither can be moved across.
            if self.underflow.before(first + other).next().is_some() {
                return None;
            }
            let next = &ops[other];
            let is_next = next.code == op.code
                && next.a == op.a
                && (!is_float_access(op) || next.fmt() == op.fmt())
                && (accesses.offsets[other] - accesses.offsets[at]).abs() == size
                && access.reaches(accesses.offsets[at].min(accesses.offsets[other]) - start)
                && register(next).is_some_and(|reg| is_store(op) || reg != own);
            if !is_next || accesses.early >> other & 1 == 1 || accesses.late[other].is_some() {
                continue;
            }
            let is_free = |moved: usize, later: bool| {
                (at + 1..other).all(|across| accesses.are_independent(run, ops, moved, across, later))
            };
            // What waits has been compared with what is before its end only.
            let waits = accesses.late[at..other].iter().any(Option::is_some);
            if !waits && is_free(other, false) {
                accesses.early |= 1 << other;
                return Some(other);
            }
            if is_free(at, true) {
                accesses.late[other] = Some(at as u8);
                return Some(other);
            }
        }
        None
    }

    /// Two accesses next to each other.
    fn pair(&mut self, ops: &[Op], accesses: &Accesses, mut pair: [usize; 2], place: u8, start: i64) {
        pair.sort_by_key(|&at| accesses.offsets[at]);
        let offset = accesses.offsets[pair[0]] - start;
        let [low, high] = pair.map(|at| &ops[at]);
        let access = access_of(low);
        if is_store(low) {
            let [t, u] = [low, high].map(|op| match op.code {
                Code::FStore => self.f_get(op.fmt(), op.b, X17),
                _ => self.stored(op, X17),
            });
            return self.asm.access_pair(access, t, u, place, offset);
        }
        if !is_float_access(low) {
            let [t, u] = [low, high].map(|op| self.target(op.rd));
            [low, high].iter().for_each(|op| self.pending.set_narrow(op.rd, false));
            return self.asm.access_pair(access, t, u, place, offset);
        }
        let [t, u] = [low, high].map(|op| self.f_target(op.rd));
        self.asm.access_pair(access, t, u, place, offset);
        for (op, d) in [(low, t), (high, u)] {
            self.f_put(op.fmt(), op.rd, d);
            self.note_result(op);
        }
    }

    /// A run whose probe has failed.
    pub(super) fn slow_run(&mut self, run: SlowRun) {
        self.asm.bind(run.slow);
        (self.boxed, self.pending) = (run.boxed, run.pending);
        let mut settled = 0;
        for at in run.index..run.index + run.length {
            let op = self.ops[at];
            self.index = at;
            if at != run.index {
                self.guard(at);
            }
            if is_access(&op) {
                self.settle(settled, at);
                settled = at;
                self.slow_access(&op);
            } else {
                self.simple(&op);
            }
        }
        self.complete();
        self.asm.b(run.done);
    }

    /// An access with a probe of its own.
    fn single_access(&mut self, op: &Op, index: usize, slow: Label) {
        let table = if is_store(op) { WRITE } else { READ };
        let address = self.address(op.a, op.imm);
        if let Some(kept) = self.kept.iter().find(|kept| kept.index == index).copied() {
            self.ask_kept(kept, table, bytes(op), address, slow);
            return self.access(op, Place::Index(address, kept.addend));
        }
        tlb::probe(&mut self.asm, table, bytes(op), address, X15, slow);
        self.access(op, Place::Index(address, X15));
    }

    /// Asks whether an access is in the page that it keeps, and else looks for another. Of an address that is not aligned, it keeps
    /// none: the access could cross the page's edge.
    fn ask_kept(&mut self, kept: Kept, table: u8, size: i64, address: u8, slow: Label) {
        const PAGE_BITS: u8 = softmmu::PAGE_SIZE.ilog2() as u8;
        let Kept { page, addend, .. } = kept;
        let (other, found) = (self.asm.label(), self.asm.label());
        self.asm.cmp_shifted_right(page, address, PAGE_BITS);
        self.asm.b_cc(Cc::NotEqual, other);
        self.asm.bind(found);
        self.cold(move |t| {
            t.asm.bind(other);
            t.asm.mov(X14, address);
            t.begin_stretch();
            tlb::probe(&mut t.asm, table, size, X14, addend, slow);
            t.asm.mov(address, X14);
            t.asm.bitfield(Width::Q, false, page, address, PAGE_BITS, 63);
            if size > 1 {
                t.asm.tst_imm(Width::Q, address, size as u64 - 1);
                t.asm.csinv(Width::Q, page, page, XZR, Cc::Equal);
            }
            t.asm.b(found);
            t.end_stretch();
        });
    }

    /// `cbo.zero`
    pub(super) fn zero_block(&mut self, o: &Op) {
        const BLOCK: i64 = softmmu::CACHE_BLOCK as i64;
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.ldrb(X16, field!(zero_allowed));
        self.asm.cbz(Width::D, false, X16, slow);
        let a = self.get(o.a, X16);
        self.asm.logic_imm(Width::Q, Logic::And, X16, a, -BLOCK as u64);
        tlb::locate(&mut self.asm, WRITE, BLOCK, slow);
        dynasm!(self.asm ; .arch aarch64
            ; stp xzr, xzr, [x16]
            ; stp xzr, xzr, [x16, #16]
            ; stp xzr, xzr, [x16, #32]
            ; stp xzr, xzr, [x16, #48]
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

    /// The register with what a store stores.
    fn stored(&mut self, op: &Op, scratch: u8) -> u8 {
        if bytes(op) == 8 { self.get(op.b, scratch) } else { self.get_low(op.b, scratch) }
    }

    /// A register with `base + offset`: that of the base, or x16.
    fn address(&mut self, base: Reg, offset: i64) -> u8 {
        let base = self.get_no_zero(base, X16);
        if offset == 0 {
            return base;
        }
        self.asm.add_imm(Width::Q, X16, base, offset);
        X16
    }

    /// Finds what the accesses among `ops` by a base need.
    fn probe(&mut self, base: &Base, place: u8, ops: &[Op], slow: Label) -> Found {
        let table = if base.stores { WRITE } else { READ };
        let own = |op: &&Op| is_access(op) && op.a == base.reg;
        let is_plain = self.pins.pinned(base.reg).is_some() && ops.iter().filter(own).all(|op| op.imm == 0);
        let low = if (0..=MAX_SLACK).contains(&base.low) { 0 } else { base.low };
        let address = self.address(base.reg, low);
        tlb::probe(&mut self.asm, table, base.high - low, address, place, slow);
        if is_plain {
            return Found::Addend;
        }
        self.asm.rrr(Width::Q, op::ADD, place, place, address);
        Found::Address(low)
    }

    /// An access by way of the shared code.
    fn slow_access(&mut self, op: &Op) {
        let log2 = bytes(op).trailing_zeros() as usize;
        let store = is_store(op);
        let address = self.address(op.a, op.imm);
        self.asm.mov(X16, address);
        if op.code == Code::FStore {
            self.f_copy_bits(X15, op.b);
        } else if store {
            self.copy(X15, op.b);
        }
        let site = self.site(op.at);
        self.asm.mov_imm(X17, site.into());
        self.call_shared(if store { self.thunks.store[log2] } else { self.thunks.load[log2] });
        self.access(op, Place::Offset(X16, 0));
    }

    /// The access itself. Clobbers x16 and x17.
    fn access(&mut self, o: &Op, place: Place) {
        if is_float_access(o) {
            return self.f_access(o, place);
        }
        if is_store(o) {
            // x16 may have the address.
            let value = self.stored(o, X17);
            return self.asm.access(access_of(o), value, place, X16);
        }
        let d = self.pins.pinned(o.rd).unwrap_or(X16);
        self.asm.access(access_of(o), d, place, X17);
        self.put(o.rd, d);
    }
}

/// The host's access for one of the guest's.
fn access_of(op: &Op) -> Access {
    let log2 = bytes(op).trailing_zeros() as u8;
    match op.code {
        Code::FLoad => Access::load(log2).vector(),
        Code::FStore => Access::store(log2).vector(),
        _ if is_store(op) => Access::store(log2),
        Code::Lb | Code::Lh | Code::Lw => Access::load_signed(log2),
        _ => Access::load(log2),
    }
}

impl Accesses {
    fn of(run: &Run, ops: &[Op]) -> Self {
        let mut accesses = Self { offsets: [0; MAX_RUN], early: 0, late: [None; MAX_RUN] };
        let mut moved = [0; BASES];
        for (at, op) in ops.iter().enumerate() {
            if is_access(op) {
                accesses.offsets[at] = moved[run.base(op.a)] + op.imm;
            } else if let Some((index, by)) = run.moves(op) {
                moved[index] += by;
            }
        }
        accesses
    }

    /// Whether the access at `moved` can change places with the operation at `across`: to be carried out later, or before it.
    fn are_independent(&self, run: &Run, ops: &[Op], moved: usize, across: usize, later: bool) -> bool {
        let (access, other) = (&ops[moved], &ops[across]);
        // The interpreter may go on with the block from a floating-point operation: it can repeat a load, but nothing may be
        // missing.
        if other.code == Code::FpOn || is_float(other.code) && (later || is_store(access)) {
            return false;
        }
        if is_access(other) && (is_store(access) || is_store(other)) {
            let [a, b] = [moved, across].map(|at| (self.offsets[at], self.offsets[at] + bytes(&ops[at])));
            if run.base(access.a) != run.base(other.a) || a.0 < b.1 && b.0 < a.1 {
                return false;
            }
        }
        let own = match access.code {
            Code::FLoad => bit_of_f(access.rd),
            Code::FStore => bit_of_f(access.b),
            _ if is_store(access) => bit_of_x(access.b),
            _ => bit_of_x(access.rd),
        };
        uses(other) & own == 0
    }
}

fn bit_of_x(reg: Reg) -> u128 {
    1 << reg.index()
}

fn bit_of_f(reg: Reg) -> u128 {
    1 << (64 + (reg.0 & 31))
}

/// The registers of an access or of an operation that may be in a run.
fn uses(op: &Op) -> u128 {
    let x = |regs: &[Reg]| regs.iter().fold(0, |all, &reg| all | bit_of_x(reg));
    let f = |regs: &[Reg]| regs.iter().fold(0, |all, &reg| all | bit_of_f(reg));
    match op.code.shape() {
        Shape::Ri => x(&[op.rd]),
        Shape::Rr | Shape::Rri | Shape::Load => x(&[op.rd, op.a]),
        Shape::Rrr => x(&[op.rd, op.a, op.b]),
        Shape::Store => x(&[op.a, op.b]),
        Shape::FLoad => f(&[op.rd]) | x(&[op.a]),
        Shape::FStore => f(&[op.b]) | x(&[op.a]),
        Shape::Fi => f(&[op.rd]),
        Shape::Fr => f(&[op.rd, op.a]),
        Shape::Frr => f(&[op.rd, op.a, op.b]),
        Shape::Frrr => f(&[op.rd, op.a, op.b, op.c]),
        Shape::FtoX => x(&[op.rd]) | f(&[op.a]),
        Shape::FcmpX => x(&[op.rd]) | f(&[op.a, op.b]),
        Shape::XtoF => f(&[op.rd]) | x(&[op.a]),
        _ => u128::MAX,
    }
}
