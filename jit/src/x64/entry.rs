//! Code that every block shares: the way into generated code and out of it, and the ways to Rust and back.
//!
//! On the host's stack generated code has one frame, which [`emit`]'s `enter` makes.
//!
//! | code | takes | result | clobbers |
//! |---|---|---|---|
//! | `exit_at`, `exit_to` | offset or address in rax | | |
//! | `exit_polled` | address in rax, 1 + offset of the jump in ecx | | |
//! | `exit_link` | what [`unlinked`] gives in eax, number of the page in edx, what that is measured from in rcx | | |
//! | `load`, `store` | address in rax, site in ecx, value in rdx | what to add for the host's address in rcx | rax, rdx |
//! | `near` | address in rax, [`Place::packed`](tlb::Place::packed) in edx | not zero if the TLB does not know it | rax, rdx |
//! | `step`, `call` | operation in rax, site in ecx | | rax, rcx, rdx |
//! | `fp_on` | site in ecx, instruction in edx | | rax, rcx, rdx, but no scratch register of floating point |
//! | `interpret` | site in ecx | | |

use dynasm::dynasm;
use dynasmrt::DynasmApi;
use frontend::ir::Fmt;

use super::asm::{Asm, Cc, Label, Width, op};
use super::regs::{F_PINS, Loc, PINS, RAX, RCX, RDX, VOLATILE_PINS, f_slot, field, x_slot};
use super::tlb::{self, READ, WRITE};
use super::vex::Rm;
use crate::codegen::{Thunks, exit, status};
use crate::context::mstatus;

/// What floating-point code takes from memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Constant {
    /// The upper half of a boxed single.
    Box,
    SignS,
    SignD,
    NanS,
    NanD,
}

/// In the order of [`Constant`].
const CONSTANTS: [u64; 5] =
    [0xffff_ffff_0000_0000, 0x8000_0000, 0x8000_0000_0000_0000, 0xffff_ffff_7fc0_0000, 0x7ff8_0000_0000_0000];

impl Constant {
    /// Where it is in the arena: they come first.
    pub(super) fn place(self) -> u32 {
        16 * self as u32
    }
}

/// MXCSR with all exceptions masked and none raised, rounding to nearest.
const MXCSR: u32 = 0x1f80;

/// Bits of an offset in a page.
const OFFSET_BITS: u32 = 12;

/// A direct jump to page offset `target` that is not linked yet, with its displacement so many bytes `before` a place in the code.
pub(super) fn unlinked(target: u16, before: u32) -> u32 {
    debug_assert!(u32::from(target) >> OFFSET_BITS == 0 && before < 1 << (32 - OFFSET_BITS));
    before << OFFSET_BITS | u32::from(target)
}

