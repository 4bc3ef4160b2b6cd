//! What the benchmarks run as a guest: it sets up paging, goes to supervisor mode, and carries out what it finds in a mailbox
//! in its memory: rounds of one of the benchmarks below, and then how many instructions that took.
//!
//! Everything runs under Sv39 with one 1 GiB page for memory and one for devices, each at its physical address, as a kernel's
//! linear mapping is; see `paging` for the others.

#![no_std]
#![no_main]

mod context;
mod families;
mod paging;
mod virtio;
mod workloads;

use core::arch::{asm, global_asm};
use core::ptr::{read_volatile, write_volatile};

/// What the host and the guest tell each other. The host writes `command`, `rounds` and then `request`, the guest
/// `instructions` and then `answer`, which is `request` then.
#[repr(C)]
struct Mailbox {
    request: u64,
    command: u64,
    rounds: u64,
    answer: u64,
    instructions: u64,
}

#[unsafe(no_mangle)]
static mut MAILBOX: Mailbox = Mailbox { request: 0, command: 0, rounds: 0, answer: 0, instructions: 0 };

/// Names of the benchmarks, as the host finds them, separated by line ends; the command is the number of the line.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".names")]
#[used]
static NAMES: [u8; NAMES_LENGTH] = names();

type Bench = fn(u64);

macro_rules! benches {
    ($($name:literal $run:path;)*) => {
        const BENCHES: &[Bench] = &[$($run,)*];
        const TEXT: &str = concat!($($name, "\n",)*);
    };
}
benches! {
    "alu" families::alu;
    "immediate" families::immediate;
    "bits" families::bits;
    "multiply" families::multiply;
    "divide" families::divide;
    "load" families::load;
    "store" families::store;
    "branch" families::branch;
    "float" families::float;
    "float-divide" families::float_divide;
    "float-convert" families::float_convert;
    "amo" families::amo;
    "lr-sc" families::lr_sc;
    "csr" families::csr;
    "fence" families::fence;
    "tlb-hit" paging::hit;
    "tlb-miss" paging::miss;
    "tlb-fill" paging::fill;
    "jump-hit" families::jump_hit;
    "jump-miss" paging::jump_miss;
    "linked-loop" families::linked_loop;
    "mmio-read" families::mmio_read;
    "virtio" virtio::round_trip;
    "trap-sret" context::trap;
    "context-switch" paging::context_switch;
    "sieve" workloads::sieve;
    "sort" workloads::sort;
    "matrix" workloads::matrix;
    "hash" workloads::hash;
    "interpreter" workloads::interpreter;
}

const NAMES_LENGTH: usize = TEXT.len() + 1;

const fn names() -> [u8; NAMES_LENGTH] {
    let (mut names, mut at) = ([0; NAMES_LENGTH], 0);
    while at < TEXT.len() {
        names[at] = TEXT.as_bytes()[at];
        at += 1;
    }
    names
}

global_asm!(
    ".pushsection .start, \"ax\"",
    ".global _start",
    "_start:",
    "la sp, STACK",
    "li t0, 1 << 16",
    "add sp, sp, t0",
    // All of memory is open to supervisor mode (PMP entry 0), which has floating point and the counters.
    "li t0, -1",
    "srli t0, t0, 10",
    "csrw pmpaddr0, t0",
    "li t0, 0x1f",
    "csrw pmpcfg0, t0",
    "li t0, -1",
    "csrw mcounteren, t0",
    "csrw medeleg, t0",
    // FS = Initial, MPP = S.
    "li t0, 0x2800",
    "csrw mstatus, t0",
    "la t0, supervisor",
    "csrw mepc, t0",
    "mret",
    ".popsection",
);

#[unsafe(no_mangle)]
static mut STACK: [u128; 4096] = [0; 4096];

#[unsafe(no_mangle)]
extern "C" fn supervisor() -> ! {
    paging::turn_on();
    let mailbox = &raw mut MAILBOX;
    let mut last = 0;
    loop {
        // SAFETY: the mailbox is there for ever; the host writes it only while this waits.
        unsafe {
            let request = read_volatile(&raw const (*mailbox).request);
            if request == last {
                core::hint::spin_loop();
                continue;
            }
            asm!("fence rw, rw");
            let command = read_volatile(&raw const (*mailbox).command) as usize;
            let rounds = read_volatile(&raw const (*mailbox).rounds);
            let before = instructions();
            if let Some(bench) = BENCHES.get(command) {
                bench(rounds);
            }
            write_volatile(&raw mut (*mailbox).instructions, instructions() - before);
            asm!("fence rw, rw");
            write_volatile(&raw mut (*mailbox).answer, request);
            last = request;
        }
    }
}

fn instructions() -> u64 {
    let count;
    // SAFETY: reads a counter that machine mode has opened.
    unsafe { asm!("rdinstret {}", out(reg) count) };
    count
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
