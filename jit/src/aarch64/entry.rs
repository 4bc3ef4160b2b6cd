//! Code that every block shares: the way into generated code and out of it, and the ways to Rust and back.
//!
//! On the host's stack generated code has one frame, which [`emit`]'s `enter` makes.
//!
//! | code | takes | result | clobbers |
//! |---|---|---|---|
//! | `exit_at`, `exit_to` | offset or address in x16 | | |
//! | `exit_polled` | address in x16, 1 + offset of the jump in w17 | | |
//! | `exit_link` | offset in x16, number of the page in w15, where the jump is in x17 | | |
//! | `load`, `store` | address in x16, site in w17, value in x15 | host address in x16 | x14, x17, and x15 by a load |
//! | `step`, `call` | operation in x16, site in w17 | | x14 to x17 |
//! | `fp_on` | site in w17, instruction in w16 | | x16, x17, but no scratch register of floating point |
//! | `underflow` | operations in x16, how many in w17 | | |
//! | `interpret` | site in w17 | | |
//! | `poll` | where to go on in x17 | Z unless the poll word is set | x14, x15 |
//!
//! Those that come back are called by `bl`, but for `poll`, with x30's guest register in the state.

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use softmmu::Context;

use super::asm::{Asm, Cc, ISB, Label, Logic, Width};
use super::fp::fpsr;
use super::regs::{
    EXEC, F_PINS, FP_DIRTY, FP_LIVE, INSTRET, KEPT_PINS, PAGE, PINS, STATE, VOLATILE_PINS, X14, X15, X16,
    f_pinned, f_slot, field, x_slot,
};
use super::tlb::{self, READ, WRITE};
use crate::codegen::{Thunks, exit, status};
use crate::context::mstatus;

/// FPCR while generated code computes: results that are NaN are the default one, which is RISC-V's canonical one.
const FPCR_DN: u32 = 1 << 25;
/// Where FPCR has the rounding mode.
const FPCR_RMODE: u32 = 22;

/// The upper half of a boxed single.
const BOX: u64 = 0xffff_ffff_0000_0000;

/// Both bits that [`STATE`] has, from the lower one on.
const FP_BITS: u64 = 1 | 1 << (FP_DIRTY - FP_LIVE);

/// Assembles the shared code for the start of the arena.
pub(crate) fn emit(asm: &mut Asm) -> Thunks {
    let mut thunks = Thunks { enter: emit_enter(asm), ..Thunks::default() };
    let fp_save = emit_fp_save(asm);
    let fp_load = emit_fp_load(asm);
    let exit = emit_exits(asm, &mut thunks, fp_save);
    let refuse = emit_refuse(asm, exit);
    thunks.interpret = start(asm);
    asm.mov_imm(14, exit::INTERPRET);
    asm.b(refuse);
    start(asm);
    let trap = asm.bind_here();
    asm.mov_imm(14, exit::TRAP);
    asm.b(refuse);
    let shared = Shared { fp_save, fp_load, refuse, trap };
    for log2 in 0..4 {
        thunks.load[log2] = emit_load(asm, &shared, 1 << log2);
        thunks.store[log2] = emit_store(asm, &shared, 1 << log2);
    }
    thunks.step = emit_step(asm, &shared);
    thunks.call = emit_call(asm, &shared);
    thunks.poll = emit_poll(asm);
    thunks.underflow = emit_underflow(asm, &shared);
    thunks.fp_on = [false, true].map(|dirty| emit_fp_on(asm, &shared, dirty));
    let reached = asm.resolve();
    debug_assert!(reached);
    thunks.end = asm.here();
    thunks
}

/// Labels that the thunks share.
struct Shared {
    fp_save: Label,
    fp_load: Label,
    refuse: Label,
    /// As `refuse`, for a trap.
    trap: Label,
}

fn start(asm: &mut Asm) -> u32 {
    asm.align(16, 0);
    asm.here()
}

fn load_pins(asm: &mut Asm, pins: &[(u8, u8)]) {
    for &(guest, host) in pins {
        asm.ldr(host, x_slot(guest));
    }
}

fn store_pins(asm: &mut Asm, pins: &[(u8, u8)]) {
    for &(guest, host) in pins {
        asm.str(host, x_slot(guest));
    }
}

