//! What the benchmarks run as a guest: it sets up paging, goes to supervisor mode, and carries out what it finds in a mailbox
//! in its memory: batches of rounds of one of the benchmarks below. It says how long they took by its own clock, so that the way
//! between host and guest does not count.
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

/// What the host and the guest tell each other. The host writes `command`, `rounds`, `batches` and then `request`, the guest
/// the others and then `answer`, which is `request` then.
#[repr(C)]
struct Mailbox {
    request: u64,
    command: u64,
    /// In a batch.
    rounds: u64,
    batches: u64,
    answer: u64,
    /// Of all batches.
    instructions: u64,
    /// Ticks of the clock, of all batches and of the shortest.
    time: u64,
    shortest: u64,
}

#[unsafe(no_mangle)]
static mut MAILBOX: Mailbox = Mailbox {
    request: 0,
    command: 0,
    rounds: 0,
    batches: 0,
    answer: 0,
    instructions: 0,
    time: 0,
    shortest: 0,
};

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
    "virtio" virtio::requests;
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
            let batches = read_volatile(&raw const (*mailbox).batches);
            let (mut sum, mut shortest) = (0, u64::MAX);
            let before = instructions();
            if let Some(bench) = BENCHES.get(command) {
                for _ in 0..batches {
                    let start = time();
                    bench(rounds);
                    let took = time() - start;
                    sum += took;
                    shortest = shortest.min(took);
                }
            }
            write_volatile(&raw mut (*mailbox).instructions, instructions() - before);
            write_volatile(&raw mut (*mailbox).time, sum);
            write_volatile(&raw mut (*mailbox).shortest, shortest);
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

fn time() -> u64 {
    let ticks;
    // SAFETY: as above.
    unsafe { asm!("rdtime {}", out(reg) ticks) };
    ticks
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
