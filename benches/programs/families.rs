//! Loops of one kind of instruction each, sixteen times a round unless it says otherwise; the loop itself adds two. What a
//! result is used for is the next of the same kind, so the time is that of a chain and not of many in parallel.

use core::arch::asm;

/// Memory to load from and store to.
static mut DATA: [u64; 64] = [1; 64];

macro_rules! loops {
    ($($(#[$doc:meta])* $name:ident($before:literal, [$($line:literal),*], $times:literal);)*) => {$(
        $(#[$doc])*
        pub fn $name(rounds: u64) {
            // SAFETY: the code uses registers that are given up here, and `DATA` only.
            unsafe {
                asm!(
                    $before,
                    "2:",
                    concat!(".rept ", $times),
                    $($line,)*
                    ".endr",
                    "addi {rounds}, {rounds}, -1",
                    "bnez {rounds}, 2b",
                    rounds = inout(reg) rounds.max(1) => _,
                    inout("a1") &raw mut DATA => _,
                    out("a0") _, out("a2") _, out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("ra") _,
                    out("fa0") _, out("fa1") _, out("fa2") _, out("fa3") _,
                );
            }
        }
    )*};
}
loops! {
    alu("li a0, 1; li a2, 3", ["add a0, a0, a2", "xor a2, a2, a0", "sub a0, a0, a2", "or a2, a2, a0"], 4);
    immediate("li a0, 1", ["addi a0, a0, 5", "slli a0, a0, 3", "andi a0, a0, 0x7f", "addiw a0, a0, -1"], 4);
    bits(".option push; .option arch, +zba, +zbb, +zbs; li a0, 1; li a2, 3",
        ["sh1add a0, a0, a2", "rol a0, a0, a2", "clz a2, a0", "bset a0, a0, a2"], 4);
    multiply("li a0, 3; li a2, 5", ["mul a0, a0, a2", "mulhu a2, a0, a2", "mulw a0, a0, a2", "mulh a2, a2, a0"], 4);
    divide("li a0, -1; li a2, 7", ["divu a0, a0, a2", "remu a3, a0, a2", "ori a0, a0, -64", "addi a2, a3, 3"], 4);
    load("", ["ld a0, 0(a1)", "lw a2, 8(a1)", "lbu a3, 16(a1)", "lh a4, 24(a1)"], 4);
    store("li a0, 7", ["sd a0, 0(a1)", "sw a0, 8(a1)", "sb a0, 16(a1)", "sh a0, 24(a1)"], 4);
    /// Half of them are taken.
    branch("li a0, 1", ["bnez a0, 3f", "addi a0, a0, 1", "3:", "beqz a0, 4f", "4:"], 8);
    float("li a0, 3; fcvt.d.l fa0, a0; fdiv.d fa1, fa0, fa0; fmv.d fa2, fa1",
        ["fadd.d fa2, fa2, fa1", "fmul.d fa2, fa2, fa1", "fmadd.d fa2, fa2, fa1, fa0", "fsub.d fa2, fa2, fa0"], 4);
    float_divide("li a0, 3; fcvt.d.l fa0, a0; fmv.d fa1, fa0", ["fdiv.d fa1, fa1, fa0", "fsqrt.d fa1, fa0"], 8);
    float_convert("li a0, 3", ["fcvt.d.l fa0, a0", "fcvt.s.d fa1, fa0", "fcvt.d.s fa2, fa1", "fcvt.l.d a0, fa2, rtz"], 4);
    amo("li a0, 1; addi a1, a1, 64", ["amoadd.d a2, a0, (a1)", "amoswap.w a2, a0, (a1)"], 8);
    /// Eight pairs.
    lr_sc("addi a1, a1, 128", ["lr.d a0, (a1)", "sc.d a2, a0, (a1)"], 8);
    csr("", ["csrrw a0, sscratch, a0", "csrr a2, sepc"], 8);
    fence("", ["fence rw, rw"], 16);
    /// Sixteen blocks of one instruction and a jump to the next.
    linked_loop("", ["addi a0, a0, 1", "j 3f", "nop", "3:"], 16);
    /// The line status of the UART.
    mmio_read("li a1, 0x10000005", ["lbu a0, 0(a1)"], 16);
}

/// Sixteen calls of two indirect jumps each, to a function and back. Every call has a function of its own, so that every jump leads
/// to one place only: else much of the time is what the host needs when it guesses the wrong one, which differs between runs.
pub fn jump_hit(rounds: u64) {
    // SAFETY: the functions use a register that is given up, as is the one for return addresses.
    unsafe {
        asm!(
            "la a0, 5f",
            "j 2f",
            ".balign 4",
            "5:",
            ".rept 16",
            "c.addi a2, 1",
            "c.jr ra",
            ".endr",
            "2:",
            ".irp function, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "jalr 4 * \\function(a0)",
            ".endr",
            "addi {rounds}, {rounds}, -1",
            "bnez {rounds}, 2b",
            rounds = inout(reg) rounds.max(1) => _,
            out("a0") _, out("a2") _, out("ra") _,
        );
    }
}