/// Loads the registers for the tables of the context in force.
fn load_context(asm: &mut Asm) {
    const WRITE_PAGES: u32 = (Context::WRITE_OFFSET >> 12) as u32;
    const _: () = assert!(Context::WRITE_OFFSET.is_multiple_of(4096) && WRITE_PAGES < 4096);
    asm.ldr(READ, field!(native.context));
    dynasm!(asm ; .arch aarch64 ; add XSP(WRITE), XSP(READ), WRITE_PAGES, lsl #12);
    load_exec(asm);
}

/// Loads the register for its executable-code cache, which Rust code does not keep.
fn load_exec(asm: &mut Asm) {
    const EXEC_PAGES: u32 = (Context::EXEC_OFFSET >> 12) as u32;
    const _: () = assert!(Context::EXEC_OFFSET.is_multiple_of(4096) && EXEC_PAGES < 4096);
    dynasm!(asm ; .arch aarch64 ; add XSP(EXEC), XSP(READ), EXEC_PAGES, lsl #12);
}

/// Instructions until the poll word is looked at: so many, and up to as many more.
const POLL_BITS: u8 = 9;

/// Lets some instructions pass until the poll word is looked at again; x14 has how many have retired. How many depends on that, or a
/// loop could be left at the same place each time, which a profile would show. Clobbers x14 and x15.
fn emit_limit(asm: &mut Asm) {
    asm.mov_imm(X15, 0x9e37_79b9_7f4a_7c15);
    dynasm!(asm ; .arch aarch64
        ; mul x15, x14, x15
        ; lsr x15, x15, u32::from(64 - POLL_BITS)
        ; add x15, x15, 1 << POLL_BITS
        ; add x14, x14, x15
        ; neg X(INSTRET), x15
    );
    asm.str(X14, field!(native.limit));
}

/// `x15` = instructions retired, also in the state.
fn store_instret(asm: &mut Asm) {
    asm.ldr(X15, field!(native.limit));
    dynasm!(asm ; .arch aarch64 ; add x15, x15, X(INSTRET));
    asm.str(X15, field!(instret));
}

fn emit_enter(asm: &mut Asm) -> u32 {
    let enter = start(asm);
    dynasm!(asm ; .arch aarch64
        ; stp x29, x30, [sp, #-160]!
        ; stp x19, x20, [sp, #16]
        ; stp x21, x22, [sp, #32]
        ; stp x23, x24, [sp, #48]
        ; stp x25, x26, [sp, #64]
        ; stp x27, x28, [sp, #80]
        ; stp d8, d9, [sp, #96]
        ; stp d10, d11, [sp, #112]
        ; stp d12, d13, [sp, #128]
        ; stp d14, d15, [sp, #144]
        ; mov x28, x1
        ; mov x17, x0
        ; mov x16, x2
    );
    load_context(asm);
    asm.ldr(X14, field!(instret));
    emit_limit(asm);
    load_pins(asm, &PINS);
    asm.mov(X15, X16);
    // Code that was written meanwhile may have been fetched before.
    asm.push_u32(ISB);
    dynasm!(asm ; .arch aarch64 ; br x17);
    enter
}

/// Returns where to go with the code of the exit in w14.
fn emit_exits(asm: &mut Asm, thunks: &mut Thunks, fp_save: Label) -> Label {
    let exit = asm.label();
    thunks.exit_link = start(asm);
    asm.str(17, field!(native.link_site));
    asm.word_of_state(false, 15, field!(native.link_page));
    dynasm!(asm ; .arch aarch64 ; add x16, x16, X(PAGE));
    asm.str(X16, field!(pc));
    asm.mov_imm(14, exit::LINK);
    asm.b(exit);
    thunks.exit_at = start(asm);
    dynasm!(asm ; .arch aarch64 ; add x16, x16, X(PAGE));
    asm.str(X16, field!(pc));
    asm.mov_imm(14, exit::DISPATCH);
    asm.b(exit);
    // A killed block is entered with its address in x15.
    thunks.dead = start(asm);
    asm.str(X15, field!(pc));
    asm.mov_imm(14, exit::STALE);
    asm.b(exit);
    thunks.exit_polled = start(asm);
    asm.word_of_state(false, 17, field!(native.polled_at));
    thunks.exit_to = asm.here();
    dynasm!(asm ; .arch aarch64 ; and x16, x16, #0xffff_ffff_ffff_fffe);
    asm.str(X16, field!(pc));
    thunks.exit = asm.here();
    asm.mov_imm(14, exit::DISPATCH);
    asm.bind(exit);
    store_pins(asm, &PINS);
    store_instret(asm);
    save_fp_if_live(asm, fp_save);
    dynasm!(asm ; .arch aarch64
        ; mov x0, x14
        ; ldp d14, d15, [sp, #144]
        ; ldp d12, d13, [sp, #128]
        ; ldp d10, d11, [sp, #112]
        ; ldp d8, d9, [sp, #96]
        ; ldp x27, x28, [sp, #80]
        ; ldp x25, x26, [sp, #64]
        ; ldp x23, x24, [sp, #48]
        ; ldp x21, x22, [sp, #32]
        ; ldp x19, x20, [sp, #16]
        ; ldp x29, x30, [sp], #160
    );
    asm.ret();
    exit
}

/// Leaves from inside a thunk whose frame is gone: the site is in w17, the code of the exit in w14.
fn emit_refuse(asm: &mut Asm, exit: Label) -> Label {
    start(asm);
    let refuse = asm.bind_here();
    load_pins(asm, &PINS[KEPT_PINS..]);
    dynasm!(asm ; .arch aarch64
        ; and w16, w17, #0xffff
        ; add x16, x16, X(PAGE)
        ; lsr w17, w17, #16
        ; sub X(INSTRET), X(INSTRET), x17
    );
    asm.str(X16, field!(pc));
    asm.b(exit);
    refuse
}

fn save_fp_if_live(asm: &mut Asm, fp_save: Label) {
    let saved = asm.label();
    asm.tbz(false, STATE, FP_LIVE, saved);
    asm.bl(fp_save);
    asm.bind(saved);
}

/// Loads or stores the pinned floating-point registers.
fn move_f_pins(asm: &mut Asm, load: bool) {
    for guest in (0..F_PINS).step_by(2) {
        let (Some(first), Some(second)) = (f_pinned(guest), f_pinned(guest + 1)) else { continue };
        // Pairs are addressed by 7 bits, signed, of 8 bytes.
        let at = f_slot(guest) - f_slot(0);
        if load {
            dynasm!(asm ; .arch aarch64 ; ldp D(first), D(second), [x17, at]);
        } else {
            dynasm!(asm ; .arch aarch64 ; stp D(first), D(second), [x17, at]);
        }
    }
}

/// Puts the floating-point registers and flags into the state, and FPCR as Rust wants it. Clobbers x16 and x17.
fn emit_fp_save(asm: &mut Asm) -> Label {
    start(asm);
    let fp_save = asm.bind_here();
    let clean = asm.label();
    asm.tbz(false, STATE, FP_DIRTY, clean);
    asm.add_imm(Width::Q, 17, STATE, f_slot(0).into());
    move_f_pins(asm, false);
    // IOC, DZC, OFC, UFC, IXC are the bits of fflags in the opposite order.
    asm.read_fpsr(X16);
    dynasm!(asm ; .arch aarch64 ; rbit w16, w16 ; lsr w16, w16, #27);
    asm.ldrb(17, field!(fflags));
    dynasm!(asm ; .arch aarch64 ; orr w16, w16, w17);
    asm.strb(X16, field!(fflags));
    asm.bind(clean);
    asm.write_fpcr(31);
    asm.logic_imm(Width::Q, Logic::And, STATE, STATE, !(FP_BITS << FP_LIVE));
    asm.ret();
    fp_save
}

/// The reverse, without the bits of [`STATE`]. Clobbers x16 and x17.
fn emit_fp_load(asm: &mut Asm) -> Label {
    start(asm);
    let fp_load = asm.bind_here();
    asm.ldrb(X16, field!(frm));
    // RNE, RTZ, RDN, RUP are 0, 3, 2, 1 here.
    dynasm!(asm ; .arch aarch64
        ; neg w16, w16
        ; ubfiz w16, w16, FPCR_RMODE, #2
        ; orr w16, w16, FPCR_DN
    );
    asm.write_fpcr(X16);
    asm.write_fpsr(31);
    asm.add_imm(Width::Q, 17, STATE, f_slot(0).into());
    move_f_pins(asm, true);
    asm.mov_imm(X16, BOX);
    dynasm!(asm ; .arch aarch64 ; fmov d3, x16);
    asm.ret();
    fp_load
}

/// Calls the function at `callback` of the state, whose arguments but the first are in place, and keeps the
/// floating-point registers live if they are. That takes some time, so if the poll word is set then, it is looked at soon.
fn call_rust(asm: &mut Asm, shared: &Shared, callback: i32) {
    let (live, done) = (asm.label(), asm.label());
    asm.ldr(0, field!(native.hart));
    asm.tbz(true, STATE, FP_LIVE, live);
    asm.ldr(14, callback);
    dynasm!(asm ; .arch aarch64 ; blr x14);
    asm.b(done);
    asm.bind(live);
    dynasm!(asm ; .arch aarch64 ; str X(STATE), [sp, #-16]!);
    asm.bl(shared.fp_save);
    asm.ldr(14, callback);
    dynasm!(asm ; .arch aarch64 ; blr x14);
    asm.bl(shared.fp_load);
    dynasm!(asm ; .arch aarch64 ; ldr X(STATE), [sp], #16);
    asm.bind(done);
    load_exec(asm);
    let on = asm.label();
    asm.ldr(X15, field!(native.poll));
    dynasm!(asm ; .arch aarch64 ; ldr w15, [x15]);
    asm.cbz(Width::D, false, X15, on);
    asm.ldr(X14, field!(native.limit));
    dynasm!(asm ; .arch aarch64 ; add x14, x14, X(INSTRET));
    asm.str(X14, field!(native.limit));
    asm.mov_imm(INSTRET, 0);
    asm.bind(on);
}

fn push_site(asm: &mut Asm) {
    dynasm!(asm ; .arch aarch64 ; stp x30, x17, [sp, #-16]!);
}

fn pop_site(asm: &mut Asm) {
    dynasm!(asm ; .arch aarch64 ; ldp x30, x17, [sp], #16);
}

/// What follows the call of a memory access.
fn finish_access(asm: &mut Asm, shared: &Shared) {
    asm.mov(X16, 0);
    load_pins(asm, &PINS[..VOLATILE_PINS]);
    pop_site(asm);
    asm.cbz(Width::Q, false, X16, shared.trap);
    asm.ret();
}

fn emit_load(asm: &mut Asm, shared: &Shared, size: u32) -> u32 {
    let load = start(asm);
    push_site(asm);
    let miss = asm.label();
    tlb::locate(asm, READ, size.into(), miss);
    pop_site(asm);
    asm.ret();
    asm.bind(miss);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    asm.mov(1, X16);
    asm.mov_imm(2, size.into());
    call_rust(asm, shared, field!(native.callbacks.load));
    finish_access(asm, shared);
    load
}

fn emit_store(asm: &mut Asm, shared: &Shared, size: u32) -> u32 {
    let store = start(asm);
    push_site(asm);
    let miss = asm.label();
    tlb::locate(asm, WRITE, size.into(), miss);
    pop_site(asm);
    asm.ret();
    asm.bind(miss);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    asm.mov(1, X16);
    asm.mov(2, 15);
    asm.mov_imm(3, size.into());
    call_rust(asm, shared, field!(native.callbacks.store));
    finish_access(asm, shared);
    store
}

/// What Rust code that works on the state finds there. The pin in [`LINK`] is there already.
fn store_all(asm: &mut Asm) {
    store_pins(asm, &PINS[..KEPT_PINS]);
    asm.str(PAGE, field!(page));
    store_instret(asm);
}

fn emit_step(asm: &mut Asm, shared: &Shared) -> u32 {
    let step = start(asm);
    push_site(asm);
    store_all(asm);
    asm.mov(1, X16);
    call_rust(asm, shared, field!(native.callbacks.step));
    asm.mov(X16, 0);
    load_pins(asm, &PINS[..KEPT_PINS]);
    pop_site(asm);
    asm.cbz(Width::Q, true, X16, shared.trap);
    asm.ret();
    step
}

fn emit_call(asm: &mut Asm, shared: &Shared) -> u32 {
    const TRAP_BIT: u8 = status::TRAP.trailing_zeros() as u8;
    let call = start(asm);
    push_site(asm);
    store_all(asm);
    asm.mov(1, X16);
    dynasm!(asm ; .arch aarch64 ; lsr w17, w17, #16 ; neg x17, x17);
    asm.str(17, field!(partial));
    save_fp_if_live(asm, shared.fp_save);
    asm.ldr(0, field!(native.hart));
    asm.ldr(14, field!(native.callbacks.call));
    dynasm!(asm ; .arch aarch64 ; blr x14);
    asm.mov(X16, 0);
    asm.str(31, field!(partial));
    load_context(asm);
    load_pins(asm, &PINS[..KEPT_PINS]);
    pop_site(asm);
    asm.tbz(true, X16, TRAP_BIT, shared.trap);
    asm.cmp_imm12(X16, 0);
    asm.ret();
    call
}

/// Looks at the poll word, and says when to look again.
fn emit_poll(asm: &mut Asm) -> u32 {
    let poll = start(asm);
    let polled = asm.label();
    asm.ldr(X15, field!(native.poll));
    dynasm!(asm ; .arch aarch64 ; ldr w15, [x15] ; cmp w15, #0);
    asm.b_cc(Cc::NotEqual, polled);
    asm.ldr(X14, field!(native.limit));
    dynasm!(asm ; .arch aarch64 ; add x14, x14, X(INSTRET));
    emit_limit(asm);
    asm.bind(polled);
    dynasm!(asm ; .arch aarch64 ; br x17);
    poll
}

/// Looks at UFC, clears it, and has those operations looked at if it was set.
fn emit_underflow(asm: &mut Asm, shared: &Shared) -> u32 {
    let underflow = start(asm);
    let none = asm.label();
    push_site(asm);
    dynasm!(asm ; .arch aarch64 ; stp x14, x15, [sp, #-16]!);
    asm.read_fpsr(14);
    asm.tbz(false, 14, fpsr::UFC_BIT, none);
    asm.logic_imm(Width::Q, Logic::And, 14, 14, !(1 << fpsr::UFC_BIT));
    asm.write_fpsr(14);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    asm.mov(1, X16);
    asm.mov(2, 17);
    call_rust(asm, shared, field!(native.callbacks.underflow));
    load_pins(asm, &PINS[..VOLATILE_PINS]);
    asm.bind(none);
    dynasm!(asm ; .arch aarch64 ; ldp x14, x15, [sp], #16);
    pop_site(asm);
    asm.ret();
    underflow
}

/// Floating-point code needs mstatus.FS to be on, and a rounding mode that the host has.
fn emit_fp_on(asm: &mut Asm, shared: &Shared, dirty: bool) -> u32 {
    let fp_on = start(asm);
    let (off, refused, live) = (asm.label(), asm.label(), asm.label());
    push_site(asm);
    asm.str(X16, field!(native.trap_tval));
    asm.ldr(X16, field!(mstatus));
    asm.tst_imm(Width::Q, X16, mstatus::FS);
    asm.b_cc(Cc::Equal, off);
    asm.ldrb(17, field!(frm));
    dynasm!(asm ; .arch aarch64 ; cmp w17, #4);
    asm.b_cc(Cc::AboveEqual, refused);
    if dirty {
        dynasm!(asm ; .arch aarch64 ; orr x16, x16, mstatus::FS);
        asm.str(X16, field!(mstatus));
    }
    asm.tbz(true, STATE, FP_LIVE, live);
    asm.bl(shared.fp_load);
    asm.bind(live);
    asm.logic_imm(Width::Q, Logic::Orr, STATE, STATE, if dirty { FP_BITS } else { 1 } << FP_LIVE);
    pop_site(asm);
    asm.ret();
    asm.bind(off);
    asm.mov_imm(X16, softmmu::cause::ILLEGAL_INSTRUCTION);
    asm.str(X16, field!(native.trap_cause));
    pop_site(asm);
    asm.b(shared.trap);
    asm.bind(refused);
    asm.mov_imm(14, exit::INTERPRET);
    pop_site(asm);
    asm.b(shared.refuse);
    fp_on
}