/// Assembles the shared code for the start of the arena.
pub(crate) fn emit(asm: &mut Asm) -> Thunks {
    emit_constants(asm);
    let tables = Tables::emit(asm);
    let mut thunks = Thunks { enter: emit_enter(asm), ..Thunks::default() };
    let fp_save = emit_fp_save(asm, &tables);
    let fp_load = emit_fp_load(asm, &tables);
    let exit = emit_exits(asm, &mut thunks, fp_save);
    let refuse = emit_refuse(asm, exit);
    thunks.interpret = start(asm);
    asm.mov_imm(RAX, exit::INTERPRET);
    asm.jmp(refuse);
    start(asm);
    let trap = asm.bind_here();
    asm.mov_imm(RAX, exit::TRAP);
    asm.jmp(refuse);
    let shared = Shared { fp_save, fp_load, refuse, trap };
    for log2 in 0..4 {
        thunks.load[log2] = emit_load(asm, &shared, 1 << log2);
        thunks.store[log2] = emit_store(asm, &shared, 1 << log2);
    }
    thunks.near =
        [false, true].map(|stores| std::array::from_fn(|class| emit_near(asm, &shared, stores, class)));
    thunks.step = emit_step(asm, &shared);
    thunks.call = emit_call(asm, &shared);
    thunks.fp_on = [false, true].map(|dirty| emit_fp_on(asm, &shared, dirty));
    asm.resolve();
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

/// Constants between the code.
struct Tables {
    /// fflags for the low six bits of MXCSR.
    flags: Label,
    /// MXCSR for each frm below 4.
    rounding: Label,
    /// MXCSR for Rust code.
    host: Label,
}

impl Tables {
    fn emit(asm: &mut Asm) -> Self {
        let flags = asm.bind_here();
        // IE, DE, ZE, OE, UE, PE against NX, UF, OF, DZ, NV; RISC-V has no flag for denormal operands.
        for mxcsr in 0..64_u8 {
            let bit = |from: u8, to: u8| (mxcsr >> from & 1) << to;
            asm.push(bit(0, 4) | bit(2, 3) | bit(3, 2) | bit(4, 1) | bit(5, 0));
        }
        let rounding = asm.bind_here();
        // RNE, RTZ, RDN, RUP against nearest, down, up, to zero.
        for mode in [0, 3, 1, 2] {
            asm.push_u32(MXCSR | mode << 13);
        }
        let host = asm.bind_here();
        asm.push_u32(MXCSR);
        Self { flags, rounding, host }
    }
}

fn emit_constants(asm: &mut Asm) {
    debug_assert_eq!(asm.here(), 0);
    for constant in CONSTANTS {
        asm.push_u64(constant);
        asm.push_u64(0);
    }
}

fn start(asm: &mut Asm) -> u32 {
    asm.align(16, 0xcc);
    asm.here()
}

fn load_pins(asm: &mut Asm, pins: &[(u8, u8)]) {
    for &(guest, host) in pins {
        asm.rm(Width::Q, op::MOV, host, Loc::Slot(x_slot(guest)));
    }
}

fn store_pins(asm: &mut Asm, pins: &[(u8, u8)]) {
    for &(guest, host) in pins {
        asm.rm(Width::Q, op::STORE, host, Loc::Slot(x_slot(guest)));
    }
}

fn emit_enter(asm: &mut Asm) -> u32 {
    let enter = start(asm);
    dynasm!(asm ; .arch x64
        ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15 ; sub rsp, 8
        ; mov r15, rsi ; mov rax, rdx ; mov rcx, rdi
        ; mov r14, [r15 + field!(native.context)]
    );
    load_pins(asm, &PINS);
    dynasm!(asm ; .arch x64 ; jmp rcx);
    enter
}

/// Returns where to go with the code of the exit in eax.
fn emit_exits(asm: &mut Asm, thunks: &mut Thunks, fp_save: Label) -> Label {
    let exit = asm.label();
    thunks.exit_link = start(asm);
    dynasm!(asm ; .arch x64
        ; mov [r15 + field!(native.link_page)], edx
        ; mov edx, eax
        ; shr edx, OFFSET_BITS as i8
        ; sub rcx, rdx
        ; mov [r15 + field!(native.link_site)], rcx
        ; and eax, (1 << OFFSET_BITS) - 1
        ; add rax, [r15 + field!(page)]
        ; mov [r15 + field!(pc)], rax
        ; mov eax, exit::LINK as i32
    );
    asm.jmp(exit);
    thunks.exit_at = start(asm);
    dynasm!(asm ; .arch x64
        ; add rax, [r15 + field!(page)]
        ; mov [r15 + field!(pc)], rax
        ; mov eax, exit::DISPATCH as i32
    );
    asm.jmp(exit);
    // A killed block is entered with its address in rax.
    thunks.dead = start(asm);
    dynasm!(asm ; .arch x64 ; mov [r15 + field!(pc)], rax ; mov eax, exit::STALE as i32);
    asm.jmp(exit);
    thunks.exit_polled = start(asm);
    dynasm!(asm ; .arch x64 ; mov [r15 + field!(native.polled_at)], ecx);
    thunks.exit_to = asm.here();
    dynasm!(asm ; .arch x64 ; and rax, BYTE -2 ; mov [r15 + field!(pc)], rax);
    thunks.exit = asm.here();
    asm.mov_imm(RAX, exit::DISPATCH);
    asm.bind(exit);
    store_pins(asm, &PINS);
    save_fp_if_live(asm, fp_save);
    dynasm!(asm ; .arch x64
        ; add rsp, BYTE 8 ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbp ; pop rbx ; ret
    );
    exit
}

/// Leaves from inside a thunk: its return address is on the stack, the site in ecx, the code of the exit in eax.
fn emit_refuse(asm: &mut Asm, exit: Label) -> Label {
    start(asm);
    let refuse = asm.bind_here();
    dynasm!(asm ; .arch x64
        ; add rsp, BYTE 8
        ; movzx edx, cx
        ; add rdx, [r15 + field!(page)]
        ; mov [r15 + field!(pc)], rdx
        ; shr ecx, 16
        ; sub [r15 + field!(instret)], rcx
    );
    asm.jmp(exit);
    refuse
}

fn save_fp_if_live(asm: &mut Asm, fp_save: Label) {
    let saved = asm.label();
    dynasm!(asm ; .arch x64 ; test BYTE [r15 + field!(native.fp_live)], 1);
    asm.jcc(Cc::Equal, saved);
    asm.call(fp_save);
    asm.bind(saved);
}

/// Puts the floating-point registers and flags into the state, and MXCSR as Rust wants it. Keeps all general registers.
fn emit_fp_save(asm: &mut Asm, tables: &Tables) -> Label {
    start(asm);
    let fp_save = asm.bind_here();
    let clean = asm.label();
    dynasm!(asm ; .arch x64 ; push rax ; push rcx ; test BYTE [r15 + field!(native.fp_live)], 2);
    asm.jcc(Cc::Equal, clean);
    for (guest, host) in F_PINS {
        asm.f_store(Fmt::D, host, Rm::Slot(f_slot(guest)));
    }
    dynasm!(asm ; .arch x64
        ; stmxcsr [r15 + field!(native.control)]
        ; mov eax, [r15 + field!(native.control)]
        ; and eax, BYTE 63
    );
    asm.lea_label(RCX, tables.flags);
    dynasm!(asm ; .arch x64 ; mov al, [rcx + rax] ; or [r15 + field!(fflags)], al);
    asm.bind(clean);
    asm.lea_label(RCX, tables.host);
    dynasm!(asm ; .arch x64
        ; ldmxcsr [rcx]
        ; mov BYTE [r15 + field!(native.fp_live)], 0
        ; pop rcx ; pop rax ; ret
    );
    fp_save
}

/// The reverse, leaving `fp_live` at cl. Clobbers rdx.
fn emit_fp_load(asm: &mut Asm, tables: &Tables) -> Label {
    start(asm);
    let fp_load = asm.bind_here();
    dynasm!(asm ; .arch x64 ; push rcx ; movzx edx, BYTE [r15 + field!(frm)]);
    asm.lea_label(RCX, tables.rounding);
    dynasm!(asm ; .arch x64 ; ldmxcsr [rcx + rdx * 4]);
    for (guest, host) in F_PINS {
        asm.f_load(Fmt::D, host, Rm::Slot(f_slot(guest)));
    }
    dynasm!(asm ; .arch x64 ; pop rcx ; mov [r15 + field!(native.fp_live)], cl ; ret);
    fp_load
}

/// Calls the function at `callback` of the state, whose arguments but the first are in place, and keeps the
/// floating-point registers live if they are.
fn call_rust(asm: &mut Asm, shared: &Shared, callback: i32) {
    let (live, done) = (asm.label(), asm.label());
    dynasm!(asm ; .arch x64 ; mov rdi, [r15 + field!(native.hart)] ; test BYTE [r15 + field!(native.fp_live)], 1);
    asm.jcc(Cc::NotEqual, live);
    dynasm!(asm ; .arch x64 ; call QWORD [r15 + callback]);
    asm.jmp(done);
    asm.bind(live);
    dynasm!(asm ; .arch x64 ; movzx r8d, BYTE [r15 + field!(native.fp_live)] ; push r8 ; push r8);
    asm.call(shared.fp_save);
    dynasm!(asm ; .arch x64 ; call QWORD [r15 + callback] ; pop rcx ; pop rcx);
    asm.call(shared.fp_load);
    asm.bind(done);
}

/// What follows the call of a memory access: its result is in rax; the guest address and the site are on the stack.
fn finish_access(asm: &mut Asm, shared: &Shared) {
    load_pins(asm, &PINS[..VOLATILE_PINS]);
    dynasm!(asm ; .arch x64 ; pop rdx ; pop rdx ; pop rcx ; test rax, rax);
    asm.jcc(Cc::Equal, shared.trap);
    dynasm!(asm ; .arch x64 ; mov rcx, rax ; sub rcx, rdx ; ret);
}

fn emit_load(asm: &mut Asm, shared: &Shared, size: i32) -> u32 {
    let load = start(asm);
    dynasm!(asm ; .arch x64 ; push rcx);
    let miss = tlb::probe(asm, READ, size, RAX, RCX, RDX);
    dynasm!(asm ; .arch x64 ; add rsp, BYTE 8 ; ret);
    asm.aim(miss);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    // Twice, for the stack is aligned to 16 bytes in a call.
    dynasm!(asm ; .arch x64 ; push rax ; push rax ; mov rsi, rax ; mov edx, size);
    call_rust(asm, shared, field!(native.callbacks.load));
    finish_access(asm, shared);
    load
}

fn emit_store(asm: &mut Asm, shared: &Shared, size: i32) -> u32 {
    let store = start(asm);
    dynasm!(asm ; .arch x64 ; push rcx ; push rdx);
    let miss = tlb::probe(asm, WRITE, size, RAX, RCX, RDX);
    dynasm!(asm ; .arch x64 ; add rsp, BYTE 16 ; ret);
    asm.aim(miss);
    dynasm!(asm ; .arch x64 ; pop rdx);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    dynasm!(asm ; .arch x64 ; push rax ; push rax ; mov rsi, rax ; mov ecx, size);
    call_rust(asm, shared, field!(native.callbacks.store));
    finish_access(asm, shared);
    store
}

fn emit_near(asm: &mut Asm, shared: &Shared, stores: bool, class: usize) -> u32 {
    let near = start(asm);
    let (miss, asked) = (asm.label(), asm.label());
    dynasm!(asm ; .arch x64 ; push rcx);
    tlb::fill_near(asm, (stores, class), miss, asked);
    let filled = asm.bind_here();
    dynasm!(asm ; .arch x64 ; pop rcx ; xor eax, eax ; ret);
    asm.bind(miss);
    dynasm!(asm ; .arch x64 ; pop rcx ; test rsp, rsp ; ret);
    asm.bind(asked);
    tlb::unpack(asm);
    store_pins(asm, &PINS[..VOLATILE_PINS]);
    dynasm!(asm ; .arch x64 ; mov ecx, i32::from(stores) ; mov esi, eax);
    call_rust(asm, shared, field!(native.callbacks.near));
    load_pins(asm, &PINS[..VOLATILE_PINS]);
    asm.jmp(filled);
    near
}

fn emit_step(asm: &mut Asm, shared: &Shared) -> u32 {
    let step = start(asm);
    dynasm!(asm ; .arch x64 ; push rcx);
    store_pins(asm, &PINS);
    dynasm!(asm ; .arch x64 ; mov rsi, rax);
    call_rust(asm, shared, field!(native.callbacks.step));
    load_pins(asm, &PINS);
    dynasm!(asm ; .arch x64 ; pop rcx ; test eax, eax);
    asm.jcc(Cc::NotEqual, shared.trap);
    dynasm!(asm ; .arch x64 ; ret);
    step
}

fn emit_call(asm: &mut Asm, shared: &Shared) -> u32 {
    let call = start(asm);
    dynasm!(asm ; .arch x64 ; push rcx);
    store_pins(asm, &PINS);
    save_fp_if_live(asm, shared.fp_save);
    dynasm!(asm ; .arch x64
        ; shr ecx, 16
        ; neg rcx
        ; mov [r15 + field!(partial)], rcx
        ; mov rsi, rax
        ; mov rdi, [r15 + field!(native.hart)]
        ; call QWORD [r15 + field!(native.callbacks.call)]
        ; mov QWORD [r15 + field!(partial)], 0
        ; mov r14, [r15 + field!(native.context)]
    );
    load_pins(asm, &PINS);
    dynasm!(asm ; .arch x64 ; pop rcx ; test eax, status::TRAP as i32);
    asm.jcc(Cc::NotEqual, shared.trap);
    dynasm!(asm ; .arch x64 ; test eax, eax ; ret);
    call
}

/// Floating-point code needs mstatus.FS to be on, and a rounding mode that the host has.
fn emit_fp_on(asm: &mut Asm, shared: &Shared, dirty: bool) -> u32 {
    let fp_on = start(asm);
    let (off, refused, live) = (asm.label(), asm.label(), asm.label());
    dynasm!(asm ; .arch x64 ; test DWORD [r15 + field!(mstatus)], mstatus::FS as i32);
    asm.jcc(Cc::Equal, off);
    dynasm!(asm ; .arch x64 ; mov eax, exit::INTERPRET as i32 ; cmp BYTE [r15 + field!(frm)], 4);
    asm.jcc(Cc::AboveEqual, refused);
    if dirty {
        dynasm!(asm ; .arch x64 ; or DWORD [r15 + field!(mstatus)], mstatus::FS as i32);
    }
    dynasm!(asm ; .arch x64 ; mov ecx, if dirty { 3 } else { 1 } ; test BYTE [r15 + field!(native.fp_live)], 1);
    asm.jcc(Cc::NotEqual, live);
    asm.jmp(shared.fp_load);
    asm.bind(live);
    dynasm!(asm ; .arch x64 ; mov [r15 + field!(native.fp_live)], cl ; ret);
    asm.bind(off);
    dynasm!(asm ; .arch x64
        ; mov QWORD [r15 + field!(native.trap_cause)], softmmu::cause::ILLEGAL_INSTRUCTION as i32
        ; mov [r15 + field!(native.trap_tval)], rdx
    );
    asm.jmp(shared.trap);
    asm.bind(refused);
    asm.jmp(shared.refuse);
    fp_on
}
