//! From user mode to supervisor mode and back.

use core::arch::{asm, global_asm};

use crate::paging::USER_ALIAS;

// A system call that does nothing: sixteen for each round of the caller in user mode, who has the rounds in a0. The last one
// comes from another place, and goes back to `trap`.
global_asm!(
    ".balign 4",
    "user_calls:",
    ".rept 16",
    "ecall",
    ".endr",
    "addi a0, a0, -1",
    "bnez a0, user_calls",
    "user_ends: ecall",
    ".balign 4",
    "user_trap:",
    "csrrw sp, sscratch, sp",
    "csrr t0, sepc",
    "csrr t1, scause",
    "beq t0, a1, 2f",
    "addi t0, t0, 4",
    "csrw sepc, t0",
    "csrrw sp, sscratch, sp",
    "sret",
    "2: jr a2",
);

/// Sixteen calls from user mode: a trap, a small handler and `sret` each.
pub fn trap(rounds: u64) {
    // SAFETY: user mode runs `user_calls`, which comes back here by the last call; the registers it uses are given up.
    unsafe {
        asm!(
            "la t0, user_trap",
            "csrw stvec, t0",
            "csrw sscratch, sp",
            // SPP = U.
            "li t0, 0x100",
            "csrc sstatus, t0",
            "la a1, user_ends",
            "add a1, a1, {alias}",
            "la t0, user_calls",
            "add t0, t0, {alias}",
            "csrw sepc, t0",
            "la a2, 3f",
            "sret",
            // `csrrw` has exchanged the stack pointer with itself.
            ".balign 4",
            "3:",
            alias = in(reg) USER_ALIAS - 0x8000_0000,
            inout("a0") rounds.max(1) => _,
            out("a1") _, out("a2") _, out("t0") _, out("t1") _,
        );
    }
}
